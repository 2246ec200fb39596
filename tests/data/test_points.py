"""Query points at reading: what is read, what is unbiased, what is refused; normalisation by the recipe's keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from attrs import evolve

from ups_kit import LatentSpec
from ups_kit.data.stream import shift_periodic
from ups_kit.fit.batches import TrainingWindows
from ups_kit.fit.forward import LossTerm, compute_losses
from ups_kit.interfaces import Progress, ReadsPoints
from ups_kit.model import LatentModel
from ups_plugins.decoders.config import PartitionConfig
from ups_plugins.grid.config import GridEncoderConfig, PDEBenchConfig
from ups_plugins.grid.dataset import GridDataset
from ups_plugins.operators.config import TransformerConfig
from ups_plugins.upt import config as losses

WriteLayout = Callable[..., tuple[Path, dict[str, np.ndarray]]]
COUNTS = {"train": 6, "validation": 3, "test": 3}
LAYOUTS = ("burgers", "darcy", "diffusion_reaction", "shallow_water", "fluid_2d", "fluid_3d", "incompressible")


def dataset(path: Path, points: int | None, **keys: Any) -> GridDataset:
    built = PDEBenchConfig(path=path, points=points, **COUNTS | keys).build(0)
    assert isinstance(built, GridDataset)
    assert isinstance(built, ReadsPoints)
    return built


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stride", [1, 2])
def test_states_at_points_are_those_of_the_whole(write_layout: WriteLayout, layout: str, stride: int) -> None:
    data = dataset(write_layout(layout)[0], 3, space_stride=stride)
    steps, windows = (1, np.array([4, 0, 2])) if data.fields.steady else (2, np.array([14, 3, 9]))
    whole, some = data.batch("train", windows, steps), data.batch_at_points("train", windows, steps, seed=5)
    assert whole.grid == data.fields.grid
    assert some.grid is None
    assert some.inputs.grid == data.fields.grid
    torch.testing.assert_close(some.inputs.values, whole.inputs.values, rtol=0, atol=0)
    assert some.states.shape == (3, 1 + steps, 3, data.fields.target_channels)
    places = (some.positions[:, :, None] - whole.positions[:, None]).abs().sum(-1)
    assert (places.min(2).values == 0).all()
    index = places.argmin(2)
    assert all(len(set(row.tolist())) == 3 for row in index)
    expected = whole.states.gather(2, index[:, None, :, None].expand_as(some.states))
    torch.testing.assert_close(some.states, expected, rtol=0, atol=0)


def test_points_follow_from_the_seed_alone(write_layout: WriteLayout) -> None:
    data = dataset(write_layout("fluid_2d")[0], 5)
    draws = [data.batch_at_points("train", np.array([1, 7]), 1, seed).positions for seed in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0][0], draws[0][1])
    for split in ("train", "validation", "test"):
        assert data.batch(split, np.array([0]), 1).states.shape[2] == 64
    everything = dataset(write_layout("fluid_2d")[0], 64).batch_at_points("train", np.array([1]), 1, 0)
    assert everything.grid == (8, 8)


def test_every_point_is_drawn_as_often_as_any_other(write_layout: WriteLayout) -> None:
    data = dataset(write_layout("fluid_2d")[0], 16)
    place = (data.batch("train", np.array([0]), 0).positions[0] * 8).long()
    number = {tuple(point): index for index, point in enumerate(place.tolist())}
    counts = np.zeros(64)
    for seed in range(60):
        drawn = (data.batch_at_points("train", np.arange(8), 0, seed).positions * 8).long()
        for point in drawn.reshape(-1, 2).tolist():
            counts[number[tuple(point)]] += 1
    expected = 60 * 8 * 16 / 64
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


class Counting:
    """A source that counts the bytes that it gives."""

    def __init__(self, source: Any) -> None:
        self._source, self.bytes = source, 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._source, name)
        if name not in ("gather", "gather_points", "rows", "statics"):
            return found

        def counted(*arguments: Any) -> np.ndarray:
            values: np.ndarray = found(*arguments)
            self.bytes += values.nbytes
            return values

        return counted


def test_fewer_bytes_are_read(write_layout: WriteLayout) -> None:
    data = dataset(write_layout("fluid_2d")[0], 4)
    source = Counting(data.files.files[0].source)
    data = evolve(data, files=evolve(data.files, files=(evolve(data.files.files[0], source=source),)))
    windows = np.arange(5)
    data.batch("train", windows, 3)
    whole, source.bytes = source.bytes, 0
    data.batch_at_points("train", windows, 3, 0)
    frame = 5 * 4 * 4  # samples, channels, bytes
    assert whole == frame * 4 * 64
    assert source.bytes == frame * (64 + 3 * 4)


# ---------------------------------------------------------------------------------------------------------------------
# Losses
# ---------------------------------------------------------------------------------------------------------------------
def model_of(data: GridDataset) -> LatentModel:
    torch.manual_seed(3)
    fields, latent = data.fields, LatentSpec(width=8)
    return LatentModel(
        GridEncoderConfig(patch_size=4, heads=1).build(fields, latent),
        TransformerConfig(depth=1, heads=1, rank=4).build(fields, latent),
        PartitionConfig().build(fields, latent),
        fields,
    ).eval()


def loss_of(model: LatentModel, data: GridDataset, batch: Any, config: Any) -> float:
    term = LossTerm("loss", config, config.build(data.fields))
    found = compute_losses(model, batch, [term], Progress(1, 0.5, 0.5), torch.Generator().manual_seed(0))
    return float(found.total.detach())


@pytest.mark.parametrize(
    "config", [losses.ForwardConfig(), losses.RolloutConfig(horizon=2), losses.InverseEncodingConfig()]
)
def test_the_expected_loss_is_the_dense_one(write_layout: WriteLayout, config: Any) -> None:
    data = dataset(write_layout("fluid_2d")[0], 8)
    model, windows = model_of(data), np.arange(10)
    dense = loss_of(model, data, data.batch("train", windows, 2), config)
    drawn = [loss_of(model, data, data.batch_at_points("train", windows, 2, seed), config) for seed in range(80)]
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert 0 < error < 0.02 * dense
    assert abs(np.mean(drawn) - dense) < 4 * error


def test_training_reads_points_and_shifts_them_with_their_inputs(write_layout: WriteLayout) -> None:
    """On periodic axes a shifted sample at its points is the whole shifted sample, looked at there."""
    data = dataset(write_layout("fluid_2d")[0], 8, space_stride=2)
    windows = np.arange(6)
    whole = data.batch("train", windows, 1)
    some = data.batch_at_points("train", windows, 1, 0)
    rolled = shift_periodic(whole, data.fields, torch.Generator().manual_seed(9))
    moved = shift_periodic(some, data.fields, torch.Generator().manual_seed(9))
    torch.testing.assert_close(moved.inputs.values, rolled.inputs.values, rtol=0, atol=0)
    assert not torch.equal(moved.positions, some.positions)
    distance = (moved.positions[:, :, None] - rolled.positions[:, None]).abs().sum(-1)
    assert float(distance.min(2).values.max()) < 1e-5
    index = distance.argmin(2)[:, None, :, None].expand_as(moved.states)
    torch.testing.assert_close(moved.states, rolled.states.gather(2, index), rtol=0, atol=0)
    source = TrainingWindows(
        dataset=data, steps=1, batch=4, seed=0, stage="operator", shift=True, device=torch.device("cpu")
    )
    first, again, other = source.read(0), source.read(0), source.read(1)
    assert first.states.shape == (4, 2, 8, 4)
    assert torch.equal(first.positions, again.positions)
    assert not torch.equal(first.positions, other.positions)


@pytest.mark.parametrize(
    ("config", "steady", "sampled"),
    [
        (losses.ForwardConfig(), "", ""),
        (losses.RelativeConfig(), "", ""),
        (losses.RolloutConfig(horizon=1), "", ""),
        (losses.RolloutConfig(horizon=3), "set horizon = 1", ""),
        (losses.LatentForwardConfig(), "no answer can be encoded", "encodes whole frames"),
        (losses.LatentRolloutConfig(), "steady", "encodes whole frames"),
        (losses.InverseEncodingConfig(), "no frame is encoded", ""),
        (losses.InverseDecodingConfig(), "does not see what is decoded", "decodes and encodes whole frames"),
        (losses.SpectralConfig(), "", "needs all points"),
        (losses.MeanPreservationConfig(), "", "needs all points"),
        (losses.TotalVariationConfig(), "", "neighbours"),
        (losses.TotalVariationConfig(of="latent"), "", ""),
    ],
)
def test_losses_say_what_they_cannot_have(write_layout: WriteLayout, config: Any, steady: str, sampled: str) -> None:
    answers = PDEBenchConfig(path=write_layout("darcy")[0], **COUNTS).describe()
    points = PDEBenchConfig(path=write_layout("fluid_2d")[0], points=9, **COUNTS).describe()
    assert points.sampled == 9
    for fields, expected in ((answers, steady), (points, sampled)):
        check = getattr(config, "check", lambda fields, latent: ())
        messages = " ".join(message for _, message in check(fields, LatentSpec(8)))
        assert (expected in messages) if expected else not messages


def test_more_points_than_there_are(write_layout: WriteLayout) -> None:
    config = PDEBenchConfig(path=write_layout("fluid_2d")[0], points=65, normalisation={"densty": "range"}, **COUNTS)
    found = dict(config.check(config.describe(), LatentSpec(8)))
    assert "65 points of a grid of 8 × 8; nearest: points = 64" in found["points"]
    assert (
        "no field is called 'densty'; did you mean 'density'? (fields: density, pressure, Vx, Vy)"
        in found["normalisation"]
    )


# ---------------------------------------------------------------------------------------------------------------------
# Normalisation by the recipe's keys
# ---------------------------------------------------------------------------------------------------------------------
KINDS = {"density": "range", "pressure": "robust", "Vx": "none"}


def test_test_trajectories_change_no_statistic(write_layout: WriteLayout) -> None:
    path, held = write_layout("fluid_2d")
    data = dataset(path, None, normalisation=KINDS, time_stride=2, space_stride=2)
    with h5py.File(path, "r+") as file:
        for name in ("density", "pressure", "Vx", "Vy"):
            for other in (*data.splits["test"], *data.splits["validation"]):
                file[name][other] = file[name][other] * 50 + 7
    assert dataset(path, None, normalisation=KINDS, time_stride=2, space_stride=2).normaliser == data.normaliser
    train = held["targets"][list(data.splits["train"]), ::2, ::2, ::2].reshape(-1, 4).astype(np.float64)
    mean, std = data.normaliser.target_mean, data.normaliser.target_std
    assert mean[0] == pytest.approx((train[:, 0].min() + train[:, 0].max()) / 2)
    assert std[0] == pytest.approx((train[:, 0].max() - train[:, 0].min()) / 2)
    low, high = np.quantile(train[:, 1], (0.25, 0.75))
    inner = train[(train[:, 1] >= low) & (train[:, 1] <= high), 1]
    assert (mean[1], std[1]) == (pytest.approx(inner.mean(), abs=5e-3), pytest.approx(inner.std(), rel=1e-2))
    assert (mean[2], std[2]) == (0, 1)
    assert (mean[3], std[3]) == (pytest.approx(train[:, 3].mean(), abs=1e-6), pytest.approx(train[:, 3].std()))


def test_statics_are_normalised_too(write_layout: WriteLayout) -> None:
    path, held = write_layout("darcy")
    data = dataset(path, None, normalisation={"nu": "range"})
    train = held["statics"][list(data.splits["train"])]
    batch = data.batch("train", np.arange(6), 1)
    assert float(batch.inputs.values.abs().max()) == pytest.approx(1)
    assert data.normaliser.static_mean[0] == pytest.approx((train.min() + train.max()) / 2)
    robust = dataset(path, None, normalisation="robust").normaliser
    low, high = np.quantile(train, (0.25, 0.75))
    assert robust.static_mean[0] == pytest.approx(train[(train >= low) & (train <= high)].mean(), abs=5e-3)


def test_large_trajectories_are_looked_through_in_parts(
    write_layout: WriteLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ups_plugins.grid import survey

    path, _ = write_layout("fluid_3d")
    whole = dataset(path, None, normalisation="robust")
    monkeypatch.setattr(survey, "BLOCK_VALUES", 700)  # two frames of a trajectory at a time
    parts = dataset(path, None, normalisation="robust")
    assert parts.splits.digest == whole.splits.digest
    for name in ("target_mean", "target_std"):
        np.testing.assert_allclose(getattr(whole.normaliser, name), getattr(parts.normaliser, name), rtol=1e-9)
    monkeypatch.undo()
    np.testing.assert_allclose(dataset(path, None).normaliser.target_std, _train_std(whole), rtol=1e-6)


def _train_std(data: GridDataset) -> np.ndarray:
    values = data.trajectories("train").values.double().flatten(0, 2)
    return np.asarray(values.std(0, correction=0))
