"""Latents for operators and decoders, as encoders of any kind would give them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from attrs import frozen
from torch import nn

from ..data.discretisations import grid_axes, grid_points
from ..errors import UpsKitError
from ..interfaces import Latent, LatentForm, TakesForms
from .modules import module_of, seeded
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


@frozen(eq=False)
class OnTokens:
    """The config of a part that takes latents, and one that it is given."""

    case: Case
    form: LatentForm
    latent: Latent

    def build(self) -> nn.Module:
        return module_of(self.case.config.build(self.case.fields, self.case.latent))

    @property
    def where(self) -> str:
        """For messages."""
        return f"on {self.case.on}, with {self.form} tokens"


T = TypeVar("T", bound=OnTokens)


def taken(case: Case, make: Callable[[LatentForm, Latent], T], call: Callable[[T, nn.Module], object]) -> Iterator[T]:
    """What a part takes: latents of all forms that it says, or else of those that it does not refuse when called.

    Raises what the first was refused with, where all are.
    """
    forms = case.config.forms if isinstance(case.config, TakesForms) else FORMS
    refused, any_taken = [], False
    for form in forms:
        for latent in made_latents(case, form):
            made = make(form, latent)
            try:
                with torch.no_grad():
                    call(made, seeded(made.build).eval())
            except UpsKitError as error:  # too few tokens, say
                refused.append(error)
                continue
            any_taken = True
            yield made
    if not any_taken:
        raise refused[0]


def check_each(found: Iterable[T], check: Callable[[T], object], sizes: bool = True) -> None:
    """Check it with every latent that it takes; without `sizes` with one of each form."""
    seen: set[tuple[str, str]] = set()
    for made in found:
        which = (made.case.on, made.form)
        if sizes or which not in seen:
            seen.add(which)
            check(made)
