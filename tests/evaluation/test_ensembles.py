"""Drawn forecasts in the stage `evaluate`: beside the operator alone, and whether they help."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from attrs import frozen
from torch import Tensor, nn

from ups_kit.data.splits import evenly
from ups_kit.fit.settings import Budget, FieldFitSettings
from ups_kit.generating import Drawn, Noise
from ups_kit.interfaces import DrawsStates, Field, Latent, PointSet, Queries, Trajectories
from ups_kit.model import LatentModel
from ups_kit.tasks import Placement, TaskView
from ups_plugins.optim import AdamWConfig
from ups_plugins.upt.evaluation.bands import draw_drawn
from ups_plugins.upt.evaluation.choice import Validated, choose, factor, over_tasks
from ups_plugins.upt.evaluation.config import EvaluateConfig
from ups_plugins.upt.evaluation.drawing import ALONE, Drawing, Variant
from ups_plugins.upt.evaluation.ensembles import tabulate_drawn
from ups_plugins.upt.evaluation.measurement import Measured, measure
from ups_plugins.upt.evaluation.rollouts import Runner
from ups_plugins.upt.evaluation.truth import read_truth

from .clouds import COUNTS, knowing, mesh, particles, ripple, rotation
from .conftest import Waves, run
from .data import heat, keeping, listening, steady
from .test_tasks import Tasks

Make = Callable[..., Any]
SLOW = 0.9  # what the operator multiplies by, and should not


@frozen(kw_only=True)
class Trains(FieldFitSettings):
    """A stage that trains something."""

    name: str = "diffusion"
    trains: tuple[str, ...] = ()


def stage(name: str = "diffusion", trains: tuple[str, ...] = (), steps: int = 1) -> Trains:
    return Trains(name=name, trains=trains, budget=Budget(steps=steps), optimizer=AdamWConfig())


class Draws(nn.Module):
    """The prediction times a factor and noise times a scale, both of which many steps make better."""

    default = 2

    def __init__(self, factor: float = 1.0, noise: float = 0.0, shown: tuple[int, ...] = (2,)) -> None:
        super().__init__()
        self.factor, self.noise, self.shown = factor, noise, shown

    def correct(self, predicted: Latent, noise: Tensor, steps: int) -> Latent:
        factor = 1 + (self.factor - 1) * (1 - 0.5**steps)
        return predicted._replace(tokens=factor * predicted.tokens + self.noise * noise)


class HelpsOne(Draws):
    """Right for waves that travel one way, wrong for the others."""

    def correct(self, predicted: Latent, noise: Tensor, steps: int) -> Latent:
        assert predicted.condition is not None
        factor = torch.where(predicted.condition[:, 1] > 0, 1 / SLOW, SLOW)[:, None, None]
        return predicted._replace(tokens=factor * predicted.tokens)


class Prior(Draws):
    """Answers around the static fields times e to the last condition, as the model's own."""

    def given(self, points: PointSet, condition: Tensor) -> Latent:
        tokens = points.values * condition[:, -1].exp()[:, None, None]
        return Latent(tokens, points.positions[0], points.grid, condition)


class Keeps(nn.Module):
    """The static fields at their points, which stay where they are."""

    def forward(self, points: PointSet) -> Latent:
        return Latent(points.values, None)


class Ticks(nn.Module):
    def forward(self, latent: Latent, condition: Tensor) -> Latent:
        return latent


class Tells(nn.Module):
    """A number of the whole, everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, latent: Latent, queries: Queries) -> Tensor:
        values = self.factor * latent.tokens.mean(1, keepdim=True)
        return values.expand(-1, queries.positions.shape[1], 2)


class TwoWays(Waves):
    """Waves that travel one way on the validation split, and the other way on all others."""

    def trajectories(self, split: str, limit: int | None = None) -> Trajectories:
        whole = super().trajectories(split)
        chosen = (whole.parameters[:, 1] > 0) == (split == "validation")
        rows = list(evenly(chosen.nonzero().flatten().tolist(), limit))
        return whole._replace(
            values=whole.values[rows],
            statics=whole.statics[rows],
            parameters=whole.parameters[rows],
            ids=whole.ids[rows],
        )


@pytest.fixture
def drawn(waves: Make, model: Make, experiment: Make) -> Make:
    """An experiment on waves whose operator damps, with parts by the names of their stages."""

    def build(dataset: Waves | None = None, **parts: Draws) -> Any:
        slow = model(operator=SLOW)
        slow.added.update(parts)
        stages = (stage("operator", ("encoder", "operator")), *(stage(name) for name in parts))
        return experiment(dataset or waves(), slow, stages)

    return build


def rows_of(measured: Measured) -> dict[str, Any]:
    assert measured.ensembles is not None
    return dict(measured.ensembles.summary("test")["rows"])  # type: ignore[call-overload]


def test_a_part_that_undoes_the_bias_becomes_the_default(drawn: Make, tmp_path: Path, capsys: Any) -> None:
    exact, noise = Draws(1 / SLOW, 0.01, shown=(2, 8)), Draws(noise=1.0)
    result, folder, told = run(drawn(diffusion=exact, consistency=noise), tmp_path, pictures=False)
    rows = result["ensembles"]["rows"]
    assert list(rows) == [
        "operator alone", "diffusion, 2 steps", "diffusion, 8 steps", "consistency, 2 steps", "persistence",
    ]  # fmt: skip
    assert rows["diffusion, 8 steps"]["nrmse"] < rows["diffusion, 2 steps"]["nrmse"] < rows["operator alone"]["nrmse"]
    assert result["forecast"]["use"] == "diffusion"
    assert (result["forecast"]["steps"], result["forecast"]["members"]) == (8, 19)
    choice = result["ensembles"]["choice"]
    assert choice["split"] == "validation"
    assert choice["rows"]["diffusion, 8 steps"]["helps"]
    assert not choice["rows"]["consistency, 2 steps"]["helps"]
    printed, page = capsys.readouterr().out, folder.report.read_text()
    assert max(map(len, printed.splitlines())) <= 80
    told_all = " ".join(printed.split())
    for text in ("consistency, 2 steps: does not help: CRPS ", "diffusion, 8 steps: helps: CRPS "):
        assert text in told_all
        assert text in page
    assert "default: diffusion, 8 steps: of what helps the least CRPS on 7 validation trajectories" in told_all
    names = {name for kind, told_of in told if kind == "scalars" for name in told_of[2]}
    assert {"ensembles/diffusion, 8 steps/crps", "ensembles/operator alone/crps"} <= names
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_useless_part_is_reported_and_left_out(drawn: Make, tmp_path: Path, capsys: Any) -> None:
    result, _, _ = run(drawn(diffusion=Draws()), tmp_path, pictures=False)
    rows = result["ensembles"]["rows"]
    assert rows["diffusion, 2 steps"]["crps"] == pytest.approx(rows["operator alone"]["crps"])
    assert rows["diffusion, 2 steps"]["spread_skill"] == 0
    assert rows["diffusion, 2 steps"]["coverage"] == 0
    assert result["forecast"]["use"] == "operator"
    assert result["forecast"]["steps"] is None
    assert "nothing that is drawn helps on 7 validation trajectories" in result["forecast"]["why"]
    assert "is not below" in result["forecast"]["why"]
    assert "does not help" in " ".join(capsys.readouterr().out.split())


def test_noise_alone_makes_the_mean_and_the_crps_worse(drawn: Make) -> None:
    rows = rows_of(measure(drawn(diffusion=Draws(noise=2.0)), EvaluateConfig(members=8)))
    alone, noisy = rows["operator alone"], rows["diffusion, 2 steps"]
    assert noisy["crps"] > alone["crps"]
    assert noisy["nrmse"] > alone["nrmse"]
    assert noisy["nrmse_member"] > noisy["nrmse"]
    assert noisy["spread_skill"] > 1.2
    assert {"nrmse_member", "spread_skill", "coverage"}.isdisjoint(alone)


def test_the_operator_alone_is_the_latent_rollout(drawn: Make) -> None:
    measured = measure(drawn(diffusion=Draws(noise=0.1)), EvaluateConfig(members=2))
    rows = rows_of(measured)
    for name in ("nrmse", "vrmse", "curve_nrmse"):
        assert rows["operator alone"][name] == pytest.approx(measured.latent.summary[name])
        assert rows["persistence"][name] == pytest.approx(measured.floors["persistence"].rollout.summary[name])
    truth = measured.truth
    error = (0.9 ** torch.arange(1, 13) - 1)[:, None, None] * truth.normaliser.targets(truth.values[:, 1:]) * 3
    expected = (error.abs().mean(2) / truth.values[:, 1:].square().mean(2).sqrt()).mean().item()
    assert rows["operator alone"]["crps"] == pytest.approx(expected, rel=1e-3)


def test_an_ensemble_that_knows_its_error_is_calibrated(waves: Make, model: Make, experiment: Make) -> None:
    """The truth, too, is drawn: normal steps of the same size from state to state."""
    dataset = waves((0.0,) * 30)
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(30, 12, 32, 1, generator=generator)
    dataset._values = torch.cat([dataset._values[:, :1], dataset._values[:, :1] + 3 * 0.2 * steps.cumsum(1)], 1)
    exact = model()
    exact.added["diffusion"] = Draws(noise=0.2)
    rows = rows_of(measure(experiment(dataset, exact, (stage(),)), EvaluateConfig(ensemble_trajectories=30)))
    assert rows["diffusion, 2 steps"]["coverage"] == pytest.approx(0.9, abs=0.02)
    assert rows["diffusion, 2 steps"]["spread_skill"] == pytest.approx(1, abs=0.05)
    assert all(ratio == pytest.approx(1, abs=0.15) for ratio in rows["diffusion, 2 steps"]["curve_spread_skill"])
    assert rows["diffusion, 2 steps"]["crps"] < 0.8 * rows["operator alone"]["crps"]


def test_members_that_are_computed_together_are_those_of_a_drawn_model(drawn: Make) -> None:
    own = drawn(diffusion=Draws(noise=0.2))
    truth = read_truth(own.dataset, "test", 5)
    drawing = Drawing.of(own, EvaluateConfig(members=3, batch=8, seed=4))
    assert drawing is not None
    ensemble = drawing.ensemble(Variant("diffusion", 2), truth)
    for member, rollout in enumerate(ensemble):
        noise = Noise(4, member, tuple(range(7)))
        alone = Runner(Drawn(own.model, own.model.added["diffusion"], 2, noise), truth, torch.device("cpu"), 7)
        assert torch.allclose(alone.latent_rollout(), rollout, atol=1e-5)
    assert (ensemble[0] - ensemble[1]).abs().max() > 0.1


@pytest.mark.parametrize("judged", ["latent", "reencoded"])
def test_numbers_do_not_depend_on_what_is_computed_together(drawn: Make, judged: Any) -> None:
    own = drawn(diffusion=Draws(noise=0.2))
    truth = read_truth(own.dataset, "test", None)
    tables = []
    for batch in (50, 2, 1):
        drawing = Drawing.of(own, EvaluateConfig(members=4, batch=batch, judged=judged))
        assert drawing is not None
        tables.append(tabulate_drawn(drawing, Variant("diffusion", 2), truth))
    for name, values in tables[0].items():
        assert values.shape == (7, 12)
        assert torch.allclose(values, tables[1][name], rtol=1e-4)
        assert torch.allclose(values, tables[2][name], rtol=1e-4)


def test_every_step_has_noise_of_its_own_when_it_is_encoded_again(waves: Make, model: Make, experiment: Make) -> None:
    """Without damping, independent steps spread as √k, the same noise over and over as k."""
    exact = model(speed=0.0)
    exact.added["diffusion"] = Draws(noise=0.1)
    dataset = waves((0.0,) * 4)
    drawing = Drawing.of(experiment(dataset, exact, (stage(),)), EvaluateConfig(members=30, judged="reencoded"))
    assert drawing is not None
    ensemble = drawing.ensemble(Variant("diffusion", 2), read_truth(dataset, "test", None))
    spread = ensemble.std(0).mean((0, 2, 3))
    assert (spread[9] / spread[1]).item() == pytest.approx(3, rel=0.1)


def test_the_test_split_decides_nothing(model: Make, experiment: Make) -> None:
    slow = model(operator=SLOW)
    slow.added["diffusion"] = HelpsOne()
    dataset = TwoWays((0.3, -0.7, 1.1, 0.45, -0.2, -0.9))
    own = experiment(dataset, slow, (stage("operator", ("operator",)), stage()))
    for split, better in (("test", False), ("validation", True)):
        found = measure(own, EvaluateConfig(split=split))
        rows = rows_of(found)
        assert (rows["diffusion, 2 steps"]["crps"] < rows["operator alone"]["crps"]) == better
        assert found.ensembles is not None
        assert found.ensembles.choice.forecast["use"] == "diffusion"
        assert found.ensembles.choice.trajectories == 3


def test_a_part_must_have_been_trained_before(drawn: Make, experiment: Make) -> None:
    own = drawn(diffusion=Draws())
    skipped = attrs.evolve(own.recipe.stages[1], budget=Budget(steps=0))
    for stages in ((own.recipe.stages[0], skipped), (EvaluateConfig(), *own.recipe.stages)):
        assert measure(experiment(own.dataset, own.model, stages), EvaluateConfig()).ensembles is None
    assert measure(own, EvaluateConfig(members=2)).ensembles is not None


def test_without_validation_trajectories_nothing_is_chosen(drawn: Make) -> None:
    own = drawn(diffusion=Draws(1 / SLOW))
    found = measure(own, EvaluateConfig(members=2, choose_trajectories=0)).ensembles
    assert found is not None
    assert found.choice.forecast["use"] == "operator"
    assert found.choice.why == "there is no validation trajectory to choose on, or choose_trajectories = 0"
    own.dataset.splits["validation"] = ()
    assert measure(own, EvaluateConfig(members=2)).ensembles.choice.why == found.choice.why


def test_what_diverges_does_not_help(drawn: Make, tmp_path: Path) -> None:
    result, _, _ = run(drawn(diffusion=Draws(1e30)), tmp_path, members=2, pictures=False)
    assert result["ensembles"]["rows"]["diffusion, 2 steps"]["crps"] is None
    assert result["forecast"]["use"] == "operator"
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_pictures_of_an_ensemble(drawn: Make, tmp_path: Path) -> None:
    _, folder, told = run(drawn(diffusion=Draws(1 / SLOW, 0.05)), tmp_path, members=4)
    pictures = {name for kind, name in told if kind == "figure"}
    assert {"ensemble_errors", "ensemble_median"} <= pictures
    page = folder.report.read_text()
    assert "<h2>Drawn forecasts</h2>" in page
    assert page.count("data:image/png;base64,") == len(pictures)


# ---------------------------------------------------------------------------------------------------------------------
# Points of their own
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("moving", [False, True])
def test_points_of_their_own_score_as_each_trajectory_alone(experiment: Make, tmp_path: Path, moving: bool) -> None:
    """The clock of the model is drawn; trajectories are filled up with what must not matter."""
    dataset = particles(rotation, periodic=True, walls=4) if moving else mesh()
    dataset.garbage = 1e6

    def tables(data: Any) -> dict[str, Tensor]:
        model = knowing(data.fields, rotation if moving else ripple)
        model.added["diffusion"] = Draws(noise=0.05)
        drawing = Drawing.of(experiment(data, model, (stage(),)), EvaluateConfig(members=4))
        assert drawing is not None
        truth = read_truth(data, "test", 6)
        truth.ids[:] = 3  # or each alone would have other noise
        return tabulate_drawn(drawing, Variant("diffusion", 2), truth)

    together, alone = tables(dataset), [tables(dataset.only(number)) for number in range(len(COUNTS))]
    for name, values in together.items():
        expected = torch.cat([each[name] for each in alone])
        assert torch.allclose(values, expected, rtol=1e-3, atol=2e-3 * float(expected.abs().max())), name
    assert together["nrmse"].min() > 0


@pytest.mark.parametrize("moving", [False, True])
def test_ensembles_on_points_of_their_own_are_drawn(experiment: Make, moving: bool) -> None:
    dataset = particles(rotation, periodic=True, walls=4) if moving else mesh(steady=True)
    model = knowing(dataset.fields, rotation) if moving else LatentModel(Keeps(), Ticks(), Tells(), dataset.fields)
    model.added["diffusion"] = Draws(noise=0.05)
    found = measure(experiment(dataset, model, (stage(),)), EvaluateConfig(members=3, steps=3 if moving else None))
    assert found.ensembles is not None
    assert list(rows_of(found))[-1] == ("constant_velocity" if moving else "train_mean")
    assert set(draw_drawn(found.ensembles)) == {"ensemble_median"} | ({"ensemble_errors"} if moving else set())


# ---------------------------------------------------------------------------------------------------------------------
# Steady data
# ---------------------------------------------------------------------------------------------------------------------
def test_a_prior_stands_beside_the_answer(tmp_path: Path, experiment: Make) -> None:
    dataset = steady(tmp_path / "steady.h5")
    model = listening(dataset.fields)
    model.added["prior"] = Prior(noise=0.05)
    assert isinstance(model.added["prior"], DrawsStates)
    own = experiment(dataset, model, (stage("operator", ("encoder", "operator")), stage("prior")))
    found = measure(own, EvaluateConfig(members=12))
    rows = rows_of(found)
    assert list(rows) == ["operator alone", "prior, 2 steps", "train_mean"]
    assert rows["operator alone"]["nrmse"] == pytest.approx(found.latent.mean)
    assert rows["prior, 2 steps"]["nrmse"] == pytest.approx(rows["operator alone"]["nrmse"], rel=0.1)
    assert found.prior is None


def test_without_an_operator_the_mean_of_the_prior_is_judged(tmp_path: Path, experiment: Make, capsys: Any) -> None:
    dataset = steady(tmp_path / "steady.h5")
    model = keeping(dataset.fields, operator=1e4)  # never trained
    model.added["prior"] = Prior(noise=0.05, shown=(2, 4))
    own = experiment(dataset, model, (stage("codec", ("encoder", "decoder")), stage("prior")))
    result, folder, _ = run(own, tmp_path, members=6, pictures=False)
    rows = result["ensembles"]["rows"]
    assert list(rows) == ["prior, 2 steps", "prior, 4 steps", "train_mean"]
    chosen = f"prior, {result['forecast']['steps']} steps"
    assert result["forecast"]["use"] == "prior"
    assert result["metrics"]["latent_rollout"]["nrmse"] == pytest.approx(rows[chosen]["nrmse"], rel=1e-5)
    assert result["card"]["definition"]["answer"].startswith("the mean of 6 draws of 'prior, ")
    assert result["forecast"]["why"].startswith("of what is drawn the least CRPS on 2 validation trajectories: CRPS ")
    printed = " ".join(capsys.readouterr().out.split())
    assert "of 6 members never below 0.65, 0 from 19 on" in printed
    assert "help" not in printed
    assert math.isfinite(rows[chosen]["seconds_per_step"])
    assert "<h2>Drawn forecasts</h2>" in folder.report.read_text()


# ---------------------------------------------------------------------------------------------------------------------
# Several tasks
# ---------------------------------------------------------------------------------------------------------------------
def test_tasks_are_compared_one_by_one_and_choose_together(tmp_path: Path, experiment: Make, capsys: Any) -> None:
    data = {"heat": heat(tmp_path / "heat.h5"), "soil": steady(tmp_path / "steady.h5")}
    models = {name: keeping(own.fields, 50.0) for name, own in data.items()}
    for own in models.values():
        own.added["diffusion"] = Draws(1 / 50, 0.01, shown=(8,))
    stages = (stage("operator", ("encoder", "operator")), stage())
    result, _, _ = run(experiment(Tasks(data, models), models["heat"], stages), tmp_path, members=3, pictures=False)
    assert result["forecast"]["use"] == "diffusion"
    assert "on 4 validation trajectories" in result["forecast"]["why"]
    assert "ensembles" not in result
    for name, reference in (("heat", "persistence"), ("soil", "train_mean")):
        rows = result["tasks"][name]["ensembles"]["rows"]
        assert list(rows) == ["operator alone", "diffusion, 8 steps", reference]
    printed = " ".join(capsys.readouterr().out.split())
    assert f"default of all tasks: diffusion, 8 steps: {result['forecast']['why']}" in printed


def test_a_prior_sees_what_the_whole_model_sees() -> None:
    own = Waves((0.3, 0.4)).fields
    whole = attrs.evolve(own, targets=(Field("v"), *own.targets), conditions=("dt", "speed", "task:waves"))
    model = TaskView(LatentModel(Keeps(), Ticks(), Tells(), whole), Placement.of(whole, own, "waves"))
    points = PointSet(torch.rand(2, 32, 1), torch.rand(2, 32, 1), grid=(32,))
    latent = Drawn(model, Prior(), 2, Noise(0, 0, (0, 1))).encode(points, torch.rand(2, 2))
    assert latent.condition is not None
    assert latent.condition[:, 2].tolist() == [1, 1]
    assert torch.allclose(latent.tokens[..., 1:], math.e * points.values)


# ---------------------------------------------------------------------------------------------------------------------
# The choice alone
# ---------------------------------------------------------------------------------------------------------------------
def test_both_numbers_must_be_better() -> None:
    one, two = Variant("diffusion", 1), Variant("diffusion", 8)
    known = {ALONE: Validated(0.2, 0.3), one: Validated(0.1, 0.31), two: Validated(0.19, 0.29)}
    found = choose(known, ALONE, 10, 19)
    assert found.default == two
    assert [finding.helps for finding in found.findings] == [False, True]
    assert found.findings[0].text == "does not help: nRMSE of the mean 0.31 is not below 0.3 of the operator alone"
    nothing = choose({**known, two: Validated(0.2, 0.1)}, ALONE, 10, 19)
    assert nothing.default == ALONE
    assert nothing.findings[1].text == "does not help: CRPS 0.2 is not below 0.2 of the operator alone"


def test_what_may_be_chance_is_not_taken() -> None:
    one = Variant("diffusion", 1)
    operator = (1.0, 0.1, 0.1, 0.1, 0.1, 0.1)
    lucky = (0.2, 0.12, 0.11, 0.09, 0.12, 0.1)  # much better on one trajectory, worse on most
    steady = tuple(0.9 * value for value in operator)
    found = {}
    for own in (lucky, steady, operator[:1]):
        others = operator[: len(own)]
        mean, reference = sum(own) / len(own), sum(others) / len(own)
        validated = {ALONE: Validated(reference, 0.3, (others,)), one: Validated(0.99 * mean, 0.2, (own,))}
        found[own] = choose(validated, ALONE, len(own), 19)
    assert found[lucky].default == ALONE
    assert found[lucky].findings[0].text.startswith("not shown to help: CRPS 0.1221 against 0.25")
    assert found[steady].default == one
    assert "0.9 to 0.9 times its own, trajectory by trajectory" in found[steady].findings[0].text
    assert found[operator[:1]].default == ALONE  # one pair says nothing of chance


def test_the_factor_is_student_s_interval_of_the_geometric_mean() -> None:
    low, high = factor(((2.0, 8.0),), ((1.0, 1.0),))  # logarithms ln 2 and 3 ln 2: mean 2 ln 2, standard error ln 2
    assert math.log(low) == pytest.approx((2 - 6.3138) * math.log(2), rel=1e-3)
    assert math.log(high) == pytest.approx((2 + 6.3138) * math.log(2), rel=1e-3)


def test_tasks_choose_together() -> None:
    one = Variant("diffusion", 1)
    helps = choose({ALONE: Validated(0.2, 0.3), one: Validated(0.1, 0.2)}, ALONE, 5, 19)
    hurts = choose({ALONE: Validated(0.2, 0.3), one: Validated(0.21, 0.31)}, ALONE, 6, 19)
    ruins = choose({ALONE: Validated(0.2, 0.3), one: Validated(0.9, 0.9)}, ALONE, 6, 19)
    assert over_tasks([helps, hurts]).default == one
    assert over_tasks([helps, hurts]).trajectories == 11
    assert over_tasks([helps, ruins]).default == ALONE
    large = choose({ALONE: Validated(200, 300), one: Validated(210, 310)}, ALONE, 6, 19)
    assert over_tasks([helps, large]).default == one
    lost = choose({ALONE: Validated(0.2, 0.3), one: Validated(math.nan, math.inf)}, ALONE, 6, 19)
    assert over_tasks([helps, lost]).default == ALONE
