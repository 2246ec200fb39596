"""YAML that is not fit to be imported: told by file, line and key, all at once, and never executed."""

from __future__ import annotations

import builtins
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ups_kit.errors import RecipeError, UsageError
from ups_kit.moving_in.importing import Imported
from ups_kit.moving_in.yaml_files import DEEPEST, LARGEST, read_yaml

SMALL = "data: {task: burgers1d}\nstages: {operator: {epochs: 2}}\n"


def refused(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecipeError) as caught:
        read_yaml(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("null\n", "is empty"),
        ("- a\n- b\n", "got a list"),
        ("just words", "got the text 'just words'"),
        ("a: [1, 2\nb: 3\n", "line 2, column 2: is not YAML"),
        ("a: 1\n---\nb: 2\n", "line 3: a second document begins here"),
        ("a: *nowhere\n", "found undefined alias"),
        ("a: !!python/object/apply:os.system ['true']\n", "the tag !!python/object/apply:os.system is not read"),
        ("!!python/name:os.system '':\n  1\n", "is not read"),
        ("a: !secret x\n", "the tag !secret is not read"),
        ("a: !!set {b}\n", "the tag !!set is not read"),
        (b"a: \xff\n", "byte 3: is not UTF-8"),
        ("a: \x01\n", "is not YAML"),
        ("a: " + "[" * (DEEPEST + 5) + "]" * (DEEPEST + 5), "nested too deeply"),
        ("a: " + "[" * 3000, "file: "),
        ("a: &a [*a]\n", "hold themselves"),
        ("a: &a {<<: *a}\n", "merges with << are nested too deeply"),
        ("x" * (LARGEST + 1), "is too large"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str | bytes, said: str) -> None:
    message = refused(tmp_path / "old.yaml", text)
    assert message.startswith(f"{tmp_path / 'old.yaml'}: 1 problem\n")
    assert said in message


def test_aliases_that_multiply_are_refused_at_once(tmp_path: Path) -> None:
    bomb = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    start = time.process_time()
    assert "more than 20000 values" in refused(tmp_path / "old.yaml", bomb)
    assert time.process_time() - start < 5


def test_a_tag_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    refused(tmp_path / "old.yaml", f"a: !!python/object/apply:pathlib.Path.touch [{mark}]\n")
    assert not mark.exists()


def test_values_are_those_of_yaml(tmp_path: Path) -> None:
    text = "a: 1e-3\nb: '1e-3'\nc: yes\nd: 0x10\ne: ~\nf: {<<: &m {x: 1, y: 2}, y: 3}\ng: [1, 2.5]\nh: 2020-01-02\n"
    path = tmp_path / "old.yaml"
    path.write_text(text)
    leaves = {".".join(map(str, key)): value.value for key, value in read_yaml(path).leaves.items()}
    assert leaves == {
        "a": 0.001,
        "b": "1e-3",
        "c": True,
        "d": 16,
        "e": None,
        "f.x": 1,
        "f.y": 3,
        "g": [1, 2.5],
        "h": "2020-01-02",
    }


def test_all_problems_at_once(imported: Callable[[str], Imported]) -> None:
    text = """\
data: {task: burgers1d}
latent:
  dim: "64"
  dim: 32
  tokens: 0
training:
  batch_size: 2.5
  dt: .nan
  ema_decay: .inf
  amp: 1
  query_sampling: uniform
stages:
  operator:
    epochs: -1
    optimizer: {name: adamm, betas: [0.9]}
"""
    with pytest.raises(RecipeError) as caught:
        imported(text)
    assert str(caught.value) == (
        "old.yaml: 11 problems\n"
        "  latent.dim (line 4): is written twice; first on line 3\n"
        "  latent.dim (line 3): expected a whole number, got the string '64'; write 64 without quotes\n"
        "  latent.tokens (line 5): expected a whole number greater than 0, got 0\n"
        "  training.batch_size (line 7): expected a whole number, got 2.5\n"
        "  training.dt (line 8): expected a number, got nan\n"
        "  training.ema_decay (line 9): expected a number, got inf\n"
        "  training.amp (line 10): expected true or false, got 1; write true\n"
        "  training.query_sampling (line 11): expected keys below it, such as enabled\n"
        "  stages.operator.epochs (line 14): expected a whole number of at least 0, got -1\n"
        "  stages.operator.optimizer.name (line 15): expected one of 'adam', 'adamw', 'sgd', 'muon_hybrid', got the "
        "string 'adamm'; did you mean 'adam'?\n"
        "  stages.operator.optimizer.betas (line 15): expected an array of 2 numbers, got an array of 1"
    )


# ---------------------------------------------------------------------------------------------------------------------
# include
# ---------------------------------------------------------------------------------------------------------------------
def test_files_that_are_included_lie_under_the_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/base.yaml").write_text("include: [more.yaml]\nlatent: {dim: 16, tokens: 8}\nseed: 1\n")
    (tmp_path / "deep/more.yaml").write_text("latent: {dim: 4}\ntraining: {dt: 0.5}\n")
    (tmp_path / "old.yaml").write_text("include: deep/base.yaml\nlatent:\n  dim: 64\n")
    leaves = read_yaml(tmp_path / "old.yaml").leaves
    assert {".".join(map(str, key)): value.value for key, value in leaves.items()} == {
        "latent.dim": 64,
        "latent.tokens": 8,
        "training.dt": 0.5,
        "seed": 1,
    }
    assert leaves["latent", "dim"].origin == "line 3"
    assert leaves["latent", "tokens"].origin == f"{tmp_path / 'deep/base.yaml'}, line 2"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/etc/passwd", "is not a relative path"),
        ("https://example.org/a.yaml", "is a URL"),
        ("~/a.yaml", "is not a relative path"),
        ("3", "expected a string, got 3"),
        ("{a: b}", "expected a file or a list of files"),
        ("missing.yaml", r"missing\.yaml \(included by .*old\.yaml\)(.|\n)*does not exist"),
        ("old.yaml", "goes in a circle"),
    ],
)
def test_what_cannot_be_included(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, imported: Callable[[str], Imported], name: str, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        imported(f"include: {name}\n{SMALL}")


def test_includes_end(tmp_path: Path) -> None:
    for number in range(15):
        (tmp_path / f"{number}.yaml").write_text(f"include: [{number + 1}.yaml, {number + 1}.yaml]\nseed: 1\n")
    (tmp_path / "15.yaml").write_text("seed: 2\n")
    with pytest.raises(RecipeError, match="files include"):
        read_yaml(tmp_path / "0.yaml")
    for number in range(6):
        (tmp_path / f"w{number}.yaml").write_text(f"include: [{', '.join([f'w{number + 1}.yaml'] * 9)}]\nseed: 1\n")
    (tmp_path / "w6.yaml").write_text("seed: 2\n")
    with pytest.raises(RecipeError, match="more than 50 files"):
        read_yaml(tmp_path / "w0.yaml")


def test_without_pyyaml_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old.yaml").write_text(SMALL)
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "yaml":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "yaml", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"ups_kit\[migrate\]"):
        read_yaml(tmp_path / "old.yaml")
