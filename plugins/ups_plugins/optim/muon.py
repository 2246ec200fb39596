"""Muon for hidden matrices and AdamW for the rest, as one optimiser.

Muon's update is that of `torch.optim.Muon` (Nesterov momentum, five quintic Newton-Schulz steps, decoupled weight
decay, learning rate times sqrt(max(1, rows / columns))). Here all matrices of one shape, or its transpose, take their
Newton-Schulz steps together in one batched product: about 2.5 times faster on a CPU for the small matrices of latent
operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim.adamw import adamw

# The quintic a·X + b·(XXᵀ)X + c·(XXᵀ)²X with the steepest slope at zero (Jordan 2024).
QUINTIC = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
SMALLEST_NORM = 1e-7


class MuonWithAdamW(torch.optim.Optimizer):
    """One optimiser: its first parameter group holds the matrices, the others the rest."""

    def __init__(
        self,
        matrices: Sequence[Tensor],
        rest: Sequence[dict[str, Any]],
        *,
        lr: float,
        weight_decay: float,
        momentum: float,
        rest_lr: float,
        betas: tuple[float, float],
        eps: float = 1e-8,
    ) -> None:
        groups: list[dict[str, Any]] = [
            {
                "params": list(matrices),
                "rule": "muon",
                "lr": lr,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "fused": False,
            }
        ]
        for group in rest:
            fused = all(weight.is_floating_point() for weight in group["params"])
            groups.append({"rule": "adamw", "lr": rest_lr, "betas": betas, "eps": eps, "fused": fused, **group})
        super().__init__(groups, {})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["rule"] == "muon":
                self._step_matrices(group)
            else:
                self._step_rest(group)
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        weights = [weight for weight in group["params"] if weight.grad is not None]
        if not weights:
            return
        gradients = [weight.grad for weight in weights]
        for weight in weights:
            if "momentum_buffer" not in self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        looking_ahead = torch._foreach_lerp(gradients, buffers, group["momentum"])
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        for weight, update in zip(weights, orthogonalised(looking_ahead)):
            weight.add_(update, alpha=-group["lr"] * math.sqrt(max(1.0, weight.shape[0] / weight.shape[1])))

    def _step_rest(self, group: dict[str, Any]) -> None:
        weights = [weight for weight in group["params"] if weight.grad is not None]
        if not weights:
            return
        for weight in weights:
            if not self.state[weight]:
                device = weight.device if group["fused"] else torch.device("cpu")
                self.state[weight]["step"] = torch.zeros((), dtype=torch.float32, device=device)
                self.state[weight]["exp_avg"] = torch.zeros_like(weight)
                self.state[weight]["exp_avg_sq"] = torch.zeros_like(weight)
        adamw(
            weights,
            [weight.grad for weight in weights],
            [self.state[weight]["exp_avg"] for weight in weights],
            [self.state[weight]["exp_avg_sq"] for weight in weights],
            [],
            [self.state[weight]["step"] for weight in weights],
            foreach=not group["fused"],
            fused=group["fused"],
            has_complex=any(weight.is_complex() for weight in weights),
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def orthogonalised(matrices: Sequence[Tensor]) -> list[Tensor]:
    """The nearest (semi-)orthogonal matrices, roughly: singular values between about 0.7 and 1.2, in order.

    Matrices of equal shape up to transposition are stacked and taken through the Newton-Schulz steps together.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for place, matrix in enumerate(matrices):
        by_shape.setdefault(tuple(sorted(matrix.shape)), []).append(place)
    results: list[Tensor] = [torch.empty(0)] * len(matrices)
    for places in by_shape.values():
        wide = torch.stack([_wide(matrices[place]) for place in places])
        for place, result in zip(places, _newton_schulz(wide)):
            results[place] = result.T if matrices[place].shape[0] > matrices[place].shape[1] else result
    return results


def _wide(matrix: Tensor) -> Tensor:
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


def _newton_schulz(wide: Tensor) -> Tensor:
    """Newton-Schulz steps of a stack (matrices, rows, columns) with rows <= columns, in bfloat16 where that is fast."""
    a, b, c = QUINTIC
    x = wide.to(_dtype(wide.device))
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=SMALLEST_NORM)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.to(wide.dtype)


def _dtype(device: torch.device) -> torch.dtype:
    """bfloat16, as in torch.optim.Muon, but for CPUs that only emulate it."""
    if device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.float32
    return torch.bfloat16
