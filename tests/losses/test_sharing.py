"""What the losses share: how often each part is called, at which points, and that a weight of 0 is an absence."""

from __future__ import annotations

import pytest
import torch
from attrs import define

from ups_kit import Needs, Progress
from ups_kit.errors import PluginError
from ups_kit.fit.forward import LossTerm, compute_losses
from ups_kit.weighting import Weighted
from ups_plugins.sampling.config import StratifiedConfig, UniformConfig
from ups_plugins.upt import config as upt

HALF = UniformConfig(ratio=0.5)
ALL = (
    upt.ForwardConfig(),
    upt.LatentForwardConfig(),
    upt.RolloutConfig(horizon=3),
    upt.RelativeConfig(),
    upt.SpectralConfig(),
    upt.MeanPreservationConfig(),
    upt.TotalVariationConfig(),
    upt.InverseEncodingConfig(),
    upt.InverseDecodingConfig(),
)


def test_all_losses_share_one_forward_pass(model, batch, compute):
    made = model()
    bundle = compute(made, batch(), *ALL)
    assert len(bundle.terms) == len(ALL)
    assert made.encoder.calls == [3, 3, 3]  # u_t; u_{t+1} without gradient; the decoded u_t
    assert made.operator.calls == [3, 3, 3]
    assert made.decoder.calls == [12]  # steps 0 to 3 in one call
    assert made.decoder.dense == [True]


def test_future_frames_are_encoded_in_one_call(model, batch, compute):
    made = model()
    compute(made, batch(), ("one", Encodes((1, 3))), ("two", Encodes((1, 2))))
    assert made.encoder.calls == [3, 9]


@define(eq=False)
class Encodes:
    """A loss that compares with several future latents."""

    steps: tuple[int, ...]
    reaches: tuple[str, ...] = ("encoder", "operator")
    sampler: None = None
    horizon: int = 3

    def build(self, fields):
        return self

    def weight_at(self, progress):
        return 1.0

    def needs(self, progress):
        return Needs(steps=1, encodes=self.steps)

    def __call__(self, forward):
        return sum((forward.latent(1).tokens - forward.encoded(step).tokens).square().mean() for step in self.steps)


def test_equal_samplers_share_points_and_decodes(model, batch, compute):
    made = model()
    compute(made, batch(), upt.ForwardConfig(sampler=HALF), upt.InverseEncodingConfig(sampler=HALF))
    assert made.decoder.calls == [6]
    assert made.decoder.dense == [False]


def test_different_samplers_are_decoded_apart(model, batch, compute):
    made = model()
    other = StratifiedConfig(queries=5)
    compute(made, batch(), upt.ForwardConfig(sampler=HALF), upt.InverseEncodingConfig(sampler=other))
    assert made.decoder.calls == [3, 3]


def test_points_of_a_latent_that_is_decoded_everywhere_are_taken_from_there(model, batch, compute):
    made = model()
    compute(made, batch(), upt.InverseEncodingConfig(sampler=HALF), upt.InverseDecodingConfig())
    assert made.decoder.calls == [3]
    apart = compute(model(), batch(), upt.InverseEncodingConfig(sampler=HALF)).terms["InverseEncodingConfig"]
    both = compute(model(), batch(), upt.InverseEncodingConfig(sampler=HALF), upt.InverseDecodingConfig())
    torch.testing.assert_close(both.terms["InverseEncodingConfig"], apart)


def test_a_share_of_the_samples_costs_a_share_of_the_work(model, batch, compute):
    made = model()
    compute(made, batch(size=10), upt.ForwardConfig(), upt.InverseDecodingConfig(share=0.2))
    assert made.decoder.calls == [12]  # 10 samples at step 1, 2 at step 0
    assert made.encoder.calls == [10, 2]


def test_a_loss_that_needs_no_step_takes_none(model, batch, compute):
    made = model()
    compute(made, batch(frames=0), upt.InverseEncodingConfig(), upt.InverseDecodingConfig())
    assert made.operator.calls == []
    assert made.decoder.calls == [3]
    assert made.encoder.calls == [3, 3]


def test_adding_a_loss_does_not_change_another_ones_points(model, batch, compute):
    forward = ("forward", upt.ForwardConfig(sampler=HALF))
    alone = compute(model(), batch(), forward)
    beside = compute(model(), batch(), ("x", upt.RelativeConfig(sampler=StratifiedConfig(queries=7))), forward)
    assert torch.equal(alone.terms["forward"], beside.terms["forward"])


def test_the_draw_depends_on_the_seed_alone(model, batch, compute):
    forward = ("forward", upt.ForwardConfig(sampler=HALF))
    first, again, other = (compute(model(), batch(), forward, seed=seed).total.item() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_generator_that_goes_on_draws_new_points(model, batch, fields):
    made, frames, generator = model(), batch(), torch.Generator().manual_seed(0)
    config = upt.ForwardConfig(sampler=HALF)
    terms = [LossTerm("forward", config, config.build(fields()))]
    values = {compute_losses(made, frames, terms, Progress(0, 0.0, 0.0), generator).total.item() for _ in range(5)}
    assert len(values) == 5


def train(model, batch, fields, configs, steps=4):
    """Weights after a few steps of training, and the generator's state."""
    made, generator = model(), torch.Generator().manual_seed(5)
    optimiser = torch.optim.AdamW(made.parameters(), lr=0.01)
    terms = [LossTerm(name, config, config.build(fields())) for name, config in configs]
    for step in range(steps):
        optimiser.zero_grad()
        compute_losses(made, batch(seed=step), terms, Progress(step, step / 4, step / 4), generator).total.backward()
        optimiser.step()
    return torch.cat([parameter.detach().flatten() for parameter in made.parameters()]), generator.get_state()


@pytest.mark.parametrize("sampler", [None, HALF])
@pytest.mark.parametrize(
    "switched_off",
    [
        upt.InverseDecodingConfig(weight=0),
        upt.InverseEncodingConfig(weight=0, sampler=UniformConfig(ratio=0.25)),
        upt.LatentForwardConfig(weight=0),
        upt.RolloutConfig(weight=0),
        upt.SpectralConfig(warmup=100),
        upt.RolloutConfig(start=0.99),
        upt.RelativeConfig(cap=0.0),
    ],
)
def test_a_weight_of_zero_is_an_absence_bit_for_bit(model, batch, fields, sampler, switched_off):
    there = [("forward", upt.ForwardConfig(sampler=sampler)), ("inverse", upt.InverseEncodingConfig(sampler=sampler))]
    weights, state = train(model, batch, fields, there)
    for configs in ([("off", switched_off), *there], [*there, ("off", switched_off)]):
        others, other_state = train(model, batch, fields, configs)
        assert torch.equal(weights, others)
        assert torch.equal(state, other_state)


def test_what_is_switched_off_is_not_computed(model, batch, compute):
    made = model()
    bundle = compute(made, batch(), *(type(config)(weight=0) for config in ALL), upt.InverseEncodingConfig(weight=0.5))
    assert list(bundle.terms) == ["InverseEncodingConfig"]
    assert made.encoder.calls == made.decoder.calls == [3]
    assert made.operator.calls == []


def test_no_loss_at_all_is_a_total_of_zero_that_can_go_backward(model, batch, compute):
    made = model()
    bundle = compute(made, batch(), upt.ForwardConfig(every=2), progress=Progress(1, 0.0, 0.0))
    bundle.total.backward()
    assert bundle.total.item() == 0
    assert bundle.terms == {}
    assert made.encoder.calls == []
    assert all(parameter.grad is None for parameter in made.parameters())


@pytest.mark.parametrize("keys", [{"ratio": 1.0}, {"queries": 16}, {"queries": 99}])
def test_all_points_equal_no_sampler_bit_for_bit(model, batch, fields, keys):
    def configs(sampler):
        return [
            ("forward", upt.ForwardConfig(sampler=sampler)),
            ("rollout", upt.RolloutConfig(horizon=2, sampler=sampler)),
            ("inverse", upt.InverseEncodingConfig(sampler=sampler)),
        ]

    dense, _ = train(model, batch, fields, configs(None))
    for sampler in (UniformConfig(**keys), StratifiedConfig(**keys)):
        assert torch.equal(dense, train(model, batch, fields, configs(sampler))[0])


def test_the_total_is_the_weighted_sum_and_terms_are_raw(model, batch, compute):
    configs = (upt.ForwardConfig(weight=2.0), upt.InverseEncodingConfig(weight=0.25))
    bundle = compute(model(), batch(), *configs)
    expected = 2 * bundle.terms["ForwardConfig"] + 0.25 * bundle.terms["InverseEncodingConfig"]
    torch.testing.assert_close(bundle.total.detach(), expected)
    assert not any(term.requires_grad for term in bundle.terms.values())


def test_losses_are_float32_under_autocast(model, batch, compute):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bundle = compute(model(), batch(), *ALL, ("seen", Dtypes()))
    assert bundle.total.dtype == torch.float32
    assert all(term.dtype == torch.float32 for term in bundle.terms.values())
    exact = compute(model(), batch(), *ALL)
    for name, term in exact.terms.items():
        assert bundle.terms[name] == pytest.approx(float(term), rel=0.1, abs=1e-3)


class Dtypes(Encodes):
    def __init__(self):
        super().__init__((1,))

    def needs(self, progress):
        return Needs(steps=1, decodes=(0,), encodes=(1,), dense=True)

    def __call__(self, forward):
        again = forward.reencode(forward.decoded(0).values, 0)
        seen = (forward.latent(1).tokens, forward.encoded(1).tokens, forward.decoded(0).values, again.tokens)
        assert all(part.dtype == torch.float32 for part in seen)
        assert not torch.is_autocast_enabled("cpu")
        return seen[0].mean()


@define(eq=False)
class Greedy(Encodes):
    """A loss that uses what it did not ask for."""

    use: str = "decoded"
    step: int = 2

    def __call__(self, forward):
        return getattr(forward, self.use)(self.step)


@pytest.mark.parametrize(("use", "step"), [("decoded", 0), ("latent", 2), ("encoded", 2)])
def test_a_loss_gets_only_what_it_asked_for(model, batch, compute, use, step):
    with pytest.raises(PluginError, match=rf"loss 'greedy' uses {use}\({step}\), which its needs\(\) does not name"):
        compute(model(), batch(), ("greedy", Greedy((1,), use=use, step=step)))


def test_frames_that_the_batch_lacks_are_named(model, batch, compute):
    with pytest.raises(PluginError, match=r"asks for the frame t\+4; the batch ends at t\+2"):
        compute(model(), batch(frames=2), upt.RolloutConfig(horizon=4))


def test_history_moves_on_with_true_frames(model, batch, compute, fields):
    """With two frames of history, E(u_{t+1}) sees u_t and u_{t+1}."""
    made, frames = model(history=2), batch(history=2)
    spec = fields(history=2)
    target = made.encode(made.advance(frames.inputs, frames.states[:, 1])).tokens
    latent = made.rollout(made.encode(frames.inputs), frames.condition, 1)[0].tokens
    bundle = compute(made, frames, upt.LatentForwardConfig(relative=False), fields=spec)
    assert bundle.total.item() == pytest.approx((latent - target).square().mean().item(), rel=1e-5)
    bundle = compute(made, frames, upt.InverseDecodingConfig(step=1), fields=spec)
    assert bundle.total.isfinite()


def test_weighted_is_what_the_configs_inherit():
    assert all(issubclass(type(config), Weighted) for config in ALL)
