"""Stores of small meshes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ups_kit.cli import main
from ups_kit.data.mesh_store import MeshSample, write_meshes

from .flows import mesh_sample

WriteStore = Callable[..., Path]


@pytest.fixture
def write_flow(tmp_path: Path) -> WriteStore:
    """`write_flow(samples=8, bad={number: {...}})`: a store whose sample `number` has other content."""

    def write(
        name: str = "flow.zarr", samples: int = 8, bad: dict[int, dict[str, Any]] | None = None, **keys: Any
    ) -> Path:
        def each() -> Iterator[MeshSample]:
            for number in range(samples):
                yield mesh_sample(number, **(bad or {}).get(number, {}))

        write_meshes(tmp_path / name, each(), units={"velocity": "m/s", "time": "s"}, **keys)
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
