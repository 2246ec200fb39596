"""What data on points are, from headers alone, and what can be wrong with their keys before anything is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from attrs import evolve

from ...errors import DataError
from ...interfaces import FieldSpec
from .. import paths
from ..normalisation import unknown_fields
from ..splits import largest, shortage
from .files import PointFiles, all_files, check_conditions, joined
from .settings import PointSettings

STEADY_DT = 1.0  # the "time step" of steady data: a constant condition


def describe(settings: PointSettings) -> FieldSpec:
    """What the data are, from headers alone, or as they will be. Raises DataError."""
    if paths.to_be_made(settings.path, settings.simulate) is None or settings.simulate is None:
        groups = all_files(settings)
        return field_spec(settings, joined(settings, [file for group in groups.values() for file in group]))
    made = settings.planned(settings.simulate.describe())
    known = made.conditions[1:]
    names = known if settings.conditions is None else settings.conditions
    check_conditions(names, known, "the simulator")
    return _as_told(settings, evolve(made, conditions=("dt", *names), dt=made.dt * _stride(settings, made.steady)))


def field_spec(settings: PointSettings, files: PointFiles) -> FieldSpec:
    """What the model is given and predicts. Raises DataError where there are too few frames."""
    _check_frames(settings, files)
    first = files.first
    base = FieldSpec(
        targets=tuple(first.targets),
        statics=tuple(first.statics),
        domain=files.domain,
        periodic=tuple(first.periodic),
        layout=first.layout,
        grid=None,
        dt=STEADY_DT if files.steady else float(first.dt),
        conditions=("dt", *files.conditions),
        history=0 if files.steady else 1,
        counts=(int(files.counts.min()), int(files.counts.max())),
        moves_with=first.moves_with,
    )
    return _as_told(settings, base)


def _stride(settings: PointSettings, steady: bool) -> int:
    return 1 if steady else settings.time_stride


def _as_told(settings: PointSettings, base: FieldSpec) -> FieldSpec:
    drawn = settings.input_points
    return evolve(
        base,
        history=0 if base.steady else settings.history,
        sampled=settings.points,
        sampled_inputs=drawn[0] if isinstance(drawn, tuple) else drawn,
    )


def _check_frames(settings: PointSettings, files: PointFiles) -> None:
    if files.steady:
        if settings.history > 1:
            raise DataError(
                f"{files.where(0)}: its fields are steady, so no frame comes before the answer; leave dataset.history "
                f"= {settings.history} out",
                "history",
            )
        if not files.first.statics:
            raise DataError(
                f"{files.where(0)}: its fields are steady, and no field is given at every point that they follow from; "
                "expected one static field at least"
            )
        return
    if settings.history == 0:
        raise DataError(
            f"{files.where(0)}: holds {files.frames.max()} frames in time, and dataset.history = 0 is for steady data; "
            "expected at least 1",
            "history",
        )
    needed = settings.history + 1
    short = np.flatnonzero(files.frames < needed)
    if len(short):
        raise DataError(
            f"{files.where(int(short[0]))}: has {files.frames[short[0]]} frames at dataset.time_stride = "
            f"{settings.time_stride}; dataset.history = {settings.history} needs at least {needed}, so that there is "
            f"one to predict ({len(short)} of {files.total} trajectories are too short)"
        )


# ---------------------------------------------------------------------------------------------------------------------
# What is wrong with the keys
# ---------------------------------------------------------------------------------------------------------------------
def problems(settings: PointSettings, fields: FieldSpec) -> Iterator[tuple[str, str]]:
    """What is wrong with a dataset's keys, as `check` yields it: the splits, the fields that are named, the points."""
    yield from _split_problems(settings)
    yield from unknown_fields(settings.normalisation, fields)
    most = fields.counts[1] if fields.counts is not None else None
    drawn = settings.input_points
    for key, count in (
        ("input_points", max(drawn) if isinstance(drawn, tuple) else drawn),
        ("points", settings.points),
    ):
        if count is not None and most is not None and count > most:
            near = f"[{min(drawn[0], most)}, {most}]" if key == "input_points" and isinstance(drawn, tuple) else most
            yield key, f"{count} points of samples that have {most} at most; nearest: {key} = {near}, or leave it out"


def pools_of(settings: PointSettings, files: PointFiles, separate: Mapping[str, int]) -> dict[str, list[int]]:
    """The numbers of the trajectories that each split is drawn from alone, and under "" those of all others.

    A split has its own where the recipe names files for it (`separate`: how many trajectories those hold, which come
    last, in this order), or where a file says which split its trajectories are of.
    """
    pools: dict[str, list[int]] = {"": [], "train": [], "validation": [], "test": []}
    start = files.total - sum(separate.values())
    for number in range(start):
        source, own = files.owner(number)
        said = source.split_of(own)
        key = SEPARATE_KEYS.get(said or "")
        if said is None or key is None or getattr(settings, key, None) is None:
            pools[said or ""].append(number)  # a split with files of its own does not take these
    for split, count in separate.items():
        pools[split] += range(start, start + count)
        start += count
    return pools


SEPARATE_KEYS: Mapping[str, str] = {"test": "test_path", "validation": "validation_path"}


def wanted(settings: PointSettings) -> dict[str, int | None]:
    """How many trajectories each split takes; None: the rest. Test and validation are served first."""
    return {"test": settings.test, "validation": settings.validation, "train": settings.train}


def _split_problems(settings: PointSettings) -> Iterator[tuple[str, str]]:
    missing = paths.to_be_made(settings.path, settings.simulate)
    if missing is not None:
        planned = getattr(settings.simulate, "trajectories", None)
        if isinstance(planned, int):  # of a simulator without this key, the file that it has made will tell
            source = f"{missing}, to be made with dataset.simulate.trajectories = {planned}"
            yield from _shortage(wanted(settings), planned, source)
        return
    groups = all_files(settings)
    files = joined(settings, [file for group in groups.values() for file in group])
    separate = {split: sum(len(file.source.counts) for file in group) for split, group in groups.items() if split}
    pools, counts = pools_of(settings, files, separate), wanted(settings)
    for split in ("test", "validation", "train"):
        if pools[split]:
            yield from _shortage({split: counts.pop(split)}, len(pools[split]), files.where(pools[split][0]))
    if counts:
        source = ", ".join(str(file.path) for file in groups[""])
        yield from _shortage(counts, len(pools[""]), source)


def _shortage(counts: Mapping[str, int | None], available: int, source: str) -> Iterator[tuple[str, str]]:
    problem = shortage(counts, available, source)
    if problem is not None:
        yield largest(counts), problem
