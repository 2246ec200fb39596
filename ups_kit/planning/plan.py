"""The plan of a recipe: built as a run builds it, on the device that it would use, and trained not at all."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import frozen

from ..assemble import AnyExperiment, Experiment, assemble
from ..data.latents import SHARE_OF_MEMORY, Encoding
from ..data.memory import available_memory
from ..errors import UsageError
from ..fit.clock import REFRESH_STEPS
from ..fit.fitting import Task, prepare
from ..fit.precision import explained_failures
from ..fit.settings import Budget, FitSettings
from ..interfaces import PlansTraining, StageConfig, TakesLatents
from ..model import LatentModel
from ..plugins import Catalog
from ..recipe import AnyRecipe, LatentCache
from .data import Sample, bytes_on_disk, window_bytes, with_data
from .measuring import Probe, Step, latents_in_place, measure_step, module_bytes, probe


@frozen
class Span:
    """Seconds that are likely, and from where to where: two standard errors of the probe's mean."""

    likely: float
    low: float
    high: float


@frozen(kw_only=True)
class StagePlan:
    """One stage. Where there is a `note` it says why there are no figures."""

    name: str
    note: str = ""
    parameters: int = 0  # that are trained
    batch: int = 0
    windows: int = 0  # of an epoch
    steps: int | None = None  # None: not known without a probe
    step: Step | None = None
    probe: Probe | None = None
    seconds: Span | None = None  # wall, validations included
    validations: int = 0
    weights: int = 0  # bytes, of what is trained and saved
    checkpoints: int = 0  # bytes on disk, at most
    read: float = 0.0  # bytes of field values in an epoch

    @property
    def memory(self) -> int:
        """Bytes of gradients, optimiser, moving average and what is kept for the backward pass, at most."""
        if self.step is None:
            return 0
        return self.step.gradients + self.step.optimizer + self.step.average + self.step.most_saved


@frozen(kw_only=True)
class Plan:
    """What a run of a recipe would take."""

    recipe: str
    device: str
    threads: int
    parameters: Mapping[str, int]  # by part
    weights: int  # bytes of all of them
    stages: tuple[StagePlan, ...]
    data_bytes: int
    sample: Sample | None
    latent_cache: int | None  # bytes; None where there is none
    latents_held: int  # of them, in memory
    free_memory: int
    free_disk: int

    @property
    def seconds(self) -> Span | None:
        """Of all stages that were measured."""
        found = [stage.seconds for stage in self.stages if stage.seconds is not None]
        if not found:
            return None
        return Span(*(sum(getattr(each, name) for each in found) for name in ("likely", "low", "high")))

    @property
    def memory(self) -> int:
        """Of the stage that takes most; cached latents where they are held in memory."""
        return self.weights + self.latents_held + max((stage.memory for stage in self.stages), default=0)

    @property
    def disk(self) -> int:
        """Checkpoints, the weights of every stage, the bundle, cached latents, and data that are to be made."""
        trained = sum(stage.step is not None for stage in self.stages)
        made = self.sample.bytes if self.sample is not None else 0
        checkpoints = sum(stage.checkpoints for stage in self.stages)
        return checkpoints + (trained + 1) * self.weights + (self.latent_cache or 0) + made

    @property
    def warnings(self) -> tuple[str, ...]:
        """What would go wrong."""
        pairs = (("memory", self.memory, self.free_memory), ("disk", self.disk, self.free_disk))
        return tuple(
            f"{name}: the run takes {size(needed)}, and {size(free)} are free"
            for name, needed, free in pairs
            if needed > free
        )


def plan(recipe: AnyRecipe, catalog: Catalog | None = None, probed: bool = True) -> Plan:
    """Build what a run of the recipe would build, and measure it; nothing is written but statistics beside the data.

    `probed` takes a few steps of every stage for the time. Raises UpsKitError as a run would.
    """
    with with_data(recipe) as (ready, sample):
        experiment = assemble(ready, catalog)
        model, device = experiment.model, experiment.device
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
        scale = 1.0 if sample is None else sample.scale
        stages = tuple(_stage(experiment, number, scale, probed) for number in range(len(recipe.stages)))
        settings = experiment.recipe.latent_cache if isinstance(experiment, Experiment) else None
        cache = _cache_bytes(experiment, scale) if isinstance(experiment, Experiment) else None
        held = settings is not None and cache is not None and _is_held(settings, cache)
        parts = {**model.parts, **dict(model.added.items())} if isinstance(model, LatentModel) else {"model": model}
        return Plan(
            recipe=recipe.run.name,
            device=str(device),
            threads=torch.get_num_threads(),
            parameters={name: sum(weight.numel() for weight in part.parameters()) for name, part in parts.items()},
            weights=module_bytes(model),
            stages=stages,
            data_bytes=bytes_on_disk(ready.dataset) if sample is None else sample.bytes,
            sample=sample,
            latent_cache=cache,
            latents_held=(cache or 0) if held else 0,
            free_memory=free,
            free_disk=shutil.disk_usage(_there(recipe.run.folder)).free,
        )


def _there(folder: Path) -> Path:
    """The folder, or the nearest one above it that there is."""
    whole = folder.absolute()
    return next(parent for parent in (whole, *whole.parents) if parent.exists())


def _stage(experiment: AnyExperiment, number: int, scale: float, probed: bool) -> StagePlan:
    config, stage = experiment.recipe.stages[number], experiment.stages[number]
    if not isinstance(config, FitSettings):
        return StagePlan(name=config.name, note="trains nothing; not measured")
    if config.budget.is_zero:
        return StagePlan(name=config.name, note="skipped, its budget is 0")
    if not isinstance(stage, PlansTraining):
        return StagePlan(name=config.name, note="does not tell what it trains; no figures")
    try:
        context = stage.task(experiment)
        with context as task, explained_failures(task.stage, task.settings, task.device):
            return _measured(experiment, config, task, scale, probed)
    except UsageError as error:
        return StagePlan(name=config.name, note=str(error))


def _measured(experiment: AnyExperiment, config: StageConfig, task: Task, scale: float, probed: bool) -> StagePlan:
    settings, fitting = task.settings, prepare(task)
    windows = round(task.source.windows * scale)
    with task.source.stream(0) as batches:
        batch = next(iter(batches))
    change = None
    if isinstance(experiment, Experiment) and _reads_latents(experiment, config):
        change = latents_in_place(experiment.model)
    known = limit(settings.budget, windows, settings.batch)
    step = measure_step(fitting, batch if change is None else change(batch), known)
    found = probe(fitting, known, change) if probed else None
    steps = known if found is None else _least(known, steps_in_time(settings, found, task.device.type))
    weights = module_bytes(task.model)
    state = weights + step.optimizer + step.average
    validations = 0 if steps is None else math.ceil(steps / settings.validate_every)
    return StagePlan(
        name=config.name,
        parameters=sum(weight.numel() for weight in fitting.trained),
        batch=settings.batch,
        windows=windows,
        steps=steps,
        step=step,
        probe=found,
        seconds=None if found is None or steps is None else _seconds(found, steps, validations),
        validations=validations,
        weights=weights,
        checkpoints=(settings.keep + 1) * state + 2 * weights,
        read=window_bytes(batch) * windows,
    )


def _reads_latents(experiment: Experiment, config: StageConfig) -> bool:
    return experiment.recipe.latent_cache is not None and isinstance(config, TakesLatents) and config.keeps_encoder


def limit(budget: Budget, windows: int, batch: int) -> int | None:
    """The steps after which a budget in steps or epochs is spent; None where it is in seconds alone."""
    by_epochs = None if budget.epochs is None else math.ceil(budget.epochs * windows / batch * (1 - 1e-12))
    return _least(budget.steps, by_epochs)


def steps_in_time(settings: FitSettings, found: Probe, device_type: str) -> int | None:
    """The steps that a budget in seconds has room for, validations included; None where there is no such limit."""
    seconds: float | None = settings.budget.seconds_on(device_type)
    if seconds is None:
        return None
    on_cpu = device_type == "cpu"
    step = found.cpu.mean if on_cpu else found.wall.mean
    validation = found.validation_cpu if on_cpu else found.validation_wall
    steps = seconds / (step + validation / settings.validate_every)
    return max(1, math.ceil(steps / REFRESH_STEPS)) * REFRESH_STEPS  # the clock is read that often


def _least(*counts: int | None) -> int | None:
    return min((count for count in counts if count is not None), default=None)


def _seconds(found: Probe, steps: int, validations: int) -> Span:
    wall, more = found.wall, validations * found.validation_wall
    low, high = max(wall.least, wall.mean - 2 * wall.error), min(wall.most, wall.mean + 2 * wall.error)
    return Span(steps * wall.mean + more, steps * low + more, steps * high + more)


def _is_held(cache: LatentCache, size: int) -> bool:
    """Whether a run would hold its cached latents in memory."""
    return cache.preload is True or (cache.preload == "auto" and size <= SHARE_OF_MEMORY * available_memory())


def _cache_bytes(experiment: Experiment, scale: float) -> int | None:
    cache = experiment.recipe.latent_cache
    if cache is None:
        return None
    layout = Encoding.of(experiment, "train", cache).description["layout"]
    each = layout["frames"] * layout["tokens"] * layout["width"] * (4 if cache.dtype == "float32" else 2)
    return int(round(layout["trajectories"] * scale) * each)


def size(count: float) -> str:
    """Bytes in words."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:,.1f} {name}"
    return f"{count:.0f} bytes"


def summary(found: Plan) -> dict[str, Any]:
    """A plan as JSON can hold it."""
    plain: dict[str, Any] = attrs.asdict(found, value_serializer=_plain)
    return plain | {
        "seconds": None if found.seconds is None else attrs.asdict(found.seconds),
        "memory": found.memory,
        "disk": found.disk,
        "warnings": list(found.warnings),
    }


def _plain(instance: object, attribute: object, value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
