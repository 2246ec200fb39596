"""UPT's reference sizes: the recipes build models with as many parameters as the paper's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ups_kit import Field, FieldSpec
from ups_kit.assemble import build_model
from ups_kit.data.normalisation import Normaliser
from ups_kit.reading import read_recipe

SCALE = Path(__file__).parents[2] / "recipes/scale"
MILLIONS = {"upt_8m": 8, "upt_17m": 17, "upt_68m": 68}  # Alkin et al., arXiv:2402.12365, transient flows
NORMALISER = Normaliser((0.0,) * 3, (1.0,) * 3, (0.0,) * 2, (1.0,) * 2, (False,) * 2, (0.0,) * 2, (1.0,) * 2)
FLOW = FieldSpec(
    (Field("velocity", 2), Field("pressure")),
    ((0.0, 3.0), (0.0, 2.0)),
    (False, False),
    "mesh",
    None,
    0.1,
    (Field("boundary"), Field("sdf")),
    history=2,
    conditions=("dt", "Re"),
    counts=(29_000, 59_000),
)


@pytest.mark.parametrize("name", MILLIONS)
def test_the_size_is_that_of_the_paper(name: str) -> None:
    recipe = read_recipe(SCALE / f"{name}.toml").recipe
    with torch.device("meta"):
        model = build_model(recipe, FLOW, NORMALISER)
    counts = {part: sum(weight.numel() for weight in module.parameters()) for part, module in model.parts.items()}
    assert sum(counts.values()) == pytest.approx(1e6 * MILLIONS[name], rel=0.07), counts


def test_sizes_grow_with_the_paper_s_widths() -> None:
    widths = {name: read_recipe(SCALE / f"{name}.toml").recipe.latent.width for name in MILLIONS}
    assert widths == {"upt_8m": 128, "upt_17m": 192, "upt_68m": 384}
