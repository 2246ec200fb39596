"""Components each of which breaks one clause of its kind, and is otherwise as the tiny ones are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from ups_kit import Components, FieldSpec, LatentSpec, Weighted, hookimpl
from ups_kit.fit.settings import FieldFitSettings
from ups_kit.interfaces import LossConfig

if TYPE_CHECKING:
    from torch import nn


def made(doc: str, what: str) -> type:
    """A config class that builds the class of this name in `parts_that_break`, as fields and latent say."""

    def build(self: Any, fields: FieldSpec, latent: LatentSpec) -> Any:
        import parts_that_break

        return getattr(parts_that_break, what)(fields, latent)

    return frozen(type(f"{what}Config", (), {"__doc__": doc, "__annotations__": {}, "build": build}))


def with_fields(doc: str, what: str, base: type = object) -> type:
    """The same for kinds that are built from the fields alone."""

    def build(self: Any, fields: FieldSpec, *others: Any) -> Any:
        import parts_that_break

        return getattr(parts_that_break, what)()

    return frozen(type(f"{what}Config", (base,), {"__doc__": doc, "__annotations__": {}, "build": build}))


@frozen(kw_only=True)
class ForgetfulConfig:
    """Gradient descent whose momentum is not in its state."""

    lr: float = field(default=0.01, metadata={"help": "learning rate"})

    def build(self, model: nn.Module) -> Any:
        from parts_that_break import Forgetful

        return Forgetful(model, self.lr)


@frozen(kw_only=True)
class UphillConfig:
    """A learning rate far too large."""

    lr: float = field(default=1e6, metadata={"help": "learning rate"})

    def build(self, model: nn.Module) -> Any:
        import torch

        return torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=self.lr)


@frozen(kw_only=True)
class LitteringConfig:
    """A tracker that writes where it stands."""

    def build(self, folder: Path) -> Any:
        from parts_that_break import Littering

        return Littering()


@frozen(kw_only=True)
class NegativeConfig:
    """A schedule that goes below 0."""

    def build(self) -> Any:
        from parts_that_break import Negative

        return Negative()


@frozen(kw_only=True)
class CarelessStageConfig(FieldFitSettings):
    """A stage that draws from a generator of its own, which a resumed run does not have."""

    name: str = field(default="careless", metadata={"help": "name of the stage, and of its folder"})
    losses: Mapping[str, LossConfig] = field(
        metadata={"help": "losses by name", "example": '{ tiny = { use = "tiny" } }'}
    )

    def build(self) -> Any:
        from parts_that_break import CarelessStage

        return CarelessStage(self)


@frozen(kw_only=True)
class UnevenConfig:
    """A simulator whose trajectories depend on which are solved together."""

    trajectories: int = field(default=8, metadata={"help": "number of trajectories"})

    def describe(self) -> FieldSpec:
        from ups_kit import Field

        return FieldSpec((Field("u"),), ((0.0, 1.0),), (True,), "grid", (8,), 0.1)

    def build(self) -> Any:
        from parts_that_break import Uneven

        return Uneven(self.trajectories)


@frozen(kw_only=True)
class TwiceConfig:
    """A data set that normalises its batches twice."""

    def describe(self) -> FieldSpec:
        from ups_kit.testing.tiny import PLACES

        return PLACES["line"]

    def build(self, seed: int) -> Any:
        from parts_that_break import twice_normalised

        return twice_normalised(seed)


@hookimpl
def ups_kit_components() -> Components:
    return {
        "encoder": {
            "padded": made("Counts padding in its means.", "Padded"),
            "ordered": made("Looks at the order of points.", "Ordered"),
            "narrow": made("Gives tokens of half the width.", "Narrow"),
            "mixing": made("Mixes the samples of a batch.", "Mixing"),
            "rooted": made("Takes a root whose gradient is not finite.", "Rooted"),
        },
        "operator": {
            "idle": made("Has a layer that nothing uses.", "Idle"),
            "numpy_state": made("Keeps a numpy array in its state.", "NumpyState"),
            "random": made("Draws in evaluation mode.", "Random"),
            "unseeded": made("Begins with other weights each time.", "Unseeded"),
        },
        "decoder": {
            "mixes_queries": made("Lets queries hear each other.", "MixesQueries"),
            "numbered": made("Counts its queries.", "Numbered"),
        },
        "loss": {
            "overclaims": with_fields("Says that it reaches the operator.", "Overclaims", Weighted),
            "greedy": with_fields("Uses what it has not asked for.", "Greedy", Weighted),
            "unmasked": with_fields("Means over padding too.", "Unmasked", Weighted),
            "short": with_fields("Looks further ahead than its horizon.", "Short", Weighted),
        },
        "sampler": {
            "draws_padding": with_fields("Draws points that are padding.", "DrawsPadding"),
            "twice": with_fields("Draws a point twice.", "DrawsTwice"),
            "unseeded": with_fields("Draws from a generator of its own.", "DrawsAnew"),
        },
        "metric": {
            "nan": with_fields("Divides by the truth.", "Nan"),
            "offset": with_fields("Is not 0 for a perfect forecast.", "Offset"),
        },
        "tracker": {"littering": LitteringConfig},
        "optimizer": {"forgetful": ForgetfulConfig, "uphill": UphillConfig},
        "schedule": {"negative": NegativeConfig},
        "stage": {"careless": CarelessStageConfig},
        "simulator": {"uneven": UnevenConfig},
        "dataset": {"twice": TwiceConfig},
    }
