"""Any operator in any recipe: only `[operator]` is changed, and the rest of the pipeline does not mind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import ups_kit
from ups_kit.assemble import assemble, check
from ups_kit.batching import to_device
from ups_kit.bundle import load_bundle
from ups_kit.run import RunResult, run
from ups_plugins.upt.evaluation.reach import gradient_reach

RECIPES = Path(__file__).parents[2] / "recipes"
OPERATORS = {
    "pde_transformer": '{ use = "pde_transformer", depths = [1, 1], window = 4, rank = 4, channel_groups = 2 }',
    "unet": '{ use = "unet", hidden = 8, levels = 2 }',
    "fno": '{ use = "fno", modes = 4, layers = 2 }',
    "persistence": '{ use = "persistence" }',
}
SHORT = ("stages.operator.budget.steps=6", "stages.operator.validate_every=6", "stages.operator.schedule.warmup=3")
SQUARE = (  # a small diffusion-reaction system in place of Burgers' equation: no axis wraps, 4 × 4 tokens
    'dataset.simulate={ use = "diffusion_reaction2d", trajectories = 8, points = 16, frames = 5, duration = 1.0 }',
    "dataset.train=4",
    "dataset.validation=2",
    "dataset.test=2",
    "encoder.patch_size=4",
)
ON_POINTS = ('encoder={ use = "mesh", lattice = [16], degree = 8, depth = 1 }',)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    threads = torch.get_num_threads()
    yield tmp_path_factory.mktemp("home")
    torch.set_num_threads(threads)


def read(home: Path, *settings: str, recipe: str = "smoke.toml", data: str = "smoke.h5") -> ups_kit.Recipe:
    places = (f"run.folder={home / 'runs'}", f"dataset.path={home / data}", "stages.evaluate.pictures=false")
    return ups_kit.read_recipe(RECIPES / recipe, [*places, "stages.evaluate.trajectories=2", *settings]).recipe


def finished(home: Path, name: str, *settings: str, data: str = "smoke.h5") -> RunResult:
    return run(read(home, *SHORT, f"operator={OPERATORS[name]}", *settings, data=data))


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_is_trained_evaluated_and_kept(home: Path, name: str) -> None:
    result = finished(home, name)
    bundle = load_bundle(result.folder / "bundle")
    fresh = assemble(bundle.recipe)
    own = bundle.model.operator.state_dict()
    assert own.keys() == fresh.model.operator.state_dict().keys()
    moved = [key for key, value in fresh.model.operator.state_dict().items() if not torch.equal(value, own[key])]
    assert bool(moved) is (name != "persistence")
    norms = result.summary["reach"]["operator"]["forward"]["gradient_norms"]
    assert norms["operator"] is None if name == "persistence" else norms["operator"] > 0
    assert norms["encoder"] > 0
    steps = result.summary["stages"]["operator"]
    assert steps["steps"] == 6
    assert steps["trained_parameters"] == result.summary["parameters"]["total"]


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize(("data", "settings"), [("square.h5", SQUARE), ("smoke.h5", ON_POINTS)], ids=["2d", "mesh"])
def test_losses_reach_it_on_squares_and_from_supernodes(
    home: Path, name: str, data: str, settings: tuple[str, ...]
) -> None:
    keys = OPERATORS[name].replace("modes = 4", "modes = 2").replace("window = 4", "window = 2")
    recipe = read(home, f"operator={keys}", *settings, data=data)
    assert check(recipe) == []
    experiment = assemble(recipe)
    model = experiment.model
    for row in gradient_reach(model, experiment.dataset, recipe.stages, 0):
        declared = "operator" in row.declared and name != "persistence"
        assert (row.norms["operator"] or 0.0) > 0 if declared else not row.norms["operator"]
    windows = torch.arange(2).numpy()
    batch = to_device(experiment.dataset.batch("test", windows, 1), torch.device("cpu"))
    latent = model.encode(batch.inputs, batch.condition)
    assert latent.grid == ((4, 4) if data == "square.h5" else (16,))
    assert torch.equal(model.step(latent, batch.condition).tokens, latent.tokens), "the identity at first"


def test_a_stage_with_nothing_to_train_is_skipped_and_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Codec first, then the operator on cached latents: persistence has no weights, and the codec is kept."""
    tiny = read(home)
    short = ["budget={ steps = 4 }", "batch=4", "validate_every=4", "schedule.warmup=2"]
    recipe = read(
        home,
        *(f"dataset.{key}={getattr(tiny.dataset, key)}" for key in ("train", "validation", "test")),
        *(f"stages.{stage}.{setting}" for stage in ("codec", "operator") for setting in short),
        'operator={ use = "persistence" }',
        "dataset.simulate=none",
        "latent.width=8",
        "encoder.patch_size=4",
        "decoder.modes=4",
        recipe="burgers_cached.toml",
    )
    result = run(recipe)
    assert "operator: skipped, there are no weights in what it trains: operator" in capsys.readouterr().err
    assert result.summary["stages"]["operator"]["steps"] == 0
    assert result.summary["stages"]["codec"]["steps"] == 4
    trained = load_bundle(result.folder / "bundle").model.encoder.state_dict()
    assert any(
        not torch.equal(value, trained[key]) for key, value in assemble(recipe).model.encoder.state_dict().items()
    )


def test_operators_that_need_a_lattice_say_so_when_the_recipe_is_read(home: Path) -> None:
    for name, keys in OPERATORS.items():
        for settings in (["encoder.choice=farthest"], ["latent.tokens=8"]):
            problems = [problem.path for problem in check(read_flow(keys, settings))]
            assert ("operator.use" in problems) is (name != "persistence")


def read_flow(operator: str, settings: list[str]) -> ups_kit.Recipe:
    flow = RECIPES / "mesh_flow_upt.toml"
    return ups_kit.read_recipe(flow, [f"operator={operator}", "decoder.use=perceiver", *settings]).recipe
