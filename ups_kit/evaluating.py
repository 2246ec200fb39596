"""A finished run evaluated once more: with other steps or another split, or on other points than its data have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from .assemble import AnyExperiment, ModelExperiment, assemble
from .bundle import DESCRIPTION, Bundle, ModelBundle, load_bundle, load_model, recipe_of
from .console import Console
from .errors import BELOW_FLOOR_EXIT_CODE, DataError, StorageError, UsageError, did_you_mean
from .fit.settings import FitSettings
from .folder import EVALUATIONS, RECORD, RunFolder, new_run_folder, read_record, what_is_at, write_json
from .interfaces import Elsewhere, EvaluatesElsewhere, EvaluatesFiner, Stage, StageConfig
from .plugins import Catalog
from .reading import read_resolved
from .recipe import AnyRecipe
from .trackers import Trackers

EXPECTED = "expected the folder of a run, such as runs/NAME/1, or a bundle"


@frozen
class Found:
    """A run folder, or a bundle by itself, and the recipe it was made from."""

    path: Path
    run: RunFolder | None  # None of a bundle by itself
    recipe: AnyRecipe
    catalog: Catalog | None
    bundle: Path


@frozen
class Evaluated:
    """What came of it, and where it was written."""

    folder: Path
    result: Mapping[str, Any]

    @property
    def exit_code(self) -> int:
        """0, or 7 where the model does not beat what its recipe requires it to beat."""
        return BELOW_FLOOR_EXIT_CODE if self.result.get("status") == "below_floor" else 0


def evaluate(
    path: Path,
    *,
    asked: Sequence[Elsewhere] = (),
    finer: Sequence[int] = (),
    changes: Mapping[str, Any] | None = None,
    stage: str | None = None,
    device: str | None = None,
    out: Path | None = None,
    partial: bool = False,
) -> Evaluated:
    """Evaluate the model of a run folder or a bundle by its recipe's stage that evaluates, with its keys changed.

    With `asked` the same trajectories on other points: `transfer.json` and `transfer.html` in the run folder. With
    `finer` at so many times as many points along each axis: `finer.json` and `finer.html`. Without either,
    a report and a summary in a new folder below it. `out` is where to write instead, and `partial` takes a run whose
    training is not finished. Raises UpsKitError.
    """
    if asked and finer:
        raise UsageError("--finer asks between the data's own points, --on elsewhere; ask for one of them at a time")
    found = find(path, device, partial)
    if found.run is None and out is None:
        raise UsageError(f"{path}: is a bundle without a run folder around it; say where to write: --out FOLDER")
    recipe, number = _changed(found.recipe, stage, changes or {})
    _check_bundle(found)
    experiment = assemble(recipe, found.catalog)
    experiment = _with_weights(experiment, found)
    config, built = recipe.stages[number], experiment.stages[number]
    trackers = Trackers([Console()])
    if asked:
        return _transfer(config, built, experiment, asked, _folder(found, out), trackers)
    if finer:
        return _finer(config, built, experiment, finer, _folder(found, out), trackers)
    folder = new_run_folder(found.path, EVALUATIONS) if out is None else _folder(found, out)
    result = dict(built.run(experiment, folder.stage(config.name), trackers))
    write_json(folder.summary, {"recipe": recipe.run.name, "of": str(found.path), **result})
    return Evaluated(folder.path, result)


def _transfer(
    config: StageConfig,
    built: Stage,
    experiment: AnyExperiment,
    asked: Sequence[Elsewhere],
    folder: RunFolder,
    trackers: Trackers,
) -> Evaluated:
    if not isinstance(built, EvaluatesElsewhere):
        raise UsageError(f"the stage '{config.name}' evaluates on the data's own points alone; leave --on out")
    return Evaluated(folder.path, built.transfer(experiment, asked, folder, trackers))


def _finer(
    config: StageConfig,
    built: Stage,
    experiment: AnyExperiment,
    factors: Sequence[int],
    folder: RunFolder,
    trackers: Trackers,
) -> Evaluated:
    if not isinstance(built, EvaluatesFiner):
        raise UsageError(f"the stage '{config.name}' evaluates on the data's own points alone; leave --finer out")
    return Evaluated(folder.path, built.finer(experiment, factors, folder, trackers))


def _folder(found: Found, out: Path | None) -> RunFolder:
    """Where to write, made if need be."""
    folder = out if out is not None else found.path
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be made: {error.strerror}; choose another --out") from error
    return RunFolder(folder)


# ---------------------------------------------------------------------------------------------------------------------
# What is evaluated
# ---------------------------------------------------------------------------------------------------------------------
def find(path: Path, device: str | None = None, partial: bool = False) -> Found:
    """The run folder, or the bundle, at a path. Raises UsageError where there is none, or it is not finished."""
    if path.is_dir() and (path / RECORD).is_file():
        read = read_resolved(path / RECORD, device)
        found = Found(path, RunFolder(path), read.recipe, read.catalog, path / "bundle")
        _refuse_unfinished(found, partial)
        return found
    if (path / DESCRIPTION).is_file() or (path / "bundle" / DESCRIPTION).is_file():
        recipe = recipe_of(path)
        run = attrs.evolve(recipe.run, device=device or recipe.run.device)
        return Found(path, None, attrs.evolve(recipe, run=run), None, path)
    raise UsageError(f"{path}: {what_is_at(path, EXPECTED)}")


def _refuse_unfinished(found: Found, partial: bool) -> None:
    """A run whose training is not finished is no model yet: refused, but where it is asked for."""
    stages = [
        stage.name for stage in found.recipe.stages if isinstance(stage, FitSettings) and not stage.budget.is_zero
    ]
    missing = [name for name in stages if not (found.path / name / "done.json").is_file()]
    if not missing:
        return
    status = found.path / "STATUS"
    word = status.read_text(errors="replace").strip()[:40] if status.is_file() else "not begun"
    which = ", ".join(f"'{name}'" for name in missing)
    asked = read_record(found.path / RECORD).get("course", {}).get("asked", "")
    alone = asked.startswith("--only")
    word, verb = (f"of {asked} alone", "were not run") if alone else (word, "did not finish")
    onward = f"`upskit run {found.path} --{f'from {missing[0]}' if alone else 'resume'}` goes on with it"
    message = f"{found.path}: this run is {word}: of its training stages {which} {verb}"
    if not (found.bundle / DESCRIPTION).is_file():
        raise UsageError(f"{message}, and there is no bundle; {onward}")
    if not partial:
        done = ", ".join(name for name in stages if name not in missing)
        raise UsageError(f"{message}; {onward}; to evaluate what there is, the model after {done}, add --allow-partial")


def _changed(recipe: AnyRecipe, name: str | None, changes: Mapping[str, Any]) -> tuple[AnyRecipe, int]:
    """The recipe with keys of its stage that evaluates changed, and that stage's number. Raises UsageError."""
    known = [stage.name for stage in recipe.stages if not isinstance(stage, FitSettings)]
    if not known:
        raise UsageError(f"the recipe '{recipe.run.name}' has no stage that evaluates, such as use = \"evaluate\"")
    if name is not None and name not in known:
        raise UsageError(
            f"--stage: no stage that evaluates is called '{name}'{did_you_mean(name, known)} ({', '.join(known)})"
        )
    if name is None and len(known) > 1:
        raise UsageError(f"the recipe has several stages that evaluate; say which: --stage {' or '.join(known)}")
    number = [stage.name for stage in recipe.stages].index(name or known[0])
    stages = list(recipe.stages)
    keys: Mapping[str, Any] = attrs.fields_dict(type(stages[number]))  # type: ignore[arg-type]  # as below
    foreign = [f"--{key}" for key in changes if key not in keys]
    if foreign:
        raise UsageError(f"the stage '{known[0]}' takes no {', '.join(foreign)}; leave that out")
    try:
        stages[number] = attrs.evolve(stages[number], **changes)  # type: ignore[misc]  # a protocol's class is not known
    except (ValueError, TypeError) as error:  # of attrs' own with much after its first argument
        given = ", ".join(f"--{key} {value}" for key, value in changes.items())
        reason = error.args[0] if error.args else error
        raise UsageError(f"{given}: the stage '{stages[number].name}' cannot do that: {reason}") from error
    return attrs.evolve(recipe, stages=tuple(stages)), number


def _check_bundle(found: Found) -> None:
    """Say that there is no model before any data are read."""
    if not any((folder / DESCRIPTION).is_file() for folder in (found.bundle, found.bundle / "bundle")):
        raise StorageError(f"{found.bundle}: is not there; a run leaves its model in it when it has trained")


def _with_weights(experiment: AnyExperiment, found: Found) -> AnyExperiment:
    """The experiment with the trained weights, and without the stages that have not trained.

    Raises DataError where the data are not those that the model was trained and split by.
    """
    load = load_model if isinstance(experiment, ModelExperiment) else load_bundle
    bundle: ModelBundle | Bundle = load(found.bundle, found.catalog)
    _check_splits(experiment, bundle, found)
    experiment.model.load_state_dict(bundle.model.state_dict())
    experiment.model.eval()
    stages = experiment.recipe.stages
    done = tuple(stage for stage in stages if not isinstance(stage, FitSettings) or stage.name in bundle.trained)
    recipe: Any = attrs.evolve(experiment.recipe, stages=done)
    return attrs.evolve(experiment, recipe=recipe)


def _check_splits(experiment: AnyExperiment, bundle: Bundle | ModelBundle, found: Found) -> None:
    own = experiment.dataset.splits.to_dict()
    if own.get("digest") != bundle.splits.get("digest"):
        raise DataError(
            f"{found.path}: the data that its recipe names are not those that it was trained on (other trajectories, "
            "or another split): a score would not be of unseen data; put the files back as they were"
        )
