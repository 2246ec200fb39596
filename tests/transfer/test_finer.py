"""Super-resolution: what is exact between the given points, what interpolation does there, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from html import escape
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from torch import Tensor, nn

import ups_kit
from ups_kit.assemble import Experiment
from ups_kit.cli import cli
from ups_kit.data.discretisations import grid_axes, grid_points
from ups_kit.errors import DataError, UpsKitError, UsageError
from ups_kit.interfaces import Dataset, FieldSpec, Latent, PointSet, Queries, Relaid
from ups_kit.model import LatentModel
from ups_kit.run import run
from ups_plugins.grid.config import PDEBenchConfig
from ups_plugins.grid.dataset import GridDataset
from ups_plugins.upt.evaluation.config import EvaluateConfig
from ups_plugins.upt.evaluation.finer.asking import plan
from ups_plugins.upt.evaluation.finer.measuring import Finer, finer_truth, measure
from ups_plugins.upt.evaluation.finer.pictures import draw_spectra, draw_states
from ups_plugins.upt.evaluation.finer.table import sheets
from ups_plugins.upt.evaluation.finer.verdict import verdict
from ups_plugins.upt.evaluation.transfer.through import interpolation_error
from ups_plugins.upt.evaluation.truth import read_truth

RECIPES = Path(__file__).parents[2] / "recipes"
CONFIG = EvaluateConfig()
SPEED, DT = 0.7, 0.1
LOW = {1: 3.0, 2: 2.0}  # wave number of the test field along each axis, which 8 points carry


# ---------------------------------------------------------------------------------------------------------------------
# A model that is exact for all waves that its points carry
# ---------------------------------------------------------------------------------------------------------------------
class Keep(nn.Module):
    """The values as tokens."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, points: PointSet) -> Latent:
        return Latent(points.values[..., -self.channels :].double(), points.positions[0], points.grid)


class Shift(nn.Module):
    """Carries everything on along the first axis, by a step of time."""

    def forward(self, latent: Latent, condition: Tensor) -> Latent:
        assert latent.grid is not None
        values = torch.unflatten(latent.tokens, 1, latent.grid)
        numbers = torch.fft.fftfreq(latent.grid[0], d=1 / latent.grid[0], dtype=torch.float64)
        turn = torch.exp(-2j * math.pi * numbers * SPEED * DT)
        moved = torch.fft.ifft(torch.fft.fft(values, dim=1) * turn.view(-1, *[1] * len(latent.grid)), dim=1).real
        return latent._replace(tokens=moved.flatten(1, len(latent.grid)))


class Stay(nn.Module):
    def forward(self, latent: Latent, condition: Tensor) -> Latent:
        return latent


class Waves(nn.Module):
    """The sum of all waves through the tokens, at any points."""

    def forward(self, latent: Latent, queries: Queries) -> Tensor:
        assert latent.grid is not None
        assert latent.anchors is not None
        dims = tuple(range(1, 1 + len(latent.grid)))
        modes = torch.fft.fftn(torch.unflatten(latent.tokens, 1, latent.grid), dim=dims, norm="forward")
        numbers = [torch.fft.fftfreq(size, d=1 / size, dtype=torch.float64) for size in latent.grid]
        wave = torch.stack(torch.meshgrid(*numbers, indexing="ij"), -1).flatten(0, -2)
        away = queries.positions[0].double() - latent.anchors[0].double()
        basis = torch.exp(2j * math.pi * (away @ wave.T))
        return torch.einsum("qk,bkc->bqc", basis, modes.flatten(1, len(latent.grid))).real.float()


def travelling(places: NDArray[np.float64], times: NDArray[np.float64], sample: int) -> NDArray[np.float64]:
    """A wave that keeps to 8 points along each axis, (F, N)."""
    x = 2 * np.pi * (places[:, 0] - SPEED * times[:, None])
    other = np.cos(2 * np.pi * LOW[2] * places[:, 1] + sample) if places.shape[1] == 2 else 1.0
    return np.asarray(1 + np.sin(LOW[1] * x + sample) * other + 0.3 * np.cos(x))


def stored(path: Path, axes: list[NDArray[np.float64]], of: Callable[..., NDArray[np.float64]]) -> Path:
    """Six trajectories of five frames on a grid, in PDEBench's layout `tensor`."""
    places, times, shape = grid_points(axes), DT * np.arange(5), tuple(map(len, axes))
    with h5py.File(path, "w") as file:
        every = [of(places, times, sample).reshape(5, *shape) for sample in range(6)]
        file["tensor"] = np.stack(every).astype(np.float32)
        file["t-coordinate"] = times
        for name, axis in zip("xyz", axes, strict=False):
            file[f"{name}-coordinate"] = axis
    return path


def experiment(path: Path, stride: int, operator: nn.Module | None = None, **keys: Any) -> Experiment:
    """An exact model of the data at a stride."""
    settings = PDEBenchConfig(path=path, space_stride=stride, **{"validation": 1, "test": 3, "periodic": True, **keys})
    dataset = settings.build(0)
    channels = dataset.fields.target_channels
    model = LatentModel(Keep(channels), operator or Shift(), Waves(), dataset.fields, dataset.normaliser)
    catalog = SimpleNamespace(locate=lambda config: SimpleNamespace(name="pdebench"))
    recipe = SimpleNamespace(dataset=settings)
    return Experiment(recipe, dataset, model, (), torch.device("cpu"), catalog)  # type: ignore[arg-type]


def measured(made: Experiment, *factors: int) -> Finer:
    return measure(made, CONFIG, plan(made, "test", factors), lambda text: None)


def axes_of(dims: int, offset: float, size: int = 32) -> list[NDArray[np.float64]]:
    return [(np.arange(size) + offset) / size] * dims


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_a_model_that_is_exact_is_exact_between_its_points(tmp_path: Path, dims: int, offset: float) -> None:
    """Nodes and cell centres: the decoder is asked where the fine values really stand."""
    made = experiment(stored(tmp_path / "waves.h5", axes_of(dims, offset), travelling), 4)
    finer = measured(made, 2, 4)
    assert [line.fields.grid for line in finer.lines] == [(8,) * dims, (16,) * dims, (32,) * dims]
    assert [line.fields.offset for line in finer.lines] == [offset / 4, offset / 2, offset]
    for line in finer.lines:
        for kind in ("one_step", "rollout", "encode_decode"):
            assert cast("float", line.scores["decoded"][kind].nrmse) < 2e-6
    for line in finer.lines[1:]:
        floors = {way: line.scores[way]["encode_decode"] for way in ("splines", "trigonometric")}
        assert cast("float", floors["trigonometric"].nrmse) < 1e-6
        assert cast("float", floors["splines"].nrmse) > 0.01
        assert floors["splines"].detail is None  # there is none that could be missed
        own = line.scores["interpolated"][
            "rollout"
        ].nrmse  # an exact forecast through splines is the truth through them
        assert own == pytest.approx(floors["splines"].nrmse, rel=1e-4)
    said = verdict(finer)
    assert len(said) == 6
    assert all(text.endswith(("decoding wins", "the codec wins", "interpolation wins")) for text in said)
    assert sum("decoding wins" in text for text in said) == 4


def test_a_fine_point_is_where_the_file_says(tmp_path: Path) -> None:
    for offset in (0.0, 0.5):
        made = experiment(stored(tmp_path / f"{offset}.h5", axes_of(1, offset, 36), travelling), 6)
        for factor, found in plan(made, "test", (2, 3, 6)).items():
            every = made.dataset.relay("test", "grid", found.points).trajectories  # type: ignore[attr-defined]
            (axis,) = grid_axes(made.dataset.fields.domain, found.grid or (), found.offset)
            assert every.positions[:, 0].double().numpy() == pytest.approx(axis, abs=1e-6)
            own = made.dataset.trajectories("test")
            assert torch.equal(every.positions[::factor], own.positions)
            assert torch.equal(every.values[:, :, ::factor], own.values)
        measured(made, 2, 3, 6)


def test_detail_that_the_coarse_grid_does_not_carry(tmp_path: Path) -> None:
    """Wave 20 on 32 points is wave 12: the codec misses it where it belongs, and has it where it does not."""
    size, share = 128, 0.25

    def waves(places: NDArray[np.float64], times: NDArray[np.float64], sample: int) -> NDArray[np.float64]:
        turn = 2 * np.pi * places[:, 0] + sample
        return np.asarray(np.sin(3 * turn) + share * np.sin(20 * turn) + 0 * times[:, None])

    made = experiment(stored(tmp_path / "detail.h5", axes_of(1, 0.0, size), waves), 4, Stay())
    expected = share / math.sqrt(1 + share**2)
    for line in measured(made, 2, 4).lines[1:]:
        for way in ("decoded", "trigonometric"):
            found = line.scores[way]["encode_decode"]
            assert (found.below, found.above) == pytest.approx((expected, expected), rel=1e-4)
            assert found.detail == pytest.approx(0, abs=1e-9)
            assert found.nrmse == pytest.approx(math.sqrt(2) * expected, rel=1e-4)
        through = line.scores["splines"]["encode_decode"]
        assert math.hypot(cast("float", through.below), cast("float", through.above)) == pytest.approx(
            cast("float", through.nrmse), rel=1e-5
        )
        assert 0 < cast("float", through.detail) < 1


@pytest.mark.parametrize("dims", [1, 2])
def test_pictures_can_be_drawn(tmp_path: Path, dims: int) -> None:
    finer = measured(experiment(stored(tmp_path / "waves.h5", axes_of(dims, 0.5), travelling), 4), 2, 4)
    for draw in (draw_spectra, draw_states):
        file = BytesIO()
        draw(finer).savefig(file, dpi=36)
        assert file.tell() > 1000
    for line in finer.lines:
        assert set(line.spectra) == {"truth", "decoded", "interpolated", "splines"}
        assert torch.allclose(line.spectra["decoded"], line.spectra["truth"], atol=1e-5)


@pytest.mark.parametrize("periodic", [True, False])
def test_the_floor_is_the_one_of_other_points(tmp_path: Path, periodic: bool) -> None:
    made = experiment(stored(tmp_path / "waves.h5", axes_of(1, 0.5), travelling), 2, periodic=periodic)
    (line,) = measured(made, 2).lines[1:]
    coarse = read_truth(made.dataset, "test", None)
    fine = finer_truth(made, CONFIG, coarse, 2, plan(made, "test", (2,))[2])
    floor = line.scores["splines"]["encode_decode"].nrmse
    assert floor == pytest.approx(interpolation_error(coarse, fine), rel=1e-5)
    assert ("trigonometric" in line.scores) == periodic


def test_steady_answers(tmp_path: Path) -> None:
    path, axes = tmp_path / "steady.h5", axes_of(2, 0.5)
    places = grid_points(axes)
    with h5py.File(path, "w") as file:
        given = np.stack([travelling(places, np.zeros(1), sample).reshape(32, 32) for sample in range(6)])
        file["nu"] = given.astype(np.float32)
        file["tensor"] = 3 * given[:, None].astype(np.float32)
        file["x-coordinate"], file["y-coordinate"], file["t-coordinate"] = *axes, np.zeros(1)
    made = experiment(path, 4, Stay())  # both are normalised, and then the same
    finer = measured(made, 4)
    assert finer.fields.steady
    assert set(finer.lines[1].scores) == {"decoded", "interpolated", "splines", "trigonometric"}
    assert cast("float", finer.lines[1].scores["decoded"]["rollout"].nrmse) < 1e-5
    assert [text.split(":")[0] for text in verdict(finer)] == ["×4, answer"]
    assert all(len(sheet.lines) for sheet in sheets(finer))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("values", lambda values: values.index_fill(2, torch.tensor([4]), 7.0), "hold other values than"),
        ("ids", lambda ids: ids.flip(0), "are of other trajectories than"),
        ("positions", lambda places: places + 1 / 64, "lie elsewhere than"),
    ],
)
def test_points_that_are_not_the_same_states(tmp_path: Path, name: str, change: Any, said: str) -> None:
    made = experiment(stored(tmp_path / "waves.h5", axes_of(1, 0.0), travelling), 4)
    own = cast("GridDataset", made.dataset)

    def relay(*asked: Any) -> Relaid:
        held = own.relay(*asked).trajectories
        return Relaid(held._replace(**{name: change(getattr(held, name))}), (16,), None, 0.0)

    dataset = SimpleNamespace(
        fields=own.fields, normaliser=own.normaliser, trajectories=own.trajectories, offer=own.offer, relay=relay
    )
    made = Experiment(made.recipe, dataset, made.model, (), made.device, made.catalog)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=f"one in 2 along each axis of 16 points {said} the 8 that the model is given"):
        measured(made, 2)


# ---------------------------------------------------------------------------------------------------------------------
# What is refused
# ---------------------------------------------------------------------------------------------------------------------
def refusal(made: Experiment, *factors: int) -> list[str]:
    with pytest.raises(UsageError) as error:
        plan(made, "test", factors)
    return str(error.value).splitlines()


def test_factors_that_cannot_be_had_are_all_told_with_the_nearest(tmp_path: Path) -> None:
    made = experiment(stored(tmp_path / "waves.h5", axes_of(1, 0.0, 36), travelling), 6)
    missing = "does not divide dataset.space_stride = 6, so the files hold no such points"
    assert refusal(made, 0, 1, 2, 5, -3, 12) == [
        "--finer 0: expected a whole number of at least 2; nearest: --finer 2",
        "--finer 1: are the points that the model is given, which are compared in any case; expected at least 2; "
        "nearest: --finer 2",
        f"--finer 5: {missing}; nearest: --finer 6",
        "--finer -3: expected a whole number of at least 2; nearest: --finer 2",
        f"--finer 12: {missing}; nearest: --finer 6",
    ]


def test_data_that_hold_nothing_finer(tmp_path: Path) -> None:
    for size, stride in ((36, 4), (30, 3)):  # the nearest to 4
        whole = experiment(stored(tmp_path / f"{size}.h5", axes_of(1, 0.0, size), travelling), 1)
        assert refusal(whole, 2) == [
            f"--finer: the model was trained on all {size} points that its data hold (dataset.space_stride = 1); to "
            "have finer ones to ask it on, train it on some of them: upskit run RECIPE --set dataset.space_stride="
            f"{stride}"
        ]
    odd = experiment(stored(tmp_path / "odd.h5", axes_of(1, 0.0, 37), travelling), 1)
    assert refusal(odd, 2)[0].endswith(
        "(dataset.space_stride = 1), and they cannot be thinned evenly; leave --finer out"
    )


def test_data_without_a_grid_or_of_several_tasks(tmp_path: Path) -> None:
    made = experiment(stored(tmp_path / "waves.h5", axes_of(1, 0.0), travelling), 4)
    points = FieldSpec(made.dataset.fields.targets, ((0.0, 1.0),), (True,), "mesh", None, 0.1)

    def beside(fields: FieldSpec, **parts: Any) -> Experiment:
        dataset = cast("Dataset", SimpleNamespace(fields=fields, **parts))
        return Experiment(made.recipe, dataset, made.model, (), made.device, made.catalog)

    assert refusal(beside(points), 2) == [
        "--finer: these data are not on a grid: nothing is known between their points; leave --finer out"
    ]
    assert refusal(beside(made.dataset.fields), 2) == [
        "--finer: these data come from the dataset 'pdebench', which has no strides: nothing is known between their "
        "points; leave --finer out"
    ]
    tasks = beside(points, tasks={}, seen_by=lambda task, model: model)
    assert refusal(tasks, 2) == ["a data set of several tasks has no one grid to be finer than; leave --finer out"]


# ---------------------------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a tiny run on 16 of 64 stored points."""
    home, threads = tmp_path_factory.mktemp("home"), torch.get_num_threads()
    for name in ("smoke", "burgers_upt"):
        shutil.copy(RECIPES / f"{name}.toml", home)
    tiny = ("stages.operator.budget.steps=12", "stages.operator.validate_every=6", "stages.evaluate.pictures=false")
    changes = ("dataset.space_stride=4", "encoder.patch_size=2", "decoder.modes=2", *tiny)
    places = (f"run.folder={home / 'runs'}", f"dataset.path={home / 'smoke.h5'}")
    read = ups_kit.read_recipe(home / "smoke.toml", [*places, *changes])
    yield run(read.recipe, recipe_text=read.text, origins=read.origins).folder
    torch.set_num_threads(threads)


def upskit(*words: Any) -> Result:
    return CliRunner().invoke(cli, ["evaluate", *map(str, words)])


def test_the_given_points_score_as_the_run_did(trained: Path) -> None:
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    done = upskit(trained, "--finer", 4, "--finer", 2, "--finer", 4, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    summary = json.loads((trained / "summary.json").read_text())
    assert [(line["factor"], line["grid"]) for line in found["lines"]] == [(1, [16]), (2, [32]), (4, [64])]
    own, metrics, floors = found["lines"][0], summary["metrics"], summary["floors"]
    pairs = {
        ("decoded", "one_step"): metrics["one_step"],
        ("decoded", "rollout"): metrics["latent_rollout"],
        ("decoded", "encode_decode"): floors["encode_decode"]["rollout"],
        ("persistence", "one_step"): floors["persistence"]["one_step"],
        ("persistence", "rollout"): floors["persistence"]["rollout"],
    }
    for (way, kind), expected in pairs.items():
        for metric in ("nrmse", "vrmse"):
            assert own[way][kind][metric] == pytest.approx(expected[metric], rel=1e-5), (way, kind)
    for line in found["lines"][1:]:
        for way in ("decoded", "interpolated", "persistence", "splines", "trigonometric"):
            assert all(math.isfinite(value) for kind in line[way].values() for value in kind.values())
    after = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    assert {path: after.pop(path) for path in before} == before
    assert {path.name for path in after} == {"finer.json", "finer.html"}
    assert json.loads((trained / "finer.json").read_text()) == {k: v for k, v in found.items() if k != "folder"}
    page = (trained / "finer.html").read_text()
    assert all(escape(text) in page for text in found["verdict"])


def test_the_tables_fit_a_terminal(trained: Path, tmp_path: Path) -> None:
    done = upskit(trained, "--finer", 2, "--trajectories", 3, "--steps", 4, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    found = json.loads((tmp_path / "out/finer.json").read_text())
    assert (found["trajectories"], found["steps"]) == (3, 4)
    for text in ("nRMSE at the points asked", "own forecast, splines", "interpolation", "×2, states alone"):
        assert text in done.stdout


def test_what_the_command_refuses(trained: Path) -> None:
    before = {path.name for path in trained.iterdir()}
    cases = {
        ("--finer", 3, "--finer", 1): "--finer 3: does not divide dataset.space_stride = 4",
        ("--finer", 2, "--on", "grid", "--points", 32): "--finer asks between the data's own points, --on elsewhere",
    }
    for words, said in cases.items():
        done = upskit(trained, *words)
        assert isinstance(done.exception, UpsKitError), done.output
        assert done.exception.exit_code == 2
        assert str(done.exception).startswith(said)
    assert upskit(trained, "--finer", "two").exit_code == 2
    assert {path.name for path in trained.iterdir()} == before
