"""What a later stage cannot train on is told before the first one begins, and before a run folder is made."""

from __future__ import annotations

from pathlib import Path

import pytest

import ups_kit
from ups_kit.errors import DataError, RecipeError, UsageError
from ups_kit.run import run

PIPELINE = Path(__file__).parents[1] / "pipelines/burgers.toml"


def refused(tmp_path: Path, error: type[ups_kit.UpsKitError], *settings: str) -> str:
    places = (f"run.folder={tmp_path / 'runs'}", f"dataset.path={tmp_path / 'data.h5'}")
    with pytest.raises(error) as caught:
        run(ups_kit.read_recipe(PIPELINE, [*places, *settings]).recipe)
    assert not (tmp_path / "runs").exists()
    return str(caught.value)


def test_all_stages_are_looked_through_and_everything_is_told(tmp_path: Path) -> None:
    far = ("stages.operator.losses.rollout={ horizon = 40 }", "stages.consistency.horizon=6")
    told = refused(tmp_path, DataError, *far, "stages.diffusion.horizon=5")
    assert [line.split(" looks ")[0] for line in told.splitlines()] == [
        *("stages.operator.losses.rollout", "stages.consistency.horizon")
    ]
    assert told.count("expected at most 5 steps") == 2
    alone = (
        "stages.operator.losses={ forward = { weight = 0 }, latent_forward = { weight = 0 }, inverse_encoding = {} }"
    )
    told = refused(tmp_path, UsageError, alone, "stages.diffusion.horizon=6")
    assert "stage 'operator': no loss reaches the operator" in told
    assert "stages.diffusion.horizon looks 6 steps ahead" in told


def test_what_cannot_be_evaluated_is_told_before_it_is_trained(tmp_path: Path) -> None:
    told = refused(tmp_path, DataError, "stages.evaluate.steps=6")
    assert told.startswith("stages.evaluate.steps looks 6 steps ahead")
    assert "the longest test trajectory has 6: expected at most 5 steps" in told


def test_an_operator_that_does_not_fit_the_tokens_is_told_before_the_codec_is_trained(tmp_path: Path) -> None:
    told = refused(tmp_path, RecipeError, 'operator={ use = "unet", levels = 5 }')
    assert "operator.levels: expected at most 3 levels" in told
