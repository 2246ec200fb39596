"""From a training to its checkpoint and back."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch

from ..errors import DivergedError, StorageError
from ..folder import StageFolder
from ..trackers import Trackers
from .fitting import Fitting
from .state import CheckpointFolder, misfits, plain_keys

BYTES_PER_WEIGHT = 16  # weights, moving average and two moments, four bytes each


def save(fitting: Fitting, checkpoints: CheckpointFolder) -> str:
    """Write the training's state; returns the checkpoint's name."""
    checkpoints.save(fitting.step, training_state(fitting), fitting.best_step)
    fitting.meter.restart_clock()
    return f"step_{fitting.step:08}"


def resume(fitting: Fitting, checkpoints: CheckpointFolder, folder: StageFolder, trackers: Trackers) -> str:
    """Bring a training to the newest checkpoint that is whole, where the folder is to be resumed.

    What trackers hold beyond that step is dropped: it will be measured again.
    """
    checkpoints.check_space(BYTES_PER_WEIGHT * sum(weight.numel() for weight in fitting.task.model.parameters()))
    if not folder.resume:
        if checkpoints.steps():
            raise StorageError(
                f"{folder.checkpoints}: holds checkpoints of another run; resume that run, or start in a new folder"
            )
        return "none"
    found = checkpoints.newest()
    if found is not None:
        load_training_state(fitting, found.state)
        _check_best(fitting, checkpoints)
    trackers.forget_after(fitting.task.stage, fitting.step)
    return "none" if found is None else f"step_{found.step:08}"


def training_state(fitting: Fitting) -> dict[str, Any]:
    """Everything that the next step depends on, as plain tensors and numbers."""
    return {
        "step": fitting.step,
        "model": plain_keys(fitting.task.model.state_dict()),
        "average": None if fitting.average is None else plain_keys(fitting.average.state_dict()),
        "optimizer": fitting.optimizer.state_dict(),
        "groups": _fresh_groups(fitting),
        "schedule": None if fitting.schedule is None else fitting.schedule.state_dict(),
        "scaler": fitting.scaler.state_dict(),
        "clock": fitting.clock.state_dict(),
        "meter": fitting.meter.state_dict(),
        "best_step": fitting.best_step,
        "best_score": fitting.best_score,
        "waited": fitting.waited,
        "nonfinite": fitting.nonfinite,
        "skipped": fitting.skipped,
        "last": fitting.last,
        "extra": {name: holder.state_dict() for name, holder in fitting.task.state.items()},
        "fingerprint": fingerprint(fitting),
    }


def load_training_state(fitting: Fitting, state: dict[str, Any]) -> None:
    """The reverse of `training_state`; raises StorageError where the state is that of another model or optimiser."""
    holders: dict[str, Any] = {
        "model": fitting.task.model,
        "average": fitting.average,
        "optimizer": fitting.optimizer,
        "schedule": fitting.schedule,
        "scaler": fitting.scaler if fitting.scaler.is_enabled() else None,
        "clock": fitting.clock,
        "meter": fitting.meter,
    }
    extra = state.get("extra", {})  # older checkpoints have none
    saved = state | {name: extra[name] for name in fitting.task.state if name in extra}
    for name, holder in (holders | dict(fitting.task.state)).items():
        if holder is None:
            continue
        try:
            holder.load_state_dict(saved[name])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            weights = isinstance(holder, torch.nn.Module) and isinstance(saved.get(name), dict)
            reason = misfits(plain_keys(holder.state_dict()), saved[name]) if weights else ""
            raise StorageError(
                f"stage '{fitting.task.stage}': the checkpoint's {name} does not fit this recipe; "
                f"resume with the recipe of the run, or start a new run ({reason or str(error).strip()})"
            ) from error
    for name in ("step", "best_step", "best_score", "waited", "nonfinite", "skipped", "last"):
        setattr(fitting, name, state[name])
    _take_changes(fitting, state.get("groups", []))
    now = fingerprint(fitting)
    changed = [
        f"{key} {state['fingerprint'].get(key)} -> {now[key]}"
        for key in now
        if state["fingerprint"].get(key) != now[key]
    ]
    if changed:
        warnings.warn(f"resumed, but not to the same bits: {', '.join(changed)}", stacklevel=3)


def _fresh_groups(fitting: Fitting) -> list[dict[str, Any]]:
    """The plain numbers of the optimiser's parameter groups as the recipe sets them, before any step."""
    groups = fitting.task.settings.optimizer.build(fitting.task.model).param_groups
    kinds = (bool, int, float, str, tuple)
    return [{key: value for key, value in group.items() if isinstance(value, kinds)} for group in groups]


def _take_changes(fitting: Fitting, then: list[dict[str, Any]]) -> None:
    """Numbers of the optimiser that the recipe sets otherwise now, where a run is resumed with such a change.

    A checkpoint brings back those that it was trained with so far.
    """
    for group, before, now in zip(fitting.optimizer.param_groups, then, _fresh_groups(fitting)):
        for key, value in now.items():
            if before.get(key, value) != value:
                group[key] = value
                if key == "lr" and "initial_lr" in group:
                    group["initial_lr"] = value


def fingerprint(fitting: Fitting) -> dict[str, Any]:
    """What must be equal for a resumed run to be equal bit for bit."""
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "device": fitting.task.device.type,
        "precision": fitting.precision.name,
        "compile": fitting.task.run.compile,
    }


def load_best(fitting: Fitting, checkpoints: CheckpointFolder) -> None:
    """Give the model the weights that did best on validation; raises DivergedError where no score was ever finite."""
    if fitting.best_step is None and math.isfinite(fitting.last.get("score", math.nan)):
        raise StorageError(
            f"stage '{fitting.task.stage}': the best weights are damaged, and its budget is spent, so that no "
            "others are found; restore the folder best_… among its checkpoints, or start a new run"
        )
    if fitting.best_step is None:
        raise DivergedError(
            f"stage '{fitting.task.stage}': no validation gave a finite score; the newest: {fitting.last or 'none'}"
        )
    fitting.task.model.load_state_dict(checkpoints.best(fitting.best_step)["model"])
    fitting.task.model.eval()


def _check_best(fitting: Fitting, checkpoints: CheckpointFolder) -> None:
    """Without the best weights the next validation counts as the best."""
    if fitting.best_step is None:
        return
    try:
        checkpoints.best(fitting.best_step)
    except StorageError as error:
        warnings.warn(f"{error}; the next validation sets a new best", stacklevel=4)
        fitting.best_step, fitting.best_score = None, math.inf
