"""The stage `evaluate` on points that differ between trajectories: meshes without a grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ups_kit import metrics
from ups_kit.interfaces import Latent
from ups_plugins.upt.evaluation import animation, floors
from ups_plugins.upt.evaluation.config import EvaluateConfig
from ups_plugins.upt.evaluation.interpolation import farthest
from ups_plugins.upt.evaluation.measurement import measure
from ups_plugins.upt.evaluation.rollouts import Runner
from ups_plugins.upt.evaluation.scores import score
from ups_plugins.upt.evaluation.truth import read_truth
from ups_plugins.upt.training.validation import codec_validation, rollout_validation

from .clouds import COUNTS, knowing, mesh, ripple
from .conftest import run

Make = Callable[..., Any]
CPU = torch.device("cpu")


def test_a_model_that_knows_the_law_scores_zero(experiment: Make) -> None:
    dataset = mesh()
    measured = measure(experiment(dataset, knowing(dataset.fields, ripple)), EvaluateConfig(batch=3))
    for found in (measured.one_step, measured.latent, measured.reencoded, measured.floors["encode_decode"].rollout):
        assert found.mean < 1e-6
    assert measured.floors["persistence"].rollout.mean > 0.1
    assert set(measured.floors) == {"persistence", "spatial_mean", "encode_decode", "interpolation"}


@pytest.mark.parametrize("garbage", [0.0, 1e6, float("nan")])
def test_trajectories_with_padding_score_as_each_alone(experiment: Make, garbage: float) -> None:
    dataset = mesh()
    dataset.garbage = garbage
    make = lambda data: measure(experiment(data, knowing(data.fields, ripple, 0.02)), EvaluateConfig())  # noqa: E731
    together, alone = make(dataset), [make(dataset.only(number)) for number in range(len(COUNTS))]
    for name in ("one_step", "latent", "reencoded"):
        both = getattr(together, name), torch.cat([getattr(each, name).nrmse for each in alone])
        assert torch.allclose(both[0].nrmse, both[1], rtol=1e-4)
    for name in ("rmse", "max_error", "crmse", "relative_l2", "correlation_time", "vrmse", "nrmse/u"):
        mean = np.mean([each.latent.summary[name] for each in alone])
        assert together.latent.summary[name] == pytest.approx(mean, rel=1e-4)
    for name, floor in together.floors.items():
        mean = np.mean([each.floors[name].rollout.mean for each in alone])
        assert floor.rollout.mean == pytest.approx(mean, rel=1e-5, abs=1e-7)
    for name, part in together.budget.items():
        mean = np.mean([each.budget[name]["mean"] for each in alone])
        assert part["mean"] == pytest.approx(mean, rel=1e-4, abs=1e-6)


def test_validation_counts_real_points_alone() -> None:
    dataset = mesh()
    model = knowing(dataset.fields, ripple, 0.02)
    together = rollout_validation(dataset, CPU, 5, 1000, 7)(model)
    alone = [rollout_validation(dataset.only(number), CPU, 5, 1000, 7)(model) for number in range(len(COUNTS))]
    for name, value in together.items():
        assert value == pytest.approx(np.mean([each[name] for each in alone]), rel=1e-5)
    reencoded = rollout_validation(dataset, CPU, 5, 1000, 7, reencoded=True)(model)
    assert reencoded["score"] == pytest.approx(together["score"], rel=1e-3)
    assert codec_validation(dataset, CPU, 100, 7)(model)["score"] < 1e-6


def test_integrals_are_weighed() -> None:
    """The trapezoidal rule on unequal nodes is exact for a linear error, the plain mean is not."""
    nodes = torch.tensor([0.0, 0.1, 0.5, 1.0], dtype=torch.float64)
    areas = torch.tensor([0.05, 0.25, 0.45, 0.25], dtype=torch.float64)[None]
    truth, error = torch.ones(1, 2, 4, 1), (3 * nodes - 1)[None, None, :, None]
    assert metrics.crmse(truth + error, truth, [0, 1], areas)[0].tolist() == pytest.approx([0.5, 0.5])
    assert metrics.crmse(truth + error, truth, [0, 1]).mean() != pytest.approx(0.5, abs=0.1)
    same = torch.full((1, 4), 0.25)
    assert torch.allclose(metrics.crmse(truth + error, truth, [0], same), metrics.crmse(truth + error, truth, [0]))


def test_interpolation_through_all_points_is_the_truth_and_falls_with_fewer() -> None:
    dataset = mesh(counts=(300, 240))
    truth = read_truth(dataset, "test", 2)
    errors = []
    for tokens in (300, 100, 40, 12):
        found = floors.prepare(truth, dataset, Latent(torch.zeros(1, tokens, 4), None)).forecasts["interpolation"](
            truth
        )
        errors.append(score(found.rollout, truth, True).summary["nrmse/u"])
    assert errors[0] < 1e-6
    assert errors == sorted(errors)
    assert errors[1] < 0.02


def test_nodes_spread_over_the_points() -> None:
    points = np.random.default_rng(0).random((400, 2))
    nodes = farthest(points, 30, (None, None))
    assert len(set(nodes.tolist())) == 30
    apart = np.linalg.norm(points[nodes][:, None] - points[nodes][None], axis=-1) + 9 * np.eye(30)
    cover = np.linalg.norm(points[:, None] - points[nodes][None], axis=-1).min(1)
    assert apart.min() >= cover.max()
    assert len(farthest(points, 1000, (None, None))) == 400


def test_steady_data_have_the_floors_that_make_sense(experiment: Make) -> None:
    dataset = mesh(steady=True)
    truth = read_truth(dataset, "test", None)
    found = floors.prepare(truth, dataset, Latent(torch.zeros(1, 20, 4), None))
    assert set(found.forecasts) == {"train_mean", "spatial_mean", "interpolation"}
    mean = found.forecasts["train_mean"](truth).rollout
    assert mean[0, 0, 0, 0].item() == pytest.approx(np.mean([own[0, :, 0].mean().item() for own in dataset.values]))
    assert EvaluateConfig().required(dataset.fields) == ("train_mean",)
    assert found.remarks["train mean"].startswith("the mean over all points of 4 training samples")
    spatial = score(found.forecasts["spatial_mean"](truth).rollout, truth, False)
    assert spatial.summary["vrmse/u"] == pytest.approx(1, abs=1e-3)


def test_static_fields_of_other_points_are_not_lent(experiment: Make) -> None:
    dataset = mesh()
    found = measure(experiment(dataset, knowing(dataset.fields, ripple)), EvaluateConfig())
    assert found.shuffle_statics.reason == "not applicable: every trajectory has points of its own"


def test_look_ups_are_made_once_for_all_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = mesh()
    model, made = knowing(dataset.fields, ripple), []
    model.encoder.preparation = lambda points: (made.append(len(points.values)), points._replace(supernodes=()))[1]
    seen = []
    inner = model.encoder.forward
    monkeypatch.setattr(model.encoder, "forward", lambda points: (seen.append(points.supernodes), inner(points))[1])
    Runner(model, read_truth(dataset, "test", None), CPU, 3).stepwise()
    assert made == [3, 1]
    assert set(seen) == {()}


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_report_shows_scattered_points(experiment: Make, tmp_path: Path, capsys: Any, dims: int) -> None:
    dataset = mesh(dims)
    model = knowing(dataset.fields, ripple, 0.01)
    result, folder, told = run(experiment(dataset, model), tmp_path, steps=2)
    page, printed = folder.report.read_text(), capsys.readouterr().out
    assert {"sample_median", "fields_median", "error_over_time"} <= {name for kind, name in told if kind == "figure"}
    assert "41 to 75 points" in result["card"]["definition"]["data"]
    assert "polyharmonic splines" in printed.replace("\n", " ")
    assert "interpolation" in page
    assert page.count("data:image/gif;base64,") == (dims > 1)
    assert [file.name for file in (folder.path / "evaluate").iterdir()] == ["rollout_median.gif"] * (dims > 1)
    assert result["status"] == "ok"


def test_animations_stay_small(experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = mesh(counts=(60,))
    measured = measure(experiment(dataset, knowing(dataset.fields, ripple)), EvaluateConfig(steps=3))
    whole = animation.animate(measured, tmp_path / "a.gif")
    assert whole is not None
    monkeypatch.setattr(animation, "LARGEST", len(whole) - 1)
    smaller = animation.animate(measured, tmp_path / "a.gif")
    assert smaller is not None
    assert len(smaller) < len(whole)
    assert (tmp_path / "a.gif").read_bytes() == smaller
    steady = mesh(steady=True)
    answer = measure(experiment(steady, knowing(steady.fields, ripple)), EvaluateConfig())
    assert animation.animate(answer, tmp_path / "b.gif") is None


def test_the_report_of_steady_data_on_meshes(experiment: Make, tmp_path: Path, capsys: Any) -> None:
    dataset = mesh(steady=True)
    result, _, told = run(experiment(dataset, knowing(dataset.fields, ripple)), tmp_path, require_beating=())
    assert {"sample_median", "error_by_sample"} <= {name for kind, name in told if kind == "figure"}
    assert set(result["floors"]) == {"train_mean", "spatial_mean", "interpolation"}
    assert list(result["card"]["ratios"]) == ["answer / train mean"]
    assert "input depth" not in capsys.readouterr().out
