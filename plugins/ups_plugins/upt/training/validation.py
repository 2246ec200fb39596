"""What the training stages choose their best weights by: errors in physical units on a fixed set of windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from ups_kit.errors import DataError
from ups_kit.fit.validating import SPLIT, Validation
from ups_kit.interfaces import Batch, Dataset, Multitask, Queries
from ups_kit.metrics import nrmse, position_mse
from ups_kit.motion import Forecaster, Kinematic, kinematic_points, prepared
from ups_kit.tasks import model_for, tasks_of

if TYPE_CHECKING:
    from ups_kit.model import LatentModel


class TaskValidations:
    """Scores a model on each task of a dataset: the means over tasks, and every task's own numbers as `task/name`."""

    def __init__(self, dataset: Dataset, build: Callable[[Dataset], Validation]) -> None:
        self._dataset = dataset
        self._validations = {task: build(own) for task, own in tasks_of(dataset).items()}

    def __call__(self, model: nn.Module) -> Mapping[str, float]:
        found = {
            task: validation(model_for(task, self._dataset, cast("LatentModel", model)))
            for task, validation in self._validations.items()
        }
        if not isinstance(self._dataset, Multitask):
            return found[""]
        means = {name: fmean(values[name] for values in found.values()) for name in next(iter(found.values()))}
        return means | {f"{task}/{name}": value for task, values in found.items() for name, value in values.items()}


def rollout_validation(
    dataset: Dataset, device: torch.device, steps: int, samples: int, batch: int, reencoded: bool = False
) -> TaskValidations:
    """Per-frame nRMSE of rollouts (`score`), in latent space or re-encoded, and of one step (`one_step_nrmse`).

    Where points move, `position_mse` is the mean over the rollout's steps of the squared distance from the true places.

    Rollouts are as long as asked for, or as the validation trajectories allow. Of several tasks, `score` is the mean
    of theirs, so that a task with large errors or many trajectories counts no more than another.
    """
    return TaskValidations(dataset, lambda own: _rollout_validation(own, device, steps, samples, batch, reencoded))


def _rollout_validation(
    dataset: Dataset, device: torch.device, steps: int, samples: int, batch: int, reencoded: bool
) -> Validation:
    available = [k for k in range(1, steps + 1) if dataset.windows(SPLIT, k) > 0]
    if not available:
        raise DataError("the validation split has no window of two frames; give it longer or more trajectories")

    def scores(model: LatentModel, batch: Batch) -> Mapping[str, Tensor]:
        forecaster, kinematic = Forecaster(model, dataset.normaliser), _kinematic(dataset, batch)
        points, condition = prepared(model, batch.inputs), batch.condition
        if reencoded:
            found = forecaster.reencoded(points, condition, max(available), kinematic)
        else:
            found = forecaster.latent(model.encode(points, condition), points, condition, max(available), kinematic)
        physical, frames, counted = dataset.normaliser.physical, list(found), _counted(batch, kinematic)
        forecast = physical(torch.stack([frame.values for frame in frames], 1).float())
        errors = nrmse(forecast, physical(batch.states[:, 1:]), range(len(frames)), counted)
        shown = {"score": errors.mean(1), "one_step_nrmse": errors[:, 0]}
        if forecaster.moving:
            places = torch.stack([frame.positions for frame in frames], 1)
            shown["position_mse"] = position_mse(places, batch.positions[:, 1:], dataset.fields, counted).mean(1)
        return shown

    return Validation(dataset, device, max(available), samples, batch, scores)


def codec_validation(dataset: Dataset, device: torch.device, samples: int, batch: int) -> TaskValidations:
    """nRMSE of encoding a frame and decoding it again (`score`); of several tasks the mean of theirs."""
    return TaskValidations(dataset, lambda own: _codec_validation(own, device, samples, batch))


def _codec_validation(dataset: Dataset, device: torch.device, samples: int, batch: int) -> Validation:
    if not dataset.windows(SPLIT, 1):
        raise DataError("the validation split has no window of two frames; give it longer or more trajectories")

    def scores(model: LatentModel, batch: Batch) -> Mapping[str, Tensor]:
        latent = model.encode(batch.inputs, batch.condition)
        decoded = model.decode(latent, Queries(batch.places(0), batch.grid)).float()
        physical, counted = dataset.normaliser.physical, _counted(batch, _kinematic(dataset, batch))
        return {"score": nrmse(physical(decoded)[:, None], physical(batch.states[:, :1]), [0], counted)[:, 0]}

    return Validation(dataset, device, 1, samples, batch, scores)


def _kinematic(dataset: Dataset, batch: Batch) -> Kinematic | None:
    """The points of a batch that move as given, and what they do."""
    if dataset.fields.moves_with is None:
        return None
    statics = batch.inputs.values[..., dataset.fields.history * dataset.fields.target_channels :]
    mask = kinematic_points(statics, dataset.fields, dataset.normaliser)
    return None if mask is None else Kinematic(mask, batch.states[:, 1:])


def _counted(batch: Batch, kinematic: Kinematic | None) -> Tensor | None:
    """The points that are scored (B, N): real, and not moved as given; None: all are."""
    if kinematic is None:
        return batch.mask
    return ~kinematic.mask if batch.mask is None else batch.mask & ~kinematic.mask
