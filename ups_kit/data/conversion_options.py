"""What a command says of the data that it converts: checked, and told to the child that reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from attrs import field, frozen

from ..errors import UsageError, did_you_mean

AXES = ("b", "t", "x", "y", "z", "c")


@frozen(kw_only=True)
class Plain:
    """How plain arrays become trajectories: their axes by letter, names, coordinates and parameters."""

    axes: tuple[str, ...]  # b trajectory, t time, x y z space, c channel
    arrays: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    parameters: Mapping[str, float | str] = field(factory=dict)  # a number, or the name of an array (b,)
    domain: tuple[tuple[float, float], ...] | None = None
    centres: bool = False
    dt: float | None = None
    periodic: bool = True

    @property
    def space(self) -> tuple[str, ...]:
        """The letters of space in the order x, y, z."""
        return tuple(letter for letter in "xyz" if letter in self.axes)


@frozen(kw_only=True)
class MeshOptions:
    """What a command says of files of meshes."""

    arrays: tuple[str, ...] | None = None  # data that become fields, all where not given
    names: tuple[str, ...] | None = None  # what to call them
    statics: tuple[str, ...] = ()  # data that are given, and do not change
    parameters: Mapping[str, float] = field(factory=dict)  # of all samples
    dt: float | None = None


def plain_options(
    axes: Sequence[str],
    arrays: Sequence[str] | None,
    names: Sequence[str] | None,
    parameters: Sequence[str],
    domain: Sequence[str] | None,
    centres: bool,
    dt: float | None,
    periodic: bool,
) -> Plain:
    """The options of the command line, checked. Raises UsageError."""
    for axis in axes:
        if axis not in AXES:
            raise UsageError(f"--axes {','.join(axes)}: no axis is called '{axis}'{did_you_mean(axis, AXES)} {_LEGEND}")
    space = [axis for axis in axes if axis in "xyz"]
    if len(set(axes)) < len(axes) or "x" not in axes or sorted(space) != list("xyz"[: len(space)]):
        raise UsageError(f"--axes {','.join(axes)}: expected x, then y, then z, each letter once {_LEGEND}")
    given = _named_values(parameters)
    if dt is not None and not math.isfinite(dt):
        raise UsageError(f"--dt {dt}: expected a finite number")
    ends: list[tuple[float, float]] = []
    for text in domain or ():
        low, _, high = text.partition(":")
        pair = (_number(low), _number(high))
        if pair[0] is None or pair[1] is None or not pair[0] < pair[1]:
            raise UsageError(f"--domain {text}: expected LOW:HIGH, for example 0:1")
        ends.append((pair[0], pair[1]))
    if domain is not None and len(ends) != len(space):
        raise UsageError(f"--domain has {len(ends)} axes, and --axes has {len(space)} in space")
    return Plain(
        axes=tuple(axes),
        arrays=None if arrays is None else tuple(arrays),
        names=None if names is None else tuple(names),
        parameters=given,
        domain=tuple(ends) if domain is not None else None,
        centres=centres,
        dt=dt,
        periodic=periodic,
    )


def mesh_options(
    arrays: Sequence[str] | None,
    names: Sequence[str] | None,
    statics: Sequence[str] | None,
    parameters: Sequence[str],
    dt: float | None,
) -> MeshOptions:
    """The options of the command line for files of meshes, checked. Raises UsageError."""
    numbers: dict[str, float] = {}
    for name, value in _named_values(parameters).items():
        if isinstance(value, str):
            raise UsageError(f"--parameters {name}={value}: expected NAME=NUMBER, for example nu=0.01")
        numbers[name] = value
    if dt is not None and not math.isfinite(dt):
        raise UsageError(f"--dt {dt}: expected a finite number")
    return MeshOptions(
        arrays=None if arrays is None else tuple(arrays),
        names=None if names is None else tuple(names),
        statics=tuple(statics or ()),
        parameters=numbers,
        dt=dt,
    )


def _named_values(texts: Sequence[str]) -> dict[str, float | str]:
    """Numbers, or names of arrays, by name."""
    given: dict[str, float | str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"--parameters {text}: expected NAME=NUMBER or NAME=ARRAY, for example nu=0.01")
        if name.strip() in given:
            raise UsageError(f"--parameters {text}: '{name.strip()}' is given twice")
        number = _number(value)
        given[name.strip()] = value.strip() if number is None else number
    return given


_LEGEND = "(b trajectory, t time, x y z space, c channel)"


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
