"""Zarr v3: the same values as Zarr's own reader gives, and no fill value, code or foreign file from a store that is not
what it should be."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec

from ups_kit import DataError
from ups_kit.data import byte_stores, chunks
from ups_kit.data.chunks import ChunkCache
from ups_kit.data.zarr_store import ZarrArray, ZarrStore, tree_of_zarr

SHAPE = (5, 7, 6, 4, 2)  # trajectory, time, x, y, channel


@pytest.fixture
def values() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)


def write(folder: Path, values: NDArray[Any], **creation: Any) -> ZarrArray:
    """One array `u` in a store, every chunk of it written."""
    with zarr.config.set({"array.write_empty_chunks": True}):
        root = zarr.create_group(folder)
        root.create_array("u", shape=values.shape, dtype=values.dtype, **creation)[...] = values
    return ZarrStore.open(folder).array("u")


CHECKED = ZstdCodec(level=1, checksum=True)
STORED: Mapping[str, dict[str, Any]] = {
    "one file for each chunk": {"chunks": (1, 2, 6, 4, 2)},
    "not packed": {"chunks": (1, 3, 6, 4, 2), "compressors": None},
    "sharded": {"chunks": (1, 2, 6, 4, 2), "shards": (2, 4, 6, 4, 2), "compressors": CHECKED},
    "sharded, not packed": {"chunks": (1, 2, 6, 4, 2), "shards": (2, 8, 6, 4, 2), "compressors": None},
    "chunks of space": {"chunks": (2, 3, 4, 3, 1), "compressors": CHECKED},
    "chunks of space in shards": {"chunks": (1, 2, 3, 2, 2), "shards": (2, 4, 6, 4, 2)},
    "gzip": {"chunks": (2, 2, 6, 4, 2), "compressors": GzipCodec(level=1)},
    "blosc": {"chunks": (2, 2, 6, 4, 2), "compressors": BloscCodec(cname="lz4", shuffle="shuffle")},
    "checksum": {"chunks": (1, 2, 6, 4, 2), "compressors": Crc32cCodec()},
    "two packers": {"chunks": (1, 2, 6, 4, 2), "compressors": (ZstdCodec(), Crc32cCodec())},
    "big-endian": {"chunks": (1, 2, 6, 4, 2), "serializer": BytesCodec(endian="big")},
    "transposed": {"chunks": (1, 2, 6, 4, 2), "filters": TransposeCodec(order=(4, 1, 0, 3, 2))},
    "index before the chunks": {
        "chunks": (2, 4, 6, 4, 2),
        "serializer": ShardingCodec(chunk_shape=(1, 2, 6, 4, 2), index_location="start"),
        "compressors": None,
    },
    "other names of chunks": {"chunks": (1, 2, 6, 4, 2), "chunk_key_encoding": {"name": "v2", "separator": "."}},
}


@pytest.mark.parametrize("how", STORED)
def test_values_are_those_of_zarr(tmp_path: Path, values: NDArray[np.float32], how: str) -> None:
    array = write(tmp_path / "s.zarr", values, **STORED[how])
    samples, frames = np.array([3, 0, 3, 4]), np.array([[0, 2, 4], [4, 5, 6], [1, 3, 5], [0, 1, 2]])
    for _ in range(2):  # from the store, and what is kept of it
        np.testing.assert_array_equal(array.gather(samples, frames), values[samples[:, None], frames])
    np.testing.assert_array_equal(array.rows([4, 1], slice(1, None, 2)), values[[4, 1], 1::2])
    points = np.array([[0, 23], [5, 5], [11, 2], [22, 1]])
    flat = values.reshape(*SHAPE[:2], -1, 2)
    expected = flat[samples[:, None, None], frames[..., None], points[:, None]]
    np.testing.assert_array_equal(array.gather_points(samples, frames, points, 2), expected)
    np.testing.assert_array_equal(array.values(), values)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "uint8", "bool"])
def test_other_numbers(tmp_path: Path, dtype: str) -> None:
    values = np.random.default_rng(1).integers(0, 2, (3, 4, 5)).astype(dtype)
    array = write(tmp_path / "s.zarr", values, chunks=(1, 4, 5))
    np.testing.assert_array_equal(array.values(), values)
    np.testing.assert_array_equal(array.rows([0, 2], slice(None)), values[[0, 2]].astype(np.float32))


def test_an_array_without_trajectories(tmp_path: Path, values: NDArray[np.float32]) -> None:
    array = write(tmp_path / "s.zarr", values[0], chunks=(2, 6, 4, 2), shards=(4, 6, 4, 2)).led_by(1)
    np.testing.assert_array_equal(array.rows([0, 0], slice(None)), values[[0, 0]])


# ---------------------------------------------------------------------------------------------------------------------
# What reading costs
# ---------------------------------------------------------------------------------------------------------------------
class CountingPlace:
    """A store that counts what it is asked for."""

    def __init__(self, place: Any) -> None:
        self.place, self.label, self.keys = place, place.label, []

    def threads(self, nbytes: int) -> int:
        return 1

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        self.keys.append((key, start, length))
        found: bytes | None = self.place.read(key, start, length)
        return found

    def check_unchanged(self) -> None:
        self.place.check_unchanged()


def test_a_batch_reads_each_chunk_once_and_what_is_kept_not_again(tmp_path: Path, values: NDArray[np.float32]) -> None:
    array = write(tmp_path / "s.zarr", values, chunks=(1, 4, 6, 4, 2), shards=(5, 8, 6, 4, 2))
    place = CountingPlace(array.place)
    counted = ZarrArray(place, array.path, array.metadata)
    samples, frames = np.array([2, 2, 0, 2, 0]), np.array([[0, 1], [1, 2], [5, 6], [3, 4], [4, 5]])
    counted.gather(samples, frames)
    # three chunks of one shard: frames 0 to 3 and 4 to 7 of trajectory 2, 4 to 7 of trajectory 0; and the shard's index
    assert len(place.keys) == len(set(place.keys)) == 4
    counted.gather(samples, frames)
    assert len(place.keys) == 4


def test_of_a_plain_chunk_only_the_frames_are_read(tmp_path: Path) -> None:
    values = np.arange(2 * 100 * 8, dtype=np.float32).reshape(2, 100, 8)
    array = write(tmp_path / "s.zarr", values, chunks=(1, 100, 8), compressors=None)
    place = CountingPlace(array.place)
    found = ZarrArray(place, array.path, array.metadata).gather(np.array([1]), np.array([[40, 41]]))
    np.testing.assert_array_equal(found[0], values[1, 40:42])
    assert place.keys == [("u/c/1/0/0", 40 * 32, 2 * 32)]


def test_kept_chunks_stay_within_their_limit() -> None:
    cache = ChunkCache(1000)
    for number in range(50):
        cache.put((number,), np.zeros(30, np.float32))
        assert cache.nbytes <= 1000
    assert [number for number in range(50) if cache.get((number,)) is not None] == list(range(42, 50))
    cache.put(("large",), np.zeros(1000, np.float32))
    assert cache.get(("large",)) is None
    assert cache.get((49,)) is not None


def test_all_arrays_share_one_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_PROCESS", [chunks._Process(cache=ChunkCache(2**16))])
    values = np.random.default_rng(0).standard_normal((40, 8, 128), dtype=np.float32)
    for name in ("a", "b", "c"):
        array = write(tmp_path / f"{name}.zarr", values, chunks=(1, 8, 128))
        np.testing.assert_array_equal(array.rows(range(40), slice(None)), values)
        assert chunks.process_cache().nbytes <= 2**16


def _sum(array: ZarrArray) -> float:
    return float(array.rows(range(array.shape[0]), slice(None)).sum())


def test_an_array_travels_to_other_processes_without_its_files(tmp_path: Path, values: NDArray[np.float32]) -> None:
    array = write(tmp_path / "s.zarr", values, chunks=(1, 2, 6, 4, 2), shards=(5, 8, 6, 4, 2))
    total = _sum(array)
    assert len(pickle.dumps(array)) < 4000
    assert _sum(pickle.loads(pickle.dumps(array))) == total
    with multiprocessing.get_context("fork").Pool(2) as workers:
        assert workers.map(_sum, [array] * 4) == [total] * 4


# ---------------------------------------------------------------------------------------------------------------------
# What is refused (D18, D19, F37)
# ---------------------------------------------------------------------------------------------------------------------
def refused(folder: Path, *parts: str) -> str:
    with pytest.raises(DataError) as caught:
        ZarrStore.open(folder).array("u").values()
    message = str(caught.value)
    assert str(folder) in message
    for part in parts:
        assert part in message, message
    return message


@pytest.fixture
def folder(tmp_path: Path, values: NDArray[np.float32]) -> Path:
    write(tmp_path / "s.zarr", values, chunks=(1, 2, 6, 4, 2), shards=(2, 8, 6, 4, 2), compressors=CHECKED)
    return tmp_path / "s.zarr"


def edit(path: Path, **changes: Any) -> None:
    """Set keys of a zarr.json; None removes one."""
    document = json.loads(path.read_text())
    document.update(changes)
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.zarr: no such folder; expected a Zarr store"):
        ZarrStore.open(tmp_path / "absent.zarr")
    (tmp_path / "file.zarr").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"file\.zarr: is no folder; .*unpack it"):
        ZarrStore.open(tmp_path / "file.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(DataError, match=r"empty\.zarr/zarr\.json: expected this file, got none"):
        ZarrStore.open(tmp_path / "empty.zarr")


def test_no_array_of_the_name(folder: Path) -> None:
    with pytest.raises(DataError, match=r"s\.zarr/v/zarr\.json: expected this file, got none .*holds u"):
        ZarrStore.open(folder).array("v")


def test_v2_is_refused_with_what_makes_it_v3(tmp_path: Path) -> None:
    root = zarr.create_group(tmp_path / "old.zarr", zarr_format=2)
    root.create_array("u", shape=(3,), dtype="f4")
    with pytest.raises(DataError, match=r"\.zgroup: expected Zarr v3 \(zarr\.json\), got Zarr v2; `zarr migrate v3 "):
        ZarrStore.open(tmp_path / "old.zarr")


class Bomb:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> Any:
        return exec, ("raise AssertionError('code of the file was run')",)


@pytest.mark.parametrize("hidden", [{"dtype": "|O", "filters": [{"id": "pickle"}]}, {"dtype": "|O", "filters": None}])
def test_objects_of_v2_are_refused_and_never_unpickled(tmp_path: Path, hidden: Mapping[str, Any]) -> None:
    old = tmp_path / "old.zarr"
    old.mkdir()
    header = {
        "zarr_format": 2,
        "shape": [1],
        "chunks": [1],
        "compressor": None,
        "order": "C",
        "fill_value": 0,
        **hidden,
    }
    (old / ".zarray").write_text(json.dumps(header))
    (old / "0").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match="got Zarr v2, of objects, which are not read: unpacking them may run code"):
        ZarrStore.open(old)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"zarr_format": 2}, ["expected zarr_format 3, got 2"]),
        ({"node_type": "table"}, ["expected the node_type 'array' or 'group', got 'table'"]),
        ({"shape": [5, 7, 6, 4]}, ["chunk_shape: expected 4 numbers"]),
        ({"shape": [5, -7, 6, 4, 2]}, ["shape: expected whole numbers of at least 0, got [5, -7"]),
        ({"shape": "many"}, ["shape: expected whole numbers"]),
        ({"shape": [2**40, 2**40]}, ["shape: expected at most 2^62 values"]),
        ({"data_type": "string"}, ["got 'string'", "may run code"]),
        ({"data_type": {"name": "object", "configuration": {}}}, ["got 'object'", "may run code"]),
        ({"data_type": "complex64"}, ["data_type: expected one of bool", "got 'complex64'"]),
        ({"data_type": None}, ["data_type: expected one of"]),
        ({"codecs": [{"name": "numcodecs.pickle"}]}, ["codecs", "got 'numcodecs.pickle'"]),
        ({"codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "lzma"}]}, ["got 'lzma'"]),
        ({"codecs": []}, ["expected the codec 'bytes'"]),
        ({"codecs": "zstd"}, ["codecs: expected a list, got str"]),
        ({"storage_transformers": [{"name": "x"}]}, ["storage_transformers: expected none"]),
        ({"chunk_grid": {"name": "rectilinear", "configuration": {}}}, ["expected regular, got 'rectilinear'"]),
        (
            {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "../"}}},
            ["expected the separator"],
        ),
        ({"attributes": []}, ["expected a table of attributes"]),
        ({"surprise": 1}, ["got the key 'surprise'"]),
    ],
)
def test_metadata_that_say_something_else(folder: Path, changes: Mapping[str, Any], parts: list[str]) -> None:
    edit(folder / "u" / "zarr.json", **changes)
    refused(folder, "u/zarr.json", *parts, "make or download the store again")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 100_000])
def test_metadata_that_are_no_json(folder: Path, text: bytes) -> None:
    (folder / "u" / "zarr.json").write_bytes(text)
    refused(folder, "u/zarr.json: expected")


@pytest.mark.parametrize(
    ("shape", "chunk", "part"),
    [
        ([10**14], [10**14], "expected chunks of at most 1,073,741,824 bytes, got 800,000,000,000,000"),
        ([10**14], [10**6], "(800,000,000,000,000 bytes in 100,000,000 files), got no such file"),
        ([10**14], [10**8], "files), got no such file"),
    ],
)
def test_800_terabytes_are_refused_from_the_metadata(
    folder: Path, shape: list[int], chunk: list[int], part: str
) -> None:
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "zstd", "configuration": {}}]
    grid = {"name": "regular", "configuration": {"chunk_shape": chunk}}
    edit(folder / "u" / "zarr.json", shape=shape, data_type="float64", chunk_grid=grid, codecs=codecs)
    with pytest.raises(DataError, match="expected") as caught:
        ZarrStore.open(folder).array("u")
    assert part in str(caught.value)


def test_a_missing_shard_is_no_fill_value(folder: Path) -> None:
    (folder / "u/c/1/0/0/0/0").unlink()
    refused(folder, "u/c/1/0/0/0/0: expected a shard", "got no such file", "not taken for the fill value")
    shutil.rmtree(folder / "u/c")
    refused(folder, "3 of 3 are missing")


def test_a_shard_that_is_lost_while_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = ZarrStore.open(folder).array("u")
    (folder / "u/c/2/0/0/0/0").unlink()
    assert array.rows([0, 3], slice(None)).shape == (2, *SHAPE[1:])
    with pytest.raises(DataError, match=r"u/c/2/0/0/0/0: expected a shard .* got no such file"):
        array.rows([4], slice(None))


def test_a_file_that_is_missing_among_thousands_is_told_when_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of so many files only the ends are looked for when the array is opened; none is ever taken for zeros."""
    values = np.ones((1200, 2, 4), np.float32)
    folder = tmp_path / "s.zarr"
    write(folder, values, chunks=(1, 2, 4))
    looked: list[str] = []
    holds = byte_stores.LocalBytes.holds
    monkeypatch.setattr(byte_stores.LocalBytes, "holds", lambda self, key: looked.append(key) or holds(self, key))
    (folder / "u/c/700/0/0").unlink()
    array = ZarrStore.open(folder).array("u")
    assert len(looked) <= 2
    assert (array.rows([699, 701], slice(None)) == 1).all()
    with pytest.raises(DataError, match=r"u/c/700/0/0: expected a chunk .* got no such file"):
        array.rows([699, 700], slice(None))
    (folder / "u/c/1199/0/0").unlink()
    refused(folder, "u/c/1199/0/0: expected a chunk", "got no such file")


# ---------------------------------------------------------------------------------------------------------------------
# F32: stores that change while they are read
# ---------------------------------------------------------------------------------------------------------------------
def test_f32_a_store_that_is_replaced_is_told(tmp_path: Path, folder: Path, values: NDArray[np.float32]) -> None:
    array = ZarrStore.open(folder).array("u")
    array.rows([0], slice(None))
    sent = pickle.dumps(array)
    write(tmp_path / "new.zarr", -values, chunks=(1, 2, 6, 4, 2), shards=(2, 8, 6, 4, 2))
    folder.rename(tmp_path / "old.zarr")
    (tmp_path / "new.zarr").rename(folder)
    numbers, frames = np.array([0]), np.array([[0]])
    for seen in (array, pickle.loads(sent)):  # what is kept of the old one is not given either
        for read in (
            lambda seen=seen: seen.rows([0], slice(None)),
            lambda seen=seen: seen.gather(numbers, frames),
            lambda seen=seen: seen.gather_points(numbers, frames, np.array([[3]]), 2),
            lambda seen=seen: seen.values(),
        ):
            with pytest.raises(DataError, match=r"s.zarr/zarr.json: (is another file|was written to|has .* bytes)"):
                read()
    assert (ZarrStore.open(folder).array("u").rows([0], slice(None)) == -values[:1]).all()


@pytest.mark.parametrize("how", ["replaced", "written", "truncated", "closed and replaced"])
def test_f32_a_shard_that_changes_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(chunks, "_PROCESS", [chunks._Process(cache=chunks.ChunkCache(0))])
    if how == "closed and replaced":
        monkeypatch.setattr(byte_stores, "OPEN_FILES", 1)
    array = ZarrStore.open(folder).array("u")
    array.rows([0, 2], slice(None))
    shard = folder / "u/c/0/0/0/0/0"
    content = shard.read_bytes()
    if how.endswith("replaced"):
        (folder / "other").write_bytes(content)
        (folder / "other").replace(shard)
    elif how == "written":
        with shard.open("r+b") as file:
            file.write(content[:1])
        os.utime(shard)
    else:
        os.truncate(shard, len(content) - 4)
    array.rows([2], slice(None))
    with pytest.raises(DataError, match=r"u/c/0/0/0/0/0: .*; values from before and after would be mixed"):
        array.rows([0], slice(None))


def test_a_chunk_that_a_shard_does_not_hold(tmp_path: Path, values: NDArray[np.float32]) -> None:
    """Zarr leaves out chunks of the fill value, and gives it for those that were never written, too."""
    root = zarr.create_group(tmp_path / "s.zarr")
    stored = root.create_array("u", shape=SHAPE, chunks=(1, 2, 6, 4, 2), shards=(5, 8, 6, 4, 2), dtype="f4")
    stored[:3] = values[:3]
    assert (zarr.open_array(tmp_path / "s.zarr/u", mode="r")[3] == 0).all()
    refused(tmp_path / "s.zarr", "expected the chunk [3, 0, 0, 0, 0], got a shard that does not hold it")


@pytest.mark.parametrize("how", ["sharded", "two packers", "gzip", "checksum"])
def test_a_flipped_bit_is_seen(tmp_path: Path, values: NDArray[np.float32], how: str) -> None:
    array = write(tmp_path / "s.zarr", values, **STORED[how])
    file = tmp_path / "s.zarr" / array.key((0,) * 5)
    data = bytearray(file.read_bytes())
    data[60] ^= 4
    file.write_bytes(data)
    refused(tmp_path / "s.zarr", str(file.relative_to(tmp_path)))


@pytest.mark.parametrize(
    "how", ["sharded", "sharded, not packed", "not packed", "gzip", "blosc", "one file for each chunk"]
)
@pytest.mark.parametrize("kept", [0, 5, -1, -20])
def test_a_cut_file_is_seen(tmp_path: Path, values: NDArray[np.float32], how: str, kept: int) -> None:
    array = write(tmp_path / "s.zarr", values, **STORED[how])
    file = tmp_path / "s.zarr" / array.key((0,) * 5)
    file.write_bytes(file.read_bytes()[:kept])
    refused(tmp_path / "s.zarr", str(file.relative_to(tmp_path)), "expected")


def test_what_a_frame_says_of_its_size_is_not_believed(tmp_path: Path, values: NDArray[np.float32]) -> None:
    array = write(tmp_path / "s.zarr", values, **STORED["one file for each chunk"])
    bomb = b"\x28\xb5\x2f\xfd\xe0" + (2**50).to_bytes(8, "little") + bytes(20)
    (tmp_path / "s.zarr" / array.key((0,) * 5)).write_bytes(bomb)
    refused(tmp_path / "s.zarr", "expected a zstd frame of 384 bytes, got one that says 1125899906842624")


@pytest.mark.parametrize(("offset", "length"), [(0, 2**63), (2**63, 8), (10**9, 200), (0, 10**8)])
def test_what_an_index_says_is_not_believed(folder: Path, offset: int, length: int) -> None:
    import google_crc32c

    file = folder / "u/c/0/0/0/0/0"
    data = file.read_bytes()
    size = 16 * 2 * 4 + 4
    index = np.frombuffer(data[-size:-4], "<u8").copy()
    index[:2] = offset, length
    file.write_bytes(data[:-size] + index.tobytes() + google_crc32c.value(index.tobytes()).to_bytes(4, "little"))
    refused(folder, "u/c/0/0/0/0/0")


@pytest.mark.parametrize("name", ["../s.zarr/u", "u/../../other", "/etc", "a//b", "..", ".", "u\\v", "x" * 300])
def test_names_that_lead_out_of_the_store(folder: Path, name: str) -> None:
    with pytest.raises(DataError, match="leads out of the store, or is none"):
        ZarrStore.open(folder).array(name)


def test_links_that_lead_out_of_the_store(folder: Path, tmp_path: Path) -> None:
    shard, secret = folder / "u/c/0/0/0/0/0", tmp_path / "secret"
    shard.rename(secret)
    shard.symlink_to(secret)
    refused(folder, "is a link to", "outside the store")
    shard.unlink()
    secret.rename(shard)
    outside = tmp_path / "elsewhere"
    shutil.move(folder / "u/c/0", outside)
    (folder / "u/c/0").symlink_to(outside)
    refused(folder, "u/c/0: is a link to", "outside the store")
    shutil.move(folder / "u", tmp_path / "u")
    (folder / "u").symlink_to(tmp_path / "u")
    refused(folder, "is a link to", "outside the store")


def test_stale_consolidated_metadata(folder: Path, values: NDArray[np.float32]) -> None:
    zarr.consolidate_metadata(folder)
    np.testing.assert_array_equal(ZarrStore.open(folder).array("u").values(), values)
    zarr.create_array(folder, name="v", shape=(2,), dtype="f4")[:] = 1
    assert ZarrStore.open(folder).children() == ("u", "v")
    edit(folder / "u" / "zarr.json", attributes={"unit": "m"})
    refused(folder, "zarr.json: consolidated_metadata are stale", "attributes", "zarr.consolidate_metadata(")
    zarr.consolidate_metadata(folder)
    shutil.rmtree(folder / "u")
    refused(folder, "'u' is expected with", "got no such array or group")


def test_tree_of_a_store(folder: Path) -> None:
    tree = tree_of_zarr(folder)
    info = tree.arrays["u"]
    assert (info.shape, info.dtype, info.chunks, info.shards) == (SHAPE, "<f4", (1, 2, 6, 4, 2), (2, 8, 6, 4, 2))
    assert info.filters == ("zstd",)
    assert tree.format == "zarr"
