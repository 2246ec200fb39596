"""Trajectories of a dataset on points as checked samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...interfaces import Field
from ..sample import Sample
from .source import Connects

if TYPE_CHECKING:
    from .dataset import PointDataset


def sample_of(dataset: PointDataset, split: str, number: int) -> Sample:
    """One trajectory in physical units, in the model's frames, with its file, units and parameters."""
    members = dataset.splits[split]
    if not 0 <= number < len(members):
        raise IndexError(f"the split '{split}' has {len(members)} trajectories, and number {number} was asked for")
    trajectory = int(members[number])
    dataset.files.check_unchanged(np.array([trajectory], np.int64))
    spec, (source, own) = dataset.fields, dataset.files.owner(trajectory)
    frames = np.arange(int(source.frames[own]), dtype=np.int64)
    weights = source.weights(own)
    return Sample(
        source=dataset.files.where(trajectory),
        kind=spec.layout,
        coordinates=source.positions(own, frames),
        fields=dict(_cut(source.values(own, frames), spec.targets)),
        statics=dict(_cut(source.given(own), spec.statics)),
        times=source.times(own),
        steady=spec.steady,
        connectivity=source.connectivity(own) if isinstance(source, Connects) else source.cells(own),
        units={field.name: field.unit for field in (*spec.targets, *spec.statics)},
        boundary={axis: "periodic" for axis, wraps in zip("xyz", spec.periodic) if wraps},
        parameters={
            name: float(value) for name, value in zip(spec.conditions, dataset.conditions[trajectory]) if name != "dt"
        },
        geometry={} if weights is None else {"weights": weights},
        metadata={"split": split, "id": trajectory},
    )


def _cut(values: NDArray[np.float32], fields: tuple[Field, ...]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Names and channels of each field."""
    start = 0
    for field in fields:
        yield field.name, values[..., start : start + field.channels]
        start += field.channels
