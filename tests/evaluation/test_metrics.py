"""Metrics on hand-made fields with known answers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ups_kit import metrics
from ups_kit.interfaces import Field, FieldSpec

POINTS = 64


def line(points: int = POINTS, periodic: bool = True) -> FieldSpec:
    return FieldSpec((Field("u"),), ((0.0, 1.0),), (periodic,), "grid", (points,), dt=0.1)


def waves(frames: int = 4, samples: int = 2) -> Tensor:
    """sin(2πx) with an offset of 3, the same in every frame: variance 1/2, mean square 9.5."""
    x = (torch.arange(POINTS) + 0.5) / POINTS
    return (3 + torch.sin(2 * math.pi * x)).expand(samples, frames, POINTS).unsqueeze(-1).clone()


def test_a_constant_error_has_known_values() -> None:
    truth = waves()
    prediction = truth + 0.5
    scored = range(1, 4)
    assert metrics.rmse(prediction, truth, scored).numpy() == pytest.approx(0.5, rel=1e-6)
    assert metrics.nrmse(prediction, truth, scored).numpy() == pytest.approx(0.5 / math.sqrt(9.5), rel=1e-6)
    assert metrics.vrmse(prediction, truth, scored).numpy() == pytest.approx(0.5 / math.sqrt(0.5 + 1e-7), rel=1e-6)
    assert metrics.max_error(prediction, truth, scored).numpy() == pytest.approx(0.5, rel=1e-6)
    assert metrics.crmse(prediction, truth, scored).numpy() == pytest.approx(0.5, rel=1e-6)
    assert metrics.brmse(prediction, truth, scored, line()).numpy() == pytest.approx(0.5, rel=1e-6)
    assert metrics.relative_l2(prediction, truth, scored).numpy() == pytest.approx(0.5 / math.sqrt(9.5), rel=1e-6)
    assert metrics.frmse_low(prediction, truth, scored, line()).numpy() == pytest.approx(0.5 / 5, rel=1e-6)
    assert metrics.frmse_mid(prediction, truth, scored, line()).numpy() == pytest.approx(0, abs=1e-7)
    assert metrics.rmse(prediction, truth, scored).shape == (2, 3)


@pytest.mark.parametrize(
    ("number", "band"),
    [(2, "frmse_low"), (4, "frmse_low"), (5, "frmse_mid"), (12, "frmse_mid"), (13, "frmse_high"), (32, "frmse_high")],
)
def test_a_wave_of_error_falls_into_its_band(number: int, band: str) -> None:
    truth = waves()
    x = torch.arange(POINTS) / POINTS
    prediction = truth + torch.cos(2 * math.pi * number * x)[:, None]
    errors = metrics.band_errors(prediction, truth, range(1, 4), line())
    amplitude = 1.0 if number == POINTS // 2 else 0.5  # at the highest wave number both signs are one mode
    width = {"frmse_low": 5, "frmse_mid": 8, "frmse_high": 20}[band]
    assert errors[band].numpy() == pytest.approx(amplitude / width, rel=1e-5)
    assert all(error.max() < 1e-6 for name, error in errors.items() if name != band)


def test_shells_keep_the_energy_of_a_square_grid() -> None:
    fields = FieldSpec((Field("u"),), ((0.0, 1.0),) * 2, (True,) * 2, "grid", (8, 12), dt=0.1)
    values = torch.randn(3, 2, 96, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shells = metrics.shell_energies(values, fields)
    spectrum = torch.fft.fft2(values.reshape(3, 2, 8, 12), norm="forward").abs().square()
    alone = spectrum[..., 0, 0] + spectrum[..., 4, 0] + spectrum[..., 0, 6] + spectrum[..., 4, 6]
    assert torch.allclose(shells.sum((2, 3)), (spectrum.sum((2, 3)) + alone) / 2)
    assert torch.allclose(shells[..., 0, 0], values.mean((2, 3)).square())


def test_perfect_given_frames_do_not_hide_a_bad_forecast() -> None:
    truth = waves(frames=10)
    garbage = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    forecast = garbage.clone()
    forecast[:, :5] = truth[:, :5]
    scored = metrics.forecast_frames(5, 10)
    assert torch.equal(metrics.nrmse(forecast, truth, scored), metrics.nrmse(garbage, truth, scored))
    assert metrics.nrmse(forecast, truth, range(10)).mean() < metrics.nrmse(forecast, truth, scored).mean()
    with pytest.raises(TypeError, match="scored"):
        metrics.nrmse(forecast, truth)  # type: ignore[call-arg]


def test_scored_frames_are_checked() -> None:
    truth = waves()
    with pytest.raises(ValueError, match="no frame"):
        metrics.rmse(truth, truth, range(0))
    with pytest.raises(ValueError, match=r"0\.\.3"):
        metrics.rmse(truth, truth, range(1, 5))
    with pytest.raises(ValueError, match="must both be"):
        metrics.rmse(truth[:, :, :, 0], truth[:, :, :, 0], range(1, 2))


def test_channels_of_different_size_count_alike_in_nrmse() -> None:
    truth = torch.cat([waves(), 1000 * waves()], -1)
    prediction = truth * torch.tensor([1.1, 1.3])
    assert metrics.nrmse(prediction, truth, range(4)).numpy() == pytest.approx(0.2, rel=1e-5)


def test_the_spatial_mean_scores_one_in_vrmse() -> None:
    truth = waves()
    flat = truth.mean(2, keepdim=True).expand_as(truth)
    assert metrics.vrmse(flat, truth, range(4)).numpy() == pytest.approx(1.0, rel=1e-5)


def test_correlation_time_is_the_first_time_under_the_threshold() -> None:
    x = torch.arange(POINTS) / POINTS
    truth = torch.sin(2 * math.pi * x).expand(1, 6, POINTS).unsqueeze(-1)
    shift = torch.tensor([0.0, 0.0, 0.05, 0.09, 0.11, 0.3])  # cos(2π · 0.1024) = 0.8
    shifted = torch.sin(2 * math.pi * (x[None] - shift[:, None]))[None, :, :, None]
    times = torch.linspace(0, 2.5, 6)
    assert metrics.correlation_time(shifted, truth, range(1, 6), times).item() == pytest.approx(2.0)
    assert metrics.correlation_time(truth, truth, range(1, 6), times).item() == pytest.approx(2.5)
    assert metrics.correlation_time(torch.zeros_like(truth), truth, range(1, 6), times).item() == pytest.approx(0.5)


def test_constant_fields_correlate_only_with_themselves() -> None:
    truth = torch.full((1, 2, POINTS, 1), 2.0)
    assert metrics.correlation(truth, truth, range(2)).min() == 1
    assert metrics.correlation(truth + 1, truth, range(2)).max() == 0


def test_geometric_mean_takes_at_most_a_hundred_frames() -> None:
    truth = torch.ones(1, 121, POINTS, 1)
    forecast = truth.clone()
    forecast[:, 1:51] += 0.01
    forecast[:, 51:101] += 1.0
    forecast[:, 101:] += 1e6
    assert metrics.geometric_mean_nrmse(forecast, truth, range(1, 121)) == pytest.approx(0.1, rel=1e-3)


def test_single_precision_input_is_computed_in_double() -> None:
    truth = torch.full((1, 1, 4096, 1), 1e4)
    prediction = truth + 1
    assert metrics.rmse(prediction, truth, [0]).dtype == torch.float64
    assert metrics.rmse(prediction, truth, [0]).item() == 1.0


def test_boundary_points_of_a_square_grid_are_its_rim() -> None:
    fields = FieldSpec((Field("u"),), ((0.0, 1.0),) * 2, (True, False), "grid", (4, 5), dt=0.1)
    rim = metrics.boundary_points(fields)
    assert len(rim) == 4 * 5 - 2 * 3
    with pytest.raises(ValueError, match="regular grid"):
        metrics.boundary_points(FieldSpec((Field("u"),), ((0.0, 1.0),), (True,), "mesh", None, dt=0.1))
