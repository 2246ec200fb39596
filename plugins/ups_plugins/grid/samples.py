"""Trajectories of a grid dataset as checked samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ups_kit import Field, Sample

from .source import AXES

if TYPE_CHECKING:
    from .dataset import GridDataset


def sample_of(dataset: GridDataset, split: str, number: int) -> Sample:
    """One trajectory in physical units, at the recipe's strides, with its file, unit and parameters."""
    members = dataset.splits[split]
    if not 0 <= number < len(members):
        raise IndexError(f"the split '{split}' has {len(members)} trajectories, and number {number} was asked for")
    ids = np.array([members[number]], np.int64)
    dataset.files.check_unchanged(ids)
    spec, header, settings = dataset.fields, dataset.files.header, dataset.settings
    strided = (slice(None), *(slice(None, None, settings.space_stride),) * spec.space_dims)
    values = dataset.files.rows(ids, slice(None, None, settings.time_stride))[0][strided]
    statics = dataset.files.statics(ids)[0][strided[1:]]
    axes = [axis[:: settings.space_stride] for axis in header.axes]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, spec.space_dims)
    return Sample(
        source=dataset.files.place(int(ids[0])),
        kind="grid",
        coordinates=places,
        fields=dict(_cut(values.reshape(len(values), len(places), -1), spec.targets)),
        statics=dict(_cut(statics.reshape(len(places), -1), spec.statics)),
        times=header.times[:: settings.time_stride],
        steady=spec.steady,
        grid=spec.grid,
        units={field.name: field.unit for field in (*spec.targets, *spec.statics)},
        boundary={axis: "periodic" for axis, wraps in zip(AXES, spec.periodic) if wraps},
        parameters={
            name: float(value) for name, value in zip(spec.conditions, dataset.conditions[ids[0]]) if name != "dt"
        },
        metadata={"split": split, "id": int(ids[0])},
    )


def _cut(values: NDArray[np.float32], fields: tuple[Field, ...]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Names and channels of each field."""
    start = 0
    for field in fields:
        yield field.name, values[..., start : start + field.channels]
        start += field.channels
