"""The causal transformer (Vaswani et al., arXiv:1706.03762), pre-norm, and the codebooks beside its weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..description import TokenSpec
from .config import TokenTransformerConfig

SPREAD = 0.02  # standard deviation of fresh weights


class TokenTransformer(nn.Module):
    """What each token makes of those before it, and logits of what comes next.

    Padding at the end of a sequence is hidden by causality; padding elsewhere is hidden by a mask, and not counted in
    a token's place. States of padding are zero.
    """

    def __init__(self, config: TokenTransformerConfig, data: TokenSpec) -> None:
        super().__init__()
        self.config = config
        self.spec = data
        self.trunk = Trunk(config, data.vocabulary.size)
        self.head = None if config.tied else nn.Linear(config.width, data.vocabulary.size, bias=False)
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=SPREAD)
        self.codebooks = Codebooks(data)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What is compiled where a run compiles."""
        return {"trunk": self.trunk}

    def forward(self, tokens: Tensor, types: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (B, L, V) of the token that follows each of these (B, L); `mask` is true where one is real."""
        return self.logits(self.states(tokens, types, mask))

    def states(self, tokens: Tensor, types: Tensor, mask: Tensor | None = None) -> Tensor:
        """The state of each token, (B, L, width)."""
        length = tokens.shape[1]
        if length > self.config.length:
            raise ValueError(f"sequences of {length} tokens; the model's are at most {self.config.length} long")
        heard = _heard(mask)
        if heard is None:
            places = torch.arange(length, device=tokens.device)
        else:
            assert mask is not None
            places = (mask.cumsum(1) - 1).clamp(min=0)
        states: Tensor = self.trunk(tokens, types, places, heard)
        return states if mask is None else states * mask.unsqueeze(-1)

    def logits(self, states: Tensor, block: slice = slice(None)) -> Tensor:
        """Logits of the ids of a block (all where not given) for states (…, width): no others are computed."""
        weight = self.trunk.tokens.weight if self.head is None else self.head.weight
        return F.linear(states, weight[block])


def _heard(mask: Tensor | None) -> Tensor | None:
    """Who hears whom, (B, 1, L, L), where there is padding between real tokens; None where causality alone tells.

    Every token hears itself: one that heard nobody would not be a number.
    """
    if mask is None or not bool((mask[:, 1:] & ~mask[:, :-1]).any()):
        return None
    length = mask.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=mask.device)
    return (causal & mask[:, None, None, :]) | itself


class Trunk(nn.Module):
    """Embeddings, blocks and the last norm: everything but the logits."""

    def __init__(self, config: TokenTransformerConfig, vocabulary: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, config.width)
        self.types = nn.Embedding(config.types, config.width)
        self.places = nn.Embedding(config.length, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(CausalBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.checkpointing = config.checkpointing
        for table in (self.tokens, self.types, self.places):
            nn.init.normal_(table.weight, std=SPREAD)

    def forward(self, tokens: Tensor, types: Tensor, places: Tensor, heard: Tensor | None) -> Tensor:
        states: Tensor = self.dropout(self.tokens(tokens) + self.types(types) + self.places(places))
        for block in self.blocks:
            if self.checkpointing and self.training and torch.is_grad_enabled():
                states = checkpoint(block, states, heard, use_reentrant=False)
            else:
                states = block(states, heard)
        normed: Tensor = self.norm(states)
        return normed


class CausalBlock(nn.Module):
    """Attention to oneself and those before, then a network; each adds to what comes in."""

    def __init__(self, config: TokenTransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.before = nn.LayerNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.between = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, config.feed_forward)
        self.down = nn.Linear(config.feed_forward, config.width)
        self.dropout = nn.Dropout(config.dropout)
        for layer in (self.qkv, self.out, self.up, self.down):
            # what blocks add up to keeps its size, however many there are (Radford et al. 2019)
            last = layer in (self.out, self.down)
            nn.init.normal_(layer.weight, std=SPREAD / (2 * config.layers) ** 0.5 if last else SPREAD)
            nn.init.zeros_(layer.bias)

    def forward(self, states: Tensor, heard: Tensor | None) -> Tensor:
        states = states + self.dropout(self._mixed(self.before(states), heard))
        added: Tensor = self.dropout(self.down(F.gelu(self.up(self.between(states)))))
        return states + added

    def _mixed(self, states: Tensor, heard: Tensor | None) -> Tensor:
        q, k, v = torch.unflatten(self.qkv(states), -1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=heard, is_causal=heard is None)
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result


class Codebooks(nn.Module):
    """What the tokens of each modality stand for, (V_m, d_m), as buffers `codebooks.<modality>`: saved, not trained.

    Zero where the description came without them, until weights are loaded.
    """

    def __init__(self, data: TokenSpec) -> None:
        super().__init__()
        for modality in data.vocabulary.modalities:
            values = data.codebooks.get(modality.name, np.zeros((modality.size, modality.dims), np.float32))
            # not register_buffer, which refuses what is called as something of torch's own, such as "type"
            self._buffers[modality.name] = torch.tensor(values, dtype=torch.float32)

    def __getitem__(self, modality: str) -> Tensor:
        found = self._buffers[modality]
        assert found is not None
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._buffers)
