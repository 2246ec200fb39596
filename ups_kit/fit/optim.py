"""What happens to gradients and weights around an optimiser's own update."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Multiply the base learning rate of every parameter group with a schedule's factor."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def clip_gradients(parameters: Iterable[Tensor], largest: float | None) -> Tensor:
    """Scale all gradients so that their common 2-norm is at most `largest`; returns the norm before, a scalar.

    The norm is not finite exactly where some gradient is not.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if largest is not None:
        factor = (largest / (norm + 1e-6)).clamp(max=1.0)
        for gradient in _by_device(gradients):
            torch._foreach_mul_(gradient, factor.to(gradient[0].device))
    return norm


def _by_device(tensors: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    groups: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.device, []).append(tensor)
    return groups.values()


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """A second model whose weights are the exponential moving average of `model`'s, in evaluation mode.

    Starts at the weights after the first update; then w ← decay·w + (1 − decay)·w_model. Buffers are copied, not
    averaged: they are tables (indices, anchors), and averaging rounds whole numbers down.
    """
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=False)  # type: ignore[no-untyped-call]
    average.requires_grad_(False)
    return average.eval()


def update_average(average: AveragedModel, model: nn.Module, decay: float) -> None:
    """`average.update_parameters(model)` to the bit, in one kernel instead of many small calls."""
    if average.n_averaged == 0 or not all(weight.is_floating_point() for weight in model.parameters()):
        average.update_parameters(model)
        return
    with torch.no_grad():
        torch._foreach_lerp_(list(average.module.parameters()), list(model.parameters()), 1 - decay)
        for mine, its in zip(average.module.buffers(), model.buffers()):
            mine.copy_(its)
        average.n_averaged += 1


def first_bad_parameter(model: nn.Module) -> str | None:
    """The first parameter with a weight or gradient that is not finite, by name."""
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            return f"{name} (its value)"
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            return f"{name} (its gradient)"
    return None
