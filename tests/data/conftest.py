"""Small files in PDEBench's layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

WriteFile = Callable[..., Path]


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
