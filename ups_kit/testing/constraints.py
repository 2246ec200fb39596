"""The contract of constraints: what is added to decoded fields so that they keep a law."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..constraining import Constraining
from ..data.normalisation import Normaliser
from ..interfaces import Batch, Constraint, Latent, Queries
from .modules import module_of, same, seeded, state_survives
from .on_tiny import Case, cases
from .report import expect
from .subject import Clause, Subject

LAW = 1e-4  # of the fields: how exactly a law is kept in float32


def _built(case: Case) -> Constraint:
    normaliser: Normaliser = case.dataset.normaliser
    built: Constraint = case.config.build(case.fields, normaliser)
    return built


def _cases(subject: Subject) -> list[Case]:
    return cases(subject, lambda case: _corrected(case, _fields(case)))


def _fields(case: Case, seed: int = 0) -> Tensor:
    """Decoded fields that keep no law, (B, N, C) on the data's grid."""
    batch = case.batch()
    noise = torch.randn(batch.states[:, 0].shape, generator=torch.Generator().manual_seed(seed))
    return batch.states[:, 0] + 0.3 * noise


def _latent(case: Case, batch: Batch, constraining: Constraining) -> Latent:
    tokens = torch.zeros(len(batch.states), 2, case.latent.width)
    return constraining.remember(Latent(tokens, None, None, batch.condition), batch.inputs)


def _corrected(case: Case, values: Tensor, positions: Tensor | None = None) -> Tensor:
    """What the model's constraining makes of fields on the grid, there or at other positions."""
    constraining, batch = Constraining([_built(case)], case.fields), case.batch()

    def answer(latent: Latent, queries: Queries) -> Tensor:
        if queries.grid is not None:
            return values
        return torch.zeros(*queries.positions.shape[:2], values.shape[-1])

    places = batch.places(0) if positions is None else positions
    queries = Queries(places, case.fields.grid if positions is None else None)
    found: Tensor = constraining(_latent(case, batch, constraining), queries, answer)
    return found


def corrections(subject: Subject) -> str | None:
    """`correction` is finite, and changes the fields that it constrains and no others."""
    for case in _cases(subject):
        values = _fields(case)
        after = _corrected(case, values)
        expect(after.shape == values.shape, f"on {case.on}: {tuple(after.shape)} from {tuple(values.shape)}")
        expect(torch.isfinite(after).all(), f"on {case.on}: values that are not finite")
        first = 0
        for field in case.fields.targets:
            own = slice(first, first + field.channels)
            first += field.channels
            if field.name not in case.config.constrains:
                what = f"on {case.on}, the field '{field.name}', which it does not constrain"
                same(values[..., own], after[..., own], what, "add 0 to other channels", LAW)
    return None


def idempotent(subject: Subject) -> str | None:
    """Fields that keep the law are left as they are: applied twice is applied once."""
    for case in _cases(subject):
        once = _corrected(case, _fields(case))
        mend = "let the correction be a projection: what it adds to its own result is 0"
        same(once, _corrected(case, once), f"on {case.on}, the second time", mend, LAW)
    return None


def one_function(subject: Subject) -> str | None:
    """Between the points of the grid it adds one function of space: at the grid's points what `correction` gives."""
    for case in _cases(subject):
        values, places = _fields(case), case.batch().places(0)
        added = _corrected(case, values) - values
        there = _corrected(case, values, places)
        some = torch.arange(3, 20)
        fewer = _corrected(case, values, places[:, some])
        same(there[:, some], fewer, f"on {case.on}, at fewer places", "answer position by position")
        same(added, there, f"on {case.on}, at the grid's points", "`elsewhere` interpolates the correction", 0.02)
    return None


def gradients(subject: Subject) -> str | None:
    """Gradients go through it, and are finite."""
    for case in _cases(subject):
        values = _fields(case).requires_grad_(True)
        (found,) = torch.autograd.grad(_corrected(case, values).square().sum(), values)
        expect(torch.isfinite(found).all() and found.abs().sum() > 0, f"on {case.on}: no finite gradient")
    return None


def state(subject: Subject) -> str | None:
    """It is a torch module without weights, whose state survives being saved."""
    for case in _cases(subject):

        def build(case: Case = case) -> nn.Module:
            return module_of(_built(case), "correction")

        names = [name for name, _ in seeded(build).named_parameters()]
        expect(not names, f"it has weights: {names[:3]}", "register tables as buffers")
        state_survives(build, lambda module: torch.zeros(1))
    return None


def builds(subject: Subject) -> str | None:
    """It is built for the tiny data that its `check` allows, and corrects fields on them."""
    _cases(subject)
    return None


CLAUSES: Mapping[str, Clause] = {
    "builds": builds,
    "correction": corrections,
    "idempotent": idempotent,
    "one-function": one_function,
    "finite-gradients": gradients,
    "state-round-trip": state,
}
