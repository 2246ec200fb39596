"""Conditions of several data sets, normalised alike: by the train windows of all that have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np
from numpy.typing import NDArray

from ups_kit import FieldSpec
from ups_kit.data.normalisation import LOG_RATIO, Normaliser
from ups_kit.interfaces import Dataset, ListsParameters

from .fields import COLUMN

if TYPE_CHECKING:
    from torch import Tensor


def train_parameters(dataset: Dataset) -> NDArray[np.float64]:
    """The conditions of the train trajectories (S, P) in physical units."""
    if isinstance(dataset, ListsParameters):
        return np.asarray(dataset.parameters("train"), np.float64)
    return np.asarray(dataset.trajectories("train").parameters, np.float64)


def joint_normaliser(whole: FieldSpec, members: Mapping[str, Dataset]) -> Normaliser:
    """The normaliser of a mixture: conditions over the train windows of all tasks, target fields as they are.

    Every task normalises its target and static fields by itself, so those of the whole have no unit to go back to. The
    columns that tell tasks apart stay 0 and 1.
    """
    parameters = {name: train_parameters(member) for name, member in members.items()}
    columns = [_column(name, members, parameters) for name in whole.conditions]
    statics = sum(field.channels for field in whole.statics)
    return Normaliser(
        target_mean=(0.0,) * whole.target_channels,
        target_std=(1.0,) * whole.target_channels,
        condition_mean=tuple(mean for mean, _, _ in columns),
        condition_std=tuple(std for _, std, _ in columns),
        condition_log=tuple(log for _, _, log in columns),
        static_mean=(0.0,) * statics,
        static_std=(1.0,) * statics,
    )


def _column(
    name: str, members: Mapping[str, Dataset], parameters: Mapping[str, NDArray[np.float64]]
) -> tuple[float, float, bool]:
    """Mean, deviation, and whether of the logarithm, of one condition over the tasks that have it."""
    if name.startswith(COLUMN):
        return 0.0, 1.0, False
    values, weights = [], []
    for task, member in members.items():
        if name in member.fields.conditions:
            own = parameters[task][:, member.fields.conditions.index(name)]
            values.append(own)
            weights.append(np.full(len(own), max(member.windows("train", 1), 1) / len(own)))
    every, weight = np.concatenate(values), np.concatenate(weights)
    low, high = every.min(), every.max()
    log = bool(low > 0 and high > LOG_RATIO * low)
    scaled = np.log(every) if log else every
    mean = float(np.average(scaled, weights=weight))
    std = float(np.sqrt(np.average((scaled - mean) ** 2, weights=weight)))
    return mean, 0.0 if low == high else std, log


def own_normaliser(whole: Normaliser, columns: Sequence[int], member: Normaliser) -> Normaliser:
    """A task's normaliser: its own for fields, the whole's for its conditions, which are these columns of the whole."""
    return attrs.evolve(
        member,
        condition_mean=tuple(whole.condition_mean[column] for column in columns),
        condition_std=tuple(whole.condition_std[column] for column in columns),
        condition_log=tuple(whole.condition_log[column] for column in columns),
    )


def renormalised(condition: Tensor, before: Normaliser, after: Normaliser) -> Tensor:
    """Conditions (B, P) as one normaliser gave them, as another gives them; float32."""
    exact = condition.double()
    scaled = exact * exact.new_tensor(before.condition_std) + exact.new_tensor(before.condition_mean)
    return after.condition(scaled.exp().where(exact.new_tensor(before.condition_log).bool(), scaled))
