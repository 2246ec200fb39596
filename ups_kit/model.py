"""The latent model: an encoder, an operator that steps latents in time, and a decoder that answers anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from .batching import latent_part
from .channels import pick
from .constraining import Constraining
from .interfaces import (
    Batch,
    Decoder,
    Encoder,
    Example,
    FieldSpec,
    Latent,
    Operator,
    PointSet,
    Preparation,
    Prepares,
    Queries,
)

if TYPE_CHECKING:
    from .data.normalisation import Normaliser

QUERIES_TOGETHER = 2**16  # that are decoded in one call, where they are no grid and nothing is trained


class LatentModel(nn.Module):
    """Encoder E, latent operator A, decoder D (Alkin et al., Universal Physics Transformers, arXiv:2402.12365).

    All values are normalised; shapes as in `interfaces`. Encoder inputs hold `history` frames of the target fields,
    oldest first, and then the static fields. `normaliser` is what they are normalised by, where that is known. `added`
    are parts that stages have added, by the stage's name: `encode`, `step` and `decode` do without them. All that is
    decoded keeps the `constraints`.
    """

    def __init__(
        self,
        encoder: Encoder,
        operator: Operator,
        decoder: Decoder,
        fields: FieldSpec,
        normaliser: Normaliser | None = None,
        added: Mapping[str, nn.Module] | None = None,
        constraints: Constraining | None = None,
    ) -> None:
        super().__init__()
        self.encoder = cast("nn.Module", encoder)
        self.operator = cast("nn.Module", operator)
        self.decoder = cast("nn.Module", decoder)
        self.added = nn.ModuleDict(dict(added or {}))
        self.constraints = constraints
        self.fields = fields
        self.normaliser = normaliser

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The three modules by name."""
        return {"encoder": self.encoder, "operator": self.operator, "decoder": self.decoder}

    @property
    def preparation(self) -> Preparation | None:
        """What the encoder looks up of points ahead of it; None where there is nothing to look up."""
        return self.encoder.preparation if isinstance(self.encoder, Prepares) else None

    def placed(self, points: PointSet, condition: Tensor) -> tuple[PointSet, Tensor]:
        """Points and condition as the parts themselves are given them: as they are, but for a view of the model."""
        return points, condition

    def encode(self, points: PointSet, condition: Tensor | None = None) -> Latent:
        """Tokens of the fields at points; where a condition (B, P) is given, encoder and decoder may look at it."""
        if condition is None:
            latent: Latent = self.encoder(points)
            return self.remember(latent, points)
        latent = self.encoder(points._replace(condition=condition))
        return self.remember(latent._replace(condition=condition), points)

    def remember(self, latent: Latent, points: PointSet) -> Latent:
        """A latent of these points with what constraints keep of their newest frame."""
        return latent if self.constraints is None else self.constraints.remember(latent, points)

    def step(self, latent: Latent, condition: Tensor) -> Latent:
        """The latent one time step later; condition is (B, P)."""
        following: Latent = self.operator(latent, condition)
        return following._replace(condition=condition, totals=latent.totals)

    def rollout(self, latent: Latent, condition: Tensor, steps: int) -> list[Latent]:
        """The latents after 1, 2, … `steps` steps, without decoding in between."""
        latents = []
        for _ in range(steps):
            latent = self.step(latent, condition)
            latents.append(latent)
        return latents

    def decode(self, latent: Latent, queries: Queries) -> Tensor:
        """The fields (B, Q, C) at the queries, as the constraints have them.

        Without gradient, queries that are no grid are answered at most `QUERIES_TOGETHER` at a time, so that a million
        of them take no more memory than what they give.
        """
        if self.constraints is None:
            return self._decoded(latent, queries)
        constrained: Tensor = self.constraints(latent, queries, self._decoded)
        return constrained

    def _decoded(self, latent: Latent, queries: Queries) -> Tensor:
        batch, count = queries.positions.shape[:2]
        if torch.is_grad_enabled() or queries.grid is not None or batch * count <= QUERIES_TOGETHER:
            values: Tensor = self.decoder(latent, queries)
            return values
        parts = []
        samples = max(1, QUERIES_TOGETHER // count)
        for start in range(0, batch, samples):
            some = slice(start, start + samples)
            own = latent_part(latent, some)
            places = torch.split(queries.positions[some], QUERIES_TOGETHER, dim=1)
            parts.append(torch.cat([self.decoder(own, Queries(part)) for part in places], dim=1))
        return torch.cat(parts)

    def example(self, batch: Batch) -> Example:
        """What the decoder shall give for a batch: its newest given frames; of steady data the answers, one step on."""
        latent, values, places = self.encode(batch.inputs, batch.condition), batch.states[:, 0], batch.places(0)
        if self.fields.steady:
            latent, values = self.step(latent, batch.condition), batch.states[:, 1]
        queries = Queries(places, batch.grid)
        return Example(latent, queries, pick(values, batch.channels), batch.channels, batch.mask)

    def reencoded_rollout(self, inputs: PointSet, condition: Tensor, steps: int) -> list[Tensor]:
        """The fields (B, N, C) after 1, 2, … `steps` steps, decoded and encoded again at every step."""
        queries = Queries(inputs.positions, inputs.grid)
        frames = []
        for _ in range(steps):
            values = self.decode(self.step(self.encode(inputs, condition), condition), queries)
            inputs = self.advance(inputs, values)
            frames.append(values)
        return frames

    def advance(self, inputs: PointSet, values: Tensor, positions: Tensor | None = None) -> PointSet:
        """The inputs one step later: the oldest frame drops out, `values` (B, N, C) come in as the newest.

        `positions` (B, N, D) are where points that move are then; what was looked up for the old places is dropped.
        Steady data have inputs that hold no frame, and stay as they are.
        """
        if self.fields.steady:
            return inputs
        if positions is not None:
            inputs = inputs._replace(positions=positions, supernodes=None)
        channels, given = self.fields.target_channels, self.fields.history * self.fields.target_channels
        kept, statics = inputs.values[..., channels:given], inputs.values[..., given:]
        return inputs._replace(values=_joined(kept, values, statics))

    def replace_newest(self, inputs: PointSet, values: Tensor) -> PointSet:
        """The inputs with `values` (B, N, C) in the place of the newest frame."""
        channels, given = self.fields.target_channels, self.fields.history * self.fields.target_channels
        kept, statics = inputs.values[..., : given - channels], inputs.values[..., given:]
        return inputs._replace(values=_joined(kept, values, statics))


def _joined(*parts: Tensor) -> Tensor:
    present = [part for part in parts if part.shape[-1]]
    return present[0] if len(present) == 1 else torch.cat([part.to(present[-1].dtype) for part in present], dim=-1)
