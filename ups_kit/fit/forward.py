"""The losses of one training step, from one forward pass that they share (docs/method.md §2).

The losses say first what they need; then u_t is encoded once, the operator is rolled once to the furthest step, all
latents that are asked at the same points are decoded in one call, and all future frames are encoded in one call.
A loss whose weight is 0 now asks for nothing: it costs nothing, and equals its absence bit for bit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from attrs import define, field, frozen
from torch import Tensor

from ..batching import joined_latents, joined_points, latent_part, points_part
from ..channels import pick, spread
from ..errors import PluginError
from ..interfaces import (
    Batch,
    Decoded,
    HoldsState,
    Latent,
    Loss,
    Needs,
    ObservesErrors,
    PointSet,
    Progress,
    Queries,
    Sampler,
    TakesWeights,
    WeighsPoints,
)
from ..weighting import Weighted

if TYPE_CHECKING:
    from ..model import LatentModel


@frozen
class LossTerm:
    """One loss of a stage: its name in the recipe, how much it counts and when, and the loss itself."""

    name: str
    weighting: Weighted
    loss: Loss


class LossBundle(NamedTuple):
    """What the losses of a batch come to.

    `total` is the weighted sum, with gradient; `terms` are the raw losses that apply now, by name, unweighted and
    without gradient.
    """

    total: Tensor
    terms: dict[str, Tensor]


def compute_losses(
    model: LatentModel, batch: Batch, terms: Sequence[LossTerm], progress: Progress, generator: torch.Generator
) -> LossBundle:
    """All losses of a batch that apply at this point of a stage.

    Model parts compute in the ambient precision (autocast), the losses in float32 or better. Exactly one number is
    drawn from `generator`, whatever the losses are; every sampler draws from a generator derived from it.
    Where no loss applies the total is a zero without any parameter behind it. Raises PluginError for a loss that uses
    what it did not ask for, asks for frames that the batch does not hold, or has points that count unequally and does
    not say that it takes weights.

    Samplers that draw by errors are told those of the points that were decoded for them (see `states_of`).
    """
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    asked = _asked(terms, progress, batch)
    if not asked:
        return LossBundle(torch.zeros((), device=batch.states.device, requires_grad=True), {})
    shared = _share(model, batch, asked, progress, seed)
    _observe(shared, asked)
    total: Tensor | None = None
    values = {}
    with torch.autocast(batch.states.device.type, enabled=False):
        for asking in asked:
            value = asking.term.loss(LossView(shared, asking))
            values[asking.term.name] = value.detach()
            weighted = asking.weight * value
            total = weighted if total is None else total + weighted
    assert total is not None
    return LossBundle(total, values)


@frozen
class Asking:
    """A loss that applies now: its weight, what it needs, for how many samples, and what draws its points.

    `sampler` is the first one of those of all the stage's losses that equal its own; None where it is decoded at all
    points.
    """

    term: LossTerm
    weight: float
    needs: Needs
    sampler: Sampler | None

    def samples(self, batch: int) -> int:
        """How many of a batch's samples are decoded for this loss, at least one."""
        return max(1, math.ceil(self.needs.share * batch - 1e-9))


def states_of(terms: Iterable[LossTerm]) -> dict[str, HoldsState]:
    """What the samplers of some losses keep from step to step, by name: the `Task.state` of a training on them.

    Of samplers that are equal the first one's counts for all.
    """
    found: dict[str, HoldsState] = {}
    for term in terms:
        sampler = term.loss.sampler
        if isinstance(sampler, HoldsState) and sampler not in found.values():
            found[f"losses.{term.name}.sampler"] = sampler
    return found


def _asked(terms: Sequence[LossTerm], progress: Progress, batch: Batch) -> list[Asking]:
    asked, frames = [], batch.states.shape[1] - 1
    samplers = [term.loss.sampler for term in terms]
    for term in terms:
        weight = term.weighting.weight_at(progress)
        needs = term.loss.needs(progress) if weight > 0 else None
        if needs is None:
            continue
        furthest = max((*needs.decodes, *needs.encodes, 0))
        if furthest > frames:
            raise PluginError(f"loss '{term.name}' asks for the frame t+{furthest}; the batch ends at t+{frames}")
        if needs.decodes and not batch.states.shape[2]:
            raise PluginError(f"loss '{term.name}' asks for fields, and says that it compares latents alone")
        sampler = None if needs.dense else next(other for other in samplers if other == term.loss.sampler)
        asked.append(Asking(term, weight, needs, sampler))
    return asked


# ---------------------------------------------------------------------------------------------------------------------
# The shared forward pass
# ---------------------------------------------------------------------------------------------------------------------
@define(eq=False)
class SharedPass:
    """Everything that the losses of one batch have in common, each computed once."""

    model: LatentModel
    batch: Batch
    progress: Progress
    autocast: tuple[bool, torch.dtype]
    latents: list[Latent]
    frames: list[PointSet]  # the model's inputs at t, t+1, … made of true frames, as far as they are needed
    seen: Batch  # what losses see: states of the channels alone that these data have
    encoded: dict[int, Latent] = field(factory=dict)
    points: dict[str, int] = field(factory=dict)  # by loss: which set of points it is decoded at
    indices: list[Tensor | None] = field(factory=list)  # by set of points: (B, Q), or None for all points
    weights: list[Tensor | None] = field(factory=list)  # by set of points: (B, Q), or None where all count alike
    decoded: dict[tuple[int, int], Tensor] = field(factory=dict)  # by set of points and step: (B, Q, C)

    def advance_to(self, step: int) -> PointSet:
        """The model's inputs at t+step, made of true frames."""
        while len(self.frames) <= step:
            following, moved = len(self.frames), self.batch.positions.dim() == 4
            places = self.batch.places(following) if moved else None
            self.frames.append(self.model.advance(self.frames[-1], self.batch.states[:, following], places))
        return self.frames[step]

    def queries(self, points: int, samples: int, step: int) -> Queries:
        """The query points of a set at a step, for the first samples; `grid` is set where they are all of a grid."""
        positions, index = self.batch.places(step)[:samples], self.indices[points]
        if index is None:
            return Queries(positions, self.batch.grid)
        return Queries(_take(positions, index[:samples]))


def _share(model: LatentModel, batch: Batch, asked: Sequence[Asking], progress: Progress, seed: int) -> SharedPass:
    kind = batch.states.device.type
    autocast = (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
    if batch.latents is not None:
        start = model.remember(batch.latents[0]._replace(condition=batch.condition), batch.inputs)
    else:
        start = model.encode(batch.inputs, batch.condition)
    steps = max(max((asking.needs.steps, *asking.needs.decodes)) for asking in asked)
    latents = [start, *(model.rollout(start, batch.condition, steps) if steps else ())]
    seen = batch if batch.channels is None else batch._replace(states=pick(batch.states, batch.channels))
    shared = SharedPass(model, batch, progress, autocast, latents, [batch.inputs], seen)
    _encode_frames(shared, sorted({step for asking in asked for step in asking.needs.encodes}))
    _choose_points(shared, asked, seed)
    _decode(shared, asked)
    return shared


def _encode_frames(shared: SharedPass, steps: Sequence[int]) -> None:
    """Encode all future frames that are asked for in one call, without gradient, or take their cached latents."""
    if shared.batch.latents is not None:
        shared.encoded.update({step: shared.batch.latents[step] for step in steps})
        return
    if not steps:
        return
    with torch.no_grad():
        points = joined_points([shared.advance_to(step) for step in steps])
        together = shared.model.encode(points, shared.batch.condition.repeat(len(steps), 1))
    size = len(shared.batch.states)
    for place, step in enumerate(steps):
        shared.encoded[step] = latent_part(together, slice(place * size, (place + 1) * size))


def _choose_points(shared: SharedPass, asked: Sequence[Asking], seed: int) -> None:
    """Give every loss its set of points; equal samplers draw one set, and all points are the set 0.

    A sampler's generator is derived from the seed and the sampler's type, so that adding a loss does not change the
    points of another.
    """
    drawn: list[tuple[Sampler, int]] = []
    shared.indices.append(None)
    shared.weights.append(None)
    for asking in asked:
        sampler = asking.sampler
        if not asking.needs.decodes:
            continue
        if sampler is None:
            shared.points[asking.term.name] = 0
            continue
        known = next((place for other, place in drawn if other == sampler), None)
        if known is None:
            known = _draw(shared, sampler, seed)
            drawn.append((sampler, known))
        if shared.weights[known] is not None:
            _check_takes_weights(asking.term)
        shared.points[asking.term.name] = known


def _draw(shared: SharedPass, sampler: Sampler, seed: int) -> int:
    batch = shared.batch
    generator = torch.Generator(device=batch.positions.device)
    generator.manual_seed(derived_seed(seed, type(sampler).__qualname__))
    if isinstance(sampler, WeighsPoints):
        drawn = sampler.weighed(shared.seen, shared.progress, generator)
        index, weights = (None, None) if drawn is None else drawn
    else:
        index, weights = sampler(batch.places(0), batch.grid, shared.progress, generator, batch.mask), None
    if index is None:
        return 0
    shared.indices.append(index)
    shared.weights.append(weights)
    return len(shared.indices) - 1


def _check_takes_weights(term: LossTerm) -> None:
    if not (isinstance(term.loss, TakesWeights) and term.loss.takes_weights):
        raise PluginError(
            f"loss '{term.name}' does not say that it takes weights, and its sampler draws points that count unequally"
        )


def derived_seed(seed: int, name: str) -> int:
    """A seed for what is called `name`, independent of all other names' seeds."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2


def _decode(shared: SharedPass, asked: Sequence[Asking]) -> None:
    """One decoder call for each set of points; what was decoded at all points is not decoded at some again."""
    batch_size = len(shared.batch.states)
    wanted: dict[int, dict[int, int]] = {place: {} for place in range(len(shared.indices))}
    for asking in asked:
        for step in asking.needs.decodes:
            steps = wanted[shared.points[asking.term.name]]
            steps[step] = max(steps.get(step, 0), asking.samples(batch_size))
    for points, steps in wanted.items():
        index = shared.indices[points]
        for step in [
            step for step, samples in steps.items() if index is not None and wanted[0].get(step, 0) >= samples
        ]:
            assert index is not None
            samples = steps.pop(step)
            shared.decoded[points, step] = _take(shared.decoded[0, step][:samples], index[:samples])
        if steps:
            _decode_set(shared, points, steps)


def _decode_set(shared: SharedPass, points: int, steps: dict[int, int]) -> None:
    """Decode several latents at one set of points in one call; `steps` gives the number of samples for each step."""
    latents = [latent_part(shared.latents[step], slice(0, samples)) for step, samples in steps.items()]
    asked = [shared.queries(points, samples, step) for step, samples in steps.items()]
    if len(asked) == 1:
        values = shared.model.decode(latents[0], asked[0])
    else:
        positions = torch.cat([queries.positions for queries in asked])
        values = shared.model.decode(joined_latents(latents), Queries(positions, asked[0].grid))
    values = pick(_at_least_float32(values), shared.batch.channels)
    for step, part in zip(steps, torch.split(values, list(steps.values()))):
        shared.decoded[points, step] = part


@torch.no_grad()
def _observe(shared: SharedPass, asked: Sequence[Asking]) -> None:
    """Tell samplers that draw by errors what these were, each step of each of them once."""
    told: set[tuple[int, int]] = set()
    for asking in asked:
        sampler = asking.sampler
        if not isinstance(sampler, ObservesErrors):
            continue
        for step in asking.needs.decodes:
            if (id(sampler), step) in told:
                continue
            told.add((id(sampler), step))
            found = LossView(shared, asking).decoded(step)
            squared = (found.values.double() - found.truth.double()).square().mean(-1)
            sampler.observe(found.queries.positions, squared, found.weights, found.mask)


# ---------------------------------------------------------------------------------------------------------------------
# What one loss sees of it
# ---------------------------------------------------------------------------------------------------------------------
class LossView:
    """One loss's view of the shared forward pass: an `interfaces.ForwardPass`."""

    def __init__(self, shared: SharedPass, asking: Asking) -> None:
        self._shared = shared
        self._asking = asking

    @property
    def batch(self) -> Batch:
        """The batch; its states hold the channels alone that these data have."""
        return self._shared.seen

    @property
    def progress(self) -> Progress:
        return self._shared.progress

    def latent(self, step: int) -> Latent:
        """A^step(E(u_t)), with gradient."""
        if not 0 <= step <= max((self._asking.needs.steps, *self._asking.needs.decodes)):
            raise self._undeclared(f"latent({step})")
        latent = self._shared.latents[step]
        return latent._replace(tokens=_at_least_float32(latent.tokens))

    def encoded(self, step: int) -> Latent:
        """E(u_{t+step}), without gradient."""
        if step not in self._asking.needs.encodes:
            raise self._undeclared(f"encoded({step})")
        latent = self._shared.encoded[step]
        return latent._replace(tokens=_at_least_float32(latent.tokens))

    def decoded(self, step: int) -> Decoded:
        """The decoded latent of a step beside the truth, at this loss's points and for its share of the samples."""
        if step not in self._asking.needs.decodes:
            raise self._undeclared(f"decoded({step})")
        points = self._shared.points[self._asking.term.name]
        samples = self._asking.samples(len(self.batch.states))
        index = self._shared.indices[points]
        weights = self._shared.weights[points]
        truth = _at_least_float32(self.batch.states[:samples, step])
        mask = None if self.batch.mask is None else self.batch.mask[:samples]
        if index is not None:
            truth = _take(truth, index[:samples])
            mask = None if mask is None else mask.gather(1, index[:samples])
        queries = self._shared.queries(points, samples, step)
        weights = None if weights is None else weights[:samples]
        return Decoded(self._shared.decoded[points, step][:samples], truth, queries, mask, weights)

    def physical(self, values: Tensor) -> Tensor:
        """Target fields (…, C), as `decoded` gives them, in physical units, with gradient."""
        normaliser, channels = self._shared.model.normaliser, self._shared.batch.channels
        if normaliser is None:
            raise PluginError(f"loss '{self._asking.term.name}' asks for physical units; this model does not know them")
        if channels is None:
            return normaliser.physical(values)
        whole = spread(values, channels, self._shared.batch.states.shape[-1])
        return pick(normaliser.physical(whole), channels)

    def reencode(self, values: Tensor, step: int) -> Latent:
        """E of decoded values (B, N, C) at all points, put in the place of the newest frame u_{t+step}."""
        channels = self._shared.batch.channels
        if channels is not None:
            values = spread(values, channels, self._shared.batch.states.shape[-1])
        inputs = points_part(self._shared.advance_to(step), slice(0, len(values)))
        enabled, dtype = self._shared.autocast
        with torch.autocast(values.device.type, dtype=dtype, enabled=enabled):
            points = self._shared.model.replace_newest(inputs, values)
            latent = self._shared.model.encode(points, self._shared.batch.condition[: len(values)])
        return latent._replace(tokens=_at_least_float32(latent.tokens))

    def _undeclared(self, use: str) -> PluginError:
        return PluginError(
            f"loss '{self._asking.term.name}' uses {use}, which its needs() does not name: {self._asking.needs}"
        )


# ---------------------------------------------------------------------------------------------------------------------
# Parts of batches
# ---------------------------------------------------------------------------------------------------------------------
def _at_least_float32(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _take(values: Tensor, index: Tensor) -> Tensor:
    """(B, N, C) at indices (B, Q): (B, Q, C)."""
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
