"""A plan beside the run that it is of, and what a step takes beside what is known of it by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from attrs import frozen
from click.testing import CliRunner, Result
from torch import nn

import ups_kit
from ups_kit.cli import cli
from ups_kit.errors import RecipeError, UsageError
from ups_kit.fit.fitting import Task, prepare
from ups_kit.fit.forward import LossBundle
from ups_kit.fit.settings import Budget, FieldFitSettings
from ups_kit.interfaces import Batch, PointSet
from ups_kit.planning import plan as planning
from ups_kit.planning.measuring import Probe, Timing, measure_step, probe
from ups_kit.planning.plan import Plan, limit, plan, steps_in_time
from ups_kit.recipe import LatentCache, Run
from ups_kit.run import run

RECIPES = Path(__file__).parents[2] / "recipes"
SAMPLES, POINTS, TARGETS = 6, 8, 4


# ---------------------------------------------------------------------------------------------------------------------
# A linear map, whose figures are known
# ---------------------------------------------------------------------------------------------------------------------
@frozen
class Adam:
    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=0.1)


class Source:
    """One batch, as often as it is asked for."""

    windows = 60

    def numbers(self, step: int) -> Any:
        return []

    @contextmanager
    def stream(self, first: int) -> Iterator[Iterator[Batch]]:
        torch.manual_seed(1)
        values, positions = torch.randn(SAMPLES, POINTS, 1), torch.zeros(SAMPLES, POINTS, 1)
        states = torch.randn(SAMPLES, 2, TARGETS, 1)
        batch = Batch(
            PointSet(positions, values), states, positions, None, torch.zeros(SAMPLES, 0), *[torch.zeros(SAMPLES)] * 2
        )
        yield iter(lambda: batch, None)


class Attention(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        heads = values.reshape(len(values), 1, POINTS, -1)
        return nn.functional.scaled_dot_product_attention(heads, heads, heads)


def task_of(model: nn.Module, **keys: Any) -> Task:
    def loss(batch: Batch, progress: Any, generator: torch.Generator) -> LossBundle:
        found = model(batch.inputs.values.squeeze(-1))
        total = found.square().mean() * (2 if progress.fraction > 0.5 else 1)
        return LossBundle(total, {"loss": total.detach()})

    settings = FieldFitSettings(**{"budget": Budget(steps=20), "optimizer": Adam(), "batch": SAMPLES, **keys})
    return Task(
        stage="linear",
        model=model,
        settings=settings,
        run=Run(name="linear"),
        device=torch.device("cpu"),
        source=Source(),  # type: ignore[arg-type]  # as much of one as is asked for
        loss=loss,
        validate=lambda model: {"score": 1.0},
    )


def measured(model: nn.Module, **keys: Any) -> Any:
    fitting = prepare(task_of(model, **keys))
    with Source().stream(0) as batches:
        return measure_step(fitting, next(batches), 20)


def test_a_linear_map_is_counted_as_by_hand() -> None:
    step = measured(nn.Linear(POINTS, TARGETS, bias=False), ema=0.9)
    product = 2 * SAMPLES * POINTS * TARGETS
    assert step.flops == (2 * product, 2 * product)  # forward, and the weights' gradient: inputs have none
    assert step.saved == (4 * SAMPLES * (POINTS + TARGETS),) * 2  # inputs, and the outputs that are squared
    weights = 4 * POINTS * TARGETS
    assert (step.gradients, step.average) == (weights, weights)
    assert step.optimizer == 2 * weights + 4  # two moments, and one counter of steps


def test_accumulation_takes_the_same_arithmetic_and_less_memory() -> None:
    whole, parts = (measured(nn.Linear(POINTS, TARGETS), accumulation=count) for count in (1, 3))
    assert parts.flops == whole.flops
    batch, outputs = 4 * SAMPLES * POINTS, 4 * SAMPLES * TARGETS
    assert (whole.most_saved, parts.most_saved) == (batch + outputs, batch + outputs // 3)  # a batch is held whole


def test_attention_counts_on_a_cpu() -> None:
    """Two products forward; five backward, in which the scores are computed once more."""
    width = 16
    step = measured(nn.Sequential(nn.Unflatten(1, (POINTS, 1)), nn.Linear(1, width), Attention()))
    product = 2 * SAMPLES * POINTS * POINTS * width
    embedding = 2 * 2 * SAMPLES * POINTS * width
    assert step.most_flops == 7 * product + embedding


def test_measuring_changes_no_weights() -> None:
    model = nn.Linear(POINTS, TARGETS)
    before = [weight.detach().clone() for weight in model.parameters()]
    fitting = prepare(task_of(model, ema=0.9, schedule=None))
    with Source().stream(0) as batches:
        measure_step(fitting, next(batches), 20)
    found = probe(fitting, None, lambda batch: batch)
    assert found.steps >= 5
    assert 0 < found.wall.least <= found.wall.mean <= found.wall.most
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_steps_of_budgets() -> None:
    assert limit(Budget(steps=7), windows=100, batch=8) == 7
    assert limit(Budget(epochs=2), windows=100, batch=8) == 25
    assert limit(Budget(epochs=1), windows=100, batch=8) == 13
    assert limit(Budget(steps=7, epochs=2), windows=100, batch=8) == 7
    assert limit(Budget(seconds=3), windows=100, batch=8) is None
    found = Probe(5, Timing.of([0.1]), Timing.of([0.3, 0.1]), 5.0, 10.0, None)
    settings = FieldFitSettings(budget=Budget(seconds=30, gpu_seconds=12), optimizer=Adam(), validate_every=100)
    assert steps_in_time(settings, found, "cpu") == 100  # 30 / (0.2 + 10 / 100)
    assert steps_in_time(settings, found, "cuda") == 80  # 12 / (0.1 + 5 / 100)
    assert steps_in_time(attrs.evolve(settings, budget=Budget(steps=3)), found, "cpu") is None


# ---------------------------------------------------------------------------------------------------------------------
# A recipe, and its run
# ---------------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    threads = torch.get_num_threads()
    yield tmp_path_factory.mktemp("home")
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ups_kit.planning.measuring.PROBE_SECONDS", 0.0)


SETTINGS = (
    "run.threads=1",
    "stages.evaluate.pictures=false",
    "stages.operator.budget.epochs=1.1",
    "stages.operator.ema=0.9",
    "stages.operator.keep=1",
)


def read(home: Path, *settings: str, recipe: str = "smoke.toml") -> ups_kit.Recipe:
    places = [f"run.folder={home / 'runs'}", *([f"dataset.path={home / 'smoke.h5'}"] if recipe == "smoke.toml" else [])]
    return ups_kit.read_recipe(RECIPES / recipe, [*places, *settings]).recipe


@pytest.fixture(scope="module")
def before(home: Path) -> Plan:
    """The plan that was made while there were no data."""
    return plan(read(home, *SETTINGS), probed=False)


def test_a_plan_writes_nothing(home: Path, before: Plan) -> None:
    assert list(home.iterdir()) == []
    sample = before.sample
    assert sample is not None
    assert (sample.trajectories, sample.sampled, sample.scale) == (36, 8, 6.0)


def test_a_plan_is_what_the_run_takes(home: Path, before: Plan) -> None:
    recipe = read(home, *SETTINGS)
    done = run(recipe)
    after = plan(recipe)
    for found in (before, after):
        (stage, evaluation) = found.stages
        assert {**found.parameters, "total": sum(found.parameters.values())} == done.summary["parameters"]
        assert stage.steps == done.summary["stages"]["operator"]["steps"]
        assert stage.parameters == done.summary["stages"]["operator"]["trained_parameters"]
        assert "not measured" in evaluation.note
    assert before.stages[0].seconds is None
    assert after.seconds is not None
    assert 0 < after.seconds.low <= after.seconds.likely <= after.seconds.high
    assert after.sample is None
    assert attrs.evolve(before.stages[0], step=None) == attrs.evolve(
        after.stages[0], step=None, probe=None, seconds=None
    )
    (newest, *_) = (done.folder / "operator/checkpoints").glob("step_*")
    state = torch.load(newest / "state.pt", weights_only=True)
    step = after.stages[0].step
    assert step is not None
    kept = [tensor for group in state["optimizer"]["state"].values() for tensor in group.values()]
    assert step.optimizer == sum(each.numel() * each.element_size() for each in kept if isinstance(each, torch.Tensor))
    on_disk = sum(path.stat().st_size for path in (done.folder / "operator/checkpoints").rglob("*.pt"))
    assert on_disk < 1.3 * after.stages[0].checkpoints  # names and numbers beside the tensors of a tiny model


def test_curricula_take_more_at_their_end(before: Plan) -> None:
    step = before.stages[0].step
    assert step is not None
    assert step.flops[0] < step.flops[1]
    assert step.saved[0] < step.saved[1]


def test_budgets_in_seconds_need_the_probe(home: Path) -> None:
    recipe = read(home, "stages.operator.budget={ seconds = 2 }")
    assert plan(recipe, probed=False).stages[0].steps is None
    steps = plan(recipe).stages[0].steps
    assert steps is not None
    assert steps % 10 == 0


def test_cached_latents_are_planned_and_not_made(home: Path) -> None:
    recipe = read(home)
    operator, evaluate = recipe.stages
    first = attrs.evolve(operator, name="first")  # type: ignore[misc]  # trains the encoder
    cached = attrs.evolve(operator, freeze=("encoder",), periodic_shifts=False)  # type: ignore[misc]
    with_cache = attrs.evolve(recipe, stages=(first, cached, evaluate), latent_cache=LatentCache())
    found = plan(with_cache)
    without = plan(attrs.evolve(with_cache, latent_cache=None), probed=False)
    assert found.latents_held == found.latent_cache
    assert found.latent_cache == 24 * 13 * 16 * 16 * 4  # trajectories, frames, tokens, width, bytes
    assert not (home / "runs" / ".latents").exists()
    assert found.stages[1].step is not None
    assert without.stages[1].step is not None
    assert found.stages[1].step.flops[0] < without.stages[1].step.flops[0]


def test_stages_without_figures_are_listed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read(home)
    operator, evaluate = recipe.stages
    skipped = attrs.evolve(operator, name="skipped", budget=Budget(steps=0))  # type: ignore[misc]
    monkeypatch.setattr(
        "ups_plugins.upt.training.stages.OperatorStage", type("Silent", (), {"__init__": lambda *_: None})
    )
    found = plan(attrs.evolve(recipe, stages=(operator, skipped, evaluate)))
    assert [stage.note for stage in found.stages] == [
        "does not tell what it trains; no figures",
        "skipped, its budget is 0",
        "trains nothing; not measured",
    ]
    assert found.seconds is None


def test_what_does_not_fit_is_a_warning(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "available_memory", lambda: 1000)
    found = plan(read(home), probed=False)
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("memory: the run takes")


# ---------------------------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------------------------
def upskit(*words: Any) -> Result:
    return CliRunner().invoke(cli, ["plan", *map(str, words)])


def test_the_command_prints_text_and_json(home: Path) -> None:
    words = [RECIPES / "smoke.toml", "--set", f"dataset.path={home / 'smoke.h5'}", "--no-probe"]
    text = upskit(*words)
    assert text.exception is None
    assert "operator  60     2       8,300" in text.stdout
    found = json.loads(upskit(*words, "--json").stdout)
    assert (found["stages"][0]["steps"], found["parameters"]["encoder"]) == (60, 3328)
    assert found["seconds"] is None


def test_bad_recipes_and_data_that_cannot_be_sampled(home: Path, tmp_path: Path) -> None:
    wrong = upskit(
        RECIPES / "smoke.toml", "--set", "encoder.patch_size=5", "--set", f"dataset.path={tmp_path / 'x.h5'}"
    )
    assert isinstance(wrong.exception, RecipeError)
    paths = [f"dataset.tasks.{task}.path={tmp_path / task}.h5" for task in ("burgers", "advection")]
    several = upskit(RECIPES / "multitask.toml", *(word for path in paths for word in ("--set", path)))
    assert isinstance(several.exception, UsageError)
    assert "make the data first" in str(several.exception)
    assert isinstance(upskit(RECIPES / "smoke.toml", "--device", "cuda:7").exception, (UsageError, RecipeError))
