"""What a step on expected values costs when it draws positions, and when it makes no logits but those it needs.

    python benchmarks/positions.py [--batch 16] [--tokens 512] [--size 4096] [--width 128] [--layers 2] [--quick]

Sequences of one image modality, random tokens; a step is forward and backward pass. All variants take turns in one
process, from the same weights and batches: CPU seconds on a CPU, wall seconds on a GPU. Peak memory, beyond what model
and batch take, is that of a process of its own for each variant (of the allocator on a GPU). The blocks of the model
compute every position in all variants: what is saved is saved on logits and losses alone.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ups_kit.interfaces import Progress
from ups_kit.weighting import Weighted
from ups_tokens.batch import TokenBatch, expected_targets
from ups_tokens.description import TokenSpec
from ups_tokens.model.config import TokenTransformerConfig
from ups_tokens.model.transformer import TokenTransformer
from ups_tokens.training.forward import TokenPass, TokenTerm, compute_losses
from ups_tokens.training.losses import ExpectedValue, NextToken, TokenLoss, expected_values
from ups_tokens.vocabulary import Modality, Vocabulary

DIMS, OTHERS = 16, 2  # of a token; other modalities of the same size, whose logits nobody needs
WHOLE = "all positions, from the logits of everything"


class FromAllLogits(ExpectedValue):
    """The same loss, its logits cut out of those of the whole vocabulary."""

    def errors(self, seen: TokenPass, places: Tensor) -> Tensor:
        codebook = seen.codebook("image")
        logits = seen.logits(places)[:, seen.spec.vocabulary.block("image")]
        return (expected_values(logits, codebook) - codebook[seen.numbers(places, "image")]).square().mean(-1)


VARIANTS: dict[str, list[TokenLoss]] = {
    WHOLE: [FromAllLogits("image")],
    "all positions": [ExpectedValue("image")],
    "4096 positions": [ExpectedValue("image", 4096)],
    "256 positions": [ExpectedValue("image", 256)],
    "no loss at all": [ExpectedValue("image", 1)],  # blocks alone, as good as
    "cross-entropy": [NextToken()],
    "cross-entropy, all positions": [NextToken(), ExpectedValue("image")],
    "cross-entropy, 4096 positions": [NextToken(), ExpectedValue("image", 4096)],
    "cross-entropy, 256 positions": [NextToken(), ExpectedValue("image", 256)],
}


class Sizes(NamedTuple):
    """What is trained."""

    batch: int
    tokens: int
    size: int
    width: int
    layers: int
    device: str


def made(sizes: Sizes) -> tuple[TokenTransformer, TokenBatch]:
    """A model, and a batch of random tokens of one modality."""
    names = ("image", *(f"other_{number}" for number in range(OTHERS)))
    modalities = tuple(Modality(name, "image", sizes.size, DIMS) for name in names)
    books = {name: np.random.default_rng(0).normal(size=(sizes.size, DIMS)).astype(np.float32) for name in names}
    spec = TokenSpec(Vocabulary(modalities), sizes.tokens, 1 + len(names), books)
    torch.manual_seed(0)
    config = TokenTransformerConfig(
        width=sizes.width, layers=sizes.layers, heads=4, feed_forward=4 * sizes.width, length=sizes.tokens, types=4
    )
    block, shape = spec.vocabulary.block("image"), (sizes.batch, sizes.tokens)
    tokens, mask = torch.randint(block.start, block.stop, shape), torch.ones(shape, dtype=torch.bool)
    expected = expected_targets(tokens, mask, spec.vocabulary)
    batch = TokenBatch(tokens, torch.ones_like(tokens), mask, torch.arange(sizes.batch), expected)
    device = torch.device(sizes.device)
    return TokenTransformer(config, spec).to(device), TokenBatch(*(part.to(device) for part in batch))


def step_of(model: TokenTransformer, batch: TokenBatch, losses: list[TokenLoss]) -> Callable[[], None]:
    """Forward and backward pass."""
    terms = [TokenTerm(str(number), Weighted(), loss) for number, loss in enumerate(losses)]
    generator = torch.Generator(batch.tokens.device)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        compute_losses(model, batch, terms, Progress(0, 0.0, 0.0), generator).total.backward()
        if batch.tokens.is_cuda:
            torch.cuda.synchronize()

    return step


def peak(sizes: Sizes, name: str) -> int:
    """Bytes of one step beyond those before it, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_here, (sizes, name))


def _peak_here(sizes: Sizes, name: str) -> int:
    model, batch = made(sizes)
    step_of(model, batch.part(slice(0, 1)), VARIANTS[name])()  # what libraries take once
    if sizes.device != "cpu":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step_of(model, batch, VARIANTS[name])()
        return torch.cuda.max_memory_allocated() - before
    before = _status("VmRSS")
    step_of(model, batch, VARIANTS[name])()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    """Bytes of this process now, or at most; getrusage would tell of the process that started it, too."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16, help="sequences")
    parser.add_argument("--tokens", type=int, default=512, help="of a sequence")
    parser.add_argument("--size", type=int, default=4096, help="tokens of the modality, and of two others each")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each variant")
    parser.add_argument("--memory", action="store_true", help="peak memory alone")
    parser.add_argument("--quick", action="store_true", help="small, one round: does it work?")
    asked = parser.parse_args()
    if asked.quick:
        asked.batch, asked.tokens, asked.size, asked.width, asked.layers, asked.rounds = 2, 64, 64, 16, 1, 1
    sizes = Sizes(asked.batch, asked.tokens, asked.size, asked.width, asked.layers, asked.device)
    torch.set_num_threads(1)
    now = time.process_time if sizes.device == "cpu" else time.perf_counter
    model, batch = made(sizes)
    steps = {name: step_of(model, batch, losses) for name, losses in VARIANTS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(0 if asked.memory else asked.rounds + 1):  # the first one warms up
        for name, step in steps.items():
            began = now()
            step()
            if turn:
                seconds[name].append(now() - began)
    peaks = {name: peak(sizes, name) for name in steps}
    print(f"{sizes}, {sizes.batch * (sizes.tokens - 1)} targets, {asked.rounds} rounds")
    print(f"{'':<46}{'ms/step':>10}{'ratio':>8}{'peak MB':>10}{'ratio':>8}")
    middles = {name: statistics.median(found or [math.nan]) for name, found in seconds.items()}
    first = middles[WHOLE]
    for name, middle in middles.items():
        print(
            f"{name:<46}{1000 * middle:>10.1f}{middle / first:>8.3f}"
            f"{peaks[name] / 1e6:>10.1f}{peaks[name] / max(peaks[WHOLE], 1):>8.3f}"
        )


if __name__ == "__main__":
    main()
