"""`upskit compare` on tiny runs: the numbers of its tables, its files, and what it refuses."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

import ups_kit
from ups_kit.cli import cli
from ups_kit.comparing.runs import read_history
from ups_kit.errors import StorageError, UpsKitError, UsageError
from ups_kit.run import run

RECIPES = Path(__file__).parents[2] / "recipes"
TINY = ("stages.operator.budget.steps=10", "stages.operator.validate_every=5", "stages.evaluate.pictures=false")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three seeds of one recipe, two of a wider one, and one that is evaluated on fewer steps."""
    home, threads = tmp_path_factory.mktemp("home"), torch.get_num_threads()
    wide, short = ("latent.width=24", "run.name=wide"), ("stages.evaluate.steps=5", "run.name=short")
    for settings in (("run.seed=0",), ("run.seed=1",), ("run.seed=2",), wide, (*wide, "run.seed=1"), short):
        places = (f"run.folder={home / 'runs'}", f"dataset.path={home / 'smoke.h5'}", "run.threads=1")
        read = ups_kit.read_recipe(RECIPES / "smoke.toml", [*places, *TINY, *settings])
        run(read.recipe, recipe_text=read.text, origins=read.origins)
    yield home / "runs"
    torch.set_num_threads(threads)


def upskit(*words: Any) -> Result:
    return CliRunner().invoke(cli, ["compare", *map(str, words)])


def compared(*words: Any) -> dict[str, Any]:
    done = upskit(*words, "--json")
    assert done.exception is None, done.exception
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refused(*words: Any) -> UpsKitError:
    done = upskit(*words)
    assert isinstance(done.exception, UpsKitError), done.output
    return done.exception


def summary(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "summary.json").read_text())
    return found


@pytest.fixture
def broken(home: Path, tmp_path: Path) -> Path:
    """A copy of a run, to be damaged."""
    path: Path = tmp_path / "smoke" / "7"
    shutil.copytree(home / "smoke/1", path)
    return path


def test_seeds_are_one_column_with_mean_and_deviation(home: Path) -> None:
    found = compared(*(home / name for name in ("smoke/1", "wide/1", "smoke/2", "wide/2", "smoke/3")))
    assert {letter: [run["seed"] for run in runs] for letter, runs in found["groups"].items()} == {
        "A": [0, 1, 2],
        "B": [0, 1],
    }
    own = [summary(home / f"smoke/{k}")["card"]["rows"]["latent rollout"]["rollout"] for k in (1, 2, 3)]
    cell = found["card"]["latent rollout"]["rollout"]["A"]
    assert cell["values"] == own
    assert cell["mean"] == pytest.approx(statistics.fmean(own))
    assert cell["deviation"] == pytest.approx(statistics.stdev(own))
    text = upskit(home / "smoke/1", home / "smoke/2", home / "smoke/3", home / "wide/1").stdout
    (line,) = [line for line in text.splitlines() if line.startswith("  latent rollout, rollout")]
    assert line.split()[3:] == [
        f"{cell['mean']:.4g}",
        "±",
        f"{cell['deviation']:.2g}",
        f"{summary(home / 'wide/1')['card']['rows']['latent rollout']['rollout']:.4g}",
    ]


def test_only_keys_that_differ_are_shown(home: Path) -> None:
    found = compared(home / "smoke/1", home / "wide/1")
    assert found["recipe"] == {"run.name": {"A": "smoke", "B": "wide"}, "latent.width": {"A": "16", "B": "24"}}
    assert found["environment"] == {}
    assert found["definition"]["split"] == "test"
    assert (found["definition"]["steps"], found["definition"]["given"]) == (12, 1)


def test_one_seed_twice_is_two_columns(home: Path, broken: Path) -> None:
    found = compared(home / "smoke/1", broken)
    assert [len(runs) for runs in found["groups"].values()] == [1, 1]


def test_files_and_pictures(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "there" / "compared"
    assert upskit(home / "smoke/1", home / "smoke/2", home / "wide/1", "--out", out).exception is None
    assert {path.name for path in out.iterdir()} == {
        "compare.json",
        "compare.md",
        "training_operator.png",
        "error_growth.png",
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in out.glob("*.png"))
    page = (out / "compare.md").read_text()
    assert "![error growth](error_growth.png)" in page
    assert "| latent.width | 16 | 24 |" in page
    assert json.loads((out / "compare.json").read_text())["card"]
    assert upskit(home / "smoke/1", home / "wide/1", "--md").stdout.startswith("# Comparison")
    (tmp_path / "file").touch()
    assert isinstance(refused(home / "smoke/1", home / "wide/1", "--out", tmp_path / "file"), StorageError)


def test_other_definitions_are_refused_with_what_differs(home: Path) -> None:
    error = refused(home / "smoke/1", home / "short/1")
    assert isinstance(error, UsageError)
    assert f"steps: 12 in {home / 'smoke/1'}; 5 in {home / 'short/1'}" in str(error)
    assert "data" not in str(error)  # the same trajectories


def test_other_trajectories_are_refused_but_of_other_seeds_of_one_recipe(home: Path, broken: Path) -> None:
    error = refused(home / "smoke/1", home / "wide/2")
    assert "was scored on other trajectories" in str(error)
    assert "their seeds draw others" in str(error)
    content = summary(broken)
    content["card"]["fingerprint"]["scored"] = "0" * 64
    (broken / "summary.json").write_text(json.dumps(content))
    assert "of the same seed" in str(refused(home / "smoke/1", broken))


def test_another_version_of_the_metrics_is_refused(home: Path, broken: Path) -> None:
    content = summary(broken)
    content["card"]["fingerprint"]["version"] = 99
    (broken / "summary.json").write_text(json.dumps(content))
    assert f"version: 1 in {home / 'wide/1'}; 99 in {broken}" in str(refused(home / "wide/1", broken))
    del content["card"]["fingerprint"]
    (broken / "summary.json").write_text(json.dumps(content))
    assert "upskit evaluate" in str(refused(home / "wide/1", broken))


def test_a_later_evaluation_is_compared_with_its_own_numbers(home: Path, broken: Path) -> None:
    later = broken / "evaluations" / "1"
    later.mkdir(parents=True)
    shutil.copy(home / "short/1/summary.json", later)
    found = compared(later, home / "short/1")
    assert found["definition"]["steps"] == 5


def test_what_is_no_finished_run(home: Path, broken: Path, tmp_path: Path) -> None:
    fine = home / "smoke/1"
    assert "two runs or more" in str(refused(fine))
    assert "stands twice" in str(refused(fine, home / "wide" / ".." / "smoke/1"))
    assert f"did you mean '{home / 'smoke/3'}'" in str(refused(fine, home / "smoke"))
    assert "is not there" in str(refused(fine, tmp_path / "nothing"))
    assert "is a file" in str(refused(fine, fine / "summary.json"))
    assert "holds no run" in str(refused(fine, fine / "bundle"))
    (broken / "STATUS").write_text("preempted\n")
    assert f"this run is preempted, and has no results yet; `upskit run {broken} --resume`" in str(
        refused(fine, broken)
    )


@pytest.mark.parametrize("name", ["summary.json", "resolved.json", "environment.json"])
@pytest.mark.parametrize("text", ["{", "[]", "", "[" * 5000])
def test_damaged_json_is_told_by_its_file(home: Path, broken: Path, name: str, text: str) -> None:
    (broken / name).write_text(text)
    error = refused(home / "wide/1", broken)
    assert isinstance(error, StorageError)
    assert name in str(error)


@pytest.mark.parametrize(
    "content", [{"card": {"rows": 3, "fingerprint": {}}}, {"tasks": []}, {"card": {"fingerprint": {}}}, {"card": None}]
)
def test_a_summary_of_another_form_is_told(home: Path, broken: Path, content: dict[str, Any]) -> None:
    (broken / "summary.json").write_text(json.dumps(content))
    assert str(broken) in str(refused(home / "wide/1", broken))


def test_numbers_that_are_none_are_no_mean(home: Path, broken: Path) -> None:
    content = summary(broken)
    content["card"]["rows"]["latent rollout"]["rollout"] = None
    (broken / "summary.json").write_text(json.dumps(content))
    cell = compared(broken, home / "smoke/2", home / "wide/1")["card"]["latent rollout"]["rollout"]["A"]
    assert (cell["mean"], cell["deviation"], cell["values"][0]) == (None, None, None)


def test_curves_pass_over_what_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    good = [{"stage": "operator", "step": k, "loss": 1 / k, "lr": 0.1} for k in (1, 2)]
    path.write_text("\n".join([*map(json.dumps, good), "[]", '{"stage": "operator", "step": 3, "loss": NaN}', '{"st']))
    assert read_history(path) == {"operator": {"loss": [(1.0, 1.0), (2.0, 0.5)]}}
    assert read_history(tmp_path / "none") == {}
