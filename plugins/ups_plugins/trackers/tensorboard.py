"""TensorBoard event files: one folder for each stage, and the run's own above them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from ups_kit.interfaces import StageEvent, Table, TrackedRun

from .config import TensorBoardConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OWN = ".run"  # how the names of the run's own event files end; those are written anew by each process
RESUMABLE = ("preempted", "interrupted")  # ends of a process, not of a run

# The tab "Custom scalars": chart -> regular expressions of tags.
LAYOUT = {
    "training": {
        "loss and its terms": ["Multiline", ["^loss$", "^losses/.*"]],
        "validation": ["Multiline", ["^validation/.*"]],
        "learning rate": ["Multiline", ["^lr$"]],
        "gradient norm": ["Multiline", ["^grad_norm$"]],
        "throughput": ["Multiline", ["^samples_per_second$"]],
        "waiting for data": ["Multiline", ["^data_wait$"]],
    },
    "evaluation": {
        "error along the rollout": ["Multiline", [".*/curve_nrmse$"]],
    },
}


class TensorBoard:
    """Scalars, figures and tables of each stage as a TensorBoard run of its own; layout and hyperparameters above them.

    A stage has its own folder because TensorBoard forgets by step: what a resumed stage writes again must not take
    another stage's numbers with it.
    """

    def __init__(self, folder: Path, config: TensorBoardConfig) -> None:
        self._folder = folder
        self._config = config
        self._run: TrackedRun | None = None
        self._writers: dict[str, SummaryWriter] = {}
        _silence_writing_threads()

    def begin(self, run: TrackedRun) -> None:
        """The layout of the charts; what an earlier process has said of the run as a whole goes."""
        self._run = run
        for old in self._folder.glob(f"events.*{OWN}"):
            old.unlink()
        if self._config.layout:
            self._writer("").add_custom_scalars(LAYOUT)
            self._writer("").flush()

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """One point of each curve."""
        writer = self._writer(stage)
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    def figure(self, stage: str, step: int, name: str, figure: Figure) -> None:
        """A picture; the figure stays open."""
        if self._config.figures:
            self._writer(stage).add_figure(name, figure, step, close=False)

    def table(self, stage: str, step: int, name: str, table: Table) -> None:
        """A table, under the tab "Text"."""
        self._writer(stage).add_text(name, _markdown(table), step)

    def event(self, stage: str, event: StageEvent) -> None:
        """What a stage has told so far is put on the disk."""
        if stage in self._writers:
            self._writers[stage].flush()

    def end(self, status: str, metrics: Mapping[str, float]) -> None:
        """The recipe's values with what came of them, for the tab "HParams"; not of a run that is to be resumed."""
        if not self._config.hparams or self._run is None or status in RESUMABLE:
            return
        writer = self._writer("")
        told = {**self._run.plain(), "status": status}
        for summary in hparams(told, dict(metrics)):  # type: ignore[no-untyped-call]
            writer.file_writer.add_summary(summary)  # type: ignore[attr-defined]  # not typed in torch
        for name, value in metrics.items():
            writer.add_scalar(name, value, 0)

    def forget_after(self, stage: str, step: int) -> None:
        """Have TensorBoard drop what a stopped process wrote of this stage after `step`."""
        if (self._folder / stage).is_dir():
            self._writers[stage] = self._open(stage, step + 1)

    def close(self) -> None:
        """Flush and close the files."""
        writers, self._writers = self._writers, {}
        for writer in writers.values():
            writer.close()

    def _writer(self, stage: str) -> SummaryWriter:
        if stage not in self._writers:
            self._writers[stage] = self._open(stage, None)
        return self._writers[stage]

    def _open(self, stage: str, purge_step: int | None) -> SummaryWriter:
        return SummaryWriter(
            str(self._folder / stage),
            purge_step=purge_step,
            flush_secs=self._config.flush_seconds,
            filename_suffix="" if stage else OWN,
        )


@cache
def _silence_writing_threads() -> None:
    """Print no traceback of a thread of TensorBoard's that dies: what it died of is raised by the next call."""
    before = threading.excepthook

    def told(problem: threading.ExceptHookArgs) -> None:
        if not type(problem.thread).__module__.startswith("tensorboard."):
            before(problem)

    threading.excepthook = told


def _markdown(table: Table) -> str:
    """A table as TensorBoard shows texts."""
    lines = [table.columns, ("---",) * len(table.columns), *table.rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    return value.replace("|", "\\|") if isinstance(value, str) else f"{value:.4g}"
