"""Equations as MathML, which every browser shows by itself: no script, no fonts and no network."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

BARS = re.compile(r"<mo((?: [^>]*)?)>(&#x0007C;|\||&#x02016;)</mo>")  # of absolute values: no space beside them
LOGGER = logging.getLogger(__name__)


def mathml(formula: str, display: str) -> str:
    """A formula of LaTeX as MathML; what the converter does not know, or leaves over, is a ValueError."""
    try:
        found: str = convert(formula.strip(), display=display)
    except Exception as error:  # the converter raises errors of many classes
        raise ValueError(f"not a formula: {type(error).__name__}: {error}") from error
    if "<mi>&</mi>" in found or "<mi>\\" in found or "<mtext>\\" in found:
        raise ValueError("not a formula: a command or an environment that the converter does not know")
    return BARS.sub(r'<mo lspace="0" rspace="0"\1>\2</mo>', found)


def _written(translator: Any, node: nodes.Element, display: str) -> str:
    try:
        return mathml(node.astext(), display)
    except ValueError as error:
        LOGGER.warning("%s", error, location=node)
        return f"<code>{translator.encode(node.astext())}</code>"


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(_written(translator, node, "inline"))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="formula">{_written(translator, node, "block")}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
