"""The blocks of a page as tests, in the order in which they stand there, all in one temporary folder.

- `python` is run, with the names that blocks before it have made.
- `console`: each line `$ upskit …` is run as written, and must end well. Lines below it must be among what it prints,
  in their order; `…` stands for anything, `/data` for the folder. Of `$ make …` it is looked up what it would do.
- `toml` is read as a recipe; a part of one is laid over the page's last whole recipe, or a small one.
- `math` is converted as for the page, `json` is read.
- `text` is trees of files and what is printed: nothing is done.

Blocks in other languages, and in none, are errors. Comments of HTML before a block, which no reader sees, change that:

- `<!-- not run: WHY -->`: it is shown as skipped, with the reason; commands and options are looked up all the same.
- `<!-- append: WORDS -->`, `<!-- append to 2: WORDS -->`: after each command of the block, or after the second one.
- `<!-- exit: 2 -->`: the code with which the block's last command ends.
- `<!-- file: NAME -->`: the block is kept under this name, for commands that follow.
- `<!-- over: recipes/NAME.toml -->`: what the table is laid over.
- `<!-- same as: FILE -->`: it is not run, but must be what stands in that file, which a command before it has written.

Others stand by themselves. `<!-- python: CODE -->` is run; there, `finished_run` of page.py makes a run that commands
need. `<!-- shrink: NAME KEY=VALUE … -->` makes `recipes/NAME.toml` a small one for what follows on the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from textwrap import dedent

from attrs import field, frozen
from running import evaluate_block, evaluate_comment
from sybil import Document, Region
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

FENCES = RawFencedCodeBlockLexer(re.compile(r"(?P<info>[^\n]*)\n"))
COMMENT = re.compile(r"<!--\s*(?P<word>[a-z ]+?)(?: (?P<number>\d+))?:\s*(?P<text>.*?)\s*-->", re.DOTALL)
BEFORE = ("not run", "append", "append to", "exit", "file", "over", "same as")  # a block
ALONE = ("python", "shrink")


@frozen
class Block:
    """A fenced block, and what the comments before it say."""

    language: str
    source: str
    comments: tuple[tuple[str, str, str], ...] = field(default=())  # word, number, text

    def comment(self, word: str) -> str | None:
        """What the comment says that begins with this word, or None."""
        return next((text for found, _, text in self.comments if found == word), None)

    def appended(self, number: int) -> str:
        """What comes after the command of this number, from 1 on."""
        texts = (
            text
            for word, which, text in self.comments
            if word == "append" or (word == "append to" and int(which or 0) == number)
        )
        return " ".join(texts)


def parse(document: Document) -> Iterator[Region]:
    """The fenced blocks of a page but directives of MyST, and the comments that stand by themselves."""
    fences = list(FENCES(document))
    inside = [(region.start, region.end) for region in fences]
    for region in fences:
        info = str(region.lexemes["info"]).strip()
        if not info.startswith("{"):
            source = str(region.lexemes["source"])
            block = Block(info, source, tuple(_comments_before(document.text, region.start)))
            yield Region(region.start, region.end, block, evaluate_block)
    for match in COMMENT.finditer(document.text):
        if match["word"] in ALONE and not any(start <= match.start() < end for start, end in inside):
            yield Region(match.start(), match.end(), (match["word"], dedent(match["text"])), evaluate_comment)


def _comments_before(text: str, start: int) -> Iterator[tuple[str, str, str]]:
    """The comments that end where a block begins, with nothing but white space between."""
    rest = text[:start].rstrip()
    while rest.endswith("-->"):
        opening = rest.rindex("<!--")
        match = COMMENT.fullmatch(rest[opening:])
        if match and match["word"] in BEFORE:
            yield match["word"], match["number"] or "", " ".join(match["text"].split())
        rest = rest[:opening].rstrip()
