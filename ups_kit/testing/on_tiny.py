"""Which of the tiny data a component can be built for, and what it is given there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import frozen

from ..errors import PluginError, UpsKitError
from ..interfaces import Checks, FieldSpec, LatentSpec
from .report import Broken
from .subject import Subject, told
from .tiny import PLACES, WIDTH, Place, TinyDatasetConfig

if TYPE_CHECKING:
    from ..interfaces import Batch
    from .tiny_data import TinyDataset

LATENTS = (LatentSpec(WIDTH), LatentSpec(WIDTH, tokens=8))
STEPS = 2  # future frames of a batch


@frozen(eq=False)
class Case:
    """A component's config on some tiny data that it is made for."""

    on: Place
    config: Any
    fields: FieldSpec
    latent: LatentSpec

    @property
    def dataset(self) -> TinyDataset:
        return dataset(self.on)

    def batch(self, samples: int = 3, first: int = 0) -> Batch:
        """Train windows of these data."""
        return dataset(self.on).batch("train", first + np.arange(samples), 1 if self.fields.steady else STEPS)


@cache
def dataset(on: Place) -> TinyDataset:
    """The tiny data of this name, made once."""
    built: TinyDataset = TinyDatasetConfig(on=on).build(0)
    return built


def cases(subject: Subject, build: Callable[[Case], object]) -> list[Case]:
    """The component on all tiny data that it is made for: as it is by default on the first, and tiny on the others.

    What `check` refuses, and what `build` refuses with an error of ours, is not what it is made for. Raises Broken
    where none fits.
    """
    return subject.once("cases", lambda: _cases(subject, build))


def _cases(subject: Subject, build: Callable[[Case], object]) -> list[Case]:
    refusals: list[str] = []
    found: list[Case] = []
    for on in PLACES:
        found += _fitting(subject, on, build, refusals, defaults_first=not found)
    subject.on[:] = [case.on for case in found]
    if not found:
        raise Broken(
            f"none of the tiny data fits ({', '.join(PLACES)}); {'; '.join(refusals[:3])}",
            "give the class `tiny: ClassVar[Mapping[str, Any]]`, or the check `settings`, with which one does",
        )
    return found


def _fitting(
    subject: Subject, on: Place, build: Callable[[Case], object], refusals: list[str], defaults_first: bool
) -> Iterator[Case]:
    """The first version that fits, or nothing; why the others do not is added to `refusals`."""
    fields = PLACES[on]
    for config in subject.versions(defaults_first):
        for latent in LATENTS:
            problems = list(config.check(fields, latent)) if isinstance(config, Checks) else []
            if problems:
                refusals.append(f"{on}: {problems[0][0]}: {problems[0][1]}")
                continue
            case = Case(on, config, fields, latent)
            try:
                build(case)
            except PluginError:
                raise  # a contract that is broken
            except UpsKitError as error:
                refusals.append(f"{on}: {told(error)}")
                continue
            yield case
            return
