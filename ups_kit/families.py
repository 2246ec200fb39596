"""Families of models: whether the parts of a recipe are of one, and what a whole model of its own finds wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from .errors import DataError, Problem
from .interfaces import FIELDS, ChecksDescription, family_of
from .keypaths import render
from .keys import alternatives, keys_of, kind_of
from .recipe import AnyRecipe, ModelRecipe

SERVE_ANY = ("tracker", "optimizer", "schedule")  # kinds whose components are of no family


def check_family(recipe: AnyRecipe) -> Iterator[Problem]:
    """Parts that are made for another family of models than the recipe's."""
    own = family_of(recipe.model) if isinstance(recipe, ModelRecipe) else FIELDS
    if isinstance(recipe, ModelRecipe) and own == FIELDS:
        name = type(recipe.model).__name__
        yield Problem("model.use", f"{name} does not say its family (a fault of its plugin): family: ClassVar[str]")
        return
    told: list[tuple[str, ...]] = []
    for path, kind, config in _components(recipe, ()):
        other, within = family_of(config), any(path[: len(outer)] == outer for outer in told)
        if kind not in SERVE_ANY and other != own and not within:
            told.append(path)
            yield Problem(render((*path, "use")), _stranger(kind, other, own))


def _stranger(kind: str, other: str, own: str) -> str:
    here = "a model of fields in space" if own == FIELDS else f"a model of the family '{own}'"
    there = "models of fields in space" if other == FIELDS else f"models of the family '{other}'"
    wanted = "an encoder, an operator and a decoder, without [model]" if other == FIELDS else "a [model] of that family"
    return f"this {kind} is for {there}, which have {wanted}, and the recipe has {here}; use another {kind}"


def _components(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Every component in a config, with its key path and its kind; stages and the like by their names."""
    for key in keys_of(type(value)).values() if attrs.has(type(value)) else ():
        inner = getattr(value, key.name, None)
        kind = next((kind_of(found) for found in _members(key.type) if kind_of(found)), None)
        for name, each in _entries(inner):
            below = (*path, key.name, *name)
            if kind is not None and each is not None:
                yield below, kind, each
            yield from _components(each, below)


def _members(annotation: Any) -> Iterator[Any]:
    """The types that a key may hold, and what is in them where they are arrays or tables."""
    for member in alternatives(annotation):
        yield member
        yield from getattr(member, "__args__", ())


def _entries(value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        yield from (((str(name),), each) for name, each in value.items())
    elif isinstance(value, tuple):
        yield from (((str(getattr(each, "name", number)),), each) for number, each in enumerate(value))
    else:
        yield (), value


def check_model(recipe: ModelRecipe) -> Iterator[Problem]:
    """What data set, model and stages of a family of their own find wrong with its data, by their `check_data`.

    Reads headers of data files only.
    """
    try:
        description = recipe.dataset.describe()
    except DataError as error:
        yield data_problem(error)
        return
    stages = [(render(("stages", stage.name)), stage) for stage in recipe.stages]
    for path, config in [("dataset", recipe.dataset), ("model", recipe.model), *stages]:
        for key, message in config.check_data(description) if isinstance(config, ChecksDescription) else ():
            yield Problem(f"{path}.{key}" if key else path, message)


def data_problem(error: DataError) -> Problem:
    """Data that cannot be described, as a problem of the recipe's data set."""
    return Problem(f"dataset.{error.key}" if error.key else "dataset", str(error), in_data=True)
