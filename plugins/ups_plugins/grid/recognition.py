"""Which of PDEBench's layouts a file has, by its headers alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ups_kit.data.tree import ArrayInfo, FileTree

from .pdebench import COORDINATES, FLOW, FLUID, GIVEN, TIME, layout_of

X, T = COORDINATES[1], COORDINATES[0]


def pdebench_keys(tree: FileTree) -> Mapping[str, Any] | None:
    """The keys of `[dataset]` for a file in one of PDEBench's layouts, or None.

    An array of another name than `tensor` counts where it is the only one that the coordinates fit.
    """
    if tree.format != "hdf5":
        return None
    arrays = tree.arrays
    told = _told(tree)
    if told is not None:
        return told
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


def _told(tree: FileTree) -> Mapping[str, Any] | None:
    """The keys for a file whose attributes `fields` and `statics` say what its arrays are, as converted files do.

    Keys that say no more than the layout itself are left out.
    """
    root, arrays = tree.attributes.get("", {}), tree.arrays
    fields, statics = root.get("fields"), root.get("statics") or []
    if not isinstance(fields, list) or not isinstance(statics, list) or not fields:
        return None
    names = [*fields, *statics]
    if not all(isinstance(name, str) for name in names):
        return None
    given = {"statics": statics} if [name for name in GIVEN if name in statics] != statics else {}
    if "tensor" in arrays and len(fields) == 1 and X in arrays:
        return given if fields == ["u"] else {"fields": fields, **given}
    if not all(name in arrays for name in names) or X not in arrays:
        return None
    if _axes(arrays.get(TIME)) == 2 and T not in arrays:
        return {"layout": "velocity", "fields": fields, **given}
    usual = fields == [name for name in FLUID if name in arrays]
    return given if usual else {"layout": "fields", "fields": fields, **given}


def _axes(array: ArrayInfo | None) -> int:
    return 0 if array is None else len(array.shape)


def _fits(array: ArrayInfo, arrays: Mapping[str, ArrayInfo]) -> bool:
    """Whether an array has the axes [sample, time, x, …] that the file's coordinates are for."""
    points = tuple(arrays[name].shape[0] for name in COORDINATES[1:] if _axes(arrays.get(name)) == 1)
    times = arrays[T].shape[0] if _axes(arrays.get(T)) == 1 else 0
    return array.shape[2:] == points and len(array.shape) > 2 and times - array.shape[1] in (0, 1)
