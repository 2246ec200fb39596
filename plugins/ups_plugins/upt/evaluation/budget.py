"""Where the error of a forecast comes from."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ups_kit import metrics

from .rollouts import Forecasts
from .scores import Summary, Table, finite, finite_list, joined
from .truth import Truth

START_TRAJECTORIES = 32  # the start's share is a diagnosis, not a score: a few trajectories tell it
TERMS = ("encode", "drift", "step", "decode", "offset", "amplitude", "shape", "total", "reencoding")  # in their order


def rollout_budget(forecasts: Forecasts, truth: Truth) -> Table:
    """The error of the latent rollout at frame k, split into parts that are measured in one unit; (S, steps) each.

    With E, A, D the encoder, operator and decoder, z_k = E(u_k) the true frame's latent, and k steps from the last
    given frame 0, the error is a sum of three fields, exactly:

        D(A^k z_0) − u_k  =  [D(A^k z_0) − D(A z_{k−1})]  +  [D(A z_{k−1}) − D(z_k)]  +  [D(z_k) − u_k]
              total                   drift                          step                     decode

    `decode`: what encoding and decoding the true frame loses. `step`: what one latent step adds to it. `drift`: what
    has built up since the start, in latent space. A fourth number says how much of the drift is the start's doing:

        `encode`  =  D(A^k z_0) − D(A^k E(D(z_0))),

    the change of the rollout when its start is decoded and encoded once more, on the first 32 trajectories
    (`start_term`). And `reencoding`, D(A^k z_0) less the re-encoding rollout, is what staying in latent space changes.

    Every number is the RMS of that field over points, over the RMS of the truth u_k: an nRMSE. The RMS of a sum is at
    most the sum of the RMS, so total ≤ drift + step + decode, and at k = 1 the drift is zero.
    """
    assert forecasts.codec is not None
    pairs = {
        "drift": (forecasts.latent, forecasts.one_step),
        "step": (forecasts.one_step, forecasts.codec),
        "decode": (forecasts.codec, truth.values),
        "total": (forecasts.latent, truth.values),
        "reencoding": (forecasts.latent, forecasts.reencoded),
    }
    return {name: _difference(one, other, truth) for name, (one, other) in pairs.items()}


def start_term(latent: Tensor, again: Tensor, truth: Truth) -> Tensor:
    """`encode`: how the rollout of the first trajectories differs from one whose start made a trip; (S', steps)."""
    return _difference(latent[: len(again)], again, truth.part(slice(0, len(again))))


def steady_budget(answer: Tensor, truth: Truth) -> Table:
    """The error e = û − u of a steady answer, split into three fields that are orthogonal to each other; (S, 1) each.

    `offset`: the mean of e over points. `amplitude`: the part of the rest that is proportional to u − ⟨u⟩, an answer of
    the right shape that is too large or too small. `shape`: what remains. Each is the RMS of its field over the RMS of
    u; for each sample and channel the squares add up to that of `total`.
    """
    return joined(
        [
            _steady_budget(truth.scoring(rows, answer), truth.scoring(rows, truth.values), truth.scored)
            for rows in truth.blocks()
        ]
    )


def _steady_budget(answer: Tensor, truth: Tensor, scored: range) -> Table:
    p, t = answer.double(), truth.double()
    offset = (p - t).mean(2, keepdim=True).expand_as(t)
    own = t - t.mean(2, keepdim=True)
    rest = p - t - offset
    share = (rest * own).sum(2, keepdim=True) / own.square().sum(2, keepdim=True).clamp_min(1e-300)
    parts = {"offset": offset, "amplitude": share * own, "shape": rest - share * own, "total": p - t}
    return {name: metrics.nrmse(t + part, t, scored) for name, part in parts.items()}


def summarise_budget(terms: Mapping[str, Tensor]) -> dict[str, Summary]:
    """The means of the terms, in the order in which they are told."""
    return {name: _summary(terms[name]) for name in TERMS if name in terms}


def _difference(one: Tensor, other: Tensor, truth: Truth) -> Tensor:
    """RMS of the difference of two forecasts over the RMS of the truth, (S, steps)."""
    values = []
    for rows in truth.blocks():
        reference = truth.scoring(rows, truth.values).double()
        difference = truth.scoring(rows, one).double() - truth.scoring(rows, other).double()
        values.append(metrics.nrmse(reference + difference, reference, truth.scored))
    return torch.cat(values)


def _summary(values: Tensor) -> Summary:
    curve = values.mean(0)
    return {
        "mean": finite(values.mean().item()),
        "first": finite(curve[0].item()),
        "last": finite(curve[-1].item()),
        "curve": finite_list(curve.tolist()),
    }
