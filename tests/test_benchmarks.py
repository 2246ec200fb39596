"""The benchmark scripts run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(script: str, *options: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(BENCHMARKS / script), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=BENCHMARKS.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_step_benchmark_prints_its_tables():
    printed = run("step.py", "--quick")
    for row in ("plain fp32", "partition fp32", "local fp32", "perceiver fp32", "weight 0", "share"):
        assert row in printed


@pytest.mark.slow
@pytest.mark.parametrize("script", ["inverse_losses.py", "decoders.py", "sampling.py"])
def test_the_training_benchmarks_print_a_row_for_every_variation(script, tmp_path):
    recipe = str(BENCHMARKS.parent / "recipes" / "smoke.toml")
    data = f"dataset.path={tmp_path / 'smoke.h5'}"
    printed = run(script, "--quick", "--recipe", recipe, "--folder", str(tmp_path), "--set", data)
    rows = {
        "inverse_losses.py": ("both", "inverse encoding alone", "inverse decoding alone", "neither"),
        "decoders.py": ("partition", "local", "perceiver"),
        "sampling.py": ("all points", "uniform 0.5", "uniform 0.25", "stratified 0.5", "stratified 0.25"),
    }[script]
    table = printed[printed.rindex("nRMSE\n") :]
    assert all(any(line.startswith(row) for line in table.splitlines()) for row in rows)


@pytest.mark.slow
def test_the_reading_benchmark_prints_its_table():
    printed = run("reading.py", "--quick")
    for row in ("memory map", "ours, contiguous HDF5", "ours, chunked HDF5", "zarr sample by sample", "opening:"):
        assert row in printed
