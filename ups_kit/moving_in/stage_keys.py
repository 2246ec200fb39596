"""The ancestor's keys of single stages, and what has become of each."""

from __future__ import annotations

from typing import Any

from ..keys import Limits
from .dialect import ABOVE_0, AT_LEAST_0, SHARE, OldKey

STAGE = "stages.*"
_SCHEDULER = f"{STAGE}.scheduler"
KEYS = (
    OldKey(f"{STAGE}.epochs", int, 1, "carried", "stages.*.budget.epochs", "0 leaves the stage out", limits=AT_LEAST_0),
    OldKey(
        f"{STAGE}.optimizer.name",
        str,
        "adam",
        "changed",
        "stages.*.optimizer.use",
        "muon_hybrid is muon, of the matrices inside blocks alone; sgd has Nesterov momentum",
        Limits(choices=("adam", "adamw", "sgd", "muon_hybrid")),
        caseless=True,
    ),
    OldKey(f"{STAGE}.optimizer.lr", float, 1e-3, "carried", "stages.*.optimizer.lr", "of muon also rest_lr", ABOVE_0),
    OldKey(
        f"{STAGE}.optimizer.weight_decay",
        float,
        0.0,
        "changed",
        "stages.*.optimizer.weight_decay",
        "biases, norms and embeddings have none; of muon also rest_weight_decay",
        AT_LEAST_0,
    ),
    OldKey(
        f"{STAGE}.optimizer.betas",
        tuple[float, float],
        None,
        "carried",
        "stages.*.optimizer.betas",
        limits=SHARE,
        only="not of sgd",
    ),
    OldKey(
        f"{STAGE}.optimizer.eps",
        float,
        None,
        "carried",
        "stages.*.optimizer.eps",
        limits=ABOVE_0,
        only="of adam and adamw",
    ),
    OldKey(
        f"{STAGE}.optimizer.momentum", float, 0.9, "carried", "stages.*.optimizer.momentum", limits=SHARE, only="of sgd"
    ),
    OldKey(
        f"{STAGE}.optimizer.muon_momentum",
        float,
        0.95,
        "carried",
        "stages.*.optimizer.momentum",
        limits=SHARE,
        only="of muon_hybrid",
    ),
    OldKey(f"{STAGE}.optimizer.muon_ns_steps", int, 5, "elsewhere", remark="always five"),
    OldKey(f"{STAGE}.optimizer.muon_backend", str, "auto", "elsewhere", remark="there is one"),
    OldKey(
        f"{_SCHEDULER}.name",
        str,
        None,
        "changed",
        "stages.*.schedule.use",
        "steplr: step, in optimiser steps; cosineannealinglr: cosine over the stage's whole budget; reducelronplateau: "
        "plateau, of the validation score",
        Limits(choices=("steplr", "cosineannealinglr", "reducelronplateau")),
        caseless=True,
    ),
    OldKey(
        f"{_SCHEDULER}.step_size",
        int,
        1,
        "changed",
        "stages.*.schedule.steps",
        "optimiser steps, there epochs: as many as so many epochs have where the data's size is known, else a cosine "
        "to the same end",
        ABOVE_0,
        only="of steplr",
    ),
    OldKey(
        f"{_SCHEDULER}.gamma",
        float,
        0.5,
        "carried",
        "stages.*.schedule.factor",
        limits=Limits(lower=(0, False), upper=(1, True)),
        only="of steplr",
    ),
    OldKey(
        f"{_SCHEDULER}.t_max", int, 10, "elsewhere", remark="the cosine ends with the stage's budget", limits=ABOVE_0
    ),
    OldKey(
        f"{_SCHEDULER}.eta_min",
        float,
        0.0,
        "changed",
        "stages.*.schedule.final",
        "as a share of lr",
        AT_LEAST_0,
        only="of cosineannealinglr",
    ),
    OldKey(
        f"{_SCHEDULER}.factor",
        float,
        0.5,
        "carried",
        "stages.*.schedule.factor",
        limits=Limits(lower=(0, False), upper=(1, False)),
        only="of reducelronplateau",
    ),
    OldKey(
        f"{_SCHEDULER}.patience",
        int,
        3,
        "changed",
        "stages.*.schedule.patience",
        "validations, there epochs",
        AT_LEAST_0,
        only="of reducelronplateau",
    ),
    OldKey(
        f"{_SCHEDULER}.threshold",
        float,
        1e-3,
        "changed",
        "stages.*.schedule.threshold",
        "of the validation score, there of the train loss",
        SHARE,
        only="of reducelronplateau",
    ),
    OldKey(
        f"{_SCHEDULER}.min_lr",
        float,
        0.0,
        "changed",
        "stages.*.schedule.minimum",
        "as a share of lr",
        AT_LEAST_0,
        only="of reducelronplateau",
    ),
    OldKey(f"{_SCHEDULER}.mode", str, "min", "derived", remark="the least validation score is the best"),
    OldKey(f"{STAGE}.patience", int, None, "changed", "stages.*.patience", "as training.patience", ABOVE_0),
    OldKey(f"{STAGE}.grad_clip", float, None, "carried", "stages.*.clip", limits=ABOVE_0),
    OldKey(f"{STAGE}.ema_decay", float, None, "changed", "stages.*.ema", "as training.ema_decay", SHARE),
    OldKey("stages.consistency_distill.batch_size", int, 8, "carried", "stages.consistency.batch", limits=ABOVE_0),
    OldKey(
        "stages.consistency_distill.tau_schedule",
        Any,
        None,
        "elsewhere",
        remark="a path of the teacher is cut into stages.consistency.teacher_steps",
    ),
    OldKey(
        "stages.consistency_distill.target_loss", float, None, "elsewhere", remark="as training.distill_target_loss"
    ),
    OldKey("stages.consistency_distill.compile", bool, None, "elsewhere", remark="run.compile is of all stages"),
    OldKey("stages.steady_prior.num_steps", int, 4, "idle", remark="fixed at 4; stages.steady_prior.sampling_steps"),
)
