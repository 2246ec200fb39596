"""The stage `evaluate` on steady data: one answer, and floors that are made of the train answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ups_kit.fit.settings import Budget
from ups_kit.interfaces import Latent, LatentSpec
from ups_plugins.grid.dataset import GridDataset
from ups_plugins.optim import AdamWConfig
from ups_plugins.upt.config import ForwardConfig, InverseEncodingConfig
from ups_plugins.upt.evaluation import answers, floors
from ups_plugins.upt.evaluation.config import EvaluateConfig
from ups_plugins.upt.evaluation.measurement import measure
from ups_plugins.upt.evaluation.rollouts import Runner
from ups_plugins.upt.evaluation.scores import Score, score
from ups_plugins.upt.evaluation.truth import Truth, read_truth
from ups_plugins.upt.training.config import CodecStageConfig
from ups_plugins.upt.training.validation import rollout_validation

from .conftest import run
from .data import SIZE, keeping, listening, steady

Make = Callable[..., Any]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> GridDataset:
    return steady(tmp_path_factory.mktemp("data") / "steady.h5")


@pytest.fixture
def truth(dataset: GridDataset) -> Truth:
    return read_truth(dataset, "test", None)


def forecast(name: str, truth: Truth, dataset: GridDataset) -> torch.Tensor:
    found = floors.prepare(truth, dataset, Latent(torch.zeros(1, 16, 4), None)).forecasts[name](truth)
    assert found.one_step is found.rollout
    return found.rollout


def test_the_one_step_leads_from_the_statics_to_the_answer(dataset: GridDataset, truth: Truth) -> None:
    assert (truth.given, truth.steps, list(truth.scored)) == (0, 1, [0])
    assert torch.equal(truth.points(slice(1, 4), -1).values, truth.statics[1:4])
    found = Runner(keeping(dataset.fields), truth, CPU, 3).all()
    assert found.codec is None
    assert torch.equal(found.latent, dataset.normaliser.physical(truth.statics)[:, None])
    assert found.one_step is found.latent is found.reencoded


def test_the_train_mean_is_the_mean_of_the_train_answers(dataset: GridDataset, truth: Truth) -> None:
    train = dataset.trajectories("train").values[:, 0]
    found = forecast("train_mean", truth, dataset)
    assert torch.allclose(found[:, 0], train.mean(0).expand(truth.samples, -1, -1), rtol=1e-5)
    error = (train.mean(0) - truth.values[:, 0]).square().mean((1, 2)).sqrt()
    expected = (error / truth.values[:, 0].square().mean((1, 2)).sqrt()).mean().item()
    assert score(found, truth, False).mean == pytest.approx(expected, rel=1e-5)


def test_the_spatial_mean_is_the_answers_own(dataset: GridDataset, truth: Truth) -> None:
    found = score(forecast("spatial_mean", truth, dataset), truth, False)
    assert found.vrmse.max().item() <= 1  # of small answers less, for the 1e-7 beside the variance
    assert found.vrmse[truth.parameters[:, 1] > 1].numpy() == pytest.approx(1, abs=1e-4)


def test_the_nearest_sample_is_the_nearest(dataset: GridDataset, truth: Truth) -> None:
    train = dataset.trajectories("train")
    normalise = dataset.normaliser
    statics, condition = normalise.statics(train.statics), normalise.condition(train.parameters)
    found = forecast("nearest_sample", truth, dataset)
    for sample in range(truth.samples):
        distances = [
            (truth.statics[sample] - statics[other]).square().sum(-1).mean()
            + (truth.condition[sample] - condition[other])[1:].square().sum()
            for other in range(len(statics))
        ]
        nearest = min(range(len(distances)), key=lambda other: distances[other])
        assert torch.equal(found[sample], train.values[nearest])


def test_the_linear_regression_finds_a_linear_law_and_its_scale(dataset: GridDataset, truth: Truth) -> None:
    """u = β (2 + a linear map of ν), β over four decades: exact once the answer is taken per β."""
    law = answers.fit_regression(answers.TrainSamples.read(dataset))
    assert law.scale == "beta"
    assert score(forecast("linear_regression", truth, dataset), truth, False).mean < 1e-3
    assert score(forecast("nearest_sample", truth, dataset), truth, False).mean > 0.1


def test_the_linear_regression_equals_ridge_regression_on_the_inputs() -> None:
    """All components kept, no scale: the same as ridge regression solved directly, weighted by 1 / mean square."""
    generator = torch.Generator().manual_seed(0)
    inputs, answers_ = torch.randn(12, 5, generator=generator), 3 + torch.randn(12, 4, 1, generator=generator)
    train = answers.TrainSamples(inputs, torch.zeros(12, 0), torch.zeros(12, 0), answers_, ())
    centre, basis = answers.principal_components(inputs)
    assert basis.shape == (5, 5)
    weights = answers.solve(train, centre, basis, None)[1e-8]
    found = answers.Regression(centre, basis, weights, None, 1e-8)(train)
    known = torch.cat([torch.ones(12, 1), inputs], 1).double()
    weight = 1 / answers_[:, :, 0].double().square().mean(1)
    target = answers_[:, :, 0].double()
    direct = torch.linalg.solve(known.T @ (weight[:, None] * known), known.T @ (weight[:, None] * target))
    assert found[:, :, 0].numpy() == pytest.approx((known @ direct).numpy(), abs=1e-5)


def test_floors_of_few_and_equal_samples_are_finite() -> None:
    for count in (1, 2, 7):
        train = answers.TrainSamples(
            torch.ones(count, 6), torch.zeros(count, 1), torch.ones(count, 1), torch.ones(count, 3, 1), ("beta",)
        )
        law = answers.fit_regression(train)
        assert law.scale is None
        assert law(train).numpy() == pytest.approx(1, rel=1e-3)


def test_the_budget_of_an_answer_is_orthogonal(dataset: GridDataset, experiment: Make) -> None:
    measured = measure(experiment(dataset, keeping(dataset.fields)), EvaluateConfig())
    assert list(measured.budget) == ["offset", "amplitude", "shape", "total"]
    parts = {name: [part["mean"], part["curve"]] for name, part in measured.budget.items()}
    assert parts["total"][0] == pytest.approx(measured.latent.mean)
    truth = measured.truth
    found = answers_budget(1.25 * truth.values + 0.5, truth)
    squares = sum(found[name].square() for name in ("offset", "amplitude", "shape"))
    assert squares.numpy() == pytest.approx(found["total"].square().numpy())
    spread = truth.values.double().std(2, correction=0)[..., 0] / truth.values.double().square().mean(2).sqrt()[..., 0]
    assert found["amplitude"].numpy() == pytest.approx((0.25 * spread).numpy(), rel=1e-4)
    assert found["shape"].max() < 1e-4


def answers_budget(answer: torch.Tensor, truth: Truth) -> dict[str, torch.Tensor]:
    from ups_plugins.upt.evaluation.budget import steady_budget

    return steady_budget(answer, truth)


def test_shuffles_tell_what_a_model_listens_to(dataset: GridDataset, experiment: Make) -> None:
    deaf = measure(experiment(dataset, keeping(dataset.fields)), EvaluateConfig())
    assert deaf.shuffle.names == ("beta",)
    assert deaf.shuffle.ratio == pytest.approx(1, abs=1e-9)
    assert deaf.shuffle_statics.names == ("nu",)
    assert deaf.shuffle_statics.ratio is not None
    assert abs(deaf.shuffle_statics.ratio - 1) > 1e-3
    heard = measure(experiment(dataset, listening(dataset.fields)), EvaluateConfig())
    assert heard.shuffle.ratio is not None
    assert abs(heard.shuffle.ratio - 1) > 1e-2


def single(found: Score) -> dict[str, Any]:
    """The single numbers of a score."""
    return {name: value for name, value in found.summary.items() if not isinstance(value, list)}


def test_parts_give_what_the_whole_gives(dataset: GridDataset, experiment: Make) -> None:
    whole = measure(experiment(dataset, listening(dataset.fields)), EvaluateConfig())
    parts = measure(experiment(dataset, listening(dataset.fields)), EvaluateConfig(batch=3))
    assert single(parts.latent) == pytest.approx(single(whole.latent), rel=1e-6)
    assert parts.shuffle.shuffled == pytest.approx(whole.shuffle.shuffled, rel=1e-6)
    assert parts.shuffle_statics.shuffled == pytest.approx(whole.shuffle_statics.shuffled, rel=1e-6)
    for name, floor in whole.floors.items():
        assert single(parts.floors[name].rollout) == pytest.approx(single(floor.rollout), rel=1e-5), name
    assert whole.spectra is not None
    assert parts.spectra is not None
    assert parts.spectra.energies["answer"] == pytest.approx(whole.spectra.energies["answer"], rel=1e-6)


def test_the_summary_says_what_applies(dataset: GridDataset, experiment: Make, tmp_path: Path, capsys: Any) -> None:
    result, folder, told = run(experiment(dataset, keeping(dataset.fields)), tmp_path)
    metrics = result["metrics"]
    assert metrics["one_step"] == metrics["latent_rollout"] == metrics["reencoded_rollout"]
    assert not {"correlation_time", "geometric_mean_nrmse", "nrmse_step_1"} & set(metrics["one_step"])
    assert list(result["floors"]) == [
        "train_mean",
        "spatial_mean",
        "nearest_sample",
        "linear_regression",
        "interpolation",
    ]
    assert result["shuffle"]["statics"]["fields"] == ["nu"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    printed, page = capsys.readouterr().out, folder.report.read_text()
    assert "rollout" not in " ".join(printed.split()).replace("no rollout", "")
    assert max(map(len, printed.splitlines())) <= 80
    assert "Error by sample" in page
    assert "Do the inputs matter?" in page
    for absent in ("Error over time", "latent rollout", "persistence", "corr. time"):
        assert absent not in page.partition("What the other numbers mean")[0]
    pictures = {name for kind, name in told if kind == "figure"}
    assert pictures == {
        "error_by_sample",
        "sample_good",
        "sample_median",
        "sample_worst",
        "spectra",
        "error_by_parameter",
    }
    assert page.count("data:image/png;base64,") == len(pictures)


def test_the_train_mean_is_what_must_be_beaten(dataset: GridDataset, experiment: Make, tmp_path: Path) -> None:
    lost, _, _ = run(experiment(dataset, keeping(dataset.fields, operator=1e4)), tmp_path, pictures=False)
    assert lost["status"] == "below_floor"
    assert "does not beat train_mean" in lost["card"]["verdict"]
    harder, _, _ = run(
        experiment(dataset, keeping(dataset.fields)), tmp_path, pictures=False, require_beating=("linear_regression",)
    )
    assert harder["status"] == "below_floor"


def test_required_floors_are_those_of_the_data(dataset: GridDataset) -> None:
    ((key, message),) = EvaluateConfig(require_beating=("persistence",)).check(dataset.fields, LatentSpec(8))
    assert key == "require_beating"
    assert message.startswith("'persistence' is for time series, and the data are steady; possible here: train_mean, ")
    ((key, message),) = EvaluateConfig(steps=4).check(dataset.fields, LatentSpec(8))
    assert key == "steps"
    assert EvaluateConfig().required(dataset.fields) == ("train_mean",)


def test_a_codec_of_answers_takes_the_losses_of_frames_and_no_others(dataset: GridDataset) -> None:
    def problems(loss: Any) -> list[tuple[str, str]]:
        config = CodecStageConfig(losses={"loss": loss}, budget=Budget(steps=1), optimizer=AdamWConfig())
        return list(config.check(dataset.fields, LatentSpec(8)))

    assert not problems(InverseEncodingConfig())
    ((key, message),) = problems(ForwardConfig())
    assert key == "losses.loss"
    assert "needs the operator" in message


@torch.no_grad()
def test_validation_scores_the_answer(dataset: GridDataset) -> None:
    model = listening(dataset.fields)
    for reencoded in (False, True):
        found = rollout_validation(dataset, CPU, 8, 50, 50, reencoded)(model)
        truth = read_truth(dataset, "validation", None)
        expected = score(Runner(model, truth, CPU, 50).latent_rollout(), truth, False).mean
        assert found["score"] == pytest.approx(expected, rel=1e-5)
        assert found["one_step_nrmse"] == found["score"]


def test_interpolation_of_an_answer_is_exact_through_all_points(dataset: GridDataset, truth: Truth) -> None:
    whole = floors.prepare(truth, dataset, Latent(torch.zeros(1, SIZE**2, 4), None)).forecasts["interpolation"]
    assert score(whole(truth).rollout, truth, False).mean < 1e-6
