"""The drift of integrals that are known, and what lies below zero."""

from __future__ import annotations

import math

import pytest
import torch

from ups_kit import Field, LatentSpec
from ups_plugins.physics.config import ConservationConfig, PositivityConfig

from .seeing import cell_centres, look, spec, value

ONE = {"targets": (Field("u"),)}


def wave(shift: float = 0.0, points: int = 32) -> torch.Tensor:
    """2 + sin of one period, shifted, at cell centres of [0, 2], (N, 1)."""
    places = cell_centres((points,), ((0.0, 2.0),))
    return 2 + torch.sin(math.pi * (places - shift))


def frames(*each: torch.Tensor) -> torch.Tensor:
    """Fields (N, C) as the frames of one sample, (1, frames, N, C)."""
    return torch.stack(each)[None].double()


@pytest.mark.parametrize("of", ["mass", "momentum", "energy"])
@pytest.mark.parametrize("against", ["start", "truth"])
def test_a_wave_that_travels_keeps_all(of: str, against: str) -> None:
    fields = spec((32,), **ONE)
    seen = look(fields, frames(wave(), wave(0.3)), std=[0.7], mean=[2.0])
    assert value(ConservationConfig(of=of, against=against), fields, seen) < 1e-20


def test_the_drift_of_a_mass_is_in_units_of_the_deviation() -> None:
    fields = spec((32,), **ONE)
    seen = look(fields, frames(wave(), wave(0.3) + 0.5), frames(wave(), wave(0.3)), std=[0.25], mean=[9.0])
    assert value(ConservationConfig(), fields, seen) == pytest.approx((0.5 / 0.25) ** 2)
    assert value(ConservationConfig(of="momentum", field="u"), fields, seen) == pytest.approx(4.0)


def test_the_drift_of_an_energy_is_over_the_truth() -> None:
    """Twice the field has four times the energy; scale² = mean (u²/2)² + 0.01 (s²/2)²."""
    fields, std = spec((32,), **ONE), 0.25
    seen = look(fields, frames(wave(), 2 * wave()), frames(wave(), wave()), std=[std], mean=[9.0])
    energy = wave().square() / 2
    scale = energy.square().mean() + 0.01 * (std**2 / 2) ** 2
    wanted = float((3 * energy.mean()) ** 2 / scale)
    assert value(ConservationConfig(of="energy"), fields, seen) == pytest.approx(wanted)


def test_start_and_truth_differ_where_the_truth_drifts() -> None:
    fields = spec((32,), **ONE)
    truth = frames(wave(), wave() + 0.1, wave() + 0.3)
    seen = look(fields, truth)
    for step, drift in ((1, 0.1), (2, 0.3)):
        assert value(ConservationConfig(step=step), fields, seen) == pytest.approx(drift**2)
        assert value(ConservationConfig(step=step, against="truth"), fields, seen) < 1e-20
    assert value(ConservationConfig(step=0), fields, seen) < 1e-20


def test_momentum_has_a_density_and_each_component_counts() -> None:
    fields = spec((8, 8))  # velocity (2), density
    generator = torch.Generator().manual_seed(0)
    before, after = torch.rand(2, 64, 3, generator=generator).double()
    seen = look(fields, frames(before, after), frames(before, before), std=[0.5, 0.1, 0.3], mean=[1.0, 2.0, 3.0])
    own, found = before[:, :2] * before[:, 2:], after[:, :2] * after[:, 2:]
    usual = torch.tensor([0.5, 0.1]) * before[:, 2:]
    scale = own.square().mean(0) + 0.01 * usual.square().mean(0)
    wanted = float(((found.mean(0) - own.mean(0)).square() / scale).mean())
    config = ConservationConfig(of="momentum", field="velocity", density="density")
    assert value(config, fields, seen) == pytest.approx(wanted)
    energy = [(each[:, 2] * each[:, :2].square().sum(1) / 2).double() for each in (before, after)]
    usual = before[:, 2] * (0.5**2 + 0.1**2) / 2
    scale = energy[0].square().mean() + 0.01 * usual.square().mean()
    wanted = float((energy[1].mean() - energy[0].mean()) ** 2 / scale)
    config = ConservationConfig(of="energy", field="velocity", density="density")
    assert value(config, fields, seen) == pytest.approx(wanted)


def test_samples_count_alike_however_many_points_they_have() -> None:
    fields = spec(None, False, dims=1, **ONE)
    places = torch.linspace(0, 1, 6).view(1, 6, 1).expand(2, -1, -1)
    mask = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    truth = torch.zeros(2, 2, 6, 1)
    found = truth.clone()
    found[0, 1, 0] = 6.0  # its mean is 1
    found[1, 1, 0] = 6.0  # its mean is 3
    found[1, 1, 3] = 100.0  # padding
    seen = look(fields, found, truth, places=places, mask=mask)
    assert value(ConservationConfig(), fields, seen) == pytest.approx((1 + 9) / 2)


def test_a_state_at_rest_does_not_divide_by_zero() -> None:
    fields = spec((8, 8))
    zero = torch.zeros(1, 2, 64, 3)
    for of in ("momentum", "energy"):
        config = ConservationConfig(of=of, field="velocity", density="density")
        assert value(config, fields, look(fields, zero)) == 0


@pytest.mark.parametrize(
    ("keys", "data", "wanted"),
    [
        ({}, {}, {"field": "missing key; name what is conserved (predicted: velocity (2 channels), density)"}),
        ({"of": "momentum", "field": "density"}, {}, {"field": "expected a vector of 2 components"}),
        ({"field": "masss"}, ONE, {"field": "no predicted field is called 'masss'"}),
        ({"of": "energy", "field": "velocity", "density": "velocity"}, {}, {"density": "one channel"}),
        ({"of": "energy", "field": "velocity", "density": "densit"}, {}, {"density": "did you mean 'density'"}),
        ({}, ONE | {"sampled": 5}, {"use": "an integral needs all points"}),
        ({}, ONE | {"history": 0}, {"against": "set against = 'truth'"}),
        ({"against": "truth"}, ONE | {"history": 0}, {}),
        ({"of": "energy"}, ONE | {"conditions": ("dt", "task:a")}, {"of": "a mixture's tasks"}),
        ({}, ONE | {"conditions": ("dt", "task:a")}, {}),
        ({"density": "density", "of": "energy"}, {}, {}),
    ],
)
def test_what_conservation_refuses(keys: dict, data: dict, wanted: dict[str, str]) -> None:
    found = dict(ConservationConfig(**keys).check(spec(**data), LatentSpec(8)))
    assert set(found) == set(wanted)
    for key, part in wanted.items():
        assert part in found[key]


def test_a_mass_has_no_density() -> None:
    with pytest.raises(ValueError, match="of momentum and energy alone"):
        ConservationConfig(density="density")


# ---------------------------------------------------------------------------------------------------------------------
# Positivity
# ---------------------------------------------------------------------------------------------------------------------
def test_only_what_is_below_counts() -> None:
    fields = spec((4,), **ONE)
    truth = torch.ones(1, 2, 4, 1)
    found = torch.tensor([-3.0, 0.0, 2.0, -1.0]).view(1, 1, 4, 1).repeat(1, 2, 1, 1)
    seen = look(fields, found, truth, std=[0.5], mean=[7.0])
    assert value(PositivityConfig(fields=("u",)), fields, seen) == pytest.approx((36 + 4) / 4)
    assert value(PositivityConfig(fields=("u",), minimum=-1.0), fields, seen) == pytest.approx(16 / 4)
    assert value(PositivityConfig(fields=("u",)), fields, look(fields, truth, truth, std=[0.5], mean=[7.0])) == 0


def test_other_fields_do_not_count() -> None:
    fields = spec((4, 4))
    found = torch.full((1, 2, 16, 3), -1.0)
    found[..., 2] = 1.0
    assert value(PositivityConfig(fields=("density",)), fields, look(fields, found)) == 0
    assert value(PositivityConfig(fields=("velocity",)), fields, look(fields, found)) == pytest.approx(1.0)


def test_what_positivity_refuses() -> None:
    found = dict(PositivityConfig(fields=("densty",)).check(spec(history=0), LatentSpec(8)))
    assert set(found) == {"fields"}
    assert "did you mean 'density'" in found["fields"]
    mixture = spec(conditions=("dt", "task:a"))
    assert dict(PositivityConfig(fields=("density",)).check(mixture, LatentSpec(8))).keys() == {"use"}
    with pytest.raises(ValueError, match="fields"):
        PositivityConfig(fields=())
