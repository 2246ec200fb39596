"""`report.html`: one file that holds everything, and asks nothing of any other machine."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure

from .card import OTHER_METRICS, Card, number, shuffle_line
from .facts import Facts
from .page import PAGE, STYLE

CAPTIONS = {
    "error_over_time": "Error over time, on a logarithmic scale. Thick lines are the model, thin lines the floors. "
    "The band holds the middle 80 % of the samples of the latent rollout.",
    "sample_good": "Truth, latent rollout and error, on the truth's colour scale. One trajectory in ten is predicted "
    "better.",
    "sample_median": "The median trajectory: half are predicted better.",
    "sample_worst": "The worst trajectory of the split.",
    "spectra": "Energy over wave number, mean over samples. A rollout below the truth at high k smooths; one above it "
    "invents.",
    "budget": "Parts of the latent rollout's error; see the table and the definitions below it.",
    "error_by_parameter": "Every dot is a trajectory.",
}
DPI = 144
BUDGET_TERMS = {
    "encode": "how the rollout changes when its start is decoded and encoded once more: the start's share of drift",
    "drift": "the latent rollout less one step from the truth: what has built up since the start",
    "step": "one step from the truth less the true frame encoded and decoded: what one latent step adds",
    "decode": "the true frame encoded and decoded, less the truth: what the codec loses",
    "total": "the latent rollout less the truth; at most drift + step + decode",
    "reencoding": "the latent rollout less the re-encoding one: what staying in latent space changes",
}


def report_page(facts: Facts, card: Card, result: Mapping[str, Any], pictures: Mapping[str, Figure]) -> str:
    """The whole page."""
    sections = [
        _section("Scores", _verdict(card) + _tiles(card) + _score_table(card)),
        _section("Error over time", _pictures(pictures, ("error_over_time", "error_by_parameter"))),
        _section("Samples", _pictures(pictures, ("sample_good", "sample_median", "sample_worst"))),
        _section("Spectra", _pictures(pictures, ("spectra",))),
        _section("Where the error comes from", _budget_table(card) + _pictures(pictures, ("budget",))),
        _section("Do the parameters matter?", _paragraph(shuffle_line(card.shuffle))),
        _section("Which loss reaches which part", _reach_table(card)),
        _section("Training", _pictures(pictures, [name for name in pictures if name.startswith("training_")])),
        _section("All numbers", _all_numbers(result)),
        _section("What the numbers mean", _definitions({**card.definition, **OTHER_METRICS})),
        _section("What was run", _definitions(dict(facts.rows))),
    ]
    return PAGE.substitute(
        title=escape(facts.name),
        description=escape(facts.description),
        line=escape(facts.line),
        style=STYLE,
        status=escape(card.verdict.status),
        body="\n".join(section for section in sections if section),
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{content}</section>" if content else ""


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>\n"


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>\n'


def _verdict(card: Card) -> str:
    return f'<p class="verdict {escape(card.verdict.status)}">{escape(card.verdict.text)}</p>\n'


def _tiles(card: Card) -> str:
    """The latent rollout's numbers, large."""
    model = card.rows[0]
    tiles = [
        f"<div><strong>{number(value)}</strong><span>{escape(_tile_label(name))}</span></div>"
        for name, value in zip(card.columns, model.values)
    ]
    return f'<div class="tiles">{"".join(tiles)}</div>\n'


def _tile_label(column: str) -> str:
    return column if column in ("VRMSE", "corr. time") else f"nRMSE, {column}"


def _score_table(card: Card) -> str:
    lines = [
        (line.name.replace("_", " "), [number(value) for value in line.values], "model" if line.is_model else "")
        for line in card.rows
    ]
    note = "nRMSE in physical units; VRMSE of the whole rollout; correlation time in the data's unit of time."
    ratios = "; ".join(f"{name} {number(value)}" for name, value in card.ratios.items())
    return _table(("", *card.columns), lines) + _note(note) + _note(f"Ratios of nRMSE: {ratios}.")


def _budget_table(card: Card) -> str:
    lines = []
    for name, part in card.budget.items():
        numbers = [part[key] for key in ("first", "last", "mean")]
        lines.append((name, [number(value if isinstance(value, float) else None) for value in numbers], ""))
    terms = {name: BUDGET_TERMS[name] for name in card.budget if name in BUDGET_TERMS}
    return _table(("nRMSE", "first step", "last step", "mean"), lines) + _definitions(terms)


def _reach_table(card: Card) -> str:
    if not card.reach:
        return ""
    modules = list(card.reach[0].norms)
    lines = []
    for line in card.reach:
        cells = [f"{number(line.norms[name])}{' *' if name in line.declared else ''}" for name in modules]
        lines.append((f"{line.stage}: {line.loss}", cells, ""))
    note = "Norm of each loss's gradient alone, weight 1, on one training batch. *: declared by the loss."
    return _table(("", *modules), lines) + _note(note)


def _all_numbers(result: Mapping[str, Any]) -> str:
    """Every single number of the metrics and floors, folded away."""
    groups: dict[str, Mapping[str, Any]] = {name.replace("_", " "): found for name, found in result["metrics"].items()}
    for name, found in result["floors"].items():
        groups[f"{name.replace('_', ' ')}, one step"] = found["one_step"]
        groups[f"{name.replace('_', ' ')}, rollout"] = found["rollout"]
    names = [name for name, value in result["metrics"]["latent_rollout"].items() if not isinstance(value, list)]
    lines = []
    for label, found in groups.items():
        lines.append((label, [number(found[name]) if name in found else "" for name in names], ""))
    return f"<details><summary>Every metric of every forecast</summary>\n{_table(('', *names), lines)}</details>\n"


def _definitions(entries: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in entries.items())
    return f"<dl>{rows}</dl>\n"


def _table(head: Sequence[str], lines: Iterable[tuple[str, Sequence[str], str]]) -> str:
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr class="{kind}"><th scope="row">{escape(name)}</th>{_cells(cells)}</tr>' for name, cells, kind in lines
    )
    return f'<div class="scroll"><table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>\n'


def _cells(cells: Sequence[str]) -> str:
    return "".join(f"<td>{escape(cell)}</td>" for cell in cells)


def _pictures(pictures: Mapping[str, Figure], names: Iterable[str]) -> str:
    shown = [(name, pictures[name]) for name in names if name in pictures]
    return "".join(_picture(name, figure) for name, figure in shown)


def _picture(name: str, figure: Figure) -> str:
    stage = name.removeprefix("training_")
    caption = CAPTIONS.get(name, f"Losses of the stage '{stage}', on a logarithmic scale; dots are validations.")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    data = base64.b64encode(buffer.getvalue()).decode()
    image = f'<img alt="{escape(caption, quote=True)}" src="data:image/png;base64,{data}">'
    return f'<figure><div class="scroll">{image}</div><figcaption>{escape(caption)}</figcaption></figure>\n'
