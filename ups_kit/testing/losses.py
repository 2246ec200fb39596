"""The contract of losses: a scalar from one forward pass, whose gradient goes where it says."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from ..errors import PluginError
from ..fit.checks import weighting_of
from ..fit.forward import LossBundle, LossTerm, compute_losses
from ..interfaces import Batch, LatentSpec, Loss, Progress, TakesWeights
from ..model import LatentModel
from ..weighting import Weighted
from .modules import awake, seeded
from .on_tiny import STEPS, Case, cases
from .report import Broken, Skipped, expect
from .subject import Clause, Subject
from .tiny import WIDTH, TinyDecoderConfig, TinyEncoderConfig, TinyOperatorConfig

PARTS = ("encoder", "operator", "decoder")
ENDS = (Progress(0, 0.0, 0.0), Progress(50, 500.0, 0.5), Progress(100, 1000.0, 1.0))
LATE = ENDS[2]  # every warm-up and curriculum is over
EXTRA = 4  # points of padding
NAME = "checked"


class _CountedModel(LatentModel):
    """A tiny model that counts how often it is called."""

    calls = 0

    def encode(self, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        return super().encode(*arguments, **named)


def _model(case: Case) -> _CountedModel:
    fields, latent = case.fields, LatentSpec(WIDTH)
    encoder = TinyEncoderConfig().build(fields, latent)
    operator = TinyOperatorConfig().build(fields, latent)
    decoder = TinyDecoderConfig().build(fields, latent)
    model = _CountedModel(encoder, operator, decoder, fields, case.dataset.normaliser)
    awake(model)
    return model


def _built(subject: Subject) -> list[Case]:
    """The data that it can be computed on; what it uses without asking is told by the clause `needs`."""

    def compute(case: Case) -> None:
        with suppress(PluginError):
            _computed(_seeded_model(case), _batch(case), case)

    return cases(subject, compute)


def _cases(subject: Subject) -> list[Case]:
    """The same, where it keeps to what it asks for."""
    return subject.once("needs", lambda: [_asking(case) for case in _built(subject)])


def _asking(case: Case) -> Case:
    loss = _loss(case)
    for progress in ENDS:
        asked = loss.needs(progress)
        if asked is None:
            continue
        furthest = max((*asked.decodes, *asked.encodes, 0))
        expect(
            furthest <= loss.horizon,
            f"on {case.on}: asks for the frame t+{furthest}, and horizon = {loss.horizon}",
            f"horizon = {furthest}",
        )
        try:
            _computed(_seeded_model(case), _batch(case), case, progress)
        except PluginError as error:
            raise Broken(str(error), "name in `needs` all steps that are used") from error
    return case


def _seeded_model(case: Case) -> _CountedModel:
    model: _CountedModel = seeded(lambda: _model(case))
    return model


def _term(case: Case, **changes: Any) -> LossTerm:
    config = attrs.evolve(case.config, **changes) if changes else case.config
    return LossTerm(NAME, weighting_of(NAME, config), config.build(case.fields))


def _batch(case: Case, samples: int = 2) -> Batch:
    """Train windows as long as the loss looks ahead."""
    horizon = max(int(getattr(case.config.build(case.fields), "horizon", STEPS)), 1)
    return case.dataset.batch("train", torch.arange(samples).numpy(), horizon)


def _computed(model: LatentModel, batch: Batch, case: Case, progress: Progress = LATE, **changes: Any) -> LossBundle:
    return compute_losses(model, batch, [_term(case, **changes)], progress, torch.Generator().manual_seed(0))


def _value(model: LatentModel, batch: Batch, case: Case) -> Tensor:
    """The loss when all of it applies."""
    found = _computed(model, batch, case).terms
    expect(
        NAME in found, f"on {case.on}: at the end of a stage it still asks for nothing", "`needs` says when it applies"
    )
    return found[NAME]


def finite_scalar(subject: Subject) -> str | None:
    """It is one finite number, with a gradient."""
    for case in _cases(subject):
        bundle = _computed(_seeded_model(case), _batch(case), case)
        _value(_seeded_model(case), _batch(case), case)
        shape = tuple(bundle.terms[NAME].shape)
        expect(
            shape == (), f"on {case.on}: a tensor of shape {shape}", "take the mean over samples, points and channels"
        )
        expect(
            torch.isfinite(bundle.total), f"on {case.on}: {float(bundle.total)}", "add a small number to what divides"
        )
        expect(
            bundle.total.requires_grad, f"on {case.on}: it carries no gradient", "compute it from what `forward` gives"
        )
    return None


def reaches(subject: Subject) -> str | None:
    """Its gradient is finite, and reaches the parts of the model that `reaches` names and no others."""
    for case in _cases(subject):
        said = tuple(_loss(case).reaches)
        strange = [name for name in said if name not in PARTS]
        expect(not strange, f"on {case.on}: reaches names {strange}", f"the parts are {', '.join(PARTS)}")
        model = _seeded_model(case)
        bundle = _computed(model, _batch(case), case)
        if bundle.total.requires_grad:
            bundle.total.backward()  # type: ignore[no-untyped-call]
        found = tuple(name for name in PARTS if _has_gradient(model.parts[name], f"on {case.on}"))
        expect(
            set(found) == set(said),
            f"on {case.on}: says {', '.join(said) or 'none'}, and reaches {', '.join(found) or 'none'}",
            f"reaches = {found!r}, or detach what it shall not reach",
        )
    return None


def _has_gradient(part: nn.Module, where: str) -> bool:
    gradients = [weight.grad for weight in part.parameters() if weight.grad is not None]
    for gradient in gradients:
        expect(torch.isfinite(gradient).all(), f"{where}: a gradient that is not finite", "look for sqrt(0) and 0/0")
    return any(bool(gradient.abs().sum() > 0) for gradient in gradients)


def _loss(case: Case) -> Loss:
    loss: Loss = case.config.build(case.fields)
    return loss


def needs(subject: Subject) -> str | None:
    """It uses what its `needs` names and nothing else, and `horizon` is the furthest frame of that."""
    _cases(subject)
    return None


def weightless(subject: Subject) -> str | None:
    """With weight 0 it costs nothing: the model is not called."""
    for case in _cases(subject):
        if not isinstance(case.config, Weighted):
            raise Skipped("it has no key `weight`; derive its config from ups_kit.Weighted")
        model = _seeded_model(case)
        model.calls = 0
        bundle = _computed(model, _batch(case), case, weight=0.0)
        expect(
            not model.calls, f"on {case.on}: the model was called {model.calls} times", "let `Weighted` say the weight"
        )
        expect(not bundle.terms and float(bundle.total) == 0, f"on {case.on}: it still gives {float(bundle.total)}")
    return None


def padding(subject: Subject) -> str | None:
    """Points whose mask is false do not matter."""
    found = [case for case in _cases(subject) if case.fields.grid is None]
    if not found:
        raise Skipped("it is made for grids, which have no padding")
    for case in found:
        model, batch = _seeded_model(case), _batch(case)
        for noise in (0.0, 2.0):
            one, other = _value(model, _plain(batch), case), _value(model, _padded(_plain(batch), noise), case)
            scale = max(abs(float(one)), 1e-6)
            expect(
                abs(float(one) - float(other)) <= 1e-3 * scale,
                f"on {case.on}: {float(one):.6g} without padding, {float(other):.6g} with {EXTRA} points of it",
                "take means over the points whose `Decoded.mask` or `Batch.mask` is true",
            )
    return None


def _plain(batch: Batch) -> Batch:
    """The points that all samples have, none of them padding."""
    if batch.mask is None:
        return batch
    least = int(batch.mask.sum(1).min())
    inputs = batch.inputs._replace(
        positions=batch.inputs.positions[:, :least], values=batch.inputs.values[:, :least], mask=None
    )
    return batch._replace(
        inputs=inputs, states=batch.states[:, :, :least], positions=batch.positions[..., :least, :], mask=None
    )


def _padded(batch: Batch, noise: float) -> Batch:
    draw = torch.Generator().manual_seed(2)

    def filled(values: Tensor) -> Tensor:
        shape = (*values.shape[:-2], EXTRA, values.shape[-1])
        return torch.cat([values, noise * torch.randn(shape, generator=draw)], -2)

    def placed(places: Tensor) -> Tensor:
        first = places[..., :1, :]
        return torch.cat([places, first.expand(*first.shape[:-2], EXTRA, first.shape[-1])], -2)

    count = batch.states.shape[2]
    mask = (torch.arange(count + EXTRA) < count).expand(len(batch.states), -1)
    inputs = batch.inputs._replace(
        positions=placed(batch.inputs.positions), values=filled(batch.inputs.values), mask=mask
    )
    return batch._replace(inputs=inputs, states=filled(batch.states), positions=placed(batch.positions), mask=mask)


def weights(subject: Subject) -> str | None:
    """Config and loss say the same of points that count unequally (`takes_weights`)."""
    for case in _cases(subject):
        said = [isinstance(each, TakesWeights) and bool(each.takes_weights) for each in (case.config, _loss(case))]
        expect(
            said[0] == said[1],
            f"takes_weights is {said[0]} of the config, and {said[1]} of the loss",
            "takes_weights: ClassVar[bool] = True on both, where it is Σ weight · value",
        )
    return None


def repeats(subject: Subject) -> str | None:
    """The same batch and the same weights give the same number."""
    for case in _cases(subject):
        model, batch = _seeded_model(case), _batch(case)
        one, other = _value(model, batch, case), _value(model, batch, case)
        expect(
            torch.equal(one, other),
            f"on {case.on}: {float(one)!r}, then {float(other)!r}",
            "draw nothing but what a sampler draws; keep no state from step to step",
        )
    return None


def builds(subject: Subject) -> str | None:
    """It is built for the tiny data that its `check` allows, and computed on them."""
    _built(subject)
    return None


CLAUSES: Mapping[str, Clause] = {
    "builds": builds,
    "needs": needs,
    "finite-scalar": finite_scalar,
    "reaches": reaches,
    "weight-0": weightless,
    "padding": padding,
    "takes-weights": weights,
    "deterministic": repeats,
}
