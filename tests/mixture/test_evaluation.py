"""The stage `evaluate` on a mixture: every task by itself, and the model as one of that task alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ups_kit.assemble import Experiment
from ups_kit.folder import RunFolder
from ups_kit.model import LatentModel
from ups_kit.trackers import Trackers
from ups_plugins.mixture.dataset import Mixture
from ups_plugins.upt.evaluation.config import EvaluateConfig
from ups_plugins.upt.evaluation.rollouts import Runner
from ups_plugins.upt.evaluation.scores import score
from ups_plugins.upt.evaluation.truth import read_truth


def test_every_task_is_evaluated_with_its_own_fields(
    mixture: Mixture, make_model: Callable[..., LatentModel], tmp_path: Path
) -> None:
    model, cpu = make_model(mixture), torch.device("cpu")
    recipe: Any = SimpleNamespace(
        run=SimpleNamespace(name="both", seed=0),
        description="",
        stages=(),
        dataset=None,
        encoder=None,
        operator=None,
        decoder=None,
    )
    catalog: Any = SimpleNamespace(locate=lambda config: SimpleNamespace(name="part"))
    experiment = Experiment(recipe, mixture, model, (), cpu, catalog)
    stage = EvaluateConfig(pictures=False, require_beating=()).build()
    result = stage.run(experiment, RunFolder(tmp_path).stage("evaluate"), Trackers([]))
    assert set(result["tasks"]) == {"burgers", "waves"}
    for name, dataset in mixture.tasks.items():
        truth = read_truth(dataset, "test", None)
        alone = score(Runner(mixture.seen_by(name, model), truth, cpu, 50).latent_rollout(), truth, True)
        found = result["tasks"][name]["metrics"]["latent_rollout"]
        assert found["nrmse"] == pytest.approx(alone.mean)
    assert result["tasks"]["waves"]["shuffle"]["parameters"] == ["beta"]
    page = (tmp_path / "report.html").read_text()
    assert "<h2>burgers: Scores</h2>" in page
    assert "<h2>waves: Scores</h2>" in page
