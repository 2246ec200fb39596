"""Operators and decoders are held against how the encoder's tokens stand, when the recipe is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from ups_kit.assemble import check
from ups_kit.reading import read_recipe

FLOW = Path(__file__).parents[2] / "recipes/mesh_flow_upt.toml"
POOLED = "the encoder gives tokens without a place: latent.tokens pools them; leave it out, or use another"
SCATTERED = "the encoder gives tokens at places of their own: encoder.choice = 'grid' gives one, or use another"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["latent.tokens=16"], {"decoder.use": POOLED}),
        (["latent.tokens=16", "decoder.use=local"], {"decoder.use": POOLED}),
        (["latent.tokens=16", "decoder.use=perceiver"], {}),
        (["latent.tokens=16", "operator.use=fno"], {"operator.use": POOLED, "decoder.use": POOLED}),
        (["operator.use=fno", "operator.modes=4"], {}),
        (
            ["encoder.choice=farthest", "operator.use=fno"],
            {"operator.use": SCATTERED, "encoder.lattice": "a lattice goes with the choice 'grid'"},
        ),
    ],
)
def test_tokens_stand_as_the_parts_behind_need_them(settings: list[str], expected: dict[str, str]) -> None:
    problems = {problem.path: problem.message for problem in check(read_recipe(FLOW, settings).recipe)}
    assert problems.keys() == expected.keys()
    assert all(text in problems[path] for path, text in expected.items())
