"""What can be wrong with a training stage's keys before anything is built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..interfaces import Checks, FieldSpec, GivesWeights, LatentSpec, LossConfig, TakesWeights
from ..weighting import Weighted
from .settings import FitSettings


def forward_checks(key: str, config: object, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
    """A nested config's own problems, under its key."""
    if isinstance(config, Checks):
        for inner, message in config.check(fields, latent):
            yield (f"{key}.{inner}" if inner else key), message


def check_settings(settings: FitSettings, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
    """Problems of the keys that all training stages share."""
    yield from forward_checks("optimizer", settings.optimizer, fields, latent)
    if settings.schedule is None:
        return
    yield from forward_checks("schedule", settings.schedule, fields, latent)
    yield from warm_up_problems(settings)


def warm_up_problems(settings: FitSettings) -> Iterable[tuple[str, str]]:
    """A warm-up that is longer than the stage."""
    warmup, steps = getattr(settings.schedule, "warmup", 0), settings.budget.steps
    if steps and warmup > steps:
        yield (
            "schedule.warmup",
            f"{warmup} steps of warm-up are more than the budget of {steps} steps; nearest: warmup = {steps}",
        )


def check_losses(
    losses: Mapping[str, LossConfig], fields: FieldSpec, latent: LatentSpec, shifts: bool = False
) -> Iterable[tuple[str, str]]:
    """Problems of the losses that count, and of having none.

    `shifts`: whether samples are shifted along the periodic axes.
    """
    for name, config in active_losses(losses).items():
        yield from forward_checks(f"losses.{name}", config, fields, latent)
        yield from _sampler_problems(name, config, fields, latent, shifts)
    yield from nothing_to_train(losses)


def nothing_to_train(losses: Mapping[str, LossConfig]) -> Iterable[tuple[str, str]]:
    """Without a loss that counts there is nothing to train."""
    if not active_losses(losses):
        reason = "every loss has weight 0" if losses else "no loss is listed"
        yield (
            "losses",
            f"{reason}, so there is nothing to train; give one a weight, or skip the stage with budget.steps = 0",
        )


def _sampler_problems(
    name: str, config: LossConfig, fields: FieldSpec, latent: LatentSpec, shifts: bool
) -> Iterable[tuple[str, str]]:
    """Problems of a loss's sampler, and of the two together."""
    key, sampler = f"losses.{name}.sampler", getattr(config, "sampler", None)
    yield from forward_checks(key, sampler, fields, latent)
    if not isinstance(sampler, GivesWeights) or not sampler.gives_weights:
        return
    if sampler.remembers_places and shifts and all(fields.periodic):
        yield (
            key,
            "this sampler keeps errors by their places in the domain, and periodic_shifts moves every sample to "
            "another place; set periodic_shifts = false, or draw by what each batch is like: score = 'gradient'",
        )
    if not (isinstance(config, TakesWeights) and config.takes_weights):
        yield (
            key,
            "this sampler draws points that count unequally, which this loss cannot weigh: it is no plain mean over "
            "points, so that its expectation would not be the loss at all points; use the sampler 'uniform' or "
            "'stratified', or a loss that is one, such as 'forward'",
        )


def active_losses(losses: Mapping[str, LossConfig]) -> dict[str, LossConfig]:
    """The losses that can ever count: one with weight 0 is the same as none."""
    return {name: config for name, config in losses.items() if not _is_off(config)}


def weighting_of(name: str, config: LossConfig) -> Weighted:
    """How much a loss counts, and when; a config without these keys counts once."""
    return config if isinstance(config, Weighted) else Weighted()


def _is_off(config: LossConfig) -> bool:
    return isinstance(config, Weighted) and (config.weight == 0 or config.cap == 0)
