"""`upskit data encode`, and two runs of one recipe at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ups_kit.cli import cli
from ups_kit.errors import UsageError

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes/burgers_cached.toml"


def settings(folder: Path, **more: Any) -> list[str]:
    """burgers_cached, tiny, without an evaluation."""
    keys = {
        "run.folder": folder / "runs",
        "dataset.path": folder / "data.h5",
        "dataset.train": 24,
        "dataset.validation": 4,
        "dataset.test": 8,
        "dataset.simulate.trajectories": 36,
        "dataset.simulate.points": 64,
        "dataset.simulate.frames": 13,
        "dataset.simulate.refinement": 1,
        "encoder.patch_size": 4,
        "latent.width": 16,
        "operator.depth": 1,
        "latent_cache.shard": 1,
        **{f"stages.{stage}.{key}": value for stage in ("codec", "operator") for key, value in STAGE.items()},
        **more,
    }
    return [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]


STAGE = {"budget.steps": 8, "budget.seconds": "none", "budget.gpu_seconds": "none", "schedule.warmup": 2, "batch": 4}


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ups_kit", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def done(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == code, err
    return out, err


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sequence[str]]:
    """A folder in which two runs of one recipe were started together; the evaluation is left out."""
    folder = tmp_path_factory.mktemp("cached")
    recipe = folder / "cached.toml"
    stages = RECIPE.read_text().rsplit("[[stages]]", 1)[0]
    recipe.write_text(stages.replace('extends = "', f'extends = "{os.path.relpath(RECIPE.parent, folder)}/'))
    runs = [started("run", recipe, *settings(folder)) for _ in range(2)]
    return folder, [done(run)[1] for run in runs]


def test_two_runs_share_one_cache(finished: tuple[Path, Sequence[str]]) -> None:
    folder, told = finished
    (cache,) = (folder / "runs/.latents").iterdir()
    assert all(str(cache) in text for text in told)
    found = []
    for number in (1, 2):
        summary = json.loads((folder / f"runs/burgers_cached/{number}/summary.json").read_text())
        found.append(summary["stages"]["operator"])
    assert sum(one["latent_cache"]["encoded_shards"] for one in found) == found[0]["latent_cache"]["shards"]
    assert found[0]["best_score"] == found[1]["best_score"]
    assert found[0]["weights_sha256"] == found[1]["weights_sha256"]


def encode(*arguments: str | Path) -> str:
    """What the command prints; its errors are raised."""
    result = CliRunner().invoke(cli, ["data", "encode", *map(str, arguments)], catch_exceptions=False)
    return result.stdout


def test_latents_are_encoded_ahead_of_a_run(finished: tuple[Path, Sequence[str]], tmp_path: Path) -> None:
    folder, _ = finished
    run = folder / "runs/burgers_cached/2"
    kept = json.loads(encode(run, "--json"))
    assert kept["encoded_shards"] == 0, "the run has encoded them"
    keys = [*settings(folder), "--set", f"latent_cache.folder={tmp_path / 'latents'}"]
    made = json.loads(encode(folder / "cached.toml", *keys, "--json"))
    assert made["encoded_shards"] == kept["shards"]
    assert made["folder"] == str(tmp_path / "latents" / Path(kept["folder"]).name)
    told = encode(run / "bundle")
    assert f"MB in {kept['folder']}, 0 of {kept['shards']} shards encoded now" in told


def test_what_cannot_be_encoded_is_told(finished: tuple[Path, Sequence[str]], tmp_path: Path) -> None:
    folder, _ = finished
    with pytest.raises(UsageError, match="there is no run of this recipe yet"):
        encode(folder / "cached.toml", *settings(folder, **{"run.folder": tmp_path / "none"}))
    with pytest.raises(UsageError, match=r"this run is of another recipe.*\n  run.seed: 0 in the run, 7 now"):
        encode(folder / "cached.toml", *settings(folder, **{"run.seed": 7}))
    begun = tmp_path / "runs/burgers_cached/1"
    begun.mkdir(parents=True)
    (begun / "resolved.json").write_text((folder / "runs/burgers_cached/2/resolved.json").read_text())
    with pytest.raises(UsageError, match=r"1/codec: the stage 'codec' is not finished; run it first"):
        encode(begun)
    with pytest.raises(UsageError, match="a run is used as it was; --set goes with a recipe file"):
        encode(begun, "--set", "run.seed=1")
    record = json.loads((begun / "resolved.json").read_text())
    record["values"]["latent_cache"] = None
    (begun / "resolved.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match=r"has no \[latent_cache\]"):
        encode(begun)


def test_a_folder_for_latents_that_is_a_file_is_told_before_any_stage_runs(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    for folder in ("notes", "notes/latents"):
        told = CliRunner().invoke(cli, ["validate", str(RECIPE), "--set", f"latent_cache.folder={tmp_path / folder}"])
        assert "\n  latent_cache.folder" in told.output
        assert f"{tmp_path / 'notes'} is a file; expected a folder" in told.output
