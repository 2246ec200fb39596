"""Files of particles as they are stored, one trajectory after the other: what a conversion reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ups_kit.data.particle_store import NEIGHBOURS, ParticleSample
from ups_kit.data.zarr_store import ZarrStore

from .lagrangebench import open_lagrangebench
from .particle_zarr import Reading, opened_store
from .stored import Opened


@frozen(eq=False)
class BenchmarkFile:
    """Trajectories in LagrangeBench's layout; the first frame is at time 0."""

    opened: Opened

    @classmethod
    def of(cls, path: Path, dt: float | None) -> BenchmarkFile:
        return cls(open_lagrangebench(path, dt))

    @property
    def trajectories(self) -> int:
        return len(self.opened.trajectories)

    @property
    def about(self) -> Mapping[str, Any]:
        names = self.opened.type_names
        return {
            "domain": self.opened.box.domain,
            "periodic": self.opened.box.periodic,
            "type_names": names[: self.opened.types] if self.opened.types <= len(names) else (),
            "kinematic": self.opened.kinematic,
        }

    def sample(self, number: int) -> ParticleSample:
        stored = self.opened.trajectories[number]
        frames = np.arange(stored.length)
        return ParticleSample(
            positions=stored.positions.frames(frames),
            time=frames * self.opened.dt,
            types=stored.types,
            split=stored.split,
        )


@frozen(eq=False)
class StoreFile:
    """Samples of a `particle_zarr` store with all that is in them, ids and neighbours included."""

    reading: Reading
    store: ZarrStore

    @classmethod
    def of(cls, path: Path) -> StoreFile:
        store = opened_store(path)
        reading = Reading.of(store, path)
        reading.opened((), None)  # which checks the headers of all samples
        return cls(reading, store)

    @property
    def trajectories(self) -> int:
        return len(self.reading.samples)

    @property
    def about(self) -> Mapping[str, Any]:
        attributes, box = self.reading.attributes, self.reading.box
        names = ("type_names", "kinematic", "units", "simulated_by")
        return {
            "domain": box.domain,
            "periodic": box.periodic,
            **{name: attributes[name] for name in names if name in attributes},
        }

    def sample(self, number: int) -> ParticleSample:
        name, arrays = self.reading.samples[number], self.reading.arrays
        attributes = self.store.document(name).get("attributes", {})

        def read(inner: str) -> NDArray[Any] | None:
            return self._there(name, inner) if inner in arrays else None

        def group(kind: str) -> dict[str, NDArray[Any]]:
            inner = [path for path in arrays if path.startswith(f"{kind}/")]
            return {path.partition("/")[2]: self._there(name, path) for path in inner}

        indptr, indices = (read(inner) for inner in NEIGHBOURS)
        radius = float(self._attributes(f"{name}/neighbours").get("radius", 0.0)) if indptr is not None else 0.0
        return ParticleSample(
            positions=self._there(name, "positions"),
            time=self._there(name, "time"),
            types=read("types"),
            ids=read("ids"),
            velocities=read("velocities"),
            fields=group("fields"),
            statics=group("statics"),
            parameters=attributes.get("parameters", {}),
            split=attributes.get("split"),
            neighbours=None if indptr is None or indices is None else (indptr, indices, radius),
        )

    def _there(self, sample: str, name: str) -> NDArray[Any]:
        array = self.store.array(f"{sample}/{name}")
        return array.box([(0, size) for size in array.metadata.shape])

    def _attributes(self, path: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.store.document(path).get("attributes", {})
        return found
