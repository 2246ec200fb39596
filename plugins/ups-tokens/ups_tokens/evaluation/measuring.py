"""One pass over a split: sums of errors of the model and of its floors, and the sequences that the report shows."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict

import torch
from attrs import define, field, frozen
from torch import Tensor

from ups_kit.batching import to_device
from ups_kit.errors import DataError

from ..dataset import TokenDataset
from ..model.transformer import TokenTransformer
from ..training.forward import TokenPass
from ..training.losses import NextToken, expected_values
from ..training.validation import spread
from .floors import Unigram, fitted_unigram, previous_values, quantised

NEXT, EXPECTED, ARG_MAX = "next_token", "expected_value", "arg_max"
UNIGRAM, PREVIOUS, QUANTISATION = "unigram", "previous", "quantisation"
MODELS = (NEXT, EXPECTED, ARG_MAX)
SCALARS = 2000  # values of a scalar that are drawn, at most

Numbers = dict[str, float]


@frozen(eq=False)
class Drawn:
    """One sequence's tokens of one modality as values, (n, d_m) each."""

    truth: Tensor  # the targets' own centroids
    expected: Tensor
    arg_max: Tensor
    original: Tensor | None  # what the tokens were made from, where the data keep it


@define(eq=False)
class Measured:
    """What came of it: every number is a mean over targets."""

    sequences: int = 0
    targets: dict[str, int] = field(factory=dict)  # of each modality
    rows: dict[str, Numbers] = field(factory=dict)  # by forecast
    drawn: dict[str, list[Drawn]] = field(factory=dict)  # by modality
    scalars: dict[str, Tensor] = field(factory=dict)  # by modality: (n, 2), truth and expected value
    scored: str = ""  # a hash of the tokens

    @property
    def models(self) -> dict[str, Numbers]:
        return {name: numbers for name, numbers in self.rows.items() if name in MODELS}

    @property
    def floors(self) -> dict[str, Numbers]:
        return {name: numbers for name, numbers in self.rows.items() if name not in MODELS}


class _Sums:
    """Sums by forecast and number, and how many they are of."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])

    def add(self, row: str, name: str, values: Tensor) -> None:
        entry = self._sums[row, name]
        entry[0] += float(values.double().sum())
        entry[1] += len(values)

    def rows(self) -> dict[str, Numbers]:
        found: dict[str, Numbers] = {}
        for (row, name), (total, count) in self._sums.items():
            if count:
                found.setdefault(row, {})[name] = total / count
        return found


@torch.no_grad()
def measure(
    model: TokenTransformer,
    dataset: TokenDataset,
    device: torch.device,
    split: str,
    samples: int | None,
    batch: int,
    shown: int,
) -> Measured:
    """Score a model on a split. Raises DataError where it has no target at all."""
    measured, sums, unigram = Measured(), _Sums(), fitted_unigram(dataset)
    names, digest = dataset.description.vocabulary.names, hashlib.sha256()
    model.eval()
    for numbers in spread(dataset.count(split), samples, batch):
        held = dataset.batch(split, numbers)
        digest.update(held.tokens.numpy().tobytes())
        seen, originals = TokenPass(model, to_device(held, device)), quantised(dataset, split, numbers, device)
        measured.sequences += held.samples
        _everything(seen, sums, unigram)
        for name in names:
            _modality(seen, name, originals.get(name), sums, unigram, measured, shown)
    measured.rows, measured.scored = sums.rows(), digest.hexdigest()
    if NEXT not in measured.rows:
        raise DataError(f"the split '{split}' has no token that could be predicted, so there is nothing to score")
    for row in (NEXT, UNIGRAM):
        measured.rows[row]["perplexity"] = math.exp(min(measured.rows[row]["cross_entropy"], 700.0))
    order = (*MODELS, UNIGRAM, PREVIOUS, QUANTISATION)
    measured.rows = {name: measured.rows[name] for name in order if name in measured.rows}
    return measured


def _everything(seen: TokenPass, sums: _Sums, unigram: Unigram) -> None:
    """Cross-entropy of all targets, among all of the vocabulary; the floor is told each target's modality."""
    places = seen.places(None)
    sums.add(NEXT, "cross_entropy", NextToken().errors(seen, places))
    special = seen.targets[places][seen.targets[places] < len(seen.spec.vocabulary.special)]
    sums.add(UNIGRAM, "cross_entropy", unigram.nats(None, special))
    for name in seen.spec.vocabulary.names:
        numbers = seen.numbers(seen.places(name), name)
        sums.add(UNIGRAM, "cross_entropy", unigram.nats(name, numbers))


def _modality(
    seen: TokenPass,
    name: str,
    originals: Tensor | None,
    sums: _Sums,
    unigram: Unigram,
    measured: Measured,
    shown: int,
) -> None:
    """Everything that is said of one modality's targets: logits are those of its own block."""
    places = seen.places(name)
    if not len(places):
        return
    measured.targets[name] = measured.targets.get(name, 0) + len(places)
    codebook, numbers, logits = seen.codebook(name), seen.numbers(places, name), seen.logits(places, name)
    truth, best, usual = codebook[numbers], logits.argmax(-1), unigram.value(name, codebook)
    values = {
        EXPECTED: expected_values(logits, codebook),
        ARG_MAX: codebook[best],
        UNIGRAM: usual.expand_as(truth),
        PREVIOUS: previous_values(seen, places, name, usual),
    }
    if originals is not None:
        values[QUANTISATION] = truth
    for row, found in values.items():
        if row != QUANTISATION:
            sums.add(row, f"{name}_mse", _squared(found, truth))
        if originals is not None:
            sums.add(row, f"{name}_mse_to_values", _squared(found, originals))
    sums.add(NEXT, f"{name}_cross_entropy", torch.nn.functional.cross_entropy(logits, numbers, reduction="none"))
    sums.add(UNIGRAM, f"{name}_cross_entropy", unigram.nats(name, numbers))
    sums.add(ARG_MAX, f"{name}_accuracy", best == numbers)
    sums.add(UNIGRAM, f"{name}_accuracy", unigram.shares[name].argmax().to(numbers.device) == numbers)
    _keep(seen, name, (truth, values[EXPECTED], values[ARG_MAX], originals), places, measured, shown)


def _squared(values: Tensor, truth: Tensor) -> Tensor:
    return (values - truth).square().mean(-1)


def _keep(
    seen: TokenPass,
    name: str,
    values: tuple[Tensor, Tensor, Tensor, Tensor | None],
    places: Tensor,
    measured: Measured,
    shown: int,
) -> None:
    """The first sequences that have the modality, for the report, and pairs of scalars."""
    truth, expected, best, originals = (None if part is None else part.float().cpu() for part in values)
    assert truth is not None
    assert expected is not None
    assert best is not None
    if seen.spec.vocabulary[name].kind == "scalar":
        pairs = torch.cat([measured.scalars.get(name, torch.empty(0, 2)), torch.cat([truth, expected], 1)])
        measured.scalars[name] = pairs[:SCALARS]
        return
    kept, samples = measured.drawn.setdefault(name, []), seen.samples_of(places).cpu()
    for sample in sorted(set(samples.tolist()))[: max(0, shown - len(kept))]:
        own = samples == sample
        kept.append(Drawn(truth[own], expected[own], best[own], None if originals is None else originals[own]))
