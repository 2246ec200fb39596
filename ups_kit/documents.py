"""Recipe files: from bytes to plain tables, with the line of every value.

tomllib says what is wrong and where; this module adds the line itself, what the file looks like if it is not TOML, and
where a key was written first.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from attrs import field, frozen

from .errors import Problem, RecipeError
from .keypaths import KeyPath, render

LARGEST = 1_000_000  # bytes; the longest recipe anyone has written is a hundredth of that
DEEPEST = 40  # levels of tables and arrays
_PLAINER = {
    "Illegal character '\\n'": "the text is not closed on this line; a quote is missing",
    "Invalid value": 'expected a value: a number, true, false, "text", an array in [] or a table in {}',
    "Expected '=' after a key in a key/value pair": "expected key = value; text stands in quotes",
}
_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


@frozen(slots=False, eq=False)
class Document:
    """A recipe file that has been read: its name as it is shown, its path, its text and its tables."""

    label: str
    path: Path
    text: str
    tables: dict[str, Any] = field(repr=False)

    @property
    def folder(self) -> Path:
        return self.path.parent

    @cached_property
    def home(self) -> Path:
        """The folder as an absolute path, from which relative paths in the file start."""
        return self.path.parent.resolve()

    @cached_property
    def lines(self) -> dict[KeyPath, int]:
        """The line of every key that stands in the text, by its path; arrays of tables by index."""
        return dict(reversed(list(_statements(self.text))))


def read_document(path: Path, label: str) -> Document:
    """Read a TOML file. Raises RecipeError: no such file, not text, not TOML, too large."""
    data = _read_bytes(path, label)
    text = _decode(data, label)
    _refuse_control_characters(text, label)
    text = text.replace("\r\n", "\n")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        _refuse_syntax(text, label, str(error))
    except RecursionError:
        _refuse(label, "file", "tables or arrays are nested too deeply")
    except ValueError:  # an integer with thousands of digits; a date that is none
        found = re.search(r"[0-9_]{1000,}", text)
        where = _position(text, found.start()) if found else "file"
        _refuse(label, where, "number too long")
    if _too_deep(tables):
        _refuse(label, "file", f"tables or arrays are nested too deeply (at most {DEEPEST} levels)")
    return Document(label, path, text, tables)


def _refuse(label: str, where: str, message: str) -> NoReturn:
    raise RecipeError(label, [Problem(where, message)])


def _read_bytes(path: Path, label: str) -> bytes:
    try:
        if path.is_dir():
            inside = ", ".join(sorted(entry.name for entry in path.glob("*.toml"))[:12]) or "no *.toml file"
            _refuse(label, "file", f"is a directory; name one of the recipes in it ({inside})")
        if not path.exists():
            _refuse(label, "file", _no_such_file(path))
        if not path.is_file():
            _refuse(label, "file", "is not a regular file")
        size = path.stat().st_size
        if size > LARGEST:
            _refuse(label, "file", f"is too large for a recipe: {size / 1e6:.1f} MB, at most {LARGEST / 1e6:.0f} MB")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        _refuse(label, "file", f"cannot be read: {getattr(error, 'strerror', None) or error}")


def _no_such_file(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path()
    nearby = {str(entry.relative_to(folder)): entry for entry in sorted(folder.glob("*.toml"))}
    if not nearby:
        nearby = {str(entry): entry for entry in sorted(folder.glob("recipes/*.toml"))}
    near = difflib.get_close_matches(path.name, [entry.name for entry in nearby.values()], n=1)
    guess = next((f"; did you mean '{entry}'?" for entry in nearby.values() if near and entry.name == near[0]), "")
    there = ", ".join(list(nearby)[:12]) or "none"
    return f"does not exist (working directory: {Path.cwd()}){guess} (recipes there: {there})"


def _decode(data: bytes, label: str) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        _refuse(label, "byte 0", "the file is UTF-16; save as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        _refuse(label, f"byte {error.start}", f"0x{data[error.start]:02x} on line {line} is not UTF-8; save as UTF-8")


def _refuse_control_characters(text: str, label: str) -> None:
    found = re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)", text)
    if found:
        where = _position(text, found.start())
        _refuse(label, where, f"control character U+{ord(found.group()):04X}; take it out, or write it as an escape")


def _position(text: str, offset: int) -> str:
    start = text.rfind("\n", 0, offset) + 1
    return f"line {text.count(chr(10), 0, offset) + 1}, column {offset - start + 1}"


def _too_deep(tables: Any) -> bool:
    level = [tables]
    for _ in range(DEEPEST):
        level = [
            inner
            for node in level
            for inner in (node.values() if isinstance(node, dict) else node)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


# ---------------------------------------------------------------------------------------------------------------------
# Syntax errors
# ---------------------------------------------------------------------------------------------------------------------
def _refuse_syntax(text: str, label: str, said: str) -> NoReturn:
    other = _looks_like(text)
    if other:
        _refuse(label, "file", f"this looks like {other}; recipes are TOML: [tables] with key = value")
    lines = text.split("\n")
    found = _AT.search(said)
    message = _AT.sub("", said)
    message = _PLAINER.get(message, message)
    if found and found.group(1):
        line, column = int(found.group(1)), int(found.group(2))
    else:
        line = max((number for number, content in enumerate(lines, 1) if content.strip()), default=1)
        column, message = len(lines[line - 1]) + 1, f"{message} (the file ends here)"
    first = _written_first(text, line)
    if first is not None:
        message = f"{render(first[0])} is written twice; first on line {first[1]}"
    shown, offset = _window(lines[line - 1], column)
    _refuse(
        label, f"line {line}, column {column}", f"{message[:1].lower()}{message[1:]}\n    {shown}\n    {' ' * offset}^"
    )


def _window(line: str, column: int) -> tuple[str, int]:
    """The part of a line around a column, and where the column is in it."""
    start = max(0, column - 60)
    return line[start : start + 100].replace("\t", " "), column - 1 - start


def _looks_like(text: str) -> str:
    first = next((line.strip() for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")), "")
    if first.startswith("{"):
        return "JSON"
    if first == "---" or re.match(r"""["']?[\w-]+["']?:(\s|$)""", first):
        return "YAML"
    return "XML or HTML" if first.startswith("<") else ""


def _written_first(text: str, line: int) -> tuple[KeyPath, int] | None:
    """Where the key of a line was written before, if it was."""
    seen: dict[KeyPath, int] = {}
    for path, number in _statements(text):
        if number == line and path in seen:
            return path, seen[path]
        if number > line:
            break
        seen.setdefault(path, number)
    return None


# ---------------------------------------------------------------------------------------------------------------------
# Lines
# ---------------------------------------------------------------------------------------------------------------------
def _statements(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Every key path in the order of the text, with its line.

    TOML's outermost level is made of lines: headers and key = value, the latter possibly over several lines. Each is
    parsed by itself, so the whole costs one more parse of the file. Ends where a statement cannot be parsed.
    """
    lines = text.split("\n")
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}
    number = 0
    while number < len(lines):
        start = number
        parsed, number = _statement(lines, start)
        if parsed is None:
            return
        if lines[start].lstrip().startswith("["):
            is_array = lines[start].lstrip().startswith("[[")
            table = _header(parsed, is_array, counts)
            if is_array:
                yield table[:-1], start + 1
            yield table, start + 1
        else:
            for path in _paths(parsed):
                yield (*table, *path), start + 1


def _statement(lines: list[str], start: int) -> tuple[dict[str, Any] | None, int]:
    """The statement that starts on a line, and the line after it."""
    for attempt, end in enumerate(range(start, len(lines))):
        last = lines[end]
        if attempt and not any(mark in last for mark in "]}\"'"):
            continue  # no value that runs over several lines ends here
        try:
            return tomllib.loads("\n".join(lines[start : end + 1])), end + 1
        except (ValueError, RecursionError):
            if attempt == 200 or (not attempt and "=" not in last):
                break
    return None, len(lines)


def _header(parsed: dict[str, Any], is_array: bool, counts: dict[KeyPath, int]) -> KeyPath:
    """The path of the table that a header opens; `counts` holds how many tables each array has so far."""
    path: KeyPath = ()
    node: Any = parsed
    while node:
        (key, node), *_ = node.items()
        path = (*path, key)
        ends = not node or isinstance(node, list)
        if ends and is_array:
            counts[path] = counts.get(path, 0) + 1
        if path in counts:
            path = (*path, counts[path] - 1)
        if ends:
            break
    return path


def _paths(node: Any) -> Iterator[KeyPath]:
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        yield (key,)
        if isinstance(value, (dict, list)):
            yield from ((key, *path) for path in _paths(value))
