"""The contract of operators: one step of the latent, tokens to tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from attrs import frozen
from torch import Tensor, nn

from ..batching import latent_part
from ..errors import UpsKitError
from ..interfaces import Latent, LatentForm, TakesForms
from .latents import FORMS, made_latents
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
from .report import expect
from .subject import Clause, Subject

ROLLOUT = 3  # steps in a row


@frozen(eq=False)
class Given:
    """An operator's config, and a latent and a condition that it takes."""

    case: Case
    form: LatentForm
    latent: Latent
    condition: Tensor

    def build(self) -> nn.Module:
        return module_of(self.case.config.build(self.case.fields, self.case.latent))

    def step(self, module: nn.Module) -> Latent:
        found: Latent = module(self.latent, self.condition)
        return found

    @property
    def where(self) -> str:
        """For messages."""
        return f"on {self.case.on}, with {self.form} tokens"


def _taken(case: Case) -> list[Given]:
    """The latents that an operator takes: of all forms that it says, or else of those that it does not refuse."""
    forms = case.config.forms if isinstance(case.config, TakesForms) else FORMS
    condition, taken, refused = case.batch().condition, [], []
    for form in forms:
        for latent in made_latents(case, form):
            given = Given(case, form, latent, condition)
            try:
                with torch.no_grad():
                    given.step(seeded(given.build).eval())
            except UpsKitError as error:  # too few tokens, say
                refused.append(error)
                continue
            taken.append(given)
    if not taken:
        raise refused[0]
    return taken


def _given(subject: Subject) -> list[Given]:
    return subject.once("given", lambda: [given for case in cases(subject, _taken) for given in _taken(case)])


def _each(subject: Subject, check: Callable[[Given], object], sizes: bool = True) -> None:
    """Check it with every latent that it takes; without `sizes` with one of each form."""
    seen: set[tuple[str, str]] = set()
    for given in _given(subject):
        which = (given.case.on, given.form)
        if sizes or which not in seen:
            seen.add(which)
            check(given)


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

    _each(subject, check)
    forms = dict.fromkeys(given.form for given in _given(subject))
    return f"tokens: {', '.join(forms)}"


def finite_gradients(subject: Subject) -> str | None:
    """Gradients are finite, and reach the tokens."""

    def check(given: Given) -> None:
        for module in (seeded(given.build), awake(seeded(given.build))):
            tokens = given.latent.tokens.clone().requires_grad_(True)
            after = module.eval()(given.latent._replace(tokens=tokens), given.condition)
            finite_everywhere(module, after.tokens, {"tokens": tokens}, given.where)

    _each(subject, check)
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

    _each(subject, check)
    return None


def repeats(subject: Subject) -> str | None:
    """One seed gives the same weights, and one input the same output."""
    _each(subject, lambda given: deterministic(given.build, lambda module: given.step(module).tokens), sizes=False)
    return None


def state(subject: Subject) -> str | None:
    """Its state is plain, and survives being saved and loaded with `weights_only`."""
    _each(subject, lambda given: state_survives(given.build, lambda module: given.step(module).tokens), sizes=False)
    return None


def devices(subject: Subject) -> str | None:
    """A GPU gives what the CPU gives."""

    def check(given: Given) -> None:
        def call(module: nn.Module, device: torch.device) -> Tensor:
            found: Latent = module(moved(given.latent, device), given.condition.to(device))
            return found.tokens

        on_gpu(given.build, call)

    _each(subject, check, sizes=False)
    return None


def bf16(subject: Subject) -> str | None:
    """It works under bfloat16 autocast."""
    _each(subject, lambda given: in_bf16(given.build, lambda module: given.step(module).tokens), sizes=False)
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
