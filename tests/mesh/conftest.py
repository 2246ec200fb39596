"""Stores of small meshes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ups_kit.cli import main
from ups_kit.data.mesh_store import MeshSample, write_meshes

from .flows import mesh_sample

WriteStore = Callable[..., Path]
UNITS = {"velocity": "m/s", "time": "s"}


@pytest.fixture(scope="session")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that `write_flow()` copies."""
    path = tmp_path_factory.mktemp("meshes") / "flow.zarr"
    write_meshes(path, map(mesh_sample, range(8)), units=UNITS)
    return path


@pytest.fixture
def write_flow(tmp_path: Path, flow: Path) -> WriteStore:
    """`write_flow(samples=8, bad={number: {...}})`: a store whose sample `number` has other content."""

    def write(
        name: str = "flow.zarr", samples: int = 8, bad: dict[int, dict[str, Any]] | None = None, **keys: Any
    ) -> Path:
        if samples == 8 and not bad and not keys:
            shutil.copytree(flow, tmp_path / name)
            return tmp_path / name

        def each() -> Iterator[MeshSample]:
            for number in range(samples):
                yield mesh_sample(number, **(bad or {}).get(number, {}))

        write_meshes(tmp_path / name, each(), units=UNITS, **keys)
        return tmp_path / name

    return write


@pytest.fixture
def upskit(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Call `upskit data` in this process: its exit code, and what it says."""

    def call(*arguments: Any) -> tuple[int, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["data", *map(str, arguments)])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return int(ended.value.code or 0), captured.out + captured.err

    return call
