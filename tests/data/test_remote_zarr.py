"""Stores behind an address: the values that are there, and words for an extra, a host, or an object that is not."""

from __future__ import annotations

import builtins
import pickle
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ups_kit import DataError
from ups_kit.addresses import url_of
from ups_kit.data.grid_store import GridStore, write_grid_store
from ups_kit.data.zarr_store import ZarrStore
from ups_kit.reading import read_recipe
from ups_plugins.grid.formats import GridZarrConfig

pytest.importorskip("obstore", reason="the extra 'remote' is not installed")
VALUES = np.random.default_rng(0).standard_normal((6, 5, 8, 1), dtype=np.float32)


class Ranges(SimpleHTTPRequestHandler):
    """Serves parts of files, as web servers and object stores do."""

    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.asked.append((self.path, asked))
        file = Path(self.translate_path(self.path.split("?")[0]))
        if not file.is_file():
            self.send_error(404)
            return
        data = file.read_bytes()
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked or "bytes=0-")
        assert match is not None
        first, last = match.groups()
        start = int(first) if first else max(0, len(data) - int(last))
        stop = min(int(last) + 1, len(data)) if first and last else len(data)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Last-Modified", self.date_time_string(0))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(data[start:stop])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path, list[tuple[str, str | None]]]]:
    """The address of a folder with a store `s.zarr` of six trajectories, the folder, and what was asked for."""
    store = GridStore(
        trajectories=6,
        axes={"x": np.arange(8) / 8},
        times=0.1 * np.arange(5),
        fields={"u": 1},
        parameters={"nu": np.linspace(0, 1, 6)},
        periodic=(True,),
    )
    folder = tmp_path / "bucket"
    write_grid_store(folder / "s.zarr", store, lambda kind, name, samples, frames: VALUES[samples, frames])
    asked: list[tuple[str, str | None]] = []
    handler = type("Handler", (Ranges,), {"asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder, asked
    server.shutdown()
    server.server_close()


def opened(address: str) -> Any:
    config = GridZarrConfig(path=Path(address))
    return config.open_source(Path(address))


def test_values_behind_an_address(served: tuple[str, Path, list[tuple[str, str | None]]]) -> None:
    address, _, asked = served
    source = opened(f"{address}/bucket/s.zarr")
    np.testing.assert_array_equal(source.header.parameters["nu"], np.linspace(0, 1, 6))
    np.testing.assert_array_equal(source.rows(np.array([5, 0]), slice(None)), VALUES[[5, 0]])
    samples, frames = np.array([1, 2]), np.array([[0, 1], [3, 4]])
    np.testing.assert_array_equal(source.gather(samples, frames), VALUES[samples[:, None], frames])
    shard = [part for path, part in asked if "/fields/u/c/" in path]
    assert all(part is not None for part in shard)  # no shard was fetched whole
    copied = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copied.rows(np.array([3]), slice(None)), VALUES[[3]])


def test_an_object_that_is_not_there(served: tuple[str, Path, list[tuple[str, str | None]]]) -> None:
    address, folder, _ = served
    with pytest.raises(DataError, match=r"/bucket/other\.zarr/zarr\.json: expected this file, got none"):
        opened(f"{address}/bucket/other.zarr")
    (folder / "s.zarr/fields/u/c/0/0/0/0").unlink()
    with pytest.raises(DataError, match=r"s\.zarr/fields/u/c/0/0/0/0: expected a shard .* got no such file"):
        opened(f"{address}/bucket/s.zarr").rows(np.array([0]), slice(None))


def test_s3(served: tuple[str, Path, list[tuple[str, str | None]]], monkeypatch: pytest.MonkeyPatch) -> None:
    address = served[0]
    settings = {"ENDPOINT_URL": address, "ACCESS_KEY_ID": "me", "SECRET_ACCESS_KEY": "x", "REGION": "here"}
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    source = opened("s3://bucket/s.zarr")
    np.testing.assert_array_equal(source.rows(np.array([4, 2]), slice(None)), VALUES[[4, 2]])


def test_a_host_that_does_not_answer() -> None:
    with pytest.raises(DataError, match=r"the host 127\.0\.0\.1:9 gives no answer .* check the address, the network"):
        ZarrStore.open("http://127.0.0.1:9/s.zarr")


def test_a_host_elsewhere_is_read_encrypted_only() -> None:
    with pytest.raises(DataError, match="expected https://"):
        ZarrStore.open("http://example.org/s.zarr")


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "obstore":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"s3://bucket/s\.zarr: .* extra 'remote': `pip install 'ups_kit\[remote\]'`"):
        ZarrStore.open("s3://bucket/s.zarr")


@pytest.mark.parametrize("address", ["s3://bucket/a/b.zarr", "https://host:8080/x/y.zarr"])
def test_an_address_in_a_recipe_stays_one(tmp_path: Path, address: str) -> None:
    """It is not taken for a path that starts from the recipe's folder, and is written as it was read."""
    assert url_of(Path(address)) == url_of(str(Path(address))) == address
    assert url_of("data/s3/x.zarr") is None
    recipe = Path(__file__).parents[2] / "recipes" / "burgers_upt.toml"
    (tmp_path / "r.toml").write_text(f'extends = "burgers.toml"\n[dataset]\nuse = "grid_zarr"\npath = "{address}"\n')
    (tmp_path / "burgers.toml").write_text(recipe.read_text())
    read = read_recipe(tmp_path / "r.toml")
    assert url_of(read.recipe.dataset.path) == address  # type: ignore[attr-defined]
    assert read.resolved["values"]["dataset"]["path"] == address
