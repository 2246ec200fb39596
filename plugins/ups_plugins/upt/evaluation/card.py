"""The score card: a model's numbers beside its floors, and what the numbers mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from ups_kit.interfaces import Table

from .config import EvaluateConfig
from .definitions import definition, drawn_definition, fingerprint
from .ensembles import Ensembles
from .measurement import Measured
from .particles import HORIZONS
from .reach import Reach
from .scores import Score, Summary, field_channels, named_steps, ratio
from .shuffle import Shuffle

LATENT, REENCODED, ANSWER = "latent rollout", "re-encoded rollout", "answer"
STEADY_COLUMNS = {
    "nRMSE": "nrmse",
    "median": "nrmse_median",
    "VRMSE": "vrmse",
    "RMSE": "rmse",
    "max error": "max_error",
}
DRAWN_COLUMNS = {
    "member": "nrmse_member",
    "mean": "nrmse",
    "VRMSE": "vrmse",
    "CRPS": "crps",
    "spread": "spread_skill",
    "in 90 %": "coverage",
}


@frozen
class Row:
    """One line of the card: a forecast, and its numbers in the order of the card's columns."""

    name: str
    values: tuple[float | None, ...]
    is_model: bool


@frozen
class Drawn:
    """Forecasts that are drawn, side by side with the operator alone, and which of them help."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    findings: tuple[str, ...]  # a sentence on each
    default: str  # and one on the default, which tasks have in common
    definition: Mapping[str, str]


@frozen
class Verdict:
    """Whether the model beats the floors that the recipe requires it to beat."""

    status: str  # "ok" or "below_floor"
    text: str


@frozen
class Card:
    """Everything that a person reads first."""

    steady: bool
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    fields: tuple[str, ...]  # of `by_field`; none where there is one field
    by_field: tuple[Row, ...]  # nRMSE of each field
    places: tuple[str, ...]  # columns of `by_place`; none where points stand still
    by_place: tuple[Row, ...]  # how well points are moved
    definition: Mapping[str, str]
    fingerprint: Mapping[str, Any]
    budget: Mapping[str, Summary]
    shuffle: Shuffle
    shuffle_statics: Shuffle
    reach: tuple[Reach, ...]
    ratios: Mapping[str, float | None]
    verdict: Verdict
    drawn: Drawn | None = None

    def summary(self) -> dict[str, object]:
        """What the run's summary holds of it."""
        rows = {row.name: dict(zip(self.columns, row.values)) for row in self.rows}
        moved = {row.name: dict(zip(self.places, row.values)) for row in self.by_place}
        return {
            "definition": dict(self.definition),
            "fingerprint": dict(self.fingerprint),
            "rows": rows,
            **({"positions": moved} if moved else {}),
            "ratios": dict(self.ratios),
            "verdict": self.verdict.text,
        }

    def tables(self) -> dict[str, Table]:
        """The tables for trackers: the card, and what there is besides it by field, by place and of drawn forecasts."""
        found = {"card": (self.columns, self.rows)}
        found |= {"card_by_field": (self.fields, self.by_field)} if self.by_field else {}
        found |= {"card_by_place": (self.places, self.by_place)} if self.by_place else {}
        found |= {"drawn": (self.drawn.columns, self.drawn.rows)} if self.drawn is not None else {}
        return {
            name: Table(("forecast", *columns), tuple((row.name, *row.values) for row in rows))
            for name, (columns, rows) in found.items()
        }


def make_card(measured: Measured, config: EvaluateConfig) -> Card:
    """The card of what was measured."""
    truth, steady = measured.truth, measured.truth.fields.steady
    fields = tuple(field_channels(truth.fields)) if len(truth.fields.targets) > 1 else ()
    judged = ANSWER if steady else LATENT if config.judged == "latent" else REENCODED
    return Card(
        steady,
        tuple(STEADY_COLUMNS) if steady else columns(truth.steps),
        tuple(_rows(measured)),
        fields,
        tuple(_field_rows(measured, fields)),
        tuple(place_columns(measured)),
        tuple(_place_rows(measured)),
        definition(truth, config.split, measured.tokens, measured.remarks) | _prior_definition(measured),
        fingerprint(truth, config),
        measured.budget,
        measured.shuffle,
        measured.shuffle_statics,
        measured.reach,
        ratios(measured),
        verdict(
            judged,
            measured.reencoded if judged == REENCODED else measured.latent,
            {name: found.rollout for name, found in measured.floors.items()},
            config.required(truth.fields),
        ),
        None if measured.ensembles is None else _drawn(measured.ensembles, config.split),
    )


def _prior_definition(measured: Measured) -> dict[str, str]:
    """What stands in the operator's place, where that was not trained."""
    if measured.prior is None or measured.ensembles is None:
        return {}
    return {"answer": f"the mean of {measured.ensembles.members} draws of '{measured.prior.name}'; no operator trained"}


def models(measured: Measured) -> dict[str, Score]:
    """The model's rows by name: its rollouts, or its one answer."""
    if measured.truth.fields.steady:
        return {ANSWER: measured.latent}
    return {LATENT: measured.latent, REENCODED: measured.reencoded}


def _rows(measured: Measured) -> list[Row]:
    found = models(measured)
    if measured.truth.fields.steady:
        scores = {**found, **{name: floor.rollout for name, floor in measured.floors.items()}}
        return [
            Row(name, tuple(_number(score, key) for key in STEADY_COLUMNS.values()), name in found)
            for name, score in scores.items()
        ]
    steps = measured.truth.steps
    return [
        *(row(name, measured.one_step, score, steps, True) for name, score in found.items()),
        *(row(name, floor.one_step, floor.rollout, steps, False) for name, floor in measured.floors.items()),
    ]


def _field_rows(measured: Measured, fields: Sequence[str]) -> list[Row]:
    if not fields:
        return []
    found = models(measured)
    scores = {**found, **{name: floor.rollout for name, floor in measured.floors.items()}}
    if not measured.truth.fields.steady:
        scores = {"one step": measured.one_step, **scores}
    return [
        Row(name, tuple(_number(score, f"nrmse/{field}") for field in fields), name in found or name == "one step")
        for name, score in scores.items()
    ]


def place_columns(measured: Measured) -> dict[str, str]:
    """The names of the numbers of moving points that the card shows, by column."""
    if not measured.truth.moving:
        return {}
    steps = [horizon for horizon in HORIZONS if horizon <= measured.truth.steps]
    shown = {f"{horizon} steps": f"position_mse_{horizon}" for horizon in steps}
    shown |= {"all steps": "position_mse", "energy": "kinetic_energy_mse"}
    return shown | ({"Sinkhorn": f"sinkhorn_{steps[-1]}"} if steps else {})


def _place_rows(measured: Measured) -> list[Row]:
    shown, found = place_columns(measured).values(), models(measured)
    scores = {**found, **{name: floor.rollout for name, floor in measured.floors.items()}}
    rows = [Row(name, tuple(_number(score, key) for key in shown), name in found) for name, score in scores.items()]
    return rows if shown else []


def _number(score: Score, key: str) -> float | None:
    value = score.summary.get(key)
    return value if isinstance(value, float) else None


def _drawn(ensembles: Ensembles, split: str) -> Drawn:
    """The table of drawn forecasts; times are milliseconds."""
    chosen, (name, floor) = ensembles.choice, ensembles.floor
    rows = [
        Row(variant.name, _drawn_numbers(score.summary, ensembles.seconds[variant]), variant == chosen.default)
        for variant, score in ensembles.scores.items()
    ]
    return Drawn(
        f"drawn forecasts: {ensembles.members} members, {ensembles.truth.samples} of '{split}'",
        (*DRAWN_COLUMNS, "ms/step"),
        (*rows, Row(name, _drawn_numbers(floor.summary, None), False)),
        tuple(found.sentence for found in chosen.findings),
        f"default: {chosen.default.name}: {chosen.shortly}",
        drawn_definition(ensembles.members, ensembles.rollout, chosen),
    )


def _drawn_numbers(summary: Summary, seconds: float | None) -> tuple[float | None, ...]:
    values = [summary.get(key) for key in DRAWN_COLUMNS.values()]
    numbers = [value if isinstance(value, float) else None for value in values]
    return (*numbers, None if seconds is None else float(f"{1000 * seconds:.2g}"))


def columns(steps: int) -> tuple[str, ...]:
    """One step, the rollout at its named steps and as a whole, and how long it stays correlated."""
    later = [f"step {step}" for step in named_steps(steps) if step > 1]
    return ("one step", *later[-2:], "rollout", "VRMSE", "corr. time")


def row(name: str, one_step: Score, rollout: Score, steps: int, is_model: bool) -> Row:
    """A line of the card; every number is an nRMSE but the last two."""
    later = [f"nrmse_step_{step}" for step in named_steps(steps) if step > 1][-2:]
    numbers = [_number(rollout, key) for key in (*later, "nrmse", "vrmse", "correlation_time")]
    return Row(name, (_number(one_step, "nrmse"), *numbers), is_model)


def ratios(measured: Measured) -> dict[str, float | None]:
    """The model's nRMSE over those that it is most often held against."""
    floors, latent = measured.floors, measured.latent.mean
    if measured.truth.fields.steady:
        shown = [name for name in ("train_mean", "nearest_sample", "linear_regression") if name in floors]
        return {f"answer / {name.replace('_', ' ')}": ratio(latent, floors[name].rollout.mean) for name in shown}
    reference, name = floors[measured.reference], measured.reference.replace("_", " ")
    return {
        f"one step / {name}": ratio(measured.one_step.mean, reference.one_step.mean),
        f"latent rollout / {name}": ratio(latent, reference.rollout.mean),
        "latent rollout / re-encoded rollout": ratio(latent, measured.reencoded.mean),
        **{
            f"position MSE, {horizon} steps / {name}": _ratio_of(measured.latent, reference.rollout, key)
            for horizon, key in ((horizon, f"position_mse_{horizon}") for horizon in HORIZONS)
            if key in measured.latent.summary
        },
    }


def _ratio_of(score: Score, reference: Score, key: str) -> float | None:
    value, other = _number(score, key), _number(reference, key)
    return None if value is None or other is None else ratio(value, other)


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
