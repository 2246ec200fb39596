"""Metrics of forecasts, on fields in physical units (docs/evaluation.md).

A forecast and its truth are (samples S, frames, points N, channels C). Every metric says which frames it scores:
`scored` has no default, so that frames that were given to the model are never counted by accident. Arithmetic is in
float64 whatever the input is.

A per-frame metric returns (S, scored frames): the value of each sample and frame, averaged over channels. The number
of a table is its mean over samples and frames, in that order: first per sample, frame and channel, then averaged.
Every point counts the same, on meshes and among particles, too; only `crmse` can weigh points by their volume.
Trajectories with fewer points than others are filled up: give `mask` where a metric takes one, or score each alone.

An ensemble is (members M, samples S, frames, points N, channels C): forecasts that were drawn for the same truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .interfaces import FieldSpec
from .motion import displacement

VRMSE_EPS = 1e-7  # added to the variance under the root, as The Well does
NRMSE_FLOOR = 1e-12  # the RMS of the truth counts as at least this
CORRELATION_THRESHOLD = 0.8
BANDS: dict[str, tuple[int, int | None]] = {"frmse_low": (0, 4), "frmse_mid": (5, 12), "frmse_high": (13, None)}
GEOMETRIC_FRAMES = 100  # APEBench's horizon
CENTRAL = 0.9  # of the interval whose coverage is counted


def forecast_frames(given: int, frames: int) -> range:
    """The frames after the given ones: what a rollout is scored on."""
    return range(given, frames)


def _pair(prediction: Tensor, truth: Tensor, scored: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The scored frames of both in float64, checked."""
    if prediction.shape != truth.shape or prediction.dim() != 4:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and truth {tuple(truth.shape)} must both be "
            "(samples, frames, points, channels)"
        )
    if len(scored) == 0:
        raise ValueError("no frame is scored")
    if min(scored) < 0 or max(scored) >= truth.shape[1]:
        raise ValueError(f"scored frames {min(scored)}..{max(scored)} do not lie in 0..{truth.shape[1] - 1}")
    if list(scored) == list(range(truth.shape[1])):
        return prediction.double(), truth.double()  # no copy of what is in double precision already
    frames = torch.as_tensor(list(scored), device=truth.device)
    return prediction.index_select(1, frames).double(), truth.index_select(1, frames).double()


def _rms(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Root mean square over points: (S, F, N, C) -> (S, F, C); over those alone where the mask (S, N) is true."""
    if mask is None:
        return values.square().mean(2).sqrt()
    counted = mask[:, None, :, None]
    return (values.square().where(counted, 0.0).sum(2) / counted.sum(2)).sqrt()


def rmse(prediction: Tensor, truth: Tensor, scored: Sequence[int]) -> Tensor:
    """Root mean square error over points, in the field's unit; (S, scored frames), mean over channels."""
    p, t = _pair(prediction, truth, scored)
    return _rms(p - t).mean(-1)


def nrmse(prediction: Tensor, truth: Tensor, scored: Sequence[int], mask: Tensor | None = None) -> Tensor:
    """RMSE over the RMS of the truth, for each sample, frame and channel; (S, scored frames), mean over channels.

    A truth whose RMS is under 1e-12 counts as 1e-12. Source: PDEBench (Takamoto et al., arXiv:2210.07182).
    An offset enters the denominator: where the mean of a field is large beside its variation, see `vrmse`.
    Points where `mask` (S, N) is false do not count.
    """
    return nrmse_by_channel(prediction, truth, scored, mask).mean(-1)


def nrmse_by_channel(prediction: Tensor, truth: Tensor, scored: Sequence[int], mask: Tensor | None = None) -> Tensor:
    """`nrmse` before the mean over channels, (S, scored frames, C)."""
    p, t = _pair(prediction, truth, scored)
    return _rms(p - t, mask) / _rms(t, mask).clamp_min(NRMSE_FLOOR)


def vrmse(prediction: Tensor, truth: Tensor, scored: Sequence[int]) -> Tensor:
    """RMSE over the standard deviation of the truth in space; (S, scored frames), mean over channels.

    sqrt( mean (p − t)² / (var t + 1e-7) ) with the population variance over points, as in The Well (Ohana et al.,
    arXiv:2412.00568). Predicting the spatial mean of the truth scores 1. It grows without bound where the truth
    flattens.
    """
    return vrmse_by_channel(prediction, truth, scored).mean(-1)


def vrmse_by_channel(prediction: Tensor, truth: Tensor, scored: Sequence[int]) -> Tensor:
    """`vrmse` before the mean over channels, (S, scored frames, C)."""
    p, t = _pair(prediction, truth, scored)
    variance = t.var(2, correction=0)
    return ((p - t).square().mean(2) / (variance + VRMSE_EPS)).sqrt()


def max_error(prediction: Tensor, truth: Tensor, scored: Sequence[int]) -> Tensor:
    """Largest absolute error over points, in the field's unit; (S, scored frames), mean over channels."""
    p, t = _pair(prediction, truth, scored)
    return (p - t).abs().amax(2).mean(-1)


def crmse(prediction: Tensor, truth: Tensor, scored: Sequence[int], weights: Tensor | None = None) -> Tensor:
    """Error of the conserved total per unit volume, |mean(p) − mean(t)| over points; (S, scored frames).

    In the field's unit, mean over channels. It says something about conservation only where the equation conserves the
    integral of the field. With `weights` (S, N), the area or volume of each point, means are integrals over the domain:
    |Σ w (p − t)| / Σ w.
    """
    p, t = _pair(prediction, truth, scored)
    if weights is None:
        return (p.mean(2) - t.mean(2)).abs().mean(-1)
    share = weights.double() / weights.double().sum(1, keepdim=True)
    return (share[:, None, :, None] * (p - t)).sum(2).abs().mean(-1)


def brmse(prediction: Tensor, truth: Tensor, scored: Sequence[int], fields: FieldSpec) -> Tensor:
    """RMSE over the grid's boundary points, in the field's unit; (S, scored frames), mean over channels.

    The boundary points are the first and the last along every axis. A periodic axis has no boundary: there they are the
    points on both sides of the seam, where a model that does not know of the periodicity fails first.
    Raises ValueError where the data are not on a grid.
    """
    p, t = _pair(prediction, truth, scored)
    points = boundary_points(fields).to(p.device)
    return _rms((p - t).index_select(2, points)).mean(-1)


def frmse_low(prediction: Tensor, truth: Tensor, scored: Sequence[int], fields: FieldSpec) -> Tensor:
    """Fourier error in the wave numbers 0 to 4; see `band_error`."""
    return band_error(prediction, truth, scored, fields, BANDS["frmse_low"])


def frmse_mid(prediction: Tensor, truth: Tensor, scored: Sequence[int], fields: FieldSpec) -> Tensor:
    """Fourier error in the wave numbers 5 to 12; see `band_error`."""
    return band_error(prediction, truth, scored, fields, BANDS["frmse_mid"])


def frmse_high(prediction: Tensor, truth: Tensor, scored: Sequence[int], fields: FieldSpec) -> Tensor:
    """Fourier error in the wave numbers from 13 to the grid's highest; see `band_error`."""
    return band_error(prediction, truth, scored, fields, BANDS["frmse_high"])


def band_error(
    prediction: Tensor, truth: Tensor, scored: Sequence[int], fields: FieldSpec, band: tuple[int, int | None]
) -> Tensor:
    """Fourier error in a band of wave numbers a to b, in the field's unit; (S, scored frames), mean over channels.

    sqrt( Σ_{a ≤ |k| ≤ b} |p̂(k) − t̂(k)|² ) / (b − a + 1), where a mode's coefficient is its amplitude (the transform is
    divided by the number of points), k and −k count once, and |k| is rounded down, so that bands are shells in two and
    three dimensions. PDEBench's formula; its bands are 0–4, 5–12 and from 13 on. A band that the grid does not reach
    has no error. Raises ValueError where the data are not on a grid.
    """
    p, t = _pair(prediction, truth, scored)
    return _band(shell_energies(p - t, fields), band)


def band_errors(prediction: Tensor, truth: Tensor, scored: Sequence[int], fields: FieldSpec) -> dict[str, Tensor]:
    """`frmse_low`, `frmse_mid` and `frmse_high` from one transform, by name."""
    p, t = _pair(prediction, truth, scored)
    shells = shell_energies(p - t, fields)
    return {name: _band(shells, band) for name, band in BANDS.items()}


def _band(shells: Tensor, band: tuple[int, int | None]) -> Tensor:
    first, highest = band[0], shells.shape[-1] - 1
    last = highest if band[1] is None else min(band[1], highest)
    if last < first:
        return shells.new_zeros(shells.shape[:2])
    return (shells[..., first : last + 1].sum(-1).sqrt() / (last - first + 1)).mean(-1)


def relative_l2(prediction: Tensor, truth: Tensor, scored: Sequence[int]) -> Tensor:
    """Error norm over truth norm, both over all scored frames and points of a sample; (S,), mean over channels.

    The Frobenius norm of a whole trajectory: frames with large fields weigh more than in `nrmse`.
    """
    p, t = _pair(prediction, truth, scored)
    error, norm = (p - t).square().sum((1, 2)).sqrt(), t.square().sum((1, 2)).sqrt()
    return (error / norm.clamp_min(NRMSE_FLOOR)).mean(-1)


def correlation(prediction: Tensor, truth: Tensor, scored: Sequence[int]) -> Tensor:
    """Pearson correlation over points, (S, scored frames, C).

    A field without any variation correlates with nothing (0), except with one that equals it to a millionth (1).
    """
    p, t = _pair(prediction, truth, scored)
    scale = _rms(t).clamp_min(NRMSE_FLOOR)
    equal = _rms(p - t) <= 1e-6 * scale
    p, t = p - p.mean(2, keepdim=True), t - t.mean(2, keepdim=True)
    flat = (_rms(p) <= 1e-9 * scale) | (_rms(t) <= 1e-9 * scale)
    pearson = (p * t).mean(2) / (_rms(p) * _rms(t)).clamp_min(1e-300)
    return torch.where(equal, torch.ones_like(pearson), torch.where(flat, torch.zeros_like(pearson), pearson))


def correlation_time(prediction: Tensor, truth: Tensor, scored: Sequence[int], times: Tensor) -> Tensor:
    """First scored time at which the Pearson correlation falls under 0.8, or the last scored time if never; (S,).

    `times` (frames,) are the frames' times in physical units; mean over channels. Source: UPT (Alkin et al.,
    arXiv:2402.12365).
    """
    lost = ~(correlation(prediction, truth, scored) >= CORRELATION_THRESHOLD)
    at = times.to(lost.device, torch.float64)[torch.as_tensor(list(scored), device=lost.device)]
    first = lost.int().argmax(1)
    return torch.where(lost.any(1), at[first], at[-1]).mean(-1)


def position_mse(prediction: Tensor, truth: Tensor, fields: FieldSpec, mask: Tensor | None = None) -> Tensor:
    """Squared displacement of points from where they should be, mean over points and axes; (S, frames), a length².

    Both are positions (S, frames, N, D); the displacement is the shortest around periodic axes. The mean over the first
    n steps is the MSE_n of LagrangeBench (Toshev et al., arXiv:2309.16342). Points where `mask` (S, N) is false do not
    count.
    """
    return _rms(displacement(truth.double(), prediction.double(), fields), mask).square().mean(-1)


def kinetic_energy(velocity: Tensor) -> Tensor:
    """Kinetic energy per unit mass, half the mean over points of |v|²; (S, frames, N, D) -> (S, frames)."""
    return velocity.double().square().sum(-1).mean(-1) / 2


def geometric_mean_nrmse(prediction: Tensor, truth: Tensor, scored: Sequence[int]) -> float:
    """Geometric mean over frames of the samples' mean nRMSE, over at most the first 100 scored frames (APEBench).

    Early frames, where errors are small, count as much as late ones. A frame's nRMSE counts as at least 1e-12.
    """
    return geometric_mean(nrmse(prediction, truth, list(scored)[:GEOMETRIC_FRAMES]).mean(0))


def geometric_mean(curve: Tensor) -> float:
    """Geometric mean of a curve of errors (frames,) over at most its first 100 frames, each at least 1e-12."""
    return math.exp(curve[:GEOMETRIC_FRAMES].clamp_min(NRMSE_FLOOR).log().mean().item())


# ---------------------------------------------------------------------------------------------------------------------
# Ensembles
# ---------------------------------------------------------------------------------------------------------------------
def crps(ensemble: Tensor, truth: Tensor, scored: Sequence[int]) -> Tensor:
    """Continuous ranked probability score over the RMS of the truth; (S, scored frames), mean over points and channels.

    At each point, for members x_i and the truth y,

        (1/M) Σ_i |x_i − y|  −  1/(2 M (M−1)) Σ_i Σ_j |x_i − x_j|,

    the fair estimator (Ferro, doi:10.1002/qj.2270; Zamo & Naveau, doi:10.1007/s11004-017-9709-7), whose expectation is
    the score ∫ (F(x) − 1[x ≥ y])² dx of the distribution F that members are drawn from, whatever their number: small
    ensembles gain and lose nothing. Of a sample it may so be negative. With one member it is the absolute error, and
    so comparable with that of a forecast that is not drawn. The denominator is that of `nrmse`.
    """
    members, t = _ensemble(ensemble, truth, scored)
    error = (members - t).abs().mean((0, 3))
    return ((error - _gini(members).mean(2)) / _rms(t).clamp_min(NRMSE_FLOOR)).mean(-1)


def _gini(members: Tensor) -> Tensor:
    """1/(2 M (M−1)) Σ_i Σ_j |x_i − x_j|, from the order of the members: Σ_k (2k − M − 1) x_(k) / (M (M−1))."""
    count = len(members)
    if count == 1:
        return torch.zeros_like(members[0])
    weights = (2 * torch.arange(1, count + 1, device=members.device) - count - 1).double() / (count * (count - 1))
    return torch.einsum("m,m...->...", weights, members.sort(0).values)


def spread_and_error(ensemble: Tensor, truth: Tensor, scored: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Variance of an ensemble and squared error of its mean over the truth's mean square, (S, scored frames) each.

    Means over points, then over channels. The variance is the unbiased one, times (M+1)/M: what the squared error of a
    mean of M members would be if the truth were one more of them. `spread_skill` of both is then 1, however few members
    there are (Fortin et al., doi:10.1175/JHM-D-14-0008.1). Raises ValueError for fewer than two members.
    """
    members, t = _ensemble(ensemble, truth, scored, least=2)
    size = _rms(t).clamp_min(NRMSE_FLOOR).square()
    factor = (len(members) + 1) / len(members)
    spread = factor * members.var(0).mean(2) / size
    return spread.mean(-1), ((members.mean(0) - t).square().mean(2) / size).mean(-1)


def spread_skill(spread: Tensor, error: Tensor) -> Tensor:
    """Spread over skill, √(Σ spread / Σ error) over samples (S, …), of what `spread_and_error` gives.

    1 for an ensemble that knows how wrong it is, below 1 for one that is too sure. Sums come before the root and the
    quotient: a mean of quotients would be ruled by samples that are nearly right. NaN where there is no error.
    """
    return (spread.sum(0) / error.sum(0)).sqrt().where(error.sum(0) > 0, math.nan)


def coverage(ensemble: Tensor, truth: Tensor, scored: Sequence[int], share: float = CENTRAL) -> Tensor:
    """Share of points at which the truth lies in the ensemble's central interval; (S, scored frames).

    The mean over channels; in an ensemble that the truth could be a member of, it is `share` in expectation, whatever
    the distribution and the number of members M. To that end the interval is one of ranks: the truth has a rank r from
    0 (below all members) to M, each as likely as another, and rank r stands for the probabilities r/(M+1) to
    (r+1)/(M+1); it counts by the part of these that lies within (1 ± share)/2. For a share of 0.9 and M = 19, 39, …
    that is plain counting between two members, for 19 between the least and the greatest. With fewer than 19 members no
    two of them enclose 90 %: a truth outside all of them then counts in part, 0.15 for 16 members and 0.55 for 8, and a
    coverage is never less than that. Members that equal the truth share their ranks. Raises ValueError for fewer than
    two members.
    """
    members, t = _ensemble(ensemble, truth, scored, least=2)
    below, equal = (members < t).sum(0), (members == t).sum(0)
    ends = [round((1 + sign * share) / 2 * (len(members) + 1), 9) for sign in (-1, 1)]  # in ranks
    inside = torch.arange(len(members) + 2, device=t.device, dtype=torch.float64).clamp(*ends)
    counted = (inside[below + equal + 1] - inside[below]) / (equal + 1)
    known = torch.isfinite(members).all(0) & torch.isfinite(t)
    return counted.where(known, math.nan).mean((2, 3))


def central_interval(ensemble: Tensor, share: float = CENTRAL) -> tuple[Tensor, Tensor]:
    """The ends of an ensemble's central interval, for pictures: its (1 ± share)/2-quantiles, without the member axis.

    The p-quantile is the (M+1)p-th member in order, interpolated; at most the last, at least the first.
    """
    count, order = len(ensemble), ensemble.double().sort(0).values
    ends = []
    for level in ((1 - share) / 2, (1 + share) / 2):
        place = min(max((count + 1) * level - 1, 0.0), count - 1.0)
        low = math.floor(place)
        high = min(low + 1, count - 1)
        ends.append(order[low] + (place - low) * (order[high] - order[low]))
    return ends[0], ends[1]


def _ensemble(ensemble: Tensor, truth: Tensor, scored: Sequence[int], least: int = 1) -> tuple[Tensor, Tensor]:
    """The scored frames of an ensemble and its truth in float64, checked."""
    if ensemble.dim() != 5 or ensemble.shape[1:] != truth.shape or len(ensemble) < least:
        raise ValueError(
            f"ensemble {tuple(ensemble.shape)} must be (members, samples, frames, points, channels) with at least "
            f"{least} member{'s' if least > 1 else ''} of the truth's shape {tuple(truth.shape)}"
        )
    pairs = [_pair(member, truth, scored) for member in ensemble]
    return torch.stack([member for member, _ in pairs]), pairs[0][1]


# ---------------------------------------------------------------------------------------------------------------------
# Grids
# ---------------------------------------------------------------------------------------------------------------------
def boundary_points(fields: FieldSpec) -> Tensor:
    """Indices of the first and last points along every axis of a grid, ascending."""
    grid = _grid(fields)
    edge = torch.zeros(grid, dtype=torch.bool)
    for axis, count in enumerate(grid):
        edge.index_fill_(axis, torch.tensor([0, count - 1]), True)
    return edge.flatten().nonzero().flatten()


def shell_energies(values: Tensor, fields: FieldSpec) -> Tensor:
    """Squared amplitudes summed over shells of whole wave numbers, (S, F, N, C) -> (S, F, C, shells).

    Shell k holds the modes with ⌊|k|⌋ = k in units of one period per domain; k and −k count once. The last shell is
    the highest wave number that every axis carries; what lies beyond it (the spectrum's corners) belongs to it, too.
    """
    grid = _grid(fields)
    samples, frames, _, channels = values.shape
    fields_on_grid = values.double().movedim(3, 2).reshape(samples, frames, channels, *grid)
    axes = tuple(range(3, 3 + len(grid)))
    modes = torch.view_as_real(torch.fft.rfftn(fields_on_grid, dim=axes, norm="forward"))
    shell, weight = _shells(grid)
    flat: Tensor = modes.square().sum(-1).reshape(samples, frames, channels, -1) * weight.to(values.device)
    out = flat.new_zeros(samples, frames, channels, int(shell.max()) + 1)
    return out.index_add_(3, shell.to(values.device), flat)


def _shells(grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The shell of every mode of a real transform, and its weight: a half where the conjugate mode is stored as well.

    The last axis has wave numbers from 0 on. Conjugates are both stored where its number is its own conjugate, and are
    one mode where that holds along every axis.
    """
    numbers = [torch.fft.fftfreq(count, d=1 / count).round() for count in grid[:-1]]
    numbers.append(torch.arange(grid[-1] // 2 + 1, dtype=torch.float32))
    mesh = torch.meshgrid(*numbers, indexing="ij")
    magnitude = torch.stack([axis.square() for axis in mesh]).sum(0).sqrt()
    own = torch.stack([(2 * axis) % count == 0 for axis, count in zip(mesh, grid, strict=True)])
    shell = (magnitude + 1e-9).floor().long().clamp_max(min(count // 2 for count in grid))
    weight = torch.where(own[-1] & ~own.all(0), 0.5, 1.0).double()
    return shell.flatten(), weight.flatten()


def _grid(fields: FieldSpec) -> tuple[int, ...]:
    if fields.grid is None:
        raise ValueError(f"this metric needs a regular grid; the data are laid out as {fields.layout}")
    return fields.grid
