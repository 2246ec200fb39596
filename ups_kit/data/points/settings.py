"""The recipe keys that all data sets on points share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen
from attrs.validators import ge, gt, optional

from ...interfaces import Dataset, FieldSpec, LatentSpec, SimulatorConfig
from ..thinning import number_or_range

if TYPE_CHECKING:
    from ..excerpts import Excerpt
    from .source import PointSource

Normalisation = Literal["standard", "range", "robust", "none"]


@frozen(kw_only=True)
class PointSettings(ABC):
    """What every dataset on points that are no grid can be told.

    A format adds its own keys, and `open_source`.
    """

    path: Path | tuple[Path, ...] = field(
        metadata={"help": "a file or store, several, or a pattern with * and ?", "example": '"data/flow.zarr"'}
    )
    test_path: Path | tuple[Path, ...] | None = field(
        default=None, metadata={"help": "files that the test trajectories are taken from, instead of from `path`"}
    )
    validation_path: Path | tuple[Path, ...] | None = field(
        default=None, metadata={"help": "files that the validation trajectories are taken from, instead of from `path`"}
    )
    conditions: tuple[str, ...] | None = field(
        default=None,
        metadata={"help": "parameters that the model is told; where not given, all that have a number per trajectory"},
    )
    train: int | None = field(
        default=None, validator=optional(gt(0)), metadata={"help": "train trajectories; the rest where not given"}
    )
    validation: int = field(default=50, validator=gt(0), metadata={"help": "validation trajectories"})
    test: int = field(default=100, validator=gt(0), metadata={"help": "test trajectories"})
    first_frame: int = field(
        default=0, validator=ge(0), metadata={"help": "leave out the frames before this one, as those of pure noise"}
    )
    time_stride: int = field(default=1, validator=gt(0), metadata={"help": "take every n-th frame"})
    history: int = field(
        default=1,
        validator=ge(0),
        metadata={"help": "frames that the model is given; steady data have none, whatever stands here"},
    )
    normalisation: Normalisation | Mapping[str, Normalisation] = field(
        default="standard",
        metadata={
            "help": "of train values: standard (mean and deviation), range (to -1 … 1), robust (mean and deviation of "
            "the central 50 %), none; or one of these for each field, standard for those that are not named",
            "example": '{ density = "range" }',
        },
    )
    input_points: int | tuple[int, int] | None = field(
        default=None,
        validator=number_or_range,
        metadata={
            "help": "random points of each sample that training is given, other ones in every step, and at which it is "
            "compared; a number, or the least and the most of them; all points where not given",
            "unit": "points",
            "example": "[500, 2000]",
        },
    )
    points: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={
            "help": "random points at which train frames are compared, others than those that are given; where not "
            "given, the same ones",
            "unit": "points",
        },
    )
    drop_bad_samples: bool = field(
        default=False, metadata={"help": "leave out trajectories with NaN or infinities instead of stopping"}
    )
    simulate: SimulatorConfig | None = field(
        default=None, metadata={"help": "what makes the store at `path` where there is none"}
    )

    @abstractmethod
    def open_source(self, path: Path) -> PointSource:
        """The trajectories of one file, its headers read and checked. Raises DataError. Every format has its own."""

    def planned(self, made: FieldSpec) -> FieldSpec:
        """What will be read of a store that a simulator has still to make, from what the store will hold.

        A format that computes further statics, or leaves fields out, says so here. Strides and the like are not its
        concern.
        """
        return made

    def excerpt(self, path: Path, sample: int, frame: int | None) -> Excerpt:
        """A few frames of one trajectory of any file of this layout. Raises DataError."""
        from .excerpt import read_excerpt

        return read_excerpt(self, path, sample, frame)

    def describe(self) -> FieldSpec:
        """What the data are: from the files' headers, or from the simulator where they are still to be made."""
        from .describing import describe

        return describe(self)

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """The splits take no more trajectories than there are, or will be, and names are those of fields."""
        from .describing import problems

        yield from problems(self, fields)

    def build(self, seed: int) -> Dataset:
        """Make the store if need be, check and split the trajectories, fit the normalisation."""
        from .reading import read_dataset

        return read_dataset(self, seed)
