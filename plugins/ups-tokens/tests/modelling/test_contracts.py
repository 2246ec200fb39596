"""The model, its losses and its stages keep the contracts of their kinds."""

from __future__ import annotations

from typing import Any

import pytest

from ups_kit.testing import check_component
from ups_tokens.description import TokenSpec
from ups_tokens.vocabulary import Modality, Vocabulary

SPEC = TokenSpec(Vocabulary((Modality("image", "image", 5, 4), Modality("mass", "scalar", 4))), 12, 3)
SMALL = {"width": 16, "layers": 1, "heads": 2, "feed_forward": 16, "length": 12, "types": 3}


@pytest.mark.parametrize(
    ("kind", "name", "settings"),
    [
        ("model", "token_transformer", SMALL),
        ("model", "token_transformer", {**SMALL, "tied": True, "dropout": 0.1, "checkpointing": True}),
        ("loss", "next_token", {}),
        ("loss", "expected_value", {"modality": "mass"}),
        ("stage", "token_training", {}),
        ("stage", "token_evaluation", {}),
    ],
)
def test_a_component_keeps_its_contract(kind: str, name: str, settings: dict[str, Any]) -> None:
    check_component(kind, name, settings=settings, described=SPEC)
