"""The dataset that all data on points share: windows, padding, random points, splits, normalisation."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from ups_kit import DataError
from ups_kit.data.sample import GivesSamples
from ups_kit.interfaces import Dataset, Identified, ListsParameters, Meshed, ReadsPoints


@pytest.mark.parametrize("moves", [False, True])
def test_a_batch_is_its_samples_one_by_one(clouds: ModuleType, tmp_path: Path, moves: bool) -> None:
    data = clouds.dataset(tmp_path, clouds.cloud(moves=moves), history=2)
    for protocol in (ReadsPoints, Identified, ListsParameters, Meshed, GivesSamples):
        assert isinstance(data, protocol)
    number = data.windows("train", 2)
    assert number == sum(max(0, int(data.files.frames[i]) - 3) for i in data.splits["train"])
    every = np.arange(number)
    whole = data.batch("train", every, 2)
    assert whole.mask is not None
    assert whole.inputs.mask is not None
    assert torch.equal(whole.mask, whole.inputs.mask)
    assert whole.positions.dim() == (4 if moves else 3)
    for row in every:
        one = data.batch("train", every[row : row + 1], 2)
        count = one.states.shape[2]
        assert one.mask is None
        assert int(whole.mask[row].sum()) == count == data.files.counts[int(one.ids[0])]
        assert torch.equal(whole.states[row, :, :count], one.states[0])
        assert torch.equal(whole.inputs.values[row, :count], one.inputs.values[0])
        assert torch.equal(whole.inputs.positions[row, :count], one.inputs.positions[0])
        assert torch.equal(whole.positions[row, ..., :count, :], one.positions[0])
        assert torch.equal(whole.times[row], one.times[0])
        assert torch.equal(whole.condition[row], one.condition[0])
        assert not whole.states[row, :, count:].any()
        assert not whole.inputs.values[row, count:].any()
        filled = whole.inputs.positions[row, count:]
        assert torch.equal(filled, whole.inputs.positions[row, :1].expand_as(filled))


def test_a_window_is_what_the_source_holds(clouds: ModuleType, tmp_path: Path) -> None:
    data = clouds.dataset(tmp_path, clouds.cloud(moves=True), history=3, time_stride=1)
    split = "validation"
    first = data.first_windows(split, 1)
    batch = data.batch(split, first + 1, 1)
    for row, number in enumerate(data.splits[split]):
        source, own = data.files.owner(number)
        frames = np.arange(1, 5)
        values = torch.from_numpy(source.values(own, frames))
        count = values.shape[1]
        assert torch.allclose(data.normaliser.physical(batch.states[row, :, :count]), values[2:], atol=1e-5)
        given = batch.inputs.values[row, :count]
        assert given.shape[1] == data.fields.input_channels == 10
        assert torch.allclose(data.normaliser.physical(given[:, 3:6]), values[1], atol=1e-5)
        places = torch.from_numpy(source.positions(own, frames))
        assert torch.equal(batch.inputs.positions[row, :count], places[2])
        assert torch.equal(batch.places(1)[row, :count], places[3])
        assert batch.times[row].item() == pytest.approx(source.times(own)[3])
        step = data.fields.dt * values[3][:, data.fields.motion]
        assert torch.allclose(batch.places(1)[row, :count], batch.places(0)[row, :count] + step, atol=1e-6)


def test_equal_counts_need_no_mask(clouds: ModuleType, tmp_path: Path) -> None:
    data = clouds.dataset(tmp_path, clouds.cloud(even=True))
    batch = data.batch("train", np.arange(4), 1)
    assert batch.mask is None
    assert batch.inputs.mask is None
    assert data.trajectories("test").mask is None
    assert data.fields.counts == (20, 20)


@pytest.mark.parametrize("moves", [False, True])
def test_random_points_are_of_the_sample_and_of_the_seed(clouds: ModuleType, tmp_path: Path, moves: bool) -> None:
    data = clouds.dataset(tmp_path, clouds.cloud(moves=moves), input_points=(6, 10))
    assert data.fields.sampled_inputs == data.fields.fewest_points == 6
    windows = np.arange(5)
    whole = data.batch("train", windows, 1)
    sizes = set()
    for seed in range(12):
        batch = data.batch_at_points("train", windows, 1, seed)
        again = data.batch_at_points("train", windows, 1, seed)
        assert torch.equal(batch.states, again.states)
        assert torch.equal(batch.inputs.positions, again.inputs.positions)
        sizes.add(batch.states.shape[2])
        assert torch.equal(batch.places(0), batch.inputs.positions)
        for row in windows:
            where = torch.cdist(batch.inputs.positions[row], whole.inputs.positions[row]).argmin(1)
            assert len(set(where.tolist())) == len(where)
            assert torch.equal(whole.inputs.positions[row, where], batch.inputs.positions[row])
            assert torch.equal(whole.inputs.values[row, where], batch.inputs.values[row])
            assert torch.equal(whole.states[row][:, where], batch.states[row])
            if moves:
                assert torch.equal(whole.places(1)[row, where], batch.places(1)[row])
    assert len(sizes) > 2
    assert sizes <= set(range(6, 11))


def test_states_at_other_points_than_inputs(clouds: ModuleType, tmp_path: Path) -> None:
    data = clouds.dataset(tmp_path, clouds.cloud(), input_points=17, points=4)
    batch = data.batch_at_points("train", np.arange(6), 1, seed=3)
    counts = data.files.counts[batch.ids.numpy()]
    assert batch.states.shape[2] == batch.positions.shape[1] == 4
    assert batch.mask is None
    assert batch.inputs.mask is not None
    assert batch.inputs.mask.sum(1).tolist() == np.minimum(counts, 17).tolist()
    whole = clouds.dataset(tmp_path, clouds.cloud(), points=4).batch_at_points("train", np.arange(6), 1, seed=3)
    assert whole.inputs.mask is not None
    assert whole.inputs.mask.sum(1).tolist() == counts.tolist()


def test_trajectories_are_as_long_as_the_shortest(clouds: ModuleType, tmp_path: Path) -> None:
    data = clouds.dataset(tmp_path, clouds.cloud(moves=True), test=5, time_stride=2)
    whole = data.trajectories("test")
    shortest = int(data.files.frames[data.members["test"]].min())
    assert whole.values.shape[:2] == (5, shortest)
    assert whole.positions.shape[:2] == (5, shortest)
    assert whole.mask is not None
    assert whole.weights is not None
    assert torch.allclose(whole.weights.sum(1), torch.ones(5))
    assert not whole.values.transpose(1, 2)[~whole.mask].any()
    assert data.trajectories("test", 2).values.shape[1] == shortest
    for row, number in enumerate(whole.ids.tolist()):
        source, own = data.files.owner(number)
        values = source.values(own, np.arange(shortest))
        assert np.array_equal(whole.values[row, :, : values.shape[1]].numpy(), values)


def test_splits_and_normalisation(clouds: ModuleType, tmp_path: Path) -> None:
    data = clouds.dataset(tmp_path, clouds.cloud(twins=((3, 8), (4, 9))))
    owners = {member: split for split, members in data.splits.ids.items() for member in members}
    assert owners[3] == owners[8]
    assert owners[4] == owners[9]
    values = np.concatenate(
        [
            data.files.first.values(number, np.arange(int(data.files.frames[number]))).reshape(-1, 3)
            for number in data.splits["train"]
        ]
    )
    assert np.allclose(data.normaliser.target_mean, values.mean(0), atol=1e-6)
    assert np.allclose(data.normaliser.target_std, values.std(0), atol=1e-6)
    assert data.fields.conditions == ("dt", "nu", "angle")
    assert np.array_equal(data.parameters("test")[:, 1], 0.1 + np.array(data.splits["test"]))
    more = clouds.dataset(tmp_path, clouds.cloud(), train=3)
    fewer = clouds.dataset(tmp_path, clouds.cloud(), train=2)
    assert more.splits["test"] == fewer.splits["test"]
    robust = clouds.dataset(tmp_path, clouds.cloud(), normalisation={"height": "robust", "velocity": "none"})
    assert robust.normaliser.target_std[:2] == (1.0, 1.0)
    assert robust.normaliser.target_std[2] < data.normaliser.target_std[2]


def test_splits_that_files_tell(clouds: ModuleType, tmp_path: Path) -> None:
    said = ("train",) * 5 + ("validation",) * 3 + ("test",) * 4
    data = clouds.dataset(tmp_path, clouds.cloud(splits=said), test=4, validation=3)
    assert data.splits.ids == {"train": (0, 1, 2, 3, 4), "validation": (5, 6, 7), "test": (8, 9, 10, 11)}
    others, path = clouds.cloud(4, even=True), tmp_path / "others"
    own = clouds.cloud(12, twins=tuple((n, 20 + n) for n in range(12)))
    apart = clouds.dataset(tmp_path, own, others=others, test_path=path)
    assert min(apart.splits["test"]) >= 12
    assert max(apart.splits["train"]) < 12
    with pytest.raises(DataError, match="stand in two splits"):
        clouds.dataset(tmp_path, clouds.cloud(even=True), others=others, test_path=path)


def test_nan_is_told_with_file_sample_frame_and_point(clouds: ModuleType, tmp_path: Path) -> None:
    bad = clouds.cloud(broken=((4, 2, 11), (4, 3, 1), (6, 0, 2)))
    with pytest.raises(DataError) as told:
        clouds.dataset(tmp_path, bad)
    assert "cloud, sample 4: NaN or infinity at [frame 2, point 11] of 'height'" in str(told.value)
    assert "2 trajectories hold 3 such values (ids 4, 6)" in str(told.value)
    data = clouds.dataset(tmp_path, bad, drop_bad_samples=True)
    assert not {4, 6} & {member for members in data.splits.ids.values() for member in members}


def test_frames_and_names_that_are_not_there(clouds: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has 6 frames .*history = 6 needs at least 7"):
        clouds.dataset(tmp_path, clouds.cloud(), history=6)
    with pytest.raises(DataError, match="no parameter 'angel'; did you mean 'angle'"):
        clouds.dataset(tmp_path, clouds.cloud(), conditions=("angel",))
    with pytest.raises(ValueError, match=r"input_points.*least, most"):
        clouds.dataset(tmp_path, clouds.cloud(), input_points=(5, 4))
    config = clouds.CloudConfig(path=tmp_path / "cloud", test=20, validation=2, input_points=30, cloud=clouds.cloud())
    from ups_kit import LatentSpec

    problems = dict(config.check(config.describe(), LatentSpec(width=8)))
    assert set(problems) == {"test", "input_points"}
    assert "nearest: input_points = 19" in problems["input_points"]
    data = clouds.dataset(tmp_path, clouds.cloud())
    with pytest.raises(IndexError):
        data.batch("train", np.array([data.windows("train", 1)]), 1)


def test_samples_and_pickles(clouds: ModuleType, tmp_path: Path) -> None:
    data = clouds.dataset(tmp_path, clouds.cloud(moves=True))
    sample = data.sample("test", 1)
    assert sample.coordinates.shape == (sample.frames, sample.points, 2)
    assert sample.unit("velocity") == "m/s"
    assert set(sample.parameters) == {"nu", "angle"}
    again: Dataset = pickle.loads(pickle.dumps(data))
    windows = np.arange(3)
    assert torch.equal(again.batch("train", windows, 1).states, data.batch("train", windows, 1).states)
