"""A plan in words: a line for each stage, and what the whole takes."""

from __future__ import annotations

from collections.abc import Iterator

from ..console import duration
from .plan import Plan, Span, StagePlan, size

HEAD = (
    "stage",
    "steps",
    "epochs",
    "trained",
    "FLOP/step",
    "for backward",
    "optimiser",
    "checkpoints",
    "s/step",
    "time",
)


def lines(plan: Plan) -> Iterator[str]:
    """All of it."""
    total = sum(plan.parameters.values())
    yield f"{plan.recipe} on {plan.device}, {plan.threads} threads"
    yield f"  parameters   {total:,} ({', '.join(f'{name} {count:,}' for name, count in plan.parameters.items())})"
    yield from _data(plan)
    yield ""
    yield from _table([HEAD, *(_row(stage) for stage in plan.stages if stage.step is not None)])
    yield from (f"  {stage.name}: {stage.note}" for stage in plan.stages if stage.step is None)
    yield ""
    if plan.seconds is not None:
        yield f"  time         {_span(plan.seconds)}: training and validation; evaluation and encoding come on top"
    yield f"  memory       {size(plan.memory)} at least, {size(plan.free_memory)} free"
    for stage in plan.stages:
        if stage.probe is not None and stage.probe.peak is not None:
            yield f"               {stage.name}: {size(stage.probe.peak)} on the GPU at its peak, as measured"
    yield f"  disk         {size(plan.disk)} at most, {size(plan.free_disk)} free"
    yield from (f"warning: {warning}" for warning in plan.warnings)


def _data(plan: Plan) -> Iterator[str]:
    read = max((stage.read for stage in plan.stages), default=0.0)
    sample = plan.sample
    if sample is None:
        yield f"  data         {size(plan.data_bytes)} on disk, {size(read)} of values read in an epoch"
    else:
        yield (
            f"  data         {sample.path} is still to be made: {sample.trajectories} trajectories, about "
            f"{size(sample.bytes)}, in about {duration(sample.seconds)}"
        )
        yield (
            f"               an estimate from {sample.sampled} trajectories, as all that depends on their number; "
            f"{size(read)} of values read in an epoch"
        )
    if plan.latent_cache is not None:
        yield f"  latents      {size(plan.latent_cache)} cached{', held in memory' if plan.latents_held else ''}"


def _row(stage: StagePlan) -> tuple[str, ...]:
    step, probe = stage.step, stage.probe
    assert step is not None
    return (
        stage.name,
        "?" if stage.steps is None else f"{stage.steps:,}",
        "?" if stage.steps is None else f"{stage.steps * stage.batch / stage.windows:.3g}",
        f"{stage.parameters:,}",
        _flops(step.flops),
        size(step.most_saved),
        size(step.optimizer + step.average),
        size(stage.checkpoints),
        "-" if probe is None else f"{probe.wall.mean:.3g} ({probe.wall.least:.2g} to {probe.wall.most:.2g})",
        "-" if stage.seconds is None else _span(stage.seconds),
    )


def _flops(counts: tuple[int, int]) -> str:
    first, last = (_count(count) for count in counts)
    return first if first == last else f"{first} to {last}"


def _count(flops: int) -> str:
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if flops >= unit:
            return f"{flops / unit:.3g} {name}"
    return str(flops)


def _span(seconds: Span) -> str:
    return f"{duration(seconds.likely)} ({duration(seconds.low)} to {duration(seconds.high)})"


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
