"""The transformer: causal, blind to padding, the same with less memory, and whole after it was saved."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ups_kit.bundle import load_weights, save_weights
from ups_kit.interfaces import ChecksDescription, family_of
from ups_tokens.description import TokenSpec
from ups_tokens.model.config import TokenTransformerConfig
from ups_tokens.model.transformer import TokenTransformer


def _logits(model: TokenTransformer, batch: Any) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model.eval()(batch.tokens, batch.types, batch.mask)
    return logits


def test_logits_of_every_id_at_every_token(made: SimpleNamespace) -> None:
    logits = _logits(made.model(), made.batch())
    assert logits.shape == (4, 24, made.spec().vocabulary.size)
    assert torch.isfinite(logits).all()


def test_the_sizes_of_the_method_are_the_defaults(made: SimpleNamespace) -> None:
    config = TokenTransformerConfig()
    sizes = (config.width, config.layers, config.heads, config.feed_forward, config.length, config.types)
    assert sizes == (768, 12, 12, 3072, 2048, 20)
    with torch.device("meta"):
        model = TokenTransformer(config, TokenSpec(made.spec().vocabulary, 24, 4))
    blocks = 12 * (4 * 768**2 + 4 * 768 + 2 * 768 * 3072 + 768 + 3072 + 4 * 768)
    tables = (2 * made.spec().vocabulary.size + 2048 + 20) * 768
    assert sum(weight.numel() for weight in model.parameters()) == blocks + tables + 2 * 768


def test_a_later_token_changes_nothing_before_it(made: SimpleNamespace) -> None:
    model, batch = made.model(), made.batch((24, 24))
    whole = _logits(model, batch)
    for place in (1, 11, 23):
        tokens = batch.tokens.clone()
        tokens[:, place] = (tokens[:, place] + 1) % made.spec().vocabulary.size
        changed = _logits(model, batch._replace(tokens=tokens, types=batch.types.roll(place)))
        changed_types = _logits(model, batch._replace(tokens=tokens))
        assert torch.equal(changed_types[:, :place], whole[:, :place])
        assert not torch.allclose(changed_types[:, place:], whole[:, place:])
        assert not torch.allclose(changed, changed_types)


@pytest.mark.parametrize("in_front", [0, 3])
def test_padding_changes_no_real_token(made: SimpleNamespace, in_front: int) -> None:
    """At the end of a sequence, and in front of it, whatever stands there."""
    model, batch = made.model(), made.batch((9,))
    alone = _logits(model, batch._replace(tokens=batch.tokens[:, :9], types=batch.types[:, :9], mask=None))
    tokens, types, mask = (values.roll(in_front, 1) for values in (batch.tokens, batch.types, batch.mask))
    for filling in (0, 5):
        padded = _logits(model, batch._replace(tokens=tokens.where(mask, filling), types=types, mask=mask))
        torch.testing.assert_close(padded[:, in_front : in_front + 9], alone, atol=1e-5, rtol=1e-5)
        assert torch.isfinite(padded).all()
        assert not padded[:, in_front + 9 :].any()


def _gradients(model: TokenTransformer, batch: Any) -> tuple[dict[str, Tensor], int]:
    """Gradients of a sum over logits, and how many numbers were kept for them besides the weights."""
    weights, kept = {weight.data_ptr() for weight in model.parameters()}, {}

    def keep(value: Tensor) -> Tensor:
        if value.untyped_storage().data_ptr() not in weights:
            kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    torch.manual_seed(3)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        total = model.train()(batch.tokens, batch.types, batch.mask).square().sum()
    total.backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}, sum(
        kept.values()
    )


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_checkpointing_keeps_less_and_gives_the_same_gradients(made: SimpleNamespace, dropout: float) -> None:
    batch = made.batch((24,) * 8)
    plain, all_of_it = _gradients(made.model(layers=4, dropout=dropout), batch)
    again, little = _gradients(made.model(layers=4, dropout=dropout, checkpointing=True), batch)
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, atol=1e-5, rtol=1e-5)
    assert little < 0.4 * all_of_it


def test_one_block_of_logits_is_that_of_all(made: SimpleNamespace) -> None:
    model, batch, block = made.model(), made.batch(), made.spec().vocabulary.block("spectrum")
    states = model.states(batch.tokens, batch.types, batch.mask)
    torch.testing.assert_close(model.logits(states[:, 3], block), model.logits(states)[:, 3, block])


@pytest.mark.parametrize("tied", [False, True])
def test_weights_and_codebooks_survive_saving(made: SimpleNamespace, tmp_path: Path, tied: bool) -> None:
    """A model that is built from the description as JSON has no codebooks until its weights are loaded."""
    model, batch = made.model(tied=tied), made.batch()
    data = save_weights(tmp_path / "model.safetensors", model)
    described = model.config.read_description(made.spec().to_dict())
    assert not described.codebooks
    other = model.config.build(described)
    assert {f"codebooks.{name}" for name in ("image", "spectrum", "mass")} <= other.state_dict().keys()
    load_weights(other, data, "the file")
    assert torch.equal(_logits(other, batch), _logits(model, batch))
    assert torch.equal(other.codebooks["image"], torch.from_numpy(made.spec().codebooks["image"]))
    assert any("head" in name for name in other.state_dict()) != tied


def test_modalities_may_be_called_as_anything_of_torchs(made: SimpleNamespace) -> None:
    from ups_tokens.vocabulary import Modality, Vocabulary

    spec = TokenSpec(Vocabulary((Modality("type", "scalar", 3), Modality("half", "scalar", 4))), 8, 3)
    model = copy.deepcopy(TokenTransformer(TokenTransformerConfig(**made.sizes), spec))
    assert list(model.codebooks) == ["type", "half"]
    assert {"codebooks.type", "codebooks.half"} <= model.state_dict().keys()


def test_what_does_not_fit_is_told_before_anything_is_built(made: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="5 heads do not cut width = 16 into even parts; nearest: heads = 4"):
        TokenTransformerConfig(width=16, heads=5)
    config = TokenTransformerConfig(**(made.sizes | {"length": 20, "types": 2}))
    assert isinstance(config, ChecksDescription)
    assert family_of(config) == "tokens"
    assert dict(config.check_data(made.spec())) == {
        "length": "sequences of the data are up to 24 long; expected at least that, got 20",
        "types": "the data have 4 token types; expected at least that, got 2",
    }
    assert not list(TokenTransformerConfig(**made.sizes).check_data(made.spec()))
    batch = made.batch()
    with pytest.raises(ValueError, match="sequences of 24 tokens; the model's are at most 12 long"):
        made.model(length=12)(batch.tokens, batch.types, batch.mask)


def test_bf16_is_close_to_float32(made: SimpleNamespace) -> None:
    model, batch = made.model(), made.batch()
    with torch.autocast("cpu", torch.bfloat16):
        rough = _logits(model, batch)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), _logits(model, batch), atol=0.05, rtol=0.1)
