"""Recipe keys of the data sets of particles: our own Zarr stores, and LagrangeBench's files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen
from attrs.validators import gt, le, optional

from ups_kit import FieldSpec, LatentSpec
from ups_kit.data.points.settings import PointSettings
from ups_kit.interfaces import SimulatorConfig

if TYPE_CHECKING:
    from ups_kit.data.points.source import PointSource
    from ups_kit.data.tree import FileTree
    from ups_kit.interfaces import ParticleFile


@frozen(kw_only=True)
class ParticleSettings(PointSettings):
    """What every dataset of particles can be told."""

    types: int | None = field(
        default=None,
        validator=optional([gt(0), le(64)]),
        metadata={
            "help": "number of types of particles: each is a channel of 0 and 1 in the static field `type`; where not "
            "given, as many as the files hold, and no such field where that is one",
            "example": "4",
        },
    )
    wrap: bool = field(
        default=False,
        metadata={"help": "take positions that go on beyond the box along periodic axes, and wrap them into it"},
    )


@frozen(kw_only=True)
class ParticleZarrConfig(ParticleSettings):
    """Particles in a Zarr v3 store: a group `sample_00000`, …, for each trajectory, with `positions` and `time`.

    Targets are the velocity of each particle over the model's time step, from positions, and the `fields` that the
    recipe names. `types`, and the `statics`, are given at every particle. `upskit data convert` writes such stores.
    """

    path: Path | tuple[Path, ...] = field(
        metadata={
            "help": "the folder of a Zarr store, several, a pattern with * and ?, or an address",
            "example": '"data/taylor_green.zarr"',
        }
    )
    fields: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "stored fields to predict beside the velocity, in this order; `velocities` is one",
            "example": '["density"]',
        },
    )
    statics: tuple[str, ...] | None = field(
        default=None, metadata={"help": "the static fields that are given; all where not given"}
    )

    def open_source(self, path: Path) -> PointSource:
        from .particle_zarr import open_particles
        from .source import source_of

        return source_of(
            open_particles(path, self.fields, self.statics),
            stride=self.time_stride,
            first=self.first_frame,
            history=self.history,
            types=self.types,
            wrap=self.wrap,
        )

    def open_particles(self, path: Path) -> ParticleFile:
        """A store as it is, without the recipe's strides. Raises DataError."""
        from .whole import StoreFile

        return StoreFile.of(path)

    def planned(self, made: FieldSpec) -> FieldSpec:
        """Of what a simulator stores, the velocity and the chosen fields."""
        chosen = {each.name: each for each in made.targets}
        motion = [each for each in made.targets if each.name == made.moves_with]
        fields = [chosen[name] for name in self.fields if name in chosen]
        own = ("type", "kinematic", *(self.statics or ()))
        statics = [each for each in made.statics if self.statics is None or each.name in own]
        return evolve(made, targets=(*motion, *fields), statics=tuple(statics))

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """Besides the usual: fields are those of the store, also where it is still to be made."""
        yield from super().check(fields, latent)
        names = [each.name for each in fields.targets]
        for name in self.fields:
            if name not in names:
                yield "fields", f"no field of such a store is called '{name}', or the simulator does not store it"

    @classmethod
    def recognise(cls, tree: FileTree) -> Mapping[str, Any] | None:
        """Keys for a store of this layout: samples with positions and times."""
        if tree.format != "zarr":
            return None
        samples = {name.split("/")[0] for name in tree.arrays if name.startswith("sample_")}
        known = [name for name in samples if {f"{name}/positions", f"{name}/time"} <= tree.arrays.keys()]
        return {} if known else None


@frozen(kw_only=True)
class LagrangeBenchConfig(ParticleSettings):
    """Particles in LagrangeBench's layout (Toshev et al., arXiv:2309.16342).

    A folder with `train.h5`, `valid.h5`, `test.h5` and `metadata.json`. Targets are the velocity of each particle over
    the model's time step. The splits are those of the files: what `train`, `validation` and `test` say is how many of a
    file's trajectories are taken. Walls (types 1 and 2) move as they are given in a forecast, and are marked by the
    static field `kinematic`. `path` may also be one of the files: then `validation` and `test` trajectories are drawn
    from it. The means and deviations of `metadata.json` are not used: normalisation is by train values at the model's
    time step.
    """

    path: Path | tuple[Path, ...] = field(
        metadata={
            "help": "the folder of the four files, or one of the HDF5 files",
            "example": '"2D_TGV_2500_10kevery100"',
        }
    )
    validation: int | None = field(  # type: ignore[assignment]
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "validation trajectories; all of valid.h5 where not given"},
    )
    test: int | None = field(  # type: ignore[assignment]
        default=None, validator=optional(gt(0)), metadata={"help": "test trajectories; all of test.h5 where not given"}
    )
    dt: float | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "time between two stored frames; dt * write_every of metadata.json where not given"},
    )
    cut: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={
            "help": "model frames of the pieces that validation and test trajectories are cut into, as LagrangeBench "
            "does for forecasts of 20 steps; whole trajectories where not given",
            "example": "26",
        },
    )
    simulate: SimulatorConfig | None = field(
        default=None, metadata={"help": "none: simulators write stores of `particle_zarr`"}
    )

    def open_source(self, path: Path) -> PointSource:
        from .lagrangebench import open_lagrangebench
        from .source import source_of

        return source_of(
            open_lagrangebench(path, self.dt),
            stride=self.time_stride,
            first=self.first_frame,
            history=self.history,
            types=self.types,
            wrap=self.wrap,
            cut=self.cut,
        )

    def open_particles(self, path: Path) -> ParticleFile:
        """A folder or file as it is, without the recipe's strides. Raises DataError."""
        from .whole import BenchmarkFile

        return BenchmarkFile.of(path, self.dt)

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """Besides the usual: trajectories of one file need numbers to be drawn into splits by."""
        yield from super().check(fields, latent)
        for key in ("validation", "test"):
            alone = isinstance(self.path, tuple) or not self.path.is_dir()
            if alone and getattr(self, key) is None and getattr(self, f"{key}_path") is None:
                yield key, f"expected a number, as the trajectories of files are drawn into splits; or give {key}_path"

    @classmethod
    def recognise(cls, tree: FileTree) -> Mapping[str, Any] | None:
        """Keys for a folder or file of this layout: groups with positions and types."""
        depth = {"hdf5": 1, "folder": 2}.get(tree.format)
        groups = [name.removesuffix("/position") for name in tree.arrays if name.endswith("/position")]
        known = [name for name in groups if name.count("/") + 1 == depth and f"{name}/particle_type" in tree.arrays]
        return {} if known and all(len(tree.arrays[f"{name}/position"].shape) == 3 for name in known) else None
