"""Trajectories in PDEBench's HDF5 layout: checked, split, normalised, and read in batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ups_kit import Batch, DataError, FieldSpec, PointSet
from ups_kit.data.making import make_if_missing
from ups_kit.data.normalisation import Moments, Normaliser
from ups_kit.data.splits import Splits, content_hash, drawn
from ups_kit.interfaces import Trajectories

from .config import PDEBenchConfig
from .files import FileSet, check_agreement, field_spec, read_headers, to_be_made

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 8  # sample ids that a message names


@frozen(eq=False)
class PDEBench:
    """A split and normalised set of 1D trajectories. Nothing but its coordinates and parameters is kept in memory."""

    config: PDEBenchConfig
    fields: FieldSpec
    normaliser: Normaliser
    splits: Splits
    sources: FileSet
    conditions: NDArray[np.float64]  # (trajectories, P), physical
    members: Mapping[str, NDArray[np.int64]]  # the splits' ids as arrays

    def windows(self, split: str, steps: int) -> int:
        """How many windows of `history` given and `steps` future frames a split holds."""
        return len(self.splits[split]) * self._starts(steps)

    def batch(self, split: str, windows: NDArray[np.integer], steps: int) -> Batch:
        """The windows with these numbers, normalised, in CPU memory. Raises IndexError for one that is not there."""
        import torch

        total, history = self.windows(split, steps), self.fields.history
        if len(windows) and not 0 <= windows.min() <= windows.max() < total:
            raise IndexError(f"the split '{split}' has {total} windows of {steps} steps")
        member, start = np.divmod(np.asarray(windows, np.int64), max(self._starts(steps), 1))
        ids = self.members[split][member]
        frames = (start[:, None] + np.arange(history + steps)) * self.config.time_stride
        values = torch.from_numpy(self.sources.gather(ids, frames)[..., :: self.config.space_stride])
        fields = self.normaliser.targets(values[..., None])  # (B, history + steps, N, 1)
        positions = self._positions().expand(len(ids), -1, -1)
        newest = torch.from_numpy(self._times()[start + history - 1])
        return Batch(
            inputs=PointSet(positions, fields[:, :history, :, 0].transpose(1, 2), grid=self.fields.grid),
            states=fields[:, history - 1 :],
            positions=positions,
            grid=self.fields.grid,
            condition=self.normaliser.condition(torch.from_numpy(self.conditions[ids])),
            ids=torch.from_numpy(ids),
            times=newest.float(),
        )

    def trajectories(self, split: str) -> Trajectories:
        """All trajectories of a split in physical units, at the recipe's strides."""
        import torch

        ids = np.asarray(self.splits[split], np.int64)
        values = self.sources.rows(ids, slice(None, None, self.config.time_stride))[..., :: self.config.space_stride]
        states = torch.from_numpy(np.ascontiguousarray(values))[..., None]
        return Trajectories(
            values=states,
            statics=states.new_empty(len(ids), states.shape[2], 0),
            positions=self._positions(),
            parameters=torch.from_numpy(self.conditions[ids]).float(),
            times=torch.from_numpy(self._times()).float(),
            ids=torch.from_numpy(ids),
        )

    def _starts(self, steps: int) -> int:
        """Windows in one trajectory."""
        return max(0, len(self._times()) - self.fields.history - steps + 1)

    def _times(self) -> NDArray[np.float64]:
        return self.sources.files[0].times[:: self.config.time_stride]

    def _positions(self) -> Tensor:
        import torch

        return torch.from_numpy(self.sources.files[0].positions[:: self.config.space_stride]).float()[:, None]


def read_dataset(config: PDEBenchConfig, seed: int) -> PDEBench:
    """Make the file if need be, look through all trajectories that are used, split them, fit the normalisation.

    Raises DataError.
    """
    missing = to_be_made(config)
    if missing is not None and config.simulate is not None:
        make_if_missing(missing, config.simulate)
    own = read_headers(config)
    others = read_headers(config, test=True) if config.test_path is not None else ()
    check_agreement((*own, *others))
    fields = field_spec(config, own)
    sources = FileSet.of((*own, *others))
    hashes = _initial_hashes(sources)
    ids, moments = _split(config, sources, hashes, len(own), seed)
    splits = Splits(ids, {member: hashes[member] for members in ids.values() for member in members})
    parameters = sources.parameters(fields.conditions[1:])
    conditions = np.concatenate([np.full((len(parameters), 1), fields.dt), parameters], 1)
    train = np.asarray(ids["train"], np.int64)
    try:
        normaliser = Normaliser.fitted(
            fields, Moments.stacked([moments[i] for i in ids["train"]]).merged(), conditions[train]
        )
    except DataError as error:
        raise DataError(f"{own[0].path}: {error}") from error
    members = {name: np.asarray(trajectories, np.int64) for name, trajectories in ids.items()}
    return PDEBench(config, fields, normaliser, splits, sources, conditions, members)


def _initial_hashes(sources: FileSet) -> dict[int, str]:
    every = np.arange(sources.starts[-1], dtype=np.int64)
    return {
        int(trajectory): content_hash(values[0])
        for ids, block in sources.blocks(every, slice(0, 1))
        for trajectory, values in zip(ids, block, strict=True)
    }


def _split(
    config: PDEBenchConfig, sources: FileSet, hashes: Mapping[int, str], own: int, seed: int
) -> tuple[dict[str, tuple[int, ...]], dict[int, Moments]]:
    """Draw splits of trajectories without NaN or infinity, and the moments of each of them."""
    border, total = int(sources.starts[own]), int(sources.starts[-1])
    moments: dict[int, Moments] = {}
    bad: list[int] = []
    while True:
        candidates = [number for number in range(total) if number not in bad]
        ids = _draw(config, candidates, hashes, border, seed, sources)
        unread = [member for members in ids.values() for member in members if member not in moments]
        found = _look_through(config, sources, np.asarray(sorted(unread), np.int64), moments)
        if not found:
            return ids, moments
        if not config.drop_bad_samples:
            raise DataError(_bad_samples(config, sources, found))
        bad += found


def _draw(
    config: PDEBenchConfig, candidates: list[int], hashes: Mapping[int, str], border: int, seed: int, sources: FileSet
) -> dict[str, tuple[int, ...]]:
    """Test and validation trajectories first: more train data leave them as they are."""
    source = ", ".join(str(file.path) for file in sources.files)
    mine = [number for number in candidates if number < border]
    counts: dict[str, int | None] = {"validation": config.validation, "train": config.train}
    if config.test_path is None:
        return _in_order(drawn({"test": config.test, **counts}, mine, hashes, seed, source))
    others = [number for number in candidates if number >= border]
    held_out = drawn({"test": config.test}, others, hashes, seed, source)
    return _in_order(held_out | drawn(counts, mine, hashes, seed, source))


def _in_order(ids: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name: ids[name] for name in ("train", "validation", "test")}


def _look_through(
    config: PDEBenchConfig, sources: FileSet, ids: NDArray[np.int64], moments: dict[int, Moments]
) -> list[int]:
    """Add the moments of trajectories, as the model sees them; returns those that hold NaN or infinity."""
    bad = []
    for block, values in sources.blocks(ids, slice(None, None, config.time_stride)):
        found = Moments.of(values[..., :: config.space_stride, None])
        for row, member in enumerate(block.tolist()):
            moments[member] = found[row : row + 1]
            if not np.isfinite(found.squares[row]).all():
                bad.append(member)
    return bad


def _bad_samples(config: PDEBenchConfig, sources: FileSet, bad: list[int]) -> str:
    values = sources.rows(np.asarray(bad[:1]), slice(None))
    frame, point = np.argwhere(~np.isfinite(values[0]))[0]
    count = int((~np.isfinite(sources.rows(np.asarray(bad[:1024]), slice(None)))).sum())
    listed = ", ".join(str(member) for member in bad[:SHOWN]) + (", …" if len(bad) > SHOWN else "")
    return (
        f"{sources.place(bad[0])}: NaN or infinity at [time {frame}, x {point}]; {len(bad)} trajectories hold {count} "
        f"such values (ids {listed}); to leave these trajectories out, set dataset.drop_bad_samples = true"
    )
