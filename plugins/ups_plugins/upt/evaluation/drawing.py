"""Forecasts that parts of a model draw, and the operator's own beside them: which there are, and how they are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

import torch
from attrs import frozen
from torch import Tensor

from ups_kit.fit.order import trained_by
from ups_kit.generating import Drawn, Noise, drawing_parts
from ups_kit.interfaces import Corrects, DrawsStates
from ups_kit.model import LatentModel

from .config import EvaluateConfig
from .rollouts import Runner
from .truth import PART_BYTES, Truth

if TYPE_CHECKING:
    from ups_kit.assemble import Experiment

OPERATOR = "operator"
TIMED_TRAJECTORIES = 8  # that steps are timed on, together


@frozen
class Variant:
    """One way to forecast: the operator alone, or a stage's part that draws in so many steps."""

    use: str
    steps: int | None

    @property
    def name(self) -> str:
        """As tables call it."""
        if self.steps is None:
            return "operator alone"
        return f"{self.use}, {self.steps} step{'s' if self.steps > 1 else ''}"


ALONE = Variant(OPERATOR, None)


@frozen(eq=False)
class NoiseOf:
    """The noise of members of trajectories that are computed together: each as if it were computed alone."""

    seed: int
    pairs: tuple[tuple[int, int], ...]  # member, trajectory

    def __call__(self, step: int, like: Tensor) -> Tensor:
        """Noise of the shape of `like` (B, …)."""
        parts = zip(self.pairs, torch.split(like, 1), strict=True)
        return torch.cat([Noise(self.seed, member, (sample,))(step, own) for (member, sample), own in parts])


@frozen(eq=False)
class Drawing:
    """A model, its parts that draw, and how many members they are asked for."""

    model: LatentModel
    parts: Mapping[str, Corrects]
    operator: bool  # whether the operator was trained, and can be asked alone
    members: int
    seed: int
    reencoded: bool
    batch: int
    device: torch.device

    @classmethod
    def of(cls, experiment: Experiment, config: EvaluateConfig) -> Drawing | None:
        """What draws in an experiment's model before the stage that evaluates it; None where nothing does."""
        stages = tuple(takewhile(lambda stage: stage.name != config.name, experiment.recipe.stages))
        known, names = drawing_parts(experiment.recipe, experiment.model), {stage.name for stage in stages}
        parts = {name: part for name, part in known.items() if name in names}
        if not parts:
            return None
        prior = all(isinstance(part, DrawsStates) for part in parts.values())
        return cls(
            experiment.model,
            parts,
            not prior or OPERATOR in trained_by(stages),
            config.members,
            config.seed,
            config.judged == "reencoded" and not experiment.dataset.fields.steady,
            config.batch,
            experiment.device,
        )

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The ways that are compared: the operator alone first, where it was trained."""
        drawn = [Variant(name, steps) for name, part in self.parts.items() for steps in part.shown]
        return (ALONE, *drawn) if self.operator else tuple(drawn)

    @property
    def default(self) -> Variant:
        """What is taken where nothing can be compared."""
        if self.operator:
            return ALONE
        name, part = next(iter(self.parts.items()))
        return Variant(name, part.default)

    def runner(self, variant: Variant, truth: Truth, members: Sequence[int]) -> Runner:
        """The model over trajectories, all of them together; `members` are whose noise each of them has."""
        model = self.model
        if variant.steps is not None:
            pairs = tuple(zip(members, map(int, truth.ids), strict=True))
            model = Drawn(model, self.parts[variant.use], variant.steps, NoiseOf(self.seed, pairs))
        return Runner(model, truth, self.device, truth.samples)

    def ensemble(self, variant: Variant, truth: Truth, condition: Tensor | None = None) -> Tensor:
        """All members' rollouts (M, S, frames, N, C); of the operator alone one.

        `condition` (S, P), normalised, stands in for the truth's own.
        """
        count = 1 if variant.steps is None else self.members
        own = truth.condition if condition is None else condition
        pairs = [(member, sample) for member in range(count) for sample in range(truth.samples)]
        found = []
        for first in range(0, len(pairs), self.batch):
            members, samples = zip(*pairs[first : first + self.batch], strict=True)
            runner = self.runner(variant, truth.part(list(samples)), members)
            known = own[list(samples)]
            found.append(runner.reencoded_rollout() if self.reencoded else runner.latent_rollout(known))
        return torch.cat(found).view(count, *truth.values.shape)

    def rows(self, truth: Truth) -> Iterator[slice]:
        """All trajectories, as many at a time as an ensemble is held of."""
        size = self.members * truth.values.numel() * truth.values.element_size()
        length = max(1, PART_BYTES[0] * truth.samples // max(size, 1))
        for first in range(0, truth.samples, length):
            yield slice(first, min(first + length, truth.samples))

    def seconds(self, variant: Variant, truth: Truth) -> float:
        """Wall seconds of a step of one trajectory, among at most eight that are computed together."""
        some = truth.part(slice(0, TIMED_TRAJECTORIES))
        return self.runner(variant, some, [0] * some.samples).step_seconds() / some.samples


class PriorRunner(Runner):
    """Runs a prior of steady answers in the operator's place: the forecast is the mean of its members."""

    def __init__(self, drawing: Drawing, variant: Variant, truth: Truth) -> None:
        super().__init__(drawing.model, truth, drawing.device, drawing.batch)
        self._drawing, self._variant = drawing, variant

    def latent_rollout(self, condition: Tensor | None = None, trips: int = 0, limit: int | None = None) -> Tensor:
        """As of any runner; an answer has no start that could be decoded and encoded again."""
        truth = self._truth.part(slice(0, limit))
        own = truth.condition if condition is None else condition
        parts = [(truth.part(rows), own[rows]) for rows in self._drawing.rows(truth)]
        means = [self._drawing.ensemble(self._variant, part, known).double().mean(0) for part, known in parts]
        return torch.cat(means).float()
