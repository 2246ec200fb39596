"""What the operator leaves out, as a distribution: r = z_{t+1} − A(z_t), given A(z_t) and the conditions."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ups_kit import FieldSpec, Latent

from .flow import Solver, jump, jumps, solve
from .network import NetworkSize, VelocityNetwork

SMALLEST_SPREAD = 1e-6  # of a channel, in units of the tokens


class Standardised(nn.Module):
    """A mean and a spread for each channel of some tokens, measured once, and kept with the weights."""

    mean: Tensor
    spread: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("spread", torch.ones(channels))

    @torch.no_grad()
    def measure(self, tokens: Tensor) -> None:
        """Mean and standard deviation over samples and tokens of (batch, tokens, channels)."""
        flat = tokens.double().flatten(0, -2)
        self.mean.copy_(flat.mean(0))
        self.spread.copy_(flat.std(0, correction=0).clamp_min(SMALLEST_SPREAD))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens in units of the spread."""
        return (tokens - self.mean) / self.spread

    def undo(self, tokens: Tensor) -> Tensor:
        """And back."""
        return tokens * self.spread + self.mean


class ResidualFlow(nn.Module):
    """Draws r by solving dx/dτ = v(x, τ | A(z), c) from noise: a part that corrects (`interfaces.Corrects`).

    Residuals are learnt in units of their spread over the training windows, what is given in units of its own.
    """

    def __init__(
        self, fields: FieldSpec, channels: int, size: NetworkSize, solver: Solver, shown: tuple[int, ...], default: int
    ) -> None:
        super().__init__()
        self.predicted = Standardised(channels)
        self.residual = Standardised(channels)
        self.net = VelocityNetwork(fields, channels, channels, size)
        self.solver: Solver = solver
        self.shown, self.default = shown, default

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What is compiled."""
        return {"net": self.net}

    def measure(self, predicted: Latent, target: Tensor) -> None:
        """Take the units from some predictions (batch, tokens, channels) and what should have been predicted."""
        self.predicted.measure(predicted.tokens)
        self.residual.measure(target - predicted.tokens)

    def seen(self, predicted: Latent) -> Latent:
        """The prediction as the network sees it."""
        return predicted._replace(tokens=self.predicted(predicted.tokens))

    def correct(self, predicted: Latent, noise: Tensor, steps: int) -> Latent:
        """A(z) plus a residual drawn in so many steps of the solver."""
        given = self.seen(predicted)
        drawn = solve(lambda values, time: self.net(values, time, given), noise, steps, self.solver)
        return predicted._replace(tokens=predicted.tokens + self.residual.undo(drawn).to(predicted.tokens.dtype))


class ResidualStudent(ResidualFlow):
    """Draws r in one jump or a few, as a student of a `ResidualFlow` (docs/method.md §4)."""

    def correct(self, predicted: Latent, noise: Tensor, steps: int) -> Latent:
        """A(z) plus a residual drawn in so many jumps."""
        given = self.seen(predicted)
        drawn = jumps(jump(lambda values, time: self.net(values, time, given)), noise, steps)
        return predicted._replace(tokens=predicted.tokens + self.residual.undo(drawn).to(predicted.tokens.dtype))


class Distillation(nn.Module):
    """A student in training, and the moving average of its network that its target jumps are made by.

    The student begins as its teacher: a jump by the teacher's velocity is one step of Euler's method.
    """

    followed: Tensor

    def __init__(self, student: ResidualStudent, teacher: ResidualFlow, decay: float) -> None:
        super().__init__()
        student.load_state_dict(teacher.state_dict())
        self.student = student
        self.target = copy.deepcopy(student.net).requires_grad_(False)
        self.decay = decay
        self.register_buffer("followed", torch.tensor(-1))

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What is compiled."""
        return {"student": self.student.net, "target": self.target}

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Move the target towards the student, once in every training step, in however many parts that is computed."""
        if int(self.followed) == step:
            return
        self.followed.fill_(step)
        mine: list[Tensor] = list(self.target.parameters())
        its: list[Tensor] = list(self.student.net.parameters())
        torch._foreach_lerp_(mine, its, 1 - self.decay)
