"""One look at all values of some trajectories: whether they are finite, and what normalisation has to know of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from ...errors import DataError
from ...interfaces import FieldSpec
from ..guard import Sign
from ..normalisation import Central, Moments, Normalisation, central_half, channels_of, scheme_of
from ..splits import content_hash
from .files import PointFiles
from .source import PointSource, TellsProblems

BLOCK_VALUES = 2**20  # values that are looked at together


def frame_blocks(source: PointSource, number: int) -> Iterator[NDArray[np.int64]]:
    """The frames of a trajectory, a few at a time."""
    channels = sum(each.channels for each in source.targets) + len(source.domain)
    together = max(1, BLOCK_VALUES // max(int(source.counts[number]) * channels, 1))
    frames = np.arange(int(source.frames[number]), dtype=np.int64)
    for start in range(0, len(frames), together):
        yield frames[start : start + together]


def initial_hash(source: PointSource, number: int, steady: bool) -> str:
    """The hash of what is given at first: places, the first frame and the statics; of steady data without the frame.

    Parameters are left out, so that one state under several of them has one hash.
    """
    first = np.zeros(1, np.int64)
    places = source.positions(number, first)
    parts = [places[0] if source.moves_with is not None else places, source.given(number)]
    if not steady:
        parts.append(source.values(number, first)[0])
    return content_hash(np.concatenate([part.astype(np.float32, copy=False) for part in parts], -1))


@define(eq=False)
class Survey:
    """What has been found out of trajectories, by their numbers; `seen` says of which of them."""

    files: PointFiles
    seen: NDArray[np.bool_]  # (trajectories,)
    sound: NDArray[np.bool_]  # (trajectories,): neither NaN nor infinity in places and values
    targets: Moments  # (trajectories, C)
    statics: Moments  # (trajectories, static channels)
    problems: dict[int, str] = field(factory=dict)  # what the source says of those that are not sound

    @classmethod
    def empty(cls, files: PointFiles) -> Survey:
        total, first = files.total, files.first
        channels, given = (sum(each.channels for each in group) for group in (first.targets, first.statics))
        flags = np.zeros(total, bool)
        return cls(files, flags, flags.copy(), Moments.empty(total, channels), Moments.empty(total, given))

    def look_through(self, ids: NDArray[np.int64]) -> None:
        """Look at those of these trajectories that were not looked at yet. Raises DataError for what cannot be read."""
        for number in ids[~self.seen[ids]].tolist():
            source, own = self.files.owner(number)
            said = source.problem(own) if isinstance(source, TellsProblems) else None
            if said is not None:
                self.problems[number] = said
            self.sound[number] = self._look(source, own, np.array([number])) and said is None
            self.seen[number] = True

    def _look(self, source: PointSource, own: int, row: NDArray[np.int64]) -> bool:
        parts, places = [], True
        moves = source.moves_with is not None
        for frames in frame_blocks(source, own):
            parts.append(Moments.of(source.values(own, frames)[None]))
            if moves or frames[0] == 0:
                places &= bool(np.isfinite(source.positions(own, frames)).all())
        found = Moments.over(parts)
        self.targets.put(row, found)
        sound = places and bool(np.isfinite(found.squares).all())
        if source.statics:
            given = Moments.of(source.given(own)[None])
            self.statics.put(row, given)
            sound &= bool(np.isfinite(given.squares).all())
        return sound

    def merged(self, ids: NDArray[np.int64]) -> tuple[Moments, Moments | None]:
        """The moments of all of these trajectories together, of targets and of statics if there are any."""
        statics = self.statics[ids].merged() if self.statics.mean.shape[1] else None
        return self.targets[ids].merged(), statics

    def central_ranges(
        self, normalisation: Normalisation, fields: FieldSpec, ids: NDArray[np.int64]
    ) -> Mapping[str, Central]:
        """The central halves of the values of those fields that the recipe wants normalised by them."""
        targets, statics = self.merged(ids)
        found: dict[str, Central] = {}
        for group, moments, given in ((fields.targets, targets, False), (fields.statics, statics, True)):
            wanted = [each for each in group if scheme_of(normalisation, each.name) == "robust"]
            for each in wanted if moments is not None else ():
                channels = channels_of(group, each.name)
                values = partial(self._values, ids, channels, given)
                found[each.name] = central_half(values, moments.low[channels], moments.high[channels])  # type: ignore[union-attr]
        return found

    def _values(
        self, ids: NDArray[np.int64], channels: NDArray[np.int64], given: bool
    ) -> Iterator[NDArray[np.float32]]:
        for number in ids.tolist():
            source, own = self.files.owner(number)
            if given:
                yield source.given(own)[:, channels]
                continue
            for frames in frame_blocks(source, own):
                yield source.values(own, frames)[..., channels].reshape(-1, len(channels))


def unfit_samples(sign: Sign, source: PointSource) -> tuple[int, list[str]]:
    """How many values a source's trajectories have, and what is wrong with each of them."""
    looked, problems = 0, []
    for number in range(len(source.counts)):
        sign(source.where(number))
        said = source.problem(number) if isinstance(source, TellsProblems) else None
        bad = 0
        try:
            for frames in frame_blocks(source, number):
                values = source.values(number, frames)
                looked, bad = looked + values.size, bad + _endless(values) + _endless(source.positions(number, frames))
            given = source.given(number)
            looked, bad = looked + given.size, bad + _endless(given)
        except DataError as error:
            said = said or str(error)
        if said is None and bad:
            said = f"{source.where(number)}: {bad:,} values are NaN or infinite"
        problems += [] if said is None else [said]
    return looked, problems


def _endless(values: NDArray[np.float32]) -> int:
    """How many values are NaN or infinite."""
    return int((~np.isfinite(values)).sum())
