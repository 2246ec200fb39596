"""The stage `evaluate` on points that move."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ups_kit import metrics
from ups_kit.interfaces import FieldSpec, Latent, LatentSpec, PointSet, Queries
from ups_kit.motion import displacement, moved, travelled
from ups_kit.neighbours import SupernodeGraph
from ups_kit.transport import sinkhorn_divergence
from ups_plugins.upt.evaluation import floors
from ups_plugins.upt.evaluation.config import EvaluateConfig
from ups_plugins.upt.evaluation.measurement import measure
from ups_plugins.upt.evaluation.rollouts import Runner
from ups_plugins.upt.evaluation.scores import score
from ups_plugins.upt.evaluation.truth import read_truth
from ups_plugins.upt.training.validation import codec_validation, rollout_validation

from .clouds import COUNTS, DT, knowing, particles, rotation, wind
from .conftest import run

Make = Callable[..., Any]
CPU = torch.device("cpu")


@pytest.mark.parametrize("walls", [0, 6])
def test_a_model_that_knows_the_law_moves_particles_exactly(experiment: Make, walls: int) -> None:
    dataset = particles(rotation, periodic=False, walls=walls)
    measured = measure(experiment(dataset, knowing(dataset.fields, rotation)), EvaluateConfig(batch=3))
    truth = measured.truth
    for found in (measured.one_step, measured.latent, measured.reencoded):
        assert found.summary["nrmse/velocity"] < 2e-4
    for found in (measured.latent, measured.reencoded):
        assert found.summary["position_mse"] < 1e-9
        assert found.summary["position_mse_20"] == pytest.approx(np.mean(found.summary["curve_position_mse"][:20]))
        assert found.summary["sinkhorn_20"] < 1e-7
        assert found.summary["kinetic_energy_mse"] < 1e-9
    straight = measured.floors["constant_velocity"].rollout.summary
    assert straight["position_mse_5"] > 1e3 * measured.latent.summary["position_mse_5"]
    assert straight["sinkhorn_20"] > 1e-3
    assert measured.floors["at_rest"].rollout.summary["nrmse/velocity"] == pytest.approx(1)
    assert (truth.kinematic is None) == (walls == 0)


def test_a_uniform_flow_is_what_a_constant_velocity_forecasts(experiment: Make) -> None:
    dataset = particles(wind, periodic=True)
    measured = measure(experiment(dataset, knowing(dataset.fields, wind)), EvaluateConfig())
    straight = measured.floors["constant_velocity"].rollout
    assert straight.summary["nrmse/velocity"] < 1e-5
    assert straight.summary["position_mse"] < 1e-11
    assert measured.latent.summary["position_mse"] < 1e-11
    speed = (0.73**2 + 0.41**2) / 2
    expected = [(DT * steps) ** 2 * speed for steps in range(1, 6)]  # while no way around is shorter
    assert measured.floors["at_rest"].rollout.summary["curve_position_mse"][:5] == pytest.approx(expected, rel=1e-4)
    assert measured.floors["at_rest"].rollout.summary["kinetic_energy_mse"] == pytest.approx(speed**2, rel=1e-4)


def test_particles_with_padding_score_as_each_alone(experiment: Make) -> None:
    dataset = particles(rotation, periodic=True, walls=4)
    dataset.garbage = 1e6
    make = lambda data: measure(experiment(data, knowing(data.fields, rotation, 0.02)), EvaluateConfig())  # noqa: E731
    together, alone = make(dataset), [make(dataset.only(number)) for number in range(len(COUNTS))]
    for name in ("position_mse_5", "position_mse", "kinetic_energy_mse", "nrmse", "sinkhorn_10", "vrmse/velocity"):
        mean = np.mean([each.latent.summary[name] for each in alone])
        assert together.latent.summary[name] == pytest.approx(mean, rel=1e-4, abs=1e-9)
    for name, floor in together.floors.items():
        mean = np.mean([each.floors[name].rollout.summary["position_mse"] for each in alone])
        assert floor.rollout.summary["position_mse"] == pytest.approx(mean, rel=1e-5)


def test_walls_keep_their_true_motion_and_are_not_scored() -> None:
    dataset = particles(rotation, periodic=False, walls=6)
    truth = read_truth(dataset, "test", None)
    model = knowing(dataset.fields, rotation)
    assert truth.kinematic is not None
    for forecast in (*Runner(model, truth, CPU, 2).stepwise(), Runner(model, truth, CPU, 2).latent_rollout()):
        known = truth.kinematic[:, None].expand(-1, forecast.shape[1], -1)
        assert torch.allclose(forecast[known], truth.values[known], atol=1e-5)
    wrong = truth.values.clone()
    wrong[truth.kinematic[:, None].expand(-1, wrong.shape[1], -1)] = 1e3
    assert score(wrong, truth, True).mean == 0


def test_velocities_are_asked_where_particles_have_come_to() -> None:
    """In a flow that shears, the velocity at the old place is another: only the new place gives the true one."""
    dataset = particles(rotation, periodic=False)
    truth, asked = read_truth(dataset, "test", 1), []
    model = knowing(dataset.fields, rotation)
    inner = model.decoder.forward
    model.decoder.forward = lambda latent, queries: (asked.append(queries.positions), inner(latent, queries))[1]
    Runner(model, truth, CPU, 10).latent_rollout()
    real = truth.mask
    way = [(places - truth.positions[:, 2])[real].norm(dim=-1).max().item() for places in asked]
    step = (truth.positions[:, 2] - truth.positions[:, 1])[real].norm(dim=-1).max().item()
    assert len(asked) == 2
    assert way[1] < way[0] / 10 < step / 100


def test_validation_tells_how_far_particles_are_off() -> None:
    dataset = particles(rotation, periodic=True, walls=3)
    found = rollout_validation(dataset, CPU, 4, 40, 7)(knowing(dataset.fields, rotation))
    assert found["position_mse"] < 1e-11
    assert found["score"] < 1e-4
    again = rollout_validation(dataset, CPU, 4, 40, 7, reencoded=True)(knowing(dataset.fields, rotation))
    assert again["position_mse"] < 1e-11
    assert codec_validation(dataset, CPU, 40, 7)(knowing(dataset.fields, rotation))["score"] < 1e-5


def test_points_wrap_around_and_stay_within_walls() -> None:
    fields = particles(wind, periodic=True).fields
    places = torch.tensor([[0.95, 0.05], [0.5, 0.5]])
    there = moved(places, torch.tensor([[1.0, -1.0], [25.0, 0.0]]), fields)
    assert torch.allclose(there, torch.tensor([[0.05, 0.95], [0.0, 0.5]]), atol=1e-6)
    assert bool(((there >= 0) & (there < 1)).all())
    assert torch.allclose(displacement(places, there, fields)[0], torch.tensor([0.1, -0.1]), atol=1e-6)
    walled = particles(wind, periodic=False).fields
    kept = moved(torch.tensor([[0.95, -0.2]]), torch.tensor([[1.0, -1.0]]), walled)
    assert torch.allclose(kept, torch.tensor([[1.0, -0.2]]))
    inward = moved(torch.tensor([[0.95, -0.2]]), torch.tensor([[-1.0, 1.0]]), walled)
    assert torch.allclose(inward, torch.tensor([[0.85, -0.1]]))
    lost = travelled(places[None], torch.tensor([float("nan"), 0.0, 0.0]).expand(1, 3, 2, 3), fields)
    assert not bool(torch.isfinite(lost[..., 0]).any())


def test_a_model_that_diverges_does_not_end_the_evaluation(experiment: Make) -> None:
    dataset = particles(rotation, periodic=False)
    model = knowing(dataset.fields, lambda places, time: rotation(places, time) / (time[:, None, None] < 0.5).float())
    measured = measure(experiment(dataset, model), EvaluateConfig(require_beating=()))
    assert measured.latent.summary["position_mse"] is None
    assert measured.latent.summary["sinkhorn_20"] is None
    assert measured.latent.summary["position_mse_20"] is None


BAD = 1  # the sample that a model loses
LOST: dict[str, float] = {"nan": math.nan, "infinite": math.inf, "beyond the largest float": 3e38, "one place": 10.0}


class Losing(nn.Module):
    """Gives the fields of another decoder; from the third step on, something else for one sample."""

    def __init__(self, inner: nn.Module, wrong: float) -> None:
        super().__init__()
        self.inner, self.wrong, self.asked = inner, wrong, 0

    def forward(self, latent: Latent, queries: Queries) -> torch.Tensor:
        assert bool(torch.isfinite(queries.positions).all())
        found, time = self.inner(latent, queries).clone(), latent.tokens.mean((1, 2))
        if len(found) > BAD and time[BAD] > 2.5 * DT + DT:  # two frames are given, the second at the time DT
            found[BAD] = self.wrong
        return found


@pytest.mark.parametrize("wrong", LOST.values(), ids=LOST)
@pytest.mark.parametrize("encoded", [True, False])
def test_a_sample_whose_particles_run_away_is_lost_alone(wrong: float, encoded: bool) -> None:
    dataset = particles(rotation, periodic=False)
    model = knowing(dataset.fields, rotation)
    if encoded:  # the neighbours that an encoder would need are looked up
        model.encoder = Looking(dataset.fields, model.encoder)
    truth = read_truth(dataset, "test", None)
    right = Runner(model, truth, CPU, 4).reencoded_rollout()
    model.decoder = Losing(model.decoder, wrong)
    for found in (Runner(model, truth, CPU, 4).latent_rollout(), Runner(model, truth, CPU, 4).reencoded_rollout()):
        others = [sample for sample in range(len(COUNTS)) if sample != BAD]
        assert torch.allclose(found[others], right[others], atol=1e-4)
        assert torch.allclose(found[BAD, : truth.given + 2], right[BAD, : truth.given + 2], atol=1e-4)
        if wrong != LOST["one place"]:
            assert bool(found[BAD, truth.given + 2 :].isnan().all())
    if wrong == LOST["one place"] and encoded:
        assert bool(found[BAD, -1].isnan().all())
    validated = rollout_validation(dataset, CPU, 6, 8, 8, reencoded=True)(model)
    assert set(validated) >= {"score", "position_mse"}


def test_an_evaluation_with_a_lost_sample_is_told_to_its_end(experiment: Make, tmp_path: Path, capsys: Any) -> None:
    dataset = particles(rotation, periodic=False)
    model = knowing(dataset.fields, rotation)
    model.decoder = Losing(model.decoder, math.nan)
    result, folder, _ = run(experiment(dataset, model), tmp_path)
    assert result["status"] == "below_floor"
    assert result["metrics"]["latent_rollout"]["position_mse"] is None
    assert folder.report.exists()
    assert "MSE of positions" in capsys.readouterr().out


class Looking(nn.Module):
    """An encoder that looks up the neighbours of a lattice's places, and has another one encode."""

    def __init__(self, fields: FieldSpec, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.preparation = SupernodeGraph(
            domain=fields.domain, periodic=fields.periodic, lattice=(4, 4), choice="grid", radius=0.3, degree=8
        )

    def forward(self, points: PointSet) -> Latent:
        latent: Latent = self.inner(self.preparation(points))
        return latent


# ---------------------------------------------------------------------------------------------------------------------
# Clouds
# ---------------------------------------------------------------------------------------------------------------------
def test_the_divergence_of_equal_clouds_is_zero_and_of_a_shifted_one_its_square() -> None:
    fields = particles(rotation, periodic=False).fields
    cloud = torch.rand(2, 200, 2, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    assert sinkhorn_divergence(cloud[:, order], cloud, fields).abs().max() < 1e-6
    for shift in (0.02, 0.1, 0.5):
        found = sinkhorn_divergence(cloud + torch.tensor([shift, 0.0]), cloud, fields)
        assert found.tolist() == pytest.approx([shift**2] * 2, rel=0.01)
    scaled = 0.5 * cloud
    exact = (cloud - scaled).square().sum(-1).mean(1)  # a map that is a gradient of a convex function is optimal
    assert sinkhorn_divergence(scaled, cloud, fields, 0.005).tolist() == pytest.approx(exact.tolist(), rel=0.01)


def test_the_divergence_knows_periodic_axes_and_places_that_are_none() -> None:
    fields = particles(rotation, periodic=True).fields
    cloud = 0.05 * torch.rand(1, 100, 2, generator=torch.Generator().manual_seed(0))
    found = sinkhorn_divergence((cloud - torch.tensor([0.04, 0.0])) % 1, cloud, fields)
    assert found.item() == pytest.approx(0.04**2, rel=0.02)
    cloud[0, 3, 1] = float("nan")
    assert sinkhorn_divergence(cloud, cloud, fields).isnan().all()


def test_position_errors_are_means_over_points_and_axes() -> None:
    fields = particles(rotation, periodic=True).fields
    truth = torch.tensor([[0.95, 0.5], [0.2, 0.2]])[None, None]
    prediction = torch.tensor([[0.05, 0.5], [0.2, 0.4]])[None, None]
    assert metrics.position_mse(prediction, truth, fields).item() == pytest.approx((0.1**2 + 0.2**2) / 4)
    mask = torch.tensor([[True, False]])
    assert metrics.position_mse(prediction, truth, fields, mask).item() == pytest.approx(0.1**2 / 2)
    assert metrics.kinetic_energy(torch.tensor([[3.0, 4.0], [0.0, 0.0]])[None, None]).item() == 6.25


# ---------------------------------------------------------------------------------------------------------------------
# What is told of them
# ---------------------------------------------------------------------------------------------------------------------
def test_moving_points_are_held_against_a_constant_velocity() -> None:
    config, fields = EvaluateConfig(), particles(wind, periodic=True).fields
    assert config.required(fields) == ("constant_velocity",)
    assert list(config.check(fields, LatentSpec(8))) == []
    ((_, message),) = EvaluateConfig(require_beating=("persistence",)).check(fields, LatentSpec(8))
    assert message.startswith("'persistence' is for points that stand still")
    truth = read_truth(particles(wind, periodic=True), "test", None)
    assert set(floors.prepare(truth, None, None).forecasts) == {"constant_velocity", "at_rest", "spatial_mean"}


def test_the_card_and_the_report_of_particles(experiment: Make, tmp_path: Path, capsys: Any) -> None:
    dataset = particles(rotation, periodic=True, walls=5)
    result, folder, told = run(experiment(dataset, knowing(dataset.fields, rotation, 0.01)), tmp_path)
    printed, page = capsys.readouterr().out, folder.report.read_text()
    assert max(map(len, printed.splitlines())) <= 80
    columns = ["5 steps", "10 steps", "20 steps", "all steps", "energy", "Sinkhorn"]
    assert list(result["card"]["positions"]["latent rollout"]) == columns
    assert "MSE of positions" in printed
    assert "position MSE, 20 steps / constant velocity" in result["card"]["ratios"]
    assert "positions_over_time" in {name for kind, name in told if kind == "figure"}
    assert "sinkhorn_n" in page
    animation = (folder.path / "evaluate" / "rollout_median.gif").read_bytes()
    assert animation.startswith(b"GIF8")
    assert page.count("data:image/gif;base64,") == 1
    assert result["card"]["definition"]["points"].startswith("move with the forecast's own velocity")
    assert "interpolation" not in result["floors"]
