"""Whether the model listens to the parameters: give every trajectory those of another."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from .rollouts import Runner
from .scores import Score, finite, ratio, score
from .truth import Truth


@frozen(eq=False)
class Shuffle:
    """The rollout with the parameters of other trajectories, beside the rollout with their own."""

    parameters: tuple[str, ...]
    own: float
    shuffled: float
    ratio: float | None
    reason: str = ""

    @property
    def applicable(self) -> bool:
        """Whether there is any parameter that differs between trajectories."""
        return not self.reason

    def summary(self) -> dict[str, object]:
        """What the run's summary holds of it."""
        if not self.applicable:
            return {"applicable": False, "reason": self.reason}
        return {
            "applicable": True,
            "parameters": list(self.parameters),
            "nrmse": finite(self.own),
            "nrmse_shuffled": finite(self.shuffled),
            "ratio": self.ratio,
        }


def shuffle_parameters(runner: Runner, truth: Truth, own: Score, seed: int) -> Shuffle:
    """Permute the parameters among the trajectories, never dt, and roll out again.

    All parameters of a trajectory move together, and no trajectory keeps its own. A ratio near 1 says that the model
    does not use them; the more they matter to the physics, the larger it should be. Where no parameter differs between
    trajectories there is nothing to shuffle, and the reason is given instead.
    """
    columns = [place for place, name in enumerate(truth.fields.conditions) if name != "dt"]
    names = tuple(truth.fields.conditions[place] for place in columns)
    if not columns:
        return Shuffle((), own.mean, own.mean, None, "not applicable: the data have no parameters")
    varying = [place for place in columns if bool((truth.parameters[:, place] != truth.parameters[0, place]).any())]
    if not varying:
        values = ", ".join(f"{name} = {truth.parameters[0, place]:.4g}" for name, place in zip(names, columns))
        return Shuffle(names, own.mean, own.mean, None, f"not applicable: all trajectories have {values}")
    condition = truth.condition.clone()
    condition[:, columns] = truth.condition[derangement(truth.samples, seed)][:, columns]
    shuffled = score(runner.latent_rollout(condition), truth, rollout=True).mean
    return Shuffle(
        tuple(truth.fields.conditions[place] for place in varying), own.mean, shuffled, ratio(shuffled, own.mean)
    )


def derangement(samples: int, seed: int) -> Tensor:
    """A permutation in which nothing keeps its place: one cycle through all places in a random order."""
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
    places = torch.empty_like(order)
    places[order] = order.roll(1)
    return places
