"""Parameters of the equation: from arrays and attributes in the files, from their names, and from the recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ups_kit import DataError
from ups_kit.errors import did_you_mean

from .settings import PLACEHOLDER, TrajectorySettings
from .source import Header

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def given_to(config: TrajectorySettings, paths: Sequence[Path], number: int, test: bool) -> dict[str, float]:
    """Parameters of one of the files that its name or the recipe gives. Raises DataError."""
    key = "test_parameters" if test and config.test_parameters is not None else "parameters"
    recipe = config.test_parameters if test and config.test_parameters is not None else config.parameters
    values = {}
    for name, value in recipe.items():
        if isinstance(value, tuple) and len(value) != len(paths):
            raise DataError(
                f"dataset.{key}.{name} has {len(value)} numbers for {len(paths)} files; expected one for each of "
                f"{', '.join(path.name for path in paths)}",
                key,
            )
        values[name] = value[number] if isinstance(value, tuple) else value
    named = from_name(config.parameters_from_name, paths[number]) if config.parameters_from_name else {}
    twice = sorted(named.keys() & values.keys())
    if twice:
        raise DataError(
            f"{paths[number]}: its name says {twice[0]} = {named[twice[0]]:g}, and dataset.{key} {values[twice[0]]:g}; "
            "expected it in one of them",
            key,
        )
    return values | named


def from_name(pattern: str, path: Path) -> dict[str, float]:
    """The numbers in a file's name, where a pattern has names in braces. Raises DataError for a name of other form."""
    pieces = PLACEHOLDER.split(pattern)
    written = "".join(
        f"(?P<{piece}>{NUMBER})" if place % 2 else re.escape(piece).replace(r"\*", ".*")
        for place, piece in enumerate(pieces)
    )
    match = re.fullmatch(written, path.name)
    if match is None:
        raise DataError(
            f"{path}: the name does not have the form of dataset.parameters_from_name = '{pattern}', with a number in "
            "the place of each brace",
            "parameters_from_name",
        )
    return {name: float(value) for name, value in match.groupdict().items()}


def parameters_of(
    config: TrajectorySettings, header: Header, given: Mapping[str, float]
) -> dict[str, NDArray[np.float64]]:
    """The parameters of a file that the model is told, for each trajectory. Raises DataError."""
    path, samples = header.path, header.trajectories
    twice = sorted(header.parameters.keys() & given.keys())
    if twice:
        raise DataError(
            f"{path}: holds '{twice[0]}' of each trajectory, and the recipe gives {twice[0]} = {given[twice[0]]:g} for "
            "the whole file; remove the latter from dataset.parameters (or test_parameters)",
            "parameters",
        )
    # An attribute may be anything, a date or a version: it is a parameter only where the recipe says so.
    names = chosen(config, sorted({*header.parameters, *given}), str(path), sorted(header.attributes))
    if "dt" in names:
        raise DataError(
            f"{path}: a parameter is called 'dt', as the model calls the time step; rename it, or leave it out of "
            "dataset.conditions",
            "conditions",
        )
    found = {}
    for name in names:
        if name in given:
            found[name] = np.full(samples, given[name])
        else:
            known = header.parameters if name in header.parameters else header.attributes
            found[name] = np.asarray(known[name], np.float64)
        if not np.isfinite(found[name]).all():
            bad = np.flatnonzero(~np.isfinite(found[name]))
            raise DataError(
                f"{path}: parameter '{name}' is not finite for {len(bad)} samples, the first being {bad[0]}"
            )
    return found


def chosen(config: TrajectorySettings, known: Sequence[str], where: str, more: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of the parameters that the model is told. Raises DataError for those that are nowhere."""
    if config.conditions is None:
        return tuple(known)
    every = (*known, *more)
    missing = [name for name in config.conditions if name not in every]
    if missing:
        raise DataError(
            f"{where}: no parameter '{missing[0]}'{did_you_mean(missing[0], every)} (looked for an array with a number "
            "per trajectory, an attribute, dataset.parameters and dataset.parameters_from_name; found: "
            f"{', '.join(every) or 'none'})",
            "conditions",
        )
    return config.conditions
