"""Which of PDEBench's layouts a file has, by its headers alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ups_kit.data.tree import ArrayInfo, FileTree

from .pdebench import COORDINATES, FLOW, FLUID, TIME, layout_of

X, T = COORDINATES[1], COORDINATES[0]


def pdebench_keys(tree: FileTree) -> Mapping[str, Any] | None:
    """The keys of `[dataset]` for a file in one of PDEBench's layouts, or None.

    An array of another name than `tensor` counts where it is the only one that the coordinates fit.
    """
    if tree.format != "hdf5":
        return None
    arrays = tree.arrays
    layout = layout_of({name.split("/")[0] for name in arrays})
    if layout == "groups":
        first = min(name.split("/")[0] for name in arrays)
        return {} if f"{first}/data" in arrays and f"{first}/grid/x" in arrays else None
    if layout == "velocity":
        return {} if _axes(arrays.get(FLOW[0])) >= 4 and _axes(arrays.get(TIME)) == 2 else None
    if X not in arrays:
        return None
    if layout == "fields":
        return {} if any(_axes(arrays.get(name)) >= 3 for name in FLUID) else None
    if layout == "tensor" and _axes(arrays.get("tensor")) >= 3:
        return {}
    fitting = [name for name, array in arrays.items() if _fits(array, arrays)]
    return {"tensor": fitting[0]} if len(fitting) == 1 else None


def _axes(array: ArrayInfo | None) -> int:
    return 0 if array is None else len(array.shape)


def _fits(array: ArrayInfo, arrays: Mapping[str, ArrayInfo]) -> bool:
    """Whether an array has the axes [sample, time, x, …] that the file's coordinates are for."""
    points = tuple(arrays[name].shape[0] for name in COORDINATES[1:] if _axes(arrays.get(name)) == 1)
    times = arrays[T].shape[0] if _axes(arrays.get(T)) == 1 else 0
    return array.shape[2:] == points and len(array.shape) > 2 and times - array.shape[1] in (0, 1)
