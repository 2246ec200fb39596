"""Small files in PDEBench's layouts, written as its own programs write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

WriteFile = Callable[..., Path]
Writer = Callable[[Path, int, np.random.Generator], dict[str, np.ndarray]]
SAMPLES, FRAMES, POINTS = 12, 6, 8


@pytest.fixture
def write_file(tmp_path: Path) -> WriteFile:
    """`write_file(name, samples, frames, points, seed, epsilon, **replacements)`; None leaves a dataset out."""

    def write(
        name: str = "small.h5",
        samples: int = 14,
        frames: int = 7,
        points: int = 16,
        seed: int = 0,
        epsilon: Any = True,
        create: dict[str, Any] | None = None,
        **replaced: Any,
    ) -> Path:
        generator = np.random.default_rng(seed)
        contents: dict[str, Any] = {
            "tensor": generator.normal(size=(samples, frames, points)).astype(np.float32),
            "x-coordinate": (np.arange(points) + 0.5) / points,
            "t-coordinate": 0.1 * np.arange(frames + 1),
        }
        if epsilon is not None:
            contents["epsilon"] = np.geomspace(0.001, 0.1, samples) if epsilon is True else epsilon
        contents |= {key.replace("_coordinate", "-coordinate"): value for key, value in replaced.items()}
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            for key, value in contents.items():
                if value is not None:
                    file.create_dataset(key, data=value, **((create or {}) if key == "tensor" else {}))
        return path

    return write


# ---------------------------------------------------------------------------------------------------------------------
# The public layouts. Each writer returns "targets" [n, t, *grid, c], "statics" [n, *grid, s] and "times" as stored.
# ---------------------------------------------------------------------------------------------------------------------
def _centres(points: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    return (low + (high - low) * (np.arange(points) + 0.5) / points).astype(np.float32)


def _values(generator: np.random.Generator, *shape: int) -> np.ndarray:
    return generator.normal(size=shape).astype(np.float32)


def burgers(path: Path, samples: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """1D_Burgers_Sols_Nu0.01.hdf5, and the same for advection and reaction-diffusion."""
    values = _values(generator, samples, FRAMES, POINTS)
    with h5py.File(path, "w") as file:
        file.create_dataset("tensor", data=values)
        file.create_dataset("x-coordinate", data=_centres(POINTS))
        file.create_dataset("t-coordinate", data=np.linspace(0, 0.6, FRAMES + 1, dtype=np.float32))
        file.attrs["Nu"] = 0.01
    return {"targets": values[..., None], "times": np.linspace(0, 0.6, FRAMES + 1)[:-1]}


def darcy(path: Path, samples: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """2D_DarcyFlow_beta1.0_Train.hdf5."""
    values, coefficient = _values(generator, samples, 1, POINTS, POINTS), _values(generator, samples, POINTS, POINTS)
    with h5py.File(path, "w") as file:
        file.create_dataset("tensor", data=values)
        file.create_dataset("nu", data=coefficient)
        file.create_dataset("x-coordinate", data=_centres(POINTS))
        file.create_dataset("y-coordinate", data=_centres(POINTS))
        file.attrs["beta"] = 1.0
    return {"targets": values[..., None], "statics": coefficient[..., None], "times": np.zeros(1)}


def _groups(
    path: Path, values: np.ndarray, low: float, high: float, compression: str | None, config: bool = False
) -> dict[str, np.ndarray]:
    with h5py.File(path, "w") as file:
        for number, sample in enumerate(values):
            keys = {"dtype": "float32", "compression": compression}
            file.create_dataset(f"{number:04d}/data", data=sample, **keys)
            for axis, points in zip("xyz", sample.shape[1:-1], strict=False):
                file.create_dataset(f"{number:04d}/grid/{axis}", data=_centres(points, low, high), **keys)
            file.create_dataset(f"{number:04d}/grid/t", data=np.linspace(0, 1, FRAMES), **keys)
            if config:
                file[f"{number:04d}"].attrs["config"] = "sim:\n  k: 0.005\n"
    return {"targets": values, "times": np.linspace(0, 1, FRAMES)}


def diffusion_reaction(path: Path, samples: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """2D_diff-react_NA_NA.h5: compressed."""
    return _groups(path, _values(generator, samples, FRAMES, POINTS, POINTS, 2), -1, 1, "lzf", config=True)


def shallow_water(path: Path, samples: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """2D_rdb_NA_NA.h5: each array in one piece."""
    return _groups(path, _values(generator, samples, FRAMES, POINTS, POINTS, 1), -2.5, 2.5, None)


def diffusion_sorption(path: Path, samples: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """1D_diff-sorp_NA_NA.h5."""
    return _groups(path, _values(generator, samples, FRAMES, POINTS, 1), 0, 1, "lzf", config=True)


def _fluid(path: Path, samples: int, generator: np.random.Generator, dims: int, points: int) -> dict[str, np.ndarray]:
    names = ("density", "pressure", "Vx", "Vy", "Vz")[: 2 + dims]
    fields = {name: _values(generator, samples, FRAMES, *(points,) * dims) for name in names}
    with h5py.File(path, "w") as file:
        for name, values in fields.items():
            file.create_dataset(name, data=values)
        for axis in "xyz"[:dims]:
            file.create_dataset(f"{axis}-coordinate", data=_centres(points))
        file.create_dataset("t-coordinate", data=np.linspace(0, 0.6, FRAMES + 1, dtype=np.float32))
        file.attrs.update({"eta": 1e-8, "zeta": 1e-8, **({"M": 0.1} if dims > 1 else {})})
    return {"targets": np.stack([*fields.values()], -1), "times": np.linspace(0, 0.6, FRAMES + 1)[:-1]}


def fluid_1d(path: Path, samples: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """1D_CFD_Rand_Eta1.e-8_Zeta1.e-8_periodic_Train.hdf5."""
    return _fluid(path, samples, generator, 1, POINTS)


def fluid_2d(path: Path, samples: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """2D_CFD_Rand_M0.1_Eta1e-8_Zeta1e-8_periodic_512_Train.hdf5."""
    return _fluid(path, samples, generator, 2, POINTS)


def fluid_3d(path: Path, samples: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """3D_CFD_Rand_M1.0_Eta1e-8_Zeta1e-8_periodic_Train.hdf5."""
    return _fluid(path, samples, generator, 3, 4)


def incompressible(path: Path, samples: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """ns_incom_inhom_2d_512-0.h5: chunks of one frame, shuffled and compressed; no coordinates of points."""
    grid = (POINTS, POINTS)
    fields = {
        "velocity": _values(generator, samples, FRAMES, *grid, 2),
        "particles": _values(generator, samples, FRAMES, *grid, 1),
        "force": _values(generator, samples, *grid, 2),
        "t": np.tile(0.005 * np.arange(FRAMES, dtype=np.float32), (samples, 1)),
    }
    with h5py.File(path, "w") as file:
        file.attrs["config"] = "NU: 0.01\n"
        file.attrs["latestIndex"] = FRAMES - 1
        for name, values in fields.items():
            chunks = (1, 1, *values.shape[2:])
            file.create_dataset(name, data=values, compression="lzf", chunks=chunks, shuffle=True)
    targets = np.concatenate([fields["velocity"], fields["particles"]], -1)
    return {"targets": targets, "statics": fields["force"], "times": fields["t"][0].astype(float)}


LAYOUTS: dict[str, tuple[Writer, str]] = {
    "burgers": (burgers, "1D_Burgers_Sols_Nu0.01.hdf5"),
    "darcy": (darcy, "2D_DarcyFlow_beta1.0_Train.hdf5"),
    "diffusion_reaction": (diffusion_reaction, "2D_diff-react_NA_NA.h5"),
    "shallow_water": (shallow_water, "2D_rdb_NA_NA.h5"),
    "diffusion_sorption": (diffusion_sorption, "1D_diff-sorp_NA_NA.h5"),
    "fluid_1d": (fluid_1d, "1D_CFD_Rand_Eta1.e-8_Zeta1.e-8_periodic_Train.hdf5"),
    "fluid_2d": (fluid_2d, "2D_CFD_Rand_M0.1_Eta1e-8_Zeta1e-8_periodic_512_Train.hdf5"),
    "fluid_3d": (fluid_3d, "3D_CFD_Rand_M1.0_Eta1e-8_Zeta1e-8_periodic_Train.hdf5"),
    "incompressible": (incompressible, "ns_incom_inhom_2d_512-0.h5"),
}
WriteLayout = Callable[..., tuple[Path, dict[str, np.ndarray]]]


@pytest.fixture
def write_layout(tmp_path: Path) -> WriteLayout:
    """`write_layout(layout, name, samples, seed)`: the file, and what a reader must find in it."""

    def write(
        layout: str, name: str | None = None, samples: int = SAMPLES, seed: int = 0
    ) -> tuple[Path, dict[str, np.ndarray]]:
        writer, public = LAYOUTS[layout]
        path = tmp_path / (name or public)
        held = writer(path, samples, np.random.default_rng(seed))
        held.setdefault("statics", np.empty((samples, *held["targets"].shape[2:-1], 0), np.float32))
        return path, held

    return write
