"""Samplers that remember: their state is saved, comes back, and moves on once in each step."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ups_kit.errors import Preempted, StorageError
from ups_kit.fit import loop
from ups_kit.fit.state import CheckpointFolder
from ups_kit.trackers import Trackers
from ups_plugins.sampling.config import ImportanceConfig
from ups_plugins.upt.config import ForwardConfig, InverseEncodingConfig, RolloutConfig

SAMPLER = ImportanceConfig(ratio=0.5, epsilon=0.2, score="error", cells=8, memory=5.0)
NAME = "losses.forward.sampler"


def stage(tiny: SimpleNamespace, sampler: ImportanceConfig | None = SAMPLER, **keys: Any) -> Any:
    losses = {
        "forward": ForwardConfig(error="relative", sampler=sampler),
        "rollout": RolloutConfig(horizon=2, start=0.4, sampler=sampler),
        "inverse_encoding": InverseEncodingConfig(),
    }
    return tiny.operator_stage(losses=losses, **keys)


def run(tiny: SimpleNamespace, path: Path, config: Any, resume: bool = False) -> Any:
    experiment = tiny.experiment()
    config.build().run(experiment, tiny.folder(path, config.name, resume), Trackers([]))
    return {name: value.clone() for name, value in experiment.model.state_dict().items()}


def stop_at(tiny: SimpleNamespace, path: Path, config: Any, stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = loop.training_step

    def stopped(fitting: Any, batch: Any) -> None:
        if fitting.step == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        plain(fitting, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "training_step", stopped)
        with pytest.raises(Preempted):
            run(tiny, path, config)


def newest(path: Path) -> dict[str, Any]:
    found = CheckpointFolder(path / "operator" / "checkpoints", 2).newest()
    assert found is not None
    return found.state


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("stop", [0, 4, 9])
def test_a_stopped_stage_resumes_to_the_same_bits(
    tiny: SimpleNamespace, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = stage(tiny, accumulation=2)
    whole = run(tiny, tmp_path / "whole", config)
    stop_at(tiny, tmp_path / "stopped", config, stop, monkeypatch)
    assert same(whole, run(tiny, tmp_path / "stopped", config, resume=True))
    sums = [newest(tmp_path / name)["extra"][NAME]["sums"] for name in ("whole", "stopped")]
    assert torch.equal(*sums)
    assert sums[0].shape == (2, 8)
    assert (sums[0] > 0).any()


def test_a_stage_that_forgot_its_errors_would_end_elsewhere(
    tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ups_plugins.sampling.importance import CellErrors

    config = stage(tiny)
    whole = run(tiny, tmp_path / "whole", config)
    stop_at(tiny, tmp_path / "stopped", config, 6, monkeypatch)
    monkeypatch.setattr(CellErrors, "load_state_dict", lambda self, state: None)
    assert not same(whole, run(tiny, tmp_path / "stopped", config, resume=True))


def test_a_checkpoint_without_the_state_is_refused_only_where_it_is_needed(
    tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ups_kit.fit import resume

    plain = resume.training_state
    older = lambda fitting: {name: part for name, part in plain(fitting).items() if name != "extra"}  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(resume, "training_state", older)
        stop_at(tiny, tmp_path / "with", stage(tiny), 4, monkeypatch)
        stop_at(tiny, tmp_path / "without", stage(tiny, None), 4, monkeypatch)
    with pytest.raises(StorageError, match=f"the checkpoint's {NAME} does not fit this recipe"):
        run(tiny, tmp_path / "with", stage(tiny), resume=True)
    whole = run(tiny, tmp_path / "whole", stage(tiny, None))
    assert same(whole, run(tiny, tmp_path / "without", stage(tiny, None), resume=True))


def test_another_lattice_is_refused(tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import attrs

    stop_at(tiny, tmp_path, stage(tiny), 4, monkeypatch)
    with pytest.raises(StorageError, match="errors of 8 cells, expected 4"):
        run(tiny, tmp_path, stage(tiny, attrs.evolve(SAMPLER, cells=4)), resume=True)


def test_the_state_moves_on_once_in_each_step_whatever_the_parts(
    tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ups_plugins.sampling.importance import CellErrors

    calls: list[str] = []
    for name in ("observe", "advance"):
        plain = getattr(CellErrors, name)
        monkeypatch.setattr(
            CellErrors, name, lambda self, *given, _n=name, _p=plain: (calls.append(_n), _p(self, *given))[1]
        )
    run(tiny, tmp_path, stage(tiny, accumulation=3))
    assert calls.count("advance") == 12
    assert calls[:4] == ["observe", "observe", "observe", "advance"]
