"""The tiny model, loss and stage: the least that keeps every law of its kind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..data.discretisations import grid_axes, grid_points
from ..fit.batches import train_windows
from ..fit.checks import weighting_of
from ..fit.fitting import Task
from ..fit.forward import LossBundle, LossTerm, compute_losses, states_of
from ..fit.loop import fit
from ..folder import StageFolder
from ..interfaces import Batch, FieldSpec, ForwardPass, Latent, LatentSpec, Needs, PointSet, Progress, Queries
from ..trackers import Trackers

if TYPE_CHECKING:
    from ..assemble import Experiment
    from .tiny import TinyStageConfig

LATTICES = {1: (8,), 2: (4, 4), 3: (2, 2, 2)}  # of tokens, by dimensions of space


class _Lattice(nn.Module):
    """A lattice of places over the domain, and how much points near each of them count."""

    places: Tensor

    def __init__(self, fields: FieldSpec) -> None:
        super().__init__()
        self.grid = LATTICES[fields.space_dims]
        places = grid_points(grid_axes(fields.domain, self.grid, 0.5))
        self.register_buffer("places", torch.from_numpy(places).float())
        self.register_buffer("extent", torch.tensor(fields.extent))
        self.periodic = torch.tensor(fields.periodic)

    def nearness(self, positions: Tensor, places: Tensor | None = None) -> Tensor:
        """(B, N, T), between 0 and 1, of positions (B, N, D) to places (T, D) or (B, T, D)."""
        anchors = self.places if places is None else places
        apart = (positions[:, :, None] - (anchors if anchors.dim() == 2 else anchors[:, None])) / self.get_buffer(
            "extent"
        )
        apart = torch.where(self.periodic.to(apart.device), apart - apart.round(), apart)
        return (-16 * apart.square().sum(-1)).exp()


class TinyEncoder(nn.Module):
    """Means of the values around each place of a lattice."""

    def __init__(self, fields: FieldSpec, latent: LatentSpec) -> None:
        super().__init__()
        self.lattice = _Lattice(fields)
        self.linear = nn.Linear(2 * fields.input_channels, latent.width)

    def forward(self, points: PointSet) -> Latent:
        near = self.lattice.nearness(points.positions)
        values = points.values
        if points.mask is not None:
            near, values = near * points.mask[..., None], values * points.mask[..., None]
        share = near / near.sum(1, keepdim=True).clamp_min(1e-6)
        both = torch.cat([values, values.square()], -1)
        tokens = torch.tanh(self.linear(share.transpose(1, 2).to(both.dtype) @ both))
        return Latent(tokens, self.lattice.places, self.lattice.grid)


class TinyOperator(nn.Module):
    """A residual layer."""

    def __init__(self, fields: FieldSpec, latent: LatentSpec) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * latent.width + len(fields.conditions), latent.width)

    def forward(self, latent: Latent, condition: Tensor) -> Latent:
        tokens = latent.tokens
        mean, beside = (
            tokens.mean(1, keepdim=True).expand_as(tokens),
            condition[:, None].expand(-1, tokens.shape[1], -1),
        )
        step = torch.tanh(self.linear(torch.cat([tokens, mean, beside.to(tokens.dtype)], -1)))
        return latent._replace(tokens=tokens + 0.3 * step)


class TinyDecoder(nn.Module):
    """A layer on the tokens near each query, and on where it is."""

    def __init__(self, fields: FieldSpec, latent: LatentSpec) -> None:
        super().__init__()
        self.lattice = _Lattice(fields)
        self.linear = nn.Linear(latent.width + 2 * fields.space_dims, latent.width)
        self.last = nn.Linear(latent.width, fields.target_channels)

    def forward(self, latent: Latent, queries: Queries) -> Tensor:
        if latent.anchors is None:
            heard = latent.tokens.mean(1, keepdim=True).expand(-1, queries.positions.shape[1], -1)
        else:
            near = self.lattice.nearness(queries.positions, latent.anchors) + 1e-6
            heard = (near / near.sum(-1, keepdim=True)).to(latent.tokens.dtype) @ latent.tokens
        phase = 2 * math.pi * queries.positions / self.lattice.get_buffer("extent")
        values: Tensor = self.last(torch.tanh(self.linear(torch.cat([heard, phase.sin(), phase.cos()], -1))))
        return values


class TinyLoss:
    """The mean square error of one step."""

    reaches = ("encoder", "operator", "decoder")
    sampler = None
    horizon = 1

    def needs(self, progress: Progress) -> Needs | None:
        return Needs(steps=1, decodes=(1,))

    def __call__(self, forward: ForwardPass) -> Tensor:
        found = forward.decoded(1)
        error = (found.values - found.truth).square().mean(-1)
        if found.mask is None:
            return error.mean()
        return ((error * found.mask).sum(1) / found.mask.sum(1)).mean()


class TinyStage:
    """Trains all parts on all losses, on the core's engine."""

    def __init__(self, config: TinyStageConfig) -> None:
        self._config = config

    def run(self, experiment: Experiment, folder: StageFolder, trackers: Trackers) -> Mapping[str, Any]:
        config, model = self._config, experiment.model
        fields = experiment.dataset.fields
        terms = [LossTerm(name, weighting_of(name, own), own.build(fields)) for name, own in config.losses.items()]
        windows = train_windows(experiment, config, config.name, max([1, *(term.loss.horizon for term in terms)]))

        def loss(batch: Batch, progress: Progress, generator: torch.Generator) -> LossBundle:
            return compute_losses(model, batch, terms, progress, generator)

        def validate(scored: nn.Module) -> Mapping[str, float]:
            start = Progress(0, 0.0, 0.0)
            return {"score": float(loss(windows.read(0), start, torch.Generator().manual_seed(0)).total)}

        return fit(
            Task(
                stage=config.name,
                model=model,
                settings=config,
                run=experiment.recipe.run,
                device=experiment.device,
                source=windows,
                loss=loss,
                validate=validate,
                state=states_of(terms),
            ),
            folder,
            trackers,
        )
