"""The pdebench dataset: windows, strides, parameters, splits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ups_kit import DataError
from ups_plugins.grid.config import PDEBenchConfig
from ups_plugins.grid.dataset import GridDataset
from ups_plugins.simulators.config import Burgers1DConfig

WriteFile = Callable[..., Path]


def config(path: Path | tuple[Path, ...], **keys: Any) -> PDEBenchConfig:
    return PDEBenchConfig(path=path, **{"train": 8, "validation": 2, "test": 3} | keys)


def dataset(path: Path | tuple[Path, ...], seed: int = 0, **keys: Any) -> GridDataset:
    built = config(path, **keys).build(seed)
    assert isinstance(built, GridDataset)
    return built


def tensor(path: Path) -> torch.Tensor:
    with h5py.File(path) as file:
        return torch.from_numpy(file["tensor"][()])


def test_describes_from_headers_what_it_builds(write_file: WriteFile) -> None:
    path = write_file(points=16)
    fields = config(path, time_stride=2, space_stride=4, history=2).describe()
    assert fields == dataset(path, time_stride=2, space_stride=4, history=2).fields
    assert fields.domain == ((0.0, 1.0),)
    assert fields.grid == (4,)
    assert fields.offset == 0.125
    assert fields.dt == pytest.approx(0.2)
    assert fields.conditions == ("dt", "epsilon")
    assert fields.input_channels == 2


@given(
    time_stride=st.integers(1, 3), space_stride=st.sampled_from([1, 2, 4]), history=st.integers(1, 3),
    steps=st.integers(0, 4), chunked=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_windows_are_aligned_with_the_file(
    write_file: WriteFile, time_stride: int, space_stride: int, history: int, steps: int, chunked: bool, seed: int
) -> None:
    path = write_file(frames=14, create={"chunks": (2, 3, 16)} if chunked else {})
    data = dataset(path, seed, time_stride=time_stride, space_stride=space_stride, history=history)
    truth = tensor(path)[:, ::time_stride, ::space_stride]
    starts = truth.shape[1] - history - steps + 1
    total = data.windows("train", steps)
    assert total == 8 * max(starts, 0)
    if total == 0:
        return
    windows = np.random.default_rng(seed).permutation(total)[:5]
    batch = data.batch("train", windows, steps)
    physical = data.normaliser.physical(batch.states)[..., 0]
    for row in range(len(windows)):
        frame = round(float(batch.times[row]) / data.fields.dt)
        frames = truth[int(batch.ids[row])]
        torch.testing.assert_close(physical[row], frames[frame : frame + steps + 1], rtol=1e-5, atol=1e-5)
        given_frames = data.normaliser.physical(batch.inputs.values[row].T[..., None])[..., 0]
        torch.testing.assert_close(given_frames, frames[frame - history + 1 : frame + 1], rtol=1e-5, atol=1e-5)
        assert int(batch.ids[row]) in data.splits["train"]
    assert batch.states.shape == (len(windows), 1 + steps, 16 // space_stride, 1)
    assert batch.inputs.values.shape == (len(windows), 16 // space_stride, history)
    assert batch.positions.shape == (len(windows), 16 // space_stride, 1)
    assert batch.grid == data.fields.grid == (16 // space_stride,)


def test_every_window_once(write_file: WriteFile) -> None:
    data = dataset(write_file())
    batch = data.batch("train", np.arange(data.windows("train", 2)), 2)
    pairs = {(int(i), round(float(t), 3)) for i, t in zip(batch.ids, batch.times, strict=True)}
    assert len(pairs) == len(batch.ids) == 8 * 5
    with pytest.raises(IndexError, match="40 windows"):
        data.batch("train", np.array([40]), 2)


def test_trajectories_are_physical_and_whole(write_file: WriteFile) -> None:
    path = write_file()
    data = dataset(path, time_stride=2)
    held = data.trajectories("test")
    torch.testing.assert_close(held.values[..., 0], tensor(path)[held.ids, ::2], rtol=0, atol=0)
    assert tuple(held.ids.tolist()) == data.splits["test"]
    np.testing.assert_allclose(held.times, 0.2 * np.arange(4), rtol=1e-6)
    np.testing.assert_allclose(held.parameters[:, 1], np.geomspace(0.001, 0.1, 14)[held.ids], rtol=1e-6)
    np.testing.assert_allclose(held.parameters[:, 0], 0.2, rtol=1e-6)
    assert held.positions.shape == (16, 1)
    assert held.statics.shape == (3, 16, 0)


def test_statistics_are_of_the_train_split_alone(write_file: WriteFile) -> None:
    path = write_file()
    data = dataset(path)
    with h5py.File(path, "r+") as file:
        for other in (*data.splits["test"], *data.splits["validation"]):
            file["tensor"][other] = file["tensor"][other] * 50 + 7
    assert dataset(path).normaliser == data.normaliser
    train = tensor(path)[list(data.splits["train"])].double()
    assert data.normaliser.target_mean[0] == pytest.approx(float(train.mean()), rel=1e-6)
    assert data.normaliser.target_std[0] == pytest.approx(float(train.std(correction=0)), rel=1e-6)


def test_conditions_follow_their_trajectory(write_file: WriteFile) -> None:
    data = dataset(write_file())
    batch = data.batch("train", np.array([0, 17, 30]), 1)
    expected = data.normaliser.condition(
        torch.stack([torch.full((3,), 0.1), torch.from_numpy(np.geomspace(0.001, 0.1, 14))[batch.ids]], 1)
    )
    torch.testing.assert_close(batch.condition, expected, rtol=1e-5, atol=1e-6)
    assert batch.condition[:, 1].unique().numel() == 3


def test_several_files_are_one(write_file: WriteFile) -> None:
    low = write_file("nu_a.h5", samples=10, seed=1, epsilon=None)
    high = write_file("nu_b.h5", samples=8, seed=2, epsilon=None)
    pattern = low.parent / "nu_*.h5"
    parameters = {"epsilon": (0.001, 0.01), "beta": 2.0}
    data = dataset(pattern, parameters=parameters, train=12)
    assert data.fields.conditions == ("dt", "beta", "epsilon")
    assert dataset((low, high), parameters=parameters, train=12).splits.digest == data.splits.digest
    truth = torch.cat([tensor(low), tensor(high)])
    batch = data.batch("train", np.arange(data.windows("train", 1)), 1)
    assert {int(i) // 10 for i in batch.ids} == {0, 1}
    frames = torch.round(batch.times / 0.1).long()
    torch.testing.assert_close(data.normaliser.physical(batch.states[:, 1])[..., 0], truth[batch.ids, frames + 1])
    held = data.trajectories("train")
    epsilon = torch.where(held.ids < 10, 0.001, 0.01)
    torch.testing.assert_close(held.parameters[:, 2], epsilon)


def test_same_initial_conditions_in_two_files_stay_together(write_file: WriteFile) -> None:
    paths = tuple(write_file(f"{name}.h5", samples=8, seed=1, epsilon=None) for name in "ab")
    data = dataset(paths, parameters={"epsilon": (0.001, 0.01)}, train=8, validation=4, test=4)
    for split in ("train", "validation", "test"):
        assert {(member + 8) % 16 for member in data.splits[split]} == set(data.splits[split])


def test_a_separate_test_file(write_file: WriteFile) -> None:
    path, other = write_file(seed=1), write_file("test.h5", samples=5, seed=2)
    data = dataset(path, test_path=other, test=5, train=None)
    assert data.splits["test"] == tuple(range(14, 19))
    assert len(data.splits["train"]) == 12
    torch.testing.assert_close(data.trajectories("test").values[..., 0], tensor(other))


def test_conditions_choose_and_attributes_count_when_named(write_file: WriteFile) -> None:
    path = write_file()
    with h5py.File(path, "r+") as file:
        file.attrs["beta"] = 0.4
        file.attrs["version"] = 3
    assert config(path).describe().conditions == ("dt", "epsilon")
    assert config(path, conditions=()).describe().conditions == ("dt",)
    data = dataset(path, conditions=("beta", "epsilon"))
    assert data.fields.conditions == ("dt", "beta", "epsilon")
    torch.testing.assert_close(data.trajectories("test").parameters[:, 1], torch.full((3,), 0.4))


def test_nodes_are_told_from_cell_centres(write_file: WriteFile) -> None:
    nodes = write_file(x_coordinate=-1 + 2 * np.arange(16) / 16)
    fields = config(nodes, space_stride=2).describe()
    assert fields.domain == ((-1.0, 1.0),)
    assert fields.offset == 0
    single = write_file("single.h5", x_coordinate=((np.arange(16) + 0.5) / 16).astype(np.float32))
    assert config(single).describe().domain == ((0.0, 1.0),)


def test_bad_samples_can_be_left_out(write_file: WriteFile) -> None:
    path = write_file()
    with h5py.File(path, "r+") as file:
        file["tensor"][4, 3, 2] = np.nan
        file["tensor"][9, 0, 1] = np.inf
    for seed in range(4):
        data = dataset(path, seed, train=7, drop_bad_samples=True)
        assert not {4, 9} & {member for split in data.splits.ids.values() for member in split}
        assert torch.isfinite(data.trajectories("train").values).all()
    with pytest.raises(DataError, match=r"the splits take .* 12"):
        dataset(path, drop_bad_samples=True)


SIMULATOR = Burgers1DConfig(trajectories=8, points=16, frames=5, duration=0.4, refinement=1, device="cpu")


def test_a_missing_file_is_made_whole_and_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "burgers.h5"
    keys = config(path, train=4, validation=2, test=2, simulate=SIMULATOR, time_stride=2, space_stride=2)
    described = keys.describe()
    assert not path.exists()
    data = keys.build(0)
    assert data.fields == described == keys.describe()
    assert [entry.name for entry in path.parent.iterdir()] == ["burgers.h5"]
    assert "making burgers.h5: 8 of 8" in capfd.readouterr().err
    before = path.stat().st_mtime_ns
    evolve(keys, simulate=evolve(SIMULATOR, device="auto")).build(0)
    assert path.stat().st_mtime_ns == before


def test_a_file_made_with_other_settings_is_not_used(tmp_path: Path) -> None:
    keys = config(tmp_path / "b.h5", train=4, validation=2, test=2, simulate=SIMULATOR)
    keys.build(0)
    with pytest.raises(DataError, match=r"was made with epsilon = \[0.001, 0.1\], and the recipe says 0.01 in dataset"):
        evolve(keys, simulate=evolve(SIMULATOR, epsilon=0.01)).describe()


def test_a_public_file_is_used_whatever_the_simulator(write_file: WriteFile) -> None:
    data = dataset(write_file(), simulate=SIMULATOR)
    assert data.fields.grid == (16,)


def test_an_interrupted_simulation_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ups_plugins.simulators import burgers1d

    def interrupted(*arguments: Any, **keys: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(burgers1d, "advance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            config(tmp_path / "b.h5", train=4, validation=2, test=2, simulate=SIMULATOR).build(0)
    assert {entry.name for entry in tmp_path.iterdir()} <= {".b.h5.lock", ".b.h5.parts"}
    config(tmp_path / "b.h5", train=4, validation=2, test=2, simulate=SIMULATOR).build(0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["b.h5"]


def test_first_frames_can_be_left_out(write_file: WriteFile) -> None:
    """Windows, statistics and splits are those of a file without these frames."""
    path = write_file(frames=9)
    with h5py.File(path) as file:
        kept, times = file["tensor"][:, 2:], file["t-coordinate"][2:]
    alike = write_file(name="alike.h5", frames=7, tensor=kept, t_coordinate=times)
    later, whole = dataset(path, first_frame=2, time_stride=2), dataset(alike, time_stride=2)
    assert (later.fields, later.normaliser, later.splits) == (whole.fields, whole.normaliser, whole.splits)
    for mine, other in zip(later.batch("train", np.arange(8), 2), whole.batch("train", np.arange(8), 2), strict=True):
        assert not isinstance(mine, torch.Tensor) or torch.equal(mine, other)
    first, second = later.trajectories("test"), whole.trajectories("test")
    assert torch.equal(first.values, second.values)
    assert torch.equal(first.times, second.times)
    points = dataset(path, first_frame=2, points=5).batch("train", np.arange(4), 2)
    alone = dataset(alike, points=5).batch("train", np.arange(4), 2)
    assert torch.equal(points.states, alone.states)
    with pytest.raises(DataError, match=r"has 9 frames, and dataset\.first_frame = 9 leaves none; expected at most 8"):
        config(path, first_frame=9).describe()
