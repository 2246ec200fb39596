"""The contract of decoders: fields at any points, each answered by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from attrs import frozen
from torch import Tensor, nn

from ..batching import latent_part
from ..data.discretisations import grid_axes, grid_points
from ..errors import UpsKitError
from ..interfaces import Latent, LatentForm, Queries, TakesForms
from .latents import FORMS, SAMPLES, made_latents
from .modules import (
    add_reached,
    all_reached,
    awake,
    deterministic,
    finite,
    finite_everywhere,
    in_bf16,
    module_of,
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
class Asked:
    """A decoder's config, a latent that it takes, and where it is asked."""

    case: Case
    form: LatentForm
    latent: Latent
    places: Tensor  # (B, Q, D)

    def build(self) -> nn.Module:
        return module_of(self.case.config.build(self.case.fields, self.case.latent))

    def answer(self, module: nn.Module, places: Tensor | None = None) -> Tensor:
        found: Tensor = module(self.latent, Queries(self.places if places is None else places))
        return found

    @property
    def where(self) -> str:
        """For messages."""
        return f"on {self.case.on}, with {self.form} tokens"


def _places(case: Case, count: int = QUERIES) -> Tensor:
    fields = case.fields
    low, draw = torch.tensor([low for low, _ in fields.domain]), torch.Generator().manual_seed(5)
    return low + torch.tensor(fields.extent) * torch.rand(SAMPLES, count, fields.space_dims, generator=draw)


def _taken(case: Case) -> list[Asked]:
    forms = case.config.forms if isinstance(case.config, TakesForms) else FORMS
    taken, refused = [], []
    for form in forms:
        for latent in made_latents(case, form):
            asked = Asked(case, form, latent, _places(case))
            try:
                with torch.no_grad():
                    asked.answer(seeded(asked.build).eval())
            except UpsKitError as error:
                refused.append(error)
                continue
            taken.append(asked)
    if not taken:
        raise refused[0]
    return taken


def _asked(subject: Subject) -> list[Asked]:
    return subject.once("asked", lambda: [asked for case in cases(subject, _taken) for asked in _taken(case)])


def _each(subject: Subject, check: Callable[[Asked], object], sizes: bool = True) -> None:
    """Check it with every latent that it takes; without `sizes` with one of each form."""
    seen: set[tuple[str, str]] = set()
    for asked in _asked(subject):
        which = (asked.case.on, asked.form)
        if sizes or which not in seen:
            seen.add(which)
            check(asked)


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

    _each(subject, check)
    return f"tokens: {', '.join(dict.fromkeys(asked.form for asked in _asked(subject)))}"


def finite_gradients(subject: Subject) -> str | None:
    """Gradients are finite, and reach the tokens."""

    def check(asked: Asked) -> None:
        for module in (seeded(asked.build), awake(seeded(asked.build))):
            tokens = asked.latent.tokens.clone().requires_grad_(True)
            found = module.eval()(asked.latent._replace(tokens=tokens), Queries(asked.places))
            finite_everywhere(module, found, {"tokens": tokens}, asked.where)

    _each(subject, check)
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

    _each(subject, check)
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

    _each(subject, check)
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

    _each(subject, check)
    return None


def repeats(subject: Subject) -> str | None:
    """One seed gives the same weights, and one input the same output."""
    _each(subject, lambda asked: deterministic(asked.build, asked.answer), sizes=False)
    return None


def state(subject: Subject) -> str | None:
    """Its state is plain, and survives being saved and loaded with `weights_only`."""
    _each(subject, lambda asked: state_survives(asked.build, asked.answer), sizes=False)
    return None


def devices(subject: Subject) -> str | None:
    """A GPU gives what the CPU gives."""

    def check(asked: Asked) -> None:
        def call(module: nn.Module, device: torch.device) -> Tensor:
            found: Tensor = module(moved(asked.latent, device), Queries(asked.places.to(device)))
            return found

        on_gpu(asked.build, call)

    _each(subject, check, sizes=False)
    return None


def bf16(subject: Subject) -> str | None:
    """It works under bfloat16 autocast."""
    _each(subject, lambda asked: in_bf16(asked.build, asked.answer), sizes=False)
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
