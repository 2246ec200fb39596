"""The stage `evaluate` on models whose forecasts are known."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import torch

from ups_kit.errors import UpsKitError
from ups_kit.fit.settings import Budget
from ups_kit.interfaces import Field, FieldSpec, LatentSpec, Needs, Progress
from ups_plugins.upt.evaluation import budget, shuffle
from ups_plugins.upt.evaluation.card import number
from ups_plugins.upt.evaluation.config import EvaluateConfig, FrmseConfig, NrmseConfig
from ups_plugins.upt.evaluation.measurement import measure
from ups_plugins.upt.evaluation.reach import gradient_reach, require_reach
from ups_plugins.upt.evaluation.rollouts import Runner
from ups_plugins.upt.evaluation.scores import quantile_samples, score
from ups_plugins.upt.evaluation.truth import read_truth

from .conftest import run

Make = Callable[..., Any]
CPU = torch.device("cpu")


def test_an_exact_model_scores_zero_everywhere(waves: Make, model: Make, experiment: Make) -> None:
    measured = measure(experiment(waves(offset=4.0), model()), EvaluateConfig(batch=3))
    for found in (measured.one_step, measured.latent, measured.reencoded):
        assert found.mean < 1e-5
    assert measured.latent.summary["correlation_time"] == pytest.approx(1.2)
    assert measured.floors["encode_decode"].rollout.mean < 1e-6
    assert measured.floors["persistence"].rollout.mean > 0.01


def test_rollouts_do_not_depend_on_the_batch(waves: Make, model: Make) -> None:
    truth = read_truth(waves(), "test", None)
    whole = Runner(model(operator=0.9), truth, CPU, 100).all()
    parts = Runner(model(operator=0.9), truth, CPU, 2).all()
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(whole, parts))


def test_a_model_sees_all_its_given_frames_and_only_those(waves: Make, model: Make) -> None:
    truth = read_truth(waves(history=3), "test", None)
    points = truth.points(slice(0, 2), 2)
    normalised = truth.normaliser.targets(truth.values)
    assert torch.equal(points.values, normalised[:2, :3, :, 0].movedim(1, -1))
    assert score(Runner(model(history=3), truth, CPU, 4).latent_rollout(), truth, True).mean < 1e-5
    changed = truth.values.clone()
    changed[:, 3:] = torch.randn(changed[:, 3:].shape)
    truth.values[:, 3:] = changed[:, 3:]
    with_garbage = Runner(model(history=3), truth, CPU, 4).latent_rollout()
    assert torch.allclose(
        with_garbage[:, 3:], Runner(model(history=3), truth, CPU, 4).reencoded_rollout()[:, 3:], atol=1e-4
    )


def test_one_step_of_a_damped_model_is_known(waves: Make, model: Make, experiment: Make) -> None:
    """With an operator that multiplies by 0.9, step k misses by 1 − 0.9^k of the normalised field."""
    measured = measure(experiment(waves(), model(operator=0.9)), EvaluateConfig())
    truth = measured.truth
    size = (truth.normaliser.targets(truth.values).square().mean(2) / truth.values.square().mean(2)).sqrt()
    expected = 3 * size[:, 1:, 0]
    assert measured.one_step.nrmse.numpy() == pytest.approx((0.1 * expected).numpy(), rel=1e-3)
    factors = 1 - 0.9 ** torch.arange(1, 13)
    assert measured.latent.nrmse.numpy() == pytest.approx((factors * expected).numpy(), rel=1e-3)


def test_the_budget_adds_up(waves: Make, model: Make, experiment: Make) -> None:
    measured = measure(experiment(waves(), model(decoder=1.02, operator=0.97)), EvaluateConfig())
    parts = measured.budget
    curves = {name: torch.tensor(part["curve"]) for name, part in parts.items()}
    assert parts["total"]["mean"] == pytest.approx(measured.latent.mean)
    assert (curves["total"] <= curves["drift"] + curves["step"] + curves["decode"] + 1e-9).all()
    assert curves["drift"][0] < 1e-6
    assert torch.allclose(
        curves["decode"], torch.tensor(measured.floors["encode_decode"].rollout.summary["curve_nrmse"])
    )


def test_the_budget_names_the_part_that_errs(waves: Make, model: Make, experiment: Make) -> None:
    codec = measure(experiment(waves(), model(decoder=1.05)), EvaluateConfig()).budget
    assert codec["decode"]["mean"] > 0.01
    assert codec["step"]["mean"] < 1e-5
    assert codec["drift"]["mean"] < 1e-5
    operator = measure(experiment(waves(), model(operator=0.95)), EvaluateConfig()).budget
    assert operator["decode"]["mean"] < 1e-6
    assert operator["step"]["mean"] > 0.01
    assert operator["drift"]["last"] > operator["step"]["last"]
    assert operator["encode"]["mean"] < 1e-5
    assert set(operator) == {"encode", "drift", "step", "decode", "total", "reencoding"}
    assert budget.START_TRAJECTORIES == 32


def test_shuffling_hurts_a_model_that_listens(waves: Make, model: Make, experiment: Make) -> None:
    listens = measure(experiment(waves(), model(operator=0.98)), EvaluateConfig()).shuffle
    assert listens.names == ("speed",)
    assert listens.ratio is not None
    assert listens.ratio > 2
    deaf = measure(experiment(waves(), model(speed=0.5)), EvaluateConfig()).shuffle
    assert deaf.ratio == pytest.approx(1, abs=1e-9)


def test_shuffling_is_not_applicable_to_one_value(waves: Make, model: Make, experiment: Make) -> None:
    found = measure(experiment(waves((0.5, 0.5, 0.5)), model()), EvaluateConfig()).shuffle
    assert not found.applicable
    assert "speed = 0.5" in found.reason
    assert found.summary("parameters") == {"applicable": False, "reason": found.reason}


def test_the_time_step_is_never_shuffled(waves: Make) -> None:
    truth = read_truth(waves(), "test", None)
    exchange = shuffle.exchange_parameters(truth, 0)
    parts = [exchange.apply(slice(0, 3)), exchange.apply(slice(3, 7))]
    condition = torch.cat([part.condition for part in parts])
    assert torch.equal(condition[:, 0], truth.condition[:, 0])
    assert (condition[:, 1] != truth.condition[:, 1]).all()
    assert sorted(condition[:, 1].tolist()) == sorted(truth.condition[:, 1].tolist())


@pytest.mark.parametrize("samples", [2, 3, 17])
def test_a_derangement_moves_everything(samples: int) -> None:
    places = shuffle.derangement(samples, 5)
    assert sorted(places.tolist()) == list(range(samples))
    assert (places != torch.arange(samples)).all()


class OneStep:
    """A loss of one step, with a latent that may be detached in between."""

    sampler = None
    horizon = 1

    def __init__(self, detached: bool, reaches: tuple[str, ...]) -> None:
        self.detached, self.reaches = detached, reaches

    def needs(self, progress: Progress) -> Needs:
        assert progress.fraction == 1
        return Needs(steps=1, decodes=(1,), encodes=(1,))

    def __call__(self, forward: Any) -> Any:
        found = forward.decoded(1)
        if self.detached:
            return (forward.latent(1).tokens.detach() - forward.latent(0).tokens).square().mean()
        return (found.values - found.truth).square().mean()


def losses(**built: OneStep) -> tuple[Any, ...]:
    configs = {name: SimpleNamespace(weight=1.0, build=lambda fields, loss=loss: loss) for name, loss in built.items()}
    return (SimpleNamespace(name="operator", losses=configs), EvaluateConfig())


def test_reach_finds_a_detached_loss(waves: Make, model: Make) -> None:
    everything = ("encoder", "operator", "decoder")
    stages = losses(whole=OneStep(False, everything), cut=OneStep(True, ("encoder", "operator")))
    net = model(operator=0.9)
    rows = gradient_reach(net, waves(), stages, 0)
    assert [row.loss for row in rows] == ["whole", "cut"]
    assert all(norm is not None and norm > 0 for norm in rows[0].norms.values())
    assert rows[1].norms["operator"] == 0
    assert rows[1].norms["decoder"] == 0
    assert all(parameter.grad is None for parameter in net.parameters())
    with pytest.raises(UpsKitError, match=r"stages\.operator\.losses\.cut: operator\n"):
        require_reach(rows)
    require_reach(rows[:1])


def test_reach_does_not_mind_what_a_stage_has_frozen(waves: Make, model: Make) -> None:
    net = model(operator=0.9)
    net.parts["encoder"].requires_grad_(False)
    (row,) = gradient_reach(net, waves(), losses(whole=OneStep(False, ("encoder",))), 0)
    assert row.norms["encoder"] != 0
    assert not net.parts["encoder"].factor.requires_grad


def test_a_loss_without_weight_is_not_audited(waves: Make, model: Make) -> None:
    stages = losses(cut=OneStep(True, ("operator",)))
    stages[0].losses["cut"].weight = 0.0
    assert gradient_reach(model(), waves(), stages, 0) == []
    skipped = losses(cut=OneStep(True, ("operator",)))
    skipped[0].budget = Budget(steps=0)
    assert gradient_reach(model(), waves(), skipped, 0) == []


def test_the_summary_holds_what_is_promised(waves: Make, model: Make, experiment: Make, tmp_path: Any) -> None:
    result, _, told = run(experiment(waves(), model(operator=0.99)), tmp_path, pictures=False)
    assert result["status"] == "ok"
    assert set(result) == {"status", "metrics", "floors", "budget", "shuffle", "reach", "card"}
    rollout = result["metrics"]["latent_rollout"]
    names = {"rmse", "nrmse", "vrmse", "relative_l2", "max_error", "crmse", "brmse", "frmse_low", "frmse_mid"}
    names |= {"frmse_high", "nrmse_step_1", "nrmse_step_10", "nrmse_step_12", "correlation_time"}
    assert names | {"geometric_mean_nrmse", "curve_nrmse", "curve_vrmse"} <= set(rollout)
    assert len(rollout["curve_nrmse"]) == 12
    assert rollout["curve_nrmse"][9] == rollout["nrmse_step_10"]
    assert set(result["metrics"]) == {"one_step", "latent_rollout", "reencoded_rollout"}
    assert set(result["floors"]) == {
        "persistence",
        "spatial_mean",
        "linear_autoregression",
        "encode_decode",
        "interpolation",
    }
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    curve = [values["latent_rollout/curve_nrmse"] for kind, (_, step, values) in told if kind == "scalars" and step]
    assert curve == pytest.approx(rollout["curve_nrmse"])


def test_a_model_below_the_floor_says_by_how_much(waves: Make, model: Make, experiment: Make, tmp_path: Any) -> None:
    lost, _, _ = run(experiment(waves(), model(operator=-1.0)), tmp_path, pictures=False)
    assert lost["status"] == "below_floor"
    assert re.search(r"does not beat persistence \(\S+, missed by a factor of \S+\)", lost["card"]["verdict"])
    spared, _, _ = run(experiment(waves(), model(operator=-1.0)), tmp_path, pictures=False, require_beating=())
    assert spared["status"] == "ok"


def test_a_model_that_blows_up_is_below_the_floor(waves: Make, model: Make, experiment: Make, tmp_path: Any) -> None:
    result, folder, _ = run(experiment(waves(), model(operator=1e30)), tmp_path)
    assert result["status"] == "below_floor"
    assert result["metrics"]["latent_rollout"]["nrmse"] is None
    json.dumps(result, allow_nan=False)
    assert "below_floor" in folder.report.read_text()


def test_metrics_of_the_recipe_are_added(waves: Make, model: Make, experiment: Make, tmp_path: Any) -> None:
    extra = (FrmseConfig(first=1, last=1), NrmseConfig(), FrmseConfig(first=2, last=4))
    result, _, _ = run(experiment(waves(), model(operator=0.9)), tmp_path, pictures=False, metrics=extra)
    rollout = result["metrics"]["latent_rollout"]
    assert rollout["NrmseConfig"] == pytest.approx(rollout["nrmse"])
    assert rollout["FrmseConfig"] > 0
    assert rollout["FrmseConfig_2"] not in (0, rollout["FrmseConfig"])
    assert "FrmseConfig" in result["floors"]["persistence"]["one_step"]


def test_the_report_is_whole_and_asks_nothing_of_others(
    waves: Make, model: Make, experiment: Make, tmp_path: Any
) -> None:
    lines = [{"stage": "operator", "step": step, "loss": 1 / (step + 1), "lr": 0.1} for step in range(5)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"stage": "oper')
    result, folder, told = run(experiment(waves(), model(operator=0.95)), tmp_path)
    page = folder.report.read_text()
    assert not re.search(r"""(src|href|url\(|@import)\s*=?\s*["'(]?\s*(https?:)?//""", page)
    assert "<script" not in page
    assert "Travelling &lt;waves&gt;" in page
    pictures = [name for kind, name in told if kind == "figure"]
    assert pictures[0] == "training_operator"
    assert {"error_over_time", "sample_good", "sample_median", "sample_worst", "spectra", "budget"} <= set(pictures)
    assert page.count("data:image/png;base64,") == len(pictures)
    for name in ("nrmse", "vrmse", "max_error", "crmse", "frmse_low", "correlation_time", "nrmse_step_10"):
        assert f"<td>{number(result['metrics']['latent_rollout'][name])}</td>" in page
    assert number(result["floors"]["persistence"]["rollout"]["nrmse"]) in page
    assert number(result["shuffle"]["ratio"])[:4] in page


def test_pictures_of_square_grids_and_points(waves: Make, model: Make, experiment: Make, tmp_path: Any) -> None:
    square = FieldSpec((Field("u"),), ((0.0, 1.0),) * 2, (True,) * 2, "grid", (8, 4), 0.1, (), 1, ("dt", "speed"))
    for fields in (
        square,
        FieldSpec((Field("u"),), ((0.0, 1.0),) * 2, (False,) * 2, "mesh", None, 0.1, (), 1, ("dt", "speed")),
    ):
        dataset = waves((0.2, 0.4, 0.6))
        dataset.fields = fields
        held = dataset.trajectories("test")
        positions = torch.rand(32, 2, generator=torch.Generator().manual_seed(0))
        dataset.trajectories = lambda split, limit=None, held=held, at=positions: held._replace(positions=at)
        result, _, told = run(experiment(dataset, model(operator=0.9)), tmp_path)
        assert ("figure", "sample_worst") in told
        assert ("linear_autoregression" in result["floors"]) == (fields.grid is not None)
        assert ("frmse_low" in result["metrics"]["one_step"]) == (fields.grid is not None)


def test_the_card_is_plain_and_narrow(waves: Make, model: Make, experiment: Make, tmp_path: Any, capsys: Any) -> None:
    run(experiment(waves(), model(operator=0.9)), tmp_path, pictures=False)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
    for word in ("latent rollout", "re-encoded rollout", "persistence", "interpolation", "frames", "nrmse", "shuffled"):
        assert word in text
    assert text.isascii()
    assert text.strip().splitlines()[-1]


def test_the_card_reaches_any_stream(
    waves: Make, model: Make, experiment: Make, monkeypatch: Any, tmp_path: Any
) -> None:
    dataset = waves()
    dataset.fields = attrs.evolve(dataset.fields, targets=(Field("φ", unit="µm"),))
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", narrow)
    run(experiment(dataset, model(operator=0.9)), tmp_path, pictures=False)
    assert b"fields ? [?m]" in narrow.buffer.getvalue()  # type: ignore[attr-defined]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_measures_what_a_cpu_does(waves: Make, model: Make, experiment: Make) -> None:
    stages = losses(whole=OneStep(False, ("encoder", "operator", "decoder")))
    here = measure(experiment(waves(), model(operator=0.95), stages), EvaluateConfig(batch=3))
    other = attrs.evolve(experiment(waves(), model(operator=0.95).cuda(), stages), device=torch.device("cuda"))
    there = measure(other, EvaluateConfig(batch=3))
    assert there.latent.mean == pytest.approx(here.latent.mean, rel=1e-4)
    assert there.shuffle.ratio == pytest.approx(here.shuffle.ratio, rel=1e-4)
    assert there.reach[0].norms == pytest.approx(here.reach[0].norms, rel=1e-3)


def test_good_median_and_worst_samples() -> None:
    errors = torch.tensor([[3.0], [1.0], [float("nan")], [2.0], [0.5]])
    assert quantile_samples(errors) == {"good": 4, "median": 3, "worst": 2}


def test_a_floor_that_needs_a_grid_cannot_be_required_without_one() -> None:
    mesh = FieldSpec((Field("u"),), ((0.0, 1.0),), (True,), "mesh", None, 0.1)
    config = EvaluateConfig(require_beating=("persistence", "linear_autoregression"))
    ((key, message),) = config.check(mesh, LatentSpec(8))
    assert key == "require_beating"
    assert "'linear_autoregression' needs a regular grid" in message
    assert message.endswith("possible here: persistence, spatial_mean, encode_decode, interpolation")
    assert list(EvaluateConfig().check(mesh, LatentSpec(8))) == []
    ((key, message),) = EvaluateConfig(metrics=(NrmseConfig(), FrmseConfig())).check(mesh, LatentSpec(8))
    assert key == "metrics.1.use"
    assert "needs a regular grid" in message
    with pytest.raises(ValueError, match="require_beating"):
        EvaluateConfig(require_beating=("persistance",))
