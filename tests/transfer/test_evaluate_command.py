"""`upskit evaluate` on a tiny run: its numbers, its files, and what it says to those who ask for what is not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from click.testing import CliRunner, Result

import ups_kit
from ups_kit.cli import cli
from ups_kit.errors import DataError, StorageError, UpsKitError, UsageError
from ups_kit.run import run

RECIPES = Path(__file__).parents[2] / "recipes"
TINY = ("stages.operator.budget.steps=12", "stages.operator.validate_every=6")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def trained(home: Path, name: str, encoder: str, *settings: str) -> Path:
    """The folder of a tiny run on 32 of 64 stored points."""
    recipe = home / f"{name}.toml"
    text = (RECIPES / "smoke.toml").read_text().replace('"burgers_upt.toml"', f'"{name}_base.toml"')
    shutil.copy(RECIPES / "burgers_upt.toml", home / f"{name}_base.toml")
    recipe.write_text(text.replace("[encoder]\npatch_size = 4\n", f"[encoder]\n{encoder}\n"))
    places = (f"run.folder={home / 'runs'}", f"dataset.path={home / 'smoke.h5'}", f"run.name={name}")
    read = ups_kit.read_recipe(recipe, [*places, "dataset.space_stride=2", *TINY, *settings])
    return run(read.recipe, recipe_text=read.text, origins=read.origins).folder


@pytest.fixture(scope="module")
def patches(home: Path) -> Iterator[Path]:
    """A run whose encoder takes grids."""
    threads = torch.get_num_threads()
    yield trained(home, "patches", "patch_size = 4")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def points(home: Path) -> Path:
    """A run whose encoder takes any points, on a mesh of which there are as many tokens."""
    return trained(home, "points", 'use = "mesh"\nlattice = [16]\ndegree = 16', "stages.evaluate.pictures=false")


@pytest.fixture(autouse=True)
def coarse_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ups_plugins.upt.evaluation.transfer.page.DPI", 36)


def upskit(*words: Any) -> Result:
    return CliRunner().invoke(cli, ["evaluate", *map(str, words)])


def refused(*words: Any) -> str:
    """What is said."""
    done = upskit(*words)
    assert isinstance(done.exception, UpsKitError), done.output
    return str(done.exception)


def test_on_its_own_points_a_run_scores_as_it_did(patches: Path) -> None:
    before = {path: path.read_bytes() for path in patches.rglob("*") if path.is_file()}
    done = upskit(patches, "--on", "grid", "--points", 32, "--points", 64, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    summary = json.loads((patches / "summary.json").read_text())
    own, fine = found["lines"]
    metrics, floors = summary["metrics"], summary["floors"]
    expected = {
        "one_step": metrics["one_step"]["nrmse"],
        "rollout": metrics["latent_rollout"]["nrmse"],
        "encode_decode": floors["encode_decode"]["rollout"]["nrmse"],
        "persistence": floors["persistence"]["rollout"]["nrmse"],
    }
    assert (own["points"], own["states_error"], fine["points"], fine["states_error"]) == (32, 0, 64, 0)
    for scores in (own["own"], own["queried"], found["reference"]):
        assert {name: scores[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert own["reference"] == pytest.approx({**expected, "interpolation": 0}, rel=1e-5)
    assert fine["queried"]["rollout"] == pytest.approx(expected["rollout"], rel=0.2)  # super-resolution
    assert fine["reference"]["interpolation"] < 1e-6  # every second of its points is one of those
    after = {path: path.read_bytes() for path in patches.rglob("*") if path.is_file()}
    assert {path: after.pop(path) for path in before} == before
    assert {path.name for path in after} == {"transfer.json", "transfer.html"}
    assert json.loads((patches / "transfer.json").read_text()) == {k: v for k, v in found.items() if k != "folder"}
    assert (patches / "transfer.html").read_text().count("data:image/png") == 2


def test_one_set_of_weights_on_grids_meshes_and_clouds(points: Path) -> None:
    layouts = [word for layout in ("grid", "mesh", "particles") for word in ("--on", layout)]
    done = upskit(points, *layouts, "--points", 16, "--points", 48, "--trajectories", 3, "--steps", 4)
    assert done.exit_code == 0, done.output
    found = json.loads((points / "transfer.json").read_text())
    assert (found["trajectories"], found["steps"]) == (3, 4)
    assert [(line["layout"], line["points"]) for line in found["lines"]] == [
        (layout, count) for layout in ("grid", "mesh", "particles") for count in (16, 48)
    ]
    for line in found["lines"]:
        assert all(0 <= value < 5 for scores in ("own", "reference", "queried") for value in line[scores].values())
        assert line["reference"]["persistence"] == found["reference"]["persistence"]
    floors = {(line["layout"], line["points"]): line["reference"]["interpolation"] for line in found["lines"]}
    for layout in ("grid", "mesh", "particles"):
        assert floors[layout, 48] < floors[layout, 16]
    assert floors["grid", 16] < floors["particles", 16]
    assert "compared at the data's own 32 points" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_without_other_points_a_run_is_evaluated_again_beside_itself(points: Path) -> None:
    done = upskit(points, "--split", "validation", "--steps", 3, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    folder = points / "evaluations" / "1"
    assert Path(found["folder"]) == folder
    assert (folder / "report.html").is_file()
    assert len(found["metrics"]["latent_rollout"]["curve_nrmse"]) == 3
    assert json.loads((folder / "summary.json").read_text())["metrics"] == found["metrics"]
    again = upskit(points, "--json")
    summary = json.loads((points / "summary.json").read_text())
    numbers = json.loads(again.stdout)["metrics"]["latent_rollout"]
    assert numbers["nrmse"] == pytest.approx(summary["metrics"]["latent_rollout"]["nrmse"], rel=1e-5)


def test_a_bundle_by_itself_says_where_to_write(points: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "model"
    shutil.copytree(points / "bundle", bundle)
    assert refused(bundle, "--on", "grid", "--points", 16).endswith("say where to write: --out FOLDER")
    done = upskit(bundle, "--on", "grid", "--points", 16, "--trajectories", 2, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out/transfer.json").is_file()


def test_everything_that_cannot_be_had_is_told_at_once(patches: Path, points: Path) -> None:
    before = {path.name for path in points.iterdir()}
    said = refused(patches, "--on", "grid", "--on", "mesh", "--points", 62, "--points", 64, "--points", 99)
    assert said.splitlines() == [
        "--on grid --points 62: encoder.patch_size: patches of 4 points do not cut a grid of 62 evenly; nearest: "
        "--points 60",
        "--on grid --points 99: encoder.patch_size: patches of 4 points do not cut a grid of 99 evenly; nearest: "
        "--points 100",
        *(
            f"--on mesh --points {count}: encoder.use: 'grid' needs fields on a regular grid, these data are mesh; use "
            "'mesh'"
            for count in (62, 64, 99)
        ),
    ]
    assert refused(points, "--on", "mesh", "--points", 1) == (
        "--on mesh --points 1: 1 points as mesh cannot be had of these data; nearest: 2"
    )
    assert {path.name for path in points.iterdir()} == before


def test_arguments_that_do_not_fit(points: Path, tmp_path: Path) -> None:
    assert refused(points, "--on", "grid") == "--on needs --points N beside it"
    assert refused(points, "--points", 3) == "--points needs --on grid, mesh or particles beside it"
    assert upskit(points, "--on", "gird", "--points", 3).exit_code == 2
    assert upskit(points, "--on", "grid", "--points", 0).exit_code == 2
    assert refused(points, "--stage", "evaluat").startswith(
        "--stage: no stage that evaluates is called 'evaluat'; did you"
    )
    assert refused(points, "--steps", 99).startswith("99 steps after 1 given frames need 100 frames")
    expected = "expected the folder of a run, such as runs/NAME/1, or a bundle"
    assert refused(tmp_path / "none") == f"{tmp_path / 'none'}: is not there; {expected}"
    assert refused(tmp_path) == f"{tmp_path}: holds no run; {expected}"
    assert refused(points.parent) == f"{points.parent}: holds runs and is none; did you mean '{points}'?"


def test_a_run_that_is_not_finished(points: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(points, copy)
    (copy / "operator/done.json").unlink()
    (copy / "STATUS").write_text("preempted\n")
    said = refused(copy, "--on", "grid", "--points", 16)
    assert said.startswith(
        f"{copy}: this run is preempted: of its training stages 'operator' did not finish; `upskit run "
    )
    assert said.endswith("add --allow-partial")
    done = upskit(copy, "--on", "grid", "--points", 16, "--trajectories", 1, "--allow-partial")
    assert done.exit_code == 0, done.output
    shutil.rmtree(copy / "bundle")
    assert "there is no bundle" in refused(copy, "--allow-partial")


def test_data_that_are_gone_or_others(points: Path, home: Path, tmp_path: Path) -> None:
    copy, data = tmp_path / "run", tmp_path / "other.h5"
    shutil.copytree(points, copy)
    record = json.loads((copy / "resolved.json").read_text())
    record["values"]["dataset"] |= {"path": str(data), "simulate": None}
    (copy / "resolved.json").write_text(json.dumps(record))
    assert "other.h5" in refused(copy)
    shutil.copy(home / "smoke.h5", data)
    with h5py.File(data, "r+") as file:
        file["tensor"][:] = file["tensor"][:][::-1]
    said = refused(copy)
    assert "the data that its recipe names are not those that it was trained on" in said
    assert UsageError.exit_code != DataError.exit_code != StorageError.exit_code


def test_a_run_without_a_stage_that_evaluates(home: Path, points: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(points, copy)
    record = json.loads((copy / "resolved.json").read_text())
    record["values"]["stages"] = record["values"]["stages"][:1]
    (copy / "resolved.json").write_text(json.dumps(record))
    assert "has no stage that evaluates" in refused(copy, "--on", "grid", "--points", 16)
