"""`report.html`: one file that holds everything, and asks nothing of any other machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from attrs import frozen
from matplotlib.figure import Figure

from .card import Card, Row, number
from .definitions import OTHER_METRICS, PARTICLE_METRICS
from .facts import Facts
from .page import PAGE, STYLE, definitions, image_of, paragraph, picture, section, small_print, table_of
from .printing import field_title, place_title, shuffle_lines

CAPTIONS = {
    "error_over_time": "Error over time, on a logarithmic scale. Thick lines are the model, thin lines the floors. "
    "The band holds the middle 80 % of the samples of the latent rollout.",
    "error_by_sample": "Error of the best to the worst sample, on a logarithmic scale; every curve has an order of its "
    "own. The thick line is the model, thin lines are the floors.",
    "positions_over_time": "How far points are from their true places, on a logarithmic scale: the root of the mean "
    "over samples, points and axes of the squared distance.",
    "sample_good": "Truth, forecast and error, on the truth's colour scale; of points that move the error is the "
    "distance from the true place. One sample in ten is predicted better.",
    "sample_median": "The median sample: half are predicted better.",
    "sample_worst": "The worst sample of the split.",
    "fields_median": "All fields of the median sample at the last time, each on its truth's colour scale.",
    "rollout_median": "The median sample's latent rollout beside the truth, over time.",
    "spectra": "Energy over wave number, summed over shells of |k|, mean over samples. A forecast below the truth at "
    "high k smooths; one above it invents.",
    "budget": "Parts of the latent rollout's error; see the table and the definitions below it.",
    "error_by_parameter": "Every dot is a sample.",
    "ensemble_errors": "Drawn forecasts beside the operator alone, on the same trajectories. Spread over skill is 1 "
    "where the members differ as much as their mean errs.",
    "ensemble_median": "The members' mean and how far they spread, beside the truth, for the median trajectory.",
}
DPI = 144
BUDGET_TERMS = {
    "encode": "how the rollout changes when its start is decoded and encoded once more: the start's share of drift",
    "drift": "the latent rollout less one step from the truth: what has built up since the start",
    "step": "one step from the truth less the true frame encoded and decoded: what one latent step adds",
    "decode": "the true frame encoded and decoded, less the truth: what the codec loses",
    "offset": "the error's mean over points",
    "amplitude": "the part of the rest that has the truth's own shape: an answer that is too large or too small",
    "shape": "what remains; for each sample the squares of offset, amplitude and shape add up to that of total",
    "total": "the forecast less the truth; of a rollout at most drift + step + decode",
    "reencoding": "the latent rollout less the re-encoding one: what staying in latent space changes",
}


@frozen(eq=False)
class Chapter:
    """What the report tells of one task, or of all there is."""

    task: str  # "" where there are no tasks
    card: Card
    result: Mapping[str, Any]
    pictures: Mapping[str, Figure]
    animation: bytes | None = None  # of the median rollout, a GIF


def report_page(
    facts: Facts, chapters: Sequence[Chapter], result: Mapping[str, Any], training: Mapping[str, Figure]
) -> str:
    """The whole page: what all tasks have in common first and last, and a chapter for each."""
    sections = [] if not chapters[0].task else [section("Tasks", _tasks(chapters, result))]
    for chapter in chapters:
        sections += _chapter(chapter)
    moving = any(chapter.card.places for chapter in chapters)
    others = OTHER_METRICS | PARTICLE_METRICS if moving else OTHER_METRICS
    sections += [
        section("Training", _pictures(training, training)),
        section("What the other numbers mean", definitions(others)),
        section("What was run", definitions(dict(facts.rows))),
    ]
    return PAGE.substitute(
        title=escape(facts.name),
        description=escape(facts.description),
        line=escape(facts.line),
        style=STYLE,
        status=escape(result["status"]),
        body="\n".join(section for section in sections if section),
    )


def _chapter(chapter: Chapter) -> list[str]:
    card, pictures = chapter.card, chapter.pictures
    errors = "Error by sample" if card.steady else "Error over time"
    contents = {
        "Scores": _verdict(card.verdict.status, card.verdict.text) + _tiles(card) + _score_table(card),
        errors: _pictures(
            pictures, ("error_over_time", "positions_over_time", "error_by_sample", "error_by_parameter")
        ),
        "Samples": _pictures(pictures, ("sample_good", "sample_median", "sample_worst", "fields_median"))
        + (image_of(chapter.animation, "gif", CAPTIONS["rollout_median"]) if chapter.animation else ""),
        "Drawn forecasts": _drawn(card, pictures, alone=not chapter.task),
        "Spectra": _pictures(pictures, ("spectra",)),
        "Where the error comes from": _budget_table(card) + _pictures(pictures, ("budget",)),
        "Do the inputs matter?" if card.shuffle_statics.names else "Do the parameters matter?": "".join(
            map(paragraph, shuffle_lines(card))
        ),
        "Which loss reaches which part": _reach_table(card),
        "All numbers": _all_numbers(chapter.result, card.steady),
        "What the numbers mean": definitions(card.definition),
    }
    prefix = f"{chapter.task}: " if chapter.task else ""
    return [section(f"{prefix}{title}", content) for title, content in contents.items()]


def _tasks(chapters: Sequence[Chapter], result: Mapping[str, Any]) -> str:
    """The verdict on all tasks, and one line of each."""
    names = ("nrmse", "vrmse", "rmse")
    lines = []
    for chapter in chapters:
        rollout = chapter.result["metrics"]["latent_rollout"]
        one_step = number(chapter.result["metrics"]["one_step"]["nrmse"])
        numbers = [one_step, *(number(rollout[name]) for name in names), chapter.card.verdict.status]
        lines.append((chapter.task, numbers, ""))
    means = result["metrics"]
    numbers = [number(means["one_step"]["nrmse"]), *(number(means["latent_rollout"][name]) for name in names), ""]
    head = ("task", "nRMSE, one step", "nRMSE, rollout", "VRMSE, rollout", "RMSE, rollout", "")
    note = "Of steady data the one step is all there is. The last line is the mean over the tasks."
    verdict = _verdict(result["status"], result["card"]["verdict"])
    default = paragraph(result["card"]["default"]) if "default" in result["card"] else ""
    return verdict + table_of(head, [*lines, ("mean", numbers, "model")]) + small_print(note) + default


def _verdict(status: str, text: str) -> str:
    return f'<p class="verdict {escape(status)}">{escape(text)}</p>\n'


def _tiles(card: Card) -> str:
    """The numbers of the latent rollout, or of the answer, large."""
    model = card.rows[0]
    tiles = [
        f"<div><strong>{number(value)}</strong><span>{escape(_tile_label(name, card))}</span></div>"
        for name, value in zip(card.columns, model.values)
    ]
    return f'<div class="tiles">{"".join(tiles)}</div>\n'


def _tile_label(column: str, card: Card) -> str:
    if card.steady:
        return "nRMSE, median" if column == "median" else column
    return column if column in ("VRMSE", "corr. time") else f"nRMSE, {column}"


def _score_table(card: Card) -> str:
    note = (
        "Errors in physical units; 'median' is the median nRMSE over samples."
        if card.steady
        else "nRMSE in physical units; VRMSE of the whole rollout; correlation time in the data's unit of time."
    )
    ratios = "; ".join(f"{name} {number(value)}" for name, value in card.ratios.items())
    table = (
        table_of(("", *card.columns), _lines(card.rows))
        + small_print(note)
        + small_print(f"Ratios of nRMSE: {ratios}.")
    )
    if card.places:
        table += table_of(("", *card.places), _lines(card.by_place)) + small_print(f"{place_title()}.")
    if not card.fields:
        return table
    return table + table_of(("", *card.fields), _lines(card.by_field)) + small_print(f"{field_title(card)}.")


def _lines(rows: Iterable[Row]) -> list[tuple[str, Sequence[str], str]]:
    return [
        (line.name.replace("_", " "), [number(value) for value in line.values], "model" if line.is_model else "")
        for line in rows
    ]


def _drawn(card: Card, pictures: Mapping[str, Figure], alone: bool) -> str:
    """Forecasts that are drawn beside the operator alone; nothing where no stage draws."""
    if card.drawn is None:
        return ""
    return (
        small_print(card.drawn.title)
        + table_of(("", *card.drawn.columns), _lines(card.drawn.rows))
        + "".join(map(paragraph, (*card.drawn.findings, *([card.drawn.default] if alone else []))))
        + definitions(card.drawn.definition)
        + _pictures(pictures, ("ensemble_errors", "ensemble_median"))
    )


def _budget_table(card: Card) -> str:
    shown = {"mean": "mean"} if card.steady else {"first": "first step", "last": "last step", "mean": "mean"}
    lines = []
    for name, part in card.budget.items():
        numbers = [part[key] for key in shown]
        lines.append((name, [number(value if isinstance(value, float) else None) for value in numbers], ""))
    terms = {name: BUDGET_TERMS[name] for name in card.budget if name in BUDGET_TERMS}
    return table_of(("nRMSE", *shown.values()), lines) + definitions(terms)


def _reach_table(card: Card) -> str:
    if not card.reach:
        return ""
    modules = list(card.reach[0].norms)
    lines = []
    for line in card.reach:
        cells = [f"{number(line.norms[name])}{' *' if name in line.declared else ''}" for name in modules]
        lines.append((f"{line.stage}: {line.loss}", cells, ""))
    note = "Norm of each loss's gradient alone, weight 1, on one training batch. *: declared by the loss."
    return table_of(("", *modules), lines) + small_print(note)


def _all_numbers(result: Mapping[str, Any], steady: bool) -> str:
    """Every single number of the metrics and floors, folded away."""
    metrics = {"answer": result["metrics"]["one_step"]} if steady else result["metrics"]
    groups: dict[str, Mapping[str, Any]] = {name.replace("_", " "): found for name, found in metrics.items()}
    for name, found in result["floors"].items():
        if not steady:
            groups[f"{name.replace('_', ' ')}, one step"] = found["one_step"]
        groups[f"{name.replace('_', ' ')}{'' if steady else ', rollout'}"] = found["rollout"]
    names = [name for name, value in result["metrics"]["latent_rollout"].items() if not isinstance(value, list)]
    lines = []
    for label, found in groups.items():
        lines.append((label, [number(found[name]) if name in found else "" for name in names], ""))
    return f"<details><summary>Every metric of every forecast</summary>\n{table_of(('', *names), lines)}</details>\n"


def _pictures(pictures: Mapping[str, Figure], names: Iterable[str]) -> str:
    shown = [(name, pictures[name]) for name in names if name in pictures]
    return "".join(_picture(name, figure) for name, figure in shown)


def _picture(name: str, figure: Figure) -> str:
    stage = name.removeprefix("training_")
    caption = CAPTIONS.get(name, f"Losses of the stage '{stage}', on a logarithmic scale; dots are validations.")
    return picture(figure, caption, DPI)
