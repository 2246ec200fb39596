"""Whether the model listens to the parameters and the static fields: give every trajectory those of another."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import torch
from attrs import frozen
from torch import Tensor

from .scores import finite, ratio
from .truth import Truth


@frozen(eq=False)
class Shuffle:
    """The rollout with the parameters, or static fields, of other trajectories, beside the rollout with their own."""

    names: tuple[str, ...]
    own: float
    shuffled: float
    ratio: float | None
    reason: str = ""

    @property
    def applicable(self) -> bool:
        """Whether there is anything that differs between trajectories."""
        return not self.reason

    def summary(self, kind: str) -> dict[str, object]:
        """What the run's summary holds of it; `kind` is what the names are names of."""
        if not self.applicable:
            return {"applicable": False, "reason": self.reason}
        return {
            "applicable": True,
            kind: list(self.names),
            "nrmse": finite(self.own),
            "nrmse_shuffled": finite(self.shuffled),
            "ratio": self.ratio,
        }


@frozen(eq=False)
class Exchange:
    """What is to be exchanged between trajectories, or the reason why nothing can be.

    `apply(rows)` gives those trajectories with what the others lend them.
    """

    names: tuple[str, ...]
    apply: Callable[[slice], Truth]
    reason: str = ""

    def result(self, own: float, shuffled: Tensor | None) -> Shuffle:
        """The outcome, from the nRMSE of the exchanged rollout (S, steps)."""
        if shuffled is None:
            return Shuffle(self.names, own, own, None, self.reason)
        mean = shuffled.mean().item()
        return Shuffle(self.names, own, mean, ratio(mean, own))


def exchange_parameters(truth: Truth, seed: int) -> Exchange:
    """Permute the parameters among the trajectories, never dt.

    All parameters of a trajectory move together, and no trajectory keeps its own. A ratio near 1 says that the model
    does not use them; the more they matter to the physics, the larger it should be. Where no parameter differs between
    trajectories there is nothing to shuffle, and the reason is given instead.
    """
    columns = [place for place, name in enumerate(truth.fields.conditions) if name != "dt"]
    names = tuple(truth.fields.conditions[place] for place in columns)
    varying = [place for place in columns if bool((truth.parameters[:, place] != truth.parameters[0, place]).any())]
    if not columns:
        return Exchange((), truth.part, "not applicable: the data have no parameters")
    if not varying:
        values = ", ".join(f"{name} = {truth.parameters[0, place]:.4g}" for name, place in zip(names, columns))
        return Exchange(names, truth.part, f"not applicable: all trajectories have {values}")
    condition = truth.condition.clone()
    condition[:, columns] = truth.condition[derangement(truth.samples, seed)][:, columns]
    exchanged = attrs.evolve(truth, condition=condition)
    return Exchange(tuple(truth.fields.conditions[place] for place in varying), exchanged.part)


def exchange_statics(truth: Truth, seed: int) -> Exchange:
    """Permute the static fields among the trajectories, all of them together; no trajectory keeps its own."""
    names = tuple(field.name for field in truth.fields.statics)
    if not names:
        return Exchange((), truth.part, "not applicable: the data have no static fields")
    if not same_points(truth):
        return Exchange(names, truth.part, "not applicable: every trajectory has points of its own")
    if bool((truth.statics == truth.statics[:1]).all()):
        return Exchange(names, truth.part, "not applicable: all trajectories have the same static fields")
    order = derangement(truth.samples, seed)
    return Exchange(names, lambda rows: attrs.evolve(truth.part(rows), statics=truth.statics[order[rows]]))


def same_points(truth: Truth) -> bool:
    """Whether all trajectories have the same points, so that a field of one can be lent to another."""
    if truth.moving or truth.mask is not None:
        return False
    return truth.positions.dim() == 2 or bool((truth.positions == truth.positions[:1]).all())


def derangement(samples: int, seed: int) -> Tensor:
    """A permutation in which nothing keeps its place: one cycle through all places in a random order."""
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
    places = torch.empty_like(order)
    places[order] = order.roll(1)
    return places
