"""The sides of a grid by name. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SIDES = (("x0", "left"), ("x1", "right"), ("y0", "bottom"), ("y1", "top"), ("z0", "back"), ("z1", "front"))
Side = tuple[int, int]  # the axis, and 0 for its low end, 1 for its high end


def sides_of(names: Iterable[str]) -> tuple[Side, ...]:
    """The sides with these names, each once, in the order of the axes; names of no side are left out."""
    known = {name: divmod(number, 2) for number, pair in enumerate(SIDES) for name in pair}
    return tuple(sorted({known[name] for name in names if name in known}))


def paired(names: Iterable[str], periodic: Sequence[bool]) -> tuple[Side, ...]:
    """The low ends of axes whose two ends shall agree: those named by either end, or else the periodic ones."""
    axes = {axis for axis, _ in sides_of(names)} or {axis for axis, wraps in enumerate(periodic) if wraps}
    return tuple((axis, 0) for axis in sorted(axes))
