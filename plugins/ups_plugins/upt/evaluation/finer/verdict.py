"""In words: where decoding at fine points is better than interpolating there, and where it is not."""

from __future__ import annotations

from ..card import number
from .measuring import Finer, Line

KINDS = {"one_step": "one step", "rollout": "rollout", "encode_decode": "encode-decode"}
ALIKE = 0.01  # what errors differ by, relatively, when neither way wins


def verdict(finer: Finer) -> list[str]:
    """For every finer factor: the decoder against splines through its own forecast, the codec against splines."""
    return [sentence for line in finer.lines if line.factor > 1 for sentence in _sentences(line, finer.fields.steady)]


def _sentences(line: Line, steady: bool) -> list[str]:
    decoded, interpolated = line.scores["decoded"], line.scores["interpolated"]
    kinds = {"rollout": "answer"} if steady else {kind: KINDS[kind] for kind in ("one_step", "rollout")}
    sentences = []
    for kind, label in kinds.items():
        own, other = decoded[kind].nrmse, interpolated[kind].nrmse
        numbers = f"decoded there {number(own)}, the model's coarse forecast interpolated {number(other)}"
        sentences.append(f"×{line.factor}, {label}: {numbers}: {_winner(own, other, 'decoding')}")
    if not steady:
        name, floor = floor_of(line)
        own = decoded["encode_decode"].nrmse
        numbers = f"encoded and decoded there {number(own)}, the given truth by {name} {number(floor)}"
        sentences.append(f"×{line.factor}, states alone: {numbers}: {_winner(own, floor, 'the codec')}")
    return sentences


def floor_of(line: Line) -> tuple[str, float | None]:
    """The best interpolation of the given truth, and its nRMSE."""
    labels = {"splines": "splines", "trigonometric": "trigonometric interpolation"}
    found = {label: line.scores[way]["encode_decode"].nrmse for way, label in labels.items() if way in line.scores}
    known = {label: value for label, value in found.items() if value is not None}
    name = min(known, key=lambda label: known[label], default="splines")
    return name, known.get(name)


def _winner(own: float | None, other: float | None, name: str) -> str:
    if own is None or other is None:
        return "not finite" if own is None else f"{name} wins"
    if abs(own - other) <= ALIKE * max(own, other):
        return "no difference"
    return f"{name} wins" if own < other else "interpolation wins"
