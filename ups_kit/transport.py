"""How far one cloud of points is from another, whichever point is which: optimal transport with entropy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .interfaces import FieldSpec
from .motion import displacement

ENTROPY = 0.05  # of the mean squared distance between true points
SCALING = 0.5  # the factor by which the entropy falls to that, from the largest squared distance
LAST_ROUNDS = 100  # at most, at the final strength
TOLERANCE = 1e-4  # of the final strength, in every potential


def sinkhorn_divergence(prediction: Tensor, truth: Tensor, fields: FieldSpec, share: float = ENTROPY) -> Tensor:
    """The debiased Sinkhorn divergence of clouds of points (B, n, D) and (B, m, D), all points alike; (B,), a length².

    S(a, b) = W(a, b) − W(a, a)/2 − W(b, b)/2, where W(a, b) is the least Σ P_ij |x_i − y_j|² + ε KL(P | a ⊗ b) over
    all plans P that carry a to b. It is 0 for equal clouds, and |s|² for a cloud that is shifted by s, whatever ε is;
    towards ε = 0 it becomes the squared Wasserstein distance. ε is `share` of the mean squared distance between true
    points. Distances are the shortest around periodic axes. Solved in the logarithmic domain, ε falling by halves.
    NaN where a place is not finite. Source: Feydy et al., arXiv:1810.08278; a measure of LagrangeBench (Toshev et al.,
    arXiv:2309.16342), which solves it with other settings.
    """
    clouds = prediction.float(), truth.float()
    costs = {(i, j): _cost(clouds[i], clouds[j], fields) for i, j in ((0, 1), (0, 0), (1, 1))}
    epsilon = (share * costs[1, 1].mean((1, 2))).clamp_min(1e-30)
    values = {pair: _transport(cost, epsilon, pair[0] == pair[1]) for pair, cost in costs.items()}
    divergence = (values[0, 1] - (values[0, 0] + values[1, 1]) / 2).clamp_min(0.0)
    finite = torch.isfinite(clouds[0]).all(-1).all(-1) & torch.isfinite(clouds[1]).all(-1).all(-1)
    return torch.where(finite, divergence, torch.full_like(divergence, math.nan))


def _cost(one: Tensor, other: Tensor, fields: FieldSpec) -> Tensor:
    """Squared distances (B, n, m)."""
    way = displacement(one[:, :, None], other[:, None], fields)
    return torch.nan_to_num(way, 0.0, 0.0, 0.0).square().sum(-1)


def _transport(cost: Tensor, epsilon: Tensor, same: bool) -> Tensor:
    """W of clouds with these costs (B, n, m), from its dual: the means of both potentials; (B,)."""
    f, g = cost.new_zeros(cost.shape[:2]), cost.new_zeros(cost.shape[0], cost.shape[2])
    for strength in _strengths(cost, epsilon):
        f, g = _round(cost, f, g, strength, same)
    for _ in range(LAST_ROUNDS):
        before = f
        f, g = _round(cost, f, g, epsilon, same)
        if bool(((f - before).abs().amax(1) <= TOLERANCE * epsilon).all()):
            break
    return f.mean(1) + g.mean(1)


def _strengths(cost: Tensor, epsilon: Tensor) -> list[Tensor]:
    """Entropies that fall by halves from the largest cost to the final one."""
    largest = cost.amax((1, 2)).clamp_min(epsilon)
    rounds = math.ceil(math.log((largest / epsilon).max().item()) / -math.log(SCALING))
    return [torch.maximum(largest * SCALING**number, epsilon) for number in range(rounds + 1)]


def _round(cost: Tensor, f: Tensor, g: Tensor, epsilon: Tensor, same: bool) -> tuple[Tensor, Tensor]:
    """One round of both potentials; of a cloud with itself they are one, found as the mean of two rounds."""
    new_f = _softmin(cost, g, epsilon)
    if same:
        new_f = (f + new_f) / 2
        return new_f, new_f
    return new_f, _softmin(cost.mT, new_f, epsilon)


def _softmin(cost: Tensor, potential: Tensor, epsilon: Tensor) -> Tensor:
    """−ε log mean_j exp((g_j − c_ij) / ε), (B, n)."""
    scale = epsilon[:, None]
    exponents = (potential[:, None] - cost) / scale[..., None]
    return -scale * (torch.logsumexp(exponents, -1) - math.log(cost.shape[-1]))
