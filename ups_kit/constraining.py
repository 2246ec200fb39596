"""Constraints of a model: decoded fields are changed by what makes them keep a law exactly (docs/method.md §1).

What is added is found on the grid of the data, from all of it. So the field that a latent stands for is one function of
space, whose value at a point does not depend on which other points are asked for: queries that are not that grid cost a
second decoding, of the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from .data.discretisations import grid_axes, grid_points
from .errors import PluginError, UsageError
from .interfaces import Constraint, FieldSpec, Latent, PointSet, Queries


class Answer(Protocol):
    """What a decoder gives: fields (B, Q, C) at queries."""

    def __call__(self, latent: Latent, queries: Queries) -> Tensor: ...


class Constraining(nn.Module):
    """The constraints of a model, one after the other: each changes the fields that the one before it has left."""

    places: Tensor

    def __init__(self, constraints: Sequence[Constraint], fields: FieldSpec) -> None:
        super().__init__()
        if fields.grid is None:
            raise PluginError("constraints hold on a regular grid, and these data have none")
        self.constraints = nn.ModuleList(cast("nn.Module", constraint) for constraint in constraints)
        self.keeps_totals = any(constraint.keeps_totals for constraint in constraints)
        self.grid = fields.grid
        self.newest = slice((fields.history - 1) * fields.target_channels, fields.history * fields.target_channels)
        places = grid_points(grid_axes(fields.domain, fields.grid, fields.offset))
        self.register_buffer("places", torch.from_numpy(places).float(), persistent=False)

    def remember(self, latent: Latent, points: PointSet) -> Latent:
        """A latent of these points with the means of their newest frame, where a constraint keeps them.

        Points without values, as batches of cached latents have them that nobody decodes, leave it as it is. Raises
        UsageError for points that are no grid.
        """
        if not self.keeps_totals or not points.values.shape[1]:
            return latent
        if points.grid is None:
            raise UsageError(
                "this model keeps the means of the frame that it is given (a constraint of its recipe), and these "
                "points are no grid, whose mean is no integral; give it a frame on a grid"
            )
        return latent._replace(totals=points.values[..., self.newest].mean(1, dtype=torch.float64))

    def forward(self, latent: Latent, queries: Queries, answer: Answer) -> Tensor:
        """The fields (B, Q, C) at the queries, in float32 or better; `answer` is what the decoder alone gives."""
        own = queries.grid == self.grid
        asked = _exact(answer(latent, queries))
        whole = asked
        if not own:
            places = self.places.to(queries.positions.dtype).expand(latent.tokens.shape[0], -1, -1)
            whole = _exact(answer(latent, Queries(places, self.grid)))
        with torch.autocast(asked.device.type, enabled=False):
            for module in self.constraints:
                constraint = cast("Constraint", module)
                correction = constraint.correction(whole, latent)
                whole = _added(whole, correction)
                asked = whole if own else _added(asked, constraint.elsewhere(correction, queries.positions))
        return asked


def _exact(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _added(values: Tensor, correction: Tensor) -> Tensor:
    """The sum, rounded once: a float32 mean is then right to the rounding of its terms, and these do not lean."""
    return (values + correction).to(values.dtype)
