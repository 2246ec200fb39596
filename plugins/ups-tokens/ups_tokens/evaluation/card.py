"""The score card: the model's numbers beside its floors, what they mean, and whether it beats those."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from ..dataset import TokenDataset
from .config import TokenEvaluationConfig
from .measuring import EXPECTED, NEXT, Measured, Numbers

VERSION = 1  # raised when a number would come out otherwise for the same model

DEFINITION = {
    "next token": "every token is predicted from the true ones before it; BOS, PAD and MISSING are no targets",
    "cross-entropy": "nats per target among all of the vocabulary, and its exponential, the perplexity; that of one "
    "modality, and its accuracy, are within the modality's own tokens",
    "MSE": "per target the mean over the numbers of its centroid, then over targets; 'to values' against what the "
    "tokens were made from, in the place of the centroid",
    "expected value": "softmax within the modality's tokens, times their centroids",
    "arg-max": "the centroid of the token that is most likely",
    "unigram": "how often tokens come in the train split (plus 1/2 each); it is told the modality of each target",
    "previous": "the token of the same modality before it in the sequence; the unigram's mean where there is none",
    "quantisation": "the target's own centroid: what no model of these tokens can fall below",
}


@frozen
class Verdict:
    """Whether the model beats what its recipe requires it to beat."""

    status: str  # "ok" or "below_floor"
    text: str


@frozen(eq=False)
class Card:
    """Everything that a person reads first."""

    rows: Mapping[str, Numbers]
    columns: tuple[str, ...]
    verdict: Verdict
    fingerprint: Mapping[str, Any]

    def summary(self) -> dict[str, Any]:
        """What the run's summary holds of it."""
        return {
            "definition": dict(DEFINITION),
            "fingerprint": dict(self.fingerprint),
            "rows": {
                name: {title(key): value for key, value in numbers.items()} for name, numbers in self.rows.items()
            },
            "verdict": self.verdict.text,
        }


def make_card(measured: Measured, dataset: TokenDataset, config: TokenEvaluationConfig) -> Card:
    """The card of what was measured."""
    columns = dict.fromkeys(key for numbers in measured.rows.values() for key in numbers)
    return Card(measured.rows, tuple(columns), verdict(measured, config), _fingerprint(measured, dataset, config))


def title(key: str) -> str:
    """A number's name as a column: "image_mse_to_values" is "image MSE to values"."""
    for ending, words in ENDINGS.items():
        if key.endswith(ending):
            return (key.removesuffix(ending) + words).strip()
    return key


ENDINGS = {
    "_mse_to_values": " MSE to values",
    "_mse": " MSE",
    "_cross_entropy": " cross-entropy",
    "cross_entropy": "cross-entropy",
    "_accuracy": " accuracy",
}


def _fingerprint(measured: Measured, dataset: TokenDataset, config: TokenEvaluationConfig) -> dict[str, Any]:
    """What must be equal for numbers of two score cards to mean the same: for `upskit compare`."""
    books = hashlib.sha256()
    for name in dataset.description.vocabulary.names:
        books.update(dataset.description.codebooks[name].tobytes())
    return {
        "evaluator": "ups_tokens token_evaluation",
        "version": VERSION,
        "split": config.split,
        "sequences": measured.sequences,
        "length": dataset.description.length,
        "modalities": list(dataset.description.vocabulary.names),
        "codebooks": books.hexdigest(),
        "scored": measured.scored,
    }


def verdict(measured: Measured, config: TokenEvaluationConfig) -> Verdict:
    """Below the floor unless every judged number is under that of every required floor that has it."""
    lost, won = [], []
    for label, value, floor, bound in _duels(measured, config):
        if value < bound:
            won.append(f"{label} {value / bound:.3g} x {floor}")
        else:
            lost.append(f"{label} {value:.4g} does not beat {floor} ({bound:.4g})")
    if lost:
        return Verdict("below_floor", f"below_floor: {'; '.join(lost)}")
    said = ", ".join(won) if won else "the recipe requires no floor to be beaten"
    return Verdict("ok", f"ok: {said}")


def _duels(measured: Measured, config: TokenEvaluationConfig) -> Iterator[tuple[str, float, str, float]]:
    """What is judged: its name, the model's number, the floor, the floor's number."""
    keys = []
    if config.judged in ("cross_entropy", "both"):
        keys.append((NEXT, "cross_entropy"))
    if config.judged in ("expected_value", "both"):
        keys += [(EXPECTED, f"{name}_mse") for name in measured.targets]
    for row, key in keys:
        for floor in config.floors:
            bound = measured.rows.get(floor, {}).get(key)
            if bound is not None:
                yield title(key), measured.rows[row][key], floor, bound
