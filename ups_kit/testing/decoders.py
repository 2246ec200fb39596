"""The contract of decoders: fields at any points, each answered by itself."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from attrs import frozen
from torch import Tensor, nn

from ..batching import latent_part
from ..data.discretisations import grid_axes, grid_points
from ..interfaces import Queries
from .latents import SAMPLES, OnTokens, check_each, taken
from .modules import (
    add_reached,
    all_reached,
    awake,
    deterministic,
    finite,
    finite_everywhere,
    in_bf16,
    moved,
    on_gpu,
    same,
    seeded,
    state_survives,
)
from .on_tiny import Case, cases
from .report import Skipped, expect
from .subject import Clause, Subject

QUERIES = 24


@frozen(eq=False)
class Asked(OnTokens):
    """A decoder's config, a latent that it takes, and where it is asked."""

    places: Tensor  # (B, Q, D)

    def answer(self, module: nn.Module, places: Tensor | None = None) -> Tensor:
        found: Tensor = module(self.latent, Queries(self.places if places is None else places))
        return found


def _places(case: Case, count: int = QUERIES) -> Tensor:
    fields = case.fields
    low, draw = torch.tensor([low for low, _ in fields.domain]), torch.Generator().manual_seed(5)
    return low + torch.tensor(fields.extent) * torch.rand(SAMPLES, count, fields.space_dims, generator=draw)


def _taken(case: Case) -> list[Asked]:
    places = _places(case)
    return list(taken(case, lambda form, latent: Asked(case, form, latent, places), Asked.answer))


def _asked(subject: Subject) -> list[Asked]:
    return subject.once("asked", lambda: [asked for case in cases(subject, _taken) for asked in _taken(case)])


def shapes(subject: Subject) -> str | None:
    """Queries (B, Q, D) give values (B, Q, channels), for any number of queries."""

    def check(asked: Asked) -> None:
        module, channels = seeded(asked.build).eval(), asked.case.fields.target_channels
        for count in (1, 7, QUERIES):
            with torch.no_grad():
                found = asked.answer(module, asked.places[:, :count])
            shape, expected = tuple(found.shape), (SAMPLES, count, channels)
            expect(
                shape == expected, f"{asked.where}: {shape}, expected {expected}", "return (batch, queries, channels)"
            )
            finite(found, asked.where)

    check_each(_asked(subject), check)
    return f"tokens: {', '.join(dict.fromkeys(asked.form for asked in _asked(subject)))}"


def finite_gradients(subject: Subject) -> str | None:
    """Gradients are finite, and reach the tokens."""

    def check(asked: Asked) -> None:
        for module in (seeded(asked.build), awake(seeded(asked.build))):
            tokens = asked.latent.tokens.clone().requires_grad_(True)
            found = module.eval()(asked.latent._replace(tokens=tokens), Queries(asked.places))
            finite_everywhere(module, found, {"tokens": tokens}, asked.where)

    check_each(_asked(subject), check)
    return None


def gradients(subject: Subject) -> str | None:
    """The gradient reaches every parameter, on some of the data and with tokens of some form that it takes."""
    reached: dict[str, float] = {}
    for asked in _asked(subject):

        def call(module: nn.Module, probe: int, asked: Asked = asked) -> Tensor:
            latent = asked.latent._replace(tokens=asked.latent.tokens.roll(probe, -1))
            found: Tensor = module(latent, Queries(asked.places))
            return found

        add_reached(reached, seeded(asked.build), call)
    return all_reached(reached)


def permutation(subject: Subject) -> str | None:
    """Queries in another order give the same answers in that order."""

    def check(asked: Asked) -> None:
        module = awake(seeded(asked.build)).eval()
        order = torch.randperm(QUERIES, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            mixed = asked.answer(module, asked.places[:, order])
            same(asked.answer(module)[:, order], mixed, f"{asked.where}, in another order", "answer query by query")

    check_each(_asked(subject), check)
    return None


def queries_apart(subject: Subject) -> str | None:
    """The answer to a query does not depend on which others are asked."""

    def check(asked: Asked) -> None:
        module = awake(seeded(asked.build)).eval()
        mend = "let queries hear tokens and not each other: no attention, norm or mean over queries"
        with torch.no_grad():
            every = asked.answer(module)
            for part in (slice(0, 1), slice(3, 10)):
                same(every[:, part], asked.answer(module, asked.places[:, part]), f"{asked.where}, fewer queries", mend)

    check_each(_asked(subject), check)
    return None


def grids(subject: Subject) -> str | None:
    """All points of a grid, asked as a grid, give what they give as scattered queries."""
    found = [asked for asked in _asked(subject) if asked.case.fields.grid is not None]
    if not found:
        raise Skipped("it is made for data without a grid")
    for asked in found:
        fields = asked.case.fields
        assert fields.grid is not None
        points = torch.from_numpy(grid_points(grid_axes(fields.domain, fields.grid, fields.offset))).float()
        places = points.expand(SAMPLES, -1, -1)
        order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
        module = awake(seeded(asked.build)).eval()
        with torch.no_grad():
            dense = module(asked.latent, Queries(places, fields.grid))
            scattered = module(asked.latent, Queries(places[:, order]))
        same(
            dense[:, order], scattered, f"{asked.where}, on the grid", "`Queries.grid` may be a short cut, and no more"
        )
    return None


def samples_apart(subject: Subject) -> str | None:
    """What is made of a sample does not depend on the others of its batch."""

    def check(asked: Asked) -> None:
        module = awake(seeded(asked.build)).eval()
        with torch.no_grad():
            together = asked.answer(module)
            for sample in range(SAMPLES):
                part = slice(sample, sample + 1)
                alone = module(latent_part(asked.latent, part), Queries(asked.places[part]))
                same(together[part], alone, f"{asked.where}, a sample alone", "mix nothing along the batch axis")

    check_each(_asked(subject), check)
    return None


def repeats(subject: Subject) -> str | None:
    """One seed gives the same weights, and one input the same output."""
    check_each(_asked(subject), lambda asked: deterministic(asked.build, asked.answer), sizes=False)
    return None


def state(subject: Subject) -> str | None:
    """Its state is plain, and survives being saved and loaded with `weights_only`."""
    check_each(_asked(subject), lambda asked: state_survives(asked.build, asked.answer), sizes=False)
    return None


def devices(subject: Subject) -> str | None:
    """A GPU gives what the CPU gives."""

    def check(asked: Asked) -> None:
        def call(module: nn.Module, device: torch.device) -> Tensor:
            found: Tensor = module(moved(asked.latent, device), Queries(asked.places.to(device)))
            return found

        on_gpu(asked.build, call)

    check_each(_asked(subject), check, sizes=False)
    return None


def bf16(subject: Subject) -> str | None:
    """It works under bfloat16 autocast."""
    check_each(_asked(subject), lambda asked: in_bf16(asked.build, asked.answer), sizes=False)
    return None


def builds(subject: Subject) -> str | None:
    """It is built for the tiny data that its `check` allows, and decodes tokens of the forms that it takes."""
    _asked(subject)
    return None


CLAUSES: Mapping[str, Clause] = {
    "builds": builds,
    "shapes": shapes,
    "finite-gradients": finite_gradients,
    "reaches-every-parameter": gradients,
    "permutation": permutation,
    "queries-apart": queries_apart,
    "grid": grids,
    "samples-apart": samples_apart,
    "deterministic": repeats,
    "state-round-trip": state,
    "devices": devices,
    "bf16": bf16,
}
