"""One batch through the model, once, as all losses see it, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from attrs import frozen
from torch import Tensor

from ups_kit.fit.checks import active_losses, weighting_of
from ups_kit.fit.forward import LossBundle, derived_seed
from ups_kit.interfaces import LossConfig, Progress
from ups_kit.weighting import Weighted

from ..batch import TokenBatch, counted
from ..description import TokenSpec
from ..model.transformer import TokenTransformer
from .losses import TokenLoss


class TokenPass:
    """The states of a batch, and what should follow them. Places are those of targets, numbered through the batch."""

    def __init__(self, model: TokenTransformer, batch: TokenBatch) -> None:
        self._model = model
        self._batch = batch
        self._places: dict[str | None, Tensor] = {}
        self.spec = model.spec
        self.targets = batch.tokens[:, 1:].flatten()  # (B·(L - 1),)

    @cached_property
    def _states(self) -> Tensor:
        states = self._model.states(self._batch.tokens, self._batch.types, self._batch.mask)
        return states[:, :-1].flatten(0, 1)

    def places(self, modality: str | None) -> Tensor:
        """Where the targets are that count, all or those of a modality, (n,)."""
        if modality not in self._places:
            kept = counted(self._batch.tokens, self._batch.mask, self.spec.vocabulary)[:, 1:].flatten()
            if modality is not None:
                block = self.spec.vocabulary.block(modality)
                kept = kept & (self.targets >= block.start) & (self.targets < block.stop)
            self._places[modality] = kept.nonzero()[:, 0]
        return self._places[modality]

    def samples_of(self, places: Tensor) -> Tensor:
        """In which sequence of the batch each of these places is, (n,)."""
        return places // (self._batch.tokens.shape[1] - 1)

    def whole(self, modality: str | None) -> Tensor:
        """Over how many targets the sum over this batch is the mean.

        Of a part of a batch it is its share of the whole's targets, so that equal parts average to the whole.
        """
        number = 0 if modality is None else 1 + self.spec.vocabulary.index(modality)
        return self._batch.expected[number] * self._batch.samples

    def logits(self, places: Tensor, modality: str | None = None) -> Tensor:
        """Logits (n, V) of what follows at these places, or (n, V_m) within a modality's block; in float32."""
        block = slice(None) if modality is None else self.spec.vocabulary.block(modality)
        return self._model.logits(self._states[places], block).float()

    def numbers(self, places: Tensor, modality: str) -> Tensor:
        """The targets at these places as numbers within their modality, (n,)."""
        return self.targets[places] - self.spec.vocabulary.base(modality)

    def codebook(self, modality: str) -> Tensor:
        """What the tokens of a modality stand for, (V_m, d_m)."""
        return self._model.codebooks[modality]


@frozen
class TokenTerm:
    """One loss of a stage: its name in the recipe, how much it counts and when, and the loss itself."""

    name: str
    weighting: Weighted
    loss: TokenLoss


def token_terms(losses: Mapping[str, LossConfig], spec: TokenSpec) -> tuple[TokenTerm, ...]:
    """The losses that count; one with weight 0 is not even built, so that it equals its absence to the bit."""
    return tuple(
        TokenTerm(name, weighting_of(name, config), config.build(spec))
        for name, config in active_losses(losses).items()
    )


def compute_losses(
    model: TokenTransformer,
    batch: TokenBatch,
    terms: Sequence[TokenTerm],
    progress: Progress,
    generator: torch.Generator,
) -> LossBundle:
    """All losses of a batch that apply at this point of a stage.

    The model computes in the ambient precision (autocast), the losses in float32. Exactly one number is drawn from
    `generator`, whatever the losses are; each draws from a generator derived from it and its name.
    """
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    asked = [(term, weight) for term in terms if (weight := term.weighting.weight_at(progress)) > 0]
    seen, device = TokenPass(model, batch), batch.tokens.device
    total, values = torch.zeros((), device=device, requires_grad=not asked), {}
    for term, weight in asked:
        own = torch.Generator(device).manual_seed(derived_seed(seed, term.name))
        value = estimate(term.loss, seen, own)
        values[term.name] = value.detach()
        total = total + weight * value
    return LossBundle(total, values)


def estimate(loss: TokenLoss, seen: TokenPass, generator: torch.Generator) -> Tensor:
    """The mean error over a loss's targets, from all of them or from so many as it draws: the same in expectation.

    Exactly zero, with a gradient of zeros, where the batch has no target of it.
    """
    places = seen.places(loss.modality)
    drawn = _drawn(places, loss.positions, generator)
    scale = len(places) / max(len(drawn), 1)
    return scale * loss.errors(seen, drawn).sum() / seen.whole(loss.modality).clamp(min=1e-6)


def _drawn(places: Tensor, most: int | None, generator: torch.Generator) -> Tensor:
    """At most so many of these places, drawn without repetition."""
    if most is None or len(places) <= most:
        return places
    return places[torch.randperm(len(places), generator=generator, device=generator.device)[:most]]
