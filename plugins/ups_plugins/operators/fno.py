"""A Fourier neural operator on the lattice of latent tokens (Li et al., arXiv:2010.08895).

On tokens z of width d on a lattice, with P the first linear map and Q a small network whose last map is zero at first:

    h_0 = P z,    h_{l+1} = GELU( (F⁻¹ R_l F h_l + W_l h_l) · (1 + a_l(c)) + b_l(c) ),    A(z, c) = z + Q h_L

F is the real Fourier transform over the lattice, cut to the lowest modes; R_l a complex (d, d) matrix for each mode;
the scales a_l and shifts b_l come from the condition c and are zero at first. Where every axis is periodic, A commutes
with shifts of the lattice, and on band-limited tokens it does not depend on the lattice's resolution as long as GELU's
overtones are resolved. Axes that are not periodic are padded with zeros, so that a wave that leaves at one end does not
enter at the other.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ups_kit.errors import Problem, RecipeError
from ups_kit.interfaces import Latent


class SpectralConvolution(nn.Module):
    """F⁻¹ R F over a lattice, with a complex (width, width) matrix for each of the lowest modes.

    (batch, *lattice, width) to the same shape. R is kept as pairs of real numbers, (modes, width, width, 2).
    """

    def __init__(self, dims: int, width: int, modes: int) -> None:
        super().__init__()
        self.modes = modes
        self.shape = (2 * modes,) * (dims - 1) + (modes,)
        self.weight = nn.Parameter(torch.randn(math.prod(self.shape), width, width, 2) / math.sqrt(2 * width))

    def forward(self, values: Tensor) -> Tensor:
        lattice = values.shape[1:-1]
        axes = tuple(range(1, 1 + len(lattice)))
        with torch.autocast(values.device.type, enabled=False):  # there is no FFT in half precision on a CPU
            low = self._low(torch.fft.rfftn(values.to(self.weight.dtype), dim=axes, norm="forward"))
            by_mode = low.flatten(1, -2).transpose(0, 1)
            mixed = torch.bmm(by_mode, torch.view_as_complex(self.weight)).transpose(0, 1)
            spectrum = self._spread(mixed.reshape(low.shape), lattice)
            result: Tensor = torch.fft.irfftn(spectrum, s=lattice, dim=axes, norm="forward")
        return result

    def _low(self, spectrum: Tensor) -> Tensor:
        """The lowest modes: of either sign on all axes but the last."""
        modes, last = self.modes, spectrum.dim() - 2
        for axis in range(1, last):
            size = spectrum.shape[axis]
            spectrum = torch.cat([spectrum.narrow(axis, 0, modes), spectrum.narrow(axis, size - modes, modes)], axis)
        return spectrum.narrow(last, 0, modes)

    def _spread(self, low: Tensor, lattice: torch.Size) -> Tensor:
        """The lowest modes in their places, zeros between them; the last axis is filled up by the transform."""
        modes = self.modes
        for axis, size in enumerate(lattice[:-1], start=1):
            shape = list(low.shape)
            shape[axis] = size - 2 * modes
            low = torch.cat([low.narrow(axis, 0, modes), low.new_zeros(shape), low.narrow(axis, modes, modes)], axis)
        return low


class FNOOperator(nn.Module):
    """One latent step as a Fourier neural operator: (batch, tokens, width) to the same; the identity at first.

    The condition (batch, conditions) sets a scale and a shift of every layer.
    """

    def __init__(
        self,
        width: int,
        conditions: int,
        periodic: tuple[bool, ...],
        *,
        hidden: int | None = None,
        modes: int,
        layers: int,
        padding: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = width if hidden is None else hidden
        self.periodic = periodic
        self.modes = modes
        self.padding = padding
        self.lift = nn.Linear(width, hidden)
        self.spectral = nn.ModuleList(SpectralConvolution(len(periodic), hidden, modes) for _ in range(layers))
        self.skips = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))
        self.modulation = nn.Sequential(
            nn.Linear(conditions, hidden), nn.GELU(), _zero(nn.Linear(hidden, 2 * layers * hidden))
        )
        self.project = nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.GELU(), _zero(nn.Linear(2 * hidden, width)))

    def forward(self, latent: Latent, condition: Tensor) -> Latent:
        lattice = self._lattice(latent)
        tokens = latent.tokens
        values = self._pad(self.lift(tokens).reshape(tokens.shape[0], *lattice, -1))
        ones = (1,) * len(lattice)
        modulation = self.modulation(condition).view(tokens.shape[0], *ones, len(self.spectral), 2, -1)
        for layer, (spectral, skip) in enumerate(zip(self.spectral, self.skips)):
            scale, shift = modulation[..., layer, 0, :], modulation[..., layer, 1, :]
            values = F.gelu((spectral(values) + skip(values)) * (1 + scale) + shift)
        values = values[(slice(None), *(slice(size) for size in lattice))]
        return latent._replace(tokens=tokens + self.project(values).reshape(tokens.shape))

    def _pad(self, values: Tensor) -> Tensor:
        """Zeros behind the end of every axis that is not periodic."""
        for axis, wraps in enumerate(self.periodic, start=1):
            if not wraps and self.padding > 0:
                shape = list(values.shape)
                shape[axis] = math.ceil(self.padding * shape[axis])
                values = torch.cat([values, values.new_zeros(shape)], axis)
        return values

    def _lattice(self, latent: Latent) -> tuple[int, ...]:
        if latent.grid is None:
            problem = Problem("operator.use", "'fno' needs tokens on a lattice; this encoder's tokens are not on one")
            raise RecipeError("the model", [problem])
        if 2 * self.modes > min(latent.grid):
            expected = f"at most half the tokens along each axis, {min(latent.grid) // 2} for a lattice {latent.grid}"
            raise RecipeError("the model", [Problem("operator.modes", f"expected {expected}; got {self.modes}")])
        return latent.grid


def _zero(linear: nn.Linear) -> nn.Linear:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
