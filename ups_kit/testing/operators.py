"""The contract of operators: one step of the latent, tokens to tokens."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from attrs import frozen
from torch import Tensor, nn

from ..batching import latent_part
from ..interfaces import Latent
from .latents import OnTokens, check_each, taken
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
from .report import expect
from .subject import Clause, Subject

ROLLOUT = 3  # steps in a row


@frozen(eq=False)
class Given(OnTokens):
    """An operator's config, and a latent and a condition that it takes."""

    condition: Tensor

    def step(self, module: nn.Module) -> Latent:
        found: Latent = module(self.latent, self.condition)
        return found


def _taken(case: Case) -> list[Given]:
    condition = case.batch().condition
    return list(taken(case, lambda form, latent: Given(case, form, latent, condition), Given.step))


def _given(subject: Subject) -> list[Given]:
    return subject.once("given", lambda: [given for case in cases(subject, _taken) for given in _taken(case)])


def shapes(subject: Subject) -> str | None:
    """A step gives tokens of the shape that it was given, at the same places, for every number of tokens."""

    def check(given: Given) -> None:
        module, latent = seeded(given.build).eval(), given.latent
        for _ in range(ROLLOUT):
            with torch.no_grad():
                after = module(latent, given.condition)
            expect(
                isinstance(after, Latent), f"{given.where}: {type(after).__name__}", "return latent._replace(tokens=…)"
            )
            shape, expected = tuple(after.tokens.shape), tuple(given.latent.tokens.shape)
            expect(
                shape == expected, f"{given.where}: tokens {shape} from {expected}", "return as many tokens as came in"
            )
            finite(after.tokens, given.where)
            kept = after.grid == latent.grid and (after.anchors is None) == (latent.anchors is None)
            kept = kept and (latent.anchors is None or torch.equal(after.anchors, latent.anchors))
            expect(kept, f"{given.where}: anchors or lattice have changed", "return latent._replace(tokens=…)")
            latent = after

    check_each(_given(subject), check)
    forms = dict.fromkeys(given.form for given in _given(subject))
    return f"tokens: {', '.join(forms)}"


def finite_gradients(subject: Subject) -> str | None:
    """Gradients are finite, and reach the tokens."""

    def check(given: Given) -> None:
        for module in (seeded(given.build), awake(seeded(given.build))):
            tokens = given.latent.tokens.clone().requires_grad_(True)
            after = module.eval()(given.latent._replace(tokens=tokens), given.condition)
            finite_everywhere(module, after.tokens, {"tokens": tokens}, given.where)

    check_each(_given(subject), check)
    return None


def gradients(subject: Subject) -> str | None:
    """The gradient reaches every parameter, on some of the data and with tokens of some form that it takes."""
    reached: dict[str, float] = {}
    for given in _given(subject):

        def call(module: nn.Module, probe: int, given: Given = given) -> Tensor:
            tokens = given.latent.tokens.roll(probe, -1)
            after: Latent = module(given.latent._replace(tokens=tokens), given.condition + 0.1 * probe)
            return after.tokens

        add_reached(reached, seeded(given.build), call)
    return all_reached(reached)


def samples_apart(subject: Subject) -> str | None:
    """What is made of a sample does not depend on the others of its batch."""

    def check(given: Given) -> None:
        module = awake(seeded(given.build)).eval()
        with torch.no_grad():
            together = given.step(module).tokens
            for sample in range(len(together)):
                part = slice(sample, sample + 1)
                alone = module(latent_part(given.latent, part), given.condition[part]).tokens
                same(together[part], alone, f"{given.where}, a sample alone", "mix nothing along the batch axis")

    check_each(_given(subject), check)
    return None


def repeats(subject: Subject) -> str | None:
    """One seed gives the same weights, and one input the same output."""
    check_each(
        _given(subject), lambda given: deterministic(given.build, lambda module: given.step(module).tokens), sizes=False
    )
    return None


def state(subject: Subject) -> str | None:
    """Its state is plain, and survives being saved and loaded with `weights_only`."""
    check_each(
        _given(subject),
        lambda given: state_survives(given.build, lambda module: given.step(module).tokens),
        sizes=False,
    )
    return None


def devices(subject: Subject) -> str | None:
    """A GPU gives what the CPU gives."""

    def check(given: Given) -> None:
        def call(module: nn.Module, device: torch.device) -> Tensor:
            found: Latent = module(moved(given.latent, device), given.condition.to(device))
            return found.tokens

        on_gpu(given.build, call)

    check_each(_given(subject), check, sizes=False)
    return None


def bf16(subject: Subject) -> str | None:
    """It works under bfloat16 autocast."""
    check_each(
        _given(subject), lambda given: in_bf16(given.build, lambda module: given.step(module).tokens), sizes=False
    )
    return None


def builds(subject: Subject) -> str | None:
    """It is built for the tiny data that its `check` allows, and steps tokens of the forms that it takes."""
    _given(subject)
    return None


CLAUSES: Mapping[str, Clause] = {
    "builds": builds,
    "shapes": shapes,
    "finite-gradients": finite_gradients,
    "reaches-every-parameter": gradients,
    "samples-apart": samples_apart,
    "deterministic": repeats,
    "state-round-trip": state,
    "devices": devices,
    "bf16": bf16,
}
