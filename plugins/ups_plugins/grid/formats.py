"""Recipe keys of the formats of other collections: The Well's HDF5 files, and Zarr stores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from .settings import TrajectorySettings
from .source import Source

if TYPE_CHECKING:
    from ups_kit.data.tree import FileTree

WELL_GROUPS = ("t0_fields", "t1_fields", "t2_fields")


@frozen(kw_only=True)
class WellConfig(TrajectorySettings):
    """Trajectories in the HDF5 layout of The Well (Ohana et al., arXiv:2412.00568).

    A file holds `t0_fields`, `t1_fields` and `t2_fields`: scalars, vectors and tensors [trajectory, time, x, …,
    component]. All that change in time are predicted, in this order, vectors and tensors by their components in
    row-major order; those that do not are given at every point. What a field does not depend on (trajectory, an axis)
    is repeated. Scalars that do not change in time are parameters, and `boundary_conditions` say which axes are
    periodic. The Well has separate folders: name them in `path`, `validation_path` and `test_path`.
    """

    path: Path | tuple[Path, ...] = field(
        metadata={
            "help": "an HDF5 file, several, or a pattern with * and ?",
            "example": '"the_well/turbulent_radiative_layer_2D/data/train/*.hdf5"',
        }
    )
    fields: tuple[str, ...] | None = field(
        default=None,
        metadata={
            "help": "the fields to predict; all that change in time where not given",
            "example": '["density", "velocity"]',
        },
    )
    statics: tuple[str, ...] | None = field(
        default=None,
        metadata={"help": "fields that are given and do not change in time; all of them where not given"},
    )
    allow_external: bool = field(
        default=False, metadata={"help": "read values that the file keeps in other files of this machine"}
    )

    def open_source(self, path: Path) -> Source:
        from .well import open_file

        return open_file(self, path)

    @classmethod
    def recognise(cls, tree: FileTree) -> Mapping[str, Any] | None:
        """Keys for a file of this layout: the root says how many trajectories, and there is a group of fields."""
        root = tree.attributes.get("", {})
        known = {"n_trajectories", "n_spatial_dims"} <= root.keys() and "dimensions/time" in tree.arrays
        if tree.format != "hdf5" or not known or not any(name.split("/")[0] in WELL_GROUPS for name in tree.arrays):
            return None
        return {}


@frozen(kw_only=True)
class GridZarrConfig(TrajectorySettings):
    """Trajectories in a Zarr v3 store: `coords`, `time` and `fields/<name>` [trajectory, time, x, …, channel].

    `statics/<name>` are given at every point, `parameters/<name>` are numbers of each trajectory. `upskit data convert`
    writes such stores, sharded and with checksums. A store may lie behind an address (`s3://…`, `https://…`), with the
    extra `remote`.
    """

    path: Path | tuple[Path, ...] = field(
        metadata={
            "help": "the folder of a Zarr store, several, a pattern with * and ?, or an address",
            "example": '"data/burgers.zarr"',
        }
    )
    fields: tuple[str, ...] | None = field(
        default=None,
        metadata={"help": "the fields to predict, in this order; all where not given", "example": '["density"]'},
    )
    statics: tuple[str, ...] | None = field(
        default=None, metadata={"help": "the static fields that are given; all where not given"}
    )

    def open_source(self, path: Path) -> Source:
        from .zarr_grid import open_store

        return open_store(self, path)

    @classmethod
    def recognise(cls, tree: FileTree) -> Mapping[str, Any] | None:
        """Keys for a store of this layout: coordinates, times and fields."""
        names = tree.arrays.keys()
        coordinates = "coords" in names or any(name.startswith("coords/") for name in names)
        fields = any(name.startswith("fields/") for name in names)
        return {} if tree.format == "zarr" and coordinates and fields and "time" in names else None
