"""The stage `evaluate` in two dimensions, between walls, and with several fields."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ups_kit.errors import DataError
from ups_kit.interfaces import Field, FieldSpec, Latent
from ups_plugins.grid.dataset import GridDataset
from ups_plugins.upt.evaluation import autoregression, floors
from ups_plugins.upt.evaluation.card import make_card
from ups_plugins.upt.evaluation.config import EvaluateConfig
from ups_plugins.upt.evaluation.interpolation import Interpolation
from ups_plugins.upt.evaluation.measurement import measure
from ups_plugins.upt.evaluation.modes import Modes
from ups_plugins.upt.evaluation.scores import score
from ups_plugins.upt.evaluation.truth import Truth, read_truth

from .conftest import run
from .data import SIZE, heat, keeping

Make = Callable[..., Any]
TOKENS = Latent(torch.zeros(1, 16, 4), None)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> GridDataset:
    return heat(tmp_path_factory.mktemp("data") / "heat.h5")


@pytest.fixture
def truth(dataset: GridDataset) -> Truth:
    return read_truth(dataset, "test", None)


@pytest.mark.parametrize("periodic", [(True, True), (False, True), (True, False), (False, False)])
@pytest.mark.parametrize("grid", [(6, 5), (5, 6)])
def test_modes_come_back_as_fields(periodic: tuple[bool, bool], grid: tuple[int, int]) -> None:
    modes = Modes(grid, periodic)
    values = torch.randn(3, 30, 2, generator=torch.Generator().manual_seed(0))
    spectrum = modes.forward(values)
    assert spectrum.shape == (3, modes.count, 2)
    assert spectrum.dtype == modes.dtype
    assert torch.allclose(modes.back(spectrum), values, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_law_that_is_periodic_in_one_axis_alone_is_exact(axis: int) -> None:
    """Shift along the periodic axis, diffusion between walls along the other."""
    periodic = (axis == 0, axis == 1)
    fields = FieldSpec((Field("u"),), ((0.0, 1.0),) * 2, periodic, "grid", (8, 6), 0.1)
    frames = [torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(0)).double()]
    for _ in range(5):
        moved, wall = frames[-1].roll(1, 1 + axis), 2 - axis
        padded = torch.cat([moved.narrow(wall, 0, 1), moved, moved.narrow(wall, moved.shape[wall] - 1, 1)], wall)
        frames.append(moved + 0.2 * padded.diff(dim=wall).diff(dim=wall))
    values = torch.stack(frames, 1).reshape(4, 6, 48, 1)
    found = autoregression.fit_modes(values, fields)
    assert torch.allclose(found.rollout(values[:, :1], 5).double(), values[:, 1:], atol=1e-5)


def test_linear_autoregression_is_exact_for_heat_between_walls(dataset: GridDataset, truth: Truth) -> None:
    assert truth.fields.periodic == (False, False)
    found = floors.prepare(truth, dataset, TOKENS)
    law = found.forecasts["linear_autoregression"](truth)
    assert score(law.rollout, truth, True).mean < 1e-5
    assert score(law.one_step, truth, False).mean < 1e-5
    assert score(floors.persistence(truth).rollout, truth, True).vrmse.mean() > 1
    assert found.remarks["linear autoregression"].startswith("one matrix over fields per cosine mode, fitted on 9 ")


def test_fields_get_laws_of_their_own_where_a_joint_one_is_too_large(
    truth: Truth, dataset: GridDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoregression, "LARGEST_FIT", 0)
    found = floors.prepare(truth, dataset, TOKENS)
    assert "one factor for every field" in found.remarks["linear autoregression"]
    law = found.forecasts["linear_autoregression"](truth)  # these fields do not mix, so it is still exact
    assert score(law.rollout, truth, True).mean < 1e-5


def test_few_trajectories_are_read_where_they_are_large(dataset: GridDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoregression, "FIT_VALUES", 6 * 9 * SIZE**2 * 2)
    assert len(autoregression.train_trajectories(dataset, 9)) == 6
    monkeypatch.setattr(autoregression, "FIT_VALUES", 0)
    assert len(autoregression.train_trajectories(dataset, 9)) == autoregression.LEAST_TRAJECTORIES


def test_train_trajectories_without_a_step_say_so(waves: Make) -> None:
    with pytest.raises(DataError, match=r"has 7 trajectories of 1 frames.*at least 2"):
        autoregression.train_trajectories(waves(frames=1), 5)


@pytest.mark.parametrize(("tokens", "anchors"), [(16, None), (6, (3, 2)), (4, (2, 2))])
def test_interpolation_between_walls_is_exact_for_bilinear_fields(tokens: int, anchors: tuple[int, ...] | None) -> None:
    fields = FieldSpec((Field("u"),), ((0.0, 1.0),) * 2, (False, False), "grid", (9, 7), 0.1)
    x, y = torch.meshgrid(torch.arange(9.0), torch.arange(7.0), indexing="ij")
    values = (1 + 2 * x - 3 * y + 0.5 * x * y).reshape(1, 1, 63, 1)
    through = Interpolation(fields, Latent(torch.zeros(1, tokens, 4), None, anchors))
    assert through(values).numpy() == pytest.approx(values.numpy(), abs=1e-4)


def test_errors_of_each_field_are_their_own(dataset: GridDataset, truth: Truth) -> None:
    damaged = truth.values * torch.tensor([1.1, 1.3])
    found = score(damaged, truth, True).summary
    assert found["nrmse/a"] == pytest.approx(0.1, rel=1e-4)
    assert found["nrmse/b"] == pytest.approx(0.3, rel=1e-4)
    assert found["nrmse"] == pytest.approx(0.2, rel=1e-4)
    variance = truth.values[:, 1:].double().var(2, correction=0)
    size = truth.values[:, 1:].double().square().mean(2)
    expected = (0.01 * size / (variance + 1e-7)).sqrt()[..., 0].mean().item()
    assert found["vrmse/a"] == pytest.approx(expected, rel=1e-4)


def test_a_field_of_two_channels_is_their_mean(truth: Truth) -> None:
    from attrs import evolve

    vector = evolve(truth, fields=evolve(truth.fields, targets=(Field("v", 2),)))
    found = score(truth.values * torch.tensor([1.1, 1.3]), vector, True).summary
    assert "nrmse/v" not in found  # one field alone is the mean itself
    assert found["nrmse"] == pytest.approx(0.2, rel=1e-4)


def test_spectra_of_two_fields_keep_their_energy(dataset: GridDataset, experiment: Make) -> None:
    measured = measure(experiment(dataset, keeping(dataset.fields, 0.5)), EvaluateConfig(batch=2))
    assert measured.spectra is not None
    energies, truth = measured.spectra.energies, measured.truth
    assert set(energies) == {"truth", "latent rollout", "re-encoded rollout"}
    assert measured.spectra.fields == ("a", "b")
    assert energies["truth"].shape[:2] == (3, 2)
    last = truth.values[:, -1].double()
    spectrum = np.abs(np.fft.fft2(last.reshape(-1, SIZE, SIZE, 2).numpy(), axes=(1, 2), norm="forward")) ** 2
    assert energies["truth"][2, :, 0] == pytest.approx(spectrum[:, 0, 0].mean(0), rel=1e-5)
    shell = spectrum[:, 1, 0] + spectrum[:, 0, 1] + spectrum[:, 1, 1] + spectrum[:, 1, -1]  # ⌊|k|⌋ = 1, k and −k once
    assert energies["truth"][2, :, 1] == pytest.approx(shell.mean(0), rel=1e-5)


def test_trajectories_are_limited_evenly(dataset: GridDataset, experiment: Make) -> None:
    everything = read_truth(dataset, "test", None)
    some = read_truth(dataset, "test", None, 3)
    assert torch.equal(some.values, everything.values[[0, 2, 4]])
    measured = measure(experiment(dataset, keeping(dataset.fields)), EvaluateConfig(trajectories=2, steps=4))
    assert measured.truth.values.shape[:2] == (2, 5)
    assert read_truth(dataset, "test", None, 100).samples == 5


def test_the_report_of_two_fields(dataset: GridDataset, experiment: Make, tmp_path: Path, capsys: Any) -> None:
    result, folder, told = run(experiment(dataset, keeping(dataset.fields, 0.99)), tmp_path)
    rollout = result["metrics"]["latent_rollout"]
    assert rollout["nrmse"] == pytest.approx((rollout["nrmse/a"] + rollout["nrmse/b"]) / 2)
    assert "nrmse/a" in result["floors"]["persistence"]["one_step"]
    page, printed = folder.report.read_text(), capsys.readouterr().out
    assert "<td>" + f"{rollout['nrmse/b']:.4g}" + "</td>" in page
    assert "nRMSE of each field (whole rollout)" in page
    assert "nRMSE of each field (whole rollout)" in printed
    assert max(map(len, printed.splitlines())) <= 80
    pictures = {name for kind, name in told if kind == "figure"}
    assert {"fields_median", "sample_median", "spectra", "budget"} <= pictures
    assert page.count("data:image/png;base64,") == len(pictures)


def test_many_fields_are_shown_in_lines_of_five(dataset: GridDataset, experiment: Make, capsys: Any) -> None:
    from attrs import evolve

    from ups_plugins.upt.evaluation.printing import print_card

    measured = measure(experiment(dataset, keeping(dataset.fields)), EvaluateConfig())
    card = make_card(measured, EvaluateConfig())
    names = tuple(f"quantity_{number}" for number in range(7))
    rows = tuple(evolve(line, values=(0.123456,) * 7) for line in card.by_field)
    print_card(evolve(card, fields=names, by_field=rows))
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
    assert max(map(len, printed.splitlines())) <= 80
    assert not math.isnan(measured.latent.mean)
