"""What a stage's weights are of: everything that determines them, as a record and as one hash.

The record holds values of the recipe, what the data hold, and the keys of the stages before. Left out is what changes
no weights: names and places of files, devices, workers, what is logged and kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from attrs import frozen

from . import __version__
from .differences import Difference, default_paths, differences
from .fit.settings import FitSettings
from .interfaces import AnyDataset, Dataset, DescribedDataset, Identified, StageConfig, TakesLatents
from .keypaths import render
from .keys import alternatives, keys_of, kind_of
from .plugins import GROUP, Catalog
from .recipe import AnyRecipe
from .tables import unstructure
from .tasks import tasks_of

FORMAT = 1
WATCHED = (
    "keep",
    "log_every",
    "checkpoint_every",
    "checkpoint_epochs",
)  # keys of training stages that change no weights
APART = ("run", "stages", "latent_cache", "trackers", "plugins", "recipe_version", "description")
DIGITS = 6  # of statistics: sums in another order differ in the last ones


@frozen
class Recorded:
    """What a recipe says, as records on disk hold it: `values` is that of `resolved.json`."""

    recipe: AnyRecipe
    values: Mapping[str, Any]

    @classmethod
    def of(cls, recipe: AnyRecipe, catalog: Catalog) -> Recorded:
        return cls(recipe, unstructure(recipe, catalog))

    def read(self, values: Mapping[str, Any]) -> Recorded:
        """The same with the values of an older record."""
        return attrs.evolve(self, values=values)

    def content(
        self,
        stage: StageConfig,
        before: Mapping[str, str],
        data: Mapping[str, Any],
        changed: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """All that a stage's weights depend on.

        `before` are the keys of the training stages before it, by name, and `changed` what was changed while it was
        trained, by path.
        """
        run, values = self.values.get("run", {}), self.values
        own: Mapping[str, Any] = next((s for s in values.get("stages", []) if s.get("name") == stage.name), {})
        cache = values.get("latent_cache") if isinstance(stage, TakesLatents) and stage.keeps_encoder else None
        content = {
            "run": {key: run.get(key) for key in ("seed", "precision")},
            **{key: value for key, value in values.items() if key not in APART},
            "latent_cache": None if cache is None else {"dtype": cache.get("dtype")},
            "stages": {stage.name: {key: value for key, value in own.items() if key not in WATCHED}},
            "data": dict(data),
            "before": dict(before),
            **({"changed": dict(changed)} if changed else {}),
        }
        content["dataset"] = _without(values.get("dataset", {}), frozenset(_places(self.recipe.dataset, "")))
        plain: dict[str, Any] = json.loads(json.dumps(content, default=str))
        return plain

    def changes(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
        """Where a stage's record differs from that of the recipe as it is now."""
        return differences(old, new, default_paths(self.recipe))


def key_of(content: Mapping[str, Any]) -> str:
    """The hash of a stage's record."""
    return hashlib.sha256(json.dumps({"format": FORMAT, **content}, sort_keys=True).encode()).hexdigest()


def training_stages(recipe: AnyRecipe) -> list[StageConfig]:
    """The stages that train, without those whose budget is 0."""
    return [stage for stage in recipe.stages if isinstance(stage, FitSettings) and not stage.budget.is_zero]


def _places(config: Any, path: str) -> Iterator[str]:
    """The key paths of a data set's config that say where the data lie, or how they were once made."""
    for key, info in keys_of(type(config)).items() if attrs.has(type(config)) else ():
        value, below = getattr(config, key, None), f"{path}.{render((key,))}" if path else render((key,))
        if "relative_to" in info.metadata or _is_place(info.type):
            yield below
        elif isinstance(value, Mapping):
            for name, inner in value.items():
                yield from _places(inner, f"{below}.{render((name,))}")
        else:
            yield from _places(value, below)


def _is_place(annotation: Any) -> bool:
    members = alternatives(annotation)
    return any(kind_of(member) == "simulator" or "Path" in str(member) for member in members)


def _without(values: Any, dropped: frozenset[str], path: str = "") -> Any:
    if not isinstance(values, Mapping):
        return values
    below = {key: f"{path}.{render((key,))}" if path else render((key,)) for key in values}
    return {key: _without(value, dropped, below[key]) for key, value in values.items() if below[key] not in dropped}


# ---------------------------------------------------------------------------------------------------------------------
# Data and versions
# ---------------------------------------------------------------------------------------------------------------------
def data_record(dataset: AnyDataset) -> dict[str, Any]:
    """What a data set holds, wherever its files lie: which trajectories serve what, statistics and fields.

    One record for each task of several; of a family of its own, splits and description.
    """
    if isinstance(dataset, DescribedDataset):
        described = _hash(_rounded(dataset.description.to_dict()))
        return {"splits": dataset.splits.digest, "description": described}
    tasks = tasks_of(dataset)
    return _data_record(dataset) if "" in tasks else {name: _data_record(task) for name, task in tasks.items()}


def _data_record(dataset: Dataset) -> dict[str, Any]:
    return {
        "splits": dataset.splits.digest,
        "statistics": _hash(_rounded(dataset.normaliser.to_dict())),
        "fields": _hash(_rounded(attrs.asdict(dataset.fields, filter=lambda key, value: value != key.default))),
    }


def files_record(dataset: AnyDataset) -> dict[str, str]:
    """The fingerprints of the files, by task: sizes, dates and content. They may change, and the data be the same."""
    if isinstance(dataset, DescribedDataset):
        return {"": dataset.fingerprint} if isinstance(dataset, Identified) else {}
    return {name: task.fingerprint for name, task in tasks_of(dataset).items() if isinstance(task, Identified)}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {str(key): _rounded(inner) for key, inner in value.items() if inner is not None}
    return [_rounded(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def versions(recipe: AnyRecipe, catalog: Catalog) -> dict[str, str]:
    """The plugins that a recipe uses, with their versions, and that of the core."""
    owners = {entry.config: entry.plugin for registry in catalog.registries.values() for entry in registry.values()}
    used = {owners[type(config)] for config in _configs(recipe) if type(config) in owners}
    plugins = {p.name: f"{p.distribution} {p.version}" for p in catalog.plugins if p.name in used}
    return {"ups_kit": __version__, **plugins}


def moved_on(then: Mapping[str, str], recipe: AnyRecipe, catalog: Catalog) -> list[str]:
    """The plugins of other distributions that a recipe uses, and that are not of the version they were of then."""
    built_in = {plugin.name for plugin in catalog.plugins if plugin.distribution == GROUP}
    now = {name: source for name, source in versions(recipe, catalog).items() if name not in (GROUP, *built_in)}
    return [
        f"the plugin '{name}': {then.get(name, 'not installed')} then, {source} now"
        for name, source in now.items()
        if then.get(name) != source
    ]


def _configs(value: Any) -> Iterator[Any]:
    if attrs.has(type(value)):
        yield value
        value = [getattr(value, attribute.name) for attribute in attrs.fields(type(value))]
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ():
        yield from _configs(inner)
