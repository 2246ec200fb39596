"""What torch modules of any kind must keep: finite gradients, the same twice, a state that can be saved, devices."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..batching import to_device
from ..errors import PluginError
from ..fit.state import check_state_tree
from .report import Broken, Skipped, expect, listed

SEED = 7
TOLERANCE = 1e-3  # of the largest value: float32 sums in another order
BF16_TOLERANCE = 0.25
PROBES = 3  # passes with other numbers, that together reach every parameter
Call = Callable[[nn.Module], Tensor]


def seeded(build: Callable[[], Any], seed: int = SEED) -> Any:
    """What is built with this seed, without moving the process's own generator."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()


def awake(module: nn.Module, seed: int = SEED) -> nn.Module:
    """The module with noise on its weights, so that what begins as zero does something too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.is_floating_point():
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator).to(weight))
    return module


def same(one: Tensor, other: Tensor, what: str, mend: str = "", tolerance: float = TOLERANCE) -> None:
    """Raise Broken where two results differ by more than rounding."""
    expect(one.shape == other.shape, f"{what}: shapes {tuple(one.shape)} and {tuple(other.shape)}", mend)
    if not one.numel():
        return
    apart = float((one.detach().double() - other.detach().double()).abs().max())
    scale = float(one.detach().abs().max()) + 1e-6
    expect(
        apart <= tolerance * scale, f"{what}: results that differ by up to {apart:.3g} (values up to {scale:.3g})", mend
    )


def finite(values: Tensor, what: str) -> None:
    """Raise Broken where a result has NaN or infinities."""
    expect(
        torch.isfinite(values).all(), f"{what}: values that are not finite", "look for divisions by 0 and logarithms"
    )


def finite_everywhere(module: nn.Module, result: Tensor, inputs: Mapping[str, Tensor], what: str) -> None:
    """Raise Broken unless the gradient of a result is finite at all weights and inputs, and reaches every input."""
    finite(result, what)
    expect(
        result.requires_grad,
        f"{what}: the result carries no gradient",
        "compute it with torch, from inputs and parameters, without detach and no_grad",
    )
    weights = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
    found = torch.autograd.grad(result.square().sum(), [*inputs.values(), *weights.values()], allow_unused=True)
    for name, gradient in zip([*inputs, *weights], found, strict=True):
        if gradient is not None:
            mend = "look for sqrt(0), 0/0 and where() over what is not finite"
            expect(torch.isfinite(gradient).all(), f"{what}: the gradient of {name} is not finite", mend)
    for name, gradient in zip(inputs, found):
        reached = gradient is not None and bool(gradient.abs().sum() > 0)
        expect(reached, f"{what}: no gradient reaches {name}", "compute the result from it, with torch, without detach")


def add_reached(reached: dict[str, float], module: nn.Module, call: Callable[[nn.Module, int], Tensor]) -> None:
    """Add the size of the gradient of `call(module, probe)` at each parameter, over a few probes.

    The module's weights are noise, so that nothing is silent by its initialisation.
    """
    awake(module).train()
    for name, weight in module.named_parameters():
        if weight.requires_grad:
            reached.setdefault(name, 0.0)
    for probe in range(PROBES):
        module.zero_grad(set_to_none=True)
        values = call(module, probe)
        if not values.requires_grad:
            return
        noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(probe)).to(values)
        (values * noise).sum().backward()  # type: ignore[no-untyped-call]
        for name, weight in module.named_parameters():
            if weight.grad is not None:
                reached[name] += float(weight.grad.abs().sum())


def all_reached(reached: Mapping[str, float]) -> str | None:
    """Raise Broken unless a gradient was found at every parameter."""
    silent = [name for name, size in reached.items() if not size]
    expect(
        not silent,
        f"no gradient reaches {listed(silent)}",
        "use them in forward, or remove them; what shall not be trained is a buffer",
    )
    return None if reached else "it has no weights"


def deterministic(build: Callable[[], nn.Module], call: Call) -> None:
    """Raise Broken unless one seed gives the same weights, and one input the same output in evaluation mode."""
    one, other = seeded(build), seeded(build)
    for (name, first), second in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        if isinstance(first, Tensor):
            expect(
                torch.equal(first, second),
                f"built twice with one seed, '{name}' differs",
                "draw initial weights from torch's generator, and from nothing else",
            )
    one.eval()
    with torch.no_grad():
        expect(
            torch.equal(call(one), call(one)),
            "called twice with the same input in evaluation mode, it gives other values",
            "draw nothing in evaluation mode; keep no state from call to call",
        )


def state_survives(build: Callable[[], nn.Module], call: Call) -> None:
    """Raise Broken unless the state is plain, is read back with `weights_only`, and gives the same result."""
    module = awake(seeded(build)).eval()
    again = loaded(module.state_dict())
    other = seeded(build, SEED + 1).eval()
    try:
        other.load_state_dict(again)
    except (RuntimeError, KeyError) as error:
        raise Broken(f"a fresh one does not take the state: {error}", "let equal keys give equal shapes") from error
    with torch.no_grad():
        same(
            call(module), call(other), "after its state was saved and loaded", "keep all that counts in the state", 1e-6
        )


def loaded(state: Any) -> Any:
    """A state as it is after it was saved and read with `weights_only`. Raises Broken where it is not plain."""
    try:
        check_state_tree(state)
    except PluginError as error:
        text = str(error).removeprefix("checkpoint: ")
        raise Broken(f"in its state {text}", "torch.from_numpy(…), or float(…) and int(…), in state_dict") from error
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def on_gpu(build: Callable[[], nn.Module], call: Callable[[nn.Module, torch.device], Tensor]) -> None:
    """Raise Broken unless a GPU gives what the CPU gives; Skipped where there is none."""
    if not torch.cuda.is_available():
        raise Skipped("there is no GPU here")
    module = awake(seeded(build)).eval()
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    with torch.no_grad():
        here = call(module, cpu)
        there = call(module.to(cuda), cuda).cpu()
    same(
        here,
        there,
        "on the GPU and on the CPU",
        "make new tensors on the device of the inputs; buffers move along",
        0.02,
    )


def in_bf16(build: Callable[[], nn.Module], call: Call) -> None:
    """Raise Broken unless it works under bfloat16 autocast, with a gradient, about as in float32."""
    module = seeded(build)
    with torch.no_grad():
        exact = call(module.eval())
    with torch.autocast("cpu", torch.bfloat16):
        values = call(module)
    finite(values, "under bfloat16 autocast")
    same(
        exact,
        values.float(),
        "under bfloat16 autocast",
        "sum and normalise in float32: with torch.autocast(…, enabled=False) where needed",
        BF16_TOLERANCE,
    )
    if values.requires_grad:
        values.float().square().mean().backward()  # type: ignore[no-untyped-call]
        for name, weight in module.named_parameters():
            if weight.grad is not None:
                expect(
                    torch.isfinite(weight.grad).all(), f"under bfloat16 autocast the gradient of {name} is not finite"
                )


def moved(value: Any, device: torch.device) -> Any:
    """Tensors within named tuples on a device."""
    return to_device(value, device)


def module_of(built: Any, method: str = "forward") -> nn.Module:
    """What was built, which must be a torch module."""
    expect(
        isinstance(built, nn.Module),
        f"build gives a {type(built).__name__}, which is no torch module",
        f"derive from torch.nn.Module, and define {method}",
    )
    module: nn.Module = built
    return module


def joined(values: Sequence[Tensor] | Iterable[Tensor]) -> Tensor:
    """Several results as one flat one."""
    return torch.cat([value.flatten() for value in values])
