"""Files in The Well's public layout, as its description of the data format has it, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

LETTERS = ("x", "y", "z")


def write_well(
    path: Path,
    fields: Mapping[str, tuple[int, NDArray[Any], Mapping[str, Any]]],
    grid: Sequence[int],
    frames: int,
    trajectories: int,
    scalars: Mapping[str, tuple[Any, bool, bool]] | None = None,
    periodic: Sequence[bool] | None = None,
    **creation: Any,
) -> Path:
    """`fields`: order of the tensor, values as stored, and attributes other than the default of varying in everything.

    `scalars`: values, whether they vary by sample, and in time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    dims = len(grid)
    scalars = scalars or {}
    with h5py.File(path, "w") as file:
        names = [name for name, (_, by_sample, by_time) in scalars.items() if not by_sample and not by_time]
        file.attrs.update(dataset_name="waves", grid_type="cartesian", n_spatial_dims=dims, n_trajectories=trajectories)
        file.attrs["simulation_parameters"] = names
        for name in names:
            file.attrs[name] = float(np.asarray(scalars[name][0]).reshape(-1)[0])
        dimensions = file.create_group("dimensions")
        dimensions.attrs["spatial_dims"] = list(LETTERS[:dims])
        time = dimensions.create_dataset("time", data=np.float32(0.1) * np.arange(frames, dtype=np.float32))
        time.attrs["sample_varying"] = False
        for letter, size in zip(LETTERS, grid, strict=False):
            axis = dimensions.create_dataset(letter, data=((np.arange(size) + 0.5) / size).astype(np.float32))
            axis.attrs.update(sample_varying=False, time_varying=False)
        _write_boundaries(file, grid, periodic or (True,) * dims)
        group = file.create_group("scalars")
        group.attrs["field_names"] = list(scalars)
        for name, (values, by_sample, by_time) in scalars.items():
            group.create_dataset(name, data=np.asarray(values, np.float32)).attrs.update(
                sample_varying=by_sample, time_varying=by_time
            )
        for order in range(3):
            group = file.create_group(f"t{order}_fields")
            group.attrs["field_names"] = [name for name, (own, *_) in fields.items() if own == order]
            for name, (own, values, attributes) in fields.items():
                if own == order:
                    stored = group.create_dataset(name, data=values, **creation)
                    default = {"dim_varying": [True] * dims, "sample_varying": True, "time_varying": True}
                    stored.attrs.update(default | dict(attributes))
    return path


def _write_boundaries(file: h5py.File, grid: Sequence[int], periodic: Sequence[bool]) -> None:
    group = file.create_group("boundary_conditions")
    for letter, size, wraps in zip(LETTERS, grid, periodic, strict=False):
        kind = "periodic" if wraps else "wall"
        boundary = group.create_group(f"{letter}_{kind}")
        boundary.attrs.update(associated_dims=[letter], bc_type=kind.upper(), sample_varying=False, time_varying=False)
        boundary.attrs["associated_fields"] = h5py.Empty("S1")
        mask = np.zeros(size, bool)
        mask[[0, -1]] = True
        boundary["mask"] = mask
