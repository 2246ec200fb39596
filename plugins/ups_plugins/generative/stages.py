"""The stages `diffusion`, `consistency` and `steady_prior`: what each fits, and how it is scored.

Every stage trains one part of the model, which the model keeps under the stage's name. The rest of the model is only
asked, without gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import attrs
import torch
from torch import Tensor, nn

from ups_kit import Batch, Latent, Progress
from ups_kit.data.answers import answer_model, answers_of
from ups_kit.fit.batches import TrainingWindows, on_cached_latents, train_windows
from ups_kit.fit.fitting import Task
from ups_kit.fit.forward import LossBundle
from ups_kit.fit.loop import fit
from ups_kit.fit.settings import FieldFitSettings
from ups_kit.fit.validating import Validation
from ups_kit.folder import StageFolder
from ups_kit.generating import Noise
from ups_kit.trackers import Trackers

from .config import ConsistencyStageConfig, DiffusionStageConfig, SteadyPriorStageConfig, teacher_of
from .flow import consistency_error, flow_error, jump, solve
from .prior import SteadyPrior
from .residual import Distillation, ResidualFlow, ResidualStudent
from .training import Pair, check_residuals, drawn_times, measuring_batches, residual_pair

if TYPE_CHECKING:
    from ups_kit.assemble import Experiment
    from ups_kit.model import LatentModel

Loss = Callable[[Batch, Progress, torch.Generator], LossBundle]
DRAWS = 4  # of each validation window


# ---------------------------------------------------------------------------------------------------------------------
# What the operator leaves out
# ---------------------------------------------------------------------------------------------------------------------
class DiffusionStage:
    """Fits a `ResidualFlow` to z_{t+k} − A^k(z_t)."""

    def __init__(self, config: DiffusionStageConfig) -> None:
        self._config = config

    def run(self, experiment: Experiment, folder: StageFolder, trackers: Trackers) -> Mapping[str, Any]:
        """Train; afterwards the part of this stage's name holds the weights that did best on validation."""
        part, model = self._part(experiment), _asked(experiment.model)
        windows = self._windows(experiment)
        pairs = [residual_pair(model, batch, 1) for batch in measuring_batches(windows, experiment.device)]
        predicted = torch.cat([pair.predicted.tokens.flatten(0, 1) for pair in pairs])  # of tasks on several grids, too
        target = torch.cat([pair.target.flatten(0, 1) for pair in pairs])
        part.measure(pairs[0].predicted._replace(tokens=predicted[None]), target[None])
        windows, cache = _cached(experiment, windows, trackers)
        return fit(self._task(experiment, windows), folder, trackers) | _sizes(part) | cache

    def check_ahead(self, experiment: Experiment) -> None:
        """Residuals can be taken, so many steps ahead."""
        check_residuals(experiment, f"stages.{self._config.name}", self._config.horizon)

    @contextmanager
    def task(self, experiment: Experiment) -> Iterator[Task]:
        """What `run` would fit, for `upskit plan`."""
        yield self._task(experiment, self._windows(experiment))

    def _windows(self, experiment: Experiment) -> TrainingWindows:
        self.check_ahead(experiment)
        return train_windows(experiment, self._config, self._config.name, self._config.horizon)

    def _part(self, experiment: Experiment) -> ResidualFlow:
        return cast("ResidualFlow", experiment.model.added[self._config.name])

    def _task(self, experiment: Experiment, windows: TrainingWindows) -> Task:
        config, part, model = self._config, self._part(experiment), _asked(experiment.model)

        def loss(batch: Batch, progress: Progress, generator: torch.Generator) -> LossBundle:
            pair = residual_pair(model, batch, drawn_step(config.horizon, generator))
            noise = normal(pair.target, generator)
            time = drawn_times(len(noise), config.tau_min, config.tau_max, generator)
            return _bundle("flow", residual_flow_error(part, pair, noise, time))

        def scores(found: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
            return flow_scores(cast("ResidualFlow", found), residual_pair(model, batch, 1), batch)

        validation = Validation(
            experiment.dataset, experiment.device, 1, config.validation_windows, config.batch, scores
        )
        return _task_of(experiment, config, part, windows, loss, validation)


def residual_flow_error(part: ResidualFlow, pair: Pair, noise: Tensor, time: Tensor) -> Tensor:
    """The flow-matching error of a part on residuals in its own units, (batch,)."""
    given = part.seen(pair.predicted)
    data = part.residual(pair.target - pair.predicted.tokens)
    return flow_error(lambda values, at: part.net(values, at, given), data, noise, time)


def flow_scores(part: ResidualFlow, pair: Pair, batch: Batch) -> Mapping[str, Tensor]:
    """The flow-matching error with fixed noise and times (`score`), and what the mean correction leaves of a residual.

    `residual_left` is |z_{t+1} − A(z_t) − E[r]|² over |z_{t+1} − A(z_t)|²: below 1 where correcting brings latents
    nearer.
    """
    ids = tuple(int(number) for number in batch.ids)
    errors = []
    for draw in range(DRAWS):
        noise = Noise(0, draw, ids)(0, pair.target)
        place = torch.arange(len(ids), device=noise.device) / len(ids)
        errors.append(residual_flow_error(part, pair, noise, (place + (draw + 0.5) / DRAWS / len(ids)).clamp(max=1.0)))
    mean = part.correct(pair.predicted, torch.zeros_like(pair.target), 1).tokens
    before = (pair.target - pair.predicted.tokens).square().flatten(1).mean(1)
    left = (pair.target - mean).square().flatten(1).mean(1) / before.clamp_min(torch.finfo(before.dtype).tiny)
    return {"score": torch.stack(errors).mean(0), "residual_left": left}


class ConsistencyStage:
    """Distils a `ResidualFlow` into a `ResidualStudent`."""

    def __init__(self, config: ConsistencyStageConfig) -> None:
        self._config = config

    def run(self, experiment: Experiment, folder: StageFolder, trackers: Trackers) -> Mapping[str, Any]:
        """Train; afterwards the part of this stage's name holds the weights that did best on validation."""
        windows, cache = _cached(experiment, self._windows(experiment), trackers)
        result = fit(self._task(experiment, windows), folder, trackers)
        return result | _sizes(experiment.model.added[self._config.name]) | cache

    @contextmanager
    def task(self, experiment: Experiment) -> Iterator[Task]:
        """What `run` would fit, for `upskit plan`."""
        yield self._task(experiment, self._windows(experiment))

    def check_ahead(self, experiment: Experiment) -> None:
        """Residuals can be taken, so many steps ahead."""
        check_residuals(experiment, f"stages.{self._config.name}", self._horizon(experiment))

    def _windows(self, experiment: Experiment) -> TrainingWindows:
        self.check_ahead(experiment)
        return train_windows(experiment, self._config, self._config.name, self._horizon(experiment))

    def _horizon(self, experiment: Experiment) -> int:
        return self._config.horizon or teacher_of(self._config, experiment.recipe).horizon

    def _task(self, experiment: Experiment, windows: TrainingWindows) -> Task:
        config, model, horizon = self._config, _asked(experiment.model), self._horizon(experiment)
        teacher = cast("ResidualFlow", model.added[config.teacher]).eval()
        student = cast("ResidualStudent", model.added[config.name])
        distillation = Distillation(student, teacher, config.target_decay).to(experiment.device)

        def loss(batch: Batch, progress: Progress, generator: torch.Generator) -> LossBundle:
            distillation.follow(progress.step)
            pair = residual_pair(model, batch, drawn_step(horizon, generator))
            noise = normal(pair.target, generator)
            steps, device = config.teacher_steps, noise.device
            place = torch.randint(steps, (len(noise),), generator=generator, device=device)
            return _bundle("consistency", distillation_error(distillation, teacher, pair, noise, place, steps))

        def scores(found: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
            pair = residual_pair(model, batch, 1)
            return student_scores(cast("Distillation", found).student, teacher, pair, batch, config.teacher_steps)

        validation = Validation(
            experiment.dataset, experiment.device, 1, config.validation_windows, config.batch, scores
        )
        return _task_of(experiment, config, distillation, windows, loss, validation)


def distillation_error(
    distillation: Distillation, teacher: ResidualFlow, pair: Pair, noise: Tensor, place: Tensor, steps: int
) -> Tensor:
    """How far jumps are from the target's, one step of the teacher on, in the teacher's units: (batch,)."""
    given = teacher.seen(pair.predicted)
    data = teacher.residual(pair.target - pair.predicted.tokens)
    net, target = distillation.student.net, distillation.target
    return consistency_error(
        jump(lambda values, time: net(values, time, given)),
        jump(lambda values, time: target(values, time, given)),
        lambda values, time: teacher.net(values, time, given),
        data,
        noise,
        place,
        steps,
        teacher.solver,
    )


def student_scores(
    student: ResidualStudent, teacher: ResidualFlow, pair: Pair, batch: Batch, steps: int
) -> Mapping[str, Tensor]:
    """Mean squared distance of one jump to the teacher's solution from the same noise, in units of the residual."""
    noise = Noise(0, 0, tuple(int(number) for number in batch.ids))(0, pair.target)
    one, many = student.correct(pair.predicted, noise, 1), teacher.correct(pair.predicted, noise, steps)
    return {"score": ((one.tokens - many.tokens) / teacher.residual.spread).square().flatten(1).mean(1)}


# ---------------------------------------------------------------------------------------------------------------------
# Steady states
# ---------------------------------------------------------------------------------------------------------------------
class SteadyPriorStage:
    """Fits a `SteadyPrior` to the latents of answers."""

    def __init__(self, config: SteadyPriorStageConfig) -> None:
        self._config = config

    def run(self, experiment: Experiment, folder: StageFolder, trackers: Trackers) -> Mapping[str, Any]:
        """Train; afterwards the part of this stage's name holds the weights that did best on validation."""
        part, encode = self._part(experiment), self._encoded(experiment)
        windows = self._windows(experiment)
        part.state.measure(torch.cat([encode(batch).tokens for batch in measuring_batches(windows, experiment.device)]))
        return fit(self._task(experiment, windows), folder, trackers) | _sizes(part)

    @contextmanager
    def task(self, experiment: Experiment) -> Iterator[Task]:
        """What `run` would fit, for `upskit plan`."""
        yield self._task(experiment, self._windows(experiment))

    def _part(self, experiment: Experiment) -> SteadyPrior:
        return cast("SteadyPrior", experiment.model.added[self._config.name])

    def _windows(self, experiment: Experiment) -> TrainingWindows:
        return attrs.evolve(train_windows(experiment, self._config, self._config.name, 1), preparation=None)

    def _encoded(self, experiment: Experiment) -> Callable[[Batch], Latent]:
        """The latents of a batch's answers by the codec."""
        codec = answer_model(experiment.model, experiment.model.added[self._config.codec]).eval()

        @torch.no_grad()
        def encode(batch: Batch) -> Latent:
            return codec.encode(answers_of(batch).inputs, batch.condition)

        return encode

    def _task(self, experiment: Experiment, windows: TrainingWindows) -> Task:
        config, part, encode = self._config, self._part(experiment), self._encoded(experiment)

        def loss(batch: Batch, progress: Progress, generator: torch.Generator) -> LossBundle:
            states = encode(batch).tokens
            noise = normal(states, generator)
            time = drawn_times(len(noise), config.tau_min, config.tau_max, generator)
            return _bundle("flow", prior_flow_error(part, batch, states, noise, time))

        def scores(found: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
            return prior_scores(cast("SteadyPrior", found), encode(batch).tokens, batch)

        validation = Validation(
            experiment.dataset, experiment.device, 1, config.validation_windows, config.batch, scores
        )
        return _task_of(experiment, config, part, windows, loss, validation)


def prior_flow_error(part: SteadyPrior, batch: Batch, states: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """The flow-matching error of a prior on latents in its own units, (batch,)."""
    given = part.given(batch.inputs, batch.condition)
    return flow_error(lambda values, at: part.net(values, at, given), part.state(states), noise, time)


def prior_scores(part: SteadyPrior, states: Tensor, batch: Batch) -> Mapping[str, Tensor]:
    """The flow-matching error with fixed noise and times (`score`), and the error of the conditional mean.

    `mean_left` is |z − E[z]|² over the variance of z over the training windows.
    """
    ids = tuple(int(number) for number in batch.ids)
    given = part.given(batch.inputs, batch.condition)
    data, errors = part.state(states), []
    for draw in range(DRAWS):
        noise = Noise(0, draw, ids)(0, states)
        time = (torch.arange(len(ids), device=noise.device) + (draw + 0.5) / DRAWS) / len(ids)
        errors.append(flow_error(lambda values, at: part.net(values, at, given), data, noise, time))
    mean = solve(lambda values, at: part.net(values, at, given), torch.zeros_like(states), 1)
    return {"score": torch.stack(errors).mean(0), "mean_left": (data - mean).square().flatten(1).mean(1)}


# ---------------------------------------------------------------------------------------------------------------------
# What they share
# ---------------------------------------------------------------------------------------------------------------------
def _asked(model: LatentModel) -> LatentModel:
    """The model as it answers."""
    model.eval()
    return model


def _task_of(
    experiment: Experiment,
    config: FieldFitSettings,
    part: nn.Module,
    windows: TrainingWindows,
    loss: Loss,
    validation: Validation,
) -> Task:
    return Task(
        stage=windows.stage,
        model=part,
        settings=config,
        run=experiment.recipe.run,
        device=experiment.device,
        source=windows,
        loss=loss,
        validate=validation,
    )


def _cached(
    experiment: Experiment, windows: TrainingWindows, trackers: Trackers
) -> tuple[TrainingWindows, dict[str, Any]]:
    """The windows with cached latents alone, where the recipe has a cache; and what there is to say of it."""
    if experiment.recipe.latent_cache is None:
        return windows, {}
    cached, summary = on_cached_latents(experiment, windows, False, trackers)
    return cached, {"latent_cache": summary}


def _sizes(part: nn.Module) -> dict[str, Any]:
    return {"trained_parameters": sum(weight.numel() for weight in part.parameters())}


def _bundle(name: str, errors: Tensor) -> LossBundle:
    total = errors.float().mean()
    return LossBundle(total, {name: total.detach()})


def drawn_step(horizon: int, generator: torch.Generator) -> int:
    """A number of steps from 1 to the horizon, each equally likely."""
    return 1 + int(torch.randint(horizon, (), generator=generator, device=generator.device))


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of a tensor's shape, in float32."""
    return torch.randn(like.shape, generator=generator, device=like.device)
