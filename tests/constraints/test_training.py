"""A recipe with a constraint: trained, saved, evaluated and rolled out, beside the same one without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

import ups_kit
from ups_kit import LatentSpec
from ups_kit.fit.settings import Budget
from ups_kit.recipe import Recipe, Run
from ups_kit.run import RunResult, run
from ups_plugins.decoders.config import PartitionConfig
from ups_plugins.grid.config import GridEncoderConfig, PDEBenchConfig
from ups_plugins.operators.config import TransformerConfig
from ups_plugins.optim.config import AdamWConfig
from ups_plugins.physics.constraint_keys import TotalConfig
from ups_plugins.sampling.config import UniformConfig
from ups_plugins.simulators.config import Burgers1DConfig
from ups_plugins.upt.config import ForwardConfig
from ups_plugins.upt.evaluation.config import EvaluateConfig
from ups_plugins.upt.training.config import OperatorStageConfig

STEPS = 40


def recipe(folder: Path, name: str, **changes: Any) -> Recipe:
    simulated = Burgers1DConfig(trajectories=20, points=32, frames=STEPS + 1, duration=2.0, refinement=1, device="cpu")
    stage = OperatorStageConfig(
        budget=Budget(steps=30),
        batch=8,
        optimizer=AdamWConfig(lr=0.003),
        losses={"forward": ForwardConfig(error="relative", sampler=UniformConfig(ratio=0.5))},
    )
    whole = Recipe(
        run=Run(name=name, device="cpu", folder=folder / "runs", threads=1),
        dataset=PDEBenchConfig(path=folder / "burgers.h5", train=12, validation=4, test=4, simulate=simulated),
        latent=LatentSpec(width=16),
        encoder=GridEncoderConfig(patch_size=4),
        operator=TransformerConfig(depth=1),
        decoder=PartitionConfig(modes=6),
        stages=(stage, EvaluateConfig(require_beating=(), pictures=False)),
    )
    return attrs.evolve(whole, **changes)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunResult]]:
    """Two runs of one recipe, which differ in [[constraints]] alone."""
    folder, threads = tmp_path_factory.mktemp("constraints"), torch.get_num_threads()
    yield {
        "free": run(recipe(folder, "free")),
        "total": run(recipe(folder, "total", constraints=(TotalConfig(fields=("u",)),))),
    }
    torch.set_num_threads(threads)


def drift(frames: Tensor, start: Tensor) -> float:
    """The largest change of total mass over forty steps, over the field's size."""
    mass = frames.double().mean(2) - start.double().mean(2)
    return float(mass.abs().max() / start.double().square().mean().sqrt())


def test_mass_drifts_without_the_constraint_and_not_with_it(results: dict[str, RunResult]) -> None:
    x = (torch.arange(32) + 0.5) / 32
    start = torch.stack([torch.sin(2 * torch.pi * x) + shift for shift in (0.0, 0.4)])[:, None, :, None]
    conditions = {"epsilon": 0.03} if "epsilon" in ups_kit.load(results["free"].folder).fields.conditions else {}
    found = {}
    for name, result in results.items():
        bundle = ups_kit.load(result.folder)
        found[name] = drift(bundle.predict(start, conditions, steps=STEPS), start)
    assert found["free"] > 1e-2
    assert found["total"] < 1e-7


def test_the_evaluations_error_of_the_total_falls_to_rounding(results: dict[str, RunResult]) -> None:
    """Of the data, too: what is left is how far the data's own mean moves, and float32's rounding of it."""
    found = {name: result.summary["metrics"] for name, result in results.items()}
    for rollout in ("latent_rollout", "reencoded_rollout"):
        assert found["free"][rollout]["crmse"] > 1e-2
        kept = found["total"][rollout]
        assert kept["crmse"] < 1e-7 * max(1.0, kept["nrmse"])


def test_queries_between_points_are_those_of_the_constrained_field(results: dict[str, RunResult]) -> None:
    bundle = ups_kit.load(results["total"].folder)
    x = (torch.arange(32) + 0.5) / 32
    start = (torch.sin(2 * torch.pi * x) + 0.2)[None, None, :, None]
    conditions = {"epsilon": 0.03} if "epsilon" in bundle.fields.conditions else {}
    dense = bundle.predict(start, conditions, steps=5)
    some = bundle.predict(start, conditions, steps=5, queries=x[[3, 17], None])
    torch.testing.assert_close(some, dense[:, :, [3, 17]], atol=2e-6, rtol=0)
