"""Statistics of train data, there and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ups_kit import DataError, Field, FieldSpec
from ups_kit.data.normalisation import Moments, Normaliser

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
