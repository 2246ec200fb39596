"""The stage `token_training`: the core's loop on the losses of token sequences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch

from ups_kit.errors import UsageError
from ups_kit.fit.fitting import Task
from ups_kit.fit.forward import LossBundle
from ups_kit.fit.loop import fit
from ups_kit.folder import StageFolder
from ups_kit.interfaces import Progress
from ups_kit.trackers import Trackers

from ..batch import TokenBatch, expected_targets
from ..dataset import TokenDataset
from ..model.transformer import TokenTransformer
from ..windows import TokenWindows
from .acceleration import accelerated
from .config import TokenTrainingConfig
from .forward import TokenTerm, compute_losses, token_terms
from .validation import TokenValidation, spread

if TYPE_CHECKING:
    from ups_kit.assemble import ModelExperiment

LOOKED_AT = 512  # train sequences in which every loss is to find a target


class TokenTraining:
    """Trains the whole model on all losses that count."""

    def __init__(self, config: TokenTrainingConfig) -> None:
        self._config = config

    def check_ahead(self, experiment: ModelExperiment) -> None:
        """Every loss finds targets in the train split, so that it trains something; raises UsageError."""
        dataset, vocabulary = cast("TokenDataset", experiment.dataset), self._model(experiment).spec.vocabulary
        found = torch.zeros(1 + len(vocabulary.modalities))
        for part in spread(dataset.count("train"), LOOKED_AT, 64):
            batch = dataset.batch("train", part)
            found += expected_targets(batch.tokens, batch.mask, vocabulary)
        for term in self._terms(experiment):
            modality = term.loss.modality
            if not found[0 if modality is None else 1 + vocabulary.index(modality)]:
                raise UsageError(
                    f"stage '{self._config.name}': loss '{term.name}' has no target"
                    f"{f' of {modality}' if modality else ''} in {min(LOOKED_AT, dataset.count('train'))} train "
                    "sequences, so that nothing would be trained by it; remove it, or give it weight = 0"
                )

    def run(self, experiment: ModelExperiment, folder: StageFolder, trackers: Trackers) -> Mapping[str, Any]:
        """Train; afterwards the experiment's model holds the weights that did best on validation."""
        with self.task(experiment) as task, accelerated(experiment.device, self._config.tf32) as setting:
            trackers.line(f"{self._config.name}  {setting}")
            result = fit(task, folder, trackers)
        trained = sum(weight.numel() for weight in experiment.model.parameters() if weight.requires_grad)
        return result | {"trained_parameters": trained, "acceleration": setting}

    @contextmanager
    def task(self, experiment: ModelExperiment) -> Iterator[Task]:
        """What `run` would fit, for `upskit plan`."""
        config, run = self._config, experiment.recipe.run
        dataset, model = cast("TokenDataset", experiment.dataset), self._model(experiment)
        terms = self._terms(experiment)

        def loss(batch: TokenBatch, progress: Progress, generator: torch.Generator) -> LossBundle:
            return compute_losses(model, batch, terms, progress, generator)

        yield Task(
            stage=config.name,
            model=model,
            settings=config,
            run=run,
            device=experiment.device,
            source=TokenWindows(
                dataset=dataset,
                batch=config.batch,
                seed=run.seed,
                stage=config.name,
                device=experiment.device,
                workers=run.workers,
                worker_start=run.worker_start,
            ),
            loss=loss,
            validate=TokenValidation(dataset, experiment.device, terms, config.validation_samples, config.batch),
        )

    def _terms(self, experiment: ModelExperiment) -> tuple[TokenTerm, ...]:
        return token_terms(self._config.losses, self._model(experiment).spec)

    def _model(self, experiment: ModelExperiment) -> TokenTransformer:
        if not isinstance(experiment.model, TokenTransformer):
            kind = type(experiment.model).__name__
            raise UsageError(f"stage '{self._config.name}': trains a token_transformer; the recipe's model is a {kind}")
        return experiment.model
