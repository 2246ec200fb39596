"""The losses in training: where their gradients arrive, masks, tasks, and a whole run with all six."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import evolve
from torch import nn

from ups_kit import Batch, DataError, Field, FieldSpec, Latent, PointSet, Progress, Queries, read_recipe
from ups_kit.assemble import check
from ups_kit.batching import batch_part
from ups_kit.data.grid_store import GridStore, write_grid_store
from ups_kit.data.normalisation import Normaliser
from ups_kit.fit.forward import LossBundle, LossTerm, compute_losses
from ups_kit.model import LatentModel
from ups_kit.run import run
from ups_plugins.physics import config as physics
from ups_plugins.upt.config import ForwardConfig
from ups_plugins.upt.evaluation.reach import Reach

from .seeing import cell_centres, spec

WIDTH, TOKENS = 6, 4
START = Progress(step=0, epoch=0.0, fraction=0.0)
CONFIGS = {
    "divergence": physics.DivergenceConfig(field="velocity"),
    "plain_divergence": physics.DivergenceConfig(field="velocity", relative=False, step=2),
    "divergence_of_what_is_encoded": physics.DivergenceConfig(field="velocity", step=0),
    "mass": physics.ConservationConfig(field="density", step=2),
    "energy": physics.ConservationConfig(of="energy", field="velocity", density="density"),
    "momentum": physics.ConservationConfig(of="momentum", field="velocity", against="truth"),
    "positivity": physics.PositivityConfig(fields=("density",), minimum=3.0),
    "latent_norm": physics.LatentNormConfig(),
    "latent_norm_later": physics.LatentNormConfig(step=2),
    "latent_diversity": physics.LatentDiversityConfig(),
    "latent_diversity_later": physics.LatentDiversityConfig(step=1),
}
SIDES = {
    "value": physics.BoundaryConfig(values={"velocity": (1.0, 0.0)}),
    "truth": physics.BoundaryConfig(kind="truth", sides=("left",)),
    "neumann": physics.BoundaryConfig(kind="neumann", fields=("density",)),
    "periodic": physics.BoundaryConfig(kind="periodic"),
    "flag": physics.BoundaryConfig(flag="wall"),
}


class MeanEncoder(nn.Module):
    """Means over a sample's real points, as tokens."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels + 4, TOKENS * WIDTH)

    def forward(self, points: PointSet) -> Latent:
        phase = 2 * math.pi * points.positions
        said = torch.tanh(self.linear(torch.cat([points.values, phase.cos(), phase.sin()], -1)))
        mask = torch.ones_like(said[..., 0]) if points.mask is None else points.mask.float()
        tokens = (said * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return Latent(tokens.unflatten(-1, (TOKENS, WIDTH)), torch.rand(TOKENS, 2))


class ShiftOperator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, latent: Latent, condition: torch.Tensor) -> Latent:
        return latent._replace(tokens=latent.tokens + torch.tanh(self.linear(latent.tokens.roll(1, 1))))


class WaveDecoder(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear, self.channels = nn.Linear(TOKENS * WIDTH, 5 * channels), channels

    def forward(self, latent: Latent, queries: Queries) -> torch.Tensor:
        phase = queries.positions * torch.tensor([1.0, 2.0])
        basis = torch.cat([torch.ones_like(phase[..., :1]), phase.cos(), phase.sin()], -1)
        return basis @ self.linear(latent.tokens.flatten(1)).unflatten(-1, (5, self.channels))


def model_of(fields: FieldSpec) -> LatentModel:
    torch.manual_seed(0)
    channels = fields.target_channels
    scales = {"target_mean": (0.5,) * (channels - 1) + (2.0,), "target_std": (1.5,) * (channels - 1) + (0.5,)}
    normaliser = Normaliser(condition_mean=(0.0,), condition_std=(1.0,), condition_log=(False,), **scales)
    parts = MeanEncoder(fields.input_channels), ShiftOperator(), WaveDecoder(channels)
    return LatentModel(*parts, fields, normaliser)


def batch_of(fields: FieldSpec, sizes: tuple[int, ...], frames: int = 2) -> Batch:
    """Random frames, at the grid's points or at random ones; the first points are on the wall."""
    random, size, points = torch.Generator().manual_seed(1), len(sizes), max(sizes)
    mask = torch.arange(points) < torch.tensor(sizes)[:, None]
    if fields.grid is not None:
        positions = cell_centres(fields.grid, fields.domain).float().expand(size, -1, -1)
    else:
        positions = torch.rand(size, points, 2, generator=random)
        positions = torch.where(mask[..., None], positions, positions[:, :1])
    states = torch.randn(size, frames + 1, points, fields.target_channels, generator=random)
    states = states * mask[:, None, :, None]
    flags = (torch.arange(points) < 5).float().expand(size, -1)[..., None]
    inputs = PointSet(positions, torch.cat([states[:, 0], flags], -1), None if mask.all() else mask, fields.grid)
    zeros = torch.zeros(size)
    return Batch(inputs, states, positions, fields.grid, torch.zeros(size, 1), zeros.long(), zeros, mask=inputs.mask)


def losses(model: LatentModel, batch: Batch, **configs: Any) -> LossBundle:
    terms = [LossTerm(name, config, config.build(model.fields)) for name, config in configs.items()]
    return compute_losses(model, batch, terms, START, torch.Generator().manual_seed(0))


WALL = (Field("wall"),)
GRID = spec((6, 5), (False, True), statics=WALL)
MESH = spec(None, False, dims=2, statics=WALL, counts=(20, 30))
SIZES = (30, 20, 25)


@pytest.mark.parametrize("name", [*CONFIGS, *SIDES])
def test_the_gradient_reaches_the_declared_parts_and_no_others(name: str) -> None:
    config, model = (CONFIGS | SIDES)[name], model_of(GRID)
    found = losses(model, batch_of(GRID, (30, 30)), loss=config)
    found.total.backward()
    reached = {
        part
        for part, module in model.parts.items()
        if any(each.grad is not None and each.grad.abs().sum() > 0 for each in module.parameters())
    }
    assert found.total.item() > 0
    assert reached == set(config.build(GRID).reaches)


def alone(whole: Batch, sample: int) -> Batch:
    """One sample of a batch, without padding."""
    part, real = batch_part(whole, slice(sample, sample + 1)), slice(0, SIZES[sample])
    inputs = PointSet(part.inputs.positions[:, real], part.inputs.values[:, real])
    return part._replace(inputs=inputs, states=part.states[:, :, real], positions=part.positions[:, real], mask=None)


@pytest.mark.parametrize("name", [*CONFIGS, "flag"])
def test_a_batch_with_padding_gives_the_mean_of_its_samples_and_the_same_gradient(name: str) -> None:
    config, model, data = (CONFIGS | SIDES)[name], model_of(MESH), batch_of(MESH, SIZES)
    noise = 100 * (~data.mask).float()  # type: ignore[operator]
    other = data._replace(states=data.states + noise[:, None, :, None])
    parameters = list(model.parameters())
    results = []
    for totals in (
        [losses(model, data, loss=config).total],
        [losses(model, other, loss=config).total],
        [losses(model, alone(data, sample), loss=config).total for sample in range(len(SIZES))],
    ):
        total = torch.stack(totals).mean()
        results.append((total.item(), torch.autograd.grad(total, parameters, allow_unused=True)))
    assert results[0][0] > 0
    for value, gradients in results[1:]:
        assert value == pytest.approx(results[0][0], rel=1e-5)
        for one, gradient in zip(results[0][1], gradients, strict=True):
            assert (one is None) == (gradient is None)
            assert one is None or torch.allclose(one, gradient, rtol=1e-3, atol=1e-5 * float(one.abs().max()))


def test_points_that_move_are_taken_where_they_are() -> None:
    model, data = model_of(MESH), batch_of(MESH, (30, 30))
    moved = 0.5 * data.positions + 0.2
    moving = data._replace(positions=torch.stack([data.positions, moved, data.positions], 1))
    still = data._replace(positions=moved)
    for name in ("divergence", "mass"):
        config = evolve(CONFIGS[name], step=1)
        there = losses(model, moving, loss=config).total
        assert there.item() == pytest.approx(losses(model, still, loss=config).total.item(), rel=1e-6)
    config = CONFIGS["divergence"]
    assert losses(model, moving, loss=config).total != losses(model, data, loss=config).total


def test_a_task_without_the_fields_has_a_loss_of_zero() -> None:
    """Of a mixture the batch says which channels its task has; the fields may also be those of that task alone."""
    model, data = model_of(GRID), batch_of(GRID, (30, 30))
    task = data._replace(channels=(2,))
    mass = physics.ConservationConfig(field="velocity")
    truth = physics.BoundaryConfig(kind="truth")
    found = losses(model, task, mass=mass, truth=truth, density=physics.ConservationConfig(field="density"))
    assert found.terms["mass"] == 0
    assert found.terms["truth"] > 0
    found.total.backward()
    density = losses(model, task, density=physics.ConservationConfig(field="density")).terms["density"]
    whole = losses(model, data, density=physics.ConservationConfig(field="density")).terms["density"]
    assert density == whole
    own = evolve(GRID, targets=(Field("density"),))
    for config in (*CONFIGS.values(), SIDES["flag"]):
        loss = config.build(evolve(own, statics=()))
        if isinstance(config, physics.LatentNormConfig | physics.LatentDiversityConfig):
            continue
        there = getattr(config, "field", None) == "density" or isinstance(config, physics.PositivityConfig)
        assert (loss.needs(START) is not None) == there
        assert bool(loss.reaches) == there


def test_losses_share_one_forward_pass() -> None:
    model, data = model_of(GRID), batch_of(GRID, (30, 30))
    calls = []
    handle = model.decoder.register_forward_hook(lambda *_: calls.append(1))
    one = {name: evolve(CONFIGS[name], step=1) for name in ("divergence", "mass", "positivity")}
    losses(model, data, forward=ForwardConfig(), **one)
    handle.remove()
    assert len(calls) == 1


# ---------------------------------------------------------------------------------------------------------------------
# A whole run
# ---------------------------------------------------------------------------------------------------------------------
RECIPE = """
[run]
name = "physics"
threads = 1

[dataset]
use = "grid_zarr"
path = "flows.zarr"
validation = 2
test = 2

[latent]
width = 8

[encoder]
use = "grid"
patch_size = 4
heads = 1

[operator]
use = "transformer"
depth = 1
heads = 1

[decoder]
use = "partition"
modes = 3

[[stages]]
use = "operator"
batch = 4
budget = { steps = 4 }
optimizer = { use = "adamw", lr = 0.01 }
validate_every = 4
validation_steps = 2

[stages.losses]
forward = {}
divergence = { field = "velocity", weight = WEIGHT }
conservation = { of = "energy", field = "velocity", weight = WEIGHT }
boundary = { kind = "periodic", step = 2, weight = WEIGHT }
positivity = { fields = ["density"], minimum = 2.0, weight = WEIGHT }
latent_norm = { relative = true, weight = WEIGHT }
latent_diversity = { step = 1, weight = WEIGHT }

[[stages]]
use = "evaluate"
steps = 2
pictures = false
"""
SIX = ("divergence", "conservation", "boundary", "positivity", "latent_norm", "latent_diversity")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Vortices that travel, and a density, on 16 × 16 points of the square of side 2π."""
    folder, threads = tmp_path_factory.mktemp("physics"), torch.get_num_threads()
    axis, times = (np.arange(16) + 0.5) * 2 * np.pi / 16, 0.1 * np.arange(5)
    x, y = np.meshgrid(axis, axis, indexing="ij")

    def values(kind: str, name: str, samples: slice, frames: slice) -> np.ndarray:
        across = x - 0.3 * np.arange(8)[samples, None, None, None] - times[frames, None, None]
        if name == "density":
            return (2 + np.sin(across + y))[..., None]
        return np.stack([-np.cos(across) * np.sin(y), np.sin(across) * np.cos(y)], -1)

    store = GridStore(
        trajectories=8,
        axes={"x": axis, "y": axis},
        times=times,
        fields={"velocity": 2, "density": 1},
        parameters={},
        periodic=(True, True),
    )
    write_grid_store(folder / "flows.zarr", store, values)
    yield folder
    torch.set_num_threads(threads)


def recipe_of(home: Path, name: str, text: str) -> Any:
    (home / f"{name}.toml").write_text(text)
    return read_recipe(home / f"{name}.toml", [f"run.folder={home / name}"]).recipe


def weights_of(folder: Path) -> bytes:
    (path,) = (folder / "bundle").glob("*.safetensors")
    return path.read_bytes()


def test_a_run_with_all_six_shows_their_reach_and_weights_of_0_are_as_none(home: Path) -> None:
    result = run(recipe_of(home, "all", RECIPE.replace("WEIGHT", "0.1")))
    reach = json.loads((result.folder / "summary.json").read_text())["reach"]["operator"]
    assert set(reach) == {"forward", *SIX}
    for name in SIX:
        row, declared = reach[name], reach[name]["declared"]
        latents = {"latent_norm": ["encoder"], "latent_diversity": ["encoder", "operator"]}
        assert declared == latents.get(name, ["encoder", "operator", "decoder"])
        assert {part for part, norm in row["gradient_norms"].items() if norm} == set(declared)
    logged = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert {f"losses/{name}" for name in SIX} <= {key for line in logged for key in line}
    training = RECIPE.split('[[stages]]\nuse = "evaluate"')[0]
    off = run(recipe_of(home, "off", training.replace("WEIGHT", "0")))
    none = run(recipe_of(home, "none", "\n".join(line for line in training.splitlines() if "WEIGHT" not in line)))
    assert weights_of(off.folder) == weights_of(none.folder) != weights_of(result.folder)


def test_a_loss_at_its_least_may_pull_nowhere() -> None:
    everything = ("encoder", "operator", "decoder")
    for value, missing in ((0.0, ()), (1e-9, everything)):
        assert Reach("operator", "positivity", value, dict.fromkeys(everything, 0.0), everything).missing() == missing


def test_all_that_does_not_fit_is_told_at_once(home: Path) -> None:
    text = RECIPE.replace("WEIGHT", "1").replace('"velocity"', '"velocty"').replace('["density"]', '["rho", "density"]')
    text = text.replace('kind = "periodic", step = 2', 'sides = ["left"]')
    problems = {problem.path: problem.message for problem in check(recipe_of(home, "wrong", text))}
    assert set(problems) == {
        "stages.operator.losses.divergence.field",
        "stages.operator.losses.conservation.field",
        "stages.operator.losses.boundary.sides",
        "stages.operator.losses.positivity.fields",
    }
    assert (
        "did you mean 'velocity'? (predicted: velocity (2 channels), density)"
        in problems["stages.operator.losses.divergence.field"]
    )


def test_a_codec_takes_step_0_alone(home: Path) -> None:
    text = RECIPE.replace("WEIGHT", "1").replace('use = "operator"\nbatch', 'use = "codec"\nbatch')
    text = text.replace("validation_steps = 2\n", "").replace("forward = {}", "inverse_encoding = {}")
    problems = {problem.path for problem in check(recipe_of(home, "codec", text))}
    later = {"divergence", "conservation", "boundary", "positivity", "latent_diversity"}
    assert problems == {f"stages.codec.losses.{name}.step" for name in later}


def test_too_few_frames_for_a_step_are_told(home: Path) -> None:
    recipe = recipe_of(home, "far", RECIPE.replace("WEIGHT", "1").replace("step = 2", "step = 9"))
    with pytest.raises(DataError, match=r"losses\.boundary looks 9 steps ahead"):
        run(recipe)
