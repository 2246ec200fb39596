"""Zarr stores in the `particle_zarr` layout, their metadata read and checked.

The layout is written down in `ups_kit.data.particle_store`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ups_kit import DataError, Field
from ups_kit.addresses import url_of
from ups_kit.data.particle_store import LAYOUT, NEIGHBOURS, VERSION, node_paths
from ups_kit.data.sample_stores import sample_name
from ups_kit.data.stamps import Stamp
from ups_kit.data.zarr_metadata import AGAIN, checksum
from ups_kit.data.zarr_store import ZarrArray, ZarrStore, check_layout
from ups_kit.errors import did_you_mean

from .box import Box
from .lagrangebench import checked_types, listed, number
from .neighbours import problem_of_ids, problem_of_neighbours
from .stored import Opened, Stored, ZarrFrames

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
SAMPLE = re.compile(r"sample_\d{5,}")
MOST_PROBLEMS = 100  # of samples, after which no more of them are looked at
EVEN = 1e-3  # of a time step, by which steps may differ
SPLITS = ("train", "validation", "test")


def open_particles(path: Path, fields: Sequence[str], statics: Sequence[str] | None) -> Opened:
    """One store, with these further fields and static fields (None: all). Raises DataError."""
    return Reading.of(opened_store(path), path).opened(fields, statics)


def opened_store(path: Path) -> ZarrStore:
    """The store in a folder or behind an address. Raises DataError."""
    address = url_of(path)
    return ZarrStore.open(address if address is not None else path)


@frozen
class Reading:
    """A store, its attributes checked, and the names of its samples and of their arrays."""

    store: ZarrStore
    path: Path
    attributes: Mapping[str, Any]
    samples: tuple[str, ...]
    arrays: tuple[str, ...]

    @classmethod
    def of(cls, store: ZarrStore, path: Path) -> Reading:
        attributes, where = store.attributes, f"{store.label}/zarr.json"
        check_layout(attributes, LAYOUT, VERSION, where)
        problems = list(_attribute_problems(attributes, where))
        if problems:
            raise DataError(listed(store.label, problems))
        said = attributes.get("samples")
        if said is None:
            samples = sorted(
                (name for name in store.children() if SAMPLE.fullmatch(name)), key=lambda name: int(name[7:])
            )
        else:
            samples = [sample_name(own) for own in range(said)]
        if not samples:
            there = ", ".join(store.children()[:8]) or "nothing"
            raise DataError(f"{store.label}: expected groups 'sample_00000', 'sample_00001', …, got {there}")
        arrays = attributes.get("arrays")
        names = tuple(_arrays_in(store, samples[0])) if arrays is None else tuple(arrays)
        reading = cls(store, path, attributes, tuple(samples), names)
        reading._check_sum(where)
        return reading

    @property
    def box(self) -> Box:
        domain = tuple((float(low), float(high)) for low, high in self.attributes["domain"])
        return Box(domain, tuple(self.attributes.get("periodic", [False] * len(domain))))

    def _check_sum(self, where: str) -> None:
        said = self.attributes.get("checksum")
        if said is None:
            return
        paths = node_paths(self.samples, self.arrays)
        found = checksum({path: self.store.document(path) for path in paths})
        if found != said:
            raise DataError(
                f"{where}: checksum: expected {said[:23]}… of the store's metadata, got {found[:23]}…: a zarr.json was "
                f"damaged or changed since the store was written; {AGAIN}; if you changed it yourself, remove the "
                "attribute 'checksum'"
            )

    def opened(self, fields: Sequence[str], statics: Sequence[str] | None) -> Opened:
        found: list[Stored] = []
        problems: list[str] = []
        steps: list[float] = []
        extra = tuple(self._named("fields", fields))
        given = tuple(self._named("statics", statics))
        box = self.box
        for name in self.samples:
            try:
                sample = _Sample(self.store, name, self.arrays, box.dims)
                found.append(sample.stored(extra, given))
                steps.append(sample.step())
                problems += self._other_channels(sample, (*extra, *given))
            except DataError as error:
                problems.append(str(error))
            if len(problems) > MOST_PROBLEMS:
                break
        if problems:
            raise DataError(listed(self.store.label, problems))
        self._check_steps(steps)
        units = self.attributes.get("units", {})
        channels = _Sample(self.store, self.samples[0], self.arrays, box.dims).channels
        return Opened(
            where=self.store.label,
            box=box,
            dt=float(np.mean(steps)),
            trajectories=tuple(found),
            fields=tuple(Field(_short(name), channels(name), units.get(_short(name), "1")) for name in extra),
            statics=tuple(Field(_short(name), channels(name), units.get(_short(name), "1")) for name in given),
            type_names=tuple(self.attributes.get("type_names", ())),
            kinematic=tuple(self.attributes.get("kinematic", ())),
            unit=units.get("positions", "1"),
            time_unit=units.get("time", "1"),
            fingerprint=self._fingerprint(),
        )

    def _other_channels(self, sample: _Sample, names: Sequence[str]) -> Iterator[str]:
        """Fields in which a sample has other channels than the first one."""
        first = _Sample(self.store, self.samples[0], self.arrays, sample.dims)
        for name in names:
            if sample.channels(name) != first.channels(name):
                where = self.store.array(f"{sample.name}/{name}").metadata.where
                wanted = f"{first.channels(name)} channels, as {first.name} has"
                yield f"{where}: shape: expected {wanted}, got {sample.channels(name)}"

    def _named(self, group: str, wanted: Sequence[str] | None) -> Iterator[str]:
        """Names in a sample of the fields or statics that the recipe asks for; all of them for None."""
        known = {_short(name): name for name in self.arrays if name.startswith(f"{group}/")}
        if group == "fields" and "velocities" in self.arrays:
            known["velocities"] = "velocities"
        for name in known if wanted is None else wanted:
            if name not in known:
                there = ", ".join(known) or "none"
                raise DataError(
                    f"{self.store.label}: no {group.removesuffix('s')} of its samples is called '{name}'"
                    f"{did_you_mean(name, known)} ({group}: {there})",
                    group,
                )
            if wanted is not None and list(wanted).count(name) > 1:
                raise DataError(f"{self.store.label}: dataset.{group}: '{name}' is there twice", group)
            yield known[name]

    def _check_steps(self, steps: Sequence[float]) -> None:
        usual = float(np.median(steps))
        differing = [place for place, step in enumerate(steps) if abs(step - usual) > EVEN * usual]
        if differing:
            shown = ", ".join(f"{self.samples[place]} ({steps[place]:g})" for place in differing[:8])
            raise DataError(
                f"{self.store.label}: expected the same time step in all samples, {usual:g} as most have, got {shown}; "
                "put samples of other time steps into stores of their own"
            )

    def _fingerprint(self) -> str:
        stamp = Stamp.of_local(self.path)
        text = f"{self.store.label}" if stamp is None else f"{stamp.path.name} {stamp.size} {stamp.changed}"
        return hashlib.sha256(f"{text} {self.attributes.get('checksum', '')}".encode()).hexdigest()


def _arrays_in(store: ZarrStore, sample: str) -> Iterator[str]:
    for name in store.children(sample):
        path = f"{sample}/{name}"
        if store.kind(path) == "array":
            yield name
        else:
            yield from (f"{name}/{inner}" for inner in store.children(path))


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _attribute_problems(attributes: Mapping[str, Any], where: str) -> Iterator[str]:
    """The attributes that are used have the types that they should have."""
    domain = attributes.get("domain")
    axes = len(domain) if isinstance(domain, list) and 1 <= len(domain) <= 3 else None

    def ends(value: Any) -> bool:
        return isinstance(value, list) and len(value) == 2 and all(map(number, value)) and value[0] < value[1]

    def listed_as(kind: type) -> Callable[[Any], bool]:
        return lambda value: isinstance(value, list) and all(type(entry) is kind for entry in value)

    def flags(value: Any) -> bool:
        return listed_as(bool)(value) and axes in (None, len(value))

    expected: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
        "domain": ("[low, high] for each of 1 to 3 axes", lambda v: axes is not None and all(map(ends, v))),
        "periodic": ("true or false for each axis of 'domain'", flags),
        "samples": ("how many samples there are", lambda value: type(value) is int and 0 < value < 10**7),
        "arrays": ("the names of a sample's arrays", listed_as(str)),
        "type_names": ("a list of names", listed_as(str)),
        "kinematic": ("a list of types, whole numbers", listed_as(int)),
        "units": ("a table of names", lambda v: isinstance(v, dict) and all(isinstance(u, str) for u in v.values())),
        "checksum": ("a text", lambda value: isinstance(value, str)),
    }
    for key, (what, fits) in expected.items():
        if key not in attributes:
            if key == "domain":
                yield f"{where}: attribute 'domain' is missing; expected {what}"
        elif not fits(attributes[key]):
            yield f"{where}: {key}: expected {what}, got {str(attributes[key])[:80]}"


# ---------------------------------------------------------------------------------------------------------------------
# One sample
# ---------------------------------------------------------------------------------------------------------------------
@frozen
class _Sample:
    store: ZarrStore
    name: str
    arrays: tuple[str, ...]
    dims: int

    @property
    def where(self) -> str:
        return f"{self.store.label}, {self.name}"

    def stored(self, fields: Sequence[str], statics: Sequence[str]) -> Stored:
        positions = self._float("positions")
        shape = positions.metadata.shape
        if len(shape) != 3 or shape[2] != self.dims or 0 in shape:
            raise DataError(
                f"{positions.metadata.where}: shape: expected [frames, particles, {self.dims}], as the attribute "
                f"'domain' has axes, got {list(shape)}"
            )
        frames, count, _ = shape
        parts = [self._fitting(name, (frames, count)) for name in fields]
        given = [self._fitting(name, (count,)) for name in statics]
        parameters, split = self._attributes()
        return Stored(
            where=self.where,
            length=frames,
            count=count,
            positions=ZarrFrames(positions),
            fields=tuple(ZarrFrames(part) for part in parts),
            statics=partial(_together, given) if given else None,
            types=self._types(count),
            start=float(self._time(frames)[0]),
            check=partial(self._check, frames, count),
            parameters=parameters,
            split=split,
        )

    def channels(self, name: str) -> int:
        return self.store.array(f"{self.name}/{name}").metadata.shape[-1]

    def step(self) -> float:
        """The time between two frames. Raises DataError where there is none."""
        shape = self._float("positions").metadata.shape
        time = self._time(shape[0])
        where = f"{self.store.label}/{self.name}/time"
        if len(time) < 2:
            raise DataError(f"{where}: expected two frames at least, so that there is a time step, got {len(time)}")
        steps = np.diff(time)
        step = float(time[-1] - time[0]) / (len(time) - 1)
        if not step > 0 or float(np.abs(steps - step).max()) > EVEN * step:
            worst = int(np.abs(steps - step).argmax())
            raise DataError(
                f"{where}: expected evenly spaced times that rise, got steps from {steps.min():g} to {steps.max():g}, "
                f"the oddest between frames {worst} and {worst + 1}"
            )
        return step

    def _time(self, frames: int) -> NDArray[np.float64]:
        array = self._float("time")
        if array.metadata.shape != (frames,):
            raise DataError(
                f"{array.metadata.where}: shape: expected [{frames}], a time for each frame of 'positions', got "
                f"{list(array.metadata.shape)}"
            )
        values = np.asarray(array.values(), np.float64)
        if not np.isfinite(values).all():
            first = int(np.argmin(np.isfinite(values)))
            raise DataError(f"{array.metadata.where}: expected finite times, got {values[first]} at frame {first}")
        return values

    def _float(self, name: str) -> ZarrArray:
        array = self.store.array(f"{self.name}/{name}")
        if array.metadata.dtype not in FLOATS:
            raise DataError(
                f"{array.metadata.where}: data_type: expected float32 or float64, got {array.metadata.dtype}"
            )
        return array

    def _fitting(self, name: str, lead: tuple[int, ...]) -> ZarrArray:
        array = self._float(name)
        shape = array.metadata.shape
        if shape[:-1] != lead or len(shape) != len(lead) + 1 or shape[-1] == 0:
            axes = "frames, particles" if len(lead) == 2 else "particles"
            raise DataError(
                f"{array.metadata.where}: shape: expected [{axes}, channels] with {list(lead)} as in 'positions', got "
                f"{list(shape)}: the number of particles may not change within a trajectory"
            )
        return array

    def _types(self, count: int) -> NDArray[np.uint8]:
        if "types" not in self.arrays:
            return np.zeros(count, np.uint8)
        return checked_types(self._whole("types", count), f"{self.store.label}/{self.name}/types")

    def _whole(self, name: str, count: int | None) -> NDArray[np.int64]:
        """A small array of whole numbers, one for each particle."""
        array = self.store.array(f"{self.name}/{name}")
        where, shape, kind = array.metadata.where, array.metadata.shape, array.metadata.dtype
        if len(shape) != 1 or count not in (None, shape[0]):
            wanted = "one axis" if count is None else f"[{count}], one for each particle of 'positions'"
            raise DataError(
                f"{where}: shape: expected {wanted}, got {list(shape)}: the number of particles may not change within "
                "a trajectory"
            )
        if kind.kind not in "iu":
            raise DataError(f"{where}: data_type: expected whole numbers, got {kind}")
        return np.asarray(array.values(), np.int64)

    def _attributes(self) -> tuple[dict[str, float], str | None]:
        document = self.store.document(self.name)
        said = document.get("attributes", {})
        where = f"{self.store.label}/{self.name}/zarr.json"
        parameters, split = said.get("parameters", {}), said.get("split")
        if not isinstance(parameters, dict) or not all(number(value) for value in parameters.values()):
            raise DataError(f"{where}: parameters: expected a table of finite numbers, got {str(parameters)[:80]}")
        if split is not None and split not in SPLITS:
            got = f"{str(split)[:40]!r}{did_you_mean(str(split), SPLITS)}"
            raise DataError(f"{where}: split: expected {', '.join(SPLITS)}, got {got}")
        return {name: float(value) for name, value in parameters.items()}, split

    def _check(self, frames: int, count: int) -> str | None:
        """What is wrong with ids and neighbours, or None. Raises DataError where they cannot be read."""
        problem = None
        if "ids" in self.arrays:
            problem = problem_of_ids(self._whole("ids", count), f"{self.store.label}/{self.name}/ids")
        if problem is None and all(name in self.arrays for name in NEIGHBOURS):
            indptr, indices = (self._whole(name, None) for name in NEIGHBOURS)
            problem = problem_of_neighbours(
                indptr, indices, frames, count, f"{self.store.label}/{self.name}/neighbours"
            )
        return problem


def _together(arrays: Sequence[ZarrArray]) -> NDArray[np.float32]:
    """Static fields (N, channels) side by side."""
    one = np.zeros(1, np.int64)
    return np.concatenate([array.led_by(2).gather(one, one[None])[0, 0] for array in arrays], 1)
