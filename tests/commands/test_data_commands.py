"""`upskit data …`: good files, bad files, and what is said of them."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from ups_kit.cli import main
from ups_kit.data.statistics import cache_path
from ups_kit.plugins import discover
from ups_kit.sketches import sketch

POINTS = 16


class Told(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Upskit = Callable[..., Told]


@pytest.fixture
def upskit(capfd: pytest.CaptureFixture[str]) -> Upskit:
    """Call `upskit data` in this process; its readers are processes of their own."""

    def call(*arguments: Any) -> Told:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["data", *map(str, arguments)])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return Told(int(ended.value.code or 0), captured.out, captured.err)

    return call


def burgers(path: Path, samples: int = 12, seed: int = 0, **replaced: Any) -> Path:
    """A small file in PDEBench's layout; None leaves an array out."""
    generator = np.random.default_rng(seed)
    arrays: dict[str, Any] = {
        "tensor": generator.normal(size=(samples, 6, POINTS)).astype(np.float32),
        "x-coordinate": (np.arange(POINTS) + 0.5) / POINTS,
        "t-coordinate": 0.1 * np.arange(7),
    } | {key.replace("_coordinate", "-coordinate"): value for key, value in replaced.items()}
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            if value is not None:
                file[key] = value
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return burgers(tmp_path / "burgers.h5")


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Path]:
    """A recipe for `burgers.h5` beside it."""

    def write(**keys: str) -> Path:
        lines = {"path": '"burgers.h5"', "validation": "2", "test": "3"} | keys
        text = sketch(discover())
        start = text.index("[dataset]")
        end = text.index("\n[", start)
        table = "\n".join(["[dataset]", 'use = "pdebench"', *(f"{k} = {v}" for k, v in lines.items()), ""])
        path = tmp_path / "recipe.toml"
        path.write_text(text[:start] + table + text[end:])
        return path

    return write


def says(text: str, *parts: str) -> None:
    missing = [part for part in parts if part not in text]
    assert not missing, f"{missing} not in: {text}"


# ---------------------------------------------------------------------------------------------------------------------
# inspect
# ---------------------------------------------------------------------------------------------------------------------
def test_inspect_shows_the_tree_and_a_table_that_reads_it(upskit: Upskit, file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        opened["tensor"][3, 2, 1] = np.nan
        opened["tensor"].attrs["unit"] = "m/s"
        opened.create_dataset("packed", data=np.ones((4, 4)), chunks=(2, 4), compression="gzip")
    told = upskit("inspect", file)
    assert told.code == 0
    says(told.out, "tensor  [12, 6, 16]  <f4", "1 NaN, 0 infinite", "the first at [3, 2, 1]", "@unit = m/s")
    says(told.out, "chunks [2, 4], gzip 4", "layout: pdebench", "layout      grid 16 on [0, 1]", "time step   0.1")
    table = tomllib.loads(told.out[told.out.index("[dataset]") :])["dataset"]
    assert (table["use"], table["path"], table["validation"], table["test"]) == ("pdebench", str(file), 2, 2)


def test_the_printed_table_can_be_trained_on(upskit: Upskit, file: Path) -> None:
    (layout,) = upskit("inspect", file, "--json").json["layouts"]
    assert (layout["problems"], layout["fields"]["targets"], layout["fields"]["grid"]) == ([], ["u"], [POINTS])
    table = tomllib.loads(layout["toml"])["dataset"]
    config: Any = discover()["dataset"][table.pop("use")].config
    dataset = config(**{**table, "path": Path(table["path"])}).build(0)
    assert dataset.batch("train", np.arange(2), 1).states.shape == (2, 2, POINTS, 1)


def test_inspect_as_json(upskit: Upskit, file: Path) -> None:
    found = upskit("inspect", file, "--json").json
    assert found["arrays"]["tensor"]["shape"] == [12, 6, 16]
    with h5py.File(file) as opened:
        values = opened["tensor"][()]
    assert found["values"]["tensor"]["low"] == pytest.approx(values.min())
    assert found["values"]["tensor"]["std"] == pytest.approx(values.std(), rel=1e-5)
    assert not found["values"]["tensor"]["sampled"]


@pytest.mark.parametrize("ending", ["npz", "npy", "zarr"])
def test_inspect_of_other_formats(upskit: Upskit, tmp_path: Path, ending: str) -> None:
    values, path = np.arange(24.0).reshape(2, 3, 4), tmp_path / f"a.{ending}"
    if ending == "npz":
        np.savez(path, a=values)
    elif ending == "npy":
        np.save(path, values)
    else:
        zarr.create_array(path, name="a", data=values, chunks=(1, 3, 4), shards=(2, 3, 4))
    told = upskit("inspect", path)
    assert told.code == 0
    says(told.out, "a  [2, 3, 4]  <f8", "from 0 to 23, all finite (24 values)", "layout: none", "--axes b,t,x,c")
    assert ("shards [2, 3, 4]" in told.out) == (ending == "zarr")


@pytest.mark.parametrize("command", ["inspect", "validate", "stats", "check"])
def test_errors_are_json_too(upskit: Upskit, tmp_path: Path, file: Path, command: str) -> None:
    file.write_bytes(file.read_bytes()[:-100])
    told = upskit(command, file, "--json")
    assert told.code == 3
    assert any("is truncated" in problem for problem in told.json["problems"])
    assert told.json.get("valid", False) is told.json.get("sound", False) is False


def test_names_in_a_file_do_nothing_to_a_terminal(
    upskit: Upskit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("click.utils.should_strip_ansi", lambda *stream: False)  # as on a terminal
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as opened:
        opened["\x1b[2Jte\x07nsor\u202e"] = np.zeros(3)
        opened.attrs["title"] = "\x1b]0;mine\x07"
    for command in ("inspect", "validate", "stats"):
        told = upskit(command, path)
        assert not set(told.out + told.err) & set("\x1b\x07\u202e")
        says(told.out + told.err, "\\x1b[2Jte\\x07nsor\\u202e")


def test_a_file_that_may_not_be_read(upskit: Upskit, tmp_path: Path, file: Path) -> None:
    """As somebody who is not its owner: the superuser may read anything, and gives that up here."""
    file.chmod(0)
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "a.h5").write_bytes(b"")
    folder.chmod(0)
    code = "import ctypes, sys\nif sys.argv.pop(1) == '0':\n"
    code += (
        "    [ctypes.CDLL(None).prctl(24, number) for number in (1, 2)]\n"  # PR_CAPBSET_DROP, to read and search all
    )
    code += "    import os; os.execv(sys.executable, [sys.executable, '-m', 'ups_kit', *sys.argv[1:]])\n"
    code += "from ups_kit.cli import main; main(sys.argv[1:])"
    for path, commands in (
        (file, ("inspect", "stats", "convert")),
        (folder, ("inspect",)),
        (folder / "a.h5", ("stats",)),
    ):
        for command in commands:
            arguments = [
                "data",
                command,
                str(path),
                *(["--out", str(tmp_path / "b.npz")] if command == "convert" else []),
            ]
            done = subprocess.run(
                [sys.executable, "-c", code, str(os.getuid()), *arguments], capture_output=True, text=True, check=False
            )
            assert done.returncode == 3, (arguments, done)
            says(done.stderr.lower(), str(path), "permission denied")
            assert "damaged" not in done.stderr
    folder.chmod(0o700)


def test_large_arrays_are_sampled_and_it_is_said(upskit: Upskit, tmp_path: Path) -> None:
    path = tmp_path / "large.npy"
    values = np.lib.format.open_memmap(path, "w+", np.float32, (3000, 4096))
    values[:] = 1
    values[-1, -1] = 7
    values.flush()
    found = upskit("inspect", path, "--json").json["values"]["large"]
    assert found["sampled"]
    assert 0 < found["looked"] < found["total"] == 3000 * 4096
    assert (found["low"], found["high"]) == (1, 7)  # the first and the last block are among them
    says(upskit("inspect", path).out, f"in a sample of {found['looked']:,} of {found['total']:,} values")


def test_arrays_that_are_alike_are_shown_once(upskit: Upskit, tmp_path: Path) -> None:
    path = tmp_path / "groups.h5"
    with h5py.File(path, "w") as opened:
        for number in range(20):
            opened[f"{number:04d}/data"] = np.full((3, 4), float(number))
    told = upskit("inspect", path)
    says(told.out, "0000/data … 0019/data (20 alike)  [3, 4]", "from 0 to 19, all finite (240 values)")
    assert told.out.count("[3, 4]") == 1


# ---------------------------------------------------------------------------------------------------------------------
# Bad files
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["is no HDF5 file", "empty (0 bytes)"]),
        (b"version https://git-lfs.github.com/spec/v1\n", ["git-LFS pointer", "git lfs pull"]),
        (b"<html><body>404", ["web page"]),
        (b"hello\n", ["looks like text"]),
    ],
)
def test_d01_no_data_file(upskit: Upskit, tmp_path: Path, content: bytes, parts: list[str]) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    told = upskit("inspect", path)
    assert (told.code, told.out) == (3, "")
    says(told.err, str(path), *parts)


def test_d02_d04_truncated_and_locked(upskit: Upskit, file: Path) -> None:
    whole = file.read_bytes()
    with file.open("r+b") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        told = upskit("inspect", file)
    assert told.code == 3
    says(told.err, str(file), "is locked by another process")
    file.write_bytes(whole[:3000])
    told = upskit("inspect", file)
    assert told.code == 3
    says(told.err, str(file), "is truncated", f"expected {len(whole):,} bytes, got 3,000", "again")


@pytest.mark.parametrize("what", ["folder", "fifo", "socket", "link", "missing"])
def test_d26_no_regular_file(upskit: Upskit, tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.h5"
    {
        "folder": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "socket": lambda: socket.socket(socket.AF_UNIX).bind(str(path)),
        "link": lambda: path.symlink_to(tmp_path / "gone"),
        "missing": lambda: None,
    }[what]()
    told = upskit("inspect", path)
    assert told.code == 3
    words = {"folder": "no Zarr store", "fifo": "is a FIFO", "socket": "is a socket", "link": "does not exist"}
    says(told.err, str(path), words.get(what, "no such file"))


@pytest.mark.parametrize("kind", ["external", "virtual", "link", "link to a link"])
def test_d15_f37_values_elsewhere_are_shown_and_not_followed(upskit: Upskit, tmp_path: Path, kind: str) -> None:
    secret = burgers(tmp_path / "secret.h5")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as opened:
        shape = (12, 6, POINTS)
        if kind == "external":
            opened.create_dataset("tensor", shape, "f4", external=[(str(secret), 2048, h5py.h5f.UNLIMITED)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape, "f4")
            layout[:] = h5py.VirtualSource(str(secret), "tensor", shape)
            opened.create_virtual_dataset("tensor", layout)
        elif kind == "link":
            opened["tensor"] = h5py.ExternalLink(str(secret), "tensor")
        else:
            opened["other"] = h5py.ExternalLink(str(secret), "/")
            opened["tensor"] = h5py.SoftLink("/other/tensor")
    told = upskit("inspect", path)
    says(
        told.out, "values lie elsewhere", "secret.h5" if kind != "link to a link" else "link inside the file to /other"
    )
    assert "from -" not in told.out
    told = upskit("convert", path, "--out", tmp_path / "b.zarr")
    assert told.code == 3
    assert not (tmp_path / "b.zarr").exists()
    config: Any = discover()["dataset"]["pdebench"].config
    with pytest.raises(Exception, match="allow_external"):
        config(path=path, validation=2, test=2).build(0)


def test_d17_more_is_claimed_than_stored(upskit: Upskit, tmp_path: Path) -> None:
    path = tmp_path / "bomb.h5"
    with h5py.File(path, "w") as opened:
        opened.create_dataset("tensor", (10**6, 10**4, 10**4), "f8", chunks=(1, 100, 100))
        opened.create_dataset("chunk", (10**5, 10**5), "f4", chunks=(10**4, 10**4 * 2), compression="gzip")
    told = upskit("inspect", path)
    assert told.code == 3
    says(told.out, "'tensor' claims [1000000, 10000, 10000] values, 800,000,000,000,000 bytes, and stores 0 bytes")
    says(told.out, "array 'chunk': one chunk [10000, 20000] unpacks to 800,000,000 bytes")
    cut = tmp_path / "cut.npy"
    np.save(cut, np.zeros(1000))
    cut.write_bytes(cut.read_bytes()[:500])
    told = upskit("inspect", cut)
    assert told.code == 3
    says(told.out, "claims 8,128 bytes", "the file has 500")


def test_d10_d16_types_and_filters_that_are_not_read(upskit: Upskit, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as opened:
        opened["names"] = ["a", "b"]
        opened["record"] = np.zeros(3, [("a", "f4"), ("b", "i4")])
        opened["complex"] = np.zeros(3, complex)
        space, created = h5py.h5s.create_simple((4,), (4,)), h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_chunk((4,))
        created.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, ())
        h5py.h5d.create(opened.id, b"squeezed", h5py.h5t.NATIVE_FLOAT, space, created)
    told = upskit("inspect", path)
    says(told.out, "names  [2]  string", "complex  [3]  <c16", "('a', '<f4')")
    assert ("compressed with filter 32001" in told.out) == (not h5py.h5z.filter_avail(32001))


def test_d19_objects_are_refused_unread(upskit: Upskit, tmp_path: Path) -> None:
    path, ran = tmp_path / "a.npy", tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (ran,))

    np.save(path, np.array([Payload()], object), allow_pickle=True)
    told = upskit("inspect", path)
    assert (told.code, ran.exists()) == (3, False)
    says(told.out, "holds pickled Python objects, which may run code")
    store = tmp_path / "v2.zarr"
    (store / "u").mkdir(parents=True)
    (store / ".zgroup").write_text('{"zarr_format": 2}')
    header = {"shape": [2], "chunks": [2], "dtype": "<f4", "compressor": None, "filters": [{"id": "pickle"}]}
    (store / "u/.zarray").write_text(json.dumps({**header, "fill_value": 0, "order": "C", "zarr_format": 2}))
    told = upskit("inspect", store)
    assert told.code == 3
    says(told.out, "is a Zarr v2 store", "array 'u' uses the filter 'pickle', which may run code when it is read")


def test_d18_what_is_wrong_with_a_store(upskit: Upskit, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    group = zarr.open_group(path, mode="w")
    for name in "abcde":
        group.create_array(name, shape=(8, 4), chunks=(1, 4), shards=(2, 4), dtype="f4", fill_value=float("nan"))[:] = 1

    def edit(name: str, **changed: Any) -> None:
        header = json.loads((path / name / "zarr.json").read_text())
        (path / name / "zarr.json").write_text(json.dumps({**header, **changed}))

    (path / "a/zarr.json").write_text("{")
    (path / "b/c/1/0").unlink()
    (path / "c/zarr.json").unlink()
    edit("d", codecs=[{"name": "zst", "configuration": {}}])
    edit("e", zarr_format=4)
    stale = {name: {"node_type": "array", "shape": [9, 4]} for name in ("b", "../../etc", "gone")}
    edit("", consolidated_metadata={"kind": "inline", "metadata": stale})
    told = upskit("inspect", path)
    assert told.code == 3
    says(told.out, f"{path}/a/zarr.json: is no readable JSON", "restore it")
    says(told.out, "array 'b': 1 of 4 shards are missing", "fill value NaN")
    says(told.out, f"{path}/c/zarr.json: no such file; expected the header of 'c'")
    says(told.out, f"{path}/d/zarr.json: unknown codec 'zst'; nearest: zstd")
    says(told.out, f"{path}/e/zarr.json: zarr_format = 4", "expected 3")
    says(told.out, "stale: 'b' has the shape [8, 4] in its own header, [9, 4] there; remove 'consolidated_metadata'")
    says(told.out, "stale: 'gone' is not in the store", "'../../etc', which lies outside the store")
    (path / "zarr.json").unlink()
    told = upskit("inspect", path)
    assert told.code == 3
    says(told.err, f"{path}/zarr.json: no such file, so the folder is no Zarr store")


@pytest.mark.parametrize(
    ("version", "damage"),
    [(3, "link"), (3, "FIFO"), (3, "empty"), (3, "no chunk"), (2, "link"), (2, "FIFO"), (2, "no chunk")],
)
def test_f37_d18_files_of_a_store_that_are_none(upskit: Upskit, tmp_path: Path, damage: str, version: int) -> None:
    """A chunk's file that leads to another file of the machine, never answers, or holds nothing: all commands say so,
    and none takes it for values, or for fill values."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"S" * 64)
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)
    sharded: dict[str, Any] = {"shards": (64,)} if version == 3 and damage in ("empty", "no chunk") else {}
    compressors = None if damage == "link" else "auto"
    array = root.create_array(
        "u", shape=(64,), chunks=(32 if sharded else 64,), dtype="u1", compressors=compressors, **sharded
    )
    array[:] = 1
    if damage == "no chunk":
        zarr.open_array(tmp_path / "a.zarr" / "u", mode="r+", config={"write_empty_chunks": False})[:32] = 0
    file = tmp_path / "a.zarr" / "u" / ("c/0" if version == 3 else "0")
    if version == 2 and damage == "no chunk":
        file.unlink()  # as of a chunk that is the fill value; version 2 has no shards
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage != "no chunk":
        file.unlink()
        file.symlink_to(secret) if damage == "link" else os.mkfifo(file)
    for arguments in (["inspect"], ["stats"], ["convert", "--out", tmp_path / "b.npz"]):
        told = upskit(arguments[0], tmp_path / "a.zarr", *arguments[1:])
        assert told.code == 3, (arguments, told)
        says(told.out + told.err, str(tmp_path / "a.zarr" / "u"))
        assert "83" not in told.out  # the secret's bytes
    assert not (tmp_path / "b.npz").exists()


def test_a_flipped_bit_in_a_store_with_checksums_is_told(upskit: Upskit, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, u=np.random.default_rng(0).random((3, 4, 8)))
    store = tmp_path / "a.zarr"
    assert upskit("convert", path, "--out", store, "--axes", "b,t,x", "--dt", 1).code == 0
    shard = next((store / "fields/u/c").rglob("0"))
    shard = shard if shard.is_file() else next(f for f in shard.rglob("*") if f.is_file())
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 4
    shard.write_bytes(content)
    told = upskit("inspect", store)
    assert told.code == 3
    says(told.out, "array 'fields/u' cannot be read", "again")


# ---------------------------------------------------------------------------------------------------------------------
# validate, stats, check
# ---------------------------------------------------------------------------------------------------------------------
def test_validate(upskit: Upskit, file: Path, recipe: Callable[..., Path]) -> None:
    told = upskit("validate", file)
    assert (told.code, told.err) == (0, "")
    says(told.out, f"{file}: valid (pdebench)", "all values finite", "checked one by one")
    found = upskit("validate", recipe(), "--json").json
    assert (found["valid"], found["splits"]) == (True, {"train": 7, "validation": 2, "test": 3})
    assert found["samples_checked"] == 12
    found = upskit("validate", recipe(), "--json", "--set", "dataset.test=4").json
    assert found["splits"]["test"] == 4


def test_d08_d09_all_problems_at_once(upskit: Upskit, file: Path, recipe: Callable[..., Path]) -> None:
    with h5py.File(file, "r+") as opened:
        opened["Vx"] = opened["tensor"][()]
        opened["Vx"][5, 2, 3] = np.inf
        opened["density"] = np.full_like(opened["tensor"], 2.0)
        del opened["tensor"]
    told = upskit("validate", recipe())
    assert told.code == 3
    says(told.err, "recipe.toml: 2 problems", f"{file}, sample 5: NaN or infinity", "drop_bad_samples")
    says(told.err, "'density' is 2 everywhere", "divide by 0")
    found = upskit("validate", file, "--json")
    assert (found.code, found.json["valid"]) == (3, False)


def test_values_of_a_file_with_too_few_trajectories_for_splits(upskit: Upskit, tmp_path: Path) -> None:
    path = burgers(tmp_path / "one.h5", samples=2)
    told = upskit("validate", path)
    assert (told.code, told.err) == (0, "")
    says(told.out, "too few trajectories for splits of its own", f"all {2 * 6 * POINTS} values finite")
    with h5py.File(path, "r+") as opened:
        opened["tensor"][1, 4, 7:10] = np.nan
        opened["tensor"][1, 5, 0] = np.inf
    told = upskit("validate", path)
    assert told.code == 3
    says(told.err, f"{path}: 1 problem", "'u': 4 values in 1 trajectories are NaN or infinite, the first at")
    says(told.err, "[sample 1, time 4, x 7]")
    assert upskit("validate", path, "--json").json["valid"] is False


def test_a_file_needs_no_splits(upskit: Upskit, tmp_path: Path) -> None:
    """Initial conditions that stand in it three times, as in files of several viscosities; too few for any split."""
    starts = np.random.default_rng(0).normal(size=(7, 1, POINTS)).repeat(3, 0)
    values = starts + np.random.default_rng(1).normal(size=(21, 6, POINTS)) * np.arange(6)[:, None]
    path = burgers(tmp_path / "three.h5", tensor=values.astype(np.float32))
    told = upskit("validate", path)
    assert (told.code, told.err) == (0, "")
    found = upskit("check", path, "--json")
    assert (found.code, found.json["problems"]) == (0, [])
    same = {(a, b) for a in range(21) for b in range(a + 1, 21) if a // 3 == b // 3}
    assert {tuple(sorted(twin["ids"])) for twin in found.json["twins"] if twin["distance"] == 0} == same
    made = tmp_path / "made.h5"
    assert upskit("make", "burgers1d", "--out", made, "--set", "trajectories=2", "--set", "points=64").code == 0
    (residual, _) = upskit("check", made, "--json").json["audits"]
    assert (residual["number"], residual["trajectories"]) == ("residual", 2)
    assert 0 < residual["worst"] < residual["below"]
    with h5py.File(path, "r+") as opened:
        opened["tensor"][...] = 1.5
    told = upskit("validate", path)
    assert told.code == 3
    says(told.err, f"{path}: 'u': is 1.5 everywhere", "normalisation would divide by 0")


def test_d12_d13_d14_splits_overlaps_shapes(
    upskit: Upskit, file: Path, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    told = upskit("validate", recipe(test="30"))
    assert told.code == 3
    says(told.err, "30 test", "there are 12")
    told = upskit("validate", recipe(test_path='"burgers.h5"'))
    assert told.code == 3
    says(told.err, "initial conditions stand in two splits")
    burgers(tmp_path / "other.h5", tensor=np.ones((3, 6, 8), np.float32), x_coordinate=np.arange(8) / 8)
    told = upskit("validate", recipe(path='["burgers.h5", "other.h5"]'))
    assert told.code == 3
    says(told.err, "other.h5")


def test_a_broken_recipe_is_a_usage_error(upskit: Upskit, file: Path, recipe: Callable[..., Path]) -> None:
    for verb in ("validate", "stats", "check"):
        told = upskit(verb, recipe(tranlate="1"))
        assert (told.code, "unknown key" in told.err) == (2, True)
        assert upskit(verb, file, "--set", "dataset.test=4").code == 2


def test_data_that_are_still_to_be_made(upskit: Upskit, recipe: Callable[..., Path], tmp_path: Path) -> None:
    path = recipe(path='"later.h5"', simulate='{ use = "burgers1d", trajectories = 30 }')
    told = upskit("validate", path)
    assert told.code == 0
    says(told.out, "to be made", "later.h5")
    told = upskit("stats", path)
    assert told.code == 3
    says(told.err, "is not there yet", "upskit data make")
    assert [each.name for each in tmp_path.iterdir()] == ["recipe.toml"]


def test_a_layout_that_nobody_knows(upskit: Upskit, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, w=np.zeros((2, 3)))
    told = upskit("validate", path)
    assert told.code == 3
    says(told.err, "no installed dataset knows this layout", "w [2, 3]", "upskit data convert")


def test_stats_of_the_train_split_and_of_a_file(upskit: Upskit, file: Path, recipe: Callable[..., Path]) -> None:
    config: Any = discover()["dataset"]["pdebench"].config
    values = config(path=file, validation=2, test=3).build(0).trajectories("train").values.numpy()
    found = upskit("stats", recipe(), "--json").json
    assert not found["kept"]
    numbers = found["fields"]["u"]
    assert numbers["mean"] == pytest.approx(values.mean(dtype=np.float64), rel=1e-6)
    assert numbers["std"] == pytest.approx(values.std(dtype=np.float64), rel=1e-6)
    assert (numbers["min"], numbers["max"], numbers["count"]) == (values.min(), values.max(), values.size)
    assert numbers["quantiles"]["0.5"] == pytest.approx(np.median(values), rel=1e-5)
    again = upskit("stats", recipe(), "--json").json
    assert (again["kept"], again["fields"]) == (True, found["fields"])
    assert upskit("stats", recipe(), "--json", "--set", "run.seed=1").json["fields"] != found["fields"]
    with h5py.File(file) as opened:
        assert upskit("stats", file, "--json").json["fields"]["tensor"]["max"] == opened["tensor"][()].max()
    assert cache_path(file).is_file()


def test_stats_of_values_that_have_none(upskit: Upskit, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, nan=np.full(9, np.nan), large=np.array([1e300, -1e300, 5e299]))
    told = upskit("stats", path)
    assert told.code == 0
    says(told.out, "9 not finite", "1e+300")
    found = json.loads(
        upskit("stats", path, "--json").out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON")
    )
    assert found["fields"]["nan"] == {"count": 0, "not_finite": 9}
    assert found["fields"]["large"]["max"] == 1e300


def test_d24_statistics_of_other_data(upskit: Upskit, file: Path) -> None:
    assert upskit("stats", file).code == 0
    hashes = json.loads(cache_path(file).read_text())["passes"]["file"]["fingerprint"]
    burgers(file, seed=1)
    told = upskit("stats", file)
    assert told.code == 3
    says(told.err, str(cache_path(file)), "holds statistics of other data", hashes[:12])
    says(told.err, f"to compute them anew: upskit data stats {file} --recompute")
    assert upskit("stats", file, "--recompute").code == 0
    assert upskit("stats", file, "--json").json["kept"]


def test_check_finds_twins(upskit: Upskit, tmp_path: Path, recipe: Callable[..., Path]) -> None:
    values = np.random.default_rng(0).normal(size=(12, 6, POINTS)).astype(np.float32)
    values[7, 0] = values[2, 0]
    values[9, 0] = values[4, 0] * (1 + 1e-5)
    burgers(tmp_path / "burgers.h5", tensor=values)
    found = upskit("check", tmp_path / "burgers.h5", "--json")
    assert found.code == 0  # one file's twins stay together: that is told, and no leak
    assert {tuple(sorted(twin["ids"])) for twin in found.json["twins"]} == {(2, 7), (4, 9)}
    config: Any = discover()["dataset"]["pdebench"].config
    apart = {}  # near ones are not known to the splits: they may come apart
    for seed in range(20):
        ids = config(path=tmp_path / "burgers.h5", validation=2, test=3).build(seed).splits.ids
        apart[any(len({4, 9} & set(members)) == 1 for members in ids.values())] = seed
    for leaks, seed in apart.items():
        told = upskit("check", recipe(), "--json", "--set", f"run.seed={seed}")
        assert told.code == (3 if leaks else 0)
        assert told.json["sound"] != leaks
        assert any("4 " in problem and "9 " in problem for problem in told.json["problems"]) == leaks
    assert set(apart) == {True, False}


def test_check_measures_the_equation(upskit: Upskit, tmp_path: Path) -> None:
    path = tmp_path / "made.h5"
    made = ("trajectories=8", "frames=11", "points=64")
    assert upskit("make", "burgers1d", "--out", path, *(part for key in made for part in ("--set", key))).code == 0
    told = upskit("check", path)
    assert told.code == 0
    says(told.out, "residual at most", "mass drift at most", "sound below 0.2")
    with h5py.File(path, "r+") as opened:
        opened["tensor"][3, 5:] *= 1.5
    told = upskit("check", path)
    assert told.code == 3
    says(told.err, f"{path}, sample 3: residual is", "expected less than 0.2", "do not follow its equation")


# ---------------------------------------------------------------------------------------------------------------------
# make
# ---------------------------------------------------------------------------------------------------------------------
def test_make(upskit: Upskit, tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.h5"
    keys = ("--set", "trajectories=3", "--set", "frames=5", "--set", "points=32")
    assert upskit("make", "burgers1d", "--out", path, *keys).code == 0
    with h5py.File(path) as opened:
        assert opened["tensor"].shape == (3, 5, 32)
    content = path.read_bytes()
    told = upskit("make", "burgers1d", "--out", path, *keys)
    assert (told.code, path.read_bytes() == content) == (6, True)
    says(told.err, "is there already, and nothing is overwritten")


def test_make_reads_its_keys_as_strictly_as_a_recipe(upskit: Upskit, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    told = upskit("make", "burger1d", "--out", path)
    assert told.code == 2
    says(told.err, "no simulator is called 'burger1d'; did you mean 'burgers1d'?")
    wrong = ("trajectoris=3", "points=1.5", "frames")
    told = upskit("make", "burgers1d", "--out", path, *(part for key in wrong for part in ("--set", key)))
    assert told.code == 2
    says(told.err, "simulator burgers1d: 3 problems", "did you mean 'trajectories'?", "--set 'points=1.5'")
    says(told.err, "expected a whole number", "expected KEY=VALUE")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------------------------
# convert
# ---------------------------------------------------------------------------------------------------------------------
def test_copies_keep_arrays_and_attributes(upskit: Upskit, tmp_path: Path, file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        opened["tensor"].attrs["unit"], opened.attrs["nu"] = "m/s", 0.1
        opened["group/counts"] = np.arange(5)
        opened["tensor"][0, 0, 0] = np.nan
        expected = {name: opened[name][()] for name in ("tensor", "x-coordinate", "t-coordinate", "group/counts")}
    paths = [file, tmp_path / "a.zarr", tmp_path / "b.h5", tmp_path / "c.npz", tmp_path / "d.zarr"]
    for source, out in pairwise(paths):
        told = upskit("convert", source, "--out", out, "--as-is", "--json")
        assert told.code == 0, told
        assert told.json["arrays"] == 4
    with h5py.File(paths[2]) as opened:
        assert (opened["tensor"].attrs["unit"], opened.attrs["nu"]) == ("m/s", 0.1)
        for name, values in expected.items():
            assert opened[name].dtype == values.dtype
            assert np.array_equal(opened[name][()], values, equal_nan=True)
    last: Any = zarr.open_group(paths[-1], mode="r")
    assert np.array_equal(last["tensor"][...], expected["tensor"], equal_nan=True)
    assert "ZstdCodec(level=1, checksum=True)" in str(last["tensor"].metadata)
    assert np.isnan(last["tensor"].fill_value)
    assert last["tensor"].shards is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "b.h5", "burgers.h5", "c.npz", "d.zarr"]


def test_a_known_layout_becomes_a_store_that_says_all_of_it(upskit: Upskit, tmp_path: Path, file: Path) -> None:
    told = upskit("convert", file, "--out", tmp_path / "a.zarr")
    assert (told.code, told.err) == (0, "")
    says(told.out, "1 arrays, 1,152 values, read again and compared", "the dataset 'grid_zarr' reads it")
    (layout,) = upskit("inspect", tmp_path / "a.zarr", "--json").json["layouts"]
    assert (layout["use"], layout["problems"]) == ("grid_zarr", [])
    assert upskit("convert", tmp_path / "a.zarr", "--out", tmp_path / "b.h5").code == 0
    with h5py.File(file) as before, h5py.File(tmp_path / "b.h5") as after:
        assert np.array_equal(before["tensor"][()], after["tensor"][()])
        assert np.array_equal(before["t-coordinate"][:6], after["t-coordinate"][()])
    assert upskit("validate", tmp_path / "b.h5").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "b.h5", "burgers.h5"]


@pytest.mark.parametrize("axes", ["b,t,x,c", "b,t,c,x", "x,c,t,b", "t,b,x,c"])
@pytest.mark.parametrize("ending", ["zarr", "h5", "npz"])
def test_plain_arrays_of_any_order(upskit: Upskit, tmp_path: Path, axes: str, ending: str) -> None:
    if ending != "zarr" and axes != "b,t,c,x":
        pytest.skip("once is enough")
    whole = np.random.default_rng(0).normal(size=(6, 4, 8, 1)).astype(np.float32)
    order = ["btxc".index(letter) for letter in axes.split(",")]
    source, out = tmp_path / "a.npy", tmp_path / f"out.{ending}"
    np.save(source, whole.transpose(order))
    told = upskit(
        "convert", source, "--out", out, "--axes", axes, "--dt", 0.5, "--domain", "0:2", "--parameters", "nu=3"
    )
    assert told.code == 0, told
    found = _converted(out)
    assert np.array_equal(found["u"].reshape(whole.shape), whole)
    assert np.allclose(found["time"], [0, 0.5, 1, 1.5])
    assert np.allclose(found["x"], np.arange(8) / 4)
    assert np.array_equal(found["nu"], np.full(6, 3.0))


def _converted(path: Path) -> dict[str, NDArray[Any]]:
    if path.suffix == ".h5":
        names = {"tensor": "u", "t-coordinate": "time", "x-coordinate": "x", "nu": "nu"}
        with h5py.File(path) as opened:
            return {to: opened[name][()] for name, to in names.items()}
    if path.suffix == ".npz":
        with np.load(path) as archive:
            return dict(archive)
    group: Any = zarr.open_group(path, mode="r")
    names = {"fields/u": "u", "time": "time", "coords/x": "x", "parameters/nu": "nu"}
    return {to: group[name][...] for name, to in names.items()}


def test_converted_arrays_can_be_trained_on(upskit: Upskit, tmp_path: Path) -> None:
    source = tmp_path / "flow.npz"
    generator = np.random.default_rng(0)
    np.savez(source, w=generator.normal(size=(9, 4, 8, 6, 2)), nu=generator.random(9), t=0.1 * np.arange(4))
    for out, names in ((tmp_path / "a.zarr", "w"), (tmp_path / "b.zarr", "u,v")):
        keys = ("--axes", "b,t,x,y,c", "--names", names, "--parameters", "nu=nu")
        assert upskit("convert", source, "--out", out, *keys).code == 0
        (layout,) = upskit("inspect", out, "--json").json["layouts"]
        assert (layout["use"], layout["problems"], layout["fields"]["grid"]) == ("grid_zarr", [], [8, 6])
        assert layout["fields"]["targets"] == (["w [2]"] if names == "w" else ["u", "v"])
        assert layout["fields"]["conditions"] == ["dt", "nu"]
    assert upskit("validate", tmp_path / "b.zarr").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["--axes", "b,t,q"], 2, ["no axis is called 'q'"]),
        (["--axes", "b,t,y"], 2, ["expected x, then y, then z"]),
        (["--axes", "b,t,x,c"], 3, ["no array has the 4 axes", "'u' [3, 4, 8]"]),
        (["--axes", "b,t,x"], 3, ["does not say the time between frames", "--dt"]),
        (["--axes", "b,t,x", "--dt", "1", "--arrays", "v"], 3, ["no array is called 'v'"]),
        (["--axes", "b,t,x", "--dt", "1", "--names", "a,b"], 3, ["--names has 2 names (a, b)"]),
        (["--axes", "b,t,x", "--dt", "1", "--parameters", "nu=mu"], 3, ["array 'mu' of --parameters nu is not there"]),
        (["--axes", "b,t,x", "--dt", "1", "--domain", "1:0"], 2, ["expected LOW:HIGH"]),
        (["--dt", "1"], 2, ["go with --axes"]),
        (["--axes", "b,t,x", "--dt", "inf"], 2, ["--dt inf: expected a finite number"]),
        (["--axes", "b,t,x", "--dt", "1", "--parameters", "a=1", "--parameters", "a=2"], 2, ["'a' is given twice"]),
        (["--axes", "b,t,x", "--dt", "1", "--names", "../u"], 3, ["no array can be called '../u'", "--names"]),
        (["--axes", "b,t,x", "--dt", "1", "--parameters", "..=1"], 3, ["no array can be called '..'", "--parameters"]),
        (["--axes", "b,t,x", "--as-is"], 2, ["--as-is that they stay what they are"]),
    ],
)
def test_options_of_convert_that_do_not_fit(
    upskit: Upskit, tmp_path: Path, arguments: list[str], code: int, parts: list[str]
) -> None:
    source = tmp_path / "a.npz"
    np.savez(source, u=np.zeros((3, 4, 8)))
    told = upskit("convert", source, "--out", tmp_path / "b.zarr", *arguments)
    assert told.code == code, told
    says(told.err, *parts)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_no_array_takes_the_place_of_another(upskit: Upskit, tmp_path: Path) -> None:
    """Of two fields with one name, or a field that is called as its coordinates, one would be lost without a word."""
    values = np.random.default_rng(0).normal(size=(3, 4, 8, 2))
    np.savez(tmp_path / "a.npz", u=values)
    np.savez(tmp_path / "b.npz", **{"one/u": values, "two/u": values + 1})
    for source, ending, names, parts in [
        ("a", "zarr", "u,u", ["two fields would be called 'u'", "--names"]),
        ("b", "zarr", None, ["two fields would be called 'u' (u, u, of one/u, two/u)", "--names"]),
        ("a", "npz", "x,v", ["two arrays would be called 'x'"]),
        ("a", "npz", "time,v", ["two arrays would be called 'time'"]),
        ("a", "npz", "nu,v", ["two arrays would be called 'nu'", "--parameters"]),
        ("a", "h5", "t-coordinate,v", ["two arrays would be called 't-coordinate'"]),
        ("a", "h5", "nu,v", ["two arrays would be called 'nu'"]),
    ]:
        keys = ["--axes", "b,t,x,c", "--dt", 1, "--parameters", "nu=1", *(("--names", names) if names else ())]
        told = upskit("convert", tmp_path / f"{source}.npz", "--out", tmp_path / f"c.{ending}", *keys)
        assert told.code == 3, (names, told)
        says(told.err, str(tmp_path / f"{source}.npz"), *parts)
    np.savez(tmp_path / "d.npz", **{"../../u": values})
    for ending in ("zarr", "h5", "npz"):
        told = upskit("convert", tmp_path / "d.npz", "--out", tmp_path / f"c.{ending}")
        assert told.code == 3
        says(told.err, "array '../../u': expected a name without empty parts")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz", "d.npz"]


@pytest.mark.parametrize("ending", ["zarr", "h5", "npz"])
def test_a_place_that_takes_no_files(upskit: Upskit, tmp_path: Path, file: Path, ending: str) -> None:
    """/proc, also for who may write anywhere: it is the target that is told of, with its own exit code."""
    told = upskit("convert", file, "--out", f"/proc/b.{ending}")
    assert told.code == 6
    says(told.err, f"/proc/b.{ending}: could not be written", "choose another --out")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_conversion_that_is_ended_leaves_nothing_for_good(upskit: Upskit, tmp_path: Path, number: int) -> None:
    source, out = tmp_path / "a.npy", tmp_path / "b.zarr"
    np.save(source, np.random.default_rng(0).random((300, 40, 256)))
    keys = [source, "--out", out, "--axes", "b,t,x", "--dt", 1]
    started = subprocess.Popen([sys.executable, "-m", "ups_kit", "data", "convert", *map(str, keys)])
    try:
        while not any(path.name.startswith("..b.zarr") for path in tmp_path.iterdir()):
            assert started.poll() is None
            time.sleep(0.005)
        held = upskit("convert", *keys)
        started.send_signal(number)
        assert started.wait() in (143, -signal.SIGKILL)
    finally:
        started.kill()
    assert held.code == 6
    says(held.err, f"{out}: is being written by another process")
    if number == signal.SIGTERM:
        assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
    assert upskit("convert", *keys).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "b.zarr"]


def test_convert_overwrites_nothing(upskit: Upskit, tmp_path: Path, file: Path) -> None:
    for name in ("a.h5", "a.zarr"):
        out = tmp_path / name
        out.write_text("mine")
        told = upskit("convert", file, "--out", out)
        assert (told.code, out.read_text()) == (6, "mine")
        says(told.err, str(out), "is there already, and nothing is overwritten")
    assert upskit("convert", file, "--out", tmp_path / "a.txt").code == 2


def test_convert_looks_at_the_free_space(
    upskit: Upskit, tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import shutil, sys\nfrom collections import namedtuple\nfrom pathlib import Path\n"
        "from ups_kit.data import conversion\n"
        "shutil.disk_usage = lambda path: namedtuple('U', 'free')(1000)\n"
        f"conversion.convert_task(lambda at: None, {str(file)!r}, {str(tmp_path / 'b.h5')!r}, 'hdf5', None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    says(done.stderr, "StorageError", "MiB are to be written", "are free")
    assert not (tmp_path / "b.h5").exists()


def test_a_full_disk_leaves_nothing_and_no_crash(upskit: Upskit, tmp_path: Path) -> None:
    """HDF5 on a full disk may crash its process: that is the child, and the target keeps away."""
    source = tmp_path / "a.npy"
    np.save(source, np.random.default_rng(0).random((50, 40, 64)))
    command = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200000, 200000));"
        "from ups_kit.cli import main; main(sys.argv[1:])"
    )
    for ending in ("h5", "zarr"):
        out = tmp_path / f"b.{ending}"
        arguments = ["data", "convert", str(source), "--out", str(out), "--axes", "b,t,x", "--dt", "1"]
        done = subprocess.run([sys.executable, "-c", command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode in (3, 6)
        assert "Traceback" not in done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["a.npy"], done.stderr


# ---------------------------------------------------------------------------------------------------------------------
# Start
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "arguments", [["--help"], ["inspect", "--help"], ["inspect", "{file}"], ["validate", "{file}"]]
)
def test_no_reader_is_loaded_by_who_asks(file: Path, arguments: list[str]) -> None:
    heavy = ("torch", "h5py", "zarr", "scipy", "matplotlib")
    code = (
        "import sys\nfrom ups_kit.cli import main\n"
        f"try:\n    main({['data', *(argument.format(file=file) for argument in arguments)]!r})\n"
        f"except SystemExit:\n    print('loaded', *(set(sys.modules) & set({heavy!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded"


@pytest.mark.parametrize("verb", ["inspect", "validate", "stats", "check"])
def test_an_address_is_no_file_of_this_machine(upskit: Upskit, verb: str) -> None:
    told = upskit(verb, "https://data.invalid/x.zarr")
    assert told.code == 3
    for part in ("https://data.invalid/x.zarr", "is an address", 'dataset.use = "grid_zarr"'):
        assert part in told.err
