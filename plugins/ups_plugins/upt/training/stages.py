"""The stages `codec` and `operator`: which parts are trained, on which losses, and how they are scored."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import torch

from ups_kit.batching import to_device
from ups_kit.data.answers import Answers, answer_model
from ups_kit.errors import UsageError
from ups_kit.fit.batches import TrainingWindows, check_length, on_cached_latents, train_windows
from ups_kit.fit.checks import active_losses, weighting_of
from ups_kit.fit.fitting import Task, frozen_parts
from ups_kit.fit.forward import LossBundle, LossTerm, compute_losses, states_of
from ups_kit.fit.loop import fit
from ups_kit.fit.order import trained_by
from ups_kit.folder import StageFolder
from ups_kit.interfaces import Batch, Calibrates, ComparesLatents, Dataset, FieldSpec, LossConfig, Progress
from ups_kit.tasks import model_for, tasks_of
from ups_kit.trackers import Trackers

from .config import PARTS, CodecStageConfig, OperatorStageConfig
from .validation import TaskValidations, codec_validation, rollout_validation

if TYPE_CHECKING:
    from ups_kit.assemble import Experiment
    from ups_kit.model import LatentModel

CALIBRATION_SAMPLES = 96


class OperatorStage:
    """Trains the parts of the model that are not frozen on all losses that count."""

    def __init__(self, config: OperatorStageConfig) -> None:
        self._config = config

    def run(self, experiment: Experiment, folder: StageFolder, trackers: Trackers) -> Mapping[str, Any]:
        """Train; afterwards the experiment's model holds the weights that did best on validation."""
        config = self._config
        if not with_weights(experiment.model, config.trains):
            trackers.line(f"stage {config.name}: skipped, there are no weights in what it trains: {config.trains[0]}")
            return {"steps": 0, "trained_parameters": 0}
        return _train(experiment, folder, trackers, config, self._terms(experiment), self._validation(experiment))

    def check_ahead(self, experiment: Experiment) -> None:
        """Losses reach all that is trained, and no further than the data; the operator takes the encoder's tokens."""
        if with_weights(experiment.model, self._config.trains):
            terms = self._terms(experiment)
            step_once(experiment, training_windows(experiment, self._config, terms))

    @contextmanager
    def task(self, experiment: Experiment) -> Iterator[Task]:
        """What `run` would fit, for `upskit plan`."""
        if not with_weights(experiment.model, self._config.trains):
            raise UsageError(f"stage '{self._config.name}': no weights in what it trains: {self._config.trains[0]}")
        terms = self._terms(experiment)
        windows = training_windows(experiment, self._config, terms)
        with _task(experiment, self._config, terms, windows, self._validation(experiment)) as task:
            yield task

    def _terms(self, experiment: Experiment) -> tuple[LossTerm, ...]:
        terms = built_losses(self._config.losses, experiment.dataset.fields)
        check_reach(terms, with_weights(experiment.model, self._config.trains), self._config.name)
        return terms

    def _validation(self, experiment: Experiment) -> TaskValidations:
        config = self._config
        return rollout_validation(
            experiment.dataset,
            experiment.device,
            config.validation_steps,
            config.validation_trajectories,
            config.batch,
            reencoded=config.validation_rollout == "reencoded",
        )


class CodecStage:
    """Trains encoder and decoder as an autoencoder; the operator is left as it is.

    Of steady data it is an encoder of answers that is trained: everything here then sees the answers as frames.
    """

    def __init__(self, config: CodecStageConfig) -> None:
        self._config = config

    def run(self, experiment: Experiment, folder: StageFolder, trackers: Trackers) -> Mapping[str, Any]:
        """Train; afterwards the experiment's model holds the weights that did best on validation."""
        seen = seen_by_codec(experiment, self._config.name)
        return _train(seen, folder, trackers, self._config, self._terms(seen), self._validation(seen))

    def check_ahead(self, experiment: Experiment) -> None:
        """Losses reach encoder and decoder, and no further than the data."""
        seen = seen_by_codec(experiment, self._config.name)
        check_horizons(self._terms(seen), seen.dataset, self._config.name)

    @contextmanager
    def task(self, experiment: Experiment) -> Iterator[Task]:
        """What `run` would fit, for `upskit plan`."""
        seen = seen_by_codec(experiment, self._config.name)
        terms = self._terms(seen)
        windows = training_windows(seen, self._config, terms)
        with _task(seen, self._config, terms, windows, self._validation(seen)) as task:
            yield task

    def _terms(self, experiment: Experiment) -> tuple[LossTerm, ...]:
        config = self._config
        terms = built_losses(config.losses, experiment.dataset.fields)
        for term in terms:
            if "operator" in term.loss.reaches:
                raise UsageError(f"stage '{config.name}': loss '{term.name}' needs the operator; use an operator stage")
        check_reach(terms, config.trains, config.name)
        return terms

    def _validation(self, experiment: Experiment) -> TaskValidations:
        config = self._config
        return codec_validation(experiment.dataset, experiment.device, config.validation_trajectories, config.batch)


def seen_by_codec(experiment: Experiment, name: str) -> Experiment:
    """The experiment as a codec stage sees it: of steady data the answers as frames, and the encoder of those."""
    dataset, model = experiment.dataset, experiment.model
    if not dataset.fields.steady:
        return experiment
    return attrs.evolve(experiment, dataset=Answers(dataset), model=answer_model(model, model.added[name]))


@torch.no_grad()
def step_once(experiment: Experiment, windows: TrainingWindows) -> None:
    """One step of one training window, whose result nobody looks at. Raises RecipeError where parts do not fit."""
    for task, dataset in tasks_of(experiment.dataset).items():
        model = model_for(task, experiment.dataset, experiment.model.eval())
        batch = to_device(attrs.evolve(windows, dataset=dataset, batch=1).read(0), experiment.device)
        with torch.random.fork_rng(devices=[]):
            model.step(model.encode(batch.inputs, batch.condition), batch.condition)


def built_losses(losses: Mapping[str, LossConfig], fields: FieldSpec) -> tuple[LossTerm, ...]:
    """The losses that count; one with weight 0 is not even built, so that it equals its absence to the bit."""
    return tuple(
        LossTerm(name, weighting_of(name, config), config.build(fields))
        for name, config in active_losses(losses).items()
    )


def with_weights(model: LatentModel, parts: Iterable[str]) -> list[str]:
    """Those of these parts that have anything to train: the operator `persistence` has not."""
    return [part for part in parts if any(True for _ in model.get_submodule(part).parameters())]


def check_reach(terms: Sequence[LossTerm], trained: Sequence[str], stage: str) -> None:
    """Every part that is trained must be reached by some loss; raises UsageError."""
    for part in trained:
        if not any(part in term.loss.reaches for term in terms):
            names = ", ".join(term.name for term in terms)
            raise UsageError(
                f"stage '{stage}': no loss reaches the {part} ({names}), so it would never be trained; "
                f"add a loss that does, such as 'forward', or freeze the {part}"
            )


def check_horizons(terms: Sequence[LossTerm], dataset: Dataset, stage: str) -> None:
    """The train trajectories, of every task, must be as long as every loss looks ahead; raises DataError."""
    for term in terms:
        check_length(dataset, term.loss.horizon, f"stages.{stage}.losses.{term.name}")


@torch.no_grad()
def calibrate(experiment: Experiment, windows: TrainingWindows) -> None:
    """Fit a decoder that can be fitted in closed form to the encoder's tokens of some training frames.

    The training then starts from a codec that works, instead of spending its first steps on one. A decoder that an
    earlier stage has trained is left as it is.
    """
    model = experiment.model
    earlier = itertools.takewhile(lambda config: config.name != windows.stage, experiment.recipe.stages)
    if not isinstance(model.decoder, Calibrates) or "decoder" in trained_by(earlier):
        return
    examples = []
    for task, dataset in tasks_of(experiment.dataset).items():
        own = attrs.evolve(windows, dataset=dataset, batch=CALIBRATION_SAMPLES)
        batch = to_device(own.read(0), experiment.device)
        examples.append(model_for(task, experiment.dataset, model).example(batch))
    model.decoder.calibrate(examples)


def _reads_fields(terms: Sequence[LossTerm]) -> bool:
    """Whether some loss may look at fields, so that they are read beside cached latents."""
    return not all(isinstance(term.loss, ComparesLatents) and term.loss.latents_only for term in terms)


def training_windows(
    experiment: Experiment, config: OperatorStageConfig | CodecStageConfig, terms: Sequence[LossTerm]
) -> TrainingWindows:
    """The train windows of a stage, as long as its losses look ahead. Raises DataError where there are none."""
    check_horizons(terms, experiment.dataset, config.name)
    steps = max(1, *(term.loss.horizon for term in terms))
    return train_windows(experiment, config, config.name, steps)


@contextmanager
def _task(
    experiment: Experiment,
    config: OperatorStageConfig | CodecStageConfig,
    terms: Sequence[LossTerm],
    windows: TrainingWindows,
    validation: TaskValidations,
) -> Iterator[Task]:
    """The task of a stage; what the stage does not train is frozen meanwhile."""
    model = experiment.model

    def loss(batch: Batch, progress: Progress, generator: torch.Generator) -> LossBundle:
        return compute_losses(model, batch, terms, progress, generator)

    with frozen_parts(model, [*(part for part in PARTS if part not in config.trains), "added"]):
        yield Task(
            stage=config.name,
            model=model,
            settings=config,
            run=experiment.recipe.run,
            device=experiment.device,
            source=windows,
            loss=loss,
            validate=validation,
            state=states_of(terms),
        )


def _train(
    experiment: Experiment,
    folder: StageFolder,
    trackers: Trackers,
    config: OperatorStageConfig | CodecStageConfig,
    terms: Sequence[LossTerm],
    validation: TaskValidations,
) -> dict[str, Any]:
    windows = training_windows(experiment, config, terms)
    if config.calibrate and "decoder" in config.trains:
        calibrate(experiment, windows)
    cache: dict[str, Any] = {}
    if experiment.recipe.latent_cache is not None and "encoder" not in config.trains:
        windows, cache["latent_cache"] = on_cached_latents(experiment, windows, _reads_fields(terms), trackers)
    with _task(experiment, config, terms, windows, validation) as task:
        result = fit(task, folder, trackers)
        trained = sum(weight.numel() for weight in experiment.model.parameters() if weight.requires_grad)
    return result | {"trained_parameters": trained} | cache
