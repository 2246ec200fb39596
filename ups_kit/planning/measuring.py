"""What one training step takes: arithmetic, memory for the backward pass, and time by a short probe."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from ..fit.batches import parts_of
from ..fit.clock import BudgetClock
from ..fit.fitting import Fitting, set_training_mode
from ..fit.loop import training_step
from ..fit.precision import compiled_parts
from ..fit.settings import Budget
from ..interfaces import Batch, Latent, Progress, Samples
from ..model import LatentModel

WARM_UP, LEAST_STEPS, MOST_STEPS = 2, 5, 40
PROBE_SECONDS = 5.0  # wall, of one stage's probe; at least LEAST_STEPS are taken
NOMINAL_STEPS = 1000  # of a stage whose steps are not known yet: for curricula, which look at the share alone

COMMON_STEPS = 12  # a multiple of how often most losses apply that do not always apply
ChangeBatch = Callable[[Any], Any]


@frozen
class Timing:
    """Seconds of one call: the mean of several and its standard error, and the least and the most."""

    mean: float
    error: float
    least: float
    most: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Timing:
        found = list(seconds)
        error = statistics.stdev(found) / len(found) ** 0.5 if len(found) > 1 else 0.0
        return cls(statistics.fmean(found), error, min(found), max(found))


@frozen
class Step:
    """What one optimiser step takes, at the stage's beginning and at its end: curricula add losses on the way.

    Both are steps at which losses that apply every second, third, fourth or sixth step apply.
    """

    flops: tuple[int, int]  # multiplications and additions of matrix products, convolutions and attention
    saved: tuple[int, int]  # bytes that are kept for the backward pass, of one part of the batch
    optimizer: int  # bytes of the optimiser's state
    average: int  # bytes of the moving average
    gradients: int  # bytes

    @property
    def most_flops(self) -> int:
        return max(self.flops)

    @property
    def most_saved(self) -> int:
        return max(self.saved)


@frozen
class Probe:
    """Measured steps, spread over the stage's course, and one validation."""

    steps: int
    wall: Timing
    cpu: Timing  # of the process: reading included, other processes not
    validation_wall: float
    validation_cpu: float
    peak: int | None  # bytes, on a GPU


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *more: object, **options: object) -> int:
    flops: int = sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]
    return flops


def _attention_backward(
    gradient: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *more: object, **options: object
) -> int:
    flops: int = sdpa_backward_flop_count(gradient, query, key, value)  # type: ignore[no-untyped-call]
    return flops


# torch counts attention where a GPU computes it, and passes over the same on a CPU.
CPU_ATTENTION: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def measure_step(fitting: Fitting, batch: Samples, steps: int | None) -> Step:
    """Count the forward and backward pass of a batch, in a stage of so many steps. Weights stay as they are."""
    _hold_still(fitting)
    clock = clock_of(fitting, steps)
    last = clock.progress(((steps or NOMINAL_STEPS) - 1) // COMMON_STEPS * COMMON_STEPS)
    passes = [_count(fitting, batch, progress) for progress in (clock.progress(0), last._replace(fraction=1 - 1e-9))]
    fitting.optimizer.step()  # of the gradients that are there, so that it makes its state
    fitting.optimizer.zero_grad(set_to_none=True)
    average = fitting.average
    return Step(
        flops=(passes[0][0], passes[1][0]),
        saved=(passes[0][1], passes[1][1]),
        optimizer=tensor_bytes(fitting.optimizer.state),
        average=0 if average is None else module_bytes(average.module),
        gradients=sum(weight.numel() * weight.element_size() for weight in fitting.trained),
    )


def _count(fitting: Fitting, batch: Samples, progress: Progress) -> tuple[int, int]:
    task, accumulation = fitting.task, fitting.task.settings.accumulation
    part = next(parts_of(batch, accumulation))
    fitting.optimizer.zero_grad(set_to_none=True)
    fitting.generator.manual_seed(0)

    def total() -> Tensor:
        with fitting.precision.autocast():
            return task.loss(part, progress, fitting.generator).total

    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        total().backward()  # type: ignore[no-untyped-call]
    fitting.generator.manual_seed(0)
    return counter.get_total_flops() * accumulation, saved_bytes(total, [task.model])


def probe(fitting: Fitting, steps: int | None, change: ChangeBatch | None) -> Probe:
    """Take some steps of a stage of so many, and time them: its weights stay as they are.

    `change` is applied to every batch that was read; reading is then not timed.
    """
    task, cuda = fitting.task, fitting.task.device.type == "cuda"
    _hold_still(fitting)
    fitting.clock, total = clock_of(fitting, steps), steps or NOMINAL_STEPS
    wall, cpu, started = [], [], time.perf_counter()
    with compiled_parts(task.model, task.run.compile), task.source.stream(0) as batches:
        for number, (batch, waited) in enumerate(_read(islice(batches, WARM_UP + MOST_STEPS), change)):
            fitting.step = _place(number, total)
            taken = _timed(partial(training_step, fitting, batch), cuda)
            if number + 1 == WARM_UP and cuda:
                torch.cuda.reset_peak_memory_stats(task.device)
            if number < WARM_UP:
                started = time.perf_counter()
                continue
            wall.append(waited[0] + taken[0])
            cpu.append(waited[1] + taken[1])
            if len(wall) >= LEAST_STEPS and time.perf_counter() - started > PROBE_SECONDS:
                break
    peak = torch.cuda.max_memory_allocated(task.device) if cuda else None
    validation = _timed(partial(_validate, fitting), cuda)
    return Probe(len(wall), Timing.of(wall), Timing.of(cpu), *validation, peak)


def _hold_still(fitting: Fitting) -> None:
    """A learning rate of 0, so that nothing is learned and nothing diverges."""
    fitting.schedule = None
    for group in fitting.optimizer.param_groups:
        group["lr"] = group["initial_lr"] = 0.0


def _place(number: int, steps: int) -> int:
    """The probe's step as one of the stage: spread over it in the order 0, 1/2, 1/4, 3/4, 1/8, …"""
    share, denominator = 0.0, 1
    while number:
        number, bit = divmod(number, 2)
        denominator *= 2
        share += bit / denominator
    return int(share * steps)


def _read(batches: Iterator[Any], change: ChangeBatch | None) -> Iterator[tuple[Any, tuple[float, float]]]:
    """Batches, and the wall and CPU seconds it took to wait for each."""
    while True:
        found: list[Any] = []
        waited = _timed(lambda found=found: found.extend(islice(batches, 1)), cuda=False)  # type: ignore[misc]
        if not found:
            return
        yield (found[0], waited) if change is None else (change(found[0]), (0.0, 0.0))


def _validate(fitting: Fitting) -> None:
    model = fitting.evaluated
    model.eval()
    with torch.no_grad():
        fitting.task.validate(model)
    set_training_mode(fitting.task.model)


def _timed(call: Callable[[], object], cuda: bool) -> tuple[float, float]:
    """Wall and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def clock_of(fitting: Fitting, steps: int | None) -> BudgetClock:
    """The progress of a stage of so many steps, whatever time they take."""
    task = fitting.task
    budget = Budget(steps=steps or NOMINAL_STEPS)
    return BudgetClock(budget, task.source.windows, task.settings.batch, task.device)


# ---------------------------------------------------------------------------------------------------------------------
# Bytes
# ---------------------------------------------------------------------------------------------------------------------
def saved_bytes(call: Callable[[], object], parts: Iterable[nn.Module]) -> int:
    """Bytes that autograd keeps for the backward pass of what `call` computes, without the parameters' own.

    Every piece of storage counts once, however many operations keep it.
    """
    known = {tensor.untyped_storage().data_ptr() for part in parts for tensor in part.parameters()}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # nothing may be freed meanwhile, or an address would be counted once for two tensors

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = call()
    del result
    return sum(kept.values())


def module_bytes(module: nn.Module) -> int:
    """Parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))


def tensor_bytes(state: Any) -> int:
    """All tensors in nested tables and lists."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(tensor_bytes(value) for value in state.values())
    return sum(tensor_bytes(value) for value in state) if isinstance(state, (list, tuple)) else 0


# ---------------------------------------------------------------------------------------------------------------------
# Cached latents, which a plan does not make
# ---------------------------------------------------------------------------------------------------------------------
def latents_in_place(model: LatentModel) -> ChangeBatch:
    """Give a batch latents as a cache would: those of its inputs stand for those of every frame."""

    @torch.no_grad()
    def change(batch: Batch) -> Batch:
        with evaluating(model.encoder):
            latent: Latent = model.encode(batch.inputs, batch.condition)
        return batch._replace(latents=(latent,) * batch.states.shape[1])

    return change


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, for a while."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
