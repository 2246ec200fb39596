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
        "sampling.py": ("all points", "uniform 0.5", "stratified 0.3", "importance 0.5", "importance 0.1"),
    }[script]
    table = printed[printed.rindex("nRMSE\n") :]
    assert all(any(line.startswith(row) for line in table.splitlines()) for row in rows)


@pytest.mark.slow
def test_the_data_benchmark_prints_its_tables():
    printed = run("data.py", "--quick")
    opened, rates = printed[: printed.index("Random pairs")], printed[printed.index("Random pairs") :]
    for row in ("contiguous HDF5", "chunked HDF5", "Zarr, plain", "Zarr, sharded"):
        assert row in opened
        assert f"ours, {row}" in rates
    for row in ("memory map", "h5py sample by sample", "zarr sample by sample", "dataset, contiguous", "at least"):
        assert row in rates


@pytest.mark.slow
def test_the_data_benchmark_reads_a_large_file_in_little_memory():
    printed = run("data.py", "--memory", "4.5", "--batches", "5")
    assert "4.50 GB" in printed
    private = [float(line.split()[1]) for line in printed.splitlines()[-5:]]
    assert max(private) < 100


@pytest.mark.slow
def test_the_latent_cache_benchmark_prints_a_row_for_every_way(tmp_path):
    tiny = {"dataset.path": tmp_path / "a.h5", "dataset.train": 40, "dataset.validation": 4, "dataset.test": 8}
    tiny |= {"dataset.simulate.trajectories": 52, "dataset.simulate.points": 64, "operator.depth": 1}
    settings = [part for key, value in tiny.items() for part in ("--set", f"{key}={value}")]
    printed = run("latent_cache.py", "--quick", "--folder", str(tmp_path), *settings)
    for table in (printed[: printed.rindex("nRMSE after")], printed[printed.rindex("nRMSE after") :]):
        for row in ("end to end", "frozen encoder, no cache", "frozen encoder, cached latents"):
            assert any(line.startswith(row) for line in table.splitlines())


@pytest.mark.slow
def test_the_neighbour_benchmark_prints_its_tables():
    printed = run("neighbours.py", "--quick")
    for row in ("cKDTree alone", "our table, nearest", "our table, spread", "cell list", "look-ups, kept", "at most"):
        assert row in printed
    assert "cells, 1,000 points, 1,000 supernodes" in printed[printed.index("by the size of the cloud") :]


@pytest.mark.slow
def test_the_benchmark_on_points_prints_its_tables():
    printed = run("points.py", "--quick")
    for row in ("plain, fp32", "upt, new points, fp32", "lattice, partition, same points, fp32", "lattice, local"):
        assert row in printed
    assert "2,000" in run("points.py", "--scaling", "1000", "2000")


@pytest.mark.slow
def test_the_benchmark_of_operators_is_gone_on_with(tmp_path):
    recipe = str(BENCHMARKS.parent / "recipes" / "smoke.toml")
    tiny = ("--set", f"dataset.path={tmp_path / 'smoke.h5'}", "--set", "encoder.patch_size=2")
    options = (recipe, "--seconds", "1", "--trajectories", "4", "--folder", str(tmp_path), *tiny)
    printed = run("operators.py", *options, "--operators", "pde_transformer", "persistence")
    found = {path: path.read_bytes() for path in tmp_path.glob("smoke/*.json")}
    assert len(found) == 2
    printed = run("operators.py", *options)
    table = printed[printed.rindex("smoke: 1 s of training") :].splitlines()
    for row in ("transformer", "pde_transformer", "unet", "fno", "persistence"):
        assert any(line.split()[:2] == [row, "1"] for line in table)
    assert all(path.read_bytes() == content for path, content in found.items()), "what was there is not run again"
    assert run("operators.py", *options, "--table").splitlines()[-1].startswith("persistence of fields")
