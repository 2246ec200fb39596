"""Recipe keys of the optimisers and the learning-rate schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import Attribute, field, frozen
from attrs.validators import ge, gt, le, lt

from ups_kit.interfaces import Schedule

if TYPE_CHECKING:
    import torch
    from torch import nn


def _shares(instance: object, attribute: Attribute[Any], value: tuple[float, ...]) -> None:
    if not all(0 <= share < 1 for share in value):
        raise ValueError(f"{attribute.name} = {list(value)}: each must be at least 0 and less than 1")


def _lr(default: float, help_text: str = "learning rate") -> Any:
    return field(default=default, validator=gt(0.0), metadata={"help": help_text})


def _weight_decay(default: float, help_text: str) -> Any:
    return field(default=default, validator=ge(0.0), metadata={"help": help_text})


DECAYED = "decoupled weight decay of linear and convolution weights; biases, norms and embeddings have none"


@frozen
class AdamWConfig:
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101), fused."""

    lr: float = _lr(1e-3)
    weight_decay: float = _weight_decay(0.01, DECAYED)
    betas: tuple[float, float] = field(
        default=(0.9, 0.999), validator=_shares, metadata={"help": "decay of the two moments"}
    )
    eps: float = field(default=1e-8, validator=gt(0.0), metadata={"help": "added to the denominator"})

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        from .optimizers import adamw

        return adamw(model, self)


@frozen
class AdamConfig:
    """Adam (Kingma and Ba, arXiv:1412.6980), fused; `weight_decay` is added to the gradient (L2)."""

    lr: float = _lr(1e-3)
    weight_decay: float = _weight_decay(
        0.0, "L2 penalty of linear and convolution weights; biases, norms and embeddings have none"
    )
    betas: tuple[float, float] = field(
        default=(0.9, 0.999), validator=_shares, metadata={"help": "decay of the two moments"}
    )
    eps: float = field(default=1e-8, validator=gt(0.0), metadata={"help": "added to the denominator"})

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        from .optimizers import adam

        return adam(model, self)


@frozen
class SGDConfig:
    """Stochastic gradient descent with Nesterov momentum, fused."""

    lr: float = _lr(0.01)
    momentum: float = field(default=0.9, validator=[ge(0.0), lt(1.0)], metadata={"help": "momentum; 0 switches it off"})
    weight_decay: float = _weight_decay(
        0.0, "L2 penalty of linear and convolution weights; biases, norms and embeddings have none"
    )

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        from .optimizers import sgd

        return sgd(model, self)


@frozen
class MuonConfig:
    """Muon on the hidden matrices, AdamW on the rest, as one optimiser.

    Hidden matrices are the 2-D weights of linear layers inside transformer blocks (`ups_kit.layers.Block`). Their
    update is the momentum, made orthogonal by five Newton-Schulz steps and scaled by sqrt(max(1, rows / columns))
    (Jordan 2024, kellerjordan.github.io/posts/muon). An update costs a few matrix products per matrix, whatever the
    batch: on a CPU it is worth it where a step takes much longer than that.
    """

    lr: float = _lr(0.02, "learning rate of the hidden matrices")
    weight_decay: float = _weight_decay(0.01, "decoupled weight decay of the hidden matrices")
    momentum: float = field(
        default=0.95, validator=[ge(0.0), lt(1.0)], metadata={"help": "Nesterov momentum of the hidden matrices"}
    )
    rest_lr: float = _lr(2e-3, "learning rate of all other parameters")
    rest_weight_decay: float = _weight_decay(0.01, DECAYED)
    betas: tuple[float, float] = field(
        default=(0.9, 0.95), validator=_shares, metadata={"help": "decay of AdamW's two moments"}
    )

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        from .optimizers import muon

        return muon(model, self)


@frozen(kw_only=True)
class WarmUp:
    """Keys of a linear warm-up from nothing to the full learning rate, in steps or as a share of the budget."""

    warmup: int = field(default=0, validator=ge(0), metadata={"help": "steps of linear warm-up", "unit": "steps"})
    warmup_fraction: float = field(
        default=0.0, validator=[ge(0.0), le(1.0)], metadata={"help": "share of the budget that is linear warm-up"}
    )

    def __attrs_post_init__(self) -> None:
        if self.warmup and self.warmup_fraction:
            raise ValueError("warmup and warmup_fraction are two ways to say one thing; give one of them")


@frozen(kw_only=True)
class ConstantScheduleConfig(WarmUp):
    """The base learning rate throughout, after the warm-up."""

    def build(self) -> Schedule:
        from .schedules import ConstantSchedule

        return ConstantSchedule(self)


@frozen(kw_only=True)
class CosineScheduleConfig(WarmUp):
    """Half a cosine over the stage's budget, from the base learning rate to `final` times it, times the warm-up.

    With `after_warmup` one after the other: from 0 to the base learning rate over the warm-up, then the half cosine.
    """

    final: float = field(
        default=0.0, validator=[ge(0.0), le(1.0)], metadata={"help": "factor of the learning rate at the end"}
    )
    after_warmup: bool = field(
        default=False,
        metadata={"help": "begin the cosine where the warm-up ends, instead of multiplying the two"},
    )

    def build(self) -> Schedule:
        from .schedules import CosineSchedule

        return CosineSchedule(self)


@frozen(kw_only=True)
class StepScheduleConfig(WarmUp):
    """The learning rate is multiplied with `factor` every `steps` steps."""

    steps: int = field(validator=gt(0), metadata={"help": "steps between changes", "unit": "steps", "example": "1000"})
    factor: float = field(
        default=0.5, validator=[gt(0.0), lt(1.0)], metadata={"help": "what the learning rate is multiplied with"}
    )

    def build(self) -> Schedule:
        from .schedules import StepSchedule

        return StepSchedule(self)


@frozen(kw_only=True)
class PlateauScheduleConfig(WarmUp):
    """The learning rate is multiplied with `factor` when the validation score no longer falls."""

    factor: float = field(
        default=0.5, validator=[gt(0.0), lt(1.0)], metadata={"help": "what the learning rate is multiplied with"}
    )
    patience: int = field(
        default=2, validator=ge(0), metadata={"help": "validations without improvement that are waited for"}
    )
    threshold: float = field(
        default=1e-3, validator=[ge(0.0), lt(1.0)], metadata={"help": "relative fall that counts as improvement"}
    )
    minimum: float = field(
        default=1e-3, validator=[ge(0.0), le(1.0)], metadata={"help": "the factor never falls below this"}
    )

    def build(self) -> Schedule:
        from .schedules import PlateauSchedule

        return PlateauSchedule(self)
