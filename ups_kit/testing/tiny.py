"""Tiny data, a tiny model and a tiny stage, as components with which others are checked. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from attrs import field, frozen
from attrs.validators import ge, gt

from ..fit.checks import check_losses, check_settings
from ..fit.settings import Budget, FieldFitSettings
from ..interfaces import Field, FieldSpec, LatentForm, LatentSpec, LossConfig, StageConfig
from ..plugins import Catalog
from ..recipe import Recipe, Run
from ..registry import Entry, Registry
from ..weighting import Weighted

Place = Literal["line", "plane", "volume", "steady", "mesh", "particles"]
WIDTH = 16  # of latent tokens
PLUGIN = "ups_kit.testing"
NAME = "tiny"  # of these components in a catalog

# Fields that evolve in a periodic line; with walls and a medium in a plane; in a volume; one answer to a medium; on the
# nodes of meshes, another number in each; of particles that move with their velocity.
PLACES: Mapping[Place, FieldSpec] = {
    "line": FieldSpec((Field("u"),), ((0.0, 1.0),), (True,), "grid", (32,), 0.1, conditions=("dt", "nu")),
    "plane": FieldSpec(
        (Field("u"), Field("v"), Field("density")),
        ((0.0, 2.0), (-1.0, 1.0)),
        (False, False),
        "grid",
        (16, 16),
        0.1,
        statics=(Field("medium"),),
        history=2,
        conditions=("dt", "nu"),
    ),
    "volume": FieldSpec((Field("u", 3),), ((0.0, 1.0),) * 3, (True,) * 3, "grid", (8, 8, 8), 0.1),
    "steady": FieldSpec(
        (Field("u"),), ((0.0, 1.0),) * 2, (False,) * 2, "grid", (16, 16), 0.1, statics=(Field("nu"),), history=0
    ),
    "mesh": FieldSpec(
        (Field("velocity", 2),),
        ((0.0, 2.0), (0.0, 1.0)),
        (False, False),
        "mesh",
        None,
        0.1,
        statics=(Field("boundary"),),
        conditions=("dt", "nu"),
        counts=(40, 52),
    ),
    "particles": FieldSpec(
        (Field("velocity", 2),),
        ((0.0, 1.0), (0.0, 1.0)),
        (True, True),
        "particles",
        None,
        0.05,
        history=2,
        counts=(44, 44),
        moves_with="velocity",
    ),
}


@frozen(kw_only=True)
class TinyDatasetConfig:
    """A few trajectories of smooth waves, made in memory in milliseconds."""

    on: Place = field(default="line", metadata={"help": "which of the tiny data"})
    trajectories: int = field(default=10, validator=ge(6), metadata={"help": "number of trajectories"})
    frames: int = field(default=7, validator=ge(3), metadata={"help": "frames of each; steady data have one"})

    def describe(self) -> FieldSpec:
        return PLACES[self.on]

    def build(self, seed: int) -> Any:
        from .tiny_data import TinyDataset

        return TinyDataset.made(self.on, self.trajectories, self.frames, seed)


@frozen
class TinyEncoderConfig:
    """Weighted means of the points around the places of a small lattice."""

    def form(self, latent: LatentSpec) -> LatentForm:
        return "lattice"

    def build(self, fields: FieldSpec, latent: LatentSpec) -> Any:
        from .tiny_parts import TinyEncoder

        return TinyEncoder(fields, latent)


@frozen
class TinyOperatorConfig:
    """A dense layer on each token, the mean of all, and the condition."""

    def build(self, fields: FieldSpec, latent: LatentSpec) -> Any:
        from .tiny_parts import TinyOperator

        return TinyOperator(fields, latent)


@frozen
class TinyDecoderConfig:
    """A dense layer on what tokens near the query hold."""

    def build(self, fields: FieldSpec, latent: LatentSpec) -> Any:
        from .tiny_parts import TinyDecoder

        return TinyDecoder(fields, latent)


@frozen(kw_only=True)
class TinyLossConfig(Weighted):
    """The mean square error of one step, at all points."""

    def build(self, fields: FieldSpec) -> Any:
        from .tiny_parts import TinyLoss

        return TinyLoss()


@frozen(kw_only=True)
class TinyOptimizerConfig:
    """Adam."""

    lr: float = field(default=0.003, validator=gt(0), metadata={"help": "learning rate"})

    def build(self, model: Any) -> Any:
        import torch

        return torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=self.lr)


@frozen(kw_only=True)
class TinyStageConfig(FieldFitSettings):
    """Trains all parts of the model on its losses."""

    name: str = field(default=NAME, metadata={"help": "name of the stage, and of its folder"})
    losses: Mapping[str, LossConfig] = field(
        metadata={"help": "losses by name", "example": '{ tiny = { use = "tiny" } }'}
    )

    @property
    def trains(self) -> tuple[str, ...]:
        return ("encoder", "operator", "decoder")

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        yield from check_settings(self, fields, latent)
        yield from check_losses(self.losses, fields, latent, self.periodic_shifts)

    def build(self) -> Any:
        from .tiny_parts import TinyStage

        return TinyStage(self)


TINY: Mapping[str, type] = {
    "dataset": TinyDatasetConfig,
    "encoder": TinyEncoderConfig,
    "operator": TinyOperatorConfig,
    "decoder": TinyDecoderConfig,
    "loss": TinyLossConfig,
    "optimizer": TinyOptimizerConfig,
    "stage": TinyStageConfig,
}


def with_tiny(catalog: Catalog) -> Catalog:
    """The catalog with the tiny components besides, as `use = "tiny"`."""
    registries = dict(catalog.registries)
    for kind, config in TINY.items():
        if any(entry.config is config for entry in registries[kind].values()):
            continue
        name = NAME
        while name in registries[kind]:  # a stranger's
            name += "_"
        registries[kind] = Registry(kind, {**dict(registries[kind].items()), name: Entry(kind, name, config, PLUGIN)})
    return Catalog(catalog.plugins, MappingProxyType(registries))


def tiny_training(steps: int = 2) -> dict[str, Any]:
    """Keys of a training stage that make it a short one: every step is logged and kept."""
    return {
        "budget": {"steps": steps},
        "batch": 2,
        "log_every": 1,
        "validate_every": 2,
        "checkpoint_every": 1,
        "keep": 2,
    }


def tiny_stage(steps: int = 2) -> TinyStageConfig:
    """The tiny stage, for so many steps."""
    keys: dict[str, Any] = {**tiny_training(steps), "budget": Budget(steps=steps)}
    return TinyStageConfig(optimizer=TinyOptimizerConfig(), losses={NAME: TinyLossConfig()}, **keys)


def tiny_recipe(folder: Path, on: Place = "line", stages: Iterable[StageConfig] | None = None) -> Recipe:
    """A recipe of tiny components, whose run takes a fraction of a second on a CPU."""
    return Recipe(
        run=Run(name=NAME, device="cpu", folder=folder),
        dataset=TinyDatasetConfig(on=on),
        latent=LatentSpec(WIDTH),
        encoder=TinyEncoderConfig(),
        operator=TinyOperatorConfig(),
        decoder=TinyDecoderConfig(),
        stages=(tiny_stage(),) if stages is None else tuple(stages),
    )
