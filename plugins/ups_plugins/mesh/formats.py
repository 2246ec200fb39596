"""Recipe keys of the datasets on meshes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import evolve, field, frozen

from ups_kit import DataError, Field, FieldSpec
from ups_kit.data.points.settings import PointSettings
from ups_kit.errors import did_you_mean

if TYPE_CHECKING:
    from ups_kit.data.points.source import PointSource
    from ups_kit.data.tree import FileTree

Feature = Literal["boundary", "area", "sdf"]


@frozen(kw_only=True)
class MeshZarrConfig(PointSettings):
    """Fields on the nodes of meshes, another one in every sample if need be, in a Zarr v3 store.

    A group for each sample holds `coords`, `cells` or `edges`, `time`, `fields/<name>` [time, node, channel] and
    `statics/<name>` [node, channel]; statics of whole numbers, such as the type of a node, become a number of 0 or 1
    for each category. With one frame and a static field the data are steady. `upskit data convert` writes such stores
    from VTU, VTK, PVD, XDMF and other files that meshio reads.
    """

    path: Path | tuple[Path, ...] = field(
        metadata={
            "help": "the folder of a Zarr store, several, a pattern with * and ?, or an address",
            "example": '"data/flow.zarr"',
        }
    )
    fields: tuple[str, ...] | None = field(
        default=None,
        metadata={"help": "the fields to predict, in this order; all where not given", "example": '["velocity"]'},
    )
    statics: tuple[str, ...] | None = field(
        default=None, metadata={"help": "the stored static fields that are given; all where not given"}
    )
    features: tuple[Feature, ...] = field(
        default=(),
        metadata={
            "help": "what is computed of the mesh and given besides: boundary (1 at nodes on the boundary), area (what "
            "each node stands for: a share of its cells' lengths, areas or volumes), sdf (the distance to the nearest "
            "node on the boundary)",
            "example": '["boundary", "sdf"]',
        },
    )

    def open_source(self, path: Path) -> PointSource:
        """The samples of one store. Raises DataError."""
        from .source import open_source

        return open_source(self, path)

    def planned(self, made: FieldSpec) -> FieldSpec:
        """The fields that are chosen, and the features besides."""
        statics = chosen(made.statics, self.statics, "statics", "the simulator")
        computed = tuple(Field(name) for name in self.features)
        check_features(statics, self.features)
        targets = chosen(made.targets, self.fields, "fields", "the simulator")
        return evolve(made, targets=targets, statics=(*statics, *computed))

    @classmethod
    def recognise(cls, tree: FileTree) -> Mapping[str, Any] | None:
        """Keys for a store of this layout: samples with coordinates, cells or edges, and fields."""
        if tree.format != "zarr":
            return None
        groups = {name.partition("/")[0] for name in tree.arrays if name.startswith("sample_")}
        parts = {name.split("/")[1] for name in tree.arrays if name.startswith("sample_") and "/" in name}
        known = {"coords", "fields"} <= parts and bool({"cells", "edges"} & parts)
        return {} if groups and known else None


def chosen(known: tuple[Field, ...], names: tuple[str, ...] | None, key: str, where: str) -> tuple[Field, ...]:
    """The fields that a recipe names, in its order; all where it names none. Raises DataError."""
    by_name = {each.name: each for each in known}
    for name in names or ():
        if name not in by_name:
            there = ", ".join(by_name) or "nothing"
            raise DataError(f"{where}: {key}: expected '{name}'{did_you_mean(name, by_name)}, got {there}", key)
        if (names or ()).count(name) > 1:
            raise DataError(f"{where}: dataset.{key}: '{name}' is there twice", key)
    if names == () and key == "fields":
        raise DataError(f"{where}: dataset.fields is empty; expected one field at least", key)
    return known if names is None else tuple(by_name[name] for name in names)


def check_features(statics: tuple[Field, ...], features: tuple[str, ...]) -> None:
    """Raise DataError where a feature has the name of a stored static, or is there twice."""
    names = [each.name for each in statics]
    for number, name in enumerate(features):
        if name in names:
            raise DataError(
                f"dataset.features: '{name}' is stored as a static field too; leave one of them out (dataset.statics "
                "names those that are given)",
                "features",
            )
        if name in features[:number]:
            raise DataError(f"dataset.features: '{name}' is there twice", "features")
