"""The stage `evaluate` on a data set of several tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ups_kit.interfaces import Multitask
from ups_kit.model import LatentModel
from ups_plugins.upt.evaluation.config import EvaluateConfig
from ups_plugins.upt.evaluation.measurement import measure

from .conftest import run
from .data import heat, keeping, steady

Make = Callable[..., Any]


class Tasks:
    """Data sets by name, each with a model of its own in place of what the common model does for it."""

    def __init__(self, tasks: dict[str, Any], models: dict[str, LatentModel]) -> None:
        self.tasks, self._models = tasks, models
        self.fields = next(iter(tasks.values())).fields
        self.normaliser = self.splits = None

    def seen_by(self, task: str, model: LatentModel) -> LatentModel:
        return self._models[task]


@pytest.fixture
def tasks(tmp_path: Path) -> Callable[..., Tasks]:
    """Heat in two fields, and a steady problem; the operator of the heat's model multiplies."""

    def build(operator: float = 0.99) -> Tasks:
        data = {"heat": heat(tmp_path / "heat.h5"), "soil": steady(tmp_path / "steady.h5")}
        models = {"heat": keeping(data["heat"].fields, operator), "soil": keeping(data["soil"].fields)}
        return Tasks(data, models)

    return build


def test_every_task_is_scored_as_if_it_were_alone(tasks: Make, experiment: Make, tmp_path: Path) -> None:
    both = tasks()
    assert isinstance(both, Multitask)
    result, _, told = run(experiment(both, keeping(both.fields)), tmp_path, pictures=False)
    assert set(result["tasks"]) == {"heat", "soil"}
    for name, own in both.tasks.items():
        alone = measure(experiment(own, both.seen_by(name, None)), EvaluateConfig())
        assert result["tasks"][name]["metrics"]["latent_rollout"] == alone.latent.summary
        assert set(result["tasks"][name]["floors"]) == set(alone.floors)
    told_of = {key.partition("/")[0] for kind, (*_, values) in told if kind == "scalars" for key in values}
    assert told_of == {"heat", "soil"}


def test_the_metrics_of_all_are_the_means(tasks: Make, experiment: Make, tmp_path: Path) -> None:
    both = tasks()
    result, _, _ = run(experiment(both, keeping(both.fields)), tmp_path, pictures=False)
    own = [result["tasks"][name]["metrics"]["latent_rollout"] for name in ("heat", "soil")]
    rollout = result["metrics"]["latent_rollout"]
    assert rollout["nrmse"] == pytest.approx((own[0]["nrmse"] + own[1]["nrmse"]) / 2)
    assert rollout["frmse_low"] == pytest.approx((own[0]["frmse_low"] + own[1]["frmse_low"]) / 2)
    assert "correlation_time" not in rollout  # steady data have none
    assert "nrmse/a" not in rollout
    assert "mean over the tasks heat, soil" in result["card"]["definition"]["metrics"]


def test_one_task_below_its_floor_is_enough(tasks: Make, experiment: Make, tmp_path: Path) -> None:
    both = tasks(operator=-3.0)
    keys = {"pictures": False, "require_beating": ("persistence",)}  # which the steady task does not have
    result, folder, _ = run(experiment(both, keeping(both.fields)), tmp_path, **keys)
    assert result["tasks"]["heat"]["status"] == "below_floor"
    assert result["tasks"]["soil"]["status"] == "ok"
    assert result["status"] == "below_floor"
    assert result["card"]["verdict"].startswith("below_floor in heat; heat: below_floor: latent rollout nRMSE")
    assert "below_floor in heat" in folder.report.read_text()


def test_a_number_that_one_task_does_not_have_is_no_mean(tasks: Make, experiment: Make, tmp_path: Path) -> None:
    both = tasks(operator=1e30)
    result, _, _ = run(experiment(both, keeping(both.fields)), tmp_path, pictures=False)
    assert result["tasks"]["heat"]["metrics"]["latent_rollout"]["nrmse"] is None
    assert result["tasks"]["soil"]["metrics"]["latent_rollout"]["nrmse"] is not None
    assert result["metrics"]["latent_rollout"]["nrmse"] is None


def test_the_report_has_a_chapter_for_each_task(
    tasks: Make, experiment: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = tasks()
    result, folder, told = run(experiment(both, keeping(both.fields)), tmp_path)
    page, printed = folder.report.read_text(), capsys.readouterr().out
    for heading in ("Tasks", "heat: Scores", "soil: Scores", "heat: Error over time", "soil: Error by sample"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("<h2>What was run</h2>") == 1
    pictures = [name for kind, name in told if kind == "figure"]
    assert {"heat/sample_worst", "heat/fields_median", "soil/sample_worst", "soil/spectra"} <= set(pictures)
    assert page.count("data:image/png;base64,") == len(pictures)
    assert "task heat" in printed
    assert "task soil" in printed
    assert " ".join(printed.split()).endswith(result["card"]["verdict"])


def test_the_audit_of_losses_takes_each_tasks_own_batch(tasks: Make, experiment: Make, tmp_path: Path) -> None:
    from .test_evaluation import OneStep

    class Answer(OneStep):
        def __call__(self, forward: Any) -> Any:
            found = forward.decoded(1)
            return (found.values - found.truth).square().mean()

        def needs(self, progress: Any) -> Any:
            return super().needs(progress).__class__(steps=1, decodes=(1,))

    loss = Answer(False, ("encoder", "operator", "decoder"))
    stage = SimpleNamespace(name="operator", losses={"whole": SimpleNamespace(weight=1.0, build=lambda fields: loss)})
    both = tasks()
    result, _, _ = run(experiment(both, keeping(both.fields), (stage,)), tmp_path, pictures=False)
    for task in both.tasks:
        norms = result["tasks"][task]["reach"]["operator"]["whole"]["gradient_norms"]
        assert all(norm > 0 for norm in norms.values())
