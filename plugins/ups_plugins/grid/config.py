"""Recipe keys of the grid plugin."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from attrs import field, frozen
from attrs.validators import ge, gt, optional

from ups_kit import FieldSpec, LatentSpec
from ups_kit.interfaces import Dataset, Encoder, SimulatorConfig, heads_problems


# ---------------------------------------------------------------------------------------------------------------------
# Datasets
# ---------------------------------------------------------------------------------------------------------------------
@frozen(kw_only=True)
class PDEBenchConfig:
    """Trajectories on a regular 1D grid in PDEBench's HDF5 layout (Takamoto et al., arXiv:2210.07182).

    A file holds `tensor` [trajectory, time, x], `x-coordinate` and `t-coordinate` (as many entries as there are frames,
    or one more). Parameters of the equation stand beside it as arrays with a number for each trajectory, as attributes,
    or, for files of one value, here. Trajectories are split by seed; those with one initial condition stay together.
    """

    path: Path | tuple[Path, ...] = field(
        metadata={
            "help": "an HDF5 file, several, or a pattern with * and ?",
            "example": '"data/burgers.h5"',
        }
    )
    test_path: Path | tuple[Path, ...] | None = field(
        default=None, metadata={"help": "files that the test trajectories are taken from, instead of from `path`"}
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
    conditions: tuple[str, ...] | None = field(
        default=None,
        metadata={"help": "parameters that the model is told; where not given, all that have a number per trajectory"},
    )
    train: int | None = field(
        default=None, validator=optional(gt(0)), metadata={"help": "train trajectories; the rest where not given"}
    )
    validation: int = field(default=50, validator=gt(0), metadata={"help": "validation trajectories"})
    test: int = field(default=100, validator=gt(0), metadata={"help": "test trajectories"})
    time_stride: int = field(default=1, validator=gt(0), metadata={"help": "take every n-th frame"})
    space_stride: int = field(default=1, validator=gt(0), metadata={"help": "take every n-th point"})
    history: int = field(default=1, validator=gt(0), metadata={"help": "frames that the model is given"})
    periodic: bool = field(default=True, metadata={"help": "whether the x axis is periodic"})
    tensor: str = field(default="tensor", metadata={"help": "name of the array of trajectories in the file"})
    allow_external: bool = field(
        default=False, metadata={"help": "read values that the file keeps in other files of this machine"}
    )
    drop_bad_samples: bool = field(
        default=False, metadata={"help": "leave out trajectories with NaN or infinities instead of stopping"}
    )
    simulate: SimulatorConfig | None = field(
        default=None, metadata={"help": "what makes the file at `path` where there is none"}
    )

    def describe(self) -> FieldSpec:
        """What the data are: from the files' headers, or from the simulator where they are still to be made."""
        from .files import describe

        return describe(self)

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """The splits take no more trajectories than there are, or will be; headers alone tell."""
        from .checks import split_problems

        yield from split_problems(self)

    def build(self, seed: int) -> Dataset:
        """Make the file if need be, check and split the trajectories, fit the normalisation."""
        from .dataset import read_dataset

        return read_dataset(self, seed)


# ---------------------------------------------------------------------------------------------------------------------
# Encoders
# ---------------------------------------------------------------------------------------------------------------------
@frozen(kw_only=True)
class GridEncoderConfig:
    """Patches of a regular grid in 1, 2 or 3 dimensions as latent tokens, anchored at the patches' centres."""

    patch_size: int = field(
        default=4, validator=gt(0), metadata={"help": "points of a patch along each axis", "unit": "points"}
    )
    overlap: int = field(
        default=1,
        validator=ge(0),
        metadata={"help": "neighbouring patches that a token sees to each side", "unit": "patches"},
    )
    depth: int = field(
        default=1,
        validator=ge(0),
        metadata={"help": "transformer blocks; with 0 each token sees its own surroundings only"},
    )
    heads: int = field(default=2, validator=gt(0), metadata={"help": "attention heads; divides latent.width"})
    mlp_ratio: float = field(
        default=4.0, validator=gt(0), metadata={"help": "width of a block's network, in token widths"}
    )

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """The data lie on a grid that the patches cut evenly; the tokens are as many as the recipe says, if it does."""
        yield from heads_problems(self.heads, latent.width)
        if fields.grid is None:
            yield (
                "use",
                f"'grid' needs fields on a regular grid, these data are {fields.layout}; "
                f"use an encoder for {fields.layout}",
            )
            return
        grid = " × ".join(map(str, fields.grid))
        common = math.gcd(*fields.grid)
        if common % self.patch_size:
            near = min((n for n in range(1, common + 1) if common % n == 0), key=lambda n: abs(n - self.patch_size))
            yield (
                "patch_size",
                f"patches of {self.patch_size} points do not cut a grid of {grid} evenly; nearest: patch_size = {near}",
            )
        elif latent.tokens is not None:
            tokens = math.prod(size // self.patch_size for size in fields.grid)
            if tokens != latent.tokens:
                given = f"patches of {self.patch_size} points on a grid of {grid} give {tokens} tokens"
                yield (
                    "patch_size",
                    f"{given}, latent.tokens says {latent.tokens}; leave latent.tokens out, or make them agree",
                )

    def build(self, fields: FieldSpec, latent: LatentSpec) -> Encoder:
        from .encoder import GridEncoder

        return GridEncoder(
            fields,
            latent,
            patch_size=self.patch_size,
            overlap=self.overlap,
            depth=self.depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
        )
