"""The audit of stored trajectories: sound ones pass, wrong parameters and altered values do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from attrs import evolve, field, frozen

from ups_kit import DataError
from ups_kit.interfaces import AuditsPhysics
from ups_plugins.simulators.config import (
    Advection1DConfig,
    Burgers1DConfig,
    Darcy2DConfig,
    DiffusionReaction1DConfig,
    DiffusionReaction2DConfig,
    KdV1DConfig,
    KS1DConfig,
    NavierStokes2DConfig,
    ShallowWater2DConfig,
)

Numbers = Mapping[str, np.ndarray]


@frozen
class Case:
    """A simulator, and by what factor one of its parameters is wrong."""

    config: Any
    parameter: str | None
    factor: float = 1.5
    scaling: float = 1.3
    targets: int = 1
    rounding: float = 2e-5  # what the residual of sound data is below; more where the audit has less than the solver
    values: np.ndarray = field(init=False, eq=False)
    times: np.ndarray = field(init=False, eq=False)
    parameters: Numbers = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        solved = self.config.build().solve(0, self.config.trajectories, lambda share: None)
        fields = next(solved[name] for name in ("data", "velocity", "tensor") if name in solved)
        fields = fields[..., None] if "tensor" in solved else fields
        for name in ("nu", "force"):
            if name in solved and solved[name].ndim > 1:
                static = solved[name].reshape(len(fields), 1, *fields.shape[2:-1], -1)
                fields = np.concatenate([fields, np.broadcast_to(static, (*fields.shape[:-1], static.shape[-1]))], -1)
        frames = fields.shape[1]
        object.__setattr__(self, "values", fields)
        object.__setattr__(self, "times", np.arange(frames) * getattr(self.config, "duration", 0) / max(frames - 1, 1))
        object.__setattr__(self, "parameters", {name: each for name, each in solved.items() if each.ndim == 1})

    def audit(self, values: np.ndarray, parameters: Numbers) -> tuple[Numbers, np.ndarray]:
        """The numbers, and which trajectories are within all tolerances."""
        simulator = self.config.build()
        assert isinstance(simulator, AuditsPhysics)
        found = simulator.audit(values, self.times, parameters)
        assert set(found) == set(simulator.tolerances)
        return found, np.all([found[name] < limit for name, limit in simulator.tolerances.items()], 0)


KEYS: dict[str, Any] = {"trajectories": 4, "device": "cpu"}
CASES: dict[str, dict[str, Any]] = {
    "advection1d": {"config": Advection1DConfig(points=128, frames=9, **KEYS), "parameter": "beta", "rounding": 0.05},
    "burgers1d": {
        "config": Burgers1DConfig(points=128, frames=9, duration=0.4, epsilon=0.05, **KEYS),
        "parameter": "epsilon",
        "factor": 3.0,
        "scaling": 1.6,
        "rounding": 0.1,
    },
    "diffusion_reaction1d": {"config": DiffusionReaction1DConfig(points=64, frames=9, **KEYS), "parameter": "rho"},
    "kdv1d": {"config": KdV1DConfig(frames=9, duration=8.0, **KEYS), "parameter": "delta"},
    "ks1d": {"config": KS1DConfig(frames=9, duration=4.0, warmup=5.0, **KEYS), "parameter": "nu"},
    "darcy2d": {"config": Darcy2DConfig(points=32, beta=(0.1, 10.0), **KEYS), "parameter": "beta"},
    "diffusion_reaction2d": {
        "config": DiffusionReaction2DConfig(points=32, frames=6, duration=1.0, k=(0.02, 0.1), **KEYS),
        "parameter": "k",
        "targets": 2,
    },
    "shallow_water2d": {
        "config": ShallowWater2DConfig(points=32, frames=6, **KEYS),
        "parameter": None,
        "rounding": 0.05,
    },
    "navier_stokes2d": {
        "config": NavierStokes2DConfig(points=32, frames=6, duration=0.3, nu=5e-3, **KEYS),
        "parameter": "nu",
        "targets": 2,
    },
    "navier_stokes2d, forced": {
        "config": NavierStokes2DConfig(
            points=32, frames=6, duration=0.3, forcing="kolmogorov", store="vorticity", **KEYS
        ),
        "parameter": "nu",
    },
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(**request.param)


def test_sound_data_pass(case: Case) -> None:
    found, sound = case.audit(case.values, case.parameters)
    assert sound.all(), found
    assert found["residual"].max() < case.rounding, found


def test_a_wrong_parameter_fails(case: Case) -> None:
    if case.parameter is None:
        pytest.skip("the depth's equation has no parameter")
    wrong = {**case.parameters, case.parameter: case.parameters[case.parameter] * [1, case.factor, 1, 1]}
    found, sound = case.audit(case.values, wrong)
    assert list(sound) == [True, False, True, True], found


def test_altered_values_fail(case: Case) -> None:
    """One trajectory is scaled from its middle on, or whole where there is no time."""
    altered = case.values.copy()
    altered[2, altered.shape[1] // 2 :, ..., : case.targets] *= case.scaling
    found, sound = case.audit(altered, case.parameters)
    assert list(sound) == [True, True, False, True], found


def test_a_scaled_trajectory_fails(case: Case) -> None:
    if isinstance(case.config, Advection1DConfig):
        pytest.skip("the equation is linear and has no source: what is scaled solves it as well")
    altered = case.values.copy()
    altered[0, ..., : case.targets] *= case.scaling
    found, sound = case.audit(altered, case.parameters)
    assert list(sound) == [False, True, True, True], found


def test_parameters_that_are_missing() -> None:
    case = Case(**CASES["advection1d"])
    with pytest.raises(DataError, match="needs 'beta' of every trajectory, and the data do not have it"):
        case.audit(case.values, {})
    fixed = Case(evolve(case.config, beta=0.5), None)
    assert fixed.audit(fixed.values, {})[1].all()
