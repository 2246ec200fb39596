"""The optimisation loop: one training step, and the stage-long loop around it.

Batch k and everything that is drawn in step k are pure functions of (seed, stage, k), so a run that was stopped goes
on to the same bits from its newest checkpoint, and no generator's state needs to be kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import DivergedError, Preempted
from ..folder import StageFolder
from ..interfaces import Artefact, Samples
from ..trackers import Trackers
from .batches import parts_of
from .fitting import Fitting, Task, prepare, set_training_mode
from .forward import derived_seed
from .interrupts import StopRequest, stop_requests
from .optim import clip_gradients, first_bad_parameter, set_learning_rates, update_average
from .precision import compiled_parts, explained_failures
from .resume import load_best, resume, save
from .state import CheckpointFolder

PATIENCE_WITH_NONFINITE = 10  # steps in a row whose gradient may overflow (fp16's scale is found so) or be skipped


# ---------------------------------------------------------------------------------------------------------------------
# One step
# ---------------------------------------------------------------------------------------------------------------------
def training_step(fitting: Fitting, batch: Samples) -> None:
    """One optimiser step: forward and backward in parts, guard, clip, update, moving average."""
    task, settings = fitting.task, fitting.task.settings
    progress = fitting.clock.progress(fitting.step)
    seed_step(fitting)
    if fitting.schedule is not None:
        set_learning_rates(fitting.optimizer, fitting.schedule.factor(progress))
    fitting.optimizer.zero_grad(set_to_none=True)
    measured: dict[str, Tensor] = {}
    for part in parts_of(batch, settings.accumulation):
        with fitting.precision.autocast():
            bundle = task.loss(part, progress, fitting.generator)
        share_of_loss = fitting.scaler.scale(bundle.total / settings.accumulation)
        if share_of_loss.requires_grad:  # a step's losses may reach nothing that is trained
            share_of_loss.backward()  # type: ignore[no-untyped-call]
        for name, value in (("loss", bundle.total), *((f"losses/{name}", raw) for name, raw in bundle.terms.items())):
            share = value.detach() / settings.accumulation
            measured[name] = measured[name] + share if name in measured else share
    fitting.scaler.unscale_(fitting.optimizer)
    measured["grad_norm"] = clip_gradients(fitting.trained, settings.clip).to(measured["loss"].device)
    taken = may_update(fitting, measured)
    if taken:
        fitting.scaler.step(fitting.optimizer)
        if fitting.average is not None and settings.ema is not None:
            update_average(fitting.average, task.model, settings.ema)
        fitting.meter.add(batch.samples, measured)
    fitting.scaler.update()
    for holder in task.state.values():
        holder.advance(taken)
    fitting.step += 1
    fitting.clock.read(fitting.step)


def seed_step(fitting: Fitting) -> None:
    """Seed everything that is drawn in this step from (seed, stage, step): samplers, dropout, drop path."""
    seed = derived_seed(fitting.task.run.seed, f"{fitting.task.stage}/{fitting.step}")
    torch.default_generator.manual_seed(seed)  # torch.manual_seed without its detours
    if fitting.task.device.type == "cuda":
        torch.cuda.manual_seed(seed)
    fitting.generator.manual_seed(seed + 1)


def may_update(fitting: Fitting, measured: Mapping[str, Tensor]) -> bool:
    """Whether loss and gradient are finite; raises DivergedError where they are not and the recipe says stop.

    An fp16 gradient overflows while the loss scale is being found; that counts only ten times in a row.
    """
    if bool(torch.isfinite(measured["loss"]) & torch.isfinite(measured["grad_norm"])):
        fitting.nonfinite = 0
        return True
    fitting.nonfinite += 1
    overflow = fitting.scaler.is_enabled() and bool(torch.isfinite(measured["loss"]))
    may_go_on = overflow or fitting.task.settings.on_nonfinite == "skip"
    if not may_go_on or fitting.nonfinite >= PATIENCE_WITH_NONFINITE:
        raise DivergedError(_divergence(fitting, measured))
    fitting.skipped += not overflow
    return False


def _divergence(fitting: Fitting, measured: Mapping[str, Tensor]) -> str:
    task = fitting.task
    bad = [name.removeprefix("losses/") for name, value in measured.items() if not bool(torch.isfinite(value))]
    windows = ", ".join(str(number) for number in task.source.numbers(fitting.step))
    in_a_row = f", {fitting.nonfinite} steps in a row" if fitting.nonfinite > 1 else ""
    return (
        f"stage '{task.stage}', step {fitting.step}: not finite: {', '.join(bad)}{in_a_row}\n"
        f"  first bad parameter: {first_bad_parameter(task.model) or 'none'}\n"
        f"  training windows of this batch: {windows}\n"
        "  the step was not taken; checkpoints are intact. What helps: a smaller optimizer.lr, a longer warm-up, "
        "a smaller clip, run.precision = 'fp32'; on_nonfinite = 'skip' leaves such batches out"
    )


# ---------------------------------------------------------------------------------------------------------------------
# The loop
# ---------------------------------------------------------------------------------------------------------------------
def fit(task: Task, folder: StageFolder, trackers: Trackers) -> dict[str, Any]:
    """Train until the budget is spent; afterwards the model holds the weights that did best on validation.

    With `folder.resume` it goes on from the newest checkpoint that is whole. Returns what the run's summary shall hold.
    Raises DivergedError, StorageError, Preempted (state saved), UpsKitError where memory is short.
    """
    with (
        explained_failures(task.stage, task.settings, task.device),
        compiled_parts(task.model, task.run.compile),
        stop_requests() as stop,
    ):
        fitting = prepare(task)
        checkpoints = CheckpointFolder(folder.checkpoints, task.settings.keep)
        saved = resume(fitting, checkpoints, folder, trackers)
        with task.source.stream(fitting.step) as batches:
            while not fitting.is_over:
                training_step(fitting, fitting.meter.awaited(batches))
                _between_steps(fitting, checkpoints, trackers)
                if stop or fitting.is_over or _checkpoint_is_due(fitting):
                    saved = save(fitting, checkpoints)
                    whole = Artefact("checkpoint", folder.checkpoints / saved, fitting.step)
                    trackers.artefact(task.stage, whole)
                if stop:
                    raise Preempted(_preemption(fitting, stop, saved))
        load_best(fitting, checkpoints)
    return _summary(fitting)


def _checkpoint_is_due(fitting: Fitting) -> bool:
    """Whether so many steps are done, or the last one has completed so many epochs."""
    settings, step = fitting.task.settings, fitting.step
    if step % settings.checkpoint_every == 0:
        return True
    if settings.checkpoint_epochs is None:
        return False
    # epochs are products of steps: those that end with a step may come out a rounding short
    before, now = (fitting.clock.progress(k).epoch / settings.checkpoint_epochs + 1e-9 for k in (step - 1, step))
    return math.floor(now) > math.floor(before)


def _between_steps(fitting: Fitting, checkpoints: CheckpointFolder, trackers: Trackers) -> None:
    """Log, then validate, as far as they are due after this step."""
    settings, over = fitting.task.settings, fitting.is_over
    if over or fitting.step % settings.log_every == 0:
        trackers.scalars(fitting.task.stage, fitting.step, _log_line(fitting))
    if over or fitting.step % settings.validate_every == 0:
        validate(fitting, checkpoints, trackers)
        fitting.meter.restart_clock()


def validate(fitting: Fitting, checkpoints: CheckpointFolder, trackers: Trackers) -> None:
    """Score the evaluated model, and keep its weights where it is the best so far."""
    model = fitting.evaluated
    model.eval()
    with torch.no_grad():
        values = dict(fitting.task.validate(model))
    set_training_mode(fitting.task.model)
    score = values["score"]
    fitting.last = values
    if score < fitting.best_score:
        fitting.best_step, fitting.best_score, fitting.waited = fitting.step, score, 0
        path = checkpoints.save_best(fitting.step, {"model": dict(model.state_dict()), "score": score})
        trackers.artefact(fitting.task.stage, Artefact("best", path, fitting.step, score))
    else:
        fitting.waited += 1
    if fitting.schedule is not None:
        fitting.schedule.observe(score)
    finite = {f"validation/{name}": value for name, value in values.items() if math.isfinite(value)}
    trackers.scalars(fitting.task.stage, fitting.step, finite)


def _log_line(fitting: Fitting) -> dict[str, float]:
    progress = fitting.clock.progress(fitting.step)
    per_step = progress.epoch / max(fitting.step, 1)
    values = fitting.meter.read()
    values["lr"] = float(fitting.optimizer.param_groups[0]["lr"])
    values["epoch"] = progress.epoch
    values["fraction"] = progress.fraction
    values["seconds"] = fitting.clock.seconds
    values["epochs_since_improvement"] = per_step * (fitting.step - (fitting.best_step or 0))
    left = fitting.clock.wall_seconds_left(progress.fraction)
    if math.isfinite(left):
        values["seconds_left"] = left
    if fitting.scaler.is_enabled():
        values["loss_scale"] = float(fitting.scaler.get_scale())
    return values


def _preemption(fitting: Fitting, stop: StopRequest, saved: str) -> str:
    return (
        f"stage '{fitting.task.stage}' was stopped by {stop.signal_name} after step {fitting.step}; "
        f"its state is saved ({saved}), and `upskit run … --resume` goes on from there"
    )


def _summary(fitting: Fitting) -> dict[str, Any]:
    progress = fitting.clock.progress(fitting.step)
    return {
        "steps": fitting.step,
        "epochs": progress.epoch,
        "seconds": fitting.clock.seconds,
        "skipped_steps": fitting.skipped,
        "stopped_early": progress.fraction < 1,
        "best_step": fitting.best_step,
        "best_score": fitting.best_score,
        "last_validation": fitting.last,
    }
