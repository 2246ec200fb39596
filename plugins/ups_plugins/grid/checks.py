"""What can be wrong with a dataset's keys before anything is made or read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ups_kit import DataError, FieldSpec
from ups_kit.data.normalisation import unknown_fields
from ups_kit.data.splits import largest, shortage

from .files import SEPARATE, OpenFile, check_agreement, open_files, to_be_made
from .settings import TrajectorySettings


def problems(settings: TrajectorySettings, fields: FieldSpec) -> Iterator[tuple[str, str]]:
    """What is wrong with a dataset's keys, as `check` yields it: the splits, the fields that are named, the points."""
    yield from split_problems(settings)
    yield from unknown_fields(settings.normalisation, fields)
    if settings.points is not None and fields.points is not None and settings.points > fields.points:
        grid = " × ".join(map(str, fields.grid or ()))
        yield (
            "points",
            f"{settings.points} points of a grid of {grid}; nearest: points = {fields.points}, or leave it out",
        )
    most = settings.input_points[1] if isinstance(settings.input_points, tuple) else settings.input_points
    if most is not None and fields.points is not None and most > fields.points:
        yield (
            "input_points",
            f"{most} points of a grid of {' × '.join(map(str, fields.grid or ()))}, of {fields.points}; nearest: "
            f"input_points = {fields.points}, or leave it out",
        )


def split_problems(settings: TrajectorySettings) -> Iterator[tuple[str, str]]:
    """What is wrong with the numbers of trajectories that the splits take."""
    counts: dict[str, int | None] = {"test": settings.test, "validation": settings.validation, "train": settings.train}
    own = () if to_be_made(settings) is not None else open_files(settings)
    for split, key in SEPARATE.items():
        if getattr(settings, key) is None:
            continue
        try:
            others = open_files(settings, key)
            check_agreement((*own, *others))
        except DataError as error:
            yield error.key or key, str(error)
            return
        yield from _shortage({split: counts.pop(split)}, _held(others), _paths(others))
    if own:
        yield from _shortage(counts, _held(own), _paths(own))
        return
    planned = getattr(settings.simulate, "trajectories", None)
    if isinstance(planned, int):  # of a simulator without this key, the file that it has made will tell
        source = f"{to_be_made(settings)}, to be made with dataset.simulate.trajectories = {planned}"
        yield from _shortage(counts, planned, source)


def _shortage(counts: Mapping[str, int | None], available: int, source: str) -> Iterator[tuple[str, str]]:
    problem = shortage(counts, available, source)
    if problem is not None:
        yield largest(counts), problem


def _held(files: Sequence[OpenFile]) -> int:
    return sum(file.header.trajectories for file in files)


def _paths(files: Sequence[OpenFile]) -> str:
    return ", ".join(str(file.header.path) for file in files)
