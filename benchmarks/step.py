"""One training step on a 64 × 64 grid: the library's decoders against a plain PyTorch version of the same work.

    python benchmarks/step.py --batch 2 --rounds 5

The step: forward loss, inverse encoding and inverse decoding, backward, AdamW; 8 operator blocks of width 128; Q query
points of 4096 in the two losses that sample. Tokens: 128 pooled ones in the plain version, the library's grid encoder
has 256 anchored ones (patch 4) or 64 (patch 8). Every table is timed in one process, case after case in turn.

Tables: the step of every decoder and precision with its ratio to plain in fp32 and what it saves for backward; the
decoder's share of the step; what the inverse losses cost.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from measure import Timing, alternate, autocast, optimised, print_table, saved_bytes
from plain import BLOCKS, DECODER_LAYERS, EXPANSION, HEADS, POINTS, SIDE, WIDTH, PlainModel, plain_loss
from ups_kit import Batch, Field, FieldSpec, LatentSpec, PointSet, Progress, Queries
from ups_kit.fit.forward import LossTerm, compute_losses
from ups_kit.model import LatentModel
from ups_kit.plugins import Catalog, discover

NOW = Progress(step=0, epoch=0.0, fraction=0.0)
ANCESTOR_SAVED_MB = 496  # this library's ancestor, batch 2, all points, fp32 (measured elsewhere; it does not vary)
FIELDS = FieldSpec((Field("u"),), ((0.0, 1.0), (0.0, 1.0)), (True, True), "grid", (SIDE, SIDE), 0.1, conditions=("dt",))
DECODERS = ("partition", "local", "perceiver")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[2, 10], help="batch sizes (2 10)")
    parser.add_argument("--queries", type=int, nargs="+", default=[4096, 2048, 1024], help="query points")
    parser.add_argument(
        "--patch", type=int, nargs="+", default=[4, 8], help="patch size of the library's encoder (4 8)"
    )
    parser.add_argument("--decoders", nargs="+", default=DECODERS, choices=DECODERS)
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each kind (5)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (1)")
    parser.add_argument("--quick", action="store_true", help="one round of one small case: does it work?")
    options = parser.parse_args()
    if options.quick:
        options.batch, options.queries, options.rounds, options.precision = [1], [1024], 1, ["fp32"]
        options.patch = [8]
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    for batch, patch in itertools.product(options.batch, options.patch):
        bench = Bench(batch, patch, options.rounds, discover())
        for queries in options.queries:
            bench.steps(queries, options.decoders, options.precision)
        bench.decoding_share(options.queries, options.decoders)
        bench.inverse_losses(options.queries[0], options.decoders)


class Bench:
    """The step at one batch size: the data, the plain model, and the library's models."""

    def __init__(self, batch: int, patch: int, rounds: int, catalog: Catalog) -> None:
        self.size, self.rounds, self.catalog = batch, rounds, catalog
        self.title = f"batch {batch}, {(SIDE // patch) ** 2} tokens"
        self.batch = _waves(batch)
        self.plain = PlainModel()
        self.models = {name: _model(catalog, patch, name) for name in DECODERS}

    def steps(self, queries: int, decoders: Sequence[str], precisions: Sequence[str]) -> None:
        """Time and saved bytes of the whole step."""
        cases: dict[str, Callable[[], object]] = {}
        kept: dict[str, int] = {}
        for precision in precisions:
            losses = {"plain": self._plain_losses(queries, precision)}
            losses |= {name: self._losses(name, queries, precision) for name in decoders}
            for name, loss in losses.items():
                part = self.plain if name == "plain" else self.models[name]
                cases[f"{name} {precision}"] = optimised(loss, part)
                kept[f"{name} {precision}"] = saved_bytes(loss, [part])
        timings = alternate(cases, self.rounds)
        reference = timings[f"plain {precisions[0]}"]
        rows = []
        for name, timing in timings.items():
            megabytes = kept[name] / 1e6
            ancestor = f"{megabytes / ANCESTOR_SAVED_MB:.2f}" if (self.size, queries) == (2, POINTS) else "-"
            rows.append([name, *_seconds(timing, reference), f"{megabytes:.1f}", ancestor])
        header = ["", "wall s", "CPU s", "CPU / plain", "saved MB", "saved / ancestor"]
        print_table(f"{self.title}, Q = {queries}: one step, median of {self.rounds}", header, rows)

    def decoding_share(self, queries: Sequence[int], decoders: Sequence[str]) -> None:
        """The decoder's forward and backward pass alone, for the two latents of the step, as a share of the step."""
        rows = []
        for count in queries:
            cases: dict[str, Callable[[], object]] = {}
            for name in decoders:
                cases[f"{name} step"] = optimised(self._losses(name, count, "fp32"), self.models[name])
                cases[f"{name} decoding"] = self._decoding(name, count)
            timings = alternate(cases, self.rounds)
            for name in decoders:
                step, decoding = timings[f"{name} step"].cpu, timings[f"{name} decoding"].cpu
                rows.append(
                    [name, str(count), f"{1000 * decoding:.1f}", f"{1000 * step:.1f}", f"{decoding / step:.0%}"]
                )
        header = ["decoder", "Q", "decoding CPU ms", "step CPU ms", "share"]
        print_table(f"{self.title}: decoding as a share of the step, fp32", header, rows)

    def inverse_losses(self, queries: int, decoders: Sequence[str]) -> None:
        """The step with the inverse losses, with weight 0, and without them in the recipe."""
        variants = {
            "absent": {},
            "weight 0": {"inverse_encoding": {"weight": 0.0}, "inverse_decoding": {"weight": 0.0}},
            "inverse encoding": {"inverse_encoding": {}},
            "both, a quarter of the samples encoded again": {
                "inverse_encoding": {},
                "inverse_decoding": {"share": 0.25},
            },
            "both": {"inverse_encoding": {}, "inverse_decoding": {}},
        }
        for name in decoders:
            cases = {
                label: optimised(self._losses(name, queries, "fp32", {"forward": {}, **keys}), self.models[name])
                for label, keys in variants.items()
            }
            timings = alternate(cases, self.rounds)
            rows = [
                [label, *_seconds(timing, timings["absent"]), f"{timing.cpu / timings['absent'].cpu - 1:+.0%}"]
                for label, timing in timings.items()
            ]
            title = f"{self.title}, Q = {queries}, {name} decoder: what the inverse losses cost, fp32"
            print_table(title, ["inverse losses", "wall s", "CPU s", "CPU / absent", "cost"], rows)

    def _plain_losses(self, queries: int, precision: str) -> Callable[[], Tensor]:
        now, after = self.batch.states[:, 0], self.batch.states[:, 1]

        def losses() -> Tensor:
            with autocast(precision):
                return plain_loss(self.plain, now, after, self.batch.positions, self.batch.condition, queries)

        return losses

    def _losses(
        self, name: str, queries: int, precision: str, losses: dict[str, dict[str, Any]] | None = None
    ) -> Callable[[], Tensor]:
        wanted = {"forward": {}, "inverse_encoding": {}, "inverse_decoding": {}} if losses is None else losses
        terms = [_term(self.catalog, loss, queries, keys) for loss, keys in wanted.items()]
        model, generator = self.models[name], torch.Generator().manual_seed(0)

        def compute() -> Tensor:
            with autocast(precision):
                return compute_losses(model, self.batch, terms, NOW, generator).total

        return compute

    def _decoding(self, name: str, queries: int) -> Callable[[], object]:
        """Decode what the step decodes: z_t everywhere for inverse decoding, z_{t+1} at Q points."""
        model, positions = self.models[name], self.batch.positions
        with torch.no_grad():
            latent = model.encode(self.batch.inputs)
        everywhere = Queries(positions, self.batch.grid)
        index = torch.rand(positions.shape[:2]).topk(queries, dim=1).indices[..., None].expand(-1, -1, 2)
        some = everywhere if queries == POINTS else Queries(positions.gather(1, index))

        def decode() -> None:
            tokens = latent.tokens.detach().requires_grad_()
            total = model.decode(latent._replace(tokens=tokens), everywhere).square().mean()
            total = total + model.decode(latent._replace(tokens=tokens), some).square().mean()
            total.backward()  # type: ignore[no-untyped-call]

        return decode


def _waves(size: int) -> Batch:
    """Smooth periodic fields that move along the first axis."""
    axis = (torch.arange(SIDE) + 0.5) / SIDE
    positions = torch.cartesian_prod(axis, axis).expand(size, -1, -1).contiguous()
    phase = torch.rand(size, 1) + positions[..., 0]
    states = torch.stack([torch.sin(2 * torch.pi * (phase - 0.02 * step)) for step in range(2)], 1)[..., None]
    inputs = PointSet(positions, states[:, 0], grid=(SIDE, SIDE))
    zeros = torch.zeros(size)
    return Batch(inputs, states, positions, (SIDE, SIDE), torch.zeros(size, 1), zeros.long(), zeros)


def _model(catalog: Catalog, patch: int, decoder: str) -> LatentModel:
    """The library's model; the partition decoder has as many cosines along an axis as a patch has points."""
    latent = LatentSpec(width=WIDTH)
    perceiver = {"depth": DECODER_LAYERS, "heads": HEADS, "mlp_ratio": float(EXPANSION)}
    keys: dict[str, Any] = {"partition": {"modes": patch}, "local": {}, "perceiver": perceiver}[decoder]

    def part(kind: str, name: str, **chosen: Any) -> Any:
        return catalog[kind][name].config(**chosen).build(FIELDS, latent)

    encoder = part("encoder", "grid", patch_size=patch)
    operator = part("operator", "transformer", depth=BLOCKS, heads=HEADS, mlp_ratio=float(EXPANSION))
    return LatentModel(encoder, operator, part("decoder", decoder, **keys), FIELDS)


def _term(catalog: Catalog, loss: str, queries: int, keys: dict[str, Any]) -> LossTerm:
    sampler = catalog["sampler"]["uniform"].config(queries=queries)
    chosen = keys if loss == "inverse_decoding" else {"sampler": sampler, **keys}
    config = catalog["loss"][loss].config(**chosen)
    return LossTerm(loss, config, config.build(FIELDS))


def _seconds(timing: Timing, reference: Timing) -> list[str]:
    return [f"{timing.wall:.3f}", f"{timing.cpu:.3f}", f"{timing.cpu / reference.cpu:.2f}"]


if __name__ == "__main__":
    main()
