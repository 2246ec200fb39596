"""The contract of whole models, as far as it can be checked without their family's own batches."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import nn

from .modules import deterministic, module_of, seeded, state_survives
from .report import Skipped, expect
from .subject import Clause, Subject


def _build(subject: Subject) -> nn.Module:
    if subject.described is None:
        raise Skipped("it is built from what its family's data are: give `described`")
    return module_of(subject.small.build(subject.described))


def describes(subject: Subject) -> str | None:
    """The description of its data is plain, and read back it builds the same model."""
    one = seeded(lambda: _build(subject))
    values = json.loads(json.dumps(subject.described.to_dict()))
    again = subject.small.read_description(values)
    other = seeded(lambda: module_of(subject.small.build(again)))
    shapes = [{name: tuple(value.shape) for name, value in each.state_dict().items()} for each in (one, other)]
    expect(shapes[0] == shapes[1], "other weights", "let read_description undo to_dict")
    return None


def repeats(subject: Subject) -> str | None:
    """One seed gives the same weights."""
    deterministic(lambda: _build(subject), lambda module: torch.zeros(1))
    return None


def state(subject: Subject) -> str | None:
    """Its state is plain, and survives being saved and loaded with `weights_only`."""
    state_survives(lambda: _build(subject), lambda module: torch.zeros(1))
    return None


CLAUSES: Mapping[str, Clause] = {"description": describes, "deterministic": repeats, "state-round-trip": state}
