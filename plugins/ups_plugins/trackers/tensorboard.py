"""TensorBoard event files, one folder for each stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch.utils.tensorboard import SummaryWriter

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TensorBoard:
    """Scalars and figures of each stage as a TensorBoard run of its own.

    A stage has its own folder because TensorBoard forgets by step: what a resumed stage writes again must not take
    another stage's numbers with it.
    """

    def __init__(self, folder: Path, flush_seconds: int) -> None:
        self._folder = folder
        self._flush_seconds = flush_seconds
        self._writers: dict[str, SummaryWriter] = {}

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """One point of each curve."""
        writer = self._writer(stage)
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    def figure(self, stage: str, step: int, name: str, figure: Figure) -> None:
        """A picture; the figure stays open."""
        self._writer(stage).add_figure(name, figure, step, close=False)

    def forget_after(self, stage: str, step: int) -> None:
        """Have TensorBoard drop what a stopped process wrote of this stage after `step`."""
        if (self._folder / stage).is_dir():
            self._writers[stage] = self._open(stage, step + 1)

    def close(self) -> None:
        """Flush and close the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _writer(self, stage: str) -> SummaryWriter:
        if stage not in self._writers:
            self._writers[stage] = self._open(stage, None)
        return self._writers[stage]

    def _open(self, stage: str, purge_step: int | None) -> SummaryWriter:
        return SummaryWriter(str(self._folder / stage), purge_step=purge_step, flush_secs=self._flush_seconds)
