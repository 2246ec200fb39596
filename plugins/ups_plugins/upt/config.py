"""The keys of the UPT plugin's losses and stages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from attrs import field, frozen
from attrs.validators import ge, gt, in_, le

from ups_kit import FieldSpec, LatentSpec, Weighted
from ups_kit.interfaces import Loss, Sampler, SamplerConfig

from .refusals import at_all_points, not_steady, whole

if TYPE_CHECKING:
    from .losses import Curriculum

ERRORS = ("mse", "relative")
ERROR_HELP = "mse, or relative: squared error over the mean square of each true frame (+ 0.01)"
SAMPLER_HELP = "which points are decoded and compared; all points where absent"


def _sampler(config: SamplerConfig | None, fields: FieldSpec) -> Sampler | None:
    return None if config is None else config.build(fields)


# ---------------------------------------------------------------------------------------------------------------------
# Losses
# ---------------------------------------------------------------------------------------------------------------------
@frozen(kw_only=True)
class ForwardConfig(Weighted):
    """MSE of one predicted step in physical space: D(A(E(u_t))) against u_{t+1}."""

    takes_weights: ClassVar[bool] = True

    error: Literal["mse", "relative"] = field(default="mse", validator=in_(ERRORS), metadata={"help": ERROR_HELP})
    sampler: SamplerConfig | None = field(default=None, metadata={"help": SAMPLER_HELP})

    def build(self, fields: FieldSpec) -> Loss:
        from .losses import ForwardLoss

        return ForwardLoss(self.error, _sampler(self.sampler, fields))


@frozen(kw_only=True)
class LatentForwardConfig(Weighted):
    """MSE of one predicted step in latent space: A(z_t) against E(u_{t+1}), which carries no gradient."""

    relative: bool = field(default=True, metadata={"help": "divide by the variance of the target latent"})

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """Future frames must be whole, and the encoder must see them."""
        yield from not_steady(fields, "no answer can be encoded; train with the loss 'forward'")
        yield from at_all_points(fields, "this loss encodes whole frames")

    def build(self, fields: FieldSpec) -> Loss:
        from .losses import LatentForwardLoss

        return LatentForwardLoss(self.relative)


@frozen(kw_only=True)
class CurriculumConfig(Weighted):
    """The keys of losses that compare several steps."""

    horizon: int = field(default=4, validator=gt(0), metadata={"help": "the furthest step K", "unit": "model steps"})
    from_step: int = field(
        default=1, validator=gt(0), metadata={"help": "first step that is compared; 2 leaves step 1 out"}
    )
    start: float = field(default=0.0, validator=ge(0), metadata={"help": "when the loss sets in, on the clock"})
    full: float = field(
        default=0.0,
        validator=ge(0),
        metadata={"help": "when the horizon is reached, on the clock; at once where not after the start"},
    )
    clock: Literal["budget", "epochs"] = field(
        default="budget",
        validator=in_(("budget", "epochs")),
        metadata={"help": "start and full are shares of the stage's budget, or epochs"},
    )

    def __attrs_post_init__(self) -> None:
        if self.from_step > self.horizon:
            raise ValueError(f"from_step = {self.from_step} is beyond horizon = {self.horizon}")
        if self.clock == "budget" and max(self.start, self.full) > 1:
            raise ValueError("start and full are shares of the stage's budget, 0 to 1; for epochs set clock = 'epochs'")
        if 0 < self.full < self.start:
            raise ValueError(f"full = {self.full:g} is before start = {self.start:g}")

    def curriculum(self) -> Curriculum:
        """The same, as a loss keeps it."""
        from .losses import Curriculum

        return Curriculum(self.horizon, self.from_step, self.start, self.full, self.clock)


@frozen(kw_only=True)
class RolloutConfig(CurriculumConfig):
    """Mean MSE of several predicted steps in physical space, taken in latent space: D(A^k(z_t)) against u_{t+k}.

    The horizon is a curriculum: nothing before `start`, then a horizon that grows linearly from `from_step`, and
    `horizon` steps from `full` on.
    """

    takes_weights: ClassVar[bool] = True

    error: Literal["mse", "relative"] = field(default="mse", validator=in_(ERRORS), metadata={"help": ERROR_HELP})
    sampler: SamplerConfig | None = field(default=None, metadata={"help": SAMPLER_HELP})

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """Steady data have one step."""
        if self.horizon > 1:
            yield from not_steady(fields, "it has one step; set horizon = 1", "horizon")

    def build(self, fields: FieldSpec) -> Loss:
        from .losses import RolloutLoss

        return RolloutLoss(self.curriculum(), self.error, _sampler(self.sampler, fields))


@frozen(kw_only=True)
class LatentRolloutConfig(CurriculumConfig):
    """Mean MSE of several predicted steps in latent space: A^k(z_t) against E(u_{t+k}), which carries no gradient.

    The horizon is a curriculum, as that of `rollout`. With a `[latent_cache]` no field is read for it.
    """

    relative: bool = field(default=True, metadata={"help": "divide by the variance of each target latent"})

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """There must be frames to come."""
        yield from at_all_points(fields, "this loss encodes whole frames")
        if fields.steady:
            yield "use", "'latent_rollout' encodes future frames, and these data are steady; use 'forward'"

    def build(self, fields: FieldSpec) -> Loss:
        from .losses import LatentRolloutLoss

        return LatentRolloutLoss(self.curriculum(), self.relative)


@frozen(kw_only=True)
class RelativeConfig(Weighted):
    """L2 error of one predicted step over the L2 norm of the truth, of each sample and channel."""

    sampler: SamplerConfig | None = field(default=None, metadata={"help": SAMPLER_HELP})

    def build(self, fields: FieldSpec) -> Loss:
        from .losses import RelativeLoss

        return RelativeLoss(_sampler(self.sampler, fields))


@frozen(kw_only=True)
class SpectralConfig(Weighted):
    """MSE of the magnitudes of the Fourier modes of one predicted step; regular grids only."""

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """The data must lie on a regular grid."""
        yield from whole(fields, "a spectrum needs all points of a grid")
        if fields.grid is None:
            yield "use", f"'spectral' needs fields on a regular grid, these lie on a layout '{fields.layout}'"

    def build(self, fields: FieldSpec) -> Loss:
        from .losses import SpectralLoss

        return SpectralLoss()


@frozen(kw_only=True)
class MeanPreservationConfig(Weighted):
    """MSE of the spatial means of one predicted step: what a conserved mean must not lose."""

    sampler: SamplerConfig | None = field(default=None, metadata={"help": SAMPLER_HELP})

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """The spatial mean is that of all points."""
        yield from whole(fields, "a spatial mean needs all points")

    def build(self, fields: FieldSpec) -> Loss:
        from .losses import MeanPreservationLoss

        return MeanPreservationLoss(_sampler(self.sampler, fields))


@frozen(kw_only=True)
class TotalVariationConfig(Weighted):
    """Mean absolute difference of neighbours in one predicted step: a penalty on wiggles."""

    of: Literal["field", "latent"] = field(
        default="field",
        validator=in_(("field", "latent")),
        metadata={"help": "the decoded field, or the latent tokens"},
    )

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """The data must lie on a regular grid."""
        if self.of == "field":
            yield from whole(fields, "neighbours are neighbours on the whole grid; set of = 'latent'")
            if fields.grid is None:
                expected = "fields on a regular grid; set of = 'latent' where the tokens are on a lattice"
                yield "use", f"'total_variation' needs {expected}; these data lie on a layout '{fields.layout}'"

    def build(self, fields: FieldSpec) -> Loss:
        from .losses import ALL, TotalVariationLoss

        reaches = ALL if self.of == "field" else ("encoder", "operator")
        return TotalVariationLoss(self.of, fields.periodic, reaches)


@frozen(kw_only=True)
class InverseEncodingConfig(Weighted):
    """MSE of decoding what was encoded: D(E(u_t)) against u_t."""

    takes_weights: ClassVar[bool] = True

    error: Literal["mse", "relative"] = field(default="mse", validator=in_(ERRORS), metadata={"help": ERROR_HELP})
    sampler: SamplerConfig | None = field(default=None, metadata={"help": SAMPLER_HELP})

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """There must be a frame that was encoded."""
        yield from not_steady(fields, "no frame is encoded that could be decoded again; train with the loss 'forward'")

    def build(self, fields: FieldSpec) -> Loss:
        from .losses import InverseEncodingLoss

        return InverseEncodingLoss(self.error, _sampler(self.sampler, fields))


@frozen(kw_only=True)
class InverseDecodingConfig(Weighted):
    """MSE of encoding what was decoded: E(D(z)) against z, which carries no gradient as the target."""

    step: int = field(
        default=0, validator=ge(0), metadata={"help": "which latent: 0 is E(u_t), k is k model steps later"}
    )
    share: float = field(
        default=1.0,
        validator=[gt(0), le(1)],
        metadata={"help": "share of the batch's samples that are decoded and encoded"},
    )
    relative: bool = field(default=False, metadata={"help": "divide by the variance of z"})

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """The encoder must see what the decoder gives, at all points."""
        yield from not_steady(fields, "its encoder does not see what is decoded; train with the loss 'forward'")
        yield from at_all_points(fields, "this loss decodes and encodes whole frames")

    def build(self, fields: FieldSpec) -> Loss:
        from .losses import ALL, InverseDecodingLoss

        reaches = ALL if self.step else ("encoder", "decoder")
        return InverseDecodingLoss(self.step, self.share, self.relative, reaches, horizon=self.step)
