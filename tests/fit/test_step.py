"""One training step: accumulation, guard, clipping, moving average, loss scaling."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ups_kit.batching import to_device
from ups_kit.errors import DivergedError
from ups_kit.fit.batches import parts_of
from ups_kit.fit.clock import BudgetClock
from ups_kit.fit.fitting import Fitting, prepare
from ups_kit.fit.forward import LossBundle
from ups_kit.fit.loop import training_step
from ups_kit.fit.optim import clip_gradients, moving_average, set_learning_rates, update_average
from ups_kit.fit.precision import Precision
from ups_kit.fit.settings import Budget
from ups_kit.interfaces import Latent


def _mean_loss(model: torch.nn.Module) -> Any:
    def loss(batch: Any, progress: Any, generator: torch.Generator) -> LossBundle:
        error = (model(batch.inputs.values) - batch.states[:, 1]).square().mean()
        return LossBundle(error, {"forward": error.detach()})

    return loss


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_an_accumulated_gradient_is_that_of_the_whole_batch(toy: SimpleNamespace, parts: int) -> None:
    gradients = []
    for accumulation in (1, parts):
        model = toy.Model(dropout=0.0, dtype=torch.float64)
        source = toy.Source(batch=8, dtype=torch.float64)
        task = toy.task(
            model=model,
            source=source,
            loss=_mean_loss(model),
            batch=8,
            accumulation=accumulation,
            optimizer=toy.SGD(),
            clip=None,
        )
        training_step(prepare(task), source.batch(0))
        gradients.append([weight.grad for weight in model.parameters()])
    for whole, accumulated in zip(*gradients):
        assert float((whole - accumulated).abs().max()) < 1e-12 * float(whole.abs().max())


def test_parts_of_a_batch_are_its_samples_in_order(toy: SimpleNamespace) -> None:
    batch = toy.Source(batch=6).batch(3)
    batch = batch._replace(latents=(Latent(torch.randn(6, 2, 3), torch.randn(2, 1)),))
    parts = list(parts_of(batch, 3))
    assert torch.equal(torch.cat([part.inputs.values for part in parts]), batch.inputs.values)
    assert torch.equal(torch.cat([part.states for part in parts]), batch.states)
    assert [tuple(part.latents[0].anchors.shape) for part in parts if part.latents] == [(2, 1)] * 3
    assert next(parts_of(batch, 1)) is batch
    assert to_device(batch, torch.device("cpu")) is batch


def _bad_at(toy: SimpleNamespace, bad_step: int, times: int = 1, **keys: Any) -> Fitting:
    model = toy.Model()

    def loss(batch: Any, progress: Any, generator: torch.Generator) -> LossBundle:
        error = (model(batch.inputs.values) - batch.states[:, 1]).square().mean()
        if bad_step <= progress.step < bad_step + times:
            error = error * float("nan")
        return LossBundle(error, {"forward": error.detach(), "fine": torch.zeros(())})

    return prepare(toy.task(model=model, loss=loss, ema=0.9, **keys))


def test_the_guard_stops_before_the_update(toy: SimpleNamespace) -> None:
    fitting = _bad_at(toy, 3)
    source = fitting.task.source
    for step in range(3):
        training_step(fitting, source.batch(step))
    before, average = toy.weights(fitting.task.model), toy.weights(fitting.average)
    with pytest.raises(DivergedError) as caught:
        training_step(fitting, source.batch(3))
    assert toy.same_bits(before, toy.weights(fitting.task.model))
    assert toy.same_bits(average, toy.weights(fitting.average))
    message = str(caught.value)
    assert "stage 'toy', step 3: not finite: loss, forward, grad_norm" in message
    assert "first bad parameter: encoder.weight (its gradient)" in message
    assert ", ".join(str(number) for number in source.numbers(3)) in message
    assert "fine" not in message
    assert caught.value.exit_code == 5


def test_the_skip_policy_leaves_a_step_out(toy: SimpleNamespace) -> None:
    fitting = _bad_at(toy, 2, on_nonfinite="skip")
    for step in range(2):
        training_step(fitting, fitting.task.source.batch(step))
    before = toy.weights(fitting.task.model)
    training_step(fitting, fitting.task.source.batch(2))
    assert toy.same_bits(before, toy.weights(fitting.task.model))
    assert (fitting.skipped, fitting.step) == (1, 3)
    training_step(fitting, fitting.task.source.batch(3))
    assert not toy.same_bits(before, toy.weights(fitting.task.model))
    assert fitting.nonfinite == 0


def test_the_skip_policy_gives_up_after_ten_in_a_row(toy: SimpleNamespace) -> None:
    fitting = _bad_at(toy, 0, times=100, on_nonfinite="skip")
    for step in range(9):
        training_step(fitting, fitting.task.source.batch(step))
    with pytest.raises(DivergedError, match="10 steps in a row"):
        training_step(fitting, fitting.task.source.batch(9))


def _fp16(toy: SimpleNamespace, scale: float) -> Fitting:
    model = toy.Model(dropout=0.0)
    fitting = prepare(toy.task(model=model, loss=_mean_loss(model), optimizer=toy.SGD()))
    fitting.precision = Precision(torch.device("cpu"), "fp16")
    fitting.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return fitting


def test_overflow_while_the_loss_scale_is_found_is_no_divergence(toy: SimpleNamespace) -> None:
    fitting = _fp16(toy, 2.0**24)  # overflows float16 a few times, then halves its way down
    before = toy.weights(fitting.task.model)
    taken = 0
    for step in range(9):
        training_step(fitting, fitting.task.source.batch(step))
        taken = step if toy.same_bits(before, toy.weights(fitting.task.model)) else taken
    assert 0 < taken < 8
    assert fitting.scaler.get_scale() < 2.0**24
    assert fitting.skipped == 0


def test_ten_overflows_in_a_row_are_divergence(toy: SimpleNamespace) -> None:
    fitting = _fp16(toy, 2.0**100)
    for step in range(9):
        training_step(fitting, fitting.task.source.batch(step))
    with pytest.raises(DivergedError, match="10 steps in a row"):
        training_step(fitting, fitting.task.source.batch(9))


def test_scaled_and_plain_steps_agree(toy: SimpleNamespace) -> None:
    results = []
    for scale in (1.0, 1024.0):
        fitting = _fp16(toy, scale)
        fitting.precision = Precision(torch.device("cpu"), "fp32")
        for step in range(5):
            training_step(fitting, fitting.task.source.batch(step))
        results.append(toy.weights(fitting.task.model))
    for name in results[0]:
        torch.testing.assert_close(results[0][name], results[1][name])


@pytest.mark.parametrize("largest", [0.1, 1e6, None])
def test_clipping_gives_the_norm_before_and_at_most_the_largest_after(largest: float | None) -> None:
    weights = [
        torch.nn.Parameter(torch.randn(5, 3)),
        torch.nn.Parameter(torch.randn(7)),
        torch.nn.Parameter(torch.ones(1)),
    ]
    for weight in weights[:2]:
        weight.grad = torch.randn_like(weight)
    before = [weight.grad.clone() for weight in weights[:2] if weight.grad is not None]
    expected = float(torch.cat([gradient.flatten() for gradient in before]).norm())
    assert float(clip_gradients(weights, largest)) == pytest.approx(expected, rel=1e-6)
    after = float(torch.cat([weight.grad.flatten() for weight in weights[:2] if weight.grad is not None]).norm())
    assert after == pytest.approx(min(expected, largest or expected), rel=1e-4)


def test_the_moving_average_follows_its_formula(toy: SimpleNamespace) -> None:
    model = toy.Model()
    average = moving_average(model, 0.9)
    generator = torch.Generator().manual_seed(0)
    expected: torch.Tensor | None = None
    for _ in range(5):
        with torch.no_grad():
            model.encoder.weight.copy_(torch.randn(6, 1, generator=generator))
        average.update_parameters(model)
        new = model.encoder.weight.detach().clone()
        expected = new if expected is None else 0.9 * expected + 0.1 * new
    assert expected is not None
    torch.testing.assert_close(average.module.encoder.weight, expected)
    assert torch.equal(average.module.table, torch.arange(7))
    assert not any(weight.requires_grad for weight in average.parameters())


def test_the_fast_average_is_torchs_to_the_bit(toy: SimpleNamespace) -> None:
    model = toy.Model()
    ours, theirs = moving_average(model, 0.97), moving_average(model, 0.97)
    for _ in range(4):
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight))
        update_average(ours, model, 0.97)
        theirs.update_parameters(model)
    assert toy.same_bits(toy.weights(ours), toy.weights(theirs))


def test_learning_rates_are_factors_of_the_base(toy: SimpleNamespace) -> None:
    optimizer = torch.optim.SGD(
        [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in (0.1, 0.01)], lr=1.0
    )
    for factor in (0.5, 0.25, 1.0):
        set_learning_rates(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == [0.1 * factor, 0.01 * factor]


def test_a_step_draws_the_same_whatever_came_before(toy: SimpleNamespace) -> None:
    results = []
    for disturbance in (0, 1):
        fitting = prepare(toy.task(budget=Budget(steps=3)))
        torch.manual_seed(disturbance)
        training_step(fitting, fitting.task.source.batch(0))
        results.append(toy.weights(fitting.task.model))
    assert toy.same_bits(*results)


def test_bf16_steps_keep_weights_and_loss_in_float32(toy: SimpleNamespace) -> None:
    task = toy.task(run={"precision": "bf16"})
    fitting = prepare(task)
    before = toy.weights(task.model)
    training_step(fitting, task.source.batch(0))
    assert {weight.dtype for weight in task.model.parameters()} == {torch.float32}
    assert not toy.same_bits(before, toy.weights(task.model))


def test_a_gpu_has_a_limit_in_seconds_of_its_own() -> None:
    budget = Budget(seconds=100.0, gpu_seconds=10.0)
    times = iter(float(second) for second in range(100))
    fractions = []
    for device in ("cpu", "cuda"):
        clock = BudgetClock(budget, windows=10, batch=1, device=torch.device(device), now=lambda: next(times))
        clock.read(10)
        fractions.append(clock.progress(10).fraction)
    assert fractions == [0.01, 0.1]
