"""A trained model that describes itself: weights, recipe, normalisation, field spec, splits. No pickle.

bundle/
    weights.safetensors   what is evaluated: the moving average where the recipe has one
    bundle.json           format, recipe as resolved, field spec, normaliser, split hashes, versions, file hashes,
                          the stages that have trained, and what forecasts it by default
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np
import torch
from attrs import frozen
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from . import __version__
from .assemble import AnyExperiment, Experiment, build_model
from .blame import blaming
from .data.normalisation import Normaliser
from .data.pickles import why_pickled
from .errors import DataError, PluginError, StorageError, did_you_mean
from .fit.precision import is_memory
from .fit.settings import FitSettings
from .fit.state import misfits
from .folder import sync_folder, write_bytes, write_text
from .interfaces import Dataset, Described, Field, FieldSpec, Multitask, Queries, family_of
from .model import LatentModel
from .plugins import Catalog, discover
from .predicting.forecast import chosen, condition_of, inputs, queries_of
from .predicting.forecast import members as drawn
from .reading import read_tables, resolved
from .recipe import AnyRecipe, ModelRecipe, Recipe
from .stage_keys import moved_on
from .tasks import Placement, TaskView

FORMAT = 1
WEIGHTS = "weights.safetensors"
DESCRIPTION = "bundle.json"
OPERATOR: Mapping[str, Any] = {"use": "operator", "steps": None, "why": ""}  # the forecast that every bundle has


class TaskFacts(NamedTuple):
    """What a model of several tasks needs to know of one of them."""

    fields: FieldSpec
    normaliser: Normaliser


@frozen
class Bundle:
    """A trained model with all that is needed to use it: `ups_kit.load(path)`.

    `tasks` are those of a model of several; its own fields are then the union of theirs.
    """

    model: LatentModel
    recipe: Recipe
    fields: FieldSpec
    normaliser: Normaliser
    splits: Mapping[str, Any] = attrs.field(repr=False)
    description: Mapping[str, Any] = attrs.field(repr=False)
    tasks: Mapping[str, TaskFacts] = attrs.field(factory=dict)

    @property
    def forecast(self) -> Mapping[str, Any]:
        """What forecasts by default, as the run's evaluation has chosen it.

        "use" is "operator", or the name of the stage whose part draws forecasts in so many "steps"; "why" says why.
        """
        return {**OPERATOR, **self.description.get("forecast", {})}

    @property
    def trained(self) -> tuple[str, ...]:
        """The stages that have trained, in their order; of a bundle that does not say, all that have a budget."""
        budgets = [stage for stage in self.recipe.stages if isinstance(stage, FitSettings)]
        return tuple(self.description.get("trained", [stage.name for stage in budgets if not stage.budget.is_zero]))

    def of_task(self, task: str) -> Bundle:
        """The bundle as one of a single task: its fields, its normalisation, the model as that task sees it.

        Raises DataError where there is no task of this name.
        """
        if task not in self.tasks:
            known = ", ".join(self.tasks) or "none: this model has no tasks, leave it out"
            raise DataError(f"task: there is no task '{task}'{did_you_mean(task, self.tasks)} (tasks: {known})")
        fields, normaliser = self.tasks[task]
        model = TaskView(self.model, Placement.of(self.fields, fields, task), normaliser)
        return attrs.evolve(self, model=model, fields=fields, normaliser=normaliser, tasks={})

    def predict(
        self,
        frames: np.ndarray | Tensor | None,
        parameters: Mapping[str, float],
        steps: int,
        queries: np.ndarray | Tensor | None = None,
        task: str | None = None,
        *,
        positions: np.ndarray | Tensor | None = None,
        statics: np.ndarray | Tensor | None = None,
        forecast: str | None = None,
        sampling_steps: int | None = None,
        members: int | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Roll fields forward in latent space, in physical units.

        `frames` is (samples, history, points, channels), or without the axes of length one, and None of steady data;
        `parameters` gives the named conditions ("dt" defaults to the trained step); `queries` (Q, D) or (samples, Q, D)
        are positions to decode at, the input points where not given. `positions` (points, D) or (samples, points, D)
        are where the input points are, those of the trained grid where not given; `statics` (points, channels) or
        (samples, points, channels) are the static fields, where the model has any. A model of several tasks must be
        told which `task` they are of.

        `forecast` is "operator", or the name of a stage whose part draws forecasts in `sampling_steps`; where not given
        it is the bundle's own (`Bundle.forecast`). So many `members` are drawn, which follow from `seed`.

        Returns (samples, steps, Q, C), with `members` (members, samples, steps, Q, C). Points that move are decoded
        where they come to: `ups_kit.motion.travelled` gives the places. Raises DataError for what does not fit.
        """
        own = self.alone(task)
        way = chosen(own, forecast, sampling_steps)
        points = inputs(own, frames, positions, statics)
        condition = condition_of(own, parameters, len(points.values))
        asked = None if queries is None else Queries(queries_of(own.fields, queries, len(points.values)))
        count = 1 if members is None else members
        found = [each.values for each in drawn(own, way, points, condition, steps, asked, count=count, seed=seed)]
        return found[0] if members is None else torch.stack(found)

    def alone(self, task: str | None) -> Bundle:
        """The bundle as one of this task, or itself where it has none. Raises DataError where one is to be named."""
        if task is not None:
            return self.of_task(task)
        if self.tasks:
            raise DataError(f"task: this model is of several tasks; say which: {', '.join(self.tasks)}")
        return self


@frozen
class ModelBundle:
    """A trained model of a family of its own, with all that is needed to use it: `ups_kit.load_model(path)`."""

    model: nn.Module
    recipe: ModelRecipe
    data: Described
    splits: Mapping[str, Any] = attrs.field(repr=False)
    description: Mapping[str, Any] = attrs.field(repr=False)

    @property
    def trained(self) -> tuple[str, ...]:
        """The stages that have trained, in their order."""
        return tuple(self.description["trained"])


def save_bundle(path: Path, experiment: AnyExperiment, trained: Sequence[str]) -> None:
    """Write the experiment's model as a bundle, whole or not at all; an earlier one at `path` is replaced.

    `trained` are the stages that have trained it. The operator forecasts by default, until `set_forecast` says else.
    """
    aside = path.with_name(f".{path.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    weights = save_weights(aside / WEIGHTS, experiment.model)
    description = {
        "format": FORMAT,
        "ups_kit": __version__,
        "torch": str(torch.__version__),
        "plugins": {plugin.name: f"{plugin.distribution} {plugin.version}" for plugin in experiment.catalog.plugins},
        "recipe": resolved(experiment.recipe, None, experiment.catalog)["values"],
        **(_field_papers(experiment.dataset) if isinstance(experiment, Experiment) else {}),
        **({} if isinstance(experiment, Experiment) else {"data": experiment.dataset.description.to_dict()}),
        "splits": experiment.dataset.splits.to_dict(),
        "trained": list(trained),
        "sha256": {WEIGHTS: hashlib.sha256(weights).hexdigest()},
    }
    write_text(aside / DESCRIPTION, json.dumps(description, indent=1) + "\n")
    _replace(aside, path)


def _field_papers(dataset: Dataset) -> dict[str, Any]:
    """What a bundle keeps of data that are fields in space."""
    return {
        "fields": attrs.asdict(dataset.fields),
        "normaliser": dataset.normaliser.to_dict(),
        "tasks": _task_papers(dataset),
        "forecast": dict(OPERATOR),
    }


def _task_papers(dataset: Dataset) -> dict[str, Any]:
    """What a bundle keeps of each task of a dataset of several."""
    tasks = dataset.tasks if isinstance(dataset, Multitask) else {}
    return {
        name: {"fields": attrs.asdict(task.fields), "normaliser": task.normaliser.to_dict()}
        for name, task in tasks.items()
    }


def _replace(aside: Path, path: Path) -> None:
    """Put a folder in another's place; at no moment is there none that is whole."""
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.rename(path, old)  # noqa: PTH104 - the same verb twice
    os.rename(aside, path)  # noqa: PTH104
    sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def load_bundle(path: str | Path, catalog: Catalog | None = None) -> Bundle:
    """Open a bundle, or the run folder that holds one; the recipe file is not needed.

    Nothing in a bundle is executed. Raises StorageError where it is missing, damaged, of another format, of a model of
    another family, or where its weights do not fit its recipe; RecipeError where a plugin that it needs is missing.
    """
    folder, description, data = _files(path)
    with _described(folder):
        recipe = _recipe(folder, description, data, catalog)
        if isinstance(recipe, ModelRecipe):
            raise StorageError(
                f"{folder}: is a model of the family '{family_of(recipe.model)}', and what was asked for is of models "
                "of fields in space; open it by ups_kit.load_model"
            )
        fields, splits = _fields(description["fields"]), description["splits"]
        normaliser = Normaliser.from_dict(description["normaliser"])
        tasks = {
            name: TaskFacts(_fields(facts["fields"]), Normaliser.from_dict(facts["normaliser"]))
            for name, facts in description.get("tasks", {}).items()
        }
    model = build_model(recipe, fields, normaliser)
    load_weights(model, data, str(folder / WEIGHTS))
    model.eval()
    forecast, possible = description.get("forecast", OPERATOR), ("operator", *model.added)
    if not isinstance(forecast, Mapping) or forecast.get("use") not in possible:
        raise StorageError(
            f"{folder / DESCRIPTION}: forecast: expected one by {' or '.join(possible)}, got {forecast}; copy it again"
        )
    return Bundle(model, recipe, fields, normaliser, splits, description, tasks)


def set_forecast(path: Path, forecast: Mapping[str, Any]) -> None:
    """Say in a bundle what forecasts by default; all else stays as it is, and at no moment is it half written."""
    description = json.loads((path / DESCRIPTION).read_text())
    description["forecast"] = dict(forecast)
    write_text(path / DESCRIPTION, json.dumps(description, indent=1) + "\n")


def load_model(path: str | Path, catalog: Catalog | None = None) -> ModelBundle:
    """Open the bundle of a model of a family of its own, or the run folder that holds one. Raises as `load_bundle`."""
    folder, description, data = _files(path)
    with _described(folder):
        known = discover() if catalog is None else catalog
        recipe = _recipe(folder, description, data, known)
        if not isinstance(recipe, ModelRecipe):
            raise StorageError(f"{folder}: is a model of fields in space; open it by ups_kit.load")
        described, splits, _ = description["data"], description["splits"], description["trained"]
        spec = recipe.model.read_description(described)
        with blaming(known, str(folder)), _in_memory(folder):
            model = recipe.model.build(spec)
    load_weights(model, data, str(folder / WEIGHTS))
    model.eval()
    return ModelBundle(model, recipe, spec, splits, description)


def recipe_of(path: str | Path, catalog: Catalog | None = None) -> AnyRecipe:
    """The recipe of a bundle of either form. Raises StorageError."""
    folder, description, data = _files(path)
    with _described(folder):
        return _recipe(folder, description, data, catalog)


def _files(path: str | Path) -> tuple[Path, dict[str, Any], bytes]:
    """The folder of a bundle, its description and its weights. Raises StorageError."""
    folder = Path(path)
    pickled = why_pickled(folder) if folder.is_file() else None
    if pickled is not None:
        raise StorageError(f"{folder}: is not a bundle: {pickled}; expected the folder of a bundle, or of a run")
    folder = folder / "bundle" if (folder / "bundle" / DESCRIPTION).is_file() else folder
    try:
        return folder, json.loads((folder / DESCRIPTION).read_text()), (folder / WEIGHTS).read_bytes()
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(
            f"{folder}: is not a bundle: expected {DESCRIPTION} and {WEIGHTS} in it ({error})"
        ) from error


@contextmanager
def _described(folder: Path) -> Iterator[None]:
    """What a description lacks, or holds in another form, is a StorageError."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise StorageError(
            f"{folder / DESCRIPTION}: is not the description of a bundle ({reason}); copy it again"
        ) from error


@contextmanager
def _in_memory(folder: Path) -> Iterator[None]:
    """A model that is too large for this machine is a StorageError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not is_memory(error):
            raise
        reason = str(error).splitlines()[0]
        raise StorageError(f"{folder}: its model does not fit in the memory of this machine ({reason})") from error


def _recipe(folder: Path, description: Mapping[str, Any], data: bytes, catalog: Catalog | None) -> AnyRecipe:
    """The recipe of a bundle, where its description is one that fits these weights."""
    if description["format"] != FORMAT:
        there = description.get("ups_kit", "another version")
        raise StorageError(
            f"{folder}: bundle format {description['format']}, written by ups_kit {there}; this is ups_kit "
            f"{__version__}, which reads format {FORMAT}; install the version that wrote it"
        )
    if hashlib.sha256(data).hexdigest() != description["sha256"][WEIGHTS]:
        raise StorageError(f"{folder / WEIGHTS}: its content is not what was written (sha256 differs); copy it again")
    known = discover() if catalog is None else catalog
    recipe, problems = read_tables(description["recipe"], known)
    if recipe is None or problems:
        lines = "; ".join(str(problem) for problem in problems)
        gone = _gone(description.get("plugins", {}), known)
        broken = problems and all(problem.in_plugin for problem in problems)
        kind = PluginError if broken or gone else StorageError
        written = f" (it was written with {gone}, which {'is' if ',' not in gone else 'are'} not there)" if gone else ""
        raise kind(f"{folder}: its recipe cannot be read with the installed plugins{written}: {lines}")
    changes = moved_on(description.get("plugins", {}), recipe, known)
    if changes:
        warnings.warn(f"{folder}: was written with other versions: {'; '.join(changes)}", stacklevel=3)
    return recipe


def _gone(then: Mapping[str, str], catalog: Catalog) -> str:
    """The plugins that a bundle was written with, and that are not installed now, or not loaded."""
    now = [plugin.name for plugin in catalog.plugins if plugin.state == "ok"]
    return ", ".join(f"the plugin '{name}' ({source})" for name, source in then.items() if name not in now)


def save_weights(path: Path, model: nn.Module) -> bytes:
    """Write a model's weights as safetensors, atomically; returns what was written."""
    tensors = {
        name.replace("_orig_mod.", ""): value.detach().cpu().contiguous() for name, value in model.state_dict().items()
    }
    data = save(tensors, metadata={"format": "pt"})
    write_bytes(path, data)
    return data


def load_weights(model: nn.Module, data: bytes, source: str, added: Collection[str] | None = None) -> None:
    """Put safetensors into a model. Raises StorageError with the first keys and shapes that do not fit.

    `added` are the stages that had trained when the weights were written: the parts of others stay as they are. None
    stands for all.
    """
    try:
        tensors = load(data)
    except (SafetensorError, ValueError) as error:
        raise StorageError(f"{source}: is not a safetensors file: {error}") from error
    own = model.state_dict()
    if added is not None:
        later = [name for name in {*own, *tensors} if name.startswith("added.") and name.split(".")[1] not in added]
        tensors = {name: value for name, value in tensors.items() if name not in later}
        tensors |= {name: own[name] for name in later if name in own}
    found = misfits(own, tensors)
    if found:
        raise StorageError(f"{source}: weights of another model: {found}")
    model.load_state_dict(tensors)


def _fields(values: Mapping[str, Any]) -> FieldSpec:
    plain = dict(values)
    for name in ("targets", "statics"):
        plain[name] = tuple(Field(**entry) for entry in plain[name])
    plain["domain"] = tuple((low, high) for low, high in plain["domain"])
    for name in ("periodic", "conditions"):
        plain[name] = tuple(plain[name])
    for name in ("grid", "counts"):
        plain[name] = None if plain.get(name) is None else tuple(plain[name])
    return FieldSpec(**plain)
