"""A whole run: assemble the recipe, run its stages one after the other, leave everything in one folder."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
from attrs import frozen

from . import __version__
from .assemble import AnyExperiment, assemble
from .blame import blaming, naming_keepers
from .bundle import load_bundle, load_weights, save_bundle, save_weights, set_forecast
from .console import Console
from .data.latents import Opened, open_latents
from .errors import BELOW_FLOOR_EXIT_CODE, DataError, DivergedError, Preempted, StorageError, UsageError
from .fit.interrupts import sigterm_preempts
from .fit.order import ChecksAhead, is_skipped
from .fit.settings import FitSettings
from .folder import (
    RECORD,
    RECORD_FORMAT,
    RunFolder,
    StageFolder,
    last_run_folder,
    new_run_folder,
    read_record,
    write_json,
)
from .interfaces import AnyDataset, Stage, StageConfig, TakesLatents
from .interfaces.tracking import Artefact, StageEvent, TrackedRun
from .model import LatentModel
from .papers import Papers, changed_during, changed_keys
from .plugins import Catalog, discover
from .reading import resolved
from .recipe import AnyRecipe, Recipe
from .stage_keys import Recorded, data_record, files_record, key_of, versions
from .takeover import Course, Finished, current, finished_stages, notices, planned, take
from .trackers import MetricsFile, Trackers, build_trackers, ending, final_metrics, known_metrics


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
    recipe: AnyRecipe,
    *,
    resume: bool = False,
    from_stage: str | None = None,
    only: str | None = None,
    of: Path | None = None,
    at: Path | None = None,
    allow_changed: Sequence[str] = (),
    recipe_text: str | None = None,
    origins: Mapping[str, str] | None = None,
    catalog: Catalog | None = None,
) -> RunResult:
    """Run a recipe in a fresh numbered folder, or continue its newest one.

    `from_stage` takes the finished stages before that one from the newest run, or from the run folder `of`, and `only`
    runs one stage so. `at` is the run folder to resume, where it is not the newest. `allow_changed` are keys that may
    have changed in a run that is resumed. `recipe_text` and `origins` are the file it was read from and where each
    value was written, for the record.

    Raises UpsKitError; the folder's STATUS then says how the run ended, and nothing that was written is lost.
    """
    _check_options(resume, from_stage, only, of, allow_changed)
    catalog = discover(recipe.plugins.disable) if catalog is None else catalog
    recorded = Recorded.of(recipe, catalog)
    course = planned(recipe, from_stage, only, of)
    current(recorded, finished_stages(recipe, course), None)  # before data are made
    experiment = assemble(recipe, catalog)
    taken = current(recorded, finished_stages(recipe, course), experiment.dataset)
    if not resume:
        with blaming(catalog):
            _check_ahead(experiment, course)
    folder = _folder(recipe, resume) if at is None else RunFolder(at)
    console = Console()
    with folder.lock():
        papers = Papers(experiment, resolved(recipe, origins, catalog), recipe_text, allow_changed, course.to_dict())
        record = papers.write(folder, resume)
        if resume:
            course = Course.from_dict(record.get("course", {}))
            taken = _still_to_take(recorded, course, experiment, folder)
        folder.set_status("running")
        console.line(f"run {folder.path} on {experiment.device}")
        for notice in notices(taken, experiment.dataset, versions(recipe, catalog)):
            console.line(f"warning: {notice}")
        trackers = Trackers([MetricsFile(folder.metrics), *build_trackers(recipe.trackers, folder.path), console])
        going = Going(experiment, folder, trackers, console, resume, recorded, record, course)
        summary = _run_to_its_end(going, taken)
    console.line(_closing_line(folder, summary))
    return RunResult(folder.path, summary)


def _run_to_its_end(going: Going, taken: Sequence[Finished]) -> dict[str, Any]:
    """Take finished stages over and run the others; however that ends, STATUS and the trackers are told."""
    folder, trackers = going.folder, going.trackers
    try:
        trackers.begin(TrackedRun(going.experiment.recipe.run.name, folder.path, going.resume, going.record["values"]))
        with sigterm_preempts():
            take(taken, folder)
            summary = _run_stages(going)
    except BaseException as error:
        folder.set_status(_status(error))
        trackers.end(_status(error), known_metrics(folder.summary))
        raise
    else:
        status = "finished" if summary["status"] == "ok" else str(summary["status"])
        folder.set_status(status)
        trackers.end(status, final_metrics(summary))
        return summary
    finally:
        trackers.close()


def _check_options(
    resume: bool, from_stage: str | None, only: str | None, of: Path | None, allow_changed: Sequence[str]
) -> None:
    asked = {"--from": from_stage, "--only": only, "--of": of}
    given = [f"{name} {value}" for name, value in asked.items() if value is not None]
    if resume and given:
        raise UsageError(
            f"--resume goes on with the newest run as it was begun, and {given[0]} begins a new one; give one of them"
        )
    if allow_changed and not resume:
        raise UsageError(f"--allow-changed {allow_changed[0]}: goes with --resume; a new run may be of any recipe")


def _check_ahead(experiment: AnyExperiment, course: Course) -> None:
    """What no stage could train on is told before the first one begins, and before a folder is made."""
    found: list[UsageError | DataError] = []
    for config, stage in zip(experiment.recipe.stages, experiment.stages, strict=True):
        done = config.name in course.left_out or config.name in course.taken or is_skipped(config)
        if isinstance(stage, ChecksAhead) and not done:
            try:
                stage.check_ahead(experiment)
            except (UsageError, DataError) as error:
                found.append(error)
    if found:
        raise type(found[0])("\n".join(map(str, found))) from found[0]


def _still_to_take(recorded: Recorded, course: Course, experiment: AnyExperiment, folder: RunFolder) -> list[Finished]:
    """What a resumed run was to take over, where it was stopped before it had done so."""
    if all((folder.path / name / "done.json").exists() for name in course.taken):
        return []
    return current(recorded, finished_stages(recorded.recipe, course), experiment.dataset)


# ---------------------------------------------------------------------------------------------------------------------
# The stages
# ---------------------------------------------------------------------------------------------------------------------
@frozen(eq=False)
class Going:
    """A run under way."""

    experiment: AnyExperiment
    folder: RunFolder
    trackers: Trackers
    console: Console
    resume: bool
    recorded: Recorded
    record: Mapping[str, Any]  # what its resolved.json holds
    course: Course


def _run_stages(going: Going) -> dict[str, Any]:
    """Every stage in order; one that is finished is loaded, one without a budget is skipped."""
    experiment, folder, console = going.experiment, going.folder, going.console
    results: dict[str, Mapping[str, Any]] = {}
    for config, stage in zip(experiment.recipe.stages, experiment.stages):
        if config.name in going.course.left_out:
            console.line(f"stage {config.name}: left out ({going.course.asked})")
            continue
        if isinstance(config, FitSettings) and config.budget.is_zero:
            console.line(f"stage {config.name}: skipped, its budget is 0")
            continue
        room = folder.stage(config.name, going.resume)
        if room.done.exists():
            taken = config.name in going.course.taken
            console.line(
                f"stage {config.name}: {f'taken over from {going.course.source}' if taken else 'finished before'}"
            )
            results[config.name] = _finished(going, config, room, results)
        else:
            console.line(f"stage {config.name}")
            _keep_bundle(going, results)
            results[config.name] = _watched(going, config, stage, results)
    _keep_bundle(going, results)
    summary = _summary(experiment, results)
    write_json(folder.summary, summary)
    return summary


def _watched(
    going: Going, config: StageConfig, stage: Stage, results: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Run a stage; the trackers are told how it begins and ends."""
    going.trackers.event(config.name, StageEvent("began"))
    try:
        done = _run_stage(going, config, stage, results)
    except BaseException as error:
        going.trackers.event(config.name, StageEvent(_status(error), str(error)))
        raise
    going.trackers.event(config.name, ending(done))
    return done


def _run_stage(
    going: Going, config: StageConfig, stage: Stage, results: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Run a stage, and write down what it returned, what it was trained on, and its weights."""
    experiment, folder, trains = going.experiment, going.folder, isinstance(config, FitSettings)
    room = folder.stage(config.name, going.resume)
    if going.resume and not trains:  # begun, but not finished; a training stage keeps what its checkpoint counts on
        going.trackers.forget_after(config.name, -1)
    started = time.perf_counter()
    catalog = experiment.catalog
    with blaming(catalog, f"stage '{config.name}'", folder.path), naming_keepers(experiment.recipe, config, catalog):
        result = dict(stage.run(experiment, room, going.trackers))
    result["wall_seconds"] = time.perf_counter() - started
    paper: dict[str, Any] = {}
    if trains:
        result["weights_sha256"] = hashlib.sha256(save_weights(room.weights, experiment.model)).hexdigest()
        save_bundle(folder.bundle, experiment, [*_trained(experiment.recipe, results), config.name])
        paper = _key(going, config, results)
        result["key"] = paper.pop("key")
    elif "forecast" in result and folder.bundle.exists():
        set_forecast(folder.bundle, result["forecast"])
    write_json(folder.summary, _summary(experiment, {**results, config.name: result}))
    done = {"format": RECORD_FORMAT, "ups_kit": __version__, **result, **paper}
    write_json(room.done, done)  # last: from here on the stage counts as finished
    if trains:
        going.trackers.artefact(config.name, Artefact("weights", room.weights))
    if folder.bundle.exists() and (trains or "forecast" in result):
        going.trackers.artefact(config.name, Artefact("bundle", folder.bundle))
    return done


def _key(going: Going, config: StageConfig, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The key of a stage's weights, and what it is the key of."""
    recipe, dataset = going.experiment.recipe, going.experiment.dataset
    before = {name: str(results[name].get("key", "")) for name in _trained(recipe, results)}
    changed = changed_during(going.record, config.name)
    content = going.recorded.content(config, before, data_record(dataset), changed)
    used = versions(recipe, going.experiment.catalog)
    return {"key": key_of(content), "of": content, "files": files_record(dataset), "versions": used}


def _keep_bundle(going: Going, results: Mapping[str, object]) -> None:
    """A run that has taken over what it has trained so far gets the bundle of that."""
    trained = _trained(going.experiment.recipe, results)
    if going.course.taken and trained and not going.folder.bundle.exists():
        save_bundle(going.folder.bundle, going.experiment, trained)


def _trained(recipe: AnyRecipe, results: Mapping[str, object]) -> list[str]:
    """Of the stages that are done those that train."""
    return [stage.name for stage in recipe.stages if isinstance(stage, FitSettings) and stage.name in results]


def _finished(going: Going, config: StageConfig, room: StageFolder, results: Mapping[str, object]) -> Mapping[str, Any]:
    """What a finished stage returned; the model gets its weights.

    Raises StorageError where they are damaged or do not fit, DataError where the data are not those of its training.
    """
    result = read_record(room.done)
    if isinstance(config, FitSettings):
        changes = going.record.get("changes", [])
        if not any(str(change["path"]).startswith("dataset") for change in changes):
            _check_data(going.experiment.dataset, result, room)
        try:
            _load(going.experiment, config, room, result, _trained(going.experiment.recipe, results))
        except StorageError as error:
            told = [f"  {change['path']}: {change['before']!r} before, {change['after']!r} now" for change in changes]
            note = ["the recipe was changed when the run was resumed:", *told] if told else []
            raise StorageError("\n".join([str(error), *note])) from error
    return result


def _load(
    experiment: AnyExperiment, config: StageConfig, room: StageFolder, done: Mapping[str, Any], before: Sequence[str]
) -> None:
    """Give the model a finished stage's weights; parts that later stages add stay as they are drawn."""
    weights = _content(room.weights)
    if hashlib.sha256(weights).hexdigest() != done.get("weights_sha256"):
        raise StorageError(f"{room.weights}: its content is not what was written; restore it or start a new run")
    load_weights(experiment.model, weights, str(room.weights), added=(*before, config.name))


def _check_data(dataset: AnyDataset, done: Mapping[str, Any], room: StageFolder) -> None:
    of = done.get("of", {})
    then = of.get("data") if isinstance(of, Mapping) else of
    if then is None or (isinstance(then, Mapping) and set(then) <= {"splits"}) or then == data_record(dataset):
        return
    raise DataError(
        f"{room.path}: this stage was trained on other data than its recipe's files hold now; put them back as they "
        f"were, or train on these from here on: --from {room.path.name} in the place of --resume"
    )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path}: cannot be read, restore it or start a new run: {error.strerror}") from error


def _summary(experiment: AnyExperiment, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What `summary.json` holds: the evaluation's findings, and how they came about."""
    seconds = {name: _seconds(found) for name, found in results.items()}
    model = experiment.model
    modules = model.parts if isinstance(model, LatentModel) else {"model": model}
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in modules.items()}
    summary: dict[str, Any] = {
        "status": "ok",
        "recipe": experiment.recipe.run.name,
        "seed": experiment.recipe.run.seed,
        "seconds": {**seconds, "total": sum(seconds.values())},
        "parameters": {**parts, "total": sum(parts.values())},
        "stages": {
            name: {k: v for k, v in found.items() if k not in (*EVALUATED, *PAPERS)} for name, found in results.items()
        },
    }
    for found in results.values():
        summary.update({key: found[key] for key in EVALUATED if key in found})
    return summary


def _seconds(found: Mapping[str, Any]) -> float:
    """What a stage took; 0 where its record, which may be damaged, does not say."""
    said = found.get("wall_seconds")
    return float(said) if isinstance(said, (int, float)) else 0.0


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


PAPERS = ("format", "ups_kit", "of", "files", "versions")  # of a stage, that a summary does without


def _folder(recipe: AnyRecipe, resume: bool) -> RunFolder:
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
def encode_by_run(recipe: AnyRecipe, folder: RunFolder, catalog: Catalog | None = None) -> Opened:
    """Encode what the recipe's first stage on cached latents will read, by the weights that its run has before it.

    Raises UsageError where no stage reads cached latents, a stage before is not finished, or the run is of another
    recipe.
    """
    cached = _with_caches(recipe)
    known = discover(recipe.plugins.disable) if catalog is None else catalog
    values = read_record(folder.path / RECORD).get("values", {})
    changes = changed_keys(cached, values, resolved(cached, None, known)["values"])
    if changes:
        lines = "\n".join(f"  {change.told()}" for change in changes)
        raise UsageError(f"{folder.path}: this run is of another recipe, and its encoder for other latents:\n{lines}")
    experiment = assemble(cached, known)
    trained: list[str] = []
    for config in cached.stages:
        if isinstance(config, TakesLatents) and config.keeps_encoder:
            break
        if isinstance(config, FitSettings) and not config.budget.is_zero:
            room = StageFolder(folder.path / config.name, folder)
            if not room.done.exists():
                raise UsageError(f"{room.path}: the stage '{config.name}' is not finished; run it first")
            _load(experiment, config, room, read_record(room.done), trained)
            trained.append(config.name)
    return open_latents(experiment, preload=False)


def encode_by_bundle(path: Path, device: str | None = None) -> Opened:
    """Encode the train data of a bundle's recipe by its encoder. Raises UsageError where it has no latent cache."""
    bundle = load_bundle(path)
    run = attrs.evolve(bundle.recipe.run, device=device or bundle.recipe.run.device)
    _with_caches(bundle.recipe)
    experiment = assemble(attrs.evolve(bundle.recipe, run=run))
    experiment.model.load_state_dict(bundle.model.state_dict())
    return open_latents(experiment, preload=False)


def _with_caches(recipe: AnyRecipe) -> Recipe:
    """The recipe, where it has cached latents. Raises UsageError."""
    if isinstance(recipe, Recipe) and recipe.latent_cache is not None:
        return recipe
    raise UsageError(
        f"the recipe '{recipe.run.name}' has no [latent_cache], so no stage of it reads cached latents; add one"
    )


def _status(error: BaseException) -> Literal["preempted", "interrupted", "diverged", "failed"]:
    if isinstance(error, Preempted):
        return "preempted"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return "diverged" if isinstance(error, DivergedError) else "failed"


def _closing_line(folder: RunFolder, summary: Mapping[str, Any]) -> str:
    named = [path for path in (folder.report, folder.summary, folder.bundle) if path.exists()]
    return f"{summary['status']}: {', '.join(str(path) for path in named)}"
