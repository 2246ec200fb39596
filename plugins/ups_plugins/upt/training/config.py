"""Recipe keys of the stages `codec` and `operator`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import evolve, field, frozen
from attrs.validators import deep_iterable, gt, in_

from ups_kit.fit.checks import check_losses, check_settings
from ups_kit.fit.order import trained_by
from ups_kit.fit.settings import FieldFitSettings
from ups_kit.interfaces import FieldSpec, LatentSpec, LossConfig, Stage, StageConfig

from ..config import InverseDecodingConfig, InverseEncodingConfig

if TYPE_CHECKING:
    from torch import nn

    from ups_kit import Recipe

PARTS = ("encoder", "operator", "decoder")
LOSSES_EXAMPLE = '{ forward = { use = "forward" }, inverse_encoding = { use = "inverse_encoding", weight = 0.1 } }'


@frozen(kw_only=True)
class OperatorStageConfig(FieldFitSettings):
    """Trains encoder, operator and decoder end to end on a weighted sum of losses (docs/method.md §4).

    The best weights are chosen by the nRMSE of rollouts on the validation split, in physical units.
    """

    losses: Mapping[str, LossConfig] = field(
        metadata={"help": "losses by name; weight 0 is the same as absent", "example": LOSSES_EXAMPLE}
    )
    name: str = field(default="operator", metadata={"help": "name of the stage, and of its folder"})
    freeze: tuple[str, ...] = field(
        default=(),
        validator=deep_iterable(in_(PARTS)),
        metadata={"help": "parts that keep the weights of an earlier stage: encoder, operator, decoder"},
    )
    calibrate: bool = field(
        default=True, metadata={"help": "first fit the decoder in closed form to the fresh encoder, where it can be"}
    )
    validation_steps: int = field(
        default=8, validator=gt(0), metadata={"help": "length of the validation rollouts", "unit": "model steps"}
    )
    validation_trajectories: int = field(
        default=50, validator=gt(0), metadata={"help": "rollouts of a validation, at most"}
    )
    validation_rollout: Literal["latent", "reencoded"] = field(
        default="latent",
        metadata={"help": "what the best weights are chosen by: rollouts in latent space, or re-encoded"},
    )

    @property
    def trains(self) -> tuple[str, ...]:
        """The parts of the model whose weights this stage changes."""
        return tuple(part for part in PARTS if part not in self.freeze)

    @property
    def keeps_encoder(self) -> bool:
        """Whether the encoder stays as it is, so that cached latents stay true."""
        return "encoder" in self.freeze

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        yield from check_settings(self, fields, latent)
        yield from check_losses(self.losses, fields, latent, self.periodic_shifts)
        if not self.trains:
            yield "freeze", f"all parts are frozen, so there is nothing to train; leave one of {', '.join(PARTS)} out"

    def check_order(self, earlier: Sequence[StageConfig], fields: FieldSpec | None = None) -> Iterable[tuple[str, str]]:
        """What is frozen must have been trained: an encoder that never was is of no use to anyone."""
        trained = trained_by(earlier, fields)
        for part in self.freeze:
            if part not in trained:
                yield "freeze", f"no earlier stage trains the {part}; put a stage that does before '{self.name}'"

    def build(self) -> Stage:
        from .stages import OperatorStage

        return OperatorStage(self)


@frozen(kw_only=True)
class CodecStageConfig(FieldFitSettings):
    """Trains encoder and decoder alone, as an autoencoder, on the inverse losses (docs/method.md §4).

    The best weights are chosen by the nRMSE of encoding and decoding on the validation split, in physical units. Of
    steady data it is the answers that are encoded, by an encoder that is added to the model under the stage's name.
    """

    losses: Mapping[str, LossConfig] = field(
        metadata={"help": "inverse losses by name", "example": '{ inverse_encoding = { use = "inverse_encoding" } }'}
    )
    name: str = field(default="codec", metadata={"help": "name of the stage, and of its folder"})
    calibrate: bool = field(
        default=True, metadata={"help": "first fit the decoder in closed form to the fresh encoder, where it can be"}
    )
    validation_trajectories: int = field(
        default=50, validator=gt(0), metadata={"help": "samples of a validation, at most"}
    )

    @property
    def trains(self) -> tuple[str, ...]:
        """The parts of the model whose weights this stage changes."""
        return ("encoder", "decoder")

    def trained_on(self, fields: FieldSpec) -> tuple[str, ...]:
        """Of steady data the decoder alone: the encoder that is trained beside it is that of answers."""
        return ("decoder",) if fields.steady else self.trains

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        yield from check_settings(self, fields, latent)
        yield from check_losses(self.losses, self.seen(fields), latent, self.periodic_shifts)
        for name, config in self.losses.items():
            steps = getattr(config, "step", 0)
            if steps:
                yield f"losses.{name}.step", f"the codec stage has no operator to take {steps} steps; use 0"
            elif type(config).__module__ == InverseEncodingConfig.__module__ and not isinstance(
                config, (InverseEncodingConfig, InverseDecodingConfig)
            ):
                yield (
                    f"losses.{name}",
                    "needs the operator; the codec stage takes inverse_encoding and inverse_decoding",
                )

    def seen(self, fields: FieldSpec) -> FieldSpec:
        """What the losses see: the data, or their answers as frames."""
        return evolve(fields, history=1, statics=()) if fields.steady else fields

    def build_part(self, recipe: Recipe, fields: FieldSpec) -> nn.Module | None:
        """The encoder of answers, where the data are steady."""
        from ups_kit.data.answers import answer_encoder

        return answer_encoder(recipe, fields) if fields.steady else None

    def build(self) -> Stage:
        from .stages import CodecStage

        return CodecStage(self)
