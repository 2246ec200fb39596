"""The contract of metrics: a number of each sample and frame, from physical fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .on_tiny import Case, cases
from .report import Skipped, expect
from .subject import Clause, Subject

IS_ERROR = "is_error"  # of a config class: False where a perfect forecast is not 0, as of a correlation
FRAMES = 3


def _metric(case: Case) -> Any:
    return case.config.build(case.fields)


def _truth(case: Case) -> Tensor:
    """(S, frames, N, C), physical, without padding."""
    batch = case.dataset.trajectories("train")
    values = batch.values[:3, :FRAMES]
    if batch.mask is None:
        return values
    return values[:, :, : int(batch.mask.sum(1).min())]


def _wrong(truth: Tensor) -> Tensor:
    return truth + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))


def _cases(subject: Subject) -> list[Case]:
    return cases(subject, lambda case: _metric(case)(_wrong(_truth(case)), _truth(case), case.fields))


def shapes(subject: Subject) -> str | None:
    """It gives a finite number for every sample and frame, (S, frames)."""
    for case in _cases(subject):
        truth = _truth(case)
        found = _metric(case)(_wrong(truth), truth, case.fields)
        shape, expected = tuple(found.shape), tuple(truth.shape[:2])
        expect(shape == expected, f"on {case.on}: {shape}, expected {expected}", "average over channels, not frames")
        expect(torch.isfinite(found).all(), f"on {case.on}: numbers that are not finite")
    return None


def perfect(subject: Subject) -> str | None:
    """A perfect forecast has the error 0, and a wrong one more."""
    if not getattr(subject.config, IS_ERROR, True):
        raise Skipped(f"its class says {IS_ERROR} = False")
    for case in _cases(subject):
        truth = _truth(case)
        best, worse = _metric(case)(truth, truth, case.fields), _metric(case)(_wrong(truth), truth, case.fields)
        mend = f"where it is no error, as a correlation, say {IS_ERROR}: ClassVar[bool] = False on the config class"
        expect(best.abs().max() <= 1e-6, f"on {case.on}: {float(best.abs().max()):.3g} for a perfect forecast", mend)
        expect(bool((worse > best).all()), f"on {case.on}: a wrong forecast is no worse than a perfect one", mend)
    return None


def constant_truth(subject: Subject) -> str | None:
    """A truth that is constant or 0 everywhere gives no NaN."""
    for case in _cases(subject):
        for level in (0.0, 2.0):
            truth = torch.full_like(_truth(case), level)
            for prediction in (truth, truth + 1):
                found = _metric(case)(prediction, truth, case.fields)
                mend = "bound what divides from below, as nrmse and vrmse do"
                expect(not torch.isnan(found).any(), f"on {case.on}: NaN where the truth is {level:g}", mend)
    return None


def samples_apart(subject: Subject) -> str | None:
    """The number of a sample does not depend on the others."""
    for case in _cases(subject):
        truth = _truth(case)
        wrong = _wrong(truth)
        together = _metric(case)(wrong, truth, case.fields)
        for sample in range(len(truth)):
            part = slice(sample, sample + 1)
            alone = _metric(case)(wrong[part], truth[part], case.fields)
            expect(torch.allclose(together[part], alone, rtol=1e-5), f"on {case.on}: another number of a sample alone")
    return None


def builds(subject: Subject) -> str | None:
    """It is built for the tiny data that its `check` allows, and measures on them."""
    _cases(subject)
    return None


CLAUSES: Mapping[str, Clause] = {
    "builds": builds,
    "shapes": shapes,
    "perfect": perfect,
    "constant-truth": constant_truth,
    "samples-apart": samples_apart,
}
