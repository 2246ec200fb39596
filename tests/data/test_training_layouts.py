"""Every public layout is trained on: a shrunken run each, from the file to the summary."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ups_kit
from ups_kit.run import run

WriteLayout = Callable[..., tuple[Path, dict[str, np.ndarray]]]
RECIPE = """
recipe_version = 1

[run]
name = "layout"
threads = 1
folder = "runs"

[dataset]
use = "pdebench"
path = "{path}"
train = 6
validation = 3
test = 3
{keys}

[latent]
width = 8

[encoder]
use = "grid"
patch_size = 4
depth = 0

[operator]
use = "transformer"
depth = 1
heads = 1

[decoder]
use = "partition"

[[stages]]
use = "operator"
batch = 4
budget = {{ steps = 3 }}
optimizer = {{ use = "adamw", lr = 0.001 }}
validate_every = 3
calibrate = false
losses = {{ forward = {{}} }}

[[stages]]
use = "evaluate"
pictures = false
"""


@pytest.mark.parametrize(
    ("layout", "keys"),
    [
        ("burgers", ""),
        ("darcy", ""),
        ("diffusion_reaction", 'normalisation = "robust"'),
        ("shallow_water", "points = 20"),
        ("diffusion_sorption", "history = 2"),
        ("fluid_1d", ""),
        ("fluid_2d", 'normalisation = { density = "range", Vx = "none" }'),
        ("fluid_3d", 'fields = ["density", "Vz"]'),
        ("incompressible", "periodic = [true, false]"),
    ],
)
def test_a_shrunken_run(write_layout: WriteLayout, tmp_path: Path, layout: str, keys: str) -> None:
    path, _ = write_layout(layout)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(path=path, keys=keys))
    finished = run(ups_kit.read_recipe(recipe).recipe)
    metrics = finished.summary["metrics"]
    assert metrics
    for values in metrics.values():
        assert math.isfinite(values["nrmse"])
        assert values["nrmse"] > 0
