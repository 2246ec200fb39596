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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np
import torch
from attrs import frozen
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from . import __version__
from .assemble import Experiment, build_model
from .data.normalisation import Normaliser
from .data.pickles import why_pickled
from .errors import DataError, StorageError, did_you_mean
from .fit.settings import FitSettings
from .folder import sync_folder, write_bytes, write_text
from .interfaces import Dataset, Field, FieldSpec, Multitask, PointSet, Queries
from .model import LatentModel
from .motion import Forecaster, Kinematic, kinematic_points
from .plugins import Catalog, discover
from .reading import resolved
from .recipe import Recipe
from .strict import attempt
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
    splits: Mapping[str, Any]
    description: Mapping[str, Any]
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

    @torch.no_grad()
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
    ) -> Tensor:
        """Roll fields forward in latent space, in physical units.

        `frames` is (samples, history, points, channels), or without the axes of length one, and None of steady data;
        `parameters` gives the named conditions ("dt" defaults to the trained step); `queries` (Q, D) are positions to
        decode at, the input points where not given. `positions` (points, D) or (samples, points, D) are where the input
        points are, those of the trained grid where not given; `statics` (points, channels) or (samples, points,
        channels) are the static fields, where the model has any. A model of several tasks must be told which `task`
        they are of.

        Returns (samples, steps, Q, C). Points that move are decoded where they come to: `ups_kit.motion.travelled`
        gives the places. Raises DataError for shapes or parameters that do not fit.
        """
        if task is not None:
            return self.of_task(task).predict(frames, parameters, steps, queries, positions=positions, statics=statics)
        if self.tasks:
            raise DataError(f"task: this model is of several tasks; say which: {', '.join(self.tasks)}")
        points = self._inputs(_tensor(frames), _tensor(positions), _tensor(statics))
        condition = self._condition(parameters, len(points.values))
        latent, physical = self.model.encode(points, condition), self.normaliser.physical
        if queries is None:
            kinematic = self._kinematic(points)
            found = Forecaster(self.model, self.normaliser).latent(latent, points, condition, steps, kinematic)
            return torch.stack([physical(frame.values) for frame in found], dim=1)
        asked = Queries(torch.as_tensor(queries, dtype=torch.float32).expand(len(points.values), -1, -1))
        latents = self.model.rollout(latent, condition, steps)
        return torch.stack([physical(self.model.decode(each, asked)) for each in latents], dim=1)

    def _inputs(self, frames: Tensor | None, positions: Tensor | None, statics: Tensor | None) -> PointSet:
        """What the model is given, normalised."""
        fields = self.fields
        if positions is None and fields.grid is None:
            raise DataError(f"positions: the model is of points of its own ({fields.layout}); give where they are")
        places = _grid_places(fields) if positions is None else _places(positions, fields.space_dims)
        count, channels = places.shape[1], sum(field.channels for field in fields.statics)
        parts = []
        if fields.history:
            if frames is None:
                raise DataError(f"frames: expected {fields.history} given frames, got None")
            shaped = _shaped(frames, (fields.history, count, fields.target_channels), "frames")
            parts.append(self.normaliser.targets(shaped).permute(0, 2, 1, 3).flatten(2))
        if channels:
            names = ", ".join(field.name for field in fields.statics)
            if statics is None:
                raise DataError(f"statics: the model is given static fields ({names}); expected (points, {channels})")
            parts.append(self.normaliser.statics(_shaped(statics, (count, channels), "statics")))
        elif statics is not None:
            raise DataError("statics: the model is given no static fields; leave them out")
        samples = max(len(part) for part in (places, *parts))
        if any(len(part) not in (1, samples) for part in (places, *parts)):
            found = ", ".join(str(len(part)) for part in (places, *parts))
            raise DataError(f"positions, frames, statics: expected one number of samples, or 1; got {found}")
        values = torch.cat([part.expand(samples, -1, -1) for part in parts], -1)
        return PointSet(places.expand(samples, -1, -1), values, grid=fields.grid if positions is None else None)

    def _kinematic(self, points: PointSet) -> Kinematic | None:
        """Points that move as given: they go on as in the last given frame."""
        if self.fields.moves_with is None:
            return None
        statics = points.values[..., self.fields.history * self.fields.target_channels :]
        mask = kinematic_points(statics, self.fields, self.normaliser)
        return None if mask is None else Kinematic(mask, None)

    def _condition(self, parameters: Mapping[str, float], samples: int) -> Tensor:
        known = {"dt": self.fields.dt, **parameters}
        missing = [name for name in self.fields.conditions if name not in known]
        unknown = [name for name in parameters if name not in self.fields.conditions]
        if missing or unknown:
            raise DataError(
                f"parameters: expected {list(self.fields.conditions)}; missing {missing}, unknown {unknown}"
            )
        row = torch.tensor([[known[name] for name in self.fields.conditions]], dtype=torch.float64)
        return self.normaliser.condition(row).expand(samples, -1)


def _tensor(values: np.ndarray | Tensor | None) -> Tensor | None:
    return None if values is None else torch.as_tensor(values, dtype=torch.float32)


def _shaped(values: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    """Values as (samples, *shape), of one sample where they are of that shape; raises DataError."""
    axes = "history, points, channels" if len(shape) == 3 else "points, channels"
    try:
        return values.reshape(-1, *shape)
    except RuntimeError as error:
        wanted = f"(samples, {', '.join(map(str, shape))})"
        raise DataError(f"{name}: expected {wanted}: samples, {axes}; got {tuple(values.shape)}") from error


def _places(positions: Tensor, dims: int) -> Tensor:
    """Positions as (samples, points, D); raises DataError."""
    own = positions[:, None] if positions.dim() == 1 and dims == 1 else positions
    if own.dim() not in (2, 3) or own.shape[-1] != dims:
        wanted = f"(points, {dims}) or (samples, points, {dims})"
        raise DataError(f"positions: expected {wanted}; got {tuple(positions.shape)}")
    return own if own.dim() == 3 else own[None]


def _grid_places(fields: FieldSpec) -> Tensor:
    """The points of the grid, (1, N, D)."""
    assert fields.grid is not None
    axes = [
        low + (high - low) * (torch.arange(size) + fields.offset) / size
        for size, (low, high) in zip(fields.grid, fields.domain)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(1, -1, fields.space_dims)


def save_bundle(path: Path, experiment: Experiment, trained: Sequence[str]) -> None:
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
        "fields": attrs.asdict(experiment.dataset.fields),
        "normaliser": experiment.dataset.normaliser.to_dict(),
        "splits": experiment.dataset.splits.to_dict(),
        "tasks": _task_papers(experiment.dataset),
        "trained": list(trained),
        "forecast": dict(OPERATOR),
        "sha256": {WEIGHTS: hashlib.sha256(weights).hexdigest()},
    }
    write_text(aside / DESCRIPTION, json.dumps(description, indent=1) + "\n")
    _replace(aside, path)


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

    Nothing in a bundle is executed. Raises StorageError where it is missing, damaged, of another format, or where its
    weights do not fit its recipe; RecipeError where a plugin that it needs is missing.
    """
    folder = Path(path)
    pickled = why_pickled(folder) if folder.is_file() else None
    if pickled is not None:
        raise StorageError(f"{folder}: is not a bundle: {pickled}; expected the folder of a bundle, or of a run")
    folder = folder / "bundle" if (folder / "bundle" / DESCRIPTION).is_file() else folder
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        data = (folder / WEIGHTS).read_bytes()
    except (OSError, ValueError) as error:
        raise StorageError(
            f"{folder}: is not a bundle: expected {DESCRIPTION} and {WEIGHTS} in it ({error})"
        ) from error
    try:
        recipe, fields, normaliser, splits = _parts(folder, description, data, catalog)
        tasks = {
            name: TaskFacts(_fields(facts["fields"]), Normaliser.from_dict(facts["normaliser"]))
            for name, facts in description.get("tasks", {}).items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise StorageError(
            f"{folder / DESCRIPTION}: is not the description of a bundle ({reason}); copy it again"
        ) from error
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


def _parts(
    folder: Path, description: Mapping[str, Any], data: bytes, catalog: Catalog | None
) -> tuple[Recipe, FieldSpec, Normaliser, Mapping[str, Any]]:
    """What a bundle's description says, where it is one that fits these weights."""
    if description["format"] != FORMAT:
        raise StorageError(f"{folder}: bundle format {description['format']}; this version reads format {FORMAT}")
    if hashlib.sha256(data).hexdigest() != description["sha256"][WEIGHTS]:
        raise StorageError(f"{folder / WEIGHTS}: its content is not what was written (sha256 differs); copy it again")
    known = discover() if catalog is None else catalog
    recipe, problems = attempt(description["recipe"], Recipe, known)
    if recipe is None or problems:
        lines = "; ".join(str(problem) for problem in problems)
        raise StorageError(f"{folder}: its recipe cannot be read with the installed plugins: {lines}")
    normaliser = Normaliser.from_dict(description["normaliser"])
    return recipe, _fields(description["fields"]), normaliser, description["splits"]


def save_weights(path: Path, model: LatentModel) -> bytes:
    """Write a model's weights as safetensors, atomically; returns what was written."""
    tensors = {
        name.replace("_orig_mod.", ""): value.detach().cpu().contiguous() for name, value in model.state_dict().items()
    }
    data = save(tensors, metadata={"format": "pt"})
    write_bytes(path, data)
    return data


def load_weights(model: LatentModel, data: bytes, source: str) -> None:
    """Put safetensors into a model. Raises StorageError with the first keys and shapes that do not fit."""
    try:
        tensors = load(data)
    except (SafetensorError, ValueError) as error:
        raise StorageError(f"{source}: is not a safetensors file: {error}") from error
    own = model.state_dict()
    missing, unexpected = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    shapes = [
        f"{name}: {tuple(tensors[name].shape)} in the file, {tuple(own[name].shape)} in the model"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if missing or unexpected or shapes:
        facts = {"missing": missing[:5], "unexpected": unexpected[:5], "other shapes": shapes[:5]}
        lines = "; ".join(f"{what}: {', '.join(names)}" for what, names in facts.items() if names)
        raise StorageError(f"{source}: weights of another model: {lines}")
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
