"""Cached latents: what a frozen encoder makes of every frame, encoded once and read in the place of fields.

A cache is addressed by its content: the encoder's weights and keys, the data and how they are normalised, the split
and the type of numbers. Anything else has another key, and lies in another folder. Latents are those of frames as the
data give them, unshifted, by the weights that the run has when the stage begins: those that did best on validation.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch
from attrs import define, field, frozen
from numpy.typing import NDArray
from torch import Tensor, nn

from ..batching import to_device
from ..console import counting
from ..errors import DataError, StorageError
from ..interfaces import (
    Batch,
    Dataset,
    DrawsWindows,
    FieldSpec,
    Latent,
    Multitask,
    PointSet,
    ReadsPoints,
    Trajectories,
)
from ..recipe import LatentCache
from .latent_key import content, probes
from .latent_store import FORMAT, STORED, Damaged, LatentStore, Layout
from .memory import available_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..assemble import Experiment
    from ..model import LatentModel
    from .normalisation import Normaliser
    from .splits import Splits

DEFAULT_FOLDER = ".latents"  # in run.folder: no run can be called so
POINTS_TOGETHER, FRAMES_TOGETHER = 2**20, 256  # encoded in one call, at most
SHARE_OF_MEMORY = 0.5  # that "auto" may fill
TORCH_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


# ---------------------------------------------------------------------------------------------------------------------
# A dataset whose batches have latents
# ---------------------------------------------------------------------------------------------------------------------
@frozen(eq=False)
class CachedLatents:
    """A dataset whose batches of one split come with the latents of t, t+1 … t+K. Also a dataset.

    With `reads_fields` not set, fields are not read for that split: a batch then has its latents, conditions, ids and
    times, and fields of no points at all.
    """

    dataset: Dataset
    latents: LatentReader
    split: str
    reads_fields: bool

    @property
    def fields(self) -> FieldSpec:
        return self.dataset.fields

    @property
    def normaliser(self) -> Normaliser:
        return self.dataset.normaliser

    @property
    def splits(self) -> Splits:
        return self.dataset.splits

    def windows(self, split: str, steps: int) -> int:
        """How many windows of `history` given and `steps` future frames a split holds."""
        return self.dataset.windows(split, steps)

    def trajectories(self, split: str, limit: int | None = None) -> Trajectories:
        """Trajectories of a split in physical units."""
        return self.dataset.trajectories(split, limit)

    def batch(self, split: str, windows: np.ndarray, steps: int) -> Batch:
        """The windows with these numbers. Raises StorageError where the cache was changed while it is in use."""
        if split != self.split:
            return self.dataset.batch(split, windows, steps)
        return self._batch(windows, steps, lambda: self.dataset.batch(split, windows, steps))

    def batch_at_points(self, split: str, windows: np.ndarray, steps: int, seed: int) -> Batch:
        """The same with fields at some points alone, where the dataset can read them so."""
        dataset = self.dataset
        if not isinstance(dataset, ReadsPoints):
            return self.batch(split, windows, steps)
        if split != self.split:
            return dataset.batch_at_points(split, windows, steps, seed)
        return self._batch(windows, steps, lambda: dataset.batch_at_points(split, windows, steps, seed))

    def _batch(self, windows: np.ndarray, steps: int, read: Callable[[], Batch]) -> Batch:
        members, starts = self.latents.places(windows, steps)
        tokens = self.latents.tokens(members, starts[None] + np.arange(steps + 1)[:, None])
        batch = read() if self.reads_fields else self._bare(members, starts, steps)
        latents = (
            Latent(part, self.latents.where(members, starts + step), self.latents.lattice, batch.condition)
            for step, part in enumerate(tokens)
        )
        return batch._replace(latents=tuple(latents))

    def _bare(self, members: NDArray[np.int64], starts: NDArray[np.int64], steps: int) -> Batch:
        """Windows without their fields: the leading sizes are right, and there are no points."""
        fields, size = self.fields, len(members)
        positions = torch.empty(size, 0, fields.space_dims)
        frames = torch.from_numpy(self.latents.frames[members, starts]).float()
        return Batch(
            inputs=PointSet(positions, torch.empty(size, 0, fields.input_channels)),
            states=torch.empty(size, steps + 1, 0, fields.target_channels),
            positions=positions,
            grid=None,
            condition=frames[:, 1:],
            ids=torch.from_numpy(self.latents.ids[members]),
            times=frames[:, 0],
        )


@define(eq=False)
class LatentReader:
    """The latents of a store that was found whole: from memory where they were put there, else from its files."""

    store: LatentStore
    ids: NDArray[np.int64]  # (trajectories,)
    frames: NDArray[np.float64]  # (trajectories, frames, 1 + P): time, condition
    anchors: Tensor | None  # (T, D), or of each trajectory (trajectories, frames, T, D), one frame where they stand
    lattice: tuple[int, ...] | None
    memory: NDArray[Any] | None  # (trajectories, frames, tokens, width) as stored
    indices: list[NDArray[np.uint64]]  # of each shard: where its chunks lie

    def __reduce__(self) -> tuple[Any, ...]:
        """What is in memory stays there: another process reads from the files."""
        without = (self.store, self.ids, self.frames, self.anchors, self.lattice, None, self.indices)
        return LatentReader, without

    def places(self, windows: np.ndarray, steps: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The trajectory of each window, and the first of its latents. Raises IndexError for one that is not there."""
        layout = self.store.layout
        starts = max(layout.frames - steps, 0)
        if len(windows) and not 0 <= windows.min() <= windows.max() < layout.trajectories * starts:
            raise IndexError(f"{layout.trajectories * starts} windows of {steps} steps are cached")
        members, first = np.divmod(np.asarray(windows, np.int64), max(starts, 1))
        return members, first

    def where(self, members: NDArray[np.int64], frames: NDArray[np.int64]) -> Tensor | None:
        """Where the tokens of trajectories (B,) stand at frames (B,): (T, D) where all do alike, else (B, T, D)."""
        if self.anchors is None or self.anchors.dim() == 2:
            return self.anchors
        frames = np.minimum(frames, self.anchors.shape[1] - 1)
        return self.anchors[torch.from_numpy(members), torch.from_numpy(frames)]

    def tokens(self, members: NDArray[np.int64], frames: NDArray[np.int64]) -> list[Tensor]:
        """Tokens (B, T, d) in float32 of trajectories (B,) at frames (K + 1, B), one tensor for each step."""
        layout = self.store.layout
        if self.memory is None:
            values = self._from_files(members, frames)
        else:
            flat = self.memory.reshape(-1, layout.tokens * layout.width)
            values = flat[members * layout.frames + frames]
        tokens = as_tensor(values, layout.dtype).float()
        return list(tokens.reshape(*frames.shape, layout.tokens, layout.width).unbind(0))

    def _from_files(self, members: NDArray[np.int64], frames: NDArray[np.int64]) -> NDArray[Any]:
        layout = self.store.layout
        values = np.empty((*frames.shape, layout.tokens * layout.width), STORED[layout.dtype])
        shards = members // layout.together
        for shard in np.unique(shards).tolist():
            with self._opened(shard) as descriptor:
                unpacked: dict[tuple[int, int], NDArray[Any]] = {}
                for column in np.flatnonzero(shards == shard).tolist():
                    row = int(members[column]) % layout.together
                    for step, frame in enumerate(frames[:, column].tolist()):
                        place = (row, frame // layout.chunk)
                        if place not in unpacked:
                            unpacked[place] = self._chunk(descriptor, shard, *place)
                        values[step, column] = unpacked[place][frame % layout.chunk].reshape(-1)
        return values

    @contextmanager
    def _opened(self, shard: int) -> Iterator[int]:
        try:
            descriptor = os.open(self.store.file(shard), os.O_RDONLY)
        except OSError as error:
            raise self.store.gone(shard, str(error.strerror)) from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _chunk(self, descriptor: int, shard: int, row: int, number: int) -> NDArray[Any]:
        offset, size = (int(part) for part in self.indices[shard][row, number])
        try:
            return self.store.chunk(os.pread(descriptor, size, offset), shard)
        except OSError as error:
            raise self.store.gone(shard, str(error.strerror)) from error


def as_tensor(values: NDArray[Any], dtype: str) -> Tensor:
    """Stored numbers as a tensor of their type; shares the memory."""
    tensor = torch.from_numpy(values.view(np.int16) if dtype == "bfloat16" else values)
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor


def as_stored(tokens: Tensor, dtype: str) -> NDArray[Any]:
    """Tokens as they are stored. Raises DataError where one of them is too large for the type, or no number."""
    cast = tokens.to(TORCH_TYPES[dtype]).cpu()
    if not bool(torch.isfinite(cast).all()):
        largest = float(tokens.abs().max())
        raise DataError(
            f"the encoder's tokens reach {largest:g}, which {dtype} does not hold; "
            + ('set latent_cache.dtype = "bfloat16" or "float32"' if np.isfinite(largest) else "train the codec anew")
        )
    return cast.view(torch.int16).numpy().view("<u2") if dtype == "bfloat16" else cast.numpy()


# ---------------------------------------------------------------------------------------------------------------------
# Opening, and building what is not there
# ---------------------------------------------------------------------------------------------------------------------
@frozen
class Opened:
    """A cache that was opened, and what it took."""

    reader: LatentReader
    encoded: int  # shards that this process encoded
    seconds: float  # wall seconds, waiting for other builders included

    def summary(self) -> dict[str, Any]:
        """What a run's summary holds of it."""
        store = self.reader.store
        return {
            "folder": str(store.path),
            "bytes": store.bytes_on_disk,
            "shards": store.layout.shards,
            "encoded_shards": self.encoded,
            "seconds": self.seconds,
            "in_memory": self.reader.memory is not None,
        }

    def line(self) -> str:
        """The same in words."""
        store = self.reader.store
        layout, place = store.layout, "in memory" if self.reader.memory is not None else "read from disk"
        size, shape = store.bytes_on_disk / 1e6, f"{layout.tokens} x {layout.width} {layout.dtype}"
        return (
            f"latents of {layout.trajectories} trajectories of {layout.frames} frames, {shape}: {size:,.1f} MB in "
            f"{store.path}, {self.encoded} of {layout.shards} shards encoded now, {self.seconds:.1f} s, {place}"
        )


def open_latents(experiment: Experiment, split: str = "train", preload: bool | None = None) -> Opened:
    """The latents of a split by the experiment's encoder as it is now; encodes what is not there yet.

    Any number of processes may do this at once: they share the work. A shard that is missing or damaged is encoded
    anew, with a warning. `preload` False leaves them on disk, whatever the recipe says. Raises DataError where the
    data or the encoder are of a kind that is not cached, StorageError where there is no room.
    """
    cache, started = experiment.recipe.latent_cache or LatentCache(), time.perf_counter()
    encoding = Encoding.of(experiment, split, cache)
    folder = cache.folder or experiment.recipe.run.folder / DEFAULT_FOLDER
    store = LatentStore.opened(folder / encoding.description["key"][:24], encoding.description)
    in_memory = _fits(cache, store.layout) if preload is None else preload
    encoded = 0
    for attempt in range(3):
        if attempt or not store.was_complete:
            encoded += _filled(store, encoding)
        damaged, reader = _looked_through(store, encoding, in_memory)
        if reader is not None:
            store.complete()
            return Opened(reader, encoded, time.perf_counter() - started)
        for shard, why in damaged.items():
            warnings.warn(f"{store.path}: shard {shard}: {why}; it is encoded anew", stacklevel=2)
            store.forget(shard)
    raise StorageError(f"{store.path}: shards are damaged as soon as they are written; choose another folder")


def _filled(store: LatentStore, encoding: Encoding) -> int:
    """Encode what is missing; how many shards that were."""
    _check_space(store)
    with counting(f"encoding latents of split '{encoding.split}'") as report:
        own = store.fill(encoding.encode, report)
    store.complete()
    return own


def _looked_through(
    store: LatentStore, encoding: Encoding, in_memory: bool
) -> tuple[dict[int, str], LatentReader | None]:
    """Compare every shard with its record; a reader where all are whole, else what is wrong with which."""
    layout = store.layout
    cells = (layout.tokens, layout.width)
    memory = np.empty((layout.trajectories, layout.frames, *cells), STORED[layout.dtype]) if in_memory else None
    frames = np.empty((layout.trajectories, layout.frames, layout.columns))
    indices, damaged = [], {}
    for shard in range(layout.shards):
        rows = slice(layout.rows(shard).start, layout.rows(shard).stop)
        try:
            content = store.content(shard)
        except Damaged as error:
            damaged[shard] = str(error)
            continue
        tokens_file, frames_file = store.names(shard)
        frames[rows] = store.frames(shard, content[frames_file])
        if memory is not None:
            store.unpack(shard, content[tokens_file], memory[rows])
        indices.append(store.index(shard, content[tokens_file]).copy())
    if damaged:
        return damaged, None
    ids = np.asarray(encoding.dataset.splits[encoding.split], np.int64)
    given, anchors = frames[..., : 1 + layout.conditions], encoding.anchors
    if layout.places:
        anchors = _standing(frames[..., 1 + layout.conditions :], layout.tokens)
    return {}, LatentReader(store, ids, np.ascontiguousarray(given), anchors, encoding.lattice, memory, indices)


def _standing(places: NDArray[np.float64], tokens: int) -> Tensor:
    """Anchors (trajectories, frames, T, D) from their numbers in one row; one frame of them where none moves."""
    if (places == places[:, :1]).all():
        places = places[:, :1]
    return torch.from_numpy(places.astype(np.float32).reshape(*places.shape[:2], tokens, -1))


def _fits(cache: LatentCache, layout: Layout) -> bool:
    """Whether the latents are to be held in memory. Raises StorageError where they must be and do not fit."""
    if cache.preload is False:
        return False
    free = available_memory()
    if cache.preload is True and layout.bytes > free:
        raise StorageError(
            f"latent_cache.preload = true: the latents take {layout.bytes / 1e9:.2f} GB, and {free / 1e9:.2f} GB of "
            'memory are free; set preload = "auto" or false to read them from disk, or dtype = "float16"'
        )
    return cache.preload is True or layout.bytes <= SHARE_OF_MEMORY * free


def _check_space(store: LatentStore) -> None:
    layout = store.layout
    missing = sum(not store.holds(shard) for shard in range(layout.shards))
    needed, free = layout.bytes * missing // layout.shards, shutil.disk_usage(store.path).free
    if needed > free:
        raise StorageError(
            f"{store.path}: the latents still need {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free; choose "
            'another latent_cache.folder, or dtype = "float16"'
        )


# ---------------------------------------------------------------------------------------------------------------------
# Encoding
# ---------------------------------------------------------------------------------------------------------------------
@frozen(eq=False)
class Encoding:
    """One split seen by one encoder: how its latents are made, and what makes them these and no others."""

    dataset: Dataset
    model: LatentModel
    split: str
    dtype: str
    device: torch.device
    frames: int  # latents of one trajectory
    description: Mapping[str, Any] = field(repr=False)
    anchors: Tensor | None = field(repr=False)
    lattice: tuple[int, ...] | None

    @classmethod
    def of(cls, experiment: Experiment, split: str, cache: LatentCache) -> Encoding:
        """Raises DataError where the data or the encoder are of a kind that is not cached."""
        dataset, model = experiment.dataset, experiment.model
        frames = latents_of_one(dataset, split)
        latent, batch = _first_latent(dataset, model, split, experiment.device)
        layout = Layout.cut(
            trajectories=len(dataset.splits[split]),
            frames=frames,
            tokens=latent.tokens.shape[1],
            width=latent.tokens.shape[2],
            conditions=batch.condition.shape[1],
            dtype=cache.dtype,
            shard_bytes=cache.shard * 10**6,
            places=0 if latent.anchors is None or latent.anchors.dim() == 2 else latent.anchors[0].numel(),
        )
        parts = content(experiment, split, cache.dtype)
        anchors = None if latent.anchors is None or layout.places else latent.anchors.detach().cpu()
        description = {
            "format": FORMAT,
            "key": hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest(),
            "latents_of": parts,
            "anchors": None if anchors is None else anchors.tolist(),
            "lattice": None if latent.grid is None else list(latent.grid),
            "layout": attrs.asdict(layout),
        }
        return cls(dataset, model, split, cache.dtype, experiment.device, frames, description, anchors, latent.grid)

    @torch.no_grad()
    def encode(self, trajectories: range) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Tokens (trajectories, frames, T, d) as stored; time, condition and places (trajectories, frames, columns)."""
        numbers = np.arange(trajectories.start * self.frames, trajectories.stop * self.frames, dtype=np.int64)
        fields = self.dataset.fields
        points = fields.points or (fields.counts or (1, 1))[1]
        size = min(max(1, POINTS_TOGETHER // points), FRAMES_TOGETHER)
        tokens, frames = [], []
        with _evaluating(self.model.encoder):
            for start in range(0, len(numbers), size):
                batch = self.dataset.batch(self.split, numbers[start : start + size], 0)
                latent = _encoded(self.model, batch, self.device)
                tokens.append(as_stored(latent.tokens, self.dtype))
                columns = [batch.times.numpy()[:, None], batch.condition.numpy()]
                if latent.anchors is not None and latent.anchors.dim() == 3:
                    columns.append(latent.anchors.flatten(1).cpu().numpy())
                frames.append(np.concatenate(columns, 1, dtype="f8"))
        shape = (len(trajectories), self.frames)
        return (
            np.concatenate(tokens).reshape(*shape, *tokens[0].shape[1:]),
            np.concatenate(frames).reshape(*shape, -1),
        )


def latents_of_one(dataset: Dataset, split: str) -> int:
    """How many latents one trajectory of a split has. Raises DataError for data whose latents are not cached."""
    if isinstance(dataset, (Multitask, DrawsWindows)):
        raise DataError("latent_cache: latents of a mixture of tasks are not cached; remove [latent_cache]")
    if dataset.fields.steady:
        raise DataError("latent_cache: steady data have no future frames to encode; remove [latent_cache]")
    members, total = dataset.splits[split], dataset.windows(split, 0)
    frames = total // max(len(members), 1)
    if not frames or frames * len(members) != total:
        raise DataError(
            f"latent_cache: the trajectories of split '{split}' have different numbers of frames ({total} in "
            f"{len(members)} trajectories), and are not cached; remove [latent_cache]"
        )
    return frames


def check_numbering(dataset: Dataset, reader: LatentReader, split: str, steps: int) -> None:
    """Raise DataError where a dataset numbers its windows in another way than the cache: trajectory by trajectory."""
    total = dataset.windows(split, steps)
    numbers = probes(total)
    if total == reader.store.layout.trajectories * max(reader.store.layout.frames - steps, 0):
        batch = dataset.batch(split, numbers, steps)
        members, starts = reader.places(numbers, steps)
        frames = torch.from_numpy(reader.frames[members, starts]).float()
        found = torch.cat([batch.times.float()[:, None], batch.condition.float()], 1)
        if torch.equal(found, frames) and np.array_equal(batch.ids.numpy(), reader.ids[members]):
            return
    raise DataError(
        f"latent_cache: the dataset numbers its windows of {steps} steps otherwise than trajectory by trajectory, and "
        "its latents are not cached; remove [latent_cache]"
    )


@torch.no_grad()
def _first_latent(dataset: Dataset, model: LatentModel, split: str, device: torch.device) -> tuple[Latent, Batch]:
    batch = dataset.batch(split, np.zeros(1, np.int64), 0)
    with _evaluating(model.encoder):
        return _encoded(model, batch, device), batch


def _encoded(model: LatentModel, batch: Batch, device: torch.device) -> Latent:
    there = to_device(batch, device)
    return model.encode(there.inputs, there.condition)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def cached_dataset(
    experiment: Experiment, steps: int, reads_fields: bool, tell: Callable[[str], None]
) -> tuple[CachedLatents, dict[str, Any]]:
    """The experiment's data with latents of the train split, for windows of so many steps; and a summary of them."""
    opened = open_latents(experiment)
    check_numbering(experiment.dataset, opened.reader, "train", steps)
    tell(opened.line())
    return CachedLatents(experiment.dataset, opened.reader, "train", reads_fields), opened.summary()
