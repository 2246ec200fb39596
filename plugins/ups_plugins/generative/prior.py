"""Steady states as a distribution: the latents of answers, given the static fields and the parameters."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from ups_kit import FieldSpec, Latent, PointSet
from ups_kit.interfaces import Encoder

from .flow import Solver, solve
from .network import NetworkSize, VelocityNetwork
from .residual import Standardised


class SteadyPrior(nn.Module):
    """Draws latents of steady states by solving dx/dτ = v(x, τ | geometry, c) from noise.

    The geometry is the static fields (boundary conditions and obstacles among them), encoded to tokens by an encoder
    that is this part's own and is trained with it. A part that draws states (`interfaces.DrawsStates`).
    """

    def __init__(
        self,
        geometry: Encoder,
        fields: FieldSpec,
        channels: int,
        size: NetworkSize,
        solver: Solver,
        shown: tuple[int, ...],
        default: int,
    ) -> None:
        super().__init__()
        self.geometry = cast("nn.Module", geometry)
        self.state = Standardised(channels)
        self.net = VelocityNetwork(fields, channels, channels, size)
        self.solver: Solver = solver
        self.shown, self.default = shown, default

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What is compiled."""
        return {"geometry": self.geometry, "net": self.net}

    def given(self, points: PointSet, condition: Tensor) -> Latent:
        """What is known of samples: the tokens of their static fields, and their condition."""
        latent: Latent = self.geometry(points._replace(condition=condition))
        return latent._replace(condition=condition)

    def correct(self, predicted: Latent, noise: Tensor, steps: int) -> Latent:
        """A steady state drawn in so many steps of the solver, given what `given` has returned."""
        drawn = solve(lambda values, time: self.net(values, time, predicted), noise, steps, self.solver)
        return predicted._replace(tokens=self.state.undo(drawn))
