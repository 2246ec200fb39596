"""The perceiver decoder in UPT's own form: blocks on the tokens, a width of its own, conditioned."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ups_kit import Field, FieldSpec, Latent, LatentSpec, Queries
from ups_kit.errors import DataError
from ups_kit.layers import BLOCK_PARTS, CROSS_PARTS, CrossAttention, Modulation
from ups_plugins.decoders.config import PerceiverConfig

WIDTH = LatentSpec(16)
FIELDS = FieldSpec(
    (Field("u", 2),), ((0.0, 1.0), (0.0, 2.0)), (True, False), "mesh", None, 0.1, conditions=("dt", "nu"), counts=(9, 9)
)
FORMS = ["shared", "low_rank", "full"]


def latent(anchors: bool = True, condition: bool = True) -> Latent:
    random = torch.Generator().manual_seed(1)
    places = torch.rand(2, 7, 2, generator=random)
    given = torch.randn(2, 2, generator=random)
    tokens = torch.randn(2, 7, 16, generator=random)
    return Latent(tokens, places if anchors else None, None, given if condition else None)


def queries() -> Queries:
    return Queries(torch.rand(2, 11, 2, generator=torch.Generator().manual_seed(2)))


def built(**keys) -> torch.nn.Module:
    torch.manual_seed(0)
    module = PerceiverConfig(frequencies=4, **keys).build(FIELDS, WIDTH)
    assert isinstance(module, torch.nn.Module)
    return module


def awake(module: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(0.2 * torch.randn_like(weight))
    return module


@pytest.mark.parametrize("anchors", [True, False])
@pytest.mark.parametrize("form", ["none", *FORMS])
def test_blocks_and_modulations_change_nothing_at_first(anchors: bool, form: str) -> None:
    plain, whole = built(depth=2), built(depth=2, blocks=2, modulation=form)
    assert plain.state_dict().keys() <= whole.state_dict().keys()
    assert torch.equal(plain(latent(anchors), queries()), whole(latent(anchors), queries()))


@pytest.mark.parametrize("form", FORMS)
def test_the_condition_reaches_each_sample_and_every_weight_learns(form: str) -> None:
    decoder = awake(built(depth=2, blocks=2, modulation=form, query_width=8))
    given = latent()
    assert given.condition is not None
    values = decoder(given, queries())
    assert values.shape == (2, 11, 2)
    changed = decoder(given._replace(condition=given.condition * torch.tensor([[1.0], [-2.0]])), queries())
    torch.testing.assert_close(values[0], changed[0])
    assert not torch.allclose(values[1], changed[1], atol=1e-3)
    values.square().sum().backward()
    assert [name for name, weight in decoder.named_parameters() if not weight.grad.abs().sum() > 0] == []


def test_blocks_do_not_ask_for_an_order_of_tokens() -> None:
    decoder, given, order = awake(built(blocks=2, query_width=8)), latent(), torch.randperm(7)
    assert given.anchors is not None
    other = given._replace(tokens=given.tokens[:, order], anchors=given.anchors[:, order])
    torch.testing.assert_close(decoder(given, queries()), decoder(other, queries()), rtol=1e-4, atol=1e-5)


def test_a_modulation_needs_a_condition() -> None:
    with pytest.raises(DataError, match="carry their condition"):
        built(modulation="full")(latent(condition=False), queries())


def test_heads_are_told_to_fit_the_width_inside() -> None:
    assert list(PerceiverConfig(heads=4, query_width=32).check(FIELDS, LatentSpec(18))) == []
    ((key, message),) = PerceiverConfig(heads=4, query_width=12).check(FIELDS, LatentSpec(16))
    assert key == "heads"
    assert "query_width = 12" in message


# -- the layers it is made of -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", FORMS)
def test_modulations_are_zero_at_first_and_of_the_layers_sizes(form: str) -> None:
    made = Modulation(2, 16, 3, form=form, crosses=2)(torch.randn(5, 2))
    assert [part.shape for part in made] == [(5, 1, BLOCK_PARTS * 16)] * 3 + [(5, 1, CROSS_PARTS * 16)] * 2
    assert all(bool((part == 0).all()) for part in made)


def test_the_full_form_has_as_many_parameters_as_it_says() -> None:
    width, conditions, blocks = 32, 2, 3
    code = 4 * width
    embedding = conditions * (width * code + code) + code * code + code
    maps = blocks * (code * 6 * width + 6 * width) + (code * 8 * width + 8 * width)
    made = Modulation(conditions, width, blocks, form="full", crosses=1)
    assert sum(weight.numel() for weight in made.parameters()) == embedding + maps


def modulated_by(layer: CrossAttention, parts: dict[int, float], given: Tensor, tokens: Tensor) -> Tensor:
    modulation = torch.zeros(2, 1, CROSS_PARTS, 16)
    for part, value in parts.items():
        modulation[:, :, part] = value
    result: Tensor = layer(given, tokens, modulation.flatten(2))
    return result


def test_gates_of_minus_one_close_a_cross_attention_and_scales_act_where_they_say() -> None:
    torch.manual_seed(0)
    layer, given, tokens = CrossAttention(16, 2), torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    torch.testing.assert_close(modulated_by(layer, {}, given, tokens), layer(given, tokens))
    torch.testing.assert_close(modulated_by(layer, {4: -1, 7: -1}, given, tokens), given)
    # with keys and values scaled away, queries hear the output's bias alone
    silent = modulated_by(layer, {2: -1, 7: -1}, given, tokens)
    torch.testing.assert_close(silent, given + layer.out.bias)
    # with queries scaled away, all tokens are heard alike
    alike = modulated_by(layer, {0: -1, 7: -1}, given, tokens) - given
    torch.testing.assert_close(alike, alike[:, :1].expand_as(alike), rtol=1e-4, atol=1e-5)


def test_masked_tokens_are_not_heard() -> None:
    torch.manual_seed(0)
    layer, given, tokens = CrossAttention(16, 2), torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    mask = (torch.arange(7) < 4).expand(2, -1)
    torch.testing.assert_close(layer(given, tokens, None, mask), layer(given, tokens[:, :4]))
