"""Constraints in a model: what is decoded, where it is asked, what latents carry, and what stays as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from ups_kit import Batch, Field, FieldSpec, Latent, PluginError, PointSet, Progress, Queries
from ups_kit.batching import joined_latents, latent_part
from ups_kit.errors import UsageError
from ups_kit.fit.forward import LossTerm, compute_losses
from ups_kit.generating import Drawn, Noise
from ups_kit.model import LatentModel
from ups_plugins.physics.constraint_keys import DivergenceFreeConfig, TotalConfig
from ups_plugins.sampling.config import UniformConfig
from ups_plugins.upt.config import ForwardConfig

from .waves import constrained, frame, linear, places, spec

FLOW = spec((24, 18), (Field("p"), Field("velocity", 2)), (1.0, 2.5))
UNITS = linear((0.0, 1.0, -1.0), (2.0, 0.3, 5.0))
BOTH = (DivergenceFreeConfig(field="velocity"), TotalConfig(fields=("p", "velocity")))
WAVE = spec((64,), (Field("u"),))
CONDITION = torch.zeros(3, 1)


def whole(fields: FieldSpec, samples: int) -> Queries:
    return Queries(places(fields, samples).float(), fields.grid)


def scale(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


def drift(frames: list[Tensor], start: Tensor) -> float:
    """The largest change of a mean from that of the start, over the field's size."""
    wanted = start.double().mean(1)
    return max(float((values.double().mean(1) - wanted).abs().max()) / scale(start) for values in frames)


@pytest.mark.parametrize("reencoded", [False, True], ids=["latent", "reencoded"])
def test_forty_steps_in_float32_keep_the_total(reencoded: bool) -> None:
    found = []
    for configs in ((), (TotalConfig(fields=("u",)),)):
        model = constrained(WAVE, linear((0.0,), (1.0,)), *configs)
        points = frame(WAVE, 3)
        with torch.no_grad():
            if reencoded:
                frames = model.reencoded_rollout(points, CONDITION, 40)
            else:
                latents = model.rollout(model.encode(points, CONDITION), CONDITION, 40)
                frames = [model.decode(latent, whole(WAVE, 3)) for latent in latents]
        assert frames[-1].dtype == torch.float32
        found.append(drift(frames, points.values))
    assert found[0] > 0.1
    assert found[1] < 1e-7


@pytest.mark.parametrize("configs", [BOTH, BOTH[::-1]], ids=["total last", "total first"])
def test_a_point_has_its_value_whoever_else_is_asked(configs: tuple[DivergenceFreeConfig | TotalConfig, ...]) -> None:
    """On the grid or off it, alone, among others, on a finer grid, in any order: one function of space."""
    model, points = constrained(FLOW, UNITS, *configs), frame(FLOW, 3)
    latent = model.step(model.encode(points, CONDITION), CONDITION)
    asked = torch.rand(3, 40, 2, generator=torch.Generator().manual_seed(5)) * torch.tensor([1.0, 2.5]) - 0.4
    with torch.no_grad():
        dense = model.decode(latent, whole(FLOW, 3))
        same = model.decode(latent, Queries(places(FLOW, 3).float().flip(1))).flip(1)
        finer = model.decode(latent, Queries(places(FLOW, 3, (48, 36)).float(), (48, 36)))
        together = model.decode(latent, Queries(asked))
        alone = torch.cat([model.decode(latent, Queries(asked[:, [point]])) for point in range(40)], 1)
        unlike = constrained(FLOW, UNITS).decode(latent, Queries(asked))
    tolerance = {"atol": 1e-5 * scale(dense), "rtol": 0.0}
    torch.testing.assert_close(same, dense, **tolerance)
    torch.testing.assert_close(finer.reshape(3, 48, 36, 3)[:, ::2, ::2].reshape(dense.shape), dense, **tolerance)
    torch.testing.assert_close(alone, together, **tolerance)
    assert (together - unlike).abs().max() > 0.1 * scale(dense)
    assert drift([dense], points.values) < 1e-7


def test_queries_without_gradient_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, points = constrained(FLOW, UNITS, *BOTH), frame(FLOW, 3)
    latent, asked = model.encode(points, CONDITION), Queries(torch.rand(3, 50, 2))
    with torch.no_grad():
        at_once = model.decode(latent, asked)
        monkeypatch.setattr("ups_kit.model.QUERIES_TOGETHER", 16)
        torch.testing.assert_close(model.decode(latent, asked), at_once, atol=1e-5, rtol=0)


def test_gradients_reach_the_decoder_through_the_constraint() -> None:
    """The mean of a frame no longer depends on any weight; the rest of it does."""
    model, points = constrained(WAVE, linear((0.0,), (1.0,)), TotalConfig(fields=("u",))), frame(WAVE, 3)
    for queries in (whole(WAVE, 3), Queries(torch.rand(3, 7, 1))):
        values = model.decode(model.encode(points), queries)
        (own,) = torch.autograd.grad(values.square().mean(), [model.decoder.strength])
        assert own.abs().max() > 1e-3
    (none,) = torch.autograd.grad(model.decode(model.encode(points), whole(WAVE, 3)).mean(), [model.decoder.strength])
    assert none.abs().max() < 1e-6


def test_halves_of_a_precision_are_corrected_in_whole() -> None:
    model, points = constrained(FLOW, UNITS, *BOTH), frame(FLOW, 3)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        values = model.decode(model.encode(points), whole(FLOW, 3))
        elsewhere = model.decode(model.encode(points), Queries(places(FLOW, 3).float()))
    assert values.dtype == torch.float32
    assert drift([values], points.values) < 1e-7
    torch.testing.assert_close(elsewhere, values, atol=1e-5 * scale(values), rtol=0)


def test_latents_carry_totals_through_parts_and_joins() -> None:
    model, points = constrained(WAVE, linear((0.0,), (1.0,)), TotalConfig(fields=("u",))), frame(WAVE, 3)
    latent = model.encode(points)
    assert latent.totals is not None
    torch.testing.assert_close(latent.totals, points.values.double().mean(1))
    parts = [latent_part(latent, slice(0, 1)), latent_part(latent, slice(1, 3))]
    joined = joined_latents(parts)
    assert joined.totals is not None
    assert torch.equal(joined.totals, latent.totals)
    following = model.step(latent, CONDITION).totals
    assert following is not None
    assert torch.equal(following, latent.totals)


def test_a_history_is_measured_by_its_newest_frame() -> None:
    fields = FieldSpec(WAVE.targets, WAVE.domain, (True,), "grid", (64,), 0.1, (Field("a"),), history=3, offset=0.0)
    model, points = constrained(fields, linear((0.0,), (1.0,)), TotalConfig(fields=("u",))), frame(fields, 3)
    torch.testing.assert_close(model.encode(points).totals, points.values[..., 2:3].double().mean(1))


class Jump(torch.nn.Module):
    """A part that corrects, and hands nothing on but tokens."""

    shown, default = (1,), 1

    def correct(self, predicted: object, noise: Tensor, steps: int) -> object:
        return type(predicted)(predicted.tokens + noise, None)  # type: ignore[attr-defined, call-arg]


def test_a_drawn_step_keeps_the_total() -> None:
    model, points = constrained(WAVE, linear((0.0,), (1.0,)), TotalConfig(fields=("u",))), frame(WAVE, 3)
    drawn = Drawn(model, Jump(), 1, Noise(0, 0, (0, 1, 2)))
    with torch.no_grad():
        values = drawn.decode(drawn.step(drawn.encode(points, CONDITION), CONDITION), whole(WAVE, 3))
    assert drift([values], points.values) < 1e-7


def losses(model: LatentModel, batch: Batch, share: float | None) -> Tensor:
    sampler = None if share is None else UniformConfig(ratio=share)
    config = ForwardConfig(sampler=sampler)
    terms = [LossTerm("forward", config, config.build(model.fields))]
    return compute_losses(model, batch, terms, Progress(0, 0.0, 0.0), torch.Generator().manual_seed(0)).total


@pytest.mark.parametrize("share", [None, 0.25], ids=["dense", "sampled"])
def test_cached_latents_take_totals_from_the_batchs_fields(share: float | None) -> None:
    model, points = constrained(WAVE, linear((0.0,), (1.0,)), TotalConfig(fields=("u",))), frame(WAVE, 3)
    states = torch.randn(3, 2, 64, 1, generator=torch.Generator().manual_seed(1))
    batch = Batch(points, states, points.positions, WAVE.grid, CONDITION, torch.arange(3), torch.zeros(3))
    latents = tuple(model.encoder(PointSet(points.positions, states[:, step])) for step in range(2))
    bare = batch._replace(latents=(model.encoder(points), latents[1]))
    assert torch.equal(losses(model, batch, share), losses(model, bare, share))
    nowhere = PointSet(torch.empty(3, 0, 1), torch.empty(3, 0, 1))
    assert model.remember(latents[0], nowhere).totals is None


def test_what_cannot_be_kept_is_told() -> None:
    model, points = constrained(WAVE, linear((0.0,), (1.0,)), TotalConfig(fields=("u",))), frame(WAVE, 3)
    with pytest.raises(UsageError, match="these points are no grid, whose mean is no integral; give it a frame on a"):
        model.encode(points._replace(grid=None))
    with pytest.raises(PluginError, match="this latent was not made by encoding a frame"):
        model.decode(model.encode(points)._replace(totals=None), whole(WAVE, 3))
    given = constrained(WAVE, linear((0.0,), (1.0,)), TotalConfig(fields=("u",), value=0.5))
    values = given.decode(given.encode(points._replace(grid=None)), whole(WAVE, 3))
    assert values.mean().item() == pytest.approx(0.5)


def test_constraints_add_no_weights_and_no_draws() -> None:
    states = []
    for configs in ((), BOTH):
        model = constrained(FLOW, UNITS, *configs)
        states.append((set(model.state_dict()), torch.get_rng_state(), len(list(model.parameters()))))
        copy.deepcopy(model)
    assert states[0][0] == states[1][0]
    assert torch.equal(states[0][1], states[1][1])
    assert states[0][2] == states[1][2]
    plain, points = constrained(FLOW, UNITS), frame(FLOW, 3)
    asked = Queries(torch.rand(3, 7, 2))
    assert plain.encode(points).totals is None
    assert torch.equal(plain.decode(plain.encode(points), asked), plain.decoder(plain.encoder(points), asked))


class Decoding(torch.nn.Module):
    """What a model decodes, of tensors alone."""

    def __init__(self, model: LatentModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, totals: Tensor, asked: Tensor) -> Tensor:
        return self.model.decode(Latent(tokens, None, totals=totals), Queries(asked))


def test_a_constrained_decoder_is_a_graph_of_any_number_of_samples_and_queries() -> None:
    decoding = Decoding(constrained(FLOW, UNITS, *BOTH).requires_grad_(False))

    def arguments(samples: int, queries: int) -> tuple[Tensor, Tensor, Tensor]:
        latent = decoding.model.encode(frame(FLOW, samples))
        assert latent.totals is not None
        return latent.tokens, latent.totals, torch.rand(samples, queries, 2)

    batch, queries = torch.export.Dim("batch", min=1), torch.export.Dim("queries", min=1)
    shapes = ({0: batch}, {0: batch}, {0: batch, 1: queries})
    program = torch.export.export(decoding, arguments(3, 7), dynamic_shapes=shapes, strict=True).module()
    for samples, count in ((1, 1), (2, 300)):
        given = arguments(samples, count)
        torch.testing.assert_close(program(*given), decoding(*given), atol=1e-6, rtol=0)
