"""Latents for operators and decoders, as encoders of any kind would give them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from ..data.discretisations import grid_axes, grid_points
from ..interfaces import Latent, LatentForm
from .on_tiny import Case

FORMS: tuple[LatentForm, ...] = ("lattice", "scattered", "pooled")
LATTICES: dict[int, tuple[tuple[int, ...], ...]] = {  # by dimensions of space
    1: ((8,), (32,)),
    2: ((4, 4), (8, 4)),
    3: ((2, 2, 2), (4, 4, 2)),
}
COUNTS = (9, 16)  # of scattered tokens
SAMPLES = 3


def made_latents(case: Case, form: LatentForm) -> Iterator[Latent]:
    """Latents of a form with two numbers of tokens each, or with the number that the recipe says."""
    fields, width, fixed = case.fields, case.latent.width, case.latent.tokens
    draw = torch.Generator().manual_seed(3)
    condition = case.batch(SAMPLES).condition
    if form == "lattice":
        for shape in LATTICES[fields.space_dims]:
            anchors = torch.from_numpy(grid_points(grid_axes(fields.domain, shape, 0.5))).float()
            tokens = torch.randn(SAMPLES, math.prod(shape), width, generator=draw)
            yield Latent(tokens, anchors, shape, condition)
        return
    low = torch.tensor([low for low, _ in fields.domain])
    for count in COUNTS if fixed is None else (fixed,):
        tokens = torch.randn(SAMPLES, count, width, generator=draw)
        places = low + torch.tensor(fields.extent) * torch.rand(SAMPLES, count, fields.space_dims, generator=draw)
        yield Latent(tokens, places if form == "scattered" else None, None, condition)
