"""Which trajectory serves what: drawn by seed, and checked for leaks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from ..errors import DataError

SHOWN = 5  # examples that an error names


@frozen
class Splits:
    """The trajectories of each split as sorted ids, and the hash of each one's initial condition.

    Raises DataError where a trajectory, or two with one initial condition, stand in two splits.
    """

    ids: Mapping[str, tuple[int, ...]]
    hashes: Mapping[int, str] = field(repr=False)

    def __attrs_post_init__(self) -> None:
        owners: dict[str, tuple[str, int]] = {}
        leaks = []
        for name, members in self.ids.items():
            for member in members:
                other, twin = owners.setdefault(self.hashes[member], (name, member))
                if other != name:
                    leaks.append((other, twin, name, member))
        if leaks:
            pairs = ", ".join(f"{twin} ({other}) = {member} ({name})" for other, twin, name, member in leaks[:SHOWN])
            more = f" and {len(leaks) - SHOWN} more" if len(leaks) > SHOWN else ""
            raise DataError(
                f"{len(leaks)} initial conditions stand in two splits, so that a score would not be of unseen data; "
                f"trajectories {pairs}{more}; expected splits without common initial conditions"
            )

    def __getitem__(self, name: str) -> tuple[int, ...]:
        if name not in self.ids:
            raise DataError(f"there is no split '{name}' (splits: {', '.join(self.ids)})")
        return self.ids[name]

    @property
    def digest(self) -> str:
        """One hash of which initial conditions serve what."""
        content = {name: [self.hashes[member] for member in members] for name, members in sorted(self.ids.items())}
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Ids and hashes of each split, as JSON can hold them."""
        return {
            "digest": self.digest,
            "splits": {
                name: {"ids": list(members), "hashes": [self.hashes[member] for member in members]}
                for name, members in self.ids.items()
            },
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Splits:
        """What `to_dict` gave."""
        splits = values["splits"]
        ids = {name: tuple(split["ids"]) for name, split in splits.items()}
        return cls(ids, {i: h for split in splits.values() for i, h in zip(split["ids"], split["hashes"], strict=True)})


def content_hash(values: NDArray[Any]) -> str:
    """The hash of an initial condition: of its shape and its float32 values."""
    content = np.ascontiguousarray(values, dtype="<f4")
    return hashlib.sha256(str(content.shape).encode() + content.tobytes()).hexdigest()


def drawn(
    counts: Mapping[str, int | None], candidates: Sequence[int], hashes: Mapping[int, str], seed: int, source: str
) -> dict[str, tuple[int, ...]]:
    """Draw so many of the candidates for each split; None, for one split, takes what is left.

    Trajectories with one initial condition, as in PDEBench's files of several viscosities, go into the same split. The
    splits are served in the order they are given in: more for the last one does not change the others. Raises
    DataError, which names the `source`, where there are too few.
    """
    groups: dict[str, list[int]] = {}
    for candidate in candidates:
        groups.setdefault(hashes[candidate], []).append(candidate)
    order = list(groups.values())
    remaining = [order[index] for index in np.random.default_rng([seed, 0]).permutation(len(order))]
    chosen: dict[str, tuple[int, ...]] = {}
    for name, count in sorted(counts.items(), key=lambda item: item[1] is None):
        members: list[int] = []
        kept = []
        for group in remaining:
            if count is None or len(members) + len(group) <= count:
                members += group
            else:
                kept.append(group)
        if len(members) < (1 if count is None else count):
            raise DataError(_too_few(counts, len(candidates), len(order), source), key=largest(counts))
        chosen[name], remaining = tuple(sorted(members)), kept
    return {name: chosen[name] for name in counts}


def shortage(counts: Mapping[str, int | None], available: int, source: str) -> str | None:
    """Why so many trajectories are not enough for such splits, or None where they are; `source` is named in it."""
    needed = sum(1 if count is None else count for count in counts.values())
    return _too_few(counts, available, available, source) if needed > available else None


def largest(counts: Mapping[str, int | None]) -> str:
    """The split that asks for most: what is to be lowered first."""
    return max(counts, key=lambda name: counts[name] or 0)


def _too_few(counts: Mapping[str, int | None], candidates: int, groups: int, source: str) -> str:
    wanted = " + ".join(f"{count if count is not None else 'the rest'} {name}" for name, count in counts.items())
    needed = sum(count if count is not None else 1 for count in counts.values())
    have = f"{candidates}" + (f" of {groups} initial conditions" if groups < candidates else "")
    reason = (
        "trajectories with one initial condition stay together; choose counts that their number divides"
        if groups < candidates and candidates >= needed
        else f"expected at least {needed}; {_nearest(counts, candidates - needed)}, or add data"
    )
    return f"{source}: the splits take {wanted} trajectories, and there are {have}: {reason}"


def _nearest(counts: Mapping[str, int | None], spare: int) -> str:
    """The split to lower, and how far, where that is enough."""
    name = largest(counts)
    room = (counts[name] or 0) + spare
    return f"nearest: {name} = {room}" if room > 0 else "lower the counts"


def evenly(ids: Sequence[int], limit: int | None) -> tuple[int, ...]:
    """At most `limit` of the ids, evenly spread from the first to the last, in their order; all where it is None."""
    if limit is None or limit >= len(ids):
        return tuple(ids)
    places = np.unique(np.linspace(0, len(ids) - 1, limit).round().astype(np.int64))
    return tuple(ids[place] for place in places)
