"""Where data come from: datasets, what some of them can do besides, simulators, and files on regular grids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..data.normalisation import Normaliser
    from ..data.particle_store import ParticleSample
    from ..data.splits import Splits
    from ..model import LatentModel
    from .configs import Described
    from .descriptions import Field, FieldSpec, Layout
    from .values import Batch, Trajectories


class Dataset(Protocol):
    """Trajectories, split and normalised. Reading is by batch, and any number of readers may read at once."""

    @property
    def fields(self) -> FieldSpec: ...

    @property
    def normaliser(self) -> Normaliser: ...

    @property
    def splits(self) -> Splits: ...

    def windows(self, split: str, steps: int) -> int:
        """How many windows of `history` given and `steps` future frames a split holds."""
        ...

    def batch(self, split: str, windows: np.ndarray, steps: int) -> Batch:
        """The windows with these numbers, normalised, in CPU memory."""
        ...

    def trajectories(self, split: str, limit: int | None = None) -> Trajectories:
        """All trajectories of a split in physical units, at the model's time stride.

        With `limit` only so many of them, spread evenly over the split (`data.splits.evenly`).
        """
        ...


@runtime_checkable
class DescribedDataset(Protocol):
    """The data of a family of its own: what a `ModelConfig` sizes its model from, and how they are split.

    Everything else is between the data set and the stages of its family. `Identified` is asked of it too.
    """

    @property
    def description(self) -> Described:
        """What the config's `describe` gives, with whatever is only known when the data are open."""
        ...

    @property
    def splits(self) -> Splits: ...


AnyDataset = Dataset | DescribedDataset


@runtime_checkable
class ReadsPoints(Protocol):
    """A dataset that can read train windows at some points of each sample only: see `FieldSpec.sampled`."""

    def batch_at_points(self, split: str, windows: np.ndarray, steps: int, seed: int) -> Batch:
        """As `batch`, at points drawn by seed: `fields.sampled_inputs` of the inputs, `fields.sampled` of the states.

        Inputs are whole where the first is None; states are at the inputs' points where the second is None. The grid of
        what is not whole is None.
        """
        ...


class Offer(NamedTuple):
    """The points that a dataset would give its states on, known before any of them is read."""

    points: int  # of each trajectory
    grid: tuple[int, ...] | None  # where they are a regular grid, its shape
    offset: float = 0.5  # of a grid: where the first point lies in its cell, as `FieldSpec.offset`


class Relaid(NamedTuple):
    """The same states on other points: trajectories, and the triangles between the points where there are any."""

    trajectories: Trajectories
    grid: tuple[int, ...] | None  # where the points are a regular grid, its shape, row-major
    cells: tuple[np.ndarray, ...] | None  # of each trajectory its triangles (M, 3), or None
    error: float  # nRMSE of the way in which states between stored points were found, 0 where none was needed


@runtime_checkable
class Relays(Protocol):
    """A dataset that can give its trajectories on other points than they are stored on: for evaluation elsewhere."""

    def offer(self, split: str, layout: Layout, points: int, limit: int | None = None) -> Offer:
        """What `relay` would give, from what is known without reading states. Raises DataError as that does."""
        ...

    def relay(self, split: str, layout: Layout, points: int, limit: int | None = None) -> Relaid:
        """Trajectories of a split, as `trajectories` gives them, on a grid, mesh or cloud of about so many points.

        The points follow from the trajectory and their number alone. Raises DataError where there is no such layout of
        these data (key `on`), or not of so many points (key `points`), with the nearest number that there is.
        """
        ...


@runtime_checkable
class Meshed(Protocol):
    """A dataset whose points are the nodes of meshes: for pictures."""

    def cells(self, trajectory: int) -> np.ndarray | None:
        """The triangles between the points of a trajectory (M, 3), or None where it has none (lines, volumes)."""
        ...


@runtime_checkable
class Multitask(Protocol):
    """A dataset of several tasks, whose fields are the union of theirs. Every batch is of one task.

    A task's dataset has its own fields, grid and normalisation; its conditions are normalised as the whole's are.
    """

    @property
    def tasks(self) -> Mapping[str, Dataset]: ...

    def seen_by(self, task: str, model: LatentModel) -> LatentModel:
        """The model as one of this task alone: it takes the task's channels and conditions, and gives its channels."""
        ...


@runtime_checkable
class ListsParameters(Protocol):
    """A dataset that knows the conditions of its trajectories without reading those."""

    def parameters(self, split: str) -> np.ndarray:
        """(S, P), physical, float64, columns as FieldSpec.conditions, in the order of the split's ids."""
        ...


@runtime_checkable
class Identified(Protocol):
    """A dataset that can say which files it reads: what is kept of its content is made anew when they change."""

    @property
    def fingerprint(self) -> str:
        """A hash of the files' sizes and dates, or of their content."""
        ...


@runtime_checkable
class DrawsWindows(Protocol):
    """A dataset that chooses the windows of a step itself; others get `data.stream.window_numbers`."""

    def draw(self, split: str, steps: int, batch: int, seed: int, step: int) -> np.ndarray:
        """Numbers of windows (batch,), a pure function of its arguments."""
        ...


class Simulator(Protocol):
    """Solves an equation for many trajectories, part by part, and knows the public layout that they are stored in.

    A part is a pure function of the config and of which trajectories it holds, so that a making that was stopped goes
    on with the parts that are there. Files, atomicity and progress are the caller's (`data.making`).
    """

    @property
    def trajectories(self) -> int: ...

    @property
    def part(self) -> int:
        """How many trajectories are solved together, and kept as one part."""
        ...

    @property
    def bytes(self) -> int:
        """The size of the finished file, roughly: there is a look at the free space before it is written."""
        ...

    def solve(self, start: int, stop: int, report: Callable[[float], None]) -> Mapping[str, np.ndarray]:
        """Trajectories start … stop - 1 as named arrays, their first axis counting trajectories; `report(share)`."""
        ...

    def write(self, path: Path, parts: Iterable[Mapping[str, np.ndarray]]) -> None:
        """Write the file at `path` from all parts in their order."""
        ...


@runtime_checkable
class FitsFirst(Protocol):
    """A simulator that fits something before it solves, once for however many trajectories: for `upskit plan`."""

    def fit(self) -> None:
        """Do it now; the process keeps it."""
        ...


@runtime_checkable
class AuditsPhysics(Protocol):
    """A simulator that can tell how well trajectories keep to its equation: for `upskit data check`."""

    @property
    def tolerances(self) -> Mapping[str, float]:
        """By name of a number of `audit`, what it stays below in sound data."""
        ...

    def audit(
        self, values: np.ndarray, times: np.ndarray, parameters: Mapping[str, np.ndarray]
    ) -> Mapping[str, np.ndarray]:
        """Numbers of every trajectory, (S,) each, such as "residual" and "mass drift", relative and without unit.

        `values` is (S, frames, *grid, channels) in physical units, targets first and then statics; `parameters` holds
        a number of every trajectory, (S,), by name.
        """
        ...


class GridHeader(Protocol):
    """What a file of trajectories on a regular grid holds beside its values."""

    @property
    def trajectories(self) -> int: ...

    @property
    def times(self) -> NDArray[np.float64]:
        """(frames,), one entry where the data are steady."""
        ...

    @property
    def axes(self) -> tuple[NDArray[np.float64], ...]:
        """Coordinates along each axis, in the order of the fields' axes."""
        ...

    @property
    def targets(self) -> tuple[Field, ...]: ...

    @property
    def statics(self) -> tuple[Field, ...]: ...

    @property
    def parameters(self) -> Mapping[str, NDArray[np.float64]]:
        """(trajectories,) each."""
        ...

    @property
    def attributes(self) -> Mapping[str, NDArray[np.float64]]:
        """(trajectories,) each: numbers that are parameters where a recipe names them."""
        ...

    @property
    def steady(self) -> bool: ...

    @property
    def periodic(self) -> tuple[bool, ...] | None: ...


class GridFile(Protocol):
    """One file of trajectories on a regular grid, as it is stored: no stride, no normalisation, float32."""

    @property
    def header(self) -> GridHeader: ...

    def rows(self, name: str, samples: slice, frames: slice) -> NDArray[np.float32]:
        """A target field of slices of trajectories and frames, (S, F, *grid, channels)."""
        ...

    def static(self, name: str, samples: slice) -> NDArray[np.float32]:
        """A static field, (S, *grid, channels)."""
        ...


class ParticleFile(Protocol):
    """Trajectories of particles as they are stored: every frame, no normalisation, positions as they are written."""

    @property
    def trajectories(self) -> int: ...

    @property
    def about(self) -> Mapping[str, Any]:
        """What they have in common: the keys of `data.particle_store.write_particles` but for samples and path."""
        ...

    def sample(self, number: int) -> ParticleSample:
        """One trajectory whole. Raises DataError."""
        ...
