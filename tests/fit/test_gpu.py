"""The engine on a GPU: arithmetics, loss scaling, resuming."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ups_kit.batching import to_device
from ups_kit.fit.fitting import Task
from ups_kit.fit.forward import LossBundle
from ups_kit.fit.loop import fit

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def _task(toy: SimpleNamespace, precision: str, **settings: Any) -> Task:
    device = torch.device("cuda:0")
    model, source = toy.Model(), toy.Source()
    plain = source.batch
    source.batch = lambda step: to_device(plain(step), device)

    def loss(batch: Any, progress: Any, generator: torch.Generator) -> LossBundle:
        assert generator.device.type == "cuda"
        error = (model(batch.inputs.values).float() - batch.states[:, 1]).square().mean()
        return LossBundle(error, {"forward": error.detach()})

    task = toy.task(model=model, source=source, loss=loss, run={"precision": precision, "device": "cuda"}, **settings)
    return Task(**{name: getattr(task, name) for name in Task.__annotations__} | {"device": device})


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_training_goes_on_after_a_stop(toy: SimpleNamespace, tmp_path: Path, precision: str) -> None:
    whole = _task(toy, precision, ema=0.9)
    expected = fit(whole, toy.folder(tmp_path / "whole"), toy.no_trackers())
    shorter = _task(toy, precision, ema=0.9)
    folder = toy.folder(tmp_path / "stopped")
    fit(shorter, folder, toy.no_trackers())
    newest = max((folder.path / "checkpoints").glob("step_*"))
    newest.rename(newest.with_name(".old"))
    result = fit(_task(toy, precision, ema=0.9), toy.folder(tmp_path / "stopped", resume=True), toy.no_trackers())
    assert result["steps"] == expected["steps"]
    assert result["best_score"] == pytest.approx(expected["best_score"], rel=1e-3)
