"""Floors on trajectories for which they are exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ups_kit.errors import DataError
from ups_kit.interfaces import Field, FieldSpec, Latent
from ups_plugins.upt.evaluation import floors
from ups_plugins.upt.evaluation.autoregression import fit_modes
from ups_plugins.upt.evaluation.interpolation import lattice, node_places, spline_matrix
from ups_plugins.upt.evaluation.scores import Score, score
from ups_plugins.upt.evaluation.truth import Truth, read_truth

Make = Callable[..., Any]


def forecast(name: str, truth: Truth, dataset: Any, tokens: int = 8) -> floors.Floor:
    """A floor of a data set, prepared for a latent of so many tokens."""
    return floors.prepare(truth, dataset, Latent(torch.zeros(1, tokens, 4), None)).forecasts[name](truth)


def through(truth: Truth, dataset: Any, tokens: int) -> Score:
    return score(forecast("interpolation", truth, dataset, tokens).rollout, truth, True)


def test_persistence_of_waves_at_rest_is_perfect(waves: Make) -> None:
    truth = read_truth(waves((0.0, 0.0)), "test", None)
    found = floors.persistence(truth)
    assert score(found.rollout, truth, True).mean == 0
    assert score(found.one_step, truth, False).mean == 0


def test_persistence_copies_the_last_given_frame(waves: Make) -> None:
    truth = read_truth(waves(history=3), "test", None)
    found = floors.persistence(truth)
    assert torch.equal(found.rollout[:, 3], truth.values[:, 2])
    assert torch.equal(found.rollout[:, -1], truth.values[:, 2])
    assert torch.equal(found.one_step[:, -1], truth.values[:, -2])


def test_the_spatial_mean_scores_one_in_vrmse(waves: Make) -> None:
    truth = read_truth(waves(offset=5.0), "test", None)
    found = score(floors.spatial_mean(truth).rollout, truth, True)
    assert found.vrmse.mean().item() == pytest.approx(1, abs=1e-4)
    assert found.mean < 0.5


@pytest.mark.parametrize("history", [1, 2])
def test_linear_autoregression_is_exact_for_one_speed(waves: Make, history: int) -> None:
    dataset = waves((0.7,) * 6, history=history, offset=1.0)
    truth = read_truth(dataset, "test", None)
    found = forecast("linear_autoregression", truth, dataset)
    assert score(found.one_step, truth, False).mean < 1e-5
    assert score(found.rollout, truth, True).mean < 1e-5
    assert score(floors.persistence(truth).rollout, truth, True).mean > 0.1


def test_linear_autoregression_is_one_filter_for_all_speeds(waves: Make) -> None:
    dataset = waves()
    truth = read_truth(dataset, "test", None)
    found = forecast("linear_autoregression", truth, dataset)
    assert score(found.rollout, truth, True).mean > 0.1


def test_linear_autoregression_mixes_channels_and_axes() -> None:
    """Two fields on a 6 × 5 grid that rotate into each other: exact, because a mode's law is a matrix."""
    fields = FieldSpec((Field("u"), Field("v")), ((0.0, 1.0),) * 2, (True,) * 2, "grid", (6, 5), 0.1)
    turn = torch.tensor([[0.8, 0.6], [-0.6, 0.8]])
    frames = [torch.randn(5, 30, 2, generator=torch.Generator().manual_seed(0))]
    for _ in range(6):
        frames.append(frames[-1].reshape(5, 6, 5, 2).roll(1, 2).reshape(5, 30, 2) @ turn)
    values = torch.stack(frames, 1)
    modes = fit_modes(values, fields)
    assert torch.allclose(modes.rollout(values[:, :1], 6), values[:, 1:], atol=1e-5)
    assert torch.allclose(modes.one_step(values), values[:, 1:], atol=1e-5)


def test_there_is_no_filter_without_a_grid(waves: Make) -> None:
    dataset = waves()
    dataset.fields = FieldSpec((Field("u"),), ((0.0, 1.0),), (True,), "mesh", None, 0.1, (), 1, ("dt", "speed"))
    truth = read_truth(dataset, "test", None)
    found = floors.prepare(truth, dataset, Latent(torch.zeros(1, 8, 4), None))
    assert set(found.forecasts) == {"persistence", "spatial_mean", "interpolation"}


def test_interpolation_through_all_points_is_the_truth(waves: Make) -> None:
    dataset = waves()
    assert through(read_truth(dataset, "test", None), dataset, 32).mean < 1e-6


def test_interpolation_gets_worse_with_fewer_tokens(waves: Make) -> None:
    dataset = waves()
    truth = read_truth(dataset, "test", None)
    errors = [through(truth, dataset, tokens).mean for tokens in (32, 16, 8, 5, 1)]
    assert errors == sorted(errors)
    assert errors[1] < 0.05
    assert errors[2] > 0.2


def test_splines_represent_cubics_and_wrap_around() -> None:
    points = np.arange(40.0)
    cubic = 1 + points - 0.3 * points**2 + 0.01 * points**3
    for nodes in (node_places(40, 10, True), node_places(40, 10, False)):
        assert spline_matrix(40, nodes, False).numpy() @ cubic[nodes] == pytest.approx(cubic, rel=1e-9)
    nodes = node_places(40, 10, True)
    moved = spline_matrix(40, nodes, True).numpy() @ np.roll(np.eye(40)[0], 6)[nodes]
    same = np.roll(spline_matrix(40, nodes, True).numpy() @ np.roll(np.eye(40)[0], 2)[nodes], 4)
    assert moved == pytest.approx(same, abs=1e-12)
    for count in (1, 2, 3):
        matrix = spline_matrix(40, node_places(40, count, True), True)
        assert matrix.sum(1).numpy() == pytest.approx(1)


def test_nodes_reach_both_ends_of_an_axis_that_does_not_wrap() -> None:
    assert node_places(40, 4, False).tolist() == [0, 13, 26, 39]
    assert node_places(40, 4, True).tolist() == [5, 15, 25, 35]
    assert node_places(40, 1, False).tolist() == [20]


@pytest.mark.parametrize(
    ("grid", "tokens", "anchors", "expected"),
    [
        ((256,), 64, None, (64,)),
        ((256,), 64, (32,), (32,)),
        ((64, 64), 256, None, (16, 16)),
        ((64, 64), 250, None, (15, 15)),
        ((8,), 512, None, (8,)),
        ((64, 32), 1, None, (1, 1)),
    ],
)
def test_interpolation_has_no_more_points_than_tokens(
    grid: tuple[int, ...], tokens: int, anchors: tuple[int, ...] | None, expected: tuple[int, ...]
) -> None:
    assert lattice(grid, tokens, anchors) == expected


def test_a_split_with_nothing_to_score_says_so(waves: Make) -> None:
    with pytest.raises(DataError, match="expected at least 14"):
        read_truth(waves(history=13), "test", None)
    with pytest.raises(DataError, match="nearest, steps = 12"):
        read_truth(waves(), "test", 40)
    with pytest.raises(DataError, match="holds no trajectory"):
        read_truth(waves(()), "test", None)
