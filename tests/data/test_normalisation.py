"""Statistics of train data, there and back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from ups_kit import DataError, Field, FieldSpec
from ups_kit.data.normalisation import Moments, Normaliser, central_half

FIELDS = FieldSpec(
    targets=(Field("u"), Field("v", channels=2)),
    statics=(Field("depth"),),
    domain=((0.0, 1.0),),
    periodic=(True,),
    layout="grid",
    grid=(16,),
    dt=0.1,
    conditions=("dt", "epsilon", "beta"),
)


def normaliser(seed: int = 0) -> tuple[Normaliser, torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(seed)
    targets = generator.normal(size=(10, 5, 16, 3)) * [1.0, 30.0, 1e-3] + [5.0, 0.0, -2.0]
    statics = generator.uniform(1, 9, size=(10, 16, 1))
    conditions = np.stack([np.full(10, 0.1), np.geomspace(1e-3, 1e-1, 10), np.linspace(1, 2, 10)], 1)
    fitted = Normaliser.fitted(FIELDS, Moments.of(targets).merged(), conditions, Moments.of(statics).merged())
    return fitted, torch.from_numpy(targets), torch.from_numpy(conditions)


def test_round_trip() -> None:
    fitted, targets, _ = normaliser()
    values = targets.float()
    torch.testing.assert_close(fitted.physical(fitted.targets(values)), values, rtol=1e-6, atol=1e-6)


def test_train_data_have_mean_0_and_deviation_1() -> None:
    fitted, targets, conditions = normaliser()
    normalised = fitted.targets(targets)
    torch.testing.assert_close(normalised.mean((0, 1, 2)), torch.zeros(3).double(), rtol=0, atol=1e-4)
    torch.testing.assert_close(normalised.std((0, 1, 2), correction=0), torch.ones(3).double(), rtol=1e-4, atol=0)
    seen = fitted.condition(conditions)
    torch.testing.assert_close(seen.mean(0), torch.zeros(3), rtol=0, atol=1e-6)
    torch.testing.assert_close(seen.std(0, correction=0), torch.tensor([0.0, 1.0, 1.0]), rtol=1e-6, atol=0)


def test_a_wide_positive_parameter_is_seen_by_its_logarithm() -> None:
    fitted, _, conditions = normaliser()
    assert fitted.condition_log == (False, True, False)
    steps = fitted.condition(conditions)[:, 1].diff()
    torch.testing.assert_close(steps, steps[:1].expand(9), rtol=1e-4, atol=0)


def test_a_constant_parameter_is_0_whatever_it_is_later() -> None:
    fitted, _, _ = normaliser()
    assert fitted.condition(torch.tensor([[0.7, 0.01, 1.5]]))[0, 0] == 0


def test_survives_json() -> None:
    fitted, _, _ = normaliser()
    assert Normaliser.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted


def test_merging_moments_equals_one_pass() -> None:
    values = np.random.default_rng(1).normal(1000, 1e-2, size=(12, 7, 3))
    merged = Moments.stacked([Moments.of(values[:5]), Moments.of(values[5:])]).merged()
    flat = values.reshape(-1, 3)
    np.testing.assert_allclose(merged.mean, flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(np.sqrt(merged.squares / merged.count), flat.std(0), rtol=1e-9)
    np.testing.assert_array_equal((merged.low, merged.high), (flat.min(0), flat.max(0)))


def test_a_constant_field_is_named() -> None:
    targets = np.random.default_rng(0).normal(size=(4, 5, 3))
    targets[..., 2] = 7
    with pytest.raises(DataError, match=r"field 'v\[1\]' is 7 everywhere: normalisation would divide by 0"):
        Normaliser.fitted(FIELDS, Moments.of(targets).merged(), np.ones((4, 3)))


# ---------------------------------------------------------------------------------------------------------------------
# Kinds of normalisation
# ---------------------------------------------------------------------------------------------------------------------
def blocks_of(values: np.ndarray, size: int = 997) -> Any:
    return lambda: (values[start : start + size] for start in range(0, len(values), size))


def drawn_values(kind: str) -> np.ndarray:
    generator = np.random.default_rng(3)
    if kind == "normal":
        return generator.normal(5.0, 2.0, (20_001, 2)).astype(np.float32)
    if kind == "far outliers":
        values = generator.normal(size=(20_001, 2))
        values[:3] = [[1e9, -1e8], [-3e9, 1e7], [2e9, 1e9]]
        return values
    if kind == "skewed":
        return np.exp(3 * generator.normal(size=(20_001, 2)))
    return generator.choice([0.0, 1.0, 1.5, 4.0], size=(20_001, 2))


@pytest.mark.parametrize("kind", ["normal", "far outliers", "skewed", "few values"])
def test_the_central_half_is_numpys_in_passes_over_blocks(kind: str) -> None:
    values = drawn_values(kind)
    passes = 0

    def counted() -> Any:
        nonlocal passes
        passes += 1
        return blocks_of(values)()

    found = central_half(counted, values.min(0), values.max(0))
    quartiles = np.quantile(values.astype(np.float64), (0.25, 0.75), axis=0)
    apart = quartiles[1] - quartiles[0]
    np.testing.assert_allclose(found.quartiles, quartiles, atol=2e-3 * apart.max())
    for channel in range(2):
        column = values[:, channel].astype(np.float64)
        inner = column[(column >= quartiles[0, channel]) & (column <= quartiles[1, channel])]
        assert found.mean[channel] == pytest.approx(inner.mean(), abs=5e-3 * apart[channel])
        assert found.std[channel] == pytest.approx(inner.std(), rel=5e-3)
    assert passes <= {"normal": 2, "skewed": 3}.get(kind, 5)


def test_each_field_has_the_normalisation_that_is_named() -> None:
    generator = np.random.default_rng(0)
    targets = generator.exponential(size=(6, 40, 3)) * [1.0, 10.0, 0.1] + [0.0, 5.0, 1.0]
    statics = generator.uniform(1, 9, size=(6, 40, 1))
    moments, given = Moments.of(targets).merged(), Moments.of(statics).merged()
    half = central_half(blocks_of(targets.reshape(-1, 3)), moments.low, moments.high)
    kinds = {"u": "range", "v": "robust", "depth": "none"}
    central = {"v": half[slice(1, 3)]}
    fitted = Normaliser.fitted(FIELDS, moments, np.ones((6, 3)), given, kinds, central)
    seen = fitted.targets(torch.from_numpy(targets))
    assert float(seen[..., 0].min()) == pytest.approx(-1, abs=1e-5)
    assert float(seen[..., 0].max()) == pytest.approx(1, abs=1e-5)
    for channel in (1, 2):
        column = seen[..., channel].numpy()
        low, high = np.quantile(column, (0.25, 0.75))
        inner = column[(column >= low) & (column <= high)]
        assert (inner.mean(), inner.std()) == (pytest.approx(0, abs=0.02), pytest.approx(1, abs=0.02))
    torch.testing.assert_close(fitted.statics(torch.from_numpy(statics)), torch.from_numpy(statics))
    torch.testing.assert_close(fitted.physical(seen), torch.from_numpy(targets), rtol=1e-6, atol=1e-6)
    plain = Normaliser.fitted(FIELDS, moments, np.ones((6, 3)), given, "none")
    torch.testing.assert_close(plain.targets(torch.from_numpy(targets)), torch.from_numpy(targets))


def test_a_field_that_hardly_varies_is_named_with_what_to_do() -> None:
    targets = np.zeros((4, 50, 3))
    targets[:, :5] = np.random.default_rng(0).normal(size=(4, 5, 3))
    moments = Moments.of(targets).merged()
    half = central_half(blocks_of(targets.reshape(-1, 3)), moments.low, moments.high)
    with pytest.raises(DataError, match=r"half of the values of the field 'u' are 0: .* expected .*u = 'standard'"):
        Normaliser.fitted(FIELDS, moments, np.ones((4, 3)), None, {"u": "robust"}, {"u": half[slice(0, 1)]})
    constant = Moments.of(np.full((4, 50, 3), 2.0)).merged()
    with pytest.raises(DataError, match=r"'u' is 2 everywhere.*normalisation\.u = 'none'") as raised:
        Normaliser.fitted(FIELDS, constant, np.ones((4, 3)), None, "range")
    assert raised.value.key == "normalisation"
    assert Normaliser.fitted(FIELDS, constant, np.ones((4, 3)), None, "none").target_std == (1, 1, 1)


def test_moments_of_parts_of_samples_are_those_of_the_samples() -> None:
    values = np.random.default_rng(2).normal(3, 2, size=(5, 9, 4, 2))
    parts = Moments.over([Moments.of(values[:, :4]), Moments.of(values[:, 4:5]), Moments.of(values[:, 5:])])
    whole = Moments.of(values)
    for name in ("count", "mean", "squares", "low", "high"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12)
