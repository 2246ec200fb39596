"""A finished run as its folder tells it: recipe, environment, score card and curves. Nothing is loaded or computed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from ..errors import StorageError, UsageError
from ..folder import EVALUATIONS, RECORD, RunFolder, read_json, what_is_at
from ..keypaths import render
from ..merging import leaves

FINISHED = ("finished", "below_floor")
EXPECTED = "expected the folder of a run, such as runs/NAME/1, or one of its evaluations/N"

Numbers = dict[str, float | None]
Curve = list[tuple[float, float]]  # (step, value)
History = dict[str, dict[str, Curve]]  # by stage and name


@frozen(eq=False)
class FinishedRun:
    """What is compared of one run. Of several tasks, rows and curves have the task's name before theirs."""

    path: Path
    seed: int
    values: Mapping[str, Any] = field(repr=False)  # of the recipe, by key path
    environment: Mapping[str, Any] = field(repr=False)
    rows: Mapping[str, Numbers] = field(repr=False)  # of the score card: by forecast and column
    floors: frozenset[str]  # those rows that are no model's
    fingerprint: Mapping[str, Any] = field(repr=False)  # what the numbers are of
    facts: Mapping[str, float | str | None] = field(repr=False)
    growth: Mapping[str, list[float | None]] = field(repr=False)  # errors over the steps of a rollout
    history: History = field(repr=False)


def read_run(path: Path) -> FinishedRun:
    """A run folder, or an evaluation that was made of it later.

    Raises UsageError where there is none, it is not finished or it was not evaluated; StorageError for damaged files.
    """
    home = path.absolute().parent.parent if path.absolute().parent.name == EVALUATIONS else path
    if (not (path / "summary.json").is_file() and not (path / RECORD).is_file()) or not (home / RECORD).is_file():
        raise UsageError(f"{path}: {what_is_at(path, EXPECTED)}")
    _refuse_unfinished(path, home)
    record, summary = read_json(home / RECORD), read_json(path / "summary.json")
    values = {render(where): value for where, value in leaves(_table(record, "values", home / RECORD))}
    cards = dict(_cards(summary, path))
    seed = values.get("run.seed")
    if not isinstance(seed, int):
        raise StorageError(f"{home / RECORD}: holds no run.seed; restore it, or start a new run")
    return FinishedRun(
        path=path,
        seed=seed,
        values=values,
        environment=_environment(home),
        rows={row: numbers for name, card in cards.items() for row, numbers in _rows(card, name, path)},
        floors=frozenset(_of(name, floor) for name, card in cards.items() for floor in card["floors"]),
        fingerprint={_of(name, key): value for name, card in cards.items() for key, value in _print(card, path)},
        facts=_facts(summary, read_json(home / "summary.json")),
        growth={_of(name, curve): points for name, card in cards.items() for curve, points in _growth(card)},
        history=read_history(RunFolder(home).metrics),
    )


def _refuse_unfinished(path: Path, home: Path) -> None:
    status = home / "STATUS"
    word = status.read_text(errors="replace").strip()[:40] if status.is_file() else "not begun"
    if word not in FINISHED or not (path / "summary.json").is_file():
        raise UsageError(f"{path}: this run is {word}, and has no results yet; `upskit run {home} --resume` goes on")


def _cards(summary: Mapping[str, Any], path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The score card of every task beside its metrics and floors; "" where there are no tasks."""
    parts = {"": summary} if "tasks" not in summary else _table(summary, "tasks", path / "summary.json")
    for name, part in parts.items():
        if not isinstance(part, Mapping) or "card" not in part:
            raise UsageError(
                f"{path}: holds no score card, so there is nothing to compare; its recipe needs a stage that evaluates"
            )
        card = dict(_table(part, "card", path / "summary.json"))
        yield name, {**card, "floors": part.get("floors") or {}, "metrics": part.get("metrics") or {}}


def _rows(card: Mapping[str, Any], task: str, path: Path) -> Iterator[tuple[str, Numbers]]:
    for row, numbers in _table(card, "rows", path / "summary.json").items():
        yield _of(task, row), {column: _number(value) for column, value in dict(numbers).items()}


def _print(card: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Any]]:
    if not isinstance(card.get("fingerprint"), Mapping):
        raise UsageError(
            f"{path}: was evaluated by a version that did not note what its numbers are of; `upskit evaluate {path}` "
            f"does it once more, and its folder {path / EVALUATIONS}/N is compared"
        )
    yield from card["fingerprint"].items()


def _growth(card: Mapping[str, Any]) -> Iterator[tuple[str, list[float | None]]]:
    """nRMSE and VRMSE of the forecasts whose every step is noted, and of persistence."""
    found = {name: kind for name, kind in dict(card["metrics"]).items() if name != "one_step"}
    persistence = dict(card["floors"]).get("persistence")
    if isinstance(persistence, Mapping):
        found["persistence"] = persistence.get("rollout")
    for forecast, numbers in found.items():
        for name in ("nrmse", "vrmse"):
            curve = numbers.get(f"curve_{name}") if isinstance(numbers, Mapping) else None
            if isinstance(curve, list) and len(curve) > 1:
                yield f"{forecast}/{name}", [_number(value) for value in curve]


def _facts(summary: Mapping[str, Any], main: Mapping[str, Any]) -> dict[str, float | str | None]:
    """Numbers of the run beside its score: size, seconds and the validation score of every stage that trained."""
    facts: dict[str, float | str | None] = {"parameters": _number(_inner(main, "parameters", "total"))}
    for name, stage in dict(main.get("stages") or {}).items():
        if isinstance(stage, Mapping) and "best_score" in stage:
            facts[f"{name}: best validation score"] = _number(stage["best_score"])
            facts[f"{name}: steps"] = _number(stage.get("steps"))
            facts[f"{name}: wall seconds"] = _number(stage.get("wall_seconds"))
    return facts | {"verdict": str(summary.get("status", "-"))}


def _environment(home: Path) -> dict[str, Any]:
    path = home / "environment.json"
    if not path.is_file():
        return {}
    return {render(where): value for where, value in leaves(read_json(path))}


def read_history(path: Path) -> History:
    """Losses and validation scores of every stage that trained; lines and values that are damaged are passed over."""
    history: History = {}
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue  # the process died within this line
        if not isinstance(record, Mapping) or _number(record.get("step")) is None:
            continue
        for name, value in record.items():
            if (name in ("loss", "validation/score") or name.startswith("losses/")) and _number(value) is not None:
                series = history.setdefault(str(record.get("stage")), {})
                series.setdefault(name, []).append((float(record["step"]), float(value)))
    return history


# ---------------------------------------------------------------------------------------------------------------------
# Parts of JSON
# ---------------------------------------------------------------------------------------------------------------------
def _of(task: str, name: str) -> str:
    return f"{task}: {name}" if task else name


def _table(values: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    found = values.get(key)
    if not isinstance(found, Mapping):
        raise StorageError(f"{path}: '{key}' is no table; restore the file, or start a new run")
    return found


def _inner(values: Mapping[str, Any], *keys: str) -> Any:
    found: Any = values
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if number else None
