"""`upskit predict`: what it writes is what the bundle says in Python, and what the evaluation scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import zarr
from attrs import evolve

import ups_kit
from ups_plugins.upt.evaluation.rollouts import Runner
from ups_plugins.upt.evaluation.truth import read_truth

from .conftest import Case, Upskit, made

STEPS = 5


def arrays(path: Path) -> dict[str, Any]:
    """What a forecast's file holds, whatever its format."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as held:
            return {name: held[name] for name in held.files if name != "provenance"}
    if path.suffix == ".zarr":
        root = zarr.open_group(path, mode="r")
        return {name: array[...] for name, array in root.members(None) if isinstance(array, zarr.Array)}
    found: dict[str, Any] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def provenance(path: Path) -> dict[str, Any]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as held:
            text = str(held["provenance"])
    elif path.suffix == ".zarr":
        text = str(zarr.open_group(path, mode="r").attrs["provenance"])
    else:
        with h5py.File(path) as file:
            text = str(file.attrs["provenance"])
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_command_python_and_the_evaluation_agree(burgers: Case, upskit: Upskit, tmp_path: Path) -> None:
    truth = read_truth(burgers.experiment.dataset, "test", STEPS)
    scored = Runner(burgers.experiment.model, truth, torch.device("cpu"), 2).latent_rollout()
    sample = int(truth.ids[1])
    code, said, _ = upskit(
        "predict",
        burgers.folder,
        "--input",
        burgers.data,
        "--sample",
        sample,
        "--steps",
        STEPS,
        "--out",
        tmp_path / "u.npz",
    )
    assert (code, "forecast 'operator'" in said, "fields/u [5, 64, 1]" in said) == (0, True, True)
    found = arrays(tmp_path / "u.npz")
    np.testing.assert_allclose(found["fields/u"], scored[1, 1:], atol=1e-6)
    with h5py.File(burgers.data) as file:
        frames, epsilon = file["tensor"][sample, 0], float(file["epsilon"][sample])
    python = ups_kit.load(burgers.folder).predict(frames[None, :, None], {"epsilon": epsilon}, STEPS)
    np.testing.assert_allclose(found["fields/u"], python[0], atol=1e-6)
    assert found["parameters/epsilon"] == pytest.approx(epsilon)
    np.testing.assert_allclose(found["times"], truth.times[1:], rtol=1e-5)
    np.testing.assert_allclose(found["positions"], truth.positions, atol=1e-6)


def test_a_later_frame_is_where_a_forecast_starts(burgers: Case, upskit: Upskit, tmp_path: Path) -> None:
    common = ("predict", burgers.folder, "--input", burgers.data, "--steps", 2)
    assert upskit(*common, "--frame", 3, "--out", tmp_path / "a.npz")[0] == 0
    with h5py.File(burgers.data) as file:
        given, epsilon, times = file["tensor"][0, 3], float(file["epsilon"][0]), file["t-coordinate"][()]
    np.savez(tmp_path / "given.npz", u=given, epsilon=epsilon)
    plain = ("predict", burgers.folder, "--input", tmp_path / "given.npz", "--steps", 2)
    assert upskit(*plain, "--out", tmp_path / "b.npz")[0] == 0
    a, b = arrays(tmp_path / "a.npz"), arrays(tmp_path / "b.npz")
    np.testing.assert_allclose(a["fields/u"], b["fields/u"], atol=1e-6)
    np.testing.assert_allclose(a["times"], times[4:6], rtol=1e-4)


def test_a_grid_is_the_points_that_it_stands_for(burgers: Case, upskit: Upskit, tmp_path: Path) -> None:
    common = ("predict", burgers.folder, "--input", burgers.data, "--steps", 3, "--points")
    assert upskit(*common, "grid:128", "--out", tmp_path / "grid.npz")[0] == 0
    grid = arrays(tmp_path / "grid.npz")
    low, high = burgers.experiment.dataset.fields.domain[0]
    np.testing.assert_allclose(grid["positions"][:, 0], low + (high - low) * (np.arange(128) + 0.5) / 128, rtol=1e-6)
    np.save(tmp_path / "points.npy", grid["positions"])
    np.savez(tmp_path / "points.npz", positions=grid["positions"])
    np.savetxt(tmp_path / "points.txt", grid["positions"])
    (tmp_path / "points.csv").write_text("x\n" + "\n".join(str(x) for x in grid["positions"][:, 0]))
    for name in ("points.npy", "points.npz", "points.txt", "points.csv"):
        assert upskit(*common, tmp_path / name, "--out", tmp_path / f"{name}.npz")[0] == 0
        scattered = arrays(tmp_path / f"{name}.npz")
        np.testing.assert_allclose(scattered["fields/u"], grid["fields/u"], atol=1e-5)
    own = ("predict", burgers.folder, "--input", burgers.data, "--steps", 3)
    assert upskit(*own, "--points", "grid:64", "--out", tmp_path / "a.npz")[0] == 0
    assert upskit(*own, "--out", tmp_path / "b.npz")[0] == 0
    np.testing.assert_array_equal(arrays(tmp_path / "a.npz")["fields/u"], arrays(tmp_path / "b.npz")["fields/u"])


def test_all_formats_hold_the_same(burgers: Case, upskit: Upskit, tmp_path: Path) -> None:
    held = {}
    for name in ("u.npz", "u.h5", "u.hdf5", "u.zarr"):
        common = ("predict", burgers.folder, "--input", burgers.data, "--steps", 2, "--out", tmp_path / name)
        assert upskit(*common)[0] == 0
        held[name] = arrays(tmp_path / name)
        assert upskit(*common)[0] == 6
        assert upskit(*common, "--overwrite")[0] == 0
        made_of = provenance(tmp_path / name)
        assert (made_of["recipe"], made_of["input"]) == ("smoke", f"{burgers.data}, sample 0, frame 0")
        description = json.loads((burgers.folder / "bundle/bundle.json").read_text())
        assert made_of["bundle"]["weights"] == description["sha256"]["weights.safetensors"]
        assert made_of["versions"]["torch"] == torch.__version__
    for name, found in held.items():
        leaves = {key for key in found if not isinstance(found[key], h5py.Group)}
        assert leaves == set(held["u.npz"]), name
        for key in leaves:
            np.testing.assert_array_equal(found[key], held["u.npz"][key])
    assert {path.name for path in tmp_path.iterdir()} == {"u.npz", "u.h5", "u.hdf5", "u.zarr"}


# ---------------------------------------------------------------------------------------------------------------------
# Forecasts that are drawn
# ---------------------------------------------------------------------------------------------------------------------
def test_members_follow_from_the_seed(drawing: Case, upskit: Upskit, tmp_path: Path) -> None:
    common = ("predict", drawing.folder, "--input", drawing.data, "--steps", 2, "--forecast", "diffusion")
    common = (*common, "--members", 3, "--all-members", "--sampling-steps", 2)
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert upskit(*common, "--seed", seed, "--out", tmp_path / f"{name}.npz")[0] == 0
        found.append(arrays(tmp_path / f"{name}.npz"))
    a, b, c = found
    np.testing.assert_array_equal(a["members/u"], b["members/u"])
    assert abs(a["members/u"] - c["members/u"]).max() > 1e-3
    assert a["members/u"].shape == (3, 2, 64, 1)
    assert abs(a["members/u"][0] - a["members/u"][1]).max() > 1e-3
    np.testing.assert_allclose(a["fields/u"], a["members/u"].mean(0), atol=1e-6)
    np.testing.assert_allclose(a["deviations/u"], a["members/u"].std(0, ddof=1), atol=1e-6)
    with h5py.File(drawing.data) as file:
        frames, parameters = file["tensor"][0, 0][None, :, None], {"epsilon": float(file["epsilon"][0])}
    bundle = ups_kit.load(drawing.folder)
    drawn = bundle.predict(frames, parameters, 2, forecast="diffusion", members=3, seed=1, sampling_steps=2)
    np.testing.assert_allclose(a["members/u"], drawn[:, 0], atol=1e-6)
    one = bundle.predict(frames, parameters, 2, forecast="diffusion", seed=1, sampling_steps=2)
    torch.testing.assert_close(one, drawn[0])


def test_the_default_is_the_bundles_own(drawing: Case) -> None:
    bundle = ups_kit.load(drawing.folder)
    chosen = evolve(bundle, description={**bundle.description, "forecast": {"use": "diffusion", "steps": 3, "why": ""}})
    frames, parameters = torch.randn(1, 1, 64, 1), {"epsilon": 0.01}
    assert torch.equal(
        bundle.predict(frames, parameters, 2), bundle.predict(frames, parameters, 2, forecast="operator")
    )
    drawn = bundle.predict(frames, parameters, 2, forecast="diffusion", sampling_steps=3)
    torch.testing.assert_close(chosen.predict(frames, parameters, 2), drawn)
    assert (drawn - bundle.predict(frames, parameters, 2)).abs().max() > 1e-3


def test_a_prior_of_steady_states_is_sampled(prior: Case, upskit: Upskit, tmp_path: Path) -> None:
    """Of statics and parameters alone; it is the forecast of a bundle whose operator nothing has trained."""
    common = ("predict", prior.folder, "--input", prior.data, "--sample", 2)
    code, said, _ = upskit(*common, "--members", 4, "--all-members", "--out", tmp_path / "p.h5")
    assert (code, "forecast 'steady_prior'" in said) == (0, True)
    name = prior.experiment.dataset.fields.targets[0].name
    found = arrays(tmp_path / "p.h5")
    assert found[f"members/{name}"].shape == (4, 1, 16, 16, 1)
    assert found[f"deviations/{name}"].min() > 0
    code, _, wrong = upskit(*common, "--steps", 3, "--out", tmp_path / "q.h5")
    assert (code, "have one answer" in wrong) == (2, True)
    code, _, wrong = upskit(*common, "--frame", 0, "--out", tmp_path / "q.h5")
    assert (code, "no frame is given" in wrong) == (3, True)
    code, _, wrong = upskit(*common, "--forecast", "operator", "--out", tmp_path / "q.h5")
    assert (code, "the operator of this model is not trained" in wrong) == (3, True)


# ---------------------------------------------------------------------------------------------------------------------
# Points
# ---------------------------------------------------------------------------------------------------------------------
def test_a_sample_of_a_store_of_meshes(meshes: Case, upskit: Upskit, tmp_path: Path) -> None:
    """At its own nodes, at others, and with the same arrays without the store."""
    common = ("predict", meshes.folder, "--steps", 2)
    stored = (*common, "--input", meshes.data, "--sample", 1, "--frame", 2)
    assert upskit(*stored, "--out", tmp_path / "own.npz")[0] == 0
    own = arrays(tmp_path / "own.npz")
    assert own["fields/velocity"].shape == (2, 70, 2)
    source = meshes.experiment.dataset.files.first  # type: ignore[attr-defined]
    frames, places = source.values(1, np.array([1, 2])), source.positions(1, np.array([2]))
    np.testing.assert_allclose(own["positions"], places, atol=1e-6)
    plain = {"velocity": frames, "positions": places, "depth": source.given(1), "viscosity": 0.02}
    np.savez(tmp_path / "plain.npz", **plain)
    assert upskit(*common, "--input", tmp_path / "plain.npz", "--out", tmp_path / "same.npz")[0] == 0
    np.testing.assert_allclose(arrays(tmp_path / "same.npz")["fields/velocity"], own["fields/velocity"], atol=1e-5)
    assert upskit(*stored, "--points", "grid:7x5", "--out", tmp_path / "grid.npz")[0] == 0
    grid = arrays(tmp_path / "grid.npz")
    assert grid["fields/velocity"].shape == (2, 7, 5, 2)
    asked = torch.from_numpy(grid["positions"]).reshape(-1, 2)
    bundle = ups_kit.load(meshes.folder)
    python = bundle.predict(frames, {"viscosity": 0.02}, 2, asked, positions=places, statics=source.given(1))
    np.testing.assert_allclose(grid["fields/velocity"].reshape(2, 35, 2), python[0], atol=1e-5)


def test_a_task_of_several(home: Path, upskit: Upskit, tmp_path: Path) -> None:
    """Its own layout reads the file, and it is asked about its own domain and parameters."""
    settings = []
    for task, points in (("burgers", 64), ("advection", 32)):
        of, made_of = f"dataset.tasks.{task}", f"dataset.tasks.{task}.simulate"
        settings += [f"{of}.path={home / f'{task}_task.h5'}", f"{of}.train=6", f"{of}.validation=2", f"{of}.test=3"]
        settings += [f"{made_of}.trajectories=11", f"{made_of}.frames=6", f"{made_of}.points={points}"]
    case = made(home, "multitask.toml", "", *settings, "latent.width=16", "encoder.patch_size=4", "operator.depth=1")
    common = ("predict", case.folder, "--input", home / "advection_task.h5", "--steps", 2, "--out", tmp_path / "o.npz")
    assert upskit(*common, "--task", "advection", "--points", "grid:50")[0] == 0
    found = arrays(tmp_path / "o.npz")
    assert (found["fields/u"].shape, "parameters/beta" in found) == ((2, 50, 1), True)
    for options, message in (
        ((), "task: this model is of several tasks; say which: burgers, advection"),
        (("--task", "advecton"), "there is no task 'advecton'; did you mean 'advection'?"),
        (("--task", "burgers"), "its fields are on 32, and the model is given a grid of 64 points"),
    ):
        code, _, said = upskit(*common, "--overwrite", *options)
        assert (code, message in said) == (3, True), said
