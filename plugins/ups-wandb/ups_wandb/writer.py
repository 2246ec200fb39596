"""The process that talks to wandb: `python -m ups_wandb.writer`, told what to do by lines of JSON.

The first line is the run; the others are calls of `Session`. It answers `{"failed": reason}` or `{"done": true}`, once.
"""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from typing import Any

NAMED = ("id", "project", "entity", "name", "group", "tags", "notes", "config")  # as in wandb.init
DIED = 255  # what wandb is told of a training that ended without a word


def main() -> int:
    """Read calls until there are no more, then finish."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what wandb prints is for the log
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # they are for the training, which tells its end
        signal.signal(number, signal.SIG_IGN)
    try:
        _follow(sys.stdin)
    except Exception as error:
        answer: dict[str, Any] = {"failed": _reason(error)}
    else:
        answer = {"done": True}
    try:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    except OSError:  # nobody is listening any more
        pass
    return 0 if "done" in answer else 1


def _follow(lines: Iterable[str]) -> None:
    messages = map(json.loads, lines)
    first = next(messages, None)
    if first is None:
        return
    session = Session(first)
    for message in messages:
        call = message.pop("call")
        if call == "close":
            break
        getattr(session, call)(**message)
    session.finish()


class Session:
    """A run of wandb; the methods are the calls that there are."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        import wandb

        self._wandb = wandb
        self._timeout = float(told["timeout"])
        self._stages: set[str] = set()
        self._code = DIED
        settings = {
            "mode": told["mode"],
            "console": "off",
            "silent": True,
            "init_timeout": self._timeout,
            "login_timeout": self._timeout,
            "finish_timeout": self._timeout,
            "finish_timeout_raises": True,
            "x_service_wait": self._timeout,
            "x_disable_stats": not told["system_metrics"],
            "x_transaction_log_flush_interval": 2.0,  # what a machine that goes down may cost
            "disable_git": True,
            "disable_code": True,
            "disable_job_creation": True,
            "symlink": False,
        }
        known = wandb.Settings.model_fields  # some came with later versions
        online = told["mode"] == "online"
        try:
            self._run = wandb.init(
                **{
                    name: told[name] for name in ("project", "entity", "name", "group", "tags", "notes", "id", "config")
                },
                resume="allow" if online else None,
                dir=told["folder"],
                settings=wandb.Settings(**{name: value for name, value in settings.items() if name in known}),
            )
        except Exception as error:
            if not online:
                raise
            advice = "mode = 'offline' keeps it in files, and `wandb sync` sends them later"
            raise ConnectionError(f"{_first_line(error)}; {advice}") from error

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Points of a stage's curves; its own steps are their axis."""
        self._log(stage, step, values)

    def figure(self, stage: str, step: int, name: str, png: str) -> None:
        """A picture."""
        from PIL import Image

        with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
            self._log(stage, step, {name: self._wandb.Image(picture)})

    def table(self, stage: str, step: int, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        """A table."""
        self._log(stage, step, {name: self._wandb.Table(columns=columns, data=rows, allow_mixed_types=True)})

    def alert(self, title: str, text: str, level: str) -> None:
        """Tell whoever has subscribed to alerts."""
        self._run.alert(title=title, text=text, level=level)

    def artifact(self, name: str, type: str, folder: str, aliases: list[str], metadata: Mapping[str, Any]) -> None:
        """Files that stay where they are until they are sent."""
        artifact = self._wandb.Artifact(name, type=type, metadata=dict(metadata))
        artifact.add_dir(folder, policy="immutable")
        self._run.log_artifact(artifact, aliases=[*aliases, "latest"])

    def end(self, status: str, metrics: Mapping[str, float], code: int) -> None:
        """How it ended; what came of it is the run's summary."""
        self._run.summary.update({**metrics, "status": status})
        self._code = code
        if status == "preempted":
            self._run.mark_preempting()

    def finish(self) -> None:
        """Everything sent, or on the disk. Raises where that takes longer than it may."""
        place = self._run.dir
        try:
            self._run.finish(exit_code=self._code)
        except TimeoutError as error:
            where = os.path.dirname(place)  # noqa: PTH120
            raise TimeoutError(
                f"not everything was sent in {self._timeout:g} s; `wandb sync {where}` sends the rest"
            ) from error

    def _log(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        if stage not in self._stages:
            self._stages.add(stage)
            self._run.define_metric(f"{stage}/step", hidden=True)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self._run.log({**{f"{stage}/{name}": value for name, value in values.items()}, f"{stage}/step": step})


def _reason(error: Exception) -> str:
    """One line for a warning; the log has the rest."""
    import traceback

    traceback.print_exc()
    return _first_line(error)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


if __name__ == "__main__":
    sys.stdout.flush()
    os._exit(main())  # without wandb's hooks, which would wait for what is known not to come
