"""Recipe keys of the trackers."""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen
from attrs.validators import gt

from ups_kit.interfaces import Tracker


@frozen
class TensorBoardConfig:
    """TensorBoard event files in `tensorboard/<stage>` of the run folder: `tensorboard --logdir RUN/tensorboard`."""

    flush_seconds: int = field(
        default=30, validator=gt(0), metadata={"help": "numbers reach the disk at least this often", "unit": "s"}
    )

    def build(self, folder: Path) -> Tracker:
        from .tensorboard import TensorBoard

        return TensorBoard(folder / "tensorboard", self.flush_seconds)
