"""Recipe keys of the losses and of the stage `token_training`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from attrs import field, frozen
from attrs.validators import ge, gt, optional

from ups_kit import Weighted
from ups_kit.errors import did_you_mean
from ups_kit.fit.checks import active_losses, nothing_to_train, warm_up_problems
from ups_kit.fit.settings import FitSettings
from ups_kit.interfaces import LossConfig, Stage

from ..description import TokenSpec

if TYPE_CHECKING:
    from .losses import TokenLoss

LOSSES_EXAMPLE = '{ next_token = { use = "next_token" }, image = { use = "expected_value", modality = "image" } }'


@runtime_checkable
class ChecksLoss(Protocol):
    """A loss's config that can say, before anything is built, what does not fit the data."""

    def check_data(self, data: TokenSpec) -> Iterable[tuple[str, str]]: ...


@frozen(kw_only=True)
class NextTokenConfig(Weighted):
    """Cross-entropy of the next token among all of the vocabulary: the mean over targets, PAD and MISSING left out."""

    family: ClassVar[str] = "tokens"

    def build(self, fields: TokenSpec) -> TokenLoss:
        from .losses import NextToken

        return NextToken()


@frozen(kw_only=True)
class ExpectedValueConfig(Weighted):
    """Squared error of the value that is expected of the next token of one modality, against its target's own.

    p = softmax of the logits within the modality's ids; the value is p · codebook, and the error the mean over its
    numbers. Every token of the modality gets a gradient in proportion to p. No other logits are computed for it.
    """

    family: ClassVar[str] = "tokens"

    modality: str = field(metadata={"help": "whose values are expected", "example": '"image"'})
    weight: float = field(
        default=0.1, validator=ge(0), metadata={"help": "factor of this loss in the total; 0 switches it off"}
    )
    positions: int | None = field(
        default=4096,
        validator=optional(gt(0)),  # type: ignore[arg-type]  # mypy takes the type from the default alone
        metadata={"help": "targets that are drawn, at most, of the part of a batch that is computed at once"},
    )
    relative: bool = field(
        default=False, metadata={"help": "divide by the variance of the codebook's values, so that units do not matter"}
    )

    def check_data(self, data: TokenSpec) -> Iterable[tuple[str, str]]:
        """The modality must be one of the vocabulary's."""
        names = data.vocabulary.names
        if self.modality not in names:
            near = did_you_mean(self.modality, names)
            yield "modality", f"the data have no modality '{self.modality}'{near} (there are: {', '.join(names)})"

    def build(self, fields: TokenSpec) -> TokenLoss:
        from .losses import ExpectedValue

        return ExpectedValue(self.modality, self.positions, self.relative)


@frozen(kw_only=True)
class TokenTrainingConfig(FitSettings):
    """Trains a model of token sequences on a weighted sum of losses.

    The best weights are chosen by the same sum, every loss at its full weight and at all positions, on sequences of the
    validation split.
    """

    family: ClassVar[str] = "tokens"

    losses: Mapping[str, LossConfig] = field(
        metadata={"help": "losses by name; weight 0 is the same as absent", "example": LOSSES_EXAMPLE}
    )
    name: str = field(default="training", metadata={"help": "name of the stage, and of its folder"})
    validation_samples: int = field(
        default=256, validator=gt(0), metadata={"help": "sequences of a validation, at most"}
    )
    tf32: bool = field(
        default=True, metadata={"help": "on a GPU: matrix products of float32 numbers by their first 10 bits (TF32)"}
    )

    @property
    def trains(self) -> tuple[str, ...]:
        """The whole model."""
        return ("model",)

    def check_data(self, data: TokenSpec) -> Iterable[tuple[str, str]]:
        """The losses fit the data, one of them counts, and the warm-up ends before the budget does."""
        yield from warm_up_problems(self)
        yield from nothing_to_train(self.losses)
        for name, config in active_losses(self.losses).items():
            if isinstance(config, ChecksLoss):
                for key, message in config.check_data(data):
                    yield f"losses.{name}.{key}", message

    def build(self) -> Stage:
        from .stage import TokenTraining

        return TokenTraining(self)
