"""One training step on 32 768 points in three dimensions: the library against a plain PyTorch version of the same work.

    python benchmarks/points.py --rounds 5
    python benchmarks/points.py --scaling 1000 10000 100000 1000000

The step: neighbours looked up, points to 2048 supernodes of at most 32 neighbours each, 4 + 4 + 4 blocks of width 192,
16 384 query points, forward loss, backward, AdamW; batch 1. "upt" is the build of UPT, as the plain version is: a
random subset of the points as supernodes, pooled to 512 tokens, and a perceiver decoder. "lattice" is the library's
own: 512 tokens on a lattice that hear the points around them, and a decoder that blends local expansions (partition) or
attends to the nearest tokens (local). "new points" moves the points before every step, so that neighbours are looked up
anew; "same points" does not, as on meshes that stand still, and they are looked up once. All are timed in one process,
one after the other in turn.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from measure import alternate, autocast, optimised, print_table, saved_bytes
from neighbours import resident
from plain_points import (
    CHANNELS,
    DEGREE,
    DEPTH,
    DIMS,
    EXPANSION,
    HEADS,
    POINTS,
    QUERIES,
    RADIUS,
    SUPERNODES,
    TOKENS,
    WIDTH,
    PlainModel,
)
from ups_kit import Batch, Field, FieldSpec, LatentSpec, PointSet, Progress, Queries
from ups_kit.fit.forward import LossTerm, compute_losses
from ups_kit.model import LatentModel
from ups_kit.plugins import Catalog, discover

NOW = Progress(step=0, epoch=0.0, fraction=0.0)
FIELDS = FieldSpec(
    (Field("u", CHANNELS),), ((0.0, 1.0),) * DIMS, (False,) * DIMS, "mesh", None, 0.1, counts=(POINTS, POINTS)
)
BLOCKS = {"heads": HEADS, "mlp_ratio": float(EXPANSION)}
BUILDS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {  # keys of the encoder, decoder, its keys
    "upt": (
        {"supernodes": SUPERNODES, "choice": "random", "radius": RADIUS, "pick": "nearest", "depth": DEPTH},
        "perceiver",
        {"blocks": DEPTH, **BLOCKS},
    ),
    "lattice, partition": ({"supernodes": TOKENS, "depth": DEPTH}, "partition", {"modes": 4}),
    "lattice, local": ({"supernodes": TOKENS, "depth": DEPTH}, "local", {"heads": HEADS}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--builds", nargs="+", default=list(BUILDS), choices=list(BUILDS))
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each kind (5)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (1)")
    parser.add_argument(
        "--scaling", type=int, nargs="*", default=[], metavar="N", help="forecast at so many points instead: 1000 …"
    )
    parser.add_argument("--quick", action="store_true", help="one round of one precision: does it work?")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.precision = 1, ["fp32"]
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.scaling:
        growing(sorted(options.scaling))
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Every build and the plain version, step after step in turn."""
    catalog, cases, kept = discover(), {}, {}
    for precision in options.precision:
        plain = PlainModel()
        losses, names = {"plain": _plain_loss(plain, precision)}, {"plain": [plain]}
        for build, fresh in itertools.product(options.builds, (True, False)):
            model = _model(catalog, build)
            name = f"{build}, {'new' if fresh else 'same'} points"
            losses[name], names[name] = _loss(catalog, model, fresh, precision), [model]
        for name, loss in losses.items():
            cases[f"{name}, {precision}"] = optimised(loss, names[name][0])
            kept[f"{name}, {precision}"] = saved_bytes(loss, names[name])
    timings = alternate(cases, options.rounds)
    reference = timings[f"plain, {options.precision[0]}"]
    rows = [
        [name, f"{found.wall:.3f}", f"{found.cpu:.3f}", f"{found.cpu / reference.cpu:.2f}", f"{kept[name] / 1e6:.0f}"]
        for name, found in timings.items()
    ]
    print_table(
        f"{POINTS} points, {SUPERNODES} supernodes, {TOKENS} tokens, {QUERIES} queries: median of {options.rounds}",
        ["", "wall s", "CPU s", "CPU / plain", "saved MB"],
        rows,
    )


def growing(sizes: Sequence[int]) -> None:
    """One step forecast from N points and decoded at all of them, by the library's own build, N growing in a process.

    Memory is by how much the process is larger at its peak than before the smallest forecast.
    """
    model, before, rows = _model(discover(), "lattice, partition").eval(), resident("VmRSS"), []
    for size in sizes:
        positions, values = _points(size)
        wall, cpu = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            latent = model.step(model.encode(PointSet(positions, values)), torch.zeros(1, 1))
            encoded = time.process_time()
            model.decode(latent, Queries(positions))
        seconds = (encoded - cpu, time.process_time() - encoded, time.perf_counter() - wall)
        rows.append([f"{size:,}", *(f"{value:.3f}" for value in seconds), f"{resident('VmHWM') - before:.0f}"])
    header = ["points", "encode and step, CPU s", "decode, CPU s", "wall s", "peak, MB"]
    print_table(f"one step forecast through {TOKENS} tokens on a lattice, at all points", header, rows)


def _points(size: int = POINTS) -> tuple[Tensor, Tensor]:
    positions = torch.rand(1, size, DIMS)
    return positions, torch.sin(7 * positions)


def _model(catalog: Catalog, build: str) -> LatentModel:
    keys, decoder, decoder_keys = BUILDS[build]
    latent = LatentSpec(WIDTH, TOKENS if build == "upt" else None)

    def part(kind: str, name: str, **chosen: Any) -> Any:
        return catalog[kind][name].config(**chosen).build(FIELDS, latent)

    encoder = part("encoder", "mesh", degree=DEGREE, **BLOCKS, **keys)
    operator = part("operator", "transformer", depth=DEPTH, **BLOCKS)
    return LatentModel(encoder, operator, part("decoder", decoder, **decoder_keys), FIELDS)


def _loss(catalog: Catalog, model: LatentModel, fresh: bool, precision: str) -> Callable[[], Tensor]:
    """The forward loss of one step of the library, at random points."""
    sampler = catalog["sampler"]["uniform"].config(queries=QUERIES)
    config = catalog["loss"]["forward"].config(sampler=sampler)
    terms, generator = [LossTerm("forward", config, config.build(FIELDS))], torch.Generator().manual_seed(0)
    fixed = _points()

    def compute() -> Tensor:
        positions, values = _points() if fresh else fixed
        zeros = torch.zeros(1)
        states = torch.stack([values, values], 1)
        inputs = PointSet(positions, values)
        batch = Batch(inputs, states, positions, None, torch.zeros(1, 1), zeros.long(), zeros)
        with autocast(precision):
            return compute_losses(model, batch, terms, NOW, generator).total

    return compute


def _plain_loss(model: PlainModel, precision: str) -> Callable[[], Tensor]:
    def compute() -> Tensor:
        positions, values = _points()
        chosen = torch.randperm(POINTS)[:QUERIES]
        with autocast(precision):
            answers = model(positions, values, torch.zeros(1, 1), positions[:, chosen])
        loss: Tensor = (answers.float() - values[:, chosen]).square().mean()
        return loss

    return compute


if __name__ == "__main__":
    main()
