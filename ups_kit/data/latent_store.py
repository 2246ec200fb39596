"""Latents on disk: Zarr v3 arrays in shards, each written by one process, counted only when whole, checked when read.

    <folder>/<key>/
        description.json   what the latents are of, and how the arrays are cut
        tokens/            (trajectory, frame, token, width), sharded; `zarr.open_array` reads it
        frames/            (trajectory, frame, 1 + P): time, and the condition as a model sees it; then the anchors,
                           (tokens, space_dims) in one row, where each trajectory has its own
        shards/00000.json  sizes and SHA-256 of a shard's files; a shard without this does not count
        COMPLETE           the digest of all of these; written last

What this guards against, as measured with zarr 3.1.6: without a checksum a flipped bit is read as a value, a missing
shard is read as the fill value, and two processes that write into one shard lose frames of each other.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import zarr
from attrs import define, field, frozen
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from ..errors import StorageError
from ..folder import sync_folder, write_bytes, write_json

FORMAT = 1
CHUNK_BYTES = 2**16  # unpacked: what reading one window costs at most, where it lies in one chunk
STORED = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}  # NumPy has no bfloat16: its bits
FILL = {"float32": np.nan, "float16": np.nan, "bfloat16": 0x7FC0}
INDEX_ENTRY, INDEX_CHECKSUM = 16, 4  # bytes of a shard's index: offset and size of each chunk, then CRC32C


class Damaged(Exception):  # noqa: N818 - never leaves this module's callers: becomes a warning or a StorageError
    """Why a shard cannot be trusted."""


@frozen
class Layout:
    """How large the arrays are, and how they are cut: whole trajectories into shards, their frames into chunks."""

    trajectories: int
    frames: int
    tokens: int
    width: int
    conditions: int
    dtype: str
    together: int  # trajectories in a shard
    chunk: int  # frames in a chunk
    places: int = 0  # numbers that say where the tokens of a frame stand; 0 where those of all stand at the same places

    @classmethod
    def cut(
        cls,
        trajectories: int,
        frames: int,
        tokens: int,
        width: int,
        conditions: int,
        dtype: str,
        shard_bytes: int,
        places: int = 0,
    ) -> Layout:
        """The layout whose shards have at most so many bytes, though never less than one trajectory."""
        frame = tokens * width * np.dtype(STORED[dtype]).itemsize
        together = min(max(1, shard_bytes // (frame * frames)), trajectories)
        chunk = min(max(1, CHUNK_BYTES // frame), frames)
        return cls(trajectories, frames, tokens, width, conditions, dtype, together, chunk, places)

    @property
    def columns(self) -> int:
        """Numbers that are kept beside the tokens of a frame: time, condition, places."""
        return 1 + self.conditions + self.places

    @property
    def shards(self) -> int:
        return -(-self.trajectories // self.together)

    @property
    def chunks(self) -> int:
        """Chunks of one trajectory."""
        return -(-self.frames // self.chunk)

    @property
    def bytes(self) -> int:
        """Size of all tokens, unpacked."""
        return self.trajectories * self.frames * self.tokens * self.width * np.dtype(STORED[self.dtype]).itemsize

    def rows(self, shard: int) -> range:
        """The trajectories of a shard."""
        return range(shard * self.together, min((shard + 1) * self.together, self.trajectories))


@define(eq=False)
class LatentStore:
    """The latents of one split by one encoder, for any number of readers and builders at once."""

    path: Path
    description: Mapping[str, Any]  # of JSON values; "layout" among them
    layout: Layout
    _claims: set[int] = field(factory=set, init=False)
    _tie: dict[str, str] = field(init=False)  # what ties a record to this store and to the way in which it is cut

    def __attrs_post_init__(self) -> None:
        text = json.dumps(self.description, sort_keys=True)
        self._tie = {"key": self.description["key"], "description": hashlib.sha256(text.encode()).hexdigest()}

    @classmethod
    def opened(cls, path: Path, description: Mapping[str, Any]) -> LatentStore:
        """The store at `path`, made where there is none; what is there keeps the way in which it is cut.

        A description that is damaged, or says something else in any other respect, is replaced: the shards that were
        written under it then no longer count. Raises StorageError.
        """
        with _storage(path):
            (path / "shards").mkdir(parents=True, exist_ok=True)
            with _locked(path, "description"):
                there = _read(path / "description.json")
                if not _same_but_for_cut(there, description):
                    write_json(path / "description.json", description)
                    there = dict(description)
                store = cls(path, there, Layout(**there["layout"]))
                store._make_arrays()
        return store

    # -----------------------------------------------------------------------------------------------------------------
    # Building
    # -----------------------------------------------------------------------------------------------------------------
    def fill(
        self,
        make: Callable[[range], tuple[NDArray[Any], NDArray[np.float64]]],
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> int:
        """Write every shard that is not there, together with all others who do so at the same time; how many were own.

        `make(trajectories)` gives tokens and frames of whole trajectories. A shard is claimed before it is made; who
        finds one claimed takes another, and at the end waits for it. The kernel gives up a dead builder's claims.
        """
        own = 0
        for wait in (False, True):
            for shard in range(self.layout.shards):
                if not self.holds(shard):
                    with self.claimed(shard, wait) as mine:
                        if mine and not self.holds(shard):
                            self.write(shard, *make(self.layout.rows(shard)))
                            own += 1
                report(self.layout.rows(shard).stop, self.layout.trajectories)
        return own

    @contextmanager
    def claimed(self, shard: int, wait: bool) -> Iterator[bool]:
        """Hold the right to write a shard; yields False where another has it and `wait` is not set."""
        with _locked(self.path, f"{shard:05}", wait) as mine:
            if mine:
                self._claims.add(shard)
            try:
                yield mine
            finally:
                self._claims.discard(shard)

    def write(self, shard: int, tokens: NDArray[Any], frames: NDArray[np.float64]) -> None:
        """Write a shard that is claimed; it counts when its record is in place."""
        layout, rows = self.layout, self.layout.rows(shard)
        assert shard in self._claims, "a shard is written by who has claimed it"
        assert tokens.shape == (len(rows), layout.frames, layout.tokens, layout.width), "a shard is written whole"
        assert frames.shape == (len(rows), layout.frames, layout.columns)
        with _storage(self.path):
            self._forget(shard)
            zarr.open_array(self.path / "tokens", mode="r+")[rows.start : rows.stop] = tokens
            zarr.open_array(self.path / "frames", mode="r+")[rows.start : rows.stop] = frames
            files = {}
            for name in self._files(shard):
                with (self.path / name).open("rb") as file:
                    os.fsync(file.fileno())
                    content = file.read()
                sync_folder((self.path / name).parent)
                files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            write_json(self._record(shard), self._tie | {"shard": shard, "files": files})

    def complete(self) -> None:
        """Mark the store as whole where it is not yet marked; raises StorageError where a shard is missing."""
        with _storage(self.path), _locked(self.path, "complete"):
            if self.is_complete:
                return
            missing = [shard for shard in range(self.layout.shards) if not self.holds(shard)]
            if missing:
                raise StorageError(f"{self.path}: shards {missing[:8]} went missing while the others were written")
            write_json(self.path / "COMPLETE", {"records": self._digest()})

    @property
    def was_complete(self) -> bool:
        """Whether the marker is there: what is missing now went missing since."""
        return (self.path / "COMPLETE").exists()

    @property
    def is_complete(self) -> bool:
        """Whether every shard counts, and the marker that was written after them all fits their records."""
        there = all(self.holds(shard) for shard in range(self.layout.shards))
        return there and _read(self.path / "COMPLETE").get("records") == self._digest()

    # -----------------------------------------------------------------------------------------------------------------
    # Checking
    # -----------------------------------------------------------------------------------------------------------------
    def holds(self, shard: int) -> bool:
        """Whether a shard was written, and its files have the sizes that they had then."""
        return self._why_incomplete(shard) is None

    def content(self, shard: int) -> dict[str, bytes]:
        """The bytes of a shard's files, by name. Raises Damaged where they are not what was written."""
        problem = self._why_incomplete(shard)
        if problem is not None:
            raise Damaged(problem)
        found = {}
        for name, expected in _read(self._record(shard))["files"].items():
            try:
                found[name] = (self.path / name).read_bytes()
            except OSError as error:
                raise Damaged(f"{name} cannot be read: {error.strerror}") from error
            if hashlib.sha256(found[name]).hexdigest() != expected.get("sha256"):
                raise Damaged(f"{name} is not what was written: its SHA-256 differs")
        return found

    def forget(self, shard: int) -> None:
        """Drop a shard that was found damaged, unless somebody has written it anew meanwhile."""
        with self.claimed(shard, wait=True):
            try:
                self.content(shard)
            except Damaged:
                self._forget(shard)

    def _forget(self, shard: int) -> None:
        self._record(shard).unlink(missing_ok=True)
        for name in self._files(shard):
            shutil.rmtree(self.path / Path(*Path(name).parts[:3]), ignore_errors=True)  # what a killed writer left, too

    def _why_incomplete(self, shard: int) -> str | None:
        record = _read(self._record(shard))
        if not record:
            return "its record is missing or damaged"
        expected = self._tie | {"shard": shard}
        files = record.get("files")
        if any(record.get(name) != value for name, value in expected.items()):
            return "its record is that of another shard, or of another cache"
        if not isinstance(files, dict) or sorted(files) != sorted(self._files(shard)):
            return "its record is damaged"
        for name, entry in files.items():
            try:
                size = (self.path / name).stat().st_size
            except OSError:
                return f"{name} is missing"
            if not isinstance(entry, dict) or size != entry.get("bytes"):
                return f"{name} has {size:,} bytes, and not those that were written"
        return None

    # -----------------------------------------------------------------------------------------------------------------
    # Reading
    # -----------------------------------------------------------------------------------------------------------------
    def index(self, shard: int, content: bytes) -> NDArray[np.uint64]:
        """Where each chunk of a shard lies: (trajectory in the shard, chunk, offset and size)."""
        chunks = self.layout.together * self.layout.chunks
        table = content[-INDEX_CHECKSUM - INDEX_ENTRY * chunks : -INDEX_CHECKSUM]
        return np.frombuffer(table, "<u8").reshape(self.layout.together, self.layout.chunks, 2)

    def chunk(self, packed: bytes, shard: int) -> NDArray[Any]:
        """The frames (frame, token, width) of a packed chunk. Raises StorageError where its checksum does not fit."""
        layout = self.layout
        try:
            values = np.frombuffer(Zstd().decode(packed), STORED[layout.dtype])
            return values.reshape(layout.chunk, layout.tokens, layout.width)
        except (RuntimeError, ValueError) as error:
            raise self.gone(shard, str(error)) from error

    def unpack(self, shard: int, content: bytes, into: NDArray[Any]) -> None:
        """Fill `into` (trajectory, frame, token, width) with a shard's tokens, from the bytes of its file."""
        layout, index = self.layout, self.index(shard, content)
        for row in range(len(layout.rows(shard))):
            for number in range(layout.chunks):
                offset, size = (int(part) for part in index[row, number])
                first = number * layout.chunk
                part = into[row, first : first + layout.chunk]
                part[:] = self.chunk(content[offset : offset + size], shard)[: len(part)]

    def frames(self, shard: int, content: bytes) -> NDArray[np.float64]:
        """Time, condition and places (trajectory, frame, 1 + P + places) of a shard from the bytes of its file."""
        layout = self.layout
        values = np.frombuffer(Zstd().decode(content), "<f8")
        whole = values.reshape(layout.together, layout.frames, layout.columns)
        return whole[: len(layout.rows(shard))]

    def gone(self, shard: int, why: str) -> StorageError:
        """What to say where a shard that was whole at the start no longer is."""
        return StorageError(
            f"{self.path / self._files(shard)[0]}: cached latents changed while they were in use ({why}); continue the "
            "run with --resume, which encodes them anew"
        )

    def file(self, shard: int) -> Path:
        """Where a shard's tokens lie."""
        return self.path / self._files(shard)[0]

    def names(self, shard: int) -> tuple[str, str]:
        """The files of a shard: tokens, then frames."""
        tokens, frames = self._files(shard)
        return tokens, frames

    @property
    def bytes_on_disk(self) -> int:
        """Size of all shards' files."""
        records = (_read(self._record(shard)) for shard in range(self.layout.shards))
        return sum(entry["bytes"] for record in records for entry in record.get("files", {}).values())

    # -----------------------------------------------------------------------------------------------------------------
    def _files(self, shard: int) -> tuple[str, str]:
        return f"tokens/c/{shard}/0/0/0", f"frames/c/{shard}/0/0"

    def _record(self, shard: int) -> Path:
        return self.path / "shards" / f"{shard:05}.json"

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for shard in range(self.layout.shards):
            digest.update(json.dumps(_read(self._record(shard)), sort_keys=True).encode())
        return digest.hexdigest()

    def _make_arrays(self) -> None:
        """The arrays' metadata, written again where they are not as they should be; shards stay."""
        layout, codec = self.layout, ZstdCodec(level=1, checksum=True)
        cells = (layout.tokens, layout.width)
        tokens: dict[str, Any] = {
            "shape": (layout.trajectories, layout.frames, *cells),
            "shards": (layout.together, layout.chunks * layout.chunk, *cells),
            "chunks": (1, layout.chunk, *cells),
            "dtype": STORED[layout.dtype],
            "fill_value": FILL[layout.dtype],
            "attributes": {"dtype": layout.dtype},
        }
        columns = layout.columns
        frames: dict[str, Any] = {
            "shape": (layout.trajectories, layout.frames, columns),
            "chunks": (layout.together, layout.frames, columns),
            "dtype": "<f8",
            "fill_value": np.nan,
        }
        for name, keys in (("tokens", tokens), ("frames", frames)):
            made: dict[str, Any] = {}
            zarr.create_array(made, compressors=codec, **keys)
            wanted, path = made["zarr.json"].to_bytes(), self.path / name / "zarr.json"
            path.parent.mkdir(exist_ok=True)
            if not path.is_file() or path.read_bytes() != wanted:
                write_bytes(path, wanted)


def _same_but_for_cut(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a description says the same, whatever the sizes of shards and chunks; those must be possible ones."""
    cut = ("together", "chunk")
    try:
        found = Layout(**there["layout"])
        layouts = [attrs.asdict(Layout(**described["layout"])) for described in (there, wanted)]
    except (KeyError, TypeError):
        return False
    whole = {name: value for name, value in there.items() if name != "layout"}
    other = {name: value for name, value in wanted.items() if name != "layout"}
    sizes = [{name: value for name, value in layout.items() if name not in cut} for layout in layouts]
    possible = all(isinstance(n, int) and n > 0 for n in (found.together, found.chunk))
    return whole == other and sizes[0] == sizes[1] and possible


def _read(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


@contextmanager
def _locked(path: Path, name: str, wait: bool = True) -> Iterator[bool]:
    """Hold one of a store's locks; the kernel lets go of it when the process dies, however it dies."""
    folder = path / ".locks"
    folder.mkdir(exist_ok=True)
    with (folder / name).open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextmanager
def _storage(path: Path) -> Iterator[None]:
    """What the system says about a folder as a StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{error.filename or path}: the latent cache cannot be kept here: {error.strerror or error}; choose "
            "another latent_cache.folder"
        ) from error
