"""The losses: their formulas and gradients, what counts, what is drawn, and what accumulation makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ups_kit.fit.checks import weighting_of
from ups_kit.fit.forward import LossBundle
from ups_kit.interfaces import Progress
from ups_tokens.training.acceleration import accelerated
from ups_tokens.training.config import ExpectedValueConfig, NextTokenConfig, TokenTrainingConfig
from ups_tokens.training.forward import TokenPass, TokenTerm, compute_losses, estimate
from ups_tokens.training.losses import ExpectedValue, NextToken, expected_values

START = Progress(0, 0.0, 0.0)
NAMES = ("image", "spectrum", "mass")


def _losses(model: Any, batch: Any, losses: Mapping[str, Any], seed: int = 0) -> LossBundle:
    terms = [TokenTerm(name, weighting_of(name, config), config.build(model.spec)) for name, config in losses.items()]
    return compute_losses(model, batch, terms, START, torch.Generator().manual_seed(seed))


def _everything(positions: int | None = None) -> dict[str, Any]:
    values = {name: ExpectedValueConfig(modality=name, positions=positions) for name in NAMES}
    return {"next_token": NextTokenConfig(), **values}


def _by_hand(model: Any, batch: Any) -> dict[str, float]:
    """The same, one target after the other, from the logits of everything."""
    vocabulary, books = model.spec.vocabulary, model.codebooks
    logits, found = (
        model(batch.tokens, batch.types, batch.mask).detach().double(),
        {"next_token": [], **{n: [] for n in NAMES}},
    )
    for row in range(batch.samples):
        for place in range(1, 24):
            token = int(batch.tokens[row, place])
            if not batch.mask[row, place] or token in (vocabulary.id_of("PAD"), vocabulary.id_of("MISSING")):
                continue
            scores = logits[row, place - 1]
            found["next_token"].append(float(scores.logsumexp(0) - scores[token]))
            for name in NAMES:
                block = vocabulary.block(name)
                if block.start <= token < block.stop:
                    value = scores[block].softmax(0) @ books[name].double()
                    squared = (value - books[name][token - block.start].double()).square()
                    found[name].append(float(squared.mean()))
    return {name: sum(values) / len(values) for name, values in found.items()}


def test_the_losses_are_the_formulas(made: SimpleNamespace) -> None:
    model, batch = made.model(), made.batch()
    found, expected = _losses(model, batch, _everything()), _by_hand(model, batch)
    assert {name: float(value) for name, value in found.terms.items()} == pytest.approx(expected, rel=1e-5)
    total = expected["next_token"] + 0.1 * sum(expected[name] for name in NAMES)
    assert float(found.total.detach()) == pytest.approx(total, rel=1e-5)


def test_the_gradient_reaches_every_token_in_proportion_to_its_probability() -> None:
    """dL/dlogit_i = p_i (c_i − ĉ)·2(ĉ − c*)/d."""
    torch.manual_seed(0)
    codebook, target = torch.randn(9, 4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    logits = torch.randn(1, 9, dtype=torch.float32, requires_grad=True)
    value = expected_values(logits, codebook.float())
    (value - target.float()).square().mean(-1).sum().backward()
    p = logits.detach().double().softmax(-1)[0]
    centre = p @ codebook
    closed = p * ((codebook - centre) @ (2 * (centre - target) / 4))
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad[0].double(), closed, atol=1e-6, rtol=1e-4)
    assert (logits.grad != 0).all()


def test_no_logits_outside_the_block_are_made_for_an_expected_value(
    made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch, shapes = made.model(), made.batch(), []
    plain = model.logits
    monkeypatch.setattr(model, "logits", lambda *given: shapes.append(plain(*given).shape) or plain(*given))
    bundle = _losses(model, batch, {"image": ExpectedValueConfig(modality="image", positions=8)})
    assert shapes == [(8, 7)]
    bundle.total.backward()
    reached = model.head.weight.grad.abs().sum(1) > 0
    block = model.spec.vocabulary.block("image")
    assert reached[block].all()
    assert reached.sum() == 7


def test_padding_and_missing_tokens_never_count(made: SimpleNamespace) -> None:
    """What the model says before them makes no difference: their gradient is exactly zero."""
    model, batch = made.model(), made.batch()
    states = model.states(batch.tokens, batch.types, batch.mask).detach().requires_grad_()
    model.states = lambda *given: states
    _losses(model, batch, _everything()).total.backward()
    vocabulary = model.spec.vocabulary
    following = batch.tokens.roll(-1, 1)
    counts = batch.mask.roll(-1, 1) & (following != vocabulary.id_of("MISSING"))
    counts[:, -1] = False
    assert states.grad is not None
    assert torch.equal(states.grad.abs().sum(-1) > 0, counts)


def test_a_modality_that_a_batch_lacks_adds_exactly_zero(made: SimpleNamespace) -> None:
    batch, gradients = made.batch(without=("spectrum",)), []
    for losses in (_everything(), {n: loss for n, loss in _everything().items() if n != "spectrum"}):
        model = made.model()
        bundle = _losses(model, batch, losses)
        bundle.total.backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
    model = made.model()
    alone = _losses(model, batch, {"spectrum": ExpectedValueConfig(modality="spectrum")})
    assert float(alone.total.detach()) == 0
    alone.total.backward()
    found = [weight.grad for weight in model.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in found)


@pytest.mark.parametrize("positions", [None, 4096])
def test_parts_average_to_the_whole(made: SimpleNamespace, positions: int | None) -> None:
    """However unevenly targets are spread over the parts, one of which may have none of a modality."""
    model, batch = made.model(), made.batch((24, 3, 6, 19))
    whole = _losses(model, batch, _everything(positions))
    parts = [_losses(model, batch.part(slice(row, row + 1)), _everything(positions)) for row in range(4)]
    torch.testing.assert_close(sum(part.total for part in parts) / 4, whole.total)
    for name, value in whole.terms.items():
        torch.testing.assert_close(sum(part.terms[name] for part in parts) / 4, value)


def test_drawn_positions_give_the_loss_at_all_of_them_in_expectation(made: SimpleNamespace) -> None:
    model, batch = made.model(), made.batch((24, 3, 20, 19))
    seen, generator = TokenPass(model, batch), torch.Generator().manual_seed(0)
    with torch.no_grad():
        exact = float(estimate(ExpectedValue("image"), seen, generator))
        errors = ExpectedValue("image").errors(seen, seen.places("image"))
        drawn = torch.stack([estimate(ExpectedValue("image", 5), seen, generator) for _ in range(4000)])
    count = len(errors)
    assert count > 10
    spread = float(errors.std()) * (1 / 5 * (1 - 5 / count)) ** 0.5  # drawn without repetition
    assert float(drawn.std()) == pytest.approx(spread, rel=0.1)
    assert float(drawn.mean()) == pytest.approx(exact, abs=4 * spread / 4000**0.5)


def test_draws_follow_the_generator_and_no_other_loss(made: SimpleNamespace) -> None:
    model, batch = made.model(), made.batch()
    one, all_of_them = {"image": ExpectedValueConfig(modality="image", positions=5)}, _everything(5)
    first = _losses(model, batch, one).terms["image"]
    assert torch.equal(first, _losses(model, batch, one).terms["image"])
    assert torch.equal(first, _losses(model, batch, all_of_them).terms["image"])
    assert not torch.equal(first, _losses(model, batch, one, seed=1).terms["image"])


def test_relative_errors_do_not_depend_on_units(made: SimpleNamespace) -> None:
    model, batch, found = made.model(), made.batch(), []
    for unit in (1.0, 100.0):
        model.codebooks["image"].mul_(unit)
        seen = TokenPass(model, batch)
        found.append([estimate(ExpectedValue("image", None, own), seen, torch.Generator()) for own in (True, False)])
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(found[1][1], found[0][1] * 1e4)
    variance = made.spec().codebooks["image"].var(0).mean()
    assert float(found[0][1]) == pytest.approx(float(found[0][0]) * float(variance))


def test_a_loss_that_does_not_apply_yet_is_not_there(made: SimpleNamespace) -> None:
    model, batch = made.model(), made.batch()
    late = {"next_token": NextTokenConfig(), "image": ExpectedValueConfig(modality="image", warmup=1.0)}
    assert _losses(model, batch, late).terms.keys() == {"next_token"}
    nothing = _losses(model, batch, {"image": ExpectedValueConfig(modality="image", warmup=1.0)})
    assert (float(nothing.total), nothing.terms) == (0.0, {})


def test_losses_are_computed_in_float32_under_autocast(made: SimpleNamespace) -> None:
    model, batch = made.model(), made.batch()
    with torch.autocast("cpu", torch.bfloat16):
        rough = _losses(model, batch, _everything())
    assert {value.dtype for value in rough.terms.values()} == {torch.float32}
    assert float(rough.total) == pytest.approx(float(_losses(model, batch, _everything()).total), rel=0.02)


def test_overflowing_logits_stay_numbers() -> None:
    logits = torch.tensor([[3e38, -3e38, 0.0]], requires_grad=True)
    value = expected_values(logits, torch.eye(3))
    value.sum().backward()
    assert torch.equal(value, torch.tensor([[1.0, 0.0, 0.0]]))
    assert torch.isfinite(logits.grad).all()


def test_problems_of_losses_are_told_with_their_keys(made: SimpleNamespace) -> None:
    losses = {"image": ExpectedValueConfig(modality="imgae"), "off": ExpectedValueConfig(modality="no", weight=0)}
    found = dict(_stage(losses=losses).check_data(made.spec()))
    assert found == {
        "losses.image.modality": "the data have no modality 'imgae'; did you mean 'image'? "
        "(there are: image, spectrum, mass)"
    }
    assert "every loss has weight 0" in dict(_stage(losses={"off": losses["off"]}).check_data(made.spec()))["losses"]
    assert not list(_stage(losses=_everything()).check_data(made.spec()))


def _stage(**keys: Any) -> TokenTrainingConfig:
    from ups_kit.fit.settings import Budget

    return TokenTrainingConfig(budget=Budget(steps=10), optimizer=object(), **keys)


def test_a_cpu_is_left_as_it_is() -> None:
    before = torch.get_float32_matmul_precision()
    with accelerated(torch.device("cpu")) as setting:
        assert setting == "cpu: nothing to set up"
        assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize("tf32", [True, False])
def test_what_is_set_up_for_a_gpu_is_put_back(tf32: bool) -> None:
    """The switches are those of the process, so that they can be looked at without a GPU."""
    torch.backends.cuda.enable_flash_sdp(False)

    def state() -> tuple[Any, ...]:
        cuda = torch.backends.cuda
        return torch.get_float32_matmul_precision(), cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled()

    try:
        before = state()
        with accelerated(torch.device("cuda"), tf32) as setting:
            assert state() == ("high" if tf32 else before[0], True, True)
            assert setting == ("TF32, " if tf32 else "") + "flash attention, memory-efficient attention"
        assert state() == before
    finally:
        torch.backends.cuda.enable_flash_sdp(True)


def test_cross_entropy_alone(made: SimpleNamespace) -> None:
    model, batch = made.model(), made.batch()
    seen = TokenPass(model, batch)
    places: Tensor = seen.places(None)
    assert float(NextToken().errors(seen, places).mean()) == pytest.approx(
        _by_hand(model, batch)["next_token"], rel=1e-5
    )
