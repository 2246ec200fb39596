"""What a run tells as JSON lines, whole ones."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ups_kit.folder import write_bytes
from ups_kit.interfaces import Artefact, StageEvent, Table, TrackedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WRITTEN_AGAIN = ("scalars", "figure", "table", "artefact")  # by a stage that is resumed before them


class JsonLines:
    """A file of JSON lines, and a folder of figures named after it.

    A line is one write at the end of the file, so that a process that dies leaves no half of one; where the disk is
    full, what came of it is cut off again. Nothing is held open.
    """

    def __init__(self, run: Path, name: str, figures: bool) -> None:
        self._run = run
        self._path = run / name
        self._figures = self._path.with_suffix("") if figures else None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _cut_half_line(self._path)

    def begin(self, run: TrackedRun) -> None:
        """The run's name and its recipe."""
        self._write("begin", run=run.name, resumed=run.resumed, recipe=run.recipe)

    def end(self, status: str, metrics: Mapping[str, float]) -> None:
        """How it ended, and the numbers of its model."""
        self._write("end", status=status, metrics=dict(metrics))

    def event(self, stage: str, event: StageEvent) -> None:
        """A stage began or ended."""
        self._write("stage", stage=stage, event=event.kind, text=event.text)

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name."""
        self._write("scalars", stage=stage, step=step, values=dict(values))

    def figure(self, stage: str, step: int, name: str, figure: Figure) -> None:
        """A PNG file and the line that names it."""
        if self._figures is None:
            return
        path = self._figures / f"{_file_name(stage)}_{step:08}_{_file_name(name)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png")
        self._write("figure", stage=stage, step=step, name=name, path=self._below_run(path))

    def table(self, stage: str, step: int, name: str, table: Table) -> None:
        """A table, row by row."""
        self._write("table", stage=stage, step=step, name=name, columns=table.columns, rows=table.rows)

    def artefact(self, stage: str, artefact: Artefact) -> None:
        """Where a file is that is whole."""
        told = {"path": self._below_run(artefact.path), "step": artefact.step, "score": artefact.score}
        self._write("artefact", stage=stage, artefact=artefact.kind, **told)

    def forget_after(self, stage: str, step: int) -> None:
        """Drop the lines, and the figures, that a resumed stage will write again."""
        if not self._path.exists():
            return
        kept = []
        for line in _lines(self._path):
            record = json.loads(line)
            again = record["kind"] in WRITTEN_AGAIN and record["stage"] == stage
            if again and (record["step"] is None or record["step"] > step):
                if record["kind"] == "figure":
                    (self._run / record["path"]).unlink(missing_ok=True)
            else:
                kept.append(line)
        write_bytes(self._path, b"".join(kept))

    def close(self) -> None:
        """Nothing is held open."""

    def _below_run(self, path: Path) -> str:
        return str(path.relative_to(self._run)) if path.is_relative_to(self._run) else str(path)

    def _write(self, kind: str, **values: Any) -> None:
        now = datetime.now().astimezone().isoformat(timespec="milliseconds")
        text = json.dumps(_strict({"kind": kind, "time": now, **values}), allow_nan=False)
        _append(self._path, text.encode() + b"\n")


def _append(path: Path, line: bytes) -> None:
    """Add a line in one write, or nothing of it. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        before = os.fstat(descriptor).st_size
        written = os.write(descriptor, line)
        if written < len(line):
            os.ftruncate(descriptor, before)
            raise OSError(f"{path}: only {written} of {len(line)} bytes could be written; the disk is full")
    finally:
        os.close(descriptor)


def _cut_half_line(path: Path) -> None:
    """Cut off what a machine that went down may have left behind the last whole line."""
    if path.exists():
        whole = sum(map(len, _lines(path)))
        if whole < path.stat().st_size:
            os.truncate(path, whole)


def _lines(path: Path) -> Iterator[bytes]:
    """The whole lines of a file up to the first that is none."""
    with path.open("rb") as handle:
        for line in handle:
            try:
                known = line.endswith(b"\n") and isinstance(json.loads(line), dict)
            except ValueError:
                known = False
            if not known:
                return
            yield line


def _strict(value: Any) -> Any:
    """A value as strict JSON has it: numbers that are not finite are null, paths are texts."""
    if isinstance(value, Mapping):
        return {str(key): _strict(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)
