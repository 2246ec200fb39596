"""The stages `codec` and `operator` on real parts: what they train, what they refuse, and equality to the bit."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ups_kit import LatentSpec
from ups_kit.errors import DataError, Preempted, UsageError
from ups_kit.fit.settings import Budget
from ups_kit.interfaces import Queries
from ups_kit.trackers import Trackers
from ups_plugins.optim import CosineScheduleConfig
from ups_plugins.upt.config import (
    ForwardConfig,
    InverseDecodingConfig,
    InverseEncodingConfig,
    RolloutConfig,
    SpectralConfig,
)
from ups_plugins.upt.training.config import CodecStageConfig, OperatorStageConfig
from ups_plugins.upt.training.validation import rollout_validation


def _weights(model: nn.Module, part: str = "") -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if name.startswith(part)}


def _same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _run(tiny: SimpleNamespace, path: Path, config: Any, resume: bool = False, **model: Any) -> Any:
    experiment = tiny.experiment(**model)
    result = config.build().run(experiment, tiny.folder(path, config.name, resume), Trackers([]))
    return SimpleNamespace(model=experiment.model, result=result)


def test_the_operator_stage_learns(tiny: SimpleNamespace, tmp_path: Path) -> None:
    config = tiny.operator_stage(budget=Budget(steps=150), validate_every=50, ema=None)
    with torch.no_grad():
        start = rollout_validation(tiny.dataset, torch.device("cpu"), 3, 50, 6)(tiny.experiment().model.eval())
    run = _run(tiny, tmp_path, config)
    assert run.result["best_score"] < 0.5 * start["score"]
    assert run.result["trained_parameters"] == sum(weight.numel() for weight in run.model.parameters())
    with torch.no_grad():
        again = rollout_validation(tiny.dataset, torch.device("cpu"), 3, 50, 6)(run.model)
    assert again["score"] == run.result["best_score"], "the model holds the weights that did best"


def test_a_loss_of_weight_0_is_absent_to_the_bit(tiny: SimpleNamespace, tmp_path: Path) -> None:
    losses = dict(tiny.operator_stage().losses)
    zero = losses | {
        "rollout": RolloutConfig(weight=0, horizon=3),
        "inverse_decoding": InverseDecodingConfig(weight=0),
        "spectral": SpectralConfig(weight=0.5, cap=0),
    }
    runs = [
        _run(tiny, tmp_path / name, tiny.operator_stage(losses=chosen))
        for name, chosen in (("absent", losses), ("zero", zero))
    ]
    assert _same(*(_weights(run.model) for run in runs))
    assert runs[0].result["best_score"] == runs[1].result["best_score"]
    counted = _run(tiny, tmp_path / "counted", tiny.operator_stage(losses=losses | {"spectral": SpectralConfig()}))
    assert not _same(_weights(runs[0].model), _weights(counted.model))


@pytest.mark.parametrize("stop", [0, 5, 10])
def test_a_stopped_stage_resumes_to_the_same_bits(
    tiny: SimpleNamespace, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.operator_stage(accumulation=2)
    whole = _run(tiny, tmp_path / "whole", config)
    from ups_kit.fit import loop

    plain = loop.training_step

    def stopped(fitting: Any, batch: Any) -> None:
        if fitting.step == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        plain(fitting, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "training_step", stopped)
        with pytest.raises(Preempted):
            _run(tiny, tmp_path / "stopped", config)
    resumed = _run(tiny, tmp_path / "stopped", config, resume=True)
    assert _same(_weights(whole.model), _weights(resumed.model))
    assert resumed.result["best_score"] == whole.result["best_score"]


def test_seeds_differ(tiny: SimpleNamespace, tmp_path: Path) -> None:
    runs = [_run(tiny, tmp_path / str(seed), tiny.operator_stage(), seed=seed) for seed in (0, 1)]
    assert not _same(*(_weights(run.model) for run in runs))


def test_a_frozen_part_keeps_its_weights(tiny: SimpleNamespace, tmp_path: Path) -> None:
    before = _weights(tiny.experiment().model)
    run = _run(tiny, tmp_path, tiny.operator_stage(freeze=("encoder",)))
    after = _weights(run.model)
    for part, kept in (("encoder", True), ("operator", False), ("decoder", False)):
        assert _same(*({n: v for n, v in w.items() if n.startswith(part)} for w in (before, after))) == kept
    assert all(weight.requires_grad for weight in run.model.parameters())


def _codec(tiny: SimpleNamespace, **keys: Any) -> CodecStageConfig:
    losses = {"inverse_encoding": InverseEncodingConfig(), "inverse_decoding": InverseDecodingConfig(weight=0.01)}
    settings = {"budget": Budget(steps=80), "optimizer": tiny.adamw(lr=5e-3), "batch": 6, "losses": losses}
    return CodecStageConfig(**(settings | keys))


def test_the_codec_stage_trains_encoder_and_decoder_alone(tiny: SimpleNamespace, tmp_path: Path) -> None:
    model = tiny.experiment().model
    run = _run(tiny, tmp_path, _codec(tiny))
    assert _same(_weights(model, "operator"), _weights(run.model, "operator"))
    assert not _same(_weights(model, "encoder"), _weights(run.model, "encoder"))
    assert run.result["best_score"] < 0.5
    trained = sum(weight.numel() for part in ("encoder", "decoder") for weight in run.model.parts[part].parameters())
    assert run.result["trained_parameters"] == trained


def test_validation_is_the_mean_error_per_frame_in_physical_units(tiny: SimpleNamespace) -> None:
    model = tiny.experiment().model.eval()
    batch = tiny.dataset.batch("validation", np.arange(tiny.dataset.windows("validation", 3)), 3)
    mean, std = tiny.dataset.normaliser.target_mean[0], tiny.dataset.normaliser.target_std[0]
    with torch.no_grad():
        found = rollout_validation(tiny.dataset, torch.device("cpu"), 3, 1000, 7)(model)
        latents = model.rollout(model.encode(batch.inputs), batch.condition, 3)
        frames = torch.stack([model.decode(z, Queries(batch.positions, batch.grid)) for z in latents], 1).double()
    predicted, truth = frames * std + mean, batch.states[:, 1:].double() * std + mean
    errors = ((predicted - truth).square().mean(2) / truth.square().mean(2)).sqrt()
    assert found["score"] == pytest.approx(float(errors.mean()), rel=1e-5)
    assert found["one_step_nrmse"] == pytest.approx(float(errors[:, 0].mean()), rel=1e-5)


def test_a_rollout_longer_than_the_trajectories_is_shortened(tiny: SimpleNamespace) -> None:
    model = tiny.experiment().model.eval()
    with torch.no_grad():
        found = [rollout_validation(tiny.dataset, torch.device("cpu"), k, 4, 4)(model)["score"] for k in (7, 100)]
    assert found[0] == found[1]


def test_a_horizon_longer_than_the_trajectories_is_a_data_error(tiny: SimpleNamespace, tmp_path: Path) -> None:
    config = tiny.operator_stage(losses={"rollout": RolloutConfig(horizon=30)})
    with pytest.raises(DataError) as raised:
        _run(tiny, tmp_path, config)
    frames = tiny.dataset.trajectories("train").values.shape[1]
    assert str(raised.value) == (
        "stages.operator.losses.rollout looks 30 steps ahead, which takes 31 frames (1 given); "
        f"the longest train trajectory has {frames}: expected at most {frames - 1} steps"
    )


# --- what is refused -------------------------------------------------------------------------------------------------
def _problems(tiny: SimpleNamespace, config: Any) -> list[str]:
    found = config.check(tiny.dataset.fields, LatentSpec(width=8))
    return [f"{key}: {message}" for key, message in found]


def test_a_right_stage_has_no_problem(tiny: SimpleNamespace) -> None:
    assert _problems(tiny, tiny.operator_stage()) == []
    assert _problems(tiny, _codec(tiny)) == []


@pytest.mark.parametrize("losses", [{}, {"forward": ForwardConfig(weight=0)}, {"forward": ForwardConfig(cap=0)}])
def test_nothing_to_train_is_a_problem(tiny: SimpleNamespace, losses: Any) -> None:
    (problem,) = _problems(tiny, tiny.operator_stage(losses=losses))
    assert problem.startswith("losses: ")
    assert "nothing to train" in problem


def test_a_warm_up_beyond_the_budget_is_a_problem(tiny: SimpleNamespace) -> None:
    config = tiny.operator_stage(budget=Budget(steps=100), schedule=CosineScheduleConfig(warmup=200))
    assert _problems(tiny, config) == [
        "schedule.warmup: 200 steps of warm-up are more than the budget of 100 steps; nearest: warmup = 100"
    ]
    assert not _problems(tiny, tiny.operator_stage(budget=Budget(seconds=1), schedule=CosineScheduleConfig(warmup=200)))


def test_problems_of_losses_carry_their_key(tiny: SimpleNamespace) -> None:
    import attrs

    fields = attrs.evolve(tiny.dataset.fields, grid=None, layout="particles")
    config = tiny.operator_stage(losses={"fourier": SpectralConfig()})
    ((key, message),) = config.check(fields, LatentSpec(width=8))
    assert key == "losses.fourier.use"
    assert "regular grid" in message


def test_losses_that_need_the_operator_are_refused_in_the_codec(tiny: SimpleNamespace) -> None:
    losses = {"a": ForwardConfig(), "b": InverseDecodingConfig(step=2), "c": InverseEncodingConfig()}
    problems = _problems(tiny, _codec(tiny, losses=losses))
    assert [problem.split(":")[0] for problem in problems] == ["losses.a", "losses.b.step"]


def test_a_part_that_no_loss_reaches_is_refused(tiny: SimpleNamespace, tmp_path: Path) -> None:
    config = tiny.operator_stage(losses={"inverse_encoding": InverseEncodingConfig()})
    with pytest.raises(UsageError, match=r"no loss reaches the operator .*never be trained; .*or freeze the operator"):
        _run(tiny, tmp_path, config)


def _order(stage: OperatorStageConfig, *earlier: Any) -> list[str]:
    return [message for _, message in stage.check_order(earlier)]


def test_what_is_frozen_must_have_been_trained(tiny: SimpleNamespace) -> None:
    frozen = tiny.operator_stage(freeze=("encoder", "decoder"), name="second")
    assert _order(frozen) == [
        f"no earlier stage trains the {part}; put a stage that does before 'second'" for part in ("encoder", "decoder")
    ]
    assert not _order(frozen, _codec(tiny))
    assert not _order(frozen, tiny.operator_stage())
    assert _order(frozen, _codec(tiny, budget=Budget(steps=0))), "a skipped stage trains nothing"
    assert not _order(tiny.operator_stage())
    everything = tiny.operator_stage(freeze=("encoder", "operator", "decoder"))
    assert any("nothing to train" in problem for problem in _problems(tiny, everything))
