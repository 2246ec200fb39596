"""Fields on a regular grid as modes, for which linear equations with constant coefficients are numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
import torch
from attrs import frozen
from torch import Tensor

from ups_kit.interfaces import FieldSpec


@frozen
class Modes:
    """The transform of a grid: Fourier along periodic axes, cosine (DCT-II) along the others.

    A cosine of cell centres has no flux through the walls, so that diffusion between such walls is one number per mode
    as it is on a circle. Modes are complex where any axis is periodic, and real elsewhere.
    """

    grid: tuple[int, ...]
    periodic: tuple[bool, ...]

    @classmethod
    def of(cls, fields: FieldSpec) -> Modes:
        """The transform of these data; raises ValueError where they are not on a grid."""
        if fields.grid is None:
            raise ValueError(f"modes need a regular grid; the data are laid out as {fields.layout}")
        return cls(fields.grid, fields.periodic)

    @property
    def count(self) -> int:
        """Number of modes."""
        return int(np.prod(self._shape))

    @property
    def dtype(self) -> torch.dtype:
        return torch.complex128 if any(self.periodic) else torch.float64

    @property
    def _shape(self) -> tuple[int, ...]:
        """Modes along each axis: those of the last periodic one come in conjugate pairs, of which one is kept."""
        last = max((axis for axis, periodic in enumerate(self.periodic) if periodic), default=None)
        return tuple(count // 2 + 1 if axis == last else count for axis, count in enumerate(self.grid))

    def _axes(self, periodic: bool) -> tuple[int, ...]:
        return tuple(2 + axis for axis, own in enumerate(self.periodic) if own == periodic)

    def forward(self, values: Tensor) -> Tensor:
        """(F, N, C) to modes (F, modes, C), in double precision."""
        frames, _, channels = values.shape
        on_grid: Any = values.movedim(-1, 1).reshape(frames, channels, *self.grid).numpy().astype(np.float64)
        if self._axes(False):
            on_grid = scipy.fft.dctn(on_grid, type=2, axes=self._axes(False), norm="ortho", overwrite_x=True)
        if self._axes(True):
            on_grid = scipy.fft.rfftn(on_grid, axes=self._axes(True))
        return torch.from_numpy(on_grid).reshape(frames, channels, -1).movedim(1, -1)

    def back(self, modes: Tensor) -> Tensor:
        """Modes (F, modes, C) to (F, N, C), in single precision."""
        frames, _, channels = modes.shape
        spectrum: Any = modes.movedim(-1, 1).reshape(frames, channels, *self._shape).numpy()
        axes = self._axes(True)
        if axes:
            spectrum = scipy.fft.irfftn(spectrum, s=[self.grid[axis - 2] for axis in axes], axes=axes)
        if self._axes(False):
            spectrum = scipy.fft.idctn(spectrum, type=2, axes=self._axes(False), norm="ortho")
        return torch.from_numpy(spectrum).reshape(frames, channels, -1).movedim(1, -1).float()
