"""The tracker: what a run tells, as messages to the process that talks to wandb."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
import secrets
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ups_kit.folder import read_json, write_json
from ups_kit.interfaces import Artefact, StageEvent, Table, TrackedRun

from .config import WandbConfig
from .link import Link

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = {"diverged": "ERROR", "failed": "ERROR", "preempted": "WARN", "interrupted": "WARN"}
WELL = ("finished", "below_floor")  # ends of a run that are no failure of it
OWN = ("WANDB_SERVICE", "WANDB_MODE", "WANDB_RUN_ID", "WANDB_RESUME")  # what the recipe and the run folder say
GRACE = 5.0  # seconds for a process to start and to end


class WandbTracker:
    """One run of wandb. Every call raises `Lost` once its process is of no use, with the reason."""

    def __init__(self, folder: Path, config: WandbConfig) -> None:
        self._config = config
        self._folder = folder
        self._home = (folder if config.folder is None else config.folder).resolve()
        self._link: Link | None = None
        self._best: dict[str, Artefact] = {}
        self._artefacts = 0
        self._id = ""
        if config.mode != "disabled":
            (self._home / "wandb").mkdir(parents=True, exist_ok=True)
            (folder / "wandb").mkdir(exist_ok=True)
            self._id = _kept_id(folder / "wandb" / "run.json")

    def begin(self, run: TrackedRun) -> None:
        """Start the process; the recipe becomes the run's config."""
        config = self._config
        if config.mode == "disabled":
            return
        command = [sys.executable, "-P", "-m", "ups_wandb.writer"]
        self._link = Link(command, _environment(self._home / "wandb"), self._folder / "wandb" / "ups_wandb.log")
        self._link.say(
            {
                "id": self._id,
                "resumed": run.resumed,
                "project": config.project,
                "entity": config.entity,
                "name": config.name or f"{run.name}/{run.folder.name}",
                "group": config.group,
                "tags": list(config.tags),
                "notes": config.notes or None,
                "mode": config.mode,
                "folder": str(self._home),
                "system_metrics": config.system_metrics,
                "timeout": config.timeout,
                "config": _named(run.recipe),
            }
        )

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Points of the curves `<stage>/<name>`, over `<stage>/step`."""
        self._say("scalars", stage=stage, step=step, values=dict(values))

    def figure(self, stage: str, step: int, name: str, figure: Figure) -> None:
        """An image; the figure stays open."""
        if self._config.figures and self._config.mode != "disabled":
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png")
            self._say("figure", stage=stage, step=step, name=name, png=base64.b64encode(buffer.getvalue()).decode())

    def table(self, stage: str, step: int, name: str, table: Table) -> None:
        """A table."""
        if self._config.tables:
            self._say("table", stage=stage, step=step, name=name, columns=table.columns, rows=table.rows)

    def event(self, stage: str, event: StageEvent) -> None:
        """An alert; of a stage that has not come to its end, the best weights there are."""
        if event.kind in self._config.alerts:
            title = f"{stage}: {event.kind.replace('_', ' ')}"
            self._say("alert", title=title, text=event.text or title, level=LEVELS.get(event.kind, "INFO"))
        best = self._best.pop(stage, None)
        if best is not None and event.kind in LEVELS and best.path.exists():
            self._upload(stage, best)

    def artefact(self, stage: str, artefact: Artefact) -> None:
        """Files, as an artifact of wandb, where they are asked for."""
        asked = self._config.upload_checkpoints
        if asked == "all" or (asked == "best" and artefact.kind in ("weights", "bundle", "report")):
            self._upload(stage, artefact)
        elif asked == "best" and artefact.kind == "best":
            self._best[stage] = artefact

    def end(self, status: str, metrics: Mapping[str, float]) -> None:
        """The final metrics, for the run's summary."""
        self._say("end", status=status, metrics=dict(metrics), code=int(status not in WELL))

    def close(self) -> None:
        """Wait until wandb is done, and not for long."""
        link, self._link = self._link, None
        if link is not None:
            link.finish(2 * self._config.timeout + GRACE)  # it may still be about to begin
            if self._config.mode == "online":
                shutil.rmtree(self._home / "wandb" / "files", ignore_errors=True)

    def _upload(self, stage: str, artefact: Artefact) -> None:
        if self._config.mode == "disabled":
            return
        self._artefacts += 1
        target = self._home / "wandb" / "files" / f"{os.getpid()}_{self._artefacts}"
        _link_files(artefact.path, target)
        self._say(
            "artifact",
            name=re.sub(r"[^\w.-]+", "_", f"{stage}-{artefact.kind}-{self._id}"),
            type=artefact.kind if artefact.kind in ("checkpoint", "report") else "model",
            folder=str(target),
            aliases=[artefact.kind, *([] if artefact.step is None else [f"step-{artefact.step}"])],
            metadata={"stage": stage, "step": artefact.step, "score": artefact.score, "path": artefact.path.name},
        )

    def _say(self, call: str, **values: Any) -> None:
        if self._config.mode == "disabled":
            return
        if self._link is None:
            self.begin(TrackedRun(self._folder.parent.name, self._folder, False, {}))
        assert self._link is not None
        self._link.say({"call": call, **values})


def _kept_id(path: Path) -> str:
    """The id of the run folder's run, made when it is first asked for."""
    if not path.exists():
        write_json(path, {"id": secrets.token_hex(4)})
    return str(read_json(path)["id"])


def _environment(home: Path) -> dict[str, str]:
    """What the process is started with: wandb's own files stay together, and nothing is asked of a terminal."""
    kept = {name: value for name, value in os.environ.items() if name not in OWN}
    places = {"WANDB_DATA_DIR": str(home / "data"), "WANDB_CACHE_DIR": str(home / "cache"), "WANDB_SILENT": "true"}
    return places | kept | {"PYTHONUNBUFFERED": "1"}


def _link_files(path: Path, target: Path) -> None:
    """A copy of a file or folder that stays when the original goes, and takes no space where links are possible."""
    if path.is_dir():
        shutil.copytree(path, target, copy_function=_link)
    else:
        target.mkdir(parents=True)
        _link(path, target / path.name)


def _link(source: Any, target: Any) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that knows no links
        shutil.copy2(source, target)


def _named(value: Any) -> Any:
    """A recipe's values for a config: arrays of tables become tables by name, numbers and texts stay."""
    if isinstance(value, Mapping):
        return {str(key): _named(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        if not any(isinstance(each, Mapping) for each in value):
            return [_named(each) for each in value]
        names = [str(each.get("name", each.get("use", number))) for number, each in enumerate(value)]
        unique = names if len(set(names)) == len(names) else [f"{name}_{at}" for at, name in enumerate(names)]
        return {name: _named(each) for name, each in zip(unique, value, strict=True)}
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, (bool, int, str)) else json.loads(json.dumps(value, default=str))
