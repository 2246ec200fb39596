"""Recipe keys of the trackers."""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen
from attrs.validators import gt, matches_re

from ups_kit.interfaces import Tracker


@frozen(kw_only=True)
class TensorBoardConfig:
    """TensorBoard event files in `tensorboard/<stage>` of the run folder: `upskit tb RUN` shows them.

    Scalars, figures and tables of each stage, a layout of the charts that belong together, and at the end the recipe's
    values with the final metrics (HParams). A resumed run shows each step once.
    """

    flush_seconds: int = field(
        default=30, validator=gt(0), metadata={"help": "numbers reach the disk at least this often", "unit": "s"}
    )
    figures: bool = field(default=True, metadata={"help": "keep the figures of evaluations"})
    hparams: bool = field(
        default=True, metadata={"help": "the recipe's values with the final metrics, for the tab HParams"}
    )
    layout: bool = field(default=True, metadata={"help": "charts that belong together, for the tab Custom Scalars"})

    def build(self, folder: Path) -> Tracker:
        from .tensorboard import TensorBoard

        return TensorBoard(folder / "tensorboard", self)


@frozen(kw_only=True)
class JsonLinesConfig:
    """Everything that a run tells, one JSON object per line, for programs: numbers, stages' ends, tables, files.

    `metrics.jsonl`, which every run writes, holds the numbers alone. Here each line has `kind` and `time`, figures are
    PNG files beside it, and a number that is not finite is null. A process that is killed leaves whole lines; what a
    resumed stage writes again is dropped first.
    """

    path: str = field(
        default="events.jsonl",
        validator=matches_re(r"(?!\.|metrics\.jsonl$)[\w.-]+(/(?!\.)[\w.-]+)*\.jsonl"),
        metadata={
            "help": "the file, below the run folder; metrics.jsonl is the run's own",
            "example": '"events.jsonl"',
        },
    )
    figures: bool = field(default=True, metadata={"help": "write figures as PNG files, into a folder beside the file"})

    def build(self, folder: Path) -> Tracker:
        from .json_lines import JsonLines

        return JsonLines(folder, self.path, self.figures)
