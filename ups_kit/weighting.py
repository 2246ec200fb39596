"""How much a loss counts, and when: the keys that every loss shares."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import ge, gt, optional

from .interfaces import Progress


@frozen(kw_only=True)
class Weighted:
    """Weight curriculum of a loss (docs/method.md §2): nothing during `warmup` epochs, a linear ramp, then a constant.

    With weight w, warm-up W and ramp R (W where not given), in fractional epochs e:
    0 for e < W; w·(e − W)/R for W ≤ e < W + R; then w; never above `cap`.
    """

    weight: float = field(
        default=1.0, validator=ge(0), metadata={"help": "factor of this loss in the total; 0 switches it off"}
    )
    every: int = field(default=1, validator=gt(0), metadata={"help": "apply on every n-th optimiser step"})
    warmup: float = field(
        default=0.0, validator=ge(0), metadata={"help": "epochs before the loss sets in", "unit": "epochs"}
    )
    ramp: float | None = field(
        default=None,
        validator=optional(ge(0)),
        metadata={
            "help": "epochs from nothing to full weight; as long as the warm-up where not given",
            "unit": "epochs",
        },
    )
    cap: float | None = field(
        default=None, validator=optional(ge(0)), metadata={"help": "the weight never exceeds this"}
    )

    def weight_at(self, progress: Progress) -> float:
        """The weight at this point of a stage; 0 where the loss is not applied."""
        if self.weight == 0 or progress.step % self.every or progress.epoch < self.warmup:
            return 0.0
        ramp = self.warmup if self.ramp is None else self.ramp
        share = min((progress.epoch - self.warmup) / ramp, 1.0) if ramp > 0 else 1.0
        weight = self.weight * share
        return weight if self.cap is None else min(weight, self.cap)
