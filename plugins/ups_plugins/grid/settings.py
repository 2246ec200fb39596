"""The recipe keys that all formats of trajectories on regular grids share."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import Attribute, field, frozen
from attrs.validators import ge, gt, optional

from ups_kit import FieldSpec, LatentSpec
from ups_kit.data.thinning import number_or_range
from ups_kit.interfaces import Dataset, SimulatorConfig

from .source import Source

if TYPE_CHECKING:
    from ups_kit.data.excerpts import Excerpt

    from .arrays import FieldsOf

Normalisation = Literal["standard", "range", "robust", "none"]
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def _pattern(instance: object, attribute: Attribute[Any], value: str | None) -> None:
    """A pattern of file names holds parameters in braces, each once, and never two without something between them."""
    if value is None:
        return
    names = PLACEHOLDER.findall(value)
    rest = PLACEHOLDER.sub("", value)
    wrong = [name for name in names if not name.isidentifier()]
    if not names or wrong or "{" in rest or "}" in rest or "}{" in value or len(set(names)) < len(names):
        raise ValueError(
            f'{attribute.name} = "{value}": expected a file name with parameters in braces, each once and none beside '
            'another, for example "1D_Burgers_Sols_Nu{Nu}.hdf5"; * stands for anything'
        )


@frozen(kw_only=True)
class TrajectorySettings(ABC):
    """What every dataset of trajectories on a regular grid can be told.

    A format adds its own keys, and `open_source`.
    """

    path: Path | tuple[Path, ...] = field(
        metadata={
            "help": "a file, several, or a pattern with * and ?",
            "example": '"data/burgers.h5"',
        }
    )
    test_path: Path | tuple[Path, ...] | None = field(
        default=None, metadata={"help": "files that the test trajectories are taken from, instead of from `path`"}
    )
    validation_path: Path | tuple[Path, ...] | None = field(
        default=None, metadata={"help": "files that the validation trajectories are taken from, instead of from `path`"}
    )
    parameters: Mapping[str, float | tuple[float, ...]] = field(
        factory=dict,
        metadata={
            "help": "parameters by name: a number for all files, or one for each file, in the order of `path`",
            "example": "{ epsilon = 0.001 }",
        },
    )
    test_parameters: Mapping[str, float | tuple[float, ...]] | None = field(
        default=None, metadata={"help": "the same for the files of `test_path`; as `parameters` where not given"}
    )
    parameters_from_name: str | None = field(
        default=None,
        validator=_pattern,
        metadata={
            "help": "where parameters stand in the names of the files; * stands for anything",
            "example": '"1D_Burgers_Sols_Nu{Nu}.hdf5"',
        },
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
    space_stride: int = field(default=1, validator=gt(0), metadata={"help": "take every n-th point along each axis"})
    history: int = field(
        default=1,
        validator=ge(0),
        metadata={"help": "frames that the model is given; steady data have none, whatever stands here"},
    )
    periodic: bool | tuple[bool, ...] | None = field(
        default=None,
        metadata={
            "help": "whether the axes are periodic: all of them, or each; where not given, as the layout usually is",
            "example": "[true, false]",
        },
    )
    normalisation: Normalisation | Mapping[str, Normalisation] = field(
        default="standard",
        metadata={
            "help": "of train values: standard (mean and deviation), range (to -1 … 1), robust (mean and deviation of "
            "the central 50 %), none; or one of these for each field, standard for those that are not named",
            "example": '{ density = "range" }',
        },
    )
    points: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={
            "help": "random points at which train frames after the given ones are read; all of them where not given",
            "unit": "points",
        },
    )
    input_points: int | tuple[int, int] | None = field(
        default=None,
        validator=number_or_range,
        metadata={
            "help": "random points at which training is given each sample, as many or from so many to so many, for "
            "encoders that take any points; frames are compared at the same, or at `points`; all where not given",
            "unit": "points",
            "example": "[1024, 4096]",
        },
    )
    drop_bad_samples: bool = field(
        default=False, metadata={"help": "leave out trajectories with NaN or infinities instead of stopping"}
    )
    simulate: SimulatorConfig | None = field(
        default=None, metadata={"help": "what makes the file at `path` where there is none"}
    )

    @abstractmethod
    def open_source(self, path: Path) -> Source:
        """The trajectories of one file, its headers read and checked. Raises DataError. Every format has its own."""

    def open_grid(self, path: Path) -> FieldsOf:
        """One file as it is stored, field by field, without the strides of the recipe. Raises DataError."""
        from .arrays import FieldsOf

        return FieldsOf(self.open_source(path))

    def excerpt(self, path: Path, sample: int, frame: int | None) -> Excerpt:
        """A few frames of one trajectory of any file of this layout. Raises DataError."""
        from .excerpt import read_excerpt

        return read_excerpt(self, path, sample, frame)

    def describe(self) -> FieldSpec:
        """What the data are: from the files' headers, or from the simulator where they are still to be made."""
        from .files import describe

        return describe(self)

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """The splits take no more trajectories than there are, or will be, and names are those of fields."""
        from .checks import problems

        yield from problems(self, fields)

    def build(self, seed: int) -> Dataset:
        """Make the file if need be, check and split the trajectories, fit the normalisation."""
        from .dataset import read_dataset

        return read_dataset(self, seed)
