"""Recipe keys of the grid plugin."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import field, frozen
from attrs.validators import ge, gt

from ups_kit import FieldSpec, LatentSpec
from ups_kit.interfaces import Encoder, heads_problems

from .settings import TrajectorySettings
from .source import Source

if TYPE_CHECKING:
    from ups_kit.data.tree import FileTree

Layout = Literal["tensor", "fields", "groups", "velocity"]


# ---------------------------------------------------------------------------------------------------------------------
# Datasets
# ---------------------------------------------------------------------------------------------------------------------
@frozen(kw_only=True)
class PDEBenchConfig(TrajectorySettings):
    """Trajectories or steady fields on regular grids, in any of PDEBench's HDF5 layouts (arXiv:2210.07182).

    `tensor`: an array `tensor` [trajectory, time, x, …] with `x-coordinate`, … and `t-coordinate`; with one frame and
    a field `nu` [trajectory, x, …] it is steady (Darcy flow). `fields`: arrays `Vx`, `Vy`, `Vz`, `density`, `pressure`
    of that shape (compressible Navier–Stokes). `groups`: a group for each trajectory, with `data` [time, x, …, channel]
    and `grid/x`, …, `grid/t` (2D diffusion–reaction, shallow water, diffusion–sorption). `velocity`: `velocity`
    [trajectory, time, x, …, component], `t` [trajectory, time] and `force` (incompressible Navier–Stokes).

    Parameters of the equation stand beside the values as arrays with a number for each trajectory, as attributes, in
    the files' names, or here. Trajectories are split by seed; those with one initial condition stay together.
    """

    layout: Layout | None = field(
        default=None, metadata={"help": "which of the layouts the files have; found from the file where not given"}
    )
    tensor: str = field(default="tensor", metadata={"help": "name of the array of trajectories in the layout 'tensor'"})
    fields: tuple[str, ...] | None = field(
        default=None,
        metadata={
            "help": "the fields to predict: which arrays, or in the layouts 'tensor' and 'groups' what to call the "
            "channels",
            "example": '["Vx", "density"]',
        },
    )
    statics: tuple[str, ...] | None = field(
        default=None,
        metadata={
            "help": "arrays that are given at every point and do not change; 'nu' and 'force' where not given",
            "example": '["nu"]',
        },
    )
    allow_external: bool = field(
        default=False, metadata={"help": "read values that the file keeps in other files of this machine"}
    )

    def open_source(self, path: Path) -> Source:
        """The trajectories of one file, its headers read and checked. Raises DataError."""
        from .pdebench import open_file

        return open_file(self, path)

    @classmethod
    def recognise(cls, tree: FileTree) -> Mapping[str, Any] | None:
        """The keys for a file in one of these layouts, or None."""
        from .recognition import pdebench_keys

        return pdebench_keys(tree)


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
            fitting = "'particle'" if fields.layout == "particles" else "'mesh'"
            yield "use", f"'grid' needs fields on a regular grid, these data are {fields.layout}; use {fitting}"
            return
        if fields.sampled_inputs is not None:
            yield (
                "use",
                "'grid' needs all points of a grid, and dataset.input_points gives it some at random; use 'mesh', or "
                "leave dataset.input_points out",
            )
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
