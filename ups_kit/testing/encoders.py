"""The contract of encoders: points to tokens, whatever their number, order and padding."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from ..batching import points_part
from ..interfaces import GivesLatents, Latent, PointSet, Prepares
from .modules import (
    add_reached,
    all_reached,
    awake,
    deterministic,
    finite,
    finite_everywhere,
    in_bf16,
    joined,
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

SETS = ("mesh", "particles")  # data without a grid: sets of points
EXTRA = 5  # points of padding


def _build(case: Case) -> nn.Module:
    return module_of(case.config.build(case.fields, case.latent))


def _cases(subject: Subject) -> list[Case]:
    return cases(subject, lambda case: seeded(lambda: _encoded(_build(case), case)))


def _encoded(module: nn.Module, case: Case, points: PointSet | None = None) -> Latent:
    batch = case.batch()
    latent: Latent = module(batch.inputs._replace(condition=batch.condition) if points is None else points)
    return latent


def _each(subject: Subject, check: Callable[[Case], object], only: tuple[str, ...] | None = None) -> None:
    chosen = [case for case in _cases(subject) if only is None or case.on in only]
    if not chosen:
        raise Skipped("it is made for grids, whose points have an order")
    for case in chosen:
        check(case)


def shapes(subject: Subject) -> str | None:
    """Points (B, N, D) give tokens (B, T, latent.width) and anchors that fit them, for every B and N that there is."""

    def check(case: Case) -> None:
        module = seeded(lambda: _build(case)).eval()
        for points in _several(case):
            _check_latent(module(points), points, case)

    _each(subject, check)
    return None


def _several(case: Case) -> Iterator[PointSet]:
    """Batches of several sizes, and where points are no grid of several numbers of points."""
    for samples in (1, 3):
        batch = case.batch(samples)
        yield batch.inputs
        yield batch.inputs._replace(condition=batch.condition)
        if batch.grid is None:
            some = slice(0, 30)
            mask = batch.inputs.mask
            yield batch.inputs._replace(
                positions=batch.inputs.positions[:, some],
                values=batch.inputs.values[:, some],
                mask=None if mask is None else mask[:, some],
            )


def _check_latent(latent: Latent, points: PointSet, case: Case) -> None:
    where, samples, dims = f"on {case.on}", len(points.values), case.fields.space_dims
    expect(isinstance(latent, Latent), f"{where}: forward gives {type(latent).__name__}", "return ups_kit.Latent(…)")
    expect(
        latent.tokens.dim() == 3 and latent.tokens.shape[0] == samples and latent.tokens.shape[2] == case.latent.width,
        f"{where}: tokens of shape {tuple(latent.tokens.shape)} for {samples} samples and width {case.latent.width}",
        "return tokens (batch, tokens, latent.width)",
    )
    finite(latent.tokens, where)
    count = latent.tokens.shape[1]
    if case.latent.tokens is not None:
        expect(count == case.latent.tokens, f"{where}: {count} tokens, where latent.tokens = {case.latent.tokens}")
    shape = None if latent.anchors is None else tuple(latent.anchors.shape)
    expect(
        shape in (None, (count, dims), (samples, count, dims)),
        f"{where}: anchors of shape {shape} for {count} tokens in {dims} dimensions",
        "anchors are (tokens, space_dims), (batch, tokens, space_dims), or None",
    )
    if latent.grid is not None:
        product = int(torch.tensor(latent.grid).prod())
        expect(
            product == count, f"{where}: a lattice {latent.grid} for {count} tokens", "its shape, row-major, or None"
        )
    if isinstance(case.config, GivesLatents):
        form = case.config.form(case.latent)
        found = "pooled" if latent.anchors is None else "lattice" if latent.grid is not None else "scattered"
        expect(found == form, f"{where}: form() says '{form}', and the tokens are '{found}'", "let the two agree")


def gradients(subject: Subject) -> str | None:
    """The gradient reaches every parameter, on some of the data."""
    reached: dict[str, float] = {}
    for case in _cases(subject):

        def call(module: nn.Module, probe: int, case: Case = case) -> Tensor:
            batch = case.batch(3, probe)
            latent: Latent = module(batch.inputs._replace(condition=batch.condition))
            return latent.tokens

        add_reached(reached, seeded(partial(_build, case)), call)
    return all_reached(reached)


def finite_gradients(subject: Subject) -> str | None:
    """Gradients are finite, and reach the values at the points, so that what was decoded can be encoded again."""

    def check(case: Case) -> None:
        points = case.batch().inputs
        for module in (seeded(lambda: _build(case)), awake(seeded(lambda: _build(case)))):
            values = points.values.clone().requires_grad_(True)
            tokens = module.eval()(points._replace(values=values)).tokens
            finite_everywhere(module, tokens, {"values": values}, f"on {case.on}")

    _each(subject, check)
    return None


def permutation(subject: Subject) -> str | None:
    """The order of points that are no grid does not matter."""

    def check(case: Case) -> None:
        module, points = awake(seeded(lambda: _build(case))).eval(), _whole(case)
        order = torch.randperm(points.values.shape[1], generator=torch.Generator().manual_seed(0))
        mixed = points._replace(positions=points.positions[:, order], values=points.values[:, order])
        with torch.no_grad():
            same(
                _content(module(points)),
                _content(module(mixed)),
                f"on {case.on}, with points in another order",
                "pool over points with sums, means, maxima or attention",
            )

    _each(subject, check, SETS)
    return None


def _whole(case: Case) -> PointSet:
    """Points of which none is padding: those that all samples have."""
    points = case.batch().inputs
    if points.mask is None:
        return points
    least = int(points.mask.sum(1).min())
    return points._replace(positions=points.positions[:, :least], values=points.values[:, :least], mask=None)


def _content(latent: Latent) -> Tensor:
    return joined([latent.tokens, *([] if latent.anchors is None else [latent.anchors.to(latent.tokens)])])


def padding(subject: Subject) -> str | None:
    """Points whose mask is false do not matter."""

    def check(case: Case) -> None:
        module, points = awake(seeded(lambda: _build(case))).eval(), _whole(case)
        samples, count = points.values.shape[:2]
        generator = torch.Generator().manual_seed(1)
        for noise in (0.0, 3.0):  # as data sets fill up, and anything
            filled = torch.cat(
                [points.values, noise * torch.randn(samples, EXTRA, points.values.shape[2], generator=generator)], 1
            )
            places = torch.cat([points.positions, points.positions[:, :1].expand(-1, EXTRA, -1)], 1)
            mask = (torch.arange(count + EXTRA) < count).expand(samples, -1)
            with torch.no_grad():
                same(
                    _content(module(points)),
                    _content(module(points._replace(positions=places, values=filled, mask=mask))),
                    f"on {case.on}, with {EXTRA} points of padding",
                    "leave points whose PointSet.mask is false out of every sum, mean, maximum and attention",
                )

    _each(subject, check, SETS)
    return None


def samples_apart(subject: Subject) -> str | None:
    """What is made of a sample does not depend on the others of its batch."""

    def check(case: Case) -> None:
        module, points = awake(seeded(lambda: _build(case))).eval(), case.batch().inputs
        with torch.no_grad():
            together = module(points).tokens
            for sample in range(len(together)):
                part = slice(sample, sample + 1)
                alone = module(points_part(points, part)).tokens
                same(together[part], alone, f"on {case.on}, a sample alone", "mix nothing along the batch axis")

    _each(subject, check)
    return None


def prepared(subject: Subject) -> str | None:
    """What it prepares ahead of the model changes nothing, and can be pickled for data workers."""
    if not all(isinstance(_build(case), Prepares) for case in _cases(subject)):
        raise Skipped("it prepares nothing ahead")

    def check(case: Case) -> None:
        module, points = seeded(lambda: _build(case)).eval(), case.batch().inputs
        preparation = pickle.loads(pickle.dumps(module.preparation))
        with torch.no_grad():
            same(
                _content(module(points)),
                _content(module(preparation(points))),
                f"on {case.on}, with points that were prepared",
                "let the preparation follow from positions and mask alone",
            )

    _each(subject, check)
    return None


def repeats(subject: Subject) -> str | None:
    """One seed gives the same weights, and one input the same output."""
    _each(subject, lambda case: deterministic(lambda: _build(case), lambda module: _encoded(module, case).tokens))
    return None


def state(subject: Subject) -> str | None:
    """Its state is plain, and survives being saved and loaded with `weights_only`."""
    _each(subject, lambda case: state_survives(lambda: _build(case), lambda module: _encoded(module, case).tokens))
    return None


def devices(subject: Subject) -> str | None:
    """A GPU gives what the CPU gives."""

    def check(case: Case) -> None:
        batch = case.batch()
        points = batch.inputs._replace(condition=batch.condition)

        def call(module: nn.Module, device: torch.device) -> Tensor:
            return _encoded(module, case, moved(points, device)).tokens

        on_gpu(lambda: _build(case), call)

    _each(subject, check)
    return None


def bf16(subject: Subject) -> str | None:
    """It works under bfloat16 autocast."""
    _each(subject, lambda case: in_bf16(lambda: _build(case), lambda module: _encoded(module, case).tokens))
    return None


def builds(subject: Subject) -> str | None:
    """It is built for the tiny data that its `check` allows, and called on them."""
    _cases(subject)
    return None


CLAUSES: Mapping[str, Clause] = {
    "builds": builds,
    "shapes": shapes,
    "finite-gradients": finite_gradients,
    "reaches-every-parameter": gradients,
    "permutation": permutation,
    "padding": padding,
    "samples-apart": samples_apart,
    "preparation": prepared,
    "deterministic": repeats,
    "state-round-trip": state,
    "devices": devices,
    "bf16": bf16,
}
