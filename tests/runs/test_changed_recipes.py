"""A run that is resumed with a changed recipe: what is safe, what must be allowed, and what is written down."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

import ups_kit
from ups_kit.differences import ABSENT, Difference, default_paths, differences
from ups_kit.errors import DataError, StorageError, UsageError
from ups_kit.run import run

Pipeline = Callable[..., ups_kit.Recipe]
STAGES = ("codec", "operator")


@pytest.fixture
def half(pipeline: Pipeline, stopped: Callable[..., None]) -> Path:
    """A run whose codec is finished and whose operator was stopped after 4 of 12 steps."""
    recipe = pipeline(stages=STAGES)
    stopped(recipe, "operator", 4)
    return recipe.run.folder / "burgers" / "1"


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "resolved.json").read_text())
    return found


def test_what_only_watches_and_what_is_to_come_may_change(
    pipeline: Pipeline, half: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Logging, checkpoints that are kept, a budget that grows, and a stage that has not begun."""
    changed = (
        "stages.operator.log_every=2",
        "stages.operator.keep=1",
        "stages.codec.keep=1",
        "stages.operator.budget.steps=16",
        "stages.evaluate.trajectories=3",
    )
    capsys.readouterr()
    summary = run(pipeline(*changed, stages=(*STAGES, "evaluate")), resume=True).summary
    told = capsys.readouterr().err
    assert summary["stages"]["operator"]["steps"] == 16
    assert "the recipe has changed: stages.operator.budget.steps: 12 in the run, 16 now" in told
    assert "the recipe has changed: stages.evaluate: not there in the run, {'use': 'evaluate'" in told
    kept = record(half)
    assert {change["path"] for change in kept["changes"]} == {
        *(key.partition("=")[0] for key in changed if "evaluate" not in key),
        "stages.evaluate",
    }
    assert not any(change["allowed"] for change in kept["changes"])
    assert run(pipeline(*changed, stages=(*STAGES, "evaluate")), resume=True).summary["status"] == "ok"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("stages.operator.optimizer.lr=0.02", "stages.operator.optimizer.lr: 0.01 in the run, 0.02 now"),
        ("stages.operator.budget.steps=8", "stages.operator.budget.steps: 12 in the run, 8 now"),
        ("stages.codec.budget.steps=20", "stages.codec.budget.steps: 12 in the run, 20 now"),
        ("stages.operator.name=later", "stages.operator: {'use': 'operator'"),
        ("run.seed=4", "run.seed: 0 in the run, 4 now"),
    ],
)
def test_what_was_computed_with_may_not_change(pipeline: Pipeline, half: Path, settings: str, says: str) -> None:
    before = (half / "resolved.json").read_bytes()
    with pytest.raises(UsageError) as told:
        run(pipeline(settings, stages=(*STAGES, "later")), resume=True)
    assert f"  {says}" in str(told.value)
    assert "--allow-changed stages." in str(told.value) or "--allow-changed run.seed goes on" in str(told.value)
    assert ("--from operator, in the place of --resume" in str(told.value)) == (
        "optimizer.lr" in says or "8 now" in says
    )
    assert (half / "resolved.json").read_bytes() == before


def test_what_is_allowed_is_written_down_and_is_part_of_the_key(
    pipeline: Pipeline, half: Path, files: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = "stages.operator.optimizer.lr=0.02"
    with pytest.raises(UsageError, match=r"optimzer: has not changed; did you mean .*lr'\? \(changed: stages\.oper"):
        run(pipeline(changed, stages=STAGES), resume=True, allow_changed=["stages.operator.optimzer"])
    run(pipeline(changed, stages=STAGES), resume=True, allow_changed=["stages.operator.optimizer"])
    lines = [json.loads(line) for line in (half / "metrics.jsonl").read_text().splitlines()]
    rates = {line["step"]: line["lr"] for line in lines if line["stage"] == "operator" and "lr" in line}
    assert rates[8] > rates[4] * 0.8  # twice as large, half as far on its way down the cosine
    (change,) = record(half)["changes"]
    assert (change["path"], change["before"], change["after"]) == ("stages.operator.optimizer.lr", 0.01, 0.02)
    assert (change["allowed"], change["during"]) == (True, "operator")
    with pytest.raises(UsageError, match=r"lr: changed from 0\.01 to 0\.02 while stage 'operator' was trained"):
        run(pipeline(changed), from_stage="diffusion")
    run(pipeline(changed), from_stage="operator")  # the codec was finished before the change


def test_weights_of_another_shape_are_told_with_what_was_changed(pipeline: Pipeline, half: Path) -> None:
    with pytest.raises(StorageError) as told:
        run(pipeline("latent.width=12", stages=STAGES), resume=True, allow_changed=["latent"])
    lines = str(told.value).splitlines()
    assert "codec/model.safetensors: weights of another model: other shapes: " in lines[0]
    assert ": (8," in lines[0]
    assert " and " in lines[0].split("other shapes")[1]
    assert lines[1:] == ["the recipe was changed when the run was resumed:", "  latent.width: 8 before, 12 now"]


def test_a_checkpoint_of_another_shape_is_told_with_its_names(pipeline: Pipeline, half: Path) -> None:
    settings, allowed = "operator.depth=2", ["operator.depth"]
    (half / "codec" / "done.json").unlink()  # so that its checkpoint is read
    with pytest.raises(
        StorageError, match=r"codec': the checkpoint's model does not fit .* \(missing: operator\."
    ) as told:
        run(pipeline(settings, stages=STAGES), resume=True, allow_changed=allowed)
    assert " more" in str(told.value)


def test_other_data_than_those_of_the_finished_stages_are_refused(
    pipeline: Pipeline, half: Path, files: SimpleNamespace
) -> None:
    path = half / "codec" / "done.json"
    found = json.loads(path.read_text())
    found["of"]["data"]["splits"] = "0" * 64
    path.write_text(json.dumps(found))
    with pytest.raises(DataError, match=r"was trained on other data .* --from codec in the place of --resume"):
        run(pipeline(stages=STAGES), resume=True)


def test_a_key_that_came_with_a_later_version_has_not_changed(
    pipeline: Pipeline, half: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where its value is the default now; where it is not, the run would go on in another way than it began."""
    old = record(half)
    for place in (old["values"]["run"], old["values"]["stages"][1], old["values"]["stages"][1]["budget"]):
        for key in ("compile", "on_nonfinite", "gpu_seconds", "validation_trajectories"):
            place.pop(key, None)
    old["values"].pop("constraints", None)
    (half / "resolved.json").write_text(json.dumps(old))
    with pytest.raises(UsageError, match=r"stages\.operator\.validation_trajectories: not there in the run, 7 now"):
        run(pipeline("stages.operator.validation_trajectories=7", stages=STAGES), resume=True)
    capsys.readouterr()
    run(pipeline(stages=STAGES), resume=True)
    assert "changed" not in capsys.readouterr().err


# -- differences ------------------------------------------------------------------------------------------------------
def test_differences_go_by_name_and_order() -> None:
    a, b = {"name": "a", "lr": 1}, {"use": "b"}
    assert differences({"stages": [a, b]}, {"stages": [a, {"use": "c"}, b]}) == [
        Difference("stages.c", ABSENT, {"use": "c"})
    ]
    assert differences({"stages": [a, b]}, {"stages": [{**a, "lr": 2}]}) == [
        Difference("stages.a.lr", 1, 2),
        Difference("stages.b", b, ABSENT),
    ]
    assert differences({"stages": [a, b]}, {"stages": [b, a]}) == [Difference("stages", ["a", "b"], ["b", "a"])]
    assert differences({"x": (1, 2)}, {"x": [1, 2]}) == []
    assert differences({"x": None}, {}) == [Difference("x", None, ABSENT)]
    assert differences({}, {"x": None}) == []
    assert Difference("a.b", 1, ABSENT).told() == "a.b: 1 in the run, not there now"
    assert len(Difference("a", "x" * 900, 1).told()) < 300


def test_defaults_are_found_wherever_they_stand(pipeline: Pipeline) -> None:
    recipe = pipeline("stages.operator.clip=2.0")
    found = default_paths(recipe)
    assert {"run.compile", "stages.operator.on_nonfinite", "stages.codec.clip", "dataset.history"} <= found
    assert not {"run.name", "stages.operator.clip", "stages.operator.batch", "latent.width"} & found
    assert "stages.operator.losses.forward.weight" in found
    assert attrs.has(type(recipe))
