"""Recipe keys of the generative stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs
from attrs import field, frozen
from attrs.validators import deep_iterable, ge, gt, le, lt, min_len, optional

from ups_kit import FieldSpec, LatentSpec, Recipe
from ups_kit.errors import did_you_mean
from ups_kit.fit.checks import check_settings
from ups_kit.fit.order import is_skipped, trained_by
from ups_kit.fit.settings import FieldFitSettings
from ups_kit.interfaces import AddsPart, Stage, StageConfig, heads_problems

if TYPE_CHECKING:
    from torch import nn

    from .network import NetworkSize


@frozen(kw_only=True)
class GenerativeSettings(FieldFitSettings):
    """The keys that the stages share which learn a velocity: the network, how it is solved, how it is scored."""

    tiny: ClassVar[Mapping[str, Any]] = {"width": 16, "depth": 1, "heads": 1, "shown": (1, 2), "sampling_steps": 2}

    width: int = field(default=64, validator=gt(0), metadata={"help": "width of the velocity network"})
    depth: int = field(default=4, validator=gt(0), metadata={"help": "its transformer blocks"})
    heads: int = field(default=2, validator=gt(0), metadata={"help": "its attention heads; divides width"})
    mlp_ratio: float = field(default=2.0, validator=gt(0), metadata={"help": "width of a block's network, in widths"})
    rank: int = field(
        default=16, validator=gt(0), metadata={"help": "width of the code that conditions and τ are brought to"}
    )
    neighbours: bool = field(
        default=True, metadata={"help": "mix direct neighbours before each attention, where tokens form a lattice"}
    )
    solver: Literal["euler", "heun"] = field(
        default="euler", metadata={"help": "how samples are drawn; one step of euler gives the conditional mean"}
    )
    tau_min: float = field(default=0.0, validator=[ge(0), lt(1)], metadata={"help": "least τ that is trained on"})
    tau_max: float = field(default=1.0, validator=[gt(0), le(1)], metadata={"help": "largest τ that is trained on"})
    shown: tuple[int, ...] = field(
        default=(1, 2, 8, 32),
        validator=[min_len(1), deep_iterable(gt(0))],
        metadata={"help": "numbers of the solver's steps that an evaluation compares"},
    )
    sampling_steps: int = field(
        default=8, validator=gt(0), metadata={"help": "the solver's steps where nothing else is asked for"}
    )
    validation_windows: int = field(default=100, validator=gt(0), metadata={"help": "windows of a validation, at most"})

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.tau_min >= self.tau_max:
            raise ValueError(f"tau_min = {self.tau_min:g} is not below tau_max = {self.tau_max:g}")

    @property
    def trains(self) -> tuple[str, ...]:
        """Of the parts that every model has, none."""
        return ()

    def size(self) -> NetworkSize:
        """How large the network is."""
        from .network import NetworkSize

        return NetworkSize(self.width, self.depth, self.heads, self.mlp_ratio, self.rank, self.neighbours)

    def check_shared(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """What is wrong with the shared keys."""
        yield from check_settings(self, fields, latent)
        yield from heads_problems(self.heads, self.width, "width")


@frozen(kw_only=True)
class DiffusionStageConfig(GenerativeSettings):
    """Learns what the operator leaves out, z_{t+1} − A(z_t), as a distribution given A(z_t), by flow matching.

    Encoder, operator and decoder stay as they are. The best weights are chosen by the flow-matching error on the
    validation split. The evaluation compares forecasts that are corrected with it to those of the operator alone.
    """

    name: str = field(default="diffusion", metadata={"help": "name of the stage, of its folder and part"})
    horizon: int = field(
        default=1,
        validator=gt(0),
        metadata={"help": "residuals after 1 to so many steps of the operator are learnt", "unit": "model steps"},
    )

    @property
    def keeps_encoder(self) -> bool:
        """Cached latents serve it."""
        return True

    @property
    def learns_from(self) -> tuple[str, ...]:
        """The parts that make the residuals."""
        return ("encoder", "operator")

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        yield from self.check_shared(fields, latent)
        yield from evolving(fields)

    def check_order(self, earlier: Sequence[StageConfig], fields: FieldSpec | None = None) -> Iterable[tuple[str, str]]:
        """The operator whose residuals are learnt must have been trained."""
        if "operator" not in trained_by(earlier, fields) and not is_skipped(self):
            yield "use", f"no earlier stage trains the operator; put a stage that does before '{self.name}'"

    def build_part(self, recipe: Recipe, fields: FieldSpec) -> nn.Module:
        from .residual import ResidualFlow

        return ResidualFlow(fields, recipe.latent.width, self.size(), self.solver, self.shown, self.sampling_steps)

    def build(self) -> Stage:
        from .stages import DiffusionStage

        return DiffusionStage(self)


@frozen(kw_only=True)
class ConsistencyStageConfig(FieldFitSettings):
    """Distils a diffusion stage's many steps into one or two: consistency distillation with an averaged target.

    The student's jump from τ must agree with a step of the teacher and the jump of the student's moving average from
    there. It begins as its teacher. The best weights are chosen by how far one jump is from the teacher's solution.
    """

    tiny: ClassVar[Mapping[str, Any]] = {"teacher_steps": 3}

    name: str = field(default="consistency", metadata={"help": "name of the stage, of its folder and part"})
    teacher: str = field(default="diffusion", metadata={"help": "name of the stage that is distilled"})
    teacher_steps: int = field(
        default=32, validator=gt(1), metadata={"help": "steps of the teacher's solver that a path is cut into"}
    )
    target_decay: float = field(
        default=0.95, validator=[ge(0.0), lt(1.0)], metadata={"help": "decay of the target's moving average"}
    )
    horizon: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "residuals after 1 to so many steps are distilled; the teacher's where not given"},
    )
    shown: tuple[int, ...] = field(
        default=(1, 2),
        validator=[min_len(1), deep_iterable(gt(0))],
        metadata={"help": "numbers of jumps that an evaluation compares"},
    )
    sampling_steps: int = field(default=1, validator=gt(0), metadata={"help": "jumps where nothing else is asked for"})
    validation_windows: int = field(default=100, validator=gt(0), metadata={"help": "windows of a validation, at most"})

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        most = max(*self.shown, self.sampling_steps)
        if self.teacher_steps <= most:
            own = f"shown = {list(self.shown)}" if most in self.shown else f"sampling_steps = {most}"
            raise ValueError(
                f"teacher_steps = {self.teacher_steps} is not above {own}, the student's own steps; "
                f"nearest: teacher_steps = {most + 1}"
            )

    @property
    def trains(self) -> tuple[str, ...]:
        """Of the parts that every model has, none."""
        return ()

    @property
    def keeps_encoder(self) -> bool:
        """Cached latents serve it."""
        return True

    @property
    def learns_from(self) -> tuple[str, ...]:
        """The parts that make the residuals."""
        return ("encoder", "operator")

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        yield from check_settings(self, fields, latent)
        yield from evolving(fields)

    def check_order(self, earlier: Sequence[StageConfig], fields: FieldSpec | None = None) -> Iterable[tuple[str, str]]:
        """There must be a teacher, and it must have been trained."""
        teachers = {stage.name: stage for stage in earlier if isinstance(stage, DiffusionStageConfig)}
        if self.teacher not in teachers:
            there = f" (there: {', '.join(teachers)})" if teachers else ""
            yield (
                "teacher",
                f"no earlier stage is a diffusion called '{self.teacher}'{did_you_mean(self.teacher, teachers)}"
                f'{there}; put [[stages]] with use = "diffusion" before this one',
            )
        elif is_skipped(teachers[self.teacher]) and not is_skipped(self):
            yield "teacher", f"the stage '{self.teacher}' is skipped, its budget is 0: there is nothing to distil"

    def build_part(self, recipe: Recipe, fields: FieldSpec) -> nn.Module:
        from .residual import ResidualStudent

        teacher = teacher_of(self, recipe)
        size, solver = teacher.size(), teacher.solver
        return ResidualStudent(fields, recipe.latent.width, size, solver, self.shown, self.sampling_steps)

    def build(self) -> Stage:
        from .stages import ConsistencyStage

        return ConsistencyStage(self)


@frozen(kw_only=True)
class SteadyPriorStageConfig(GenerativeSettings):
    """Learns the latents of steady states as a distribution, given the static fields and the parameters.

    The latents are those of a codec stage before it, which encodes answers and decodes them again. The static fields
    (geometry, boundary conditions, media) go through an encoder of its own, built as the recipe's. `upskit predict`
    draws from it.
    """

    name: str = field(default="steady_prior", metadata={"help": "name of the stage, of its folder and part"})
    codec: str = field(default="codec", metadata={"help": "name of the codec stage whose latents are learnt"})

    @property
    def learns_from(self) -> tuple[str, ...]:
        """The part that decodes the latents."""
        return ("decoder",)

    @property
    def forecasts_alone(self) -> bool:
        """It draws answers from the static fields and the parameters."""
        return True

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        yield from self.check_shared(fields, latent)
        if not fields.steady:
            yield (
                "use",
                "learns the answers of steady data, and these evolve in time; use 'diffusion' after an operator stage",
            )

    def check_order(self, earlier: Sequence[StageConfig], fields: FieldSpec | None = None) -> Iterable[tuple[str, str]]:
        """There must be a codec, and nobody may have changed the decoder since."""
        if is_skipped(self):
            return
        codecs = [stage.name for stage in earlier if isinstance(stage, AddsPart) and "decoder" in trained_by([stage])]
        if self.codec in [stage.name for stage in earlier if is_skipped(stage)]:
            yield "codec", f"the stage '{self.codec}' is skipped, its budget is 0: there are no latents to learn"
            return
        if self.codec not in codecs:
            there = f" (there: {', '.join(codecs)})" if codecs else ""
            yield (
                "codec",
                f"no earlier stage is a codec called '{self.codec}'{did_you_mean(self.codec, codecs)}{there}; "
                'put [[stages]] with use = "codec" before this one',
            )
            return
        names = [stage.name for stage in earlier]
        for stage in earlier[names.index(self.codec) + 1 :]:
            if "decoder" in trained_by([stage]):
                yield (
                    "codec",
                    f"the stage '{stage.name}' trains the decoder on after '{self.codec}', whose latents it then no "
                    f"longer decodes; set freeze = [\"decoder\"] in '{stage.name}', or put it before '{self.codec}'",
                )

    def build_part(self, recipe: Recipe, fields: FieldSpec) -> nn.Module:
        from .prior import SteadyPrior

        geometry = recipe.encoder.build(attrs.evolve(fields, history=0), recipe.latent)
        return SteadyPrior(
            geometry, fields, recipe.latent.width, self.size(), self.solver, self.shown, self.sampling_steps
        )

    def build(self) -> Stage:
        from .stages import SteadyPriorStage

        return SteadyPriorStage(self)


def teacher_of(config: ConsistencyStageConfig, recipe: Recipe) -> DiffusionStageConfig:
    """The stage that a student learns from; the order of stages has been checked."""
    found = next(stage for stage in recipe.stages if stage.name == config.teacher)
    assert isinstance(found, DiffusionStageConfig)
    return found


def evolving(fields: FieldSpec) -> Iterable[tuple[str, str]]:
    """Residuals are of time steps, between whole frames that can be encoded."""
    if fields.steady:
        yield (
            "use",
            "learns what one time step leaves out, and these data are steady, one answer to static fields; "
            "use 'steady_prior' after a codec stage",
        )
    elif fields.sampled is not None:
        yield (
            "use",
            f"dataset.points = {fields.sampled} reads frames at random points alone, and whole ones are encoded",
        )
