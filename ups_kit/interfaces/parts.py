"""The parts of a model and of its training: what their configs build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from attrs import frozen

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from torch import Tensor

    from ..fit.fitting import Task
    from ..folder import RunFolder, StageFolder
    from ..trackers import Trackers
    from .descriptions import FieldSpec, Layout
    from .values import Batch, Decoded, Example, Latent, PointSet, Progress, Queries, Weighed


class Encoder(Protocol):
    """Points to tokens: `forward(points) -> Latent`. A torch module."""

    def __call__(self, points: PointSet) -> Latent: ...


class Preparation(Protocol):
    """Looks up for points what depends on where they are alone, such as neighbours. It pickles, for data workers."""

    def __call__(self, points: PointSet) -> PointSet:
        """The same points with `supernodes` set. A pure function of positions and mask. Raises DataError."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """An encoder whose look-ups can be made ahead of it: by data workers, or once for many frames on fixed points.

    Given points that were not prepared, it prepares them itself, with the same result.
    """

    @property
    def preparation(self) -> Preparation: ...


class Operator(Protocol):
    """One latent step: `forward(latent, condition) -> Latent`. A torch module."""

    def __call__(self, latent: Latent, condition: Tensor) -> Latent: ...


class Decoder(Protocol):
    """Fields at any points: `forward(latent, queries) -> (B, Q, C)`, normalised. A torch module."""

    def __call__(self, latent: Latent, queries: Queries) -> Tensor: ...


class Constraint(Protocol):
    """A law that decoded fields keep exactly: what is added to them so that they do. A torch module without weights.

    It is found on the grid that the data stand on, from all of it, so that what is added at a point does not depend on
    which others are asked for. Values are normalised. `keeps_totals`: it looks at `Latent.totals`.
    """

    keeps_totals: bool

    def correction(self, values: Tensor, latent: Latent) -> Tensor:
        """What is added to fields (B, N, C) on the data's grid, (B, N, C) or (B, 1, C), in float64."""
        ...

    def elsewhere(self, correction: Tensor, positions: Tensor) -> Tensor:
        """The same between the points of the grid, at positions (B, Q, D): (B, Q, C) or (B, 1, C)."""
        ...


@runtime_checkable
class Calibrates(Protocol):
    """A decoder that can be fitted to fresh latents in closed form, before it is trained."""

    def calibrate(self, examples: Sequence[Example]) -> None:
        """Bring the decoder close to all examples; a channel that is in none of them is left as it is."""
        ...


@runtime_checkable
class Corrects(Protocol):
    """A part added to a model that draws latents around the one that was predicted. A torch module.

    `shown` are the numbers of steps that an evaluation compares, and `default` is the one that is used where none is
    asked for: steps of a solver, or jumps of a student that was distilled from one.
    """

    shown: tuple[int, ...]
    default: int

    def correct(self, predicted: Latent, noise: Tensor, steps: int) -> Latent:
        """A latent drawn around A(z), whose `condition` is set; a pure function of its arguments.

        `noise` is standard normal, of the shape of the tokens (B, T, d).
        """
        ...


@runtime_checkable
class DrawsStates(Corrects, Protocol):
    """A part added to a model of steady data that draws answers by itself, without the model's encoder and operator."""

    def given(self, points: PointSet, condition: Tensor) -> Latent:
        """What is known of samples, as the latent that `correct` draws around."""
        ...


class Sampler(Protocol):
    """Draws query points. Returns indices (B, Q), distinct within a sample, or None for all points in their order.

    `positions` is (B, N, D), `grid` its shape where it is one; points whose `mask` (B, N) is false are never drawn.
    The draw is a pure function of its arguments and of the generator's state.
    """

    def __call__(
        self,
        positions: Tensor,
        grid: tuple[int, ...] | None,
        progress: Progress,
        generator: torch.Generator,
        mask: Tensor | None = None,
    ) -> Tensor | None: ...


@runtime_checkable
class WeighsPoints(Sampler, Protocol):
    """A sampler that draws by what the true fields are like, and says how much each point that it draws counts.

    The expectation over draws of Σ weight · value is the mean of the values over a sample's real points, so that a loss
    that is such a sum is the dense one in expectation; losses say with `TakesWeights` that they are. Called as a plain
    sampler, without fields, it draws all points with equal chances.
    """

    def weighed(self, batch: Batch, progress: Progress, generator: torch.Generator) -> Weighed | None:
        """Points (B, Q), distinct within a sample, with their weights; None for all points in their order."""
        ...


@runtime_checkable
class ObservesErrors(WeighsPoints, Protocol):
    """A sampler that is told the errors at the points that it drew, and draws by them from the next step on."""

    def observe(self, positions: Tensor, squared: Tensor, weights: Tensor | None, mask: Tensor | None) -> None:
        """Take note of squared errors (B, Q), means over channels, at positions (B, Q, D); this step's draws stay.

        Without weights these are all points, of which those count whose mask (B, Q) is true.
        """
        ...


@runtime_checkable
class HoldsState(Protocol):
    """What a training changes besides weights and keeps in its checkpoints.

    It may change what it gives only in `advance`, which is called once after each optimiser step, whatever the number
    of parts that the step's batch was cut into.
    """

    def advance(self, taken: bool) -> None:
        """The step is over; not `taken` where its update was left out, loss or gradient not being finite."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors, numbers and strings."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The reverse; raises ValueError or KeyError where the state is that of other keys."""
        ...


@frozen
class Needs:
    """What a loss asks of the stage's forward pass, so that work shared between losses is done once.

    `steps`: latent steps to take from E(u_t). `decodes`: the steps whose latents are decoded, 0 being E(u_t) itself.
    `encodes`: the future frames t+k that are encoded without gradient. `dense`: decode at every point, whatever the
    loss's sampler says. `share`: decode only for this share of the batch's samples, the first ones.
    """

    steps: int = 0
    decodes: tuple[int, ...] = ()
    encodes: tuple[int, ...] = ()
    dense: bool = False
    share: float = 1.0


class ForwardPass(Protocol):
    """One forward pass of a model over a batch, as a loss sees it. Everything is computed once and kept."""

    @property
    def batch(self) -> Batch: ...

    @property
    def progress(self) -> Progress: ...

    def latent(self, step: int) -> Latent:
        """A^step(E(u_t)), with gradient."""
        ...

    def encoded(self, step: int) -> Latent:
        """E(u_{t+step}), without gradient."""
        ...

    def decoded(self, step: int) -> Decoded:
        """The decoded latent of a step at the asking loss's own points."""
        ...

    def physical(self, values: Tensor) -> Tensor:
        """Target fields (…, C), as `decoded` gives them, in physical units, with gradient."""
        ...

    def reencode(self, values: Tensor, step: int) -> Latent:
        """E of decoded values (B, N, C) at all points, put in the place of the newest frame u_{t+step}.

        With fewer samples than the batch has, the values are those of its first samples.
        """
        ...


class Loss(Protocol):
    """A scalar with gradient from one forward pass.

    `reaches` names the modules ("encoder", "operator", "decoder") that its gradient must reach, which the evaluation
    audits.
    `horizon` is the number of future frames K that it needs in a batch, at most.
    """

    reaches: tuple[str, ...]
    sampler: Sampler | None
    horizon: int

    def needs(self, progress: Progress) -> Needs | None:
        """What the loss asks for now; None while it does not apply, as before a curriculum begins."""
        ...

    def __call__(self, forward: ForwardPass) -> Tensor: ...


@runtime_checkable
class ComparesLatents(Protocol):
    """A loss that can say that it never looks at fields, so that with cached latents none are read for it."""

    @property
    def latents_only(self) -> bool: ...


class Stage(Protocol):
    """One stage of a run: reads what came before it, trains or measures, writes its own folder."""

    def run(self, experiment: Any, folder: StageFolder, trackers: Trackers) -> Mapping[str, Any]:
        """Do the work and return what the run's summary shall hold of it.

        `experiment` is an `Experiment`; for a stage of a family of its own, a `ModelExperiment`.
        """
        ...


@runtime_checkable
class PlansTraining(Protocol):
    """A training stage that can show what it would train, without doing it: for `upskit plan`.

    A stage whose `run` ends in `fit(task, …)` offers it by making that task in one place: `task` is a context manager
    that freezes what the stage does not train, and yields the task.
    """

    def task(self, experiment: Any) -> AbstractContextManager[Task]:
        """What `run` would fit. Nothing is trained, calibrated, encoded ahead or written.

        Its source reads fields also where `run` would read cached latents.
        """
        ...


@frozen
class Elsewhere:
    """Other points to evaluate a trained model on: about so many, as a grid, a mesh or a cloud."""

    layout: Layout
    points: int


@runtime_checkable
class EvaluatesElsewhere(Protocol):
    """A stage that can evaluate a trained model on other points than its data have: for `upskit evaluate --on`."""

    def transfer(
        self, experiment: Any, asked: Sequence[Elsewhere], folder: RunFolder, trackers: Trackers
    ) -> Mapping[str, Any]:
        """Measure, write `transfer.json` and `transfer.html` into the folder, return what the first holds.

        Raises UsageError with everything that cannot be had, before anything is computed.
        """
        ...


@runtime_checkable
class EvaluatesFiner(Protocol):
    """A stage that can ask a trained model between the points that it was trained on: for `upskit evaluate --finer`."""

    def finer(
        self, experiment: Any, factors: Sequence[int], folder: RunFolder, trackers: Trackers
    ) -> Mapping[str, Any]:
        """Measure, write `finer.json` and `finer.html` into the folder, return what the first holds.

        Raises UsageError with everything that cannot be had, before anything is computed.
        """
        ...


class Metric(Protocol):
    """A number from predictions and truths in physical units, (S, frames, N, C) each."""

    def __call__(self, prediction: Tensor, truth: Tensor, fields: FieldSpec) -> Tensor:
        """The metric of every sample and frame, (S, frames), averaged over channels."""
        ...


class Tracker(Protocol):
    """Where numbers and pictures of a run go. It may fail: the run warns once and goes on without it.

    What more it may take, `ups_kit.interfaces.tracking` says. It leaves figures open, and copies what it needs.
    """

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None: ...

    def figure(self, stage: str, step: int, name: str, figure: Figure) -> None: ...

    def close(self) -> None: ...


class Schedule(Protocol):
    """Learning-rate factor over a stage."""

    def factor(self, progress: Progress) -> float:
        """What the base learning rate is multiplied with."""
        ...

    def observe(self, validation: float) -> None:
        """Take note of a validation score (lower is better)."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
