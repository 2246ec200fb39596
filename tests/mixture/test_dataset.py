"""What a batch of a mixture holds, and how its conditions and splits are made of the tasks'."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ups_kit.data.sample import GivesSamples
from ups_kit.data.splits import Splits
from ups_kit.data.stream import shift_periodic
from ups_kit.errors import DataError
from ups_kit.interfaces import ListsParameters
from ups_plugins.mixture.config import MixtureConfig
from ups_plugins.mixture.dataset import Mixture, joint_splits

from .conftest import tasks_of, write_waves


def test_a_batch_holds_its_task_in_the_place_it_has_in_the_whole(mixture: Mixture) -> None:
    assert [field.name for field in mixture.fields.targets] == ["u", "wave"]
    assert mixture.fields.conditions == ("dt", "epsilon", "beta", "task:burgers", "task:waves")
    first = mixture.tasks["burgers"].windows("train", 2)
    own = mixture.tasks["waves"].batch("train", np.array([0, 7, 3]), 2)
    whole = mixture.batch("train", first + np.array([0, 7, 3]), 2)
    assert (whole.grid, whole.inputs.grid, whole.channels) == ((32,), (32,), (1,))
    assert torch.equal(whole.states[..., 1:], own.states)
    assert torch.equal(whole.inputs.values[..., 1:], own.inputs.values)
    assert not whole.states[..., 0].any()
    assert not whole.inputs.values[..., 0].any()
    middles = (torch.arange(32) + 0.5) / 32
    torch.testing.assert_close(whole.positions[..., 0], middles.expand(3, -1))
    assert torch.equal(whole.condition[:, [0, 2]], own.condition)
    assert not whole.condition[:, 1].any(), "a parameter that the task has not"
    assert torch.equal(whole.condition[:, 3:], torch.tensor([[0.0, 1.0]]).expand(3, -1))
    assert set(whole.ids.tolist()).isdisjoint(mixture.batch("train", np.arange(first), 2).ids.tolist())
    assert mixture.batch("train", np.arange(3), 2).channels == (0,)


def test_conditions_are_normalised_over_the_windows_of_all_tasks(mixture: Mixture) -> None:
    batches = [task.batch("train", np.arange(task.windows("train", 1)), 1) for task in mixture.tasks.values()]
    steps = torch.cat([batch.condition[:, 0] for batch in batches]).double()
    assert abs(float(steps.mean())) < 1e-6
    assert float(steps.std(correction=0)) == pytest.approx(1, abs=1e-6)
    assert len(steps.unique()) == 2, "two time steps"
    for batch, name in zip(batches, ("epsilon", "beta"), strict=True):
        own = batch.condition[:, 1].double()
        assert abs(float(own.mean())) < 1e-6, name
        assert float(own.std(correction=0)) == pytest.approx(1, abs=1e-5), name


def test_a_task_s_own_conditions_are_those_of_its_normaliser(mixture: Mixture) -> None:
    for task in mixture.tasks.values():
        held = task.trajectories("validation")
        batch = task.batch("validation", np.arange(task.windows("validation", 1)), 1)
        rows = [held.ids.tolist().index(number) for number in batch.ids.tolist()]
        torch.testing.assert_close(batch.condition, task.normaliser.condition(held.parameters[rows]))
        assert abs(float(task.normaliser.targets(held.values).mean())) < 1, "fields are normalised by the task alone"


def test_windows_of_several_tasks_make_no_batch(mixture: Mixture) -> None:
    first = mixture.tasks["burgers"].windows("train", 1)
    with pytest.raises(ValueError, match="some of each of burgers, waves"):
        mixture.batch("train", np.array([first - 1, first]), 1)
    with pytest.raises(IndexError, match="has 60 windows of 3 steps"):
        mixture.batch("train", np.array([mixture.windows("train", 3)]), 3)
    with pytest.raises(DataError, match="one task at a time"):
        mixture.trajectories("test")


def test_a_task_may_be_read_at_points_alone(files: dict[str, Path]) -> None:
    mixture = MixtureConfig(tasks=tasks_of(files, points=10)).build(seed=0)
    assert isinstance(mixture, Mixture)
    assert mixture.fields.sampled == 10
    first = mixture.tasks["burgers"].windows("train", 2)
    whole = mixture.batch("train", first + np.arange(3), 2)
    some = mixture.batch_at_points("train", first + np.arange(3), 2, seed=1)
    assert (some.states.shape, some.grid, some.channels) == ((3, 3, 10, 2), None, (1,))
    assert torch.equal(some.inputs.values, whole.inputs.values)
    place = (some.positions[..., 0] * 32).floor().long()[:, None, :, None].expand_as(some.states)
    torch.testing.assert_close(some.states, whole.states.gather(2, place))
    assert mixture.batch_at_points("train", np.arange(3), 2, seed=1).grid == (64,), "the other task is read whole"


def test_conditions_are_told_without_reading_trajectories(mixture: Mixture) -> None:
    for task in mixture.tasks.values():
        assert isinstance(task.member, ListsParameters)
        told, held = task.member.parameters("train"), task.trajectories("train").parameters
        assert np.allclose(told, held.numpy(), rtol=1e-6)


def test_shifted_samples_keep_their_channels(mixture: Mixture) -> None:
    batch = mixture.batch("train", np.arange(4), 2)
    moved = shift_periodic(batch, mixture.fields, torch.Generator().manual_seed(0))
    assert not torch.equal(moved.states, batch.states)
    assert torch.equal(moved.states.sort(2).values, batch.states.sort(2).values)
    assert moved.channels == batch.channels
    assert torch.equal(moved.states[:, 0], moved.inputs.values)


def test_a_mixture_goes_to_other_processes(mixture: Mixture) -> None:
    mixture.batch("train", np.arange(2), 1)
    again = pickle.loads(pickle.dumps(mixture))
    windows = mixture.draw("train", 2, 4, 1, 9)
    assert np.array_equal(again.draw("train", 2, 4, 1, 9), windows)
    assert torch.equal(again.batch("train", windows, 2).states, mixture.batch("train", windows, 2).states)


def test_one_file_in_two_tasks_with_other_splits_is_a_leak(files: dict[str, Path]) -> None:
    tasks = tasks_of(files)
    waves = tasks["waves"]
    alike = MixtureConfig(tasks={"one": waves, "two": waves}).build(seed=0)
    assert len(alike.splits["test"]) == 6, "the same file, split alike"
    other = tasks_of(files, test=5)["waves"]
    with pytest.raises(DataError, match=r"of tasks\.one stand in another split of tasks\.two") as found:
        MixtureConfig(tasks={"one": waves, "two": other}).build(seed=0)
    assert found.value.key == "tasks"
    assert "(test)" in str(found.value)


def test_splits_are_those_of_the_tasks_side_by_side() -> None:
    one = Splits({"train": (0, 2), "test": (1,)}, {0: "a", 1: "b", 2: "c"})
    two = Splits({"train": (1,), "test": (0,)}, {0: "d", 1: "a"})
    splits, starts = joint_splits({"one": one, "two": two})
    assert starts == {"one": 0, "two": 3}
    assert dict(splits.ids) == {"train": (0, 2, 4), "test": (1, 3)}
    assert splits.hashes[4] == "a"
    with pytest.raises(DataError, match=r"0 \(train\) = 0 \(test\)"):
        joint_splits({"one": one, "two": Splits({"train": (1,), "test": (0,)}, {0: "a", 1: "d"})})


def test_what_is_wrong_with_a_task_says_with_which(files: dict[str, Path], tmp_path: Path) -> None:
    missing = MixtureConfig(tasks=tasks_of(files, path=tmp_path / "none.h5"))
    with pytest.raises(DataError) as found:
        missing.describe()
    assert found.value.key == "tasks.waves.path"
    few = MixtureConfig(tasks=tasks_of(files, test=50))
    assert [key for key, _ in few.check(few.describe(), None)] == ["tasks.waves.test"]  # type: ignore[arg-type]
    bounded = MixtureConfig(tasks=tasks_of(files, periodic=False))
    with pytest.raises(DataError, match=r"tasks\.burgers \(periodic\), tasks\.waves \(bounded\)"):
        bounded.describe()


def test_cell_centres_and_nodes_come_to_the_same(files: dict[str, Path], tmp_path: Path) -> None:
    """A file of cell centres of the shifted waves is the same task as one of nodes."""
    centres = write_waves(tmp_path / "centres.h5", nodes=False)
    both = [
        MixtureConfig(tasks=tasks_of(files, path=path)).build(seed=0).batch("validation", np.array([17]), 1)
        for path in (files["waves"], centres)
    ]
    torch.testing.assert_close(both[0].positions, both[1].positions)


def test_tasks_give_the_samples_of_their_data_sets(mixture: Mixture) -> None:
    for name, task in mixture.tasks.items():
        assert isinstance(task, GivesSamples)
        field = task.fields.targets[0].name
        sample = task.sample("test", 1)
        whole = task.trajectories("test").values[1, :, :, 0]
        np.testing.assert_array_equal(np.asarray(sample.fields[field]).reshape(whole.shape), whole.numpy())
        assert set(sample.parameters) == set(task.fields.conditions) - {"dt"}, name
