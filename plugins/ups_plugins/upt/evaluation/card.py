"""The score card: a model's numbers beside its floors, and what the numbers mean."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from attrs import frozen

from ups_kit.interfaces import Field

from .reach import Reach
from .scores import Score, Summary, finite, named_steps, ratio
from .shuffle import Shuffle
from .truth import Truth

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LATENT, REENCODED = "latent rollout", "re-encoded rollout"


@frozen
class Row:
    """One line of the card: a forecast, and its numbers in the order of the card's columns."""

    name: str
    values: tuple[float | None, ...]
    is_model: bool


@frozen
class Verdict:
    """Whether the model beats the floors that the recipe requires it to beat."""

    status: str  # "ok" or "below_floor"
    text: str


@frozen
class Card:
    """Everything that a person reads first."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    definition: Mapping[str, str]
    budget: Mapping[str, Summary]
    shuffle: Shuffle
    reach: tuple[Reach, ...]
    ratios: Mapping[str, float | None]
    verdict: Verdict

    def summary(self) -> dict[str, object]:
        """What the run's summary holds of it."""
        rows = {row.name: dict(zip(self.columns, row.values)) for row in self.rows}
        return {
            "definition": dict(self.definition),
            "rows": rows,
            "ratios": dict(self.ratios),
            "verdict": self.verdict.text,
        }


def columns(steps: int) -> tuple[str, ...]:
    """One step, the rollout at its named steps and as a whole, and how long it stays correlated."""
    later = [f"step {step}" for step in named_steps(steps) if step > 1]
    return ("one step", *later[-2:], "rollout", "VRMSE", "corr. time")


def row(name: str, one_step: Score, rollout: Score, steps: int, is_model: bool) -> Row:
    """A line of the card; every number is an nRMSE but the last two."""
    later = [rollout.summary[f"nrmse_step_{step}"] for step in named_steps(steps) if step > 1][-2:]
    numbers = (
        one_step.summary["nrmse"],
        *later,
        *(rollout.summary[key] for key in ("nrmse", "vrmse", "correlation_time")),
    )
    return Row(name, tuple(number if isinstance(number, float) else None for number in numbers), is_model)


def definition(truth: Truth, split: str, tokens: int) -> dict[str, str]:
    """What the numbers are: space, frames, denominators, order of averages (reliability of a score begins here)."""
    fields = truth.fields
    units = ", ".join(field_label(target) for target in fields.targets)
    first, last = truth.scored.start, truth.scored.stop - 1
    times = f"t = {truth.times[first]:.4g} to {truth.times[last]:.4g}"
    given = "frame 0" if truth.given == 1 else f"frames 0 to {truth.given - 1}"
    return {
        "data": f"{truth.samples} trajectories of the split '{split}', {truth.values.shape[2]} points, fields {units}",
        "space": "physical units: the normalisation is undone first",
        "frames": f"{given} given and never scored; frames {first} to {last} scored ({times})",
        "nrmse": "per sample, frame and channel: RMSE over points / RMS of the truth; then the mean",
        "vrmse": "per sample, frame and channel: sqrt(MSE / (variance of the truth in space + 1e-7)); then the mean",
        "average": "over channels, then over samples and scored frames, all alike",
        "one step": "each scored frame from the true frames before it",
        "rollout": f"each scored frame from {given} alone; 'step k' is the k-th frame after it, 'rollout' their mean",
        "corr. time": "time after the given frames at which the Pearson correlation first falls under 0.8, the last "
        "time if never; mean over samples",
        "linear autoregression": "one complex factor per Fourier mode, fitted on at most 64 training trajectories, "
        "the same for all parameter values",
        "interpolation": f"the true frame by cubic splines through as many of its points as there are tokens, {tokens}",
    }


OTHER_METRICS = {
    "rmse": "RMSE over points, in the field's unit",
    "max_error": "largest absolute error over points, in the field's unit",
    "crmse": "error of the field's integral per unit volume, in the field's unit",
    "brmse": "RMSE over boundary points: both sides of the seam of a periodic axis, first and last points of others",
    "frmse_low, _mid, _high": "Fourier error in the wave numbers 0-4, 5-12 and from 13 on: root of the summed squared "
    "amplitudes over the number of wave numbers",
    "nrmse_median, vrmse_median": "over samples and scored frames; the mean VRMSE is ruled by truths gone flat",
    "relative_l2": "error norm over truth norm, both over all scored frames and points of a sample",
    "geometric_mean_nrmse": "geometric mean over the scored frames, at most 100, of the samples' mean nRMSE",
}


def field_label(field: Field) -> str:
    """A field and its unit; nothing where it has none."""
    return field.name if field.unit in ("", "1") else f"{field.name} [{field.unit}]"


def verdict(name_of_model: str, model: Score, floors: Mapping[str, Score], required: Sequence[str]) -> Verdict:
    """Below the floor unless the judged rollout's nRMSE is under that of every required floor there is."""
    lost = [name for name in required if name in floors and not model.mean < floors[name].mean]
    asked = [name for name in required if name in floors]
    if lost:
        texts = [f"{name} ({floors[name].mean:.4g}{_factor(model.mean, floors[name].mean)})" for name in lost]
        return Verdict(
            "below_floor", f"below_floor: {name_of_model} nRMSE {model.mean:.4g} does not beat {', '.join(texts)}"
        )
    if not asked:
        return Verdict("ok", f"ok: {name_of_model} nRMSE {model.mean:.4g}; the recipe requires no floor to be beaten")
    texts = [f"{_times(model.mean, floors[name].mean)} {name} ({floors[name].mean:.4g})" for name in asked]
    return Verdict("ok", f"ok: {name_of_model} nRMSE {model.mean:.4g} is {', '.join(texts)}")


def _times(value: float, reference: float) -> str:
    return f"{value / reference:.3g} x"


def _factor(value: float, reference: float) -> str:
    """By how much a floor is missed; nothing where that is no finite number."""
    quotient = ratio(value, reference)
    return "" if quotient is None else f", missed by a factor of {quotient:.3g}"


def number(value: float | None) -> str:
    """Four significant digits in at most nine characters."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    return f"{value:.1e}" if abs(value) < 1e-4 or abs(value) >= 1e5 else f"{value:.4g}"


# ---------------------------------------------------------------------------------------------------------------------
# On the console
# ---------------------------------------------------------------------------------------------------------------------
def print_card(card: Card, stream: TextIO | None = None) -> None:
    """Print the card: with colours on a terminal, as plain text of at most 80 columns elsewhere."""
    from rich.console import Console

    stream = stream or sys.stdout
    console = Console(file=stream, highlight=False)
    with console.capture() as capture:
        _print_parts(card, console)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    with suppress(OSError):  # nobody reads it, as in `upskit run … | head`; the report has it all
        stream.write(capture.get().encode(encoding, "replace").decode(encoding))
        stream.flush()


def _print_parts(card: Card, console: Console) -> None:
    parts = {
        "nRMSE in physical units (VRMSE of the whole rollout)": _scores(card),
        "ratios of nRMSE": _ratios(card),
        "where the latent rollout's error comes from (nRMSE, by step)": _budget(card),
        "gradient norm of each loss alone, by part of the model": _reach(card),
    }
    for title, part in parts.items():
        if part is not None:
            console.print(title, markup=False, style="bold")
            console.print(part)
            console.print()
    console.print(shuffle_line(card.shuffle), markup=False)
    console.print()
    for name, text in card.definition.items():
        console.print(f"{name}: {text}", markup=False, style="dim")
    console.print()
    style = "bold green" if card.verdict.status == "ok" else "bold red"
    console.print(card.verdict.text, markup=False, style=style)


def shuffle_line(shuffle: Shuffle) -> str:
    """The parameter shuffle in a sentence."""
    if not shuffle.applicable:
        return f"parameters shuffled: {shuffle.reason}"
    names = ", ".join(shuffle.parameters)
    factor = "no finite ratio" if shuffle.ratio is None else f"ratio {shuffle.ratio:.3g}"
    verdict = "" if shuffle.ratio is None or shuffle.ratio > 1.05 else "; the model hardly uses them"
    numbers = f"rollout nRMSE {number(finite(shuffle.shuffled))}, its own {number(finite(shuffle.own))}"
    return f"parameters shuffled ({names}): {numbers}, {factor}{verdict}"


def _table(first: str, rest: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for name in rest:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _scores(card: Card) -> Table:
    table = _table("", card.columns)
    for line in card.rows:
        table.add_row(line.name, *map(number, line.values), style="bold" if line.is_model else None)
    return table


def _ratios(card: Card) -> Table:
    table = _table("", ("",))
    table.show_header = False
    for name, value in card.ratios.items():
        table.add_row(name, number(value))
    return table


def _budget(card: Card) -> Table:
    table = _table("", ("first", "last", "mean"))
    for name, part in card.budget.items():
        values = [part[key] for key in ("first", "last", "mean")]
        table.add_row(name, *(number(value if isinstance(value, float) else None) for value in values))
    return table


def _reach(card: Card) -> Table | None:
    if not card.reach:
        return None
    modules = list(card.reach[0].norms)
    table = _table("", modules)
    for line in card.reach:
        table.add_row(f"{line.stage}.{line.loss}", *(number(line.norms[name]) for name in modules))
    return table
