"""A plugin of small config classes for tests of recipes, so that messages do not change with what is installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from attrs import field, frozen
from attrs.validators import deep_iterable, ge, gt, in_, lt, optional

from ups_kit import Components, FieldSpec, LatentSpec, Weighted, hookimpl
from ups_kit.fit.settings import FieldFitSettings
from ups_kit.interfaces import Field, LossConfig, SamplerConfig


@frozen(kw_only=True)
class Waves:
    """Travelling waves, made on demand."""

    samples: int = field(default=10, validator=gt(0), metadata={"help": "number of trajectories"})
    viscosity: float | tuple[float, float] = field(
        default=0.01, metadata={"help": "fixed, or the ends of a range", "unit": "m2/s"}
    )

    def describe(self) -> FieldSpec:
        return FieldSpec((Field("u"),), ((0.0, 1.0),), (True,), "grid", (64,), 0.1)

    def build(self) -> Any: ...


@frozen(kw_only=True)
class Files:
    """Trajectories from files."""

    path: Path | tuple[Path, ...] = field(metadata={"help": "a file, or several", "example": '"data/waves.h5"'})
    history: int = field(default=1, validator=gt(0), metadata={"help": "frames that are given"})
    crop: tuple[float, float] | None = field(
        default=None, metadata={"help": "ends of the part that is used", "unit": "m"}
    )
    parameters: Mapping[str, float] = field(factory=dict, metadata={"help": "values of the whole file's parameters"})
    simulate: Waves | None = field(default=None, metadata={"help": "makes a file that does not exist"})

    def describe(self) -> FieldSpec:
        return FieldSpec((Field("u"),), ((0.0, 1.0),), (True,), "grid", (64,), 0.1, history=self.history)

    def build(self, seed: int) -> Any: ...


@frozen(kw_only=True)
class Patches:
    """Patches of a regular grid."""

    patch_size: int = field(default=4, validator=gt(0), metadata={"help": "points along a patch"})
    depth: int = field(default=2, validator=ge(0), metadata={"help": "blocks of attention"})
    radii: tuple[float, ...] = field(
        default=(), validator=deep_iterable(gt(0)), metadata={"help": "radii of neighbours"}
    )

    def build(self, fields: FieldSpec, latent: LatentSpec) -> Any: ...

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        if fields.grid is not None and any(points % self.patch_size for points in fields.grid):
            near = max(
                size for size in range(1, self.patch_size + 1) if all(points % size == 0 for points in fields.grid)
            )
            yield (
                "patch_size",
                f"{self.patch_size} does not divide the grid {fields.grid}; nearest: patch_size = {near}",
            )


@frozen(kw_only=True)
class Points:
    """Points gathered at anchors."""

    anchors: int = field(validator=gt(0), metadata={"help": "number of anchors"})

    def build(self, fields: FieldSpec, latent: LatentSpec) -> Any: ...


@frozen(kw_only=True)
class Attention:
    """Blocks of attention."""

    heads: int = field(default=4, validator=gt(0), metadata={"help": "heads of attention"})
    dropout: float = field(default=0.0, validator=[ge(0), lt(1)], metadata={"help": "share of dropped activations"})
    norm: Literal["layer", "rms"] = field(default="layer", metadata={"help": "normalisation"})
    bias: bool = field(default=True, metadata={"help": "learn offsets"})

    def build(self, fields: FieldSpec, latent: LatentSpec) -> Any: ...

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        if latent.width % self.heads:
            yield "heads", f"{self.heads} does not divide latent.width = {latent.width}"


@frozen
class Local:
    """The nearest tokens of a point."""

    neighbours: int = field(default=4, validator=gt(0), metadata={"help": "tokens that a point sees"})

    def build(self, fields: FieldSpec, latent: LatentSpec) -> Any: ...


@frozen(kw_only=True)
class Uniform:
    """Points drawn evenly."""

    ratio: float | None = field(default=None, validator=optional([gt(0)]), metadata={"help": "share of the points"})

    def build(self, fields: FieldSpec) -> Any: ...


@frozen(kw_only=True)
class OneStep(Weighted):
    """The error of one step."""

    sampler: SamplerConfig | None = field(default=None, metadata={"help": "which points are compared"})

    def build(self, fields: FieldSpec) -> Any: ...


@frozen(kw_only=True)
class ManySteps(OneStep):
    """The error of several steps."""


@frozen(kw_only=True)
class Adam:
    """Adaptive moments."""

    lr: float = field(default=0.001, validator=gt(0), metadata={"help": "learning rate"})
    betas: tuple[float, float] = field(default=(0.9, 0.999), metadata={"help": "decay of the moments"})

    def build(self, model: Any) -> Any: ...


@frozen(kw_only=True)
class Momentum:
    """Gradient descent with momentum."""

    lr: float = field(default=0.1, validator=gt(0), metadata={"help": "learning rate"})
    momentum: float = field(default=0.9, validator=[ge(0), lt(1)], metadata={"help": "share of the former step"})

    def build(self, model: Any) -> Any: ...


@frozen(kw_only=True)
class Training(FieldFitSettings):
    """Train the operator."""

    name: str = field(default="", metadata={"help": "name of the stage's folder"})
    losses: Mapping[str, LossConfig] = field(metadata={"help": "what is minimised", "example": "{}"})
    steps: int = field(default=4, validator=gt(0), metadata={"help": "future steps of a window"})

    def build(self) -> Any: ...


@frozen(kw_only=True)
class Evaluation:
    """Measure on the test split."""

    name: str = field(default="", metadata={"help": "name of the stage's folder"})
    split: str = field(
        default="test", validator=in_(("train", "validation", "test")), metadata={"help": "which trajectories"}
    )

    def build(self) -> Any: ...


@frozen
class Printer:
    """Lines on the console."""

    every: int = field(default=1, validator=gt(0), metadata={"help": "print every n-th line"})

    def build(self, folder: Path) -> Any: ...


@hookimpl
def ups_kit_components() -> Components:
    return {
        "dataset": {"files": Files},
        "simulator": {"waves": Waves},
        "encoder": {"grid": Patches, "points": Points},
        "operator": {"transformer": Attention},
        "decoder": {"local": Local},
        "sampler": {"uniform": Uniform},
        "loss": {"forward": OneStep, "rollout": ManySteps},
        "optimizer": {"adam": Adam, "momentum": Momentum},
        "stage": {"operator": Training, "evaluate": Evaluation},
        "tracker": {"printer": Printer},
    }
