"""The contract of samplers: which points are drawn, as a pure function of a generator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..interfaces import Batch, GivesWeights, HoldsState, ObservesErrors, Progress, Sampler, WeighsPoints
from .modules import loaded
from .on_tiny import Case, cases
from .report import Skipped, expect
from .subject import Clause, Subject

ENDS = (Progress(0, 0.0, 0.0), Progress(50, 5.0, 0.5), Progress(100, 10.0, 1.0))
DRAWS = 200  # that an expectation is taken over
DEVIATIONS = 5  # of the mean of so many draws


def _build(case: Case) -> Sampler:
    built: Sampler = case.config.build(case.fields)
    return built


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _cases(subject: Subject) -> list[Case]:
    return cases(subject, lambda case: _drawn(_build(case), case.batch(), ENDS[0], 0))


def _drawn(sampler: Sampler, batch: Batch, progress: Progress, seed: int) -> Tensor | None:
    """Points drawn as training draws them: weighed, where the sampler can."""
    if isinstance(sampler, WeighsPoints):
        found = sampler.weighed(batch, progress, _generator(seed))
        return None if found is None else found.points
    return sampler(batch.places(0), batch.grid, progress, _generator(seed), batch.mask)


def indices(subject: Subject) -> str | None:
    """It draws indices (B, Q), int64, distinct within a sample and in range, or None for all points."""
    for case in _cases(subject):
        sampler, batch = _build(case), case.batch()
        for progress in ENDS:
            for found in (_drawn(sampler, batch, progress, 1), _plain(sampler, batch, progress)):
                if found is not None:
                    _check_indices(found, batch, f"on {case.on}, epoch {progress.epoch:g}")
    return None


def _plain(sampler: Sampler, batch: Batch, progress: Progress) -> Tensor | None:
    return sampler(batch.places(0), batch.grid, progress, _generator(2), batch.mask)


def _check_indices(found: Tensor, batch: Batch, where: str) -> None:
    samples, points = batch.states.shape[0], batch.states.shape[2]
    right = found.dim() == 2 and len(found) == samples and found.dtype == torch.int64
    expect(right, f"{where}: {tuple(found.shape)} {found.dtype}", "return int64 indices (batch, queries)")
    inside = bool(((found >= 0) & (found < points)).all())
    expect(inside, f"{where}: indices from {int(found.min())} to {int(found.max())} for {points} points")
    distinct = all(len(row.unique()) == len(row) for row in found)
    expect(distinct, f"{where}: a point was drawn twice", "draw without replacement")


def never_padding(subject: Subject) -> str | None:
    """Points whose mask is false are never drawn."""
    for case in _cases(subject):
        batch = case.batch()
        mask = torch.ones(batch.states.shape[0], batch.states.shape[2], dtype=torch.bool)
        mask[:, -5:] = False
        masked = batch._replace(mask=mask)
        sampler = _build(case)
        for progress in ENDS:
            for seed in range(4):
                for found in (
                    _drawn(sampler, masked, progress, seed),
                    sampler(masked.places(0), None, progress, _generator(seed), mask),
                ):
                    if found is not None:
                        real = bool(mask.gather(1, found).all())
                        mend = "give points whose mask is false no chance, and draw as many as the least sample has"
                        expect(real, f"on {case.on}: padding was drawn", mend)
    return None


def seeded_draws(subject: Subject) -> str | None:
    """A draw is a pure function of its arguments and of the generator's state."""
    for case in _cases(subject):
        batch, sampler = case.batch(), _build(case)
        one, again = _drawn(sampler, batch, ENDS[0], 3), _drawn(_build(case), batch, ENDS[0], 3)
        _drawn(sampler, batch, ENDS[0], 4)
        later = _drawn(sampler, batch, ENDS[0], 3)
        for other in (again, later):
            equal = (one is None and other is None) or (
                one is not None and other is not None and torch.equal(one, other)
            )
            expect(equal, f"on {case.on}: one seed gave two draws", "draw from the given generator, and keep nothing")
    return None


def unbiased(subject: Subject) -> str | None:
    """Weights are positive, and Σ weight · value is in expectation the mean over all real points."""
    for case in _cases(subject):
        sampler, batch = _build(case), case.batch()
        says = isinstance(case.config, GivesWeights) and case.config.gives_weights
        weighs = isinstance(sampler, WeighsPoints)
        expect(
            says == weighs,
            f"gives_weights is {says} of the config, and the sampler {'has' if weighs else 'has no'} `weighed`",
            "gives_weights: ClassVar[bool] = True on the config of a sampler with `weighed`",
        )
        if not isinstance(sampler, WeighsPoints):
            raise Skipped("all its points count alike")
        if case.fields.space_dims < 3:  # where it would take longest, and show nothing new
            _check_mean(sampler, batch, f"on {case.on}")
    return None


def _check_mean(sampler: WeighsPoints, batch: Batch, where: str) -> None:
    values = batch.states[:, 0, :, 0].double() + 1
    mask = torch.ones_like(values, dtype=torch.bool) if batch.mask is None else batch.mask
    found = []
    for seed in range(DRAWS):
        drawn = sampler.weighed(batch, ENDS[0], _generator(seed))
        if drawn is None:
            return
        expect(bool((drawn.weights > 0).all()), f"{where}: weights that are not above 0")
        found.append((drawn.weights.double() * values.gather(1, drawn.points)).sum(1))
    means = torch.stack(found)
    truth = (values * mask).sum(1) / mask.sum(1)
    error = means.std(0) / DRAWS**0.5 + 1e-6
    off = ((means.mean(0) - truth).abs() / error).max()
    mend = "the weight of a point is 1 / (N · its chance)"
    expect(off < DEVIATIONS, f"{where}: the mean of {DRAWS} draws is {float(off):.1f} standard errors off", mend)


def state(subject: Subject) -> str | None:
    """What it keeps from step to step is plain, survives being saved, and gives the same draws."""
    for case in _cases(subject):
        sampler, batch = _build(case), case.batch()
        if not isinstance(sampler, HoldsState):
            raise Skipped("it keeps nothing from step to step")
        _observed(sampler, batch)
        sampler.advance(True)
        other: Any = _build(case)
        other.load_state_dict(loaded(sampler.state_dict()))
        one, again = _drawn(sampler, batch, ENDS[0], 5), _drawn(other, batch, ENDS[0], 5)
        equal = one is None or again is None or torch.equal(one, again)
        expect(equal, f"on {case.on}: other draws after its state was loaded", "keep all that draws depend on")
    return None


def _observed(sampler: Any, batch: Batch) -> None:
    if isinstance(sampler, ObservesErrors):
        squared = batch.states[:, 0].double().square().mean(-1)
        sampler.observe(batch.places(0), squared, None, batch.mask)


def builds(subject: Subject) -> str | None:
    """It is built for the tiny data, and draws points of them."""
    _cases(subject)
    return None


CLAUSES: Mapping[str, Clause] = {
    "builds": builds,
    "indices": indices,
    "never-padding": never_padding,
    "seeded": seeded_draws,
    "unbiased": unbiased,
    "state-round-trip": state,
}
