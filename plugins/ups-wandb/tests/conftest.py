"""What wandb has written, read back: its file is a log of records in blocks of 32 KiB, as LevelDB's."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BLOCK, HEADER = 32768, 7
WHOLE, LAST = 1, 4  # kinds of chunks that end a record


def _records(path: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data.startswith(b":W&B")
    at, record = HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + HEADER])
        if kind == 0:
            break
        record += data[at + HEADER : at + HEADER + size]
        at += HEADER + size
        if kind in (WHOLE, LAST):
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""


def _items(items: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) if item.nested_key else item.key: json.loads(item.value_json) for item in items}


class Written:
    """One process's part of a run."""

    def __init__(self, folder: Path) -> None:
        (path,) = folder.glob("*.wandb")
        records = list(_records(path))
        of: dict[str, list[Any]] = {kind: [] for kind in KINDS}
        for each in records:
            of.setdefault(each.WhichOneof("record_type"), []).append(getattr(each, each.WhichOneof("record_type")))
        self.run: Any = next(iter(of["run"]), None)  # not yet there of one that has just begun
        self.config = {} if self.run is None else _items(self.run.config.update)
        self.history = [_items(each.item) for each in of["history"]]
        self.alerts = [(each.title, each.level) for each in of["alert"]]
        self.artifacts = [each for each in of["artifact"] if each.type != "run_table"]
        self.exit_codes = [each.exit_code for each in of["exit"]]
        self.summary: dict[str, Any] = {}
        for each in of["summary"]:
            self.summary |= _items(each.update)

    def curve(self, stage: str, name: str) -> list[tuple[int, float]]:
        """A curve's points, over its stage's steps."""
        found = [row for row in self.history if f"{stage}/{name}" in row]
        return [(row[f"{stage}/step"], row[f"{stage}/{name}"]) for row in found]


KINDS = ("run", "history", "summary", "alert", "artifact", "exit")


@pytest.fixture
def written() -> Callable[[Path], list[Written]]:
    """What the processes of a run have written, in the order in which they began."""

    def read(folder: Path) -> list[Written]:
        found = sorted((folder / "wandb").glob("offline-run-*"))
        return [Written(each) for each in found if list(each.glob("*.wandb"))]

    return read


@pytest.fixture(autouse=True)
def _nobodys_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings and no account of whoever runs the tests."""
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home"))
