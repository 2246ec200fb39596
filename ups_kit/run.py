"""A whole run: assemble the recipe, run its stages one after the other, leave everything in one folder."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import frozen

from . import __version__
from .assemble import Experiment, assemble
from .bundle import load_bundle, load_weights, save_bundle, save_weights, set_forecast
from .console import Console
from .data.latents import Opened, open_latents
from .errors import (
    BELOW_FLOOR_EXIT_CODE,
    DivergedError,
    Preempted,
    StorageError,
    UsageError,
)
from .fit.interrupts import sigterm_preempts
from .fit.settings import FitSettings
from .folder import RunFolder, StageFolder, last_run_folder, new_run_folder, read_json, write_json, write_text
from .interfaces import TakesLatents
from .plugins import Catalog, discover
from .reading import resolved
from .recipe import Recipe
from .trackers import MetricsFile, Trackers


@frozen
class RunResult:
    """What a run came to."""

    folder: Path
    summary: Mapping[str, Any]

    @property
    def exit_code(self) -> int:
        """0, or 7 where the model does not beat what its recipe requires it to beat."""
        return BELOW_FLOOR_EXIT_CODE if self.summary["status"] == "below_floor" else 0


def run(
    recipe: Recipe,
    *,
    resume: bool = False,
    recipe_text: str | None = None,
    origins: Mapping[str, str] | None = None,
    catalog: Catalog | None = None,
) -> RunResult:
    """Run a recipe in a fresh numbered folder, or continue its newest one.

    `recipe_text` and `origins` are the file it was read from and where each value was written, for the record.
    Raises UpsKitError; the folder's STATUS then says how the run ended, and nothing that was written is lost.
    """
    experiment = assemble(recipe, catalog)
    folder = _folder(recipe, resume)
    console = Console()
    with folder.lock():
        record = resolved(recipe, origins, experiment.catalog)
        _write_papers(folder, record, recipe_text, experiment, resume)
        folder.set_status("running")
        console.line(f"run {folder.path} on {experiment.device}")
        trackers = Trackers([MetricsFile(folder.metrics), *(t.build(folder.path) for t in recipe.trackers), console])
        try:
            with sigterm_preempts():
                summary = _run_stages(experiment, folder, trackers, console, resume)
        except BaseException as error:
            folder.set_status(_status(error))
            raise
        finally:
            trackers.close()
        folder.set_status("finished" if summary["status"] == "ok" else summary["status"])
    console.line(_closing_line(folder, summary))
    return RunResult(folder.path, summary)


def _run_stages(
    experiment: Experiment, folder: RunFolder, trackers: Trackers, console: Console, resume: bool
) -> dict[str, Any]:
    """Every stage in order; one that is finished is loaded, one without a budget is skipped."""
    results: dict[str, Mapping[str, Any]] = {}
    for config, stage in zip(experiment.recipe.stages, experiment.stages):
        trains = isinstance(config, FitSettings)
        if isinstance(config, FitSettings) and config.budget.is_zero:
            console.line(f"stage {config.name}: skipped, its budget is 0")
            continue
        room = folder.stage(config.name, resume)
        if room.done.exists():
            console.line(f"stage {config.name}: finished before")
            results[config.name] = _finished(room, experiment, trains)
            continue
        console.line(f"stage {config.name}")
        if resume and not trains:  # begun, but not finished; a training stage keeps what its checkpoint counts on
            trackers.forget_after(config.name, -1)
        started = time.perf_counter()
        result = dict(stage.run(experiment, room, trackers))
        result["wall_seconds"] = time.perf_counter() - started
        if trains:
            result["weights_sha256"] = hashlib.sha256(save_weights(room.weights, experiment.model)).hexdigest()
            save_bundle(folder.bundle, experiment, [*_trained(experiment.recipe, results), config.name])
        elif "forecast" in result and folder.bundle.exists():
            set_forecast(folder.bundle, result["forecast"])
        results[config.name] = result
        write_json(folder.summary, _summary(experiment, results))
        write_json(room.done, result)  # last: from here on the stage counts as finished
    summary = _summary(experiment, results)
    write_json(folder.summary, summary)
    return summary


def _trained(recipe: Recipe, results: Mapping[str, object]) -> list[str]:
    """Of the stages that are done those that train."""
    return [stage.name for stage in recipe.stages if isinstance(stage, FitSettings) and stage.name in results]


def _finished(room: StageFolder, experiment: Experiment, trains: bool) -> dict[str, Any]:
    """What a finished stage returned; the model gets its weights. Raises StorageError where they are damaged."""
    result = read_json(room.done)
    if trains:
        weights = _content(room.weights)
        if hashlib.sha256(weights).hexdigest() != result.get("weights_sha256"):
            raise StorageError(f"{room.weights}: its content is not what was written; restore it or start a new run")
        load_weights(experiment.model, weights, str(room.weights))
    return result


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path}: cannot be read, restore it or start a new run: {error.strerror}") from error


def _summary(experiment: Experiment, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What `summary.json` holds: the evaluation's findings, and how they came about."""
    seconds = {name: float(found.get("wall_seconds", 0.0)) for name, found in results.items()}
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in experiment.model.parts.items()}
    summary: dict[str, Any] = {
        "status": "ok",
        "recipe": experiment.recipe.run.name,
        "seed": experiment.recipe.run.seed,
        "seconds": {**seconds, "total": sum(seconds.values())},
        "parameters": {**parts, "total": sum(parts.values())},
        "stages": {name: {k: v for k, v in found.items() if k not in EVALUATED} for name, found in results.items()},
    }
    for found in results.values():
        summary.update({key: found[key] for key in EVALUATED if key in found})
    return summary


# A stage's keys that a summary lifts.
EVALUATED = (
    "status",
    "metrics",
    "floors",
    "budget",
    "shuffle",
    "reach",
    "card",
    "tasks",
    "ensembles",
    "forecast",
)


def _folder(recipe: Recipe, resume: bool) -> RunFolder:
    home = recipe.run.folder / recipe.run.name
    if not resume:
        return new_run_folder(recipe.run.folder, recipe.run.name)
    folder = last_run_folder(recipe.run.folder, recipe.run.name)
    if folder is None:
        raise UsageError(f"{home}: there is no run to resume; start one without --resume")
    return folder


# ---------------------------------------------------------------------------------------------------------------------
# Latents ahead of the stage that reads them
# ---------------------------------------------------------------------------------------------------------------------
def encode_by_run(recipe: Recipe, folder: RunFolder, catalog: Catalog | None = None) -> Opened:
    """Encode what the recipe's first stage on cached latents will read, by the weights that its run has before it.

    Raises UsageError where no stage reads cached latents, a stage before is not finished, or the run is of another
    recipe.
    """
    _check_caches(recipe)
    known = discover(recipe.plugins.disable) if catalog is None else catalog
    changes = changed_keys(
        read_json(folder.path / "resolved.json").get("values", {}), resolved(recipe, None, known)["values"]
    )
    if changes:
        lines = "\n".join(changes)
        raise UsageError(f"{folder.path}: this run is of another recipe, and its encoder for other latents:\n{lines}")
    experiment = assemble(recipe, known)
    for config in recipe.stages:
        if isinstance(config, TakesLatents) and config.keeps_encoder:
            break
        if isinstance(config, FitSettings) and not config.budget.is_zero:
            room = StageFolder(folder.path / config.name, folder)
            if not room.done.exists():
                raise UsageError(f"{room.path}: the stage '{config.name}' is not finished; run it first")
            _finished(room, experiment, trains=True)
    return open_latents(experiment, preload=False)


def encode_by_bundle(path: Path, device: str | None = None) -> Opened:
    """Encode the train data of a bundle's recipe by its encoder. Raises UsageError where it has no latent cache."""
    bundle = load_bundle(path)
    run = attrs.evolve(bundle.recipe.run, device=device or bundle.recipe.run.device)
    _check_caches(bundle.recipe)
    experiment = assemble(attrs.evolve(bundle.recipe, run=run))
    experiment.model.load_state_dict(bundle.model.state_dict())
    return open_latents(experiment, preload=False)


def _check_caches(recipe: Recipe) -> None:
    if recipe.latent_cache is None:
        raise UsageError(
            f"the recipe '{recipe.run.name}' has no [latent_cache], so no stage of it reads cached latents; add one"
        )


# ---------------------------------------------------------------------------------------------------------------------
# The papers of a run
# ---------------------------------------------------------------------------------------------------------------------
CHANGEABLE = (
    *(f"latent_cache.{key}" for key in ("folder", "preload", "shard")),
    "run.device",
    "run.threads",
    "run.folder",
    "run.workers",
    "run.worker_start",
    "trackers",
    "description",
    "plugins",
)


def _write_papers(
    folder: RunFolder, record: dict[str, Any], text: str | None, experiment: Experiment, resume: bool
) -> None:
    """The recipe as written and as resolved, and what it ran on; a resumed run must still be the same one."""
    papers = folder.path / "resolved.json"
    if resume and papers.exists():
        _refuse_changes(folder, read_json(papers).get("values", {}), record["values"])
    else:
        write_text(folder.path / "recipe.toml", text if text is not None else "# this run was started from Python\n")
        write_json(papers, record)
    environment = {
        "ups_kit": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "device": str(experiment.device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "plugins": {plugin.name: f"{plugin.distribution} {plugin.version}" for plugin in experiment.catalog.plugins},
    }
    path = folder.path / "environment.json"
    if resume and path.exists():
        _warn_of_changes(read_json(path), environment)
    write_json(path, environment)


def _refuse_changes(folder: RunFolder, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    changes = changed_keys(old, new)
    if changes:
        lines = "\n".join(changes)
        raise UsageError(
            f"{folder.path}: the recipe has changed since this run was started, so it cannot be resumed:\n{lines}\n"
            "undo the changes, or start a fresh run without --resume; "
            f"`upskit run {folder.path} --resume` continues it as it was"
        )


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """A line for each key that may not change between a run and what goes on with it."""
    return [
        f"  {path}: {before!r} in the run, {after!r} now"
        for path, before, after in differences(old, new)
        if not any(path == key or path.startswith(f"{key}.") for key in CHANGEABLE)
    ]


def differences(old: Any, new: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """The key paths at which two resolved recipes differ, with both values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            found
            for key in keys
            for found in differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            found
            for number, (before, after) in enumerate(zip(old, new))
            for found in differences(before, after, f"{path}.{_label(before, number)}")
        ]
    return [] if old == new or (old is None and new == []) else [(path, old, new)]  # runs older than an array of tables


def _label(entry: Any, number: int) -> str:
    return str(entry.get("name") or entry.get("use")) if isinstance(entry, Mapping) else str(number)


def _warn_of_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    changes = [f"{name} {old.get(name)} -> {new[name]}" for name in new if old.get(name) != new[name]]
    if changes:
        Console().line(f"warning: resumed under other conditions, so not to the same bits: {'; '.join(changes)}")


def _status(error: BaseException) -> str:
    if isinstance(error, Preempted):
        return "preempted"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return "diverged" if isinstance(error, DivergedError) else "failed"


def _closing_line(folder: RunFolder, summary: Mapping[str, Any]) -> str:
    named = [path for path in (folder.report, folder.summary, folder.bundle) if path.exists()]
    return f"{summary['status']}: {', '.join(str(path) for path in named)}"
