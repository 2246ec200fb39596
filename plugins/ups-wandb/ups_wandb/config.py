"""Recipe keys of the tracker; imports neither wandb nor torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from attrs import field, frozen
from attrs.validators import gt, min_len

from ups_kit.interfaces import Tracker

Ending = Literal["began", "finished", "stopped_early", "diverged", "preempted", "interrupted", "failed"]


@frozen(kw_only=True)
class WandbConfig:
    """A run of Weights & Biases: curves, figures, score cards, alerts, and checkpoints as artifacts.

    Offline unless `mode` says otherwise: nothing leaves the machine, no account is needed, and `wandb sync` sends it
    later. wandb runs in a process of its own, which a training never waits for; where it fails, the training warns once
    and goes on. A resumed run goes on as the same run of wandb: its id is kept in the run folder.
    """

    project: str = field(default="ups_kit", validator=min_len(1), metadata={"help": "project of the run"})
    entity: str | None = field(
        default=None, metadata={"help": "user or team that it belongs to; the account's own where absent"}
    )
    name: str | None = field(
        default=None, metadata={"help": "name of the run; name and number of the run folder where absent"}
    )
    group: str | None = field(default=None, metadata={"help": "runs that belong together, such as seeds"})
    tags: tuple[str, ...] = field(default=(), metadata={"help": "words to find the run by", "example": '["burgers"]'})
    notes: str = field(default="", metadata={"help": "what the run is for"})
    mode: Literal["online", "offline", "disabled"] = field(
        default="offline",
        metadata={"help": "online: sent while it is told, which needs an account; offline: kept in files; disabled"},
    )
    folder: Path | None = field(
        default=None,
        metadata={
            "help": "where wandb keeps its files, in a folder `wandb`; the run folder where absent",
            "relative_to": "working directory",
        },
    )
    upload_checkpoints: Literal["none", "best", "all"] = field(
        default="none",
        metadata={"help": "as artifacts: none; best: stages' best weights, bundle, report; all: checkpoints, too"},
    )
    figures: bool = field(default=True, metadata={"help": "figures as images"})
    tables: bool = field(default=True, metadata={"help": "score cards as tables"})
    alerts: tuple[Ending, ...] = field(
        default=("began", "finished", "stopped_early", "diverged", "preempted", "failed"),
        metadata={"help": "what of a stage raises an alert", "example": '["diverged", "failed"]'},
    )
    system_metrics: bool = field(default=False, metadata={"help": "sample the use of CPU, GPU and memory"})
    timeout: float = field(
        default=30.0,
        validator=gt(0.0),
        metadata={"help": "longest wait for wandb to begin, and at the end for it to finish", "unit": "s"},
    )

    def build(self, folder: Path) -> Tracker:
        from .tracker import WandbTracker

        return WandbTracker(folder, self)
