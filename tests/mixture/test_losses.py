"""The losses of a task in a mixture are to the bit those of the task alone, whatever other fields there are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ups_kit.channels import pick, spread
from ups_kit.fit.forward import LossTerm, compute_losses
from ups_kit.interfaces import Progress, Queries
from ups_kit.model import LatentModel
from ups_kit.weighting import Weighted
from ups_plugins.mixture.dataset import Mixture
from ups_plugins.sampling import UniformConfig
from ups_plugins.upt.config import (
    ForwardConfig,
    InverseDecodingConfig,
    InverseEncodingConfig,
    LatentForwardConfig,
    MeanPreservationConfig,
    RelativeConfig,
    RolloutConfig,
    SpectralConfig,
    TotalVariationConfig,
)

Build = Callable[..., LatentModel]
START = Progress(step=0, epoch=0.0, fraction=0.0)
LOSSES = {
    "forward": ForwardConfig(),
    "forward_relative": ForwardConfig(error="relative"),
    "sampled": ForwardConfig(error="relative", sampler=UniformConfig(queries=8)),
    "latent_forward": LatentForwardConfig(),
    "rollout": RolloutConfig(horizon=2, error="relative"),
    "relative": RelativeConfig(),
    "spectral": SpectralConfig(),
    "mean_preservation": MeanPreservationConfig(),
    "total_variation": TotalVariationConfig(),
    "inverse_encoding": InverseEncodingConfig(),
    "inverse_decoding": InverseDecodingConfig(step=1, share=0.5),
}


@pytest.mark.parametrize("task", ["burgers", "waves"])
def test_losses_equal_those_of_the_task_alone(mixture: Mixture, make_model: Build, task: str) -> None:
    model = make_model(mixture)
    first = mixture.tasks["burgers"].windows("train", 2) if task == "waves" else 0
    windows = np.array([1, 4, 9, 16])
    results = []
    for seen, batch, fields in (
        (model, mixture.batch("train", first + windows, 2), mixture.fields),
        (mixture.seen_by(task, model), mixture.tasks[task].batch("train", windows, 2), mixture.tasks[task].fields),
    ):
        terms = [LossTerm(name, Weighted(), config.build(fields)) for name, config in LOSSES.items()]
        found = compute_losses(seen, batch, terms, START, torch.Generator().manual_seed(0))
        results.append((found, torch.autograd.grad(found.total, list(model.parameters()), allow_unused=True)))
    (whole, gradients), (alone, others) = results
    assert {name: float(value) for name, value in whole.terms.items()} == {
        name: float(value) for name, value in alone.terms.items()
    }
    assert all(value > 0 for value in whole.terms.values())
    assert torch.equal(whole.total, alone.total)
    for one, other in zip(gradients, others, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:  # summed in another order
            torch.testing.assert_close(one, other)


def test_fields_that_a_task_has_not_neither_count_nor_dilute(mixture: Mixture, make_model: Build) -> None:
    model = make_model(mixture)
    batch = mixture.batch("train", np.arange(3), 1)
    term = LossTerm("forward", Weighted(), ForwardConfig().build(mixture.fields))
    found = compute_losses(model, batch, [term], START, torch.Generator().manual_seed(0))
    step = model.step(model.encode(batch.inputs), batch.condition)
    error = model.decode(step, Queries(batch.positions, batch.grid)) - batch.states[:, 1]
    assert error[..., 1].abs().max() > 1e-3, "the model says something about the other task's field"
    torch.testing.assert_close(found.total, error[..., 0].square().mean())
    gradient = torch.autograd.grad(found.total, model.decoder.linear.weight)[0].unflatten(0, (2, -1))  # type: ignore[arg-type]
    assert gradient[0].any()
    assert not gradient[1].any()


def test_channels_there_and_back() -> None:
    values = torch.randn(2, 5, 3)
    for channels in [(0, 1, 2), (1, 2, 3), (0, 2, 4), (4, 0, 3)]:
        wide = spread(values, channels, 5)
        assert torch.equal(pick(wide, channels), values)
        assert not wide[..., [channel for channel in range(5) if channel not in channels]].any()
    assert pick(values, None) is values
    assert pick(values, (0, 1, 2)) is values
    assert spread(values, (0, 1, 2), 3) is values
    assert spread(values[..., :0], (), 2).shape == (2, 5, 2)
