"""Reading a dataset on points: once, when a run begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from .. import paths
from ..making import make_if_missing
from ..normalisation import Normaliser
from ..splits import Splits, drawn
from .dataset import PointDataset
from .describing import field_spec, pools_of, wanted
from .files import PointFiles, all_files, joined
from .settings import PointSettings
from .source import Flagged, PointSource
from .survey import Survey, frame_blocks, initial_hash

SHOWN = 8  # sample ids that a message names


def read_dataset(settings: PointSettings, seed: int) -> PointDataset:
    """Make the store if need be, look through all trajectories that are used, split them, fit the normalisation.

    Raises DataError.
    """
    missing = paths.to_be_made(settings.path, settings.simulate)
    if missing is not None and settings.simulate is not None:
        make_if_missing(missing, settings.simulate)
    groups = all_files(settings)
    files = joined(settings, [file for group in groups.values() for file in group])
    fields = field_spec(settings, files)
    separate = {split: sum(len(file.source.counts) for file in group) for split, group in groups.items() if split}
    pools = pools_of(settings, files, separate)
    hashes, bad = _hashes(settings, files, sorted(member for pool in pools.values() for member in pool), fields.steady)
    ids, survey = _split(settings, files, hashes, pools, bad, seed)
    splits = Splits(ids, {member: hashes[member] for members in ids.values() for member in members})
    parameters = files.parameters
    conditions = np.concatenate([np.full((len(parameters), 1), fields.dt), parameters], 1)
    members = {name: np.asarray(trajectories, np.int64) for name, trajectories in ids.items()}
    train, schemes = members["train"], _schemes(settings, files)
    targets, statics = survey.merged(train)
    try:
        normaliser = Normaliser.fitted(
            fields,
            targets,
            conditions[train],
            statics,
            normalisation=schemes,
            central=survey.central_ranges(schemes, fields, train),
        )
    except DataError as error:
        raise DataError(f"{files.files[0].path}: {error}", error.key) from error
    return PointDataset(settings, fields, normaliser, splits, files, conditions, members)


def _hashes(
    settings: PointSettings, files: PointFiles, numbers: Sequence[int], steady: bool
) -> tuple[dict[int, str], set[int]]:
    """The hash of every trajectory's initial condition, and those that cannot be read, where these may be left out."""
    hashes: dict[int, str] = {}
    bad: set[int] = set()
    for number in numbers:
        source, own = files.owner(number)
        try:
            hashes[number] = initial_hash(source, own, steady)
        except DataError:
            if not settings.drop_bad_samples:
                raise
            bad.add(number)
    return hashes, bad


def _schemes(settings: PointSettings, files: PointFiles) -> dict[str, str]:
    """How each field is normalised: as the recipe says it of the field; flags as they are; else as it says of all."""
    told, source = settings.normalisation, files.first
    flags = source.flags if isinstance(source, Flagged) else ()
    names = [each.name for each in (*source.targets, *source.statics)]
    if isinstance(told, str):
        return {name: "none" if name in flags else told for name in names}
    return {name: told.get(name, "none" if name in flags else "standard") for name in names}


def _split(
    settings: PointSettings,
    files: PointFiles,
    hashes: Mapping[int, str],
    pools: Mapping[str, list[int]],
    bad: set[int],
    seed: int,
) -> tuple[dict[str, tuple[int, ...]], Survey]:
    """Draw splits of trajectories without NaN or infinity, and look through all of them."""
    survey = Survey.empty(files)
    while True:
        ids = _draw(settings, files, hashes, pools, bad, seed)
        members = np.asarray(sorted(member for members in ids.values() for member in members), np.int64)
        survey.look_through(members)
        found = members[~survey.sound[members]]
        if not len(found):
            return ids, survey
        if not settings.drop_bad_samples:
            raise DataError(_bad_samples(files, found, survey.problems))
        bad = bad | set(found.tolist())


def _draw(
    settings: PointSettings,
    files: PointFiles,
    hashes: Mapping[int, str],
    pools: Mapping[str, list[int]],
    bad: set[int],
    seed: int,
) -> dict[str, tuple[int, ...]]:
    """Test and validation trajectories first: more train data leave them as they are."""
    source, counts = ", ".join(str(file.path) for file in files.files), wanted(settings)
    ids: dict[str, tuple[int, ...]] = {}
    for split in ("test", "validation", "train"):
        if pools[split]:
            own = [number for number in pools[split] if number not in bad]
            ids |= drawn({split: counts.pop(split)}, own, hashes, seed, source)
    if counts:
        others = [number for number in pools[""] if number not in bad]
        ids |= drawn(counts, others, hashes, seed, source)
    return {name: ids[name] for name in ("train", "validation", "test")}


# ---------------------------------------------------------------------------------------------------------------------
# What is not finite
# ---------------------------------------------------------------------------------------------------------------------
def _bad_samples(files: PointFiles, bad: NDArray[np.int64], problems: Mapping[int, str]) -> str:
    listed = ", ".join(str(member) for member in bad[:SHOWN]) + (", …" if len(bad) > SHOWN else "")
    advice = f"(ids {listed}); to leave these trajectories out, set dataset.drop_bad_samples = true"
    if int(bad[0]) in problems:
        return f"{problems[int(bad[0])]}; {len(bad)} trajectories are unfit {advice}"
    count, first = 0, ""
    for number in bad.tolist():
        source, own = files.owner(number)
        for mine, where in _bad_places(source, own):
            count += mine
            first = first or where
    where = files.where(int(bad[0]))
    return f"{where}: NaN or infinity at {first}; {len(bad)} trajectories hold {count} such values {advice}"


def _bad_places(source: PointSource, number: int) -> Iterator[tuple[int, str]]:
    """How many values are not finite, and where the first of them is, of places, fields and statics."""
    targets = [each.name for each in source.targets for _ in range(each.channels)]
    statics = [each.name for each in source.statics for _ in range(each.channels)]
    axes, moves = list("xyz"), source.moves_with is not None
    for frames in frame_blocks(source, number):
        if moves or frames[0] == 0:
            places = source.positions(number, frames)
            yield _first(places, axes, frames if moves else None, "the position")
        yield _first(source.values(number, frames), targets, frames, "")
    if statics:
        yield _first(source.given(number), statics, None, "")


def _first(values: NDArray[np.float32], names: list[str], frames: NDArray[np.int64] | None, of: str) -> tuple[int, str]:
    bad = np.argwhere(~np.isfinite(values))
    if not len(bad):
        return 0, ""
    *lead, point, channel = bad[0].tolist()
    frame = f"frame {frames[lead[0]]}, " if frames is not None else ""
    what = f"{of} {names[channel]}" if of else f"'{names[channel]}'"
    return len(bad), f"[{frame}point {point}] of {what}"
