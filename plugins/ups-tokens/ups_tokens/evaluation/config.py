"""Recipe keys of the stage `token_evaluation`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from attrs import field, frozen
from attrs.validators import deep_iterable, ge, gt, in_, optional

from ups_kit.fit.order import trained_by
from ups_kit.interfaces import FieldSpec, Stage, StageConfig

Judged = Literal["expected_value", "cross_entropy", "both"]
FLOORS = ("unigram", "previous")


@frozen(kw_only=True)
class TokenEvaluationConfig:
    """Measures a trained model of token sequences beside its floors, and writes a report; trains nothing.

    Every token is predicted from the true ones before it.
    """

    family: ClassVar[str] = "tokens"

    name: str = field(default="evaluation", metadata={"help": "name of the stage, and of its folder"})
    split: Literal["validation", "test"] = field(
        default="test", validator=in_(("validation", "test")), metadata={"help": "whose sequences are scored"}
    )
    samples: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "sequences that are scored, evenly spread; all where not given"},
    )
    batch: int = field(default=32, validator=gt(0), metadata={"help": "sequences at once"})
    judged: Judged = field(
        default="expected_value",
        validator=in_(("expected_value", "cross_entropy", "both")),
        metadata={"help": "what must beat the floors: squared errors of expected values, the cross-entropy, or both"},
    )
    floors: tuple[str, ...] = field(
        default=FLOORS,
        validator=deep_iterable(in_(FLOORS)),
        metadata={"help": "floors that must be beaten: unigram, previous"},
    )
    shown: int = field(default=4, validator=ge(0), metadata={"help": "sequences that are drawn in the report"})

    def check_order(self, earlier: Sequence[StageConfig], fields: FieldSpec | None = None) -> Iterable[tuple[str, str]]:
        """There must be something to measure."""
        if "model" not in trained_by(earlier):
            yield "", f"no earlier stage trains the model; put one that does before '{self.name}'"

    def build(self) -> Stage:
        from .stage import TokenEvaluation

        return TokenEvaluation(self)
