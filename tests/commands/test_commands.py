"""The command line: what it prints, how it exits, and what it does not load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest

from ups_kit import __version__
from ups_kit.cli import cli
from ups_kit.cli.components import example_table
from ups_kit.interfaces import KINDS
from ups_kit.plugins import discover
from ups_kit.registry import Entry
from ups_kit.sketches import sketch
from ups_kit.strict import structure

COMPONENTS = [entry for kind in KINDS for entry in discover()[kind].values()]
HEAVY = ("torch", "matplotlib", "h5py", "scipy", "zarr", "rich")


def upskit(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call upskit as a user does."""
    command = [sys.executable, "-m", "ups_kit", *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "LC_ALL": "C.UTF-8", **environment},
    )


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The smallest recipe of what is installed, with data that are made on demand."""
    path = tmp_path / "recipe.toml"
    data = '[dataset]\nuse = "pdebench"\nsimulate = { use = "burgers1d" }\npath = "data/burgers.h5"\n\n'
    text = sketch(discover())
    path.write_text(text[: text.index("[dataset]")] + data + text[text.index("[latent]") :])
    return path


def test_version_and_help() -> None:
    assert upskit("--version").stdout == f"upskit {__version__}\n"
    shown = upskit("--help")
    assert shown.returncode == 0
    assert all(verb in shown.stdout for verb in cli.commands)


def test_unknown_commands_and_options_are_usage_errors() -> None:
    wrong = upskit("validte")
    assert (wrong.returncode, "Did you mean one of: 'evaluate', 'validate'" in wrong.stderr) == (2, True)
    wrong = upskit("list-plugins", "--jsn")
    assert (wrong.returncode, "Did you mean '--json'" in wrong.stderr) == (2, True)


def test_list_plugins() -> None:
    listed = upskit("list-plugins")
    assert listed.returncode == 0
    names = {plugin.name for plugin in discover().plugins}
    assert names <= {line.split()[0] for line in listed.stdout.splitlines()}
    records = json.loads(upskit("list-plugins", "--json", "--kind", "encoder").stdout)
    assert {record["name"] for record in records} == {entry.plugin for entry in COMPONENTS if entry.kind == "encoder"}
    assert upskit("list-plugins", "--broken").stdout == "no such plugin\n"


def test_list_components() -> None:
    records = json.loads(upskit("list", "--json").stdout)
    assert {(record["kind"], record["name"]) for record in records} == {(e.kind, e.name) for e in COMPONENTS}
    assert all(record["summary"] for record in records)
    lines = upskit("list", "optimizer").stdout.splitlines()
    assert all(line.startswith("optimizer ") for line in lines[1:])
    assert upskit("list", "optimiser").returncode == 2


def test_show_a_component() -> None:
    shown = upskit("show", "optimizer", "adamw").stdout
    assert "lr" in shown
    assert "number greater than 0" in shown
    assert "[stages.optimizer]" in shown
    record = json.loads(upskit("show", "optimizer", "adamw", "--json").stdout)
    assert {key["name"] for key in record["keys"]} >= {"lr", "betas"}
    jsonschema.Draft202012Validator(record["schema"]).validate({"use": "adamw", "lr": 0.1})
    wrong = upskit("show", "optimizer", "adamv")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("no optimizer is called 'adamv'; did you mean 'adam")
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize("entry", COMPONENTS, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_every_example_table_can_be_read(entry: Entry) -> None:
    table = tomllib.loads(example_table(entry))
    while "use" not in table:
        (inner,) = table.values()
        table = inner[0] if isinstance(inner, list) else inner
    assert table.pop("use") == entry.name
    structure(table, entry.config, discover())


def test_validate(recipe: Path) -> None:
    good = upskit("validate", str(recipe))
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.startswith(f"{recipe}: valid")
    assert upskit("check", str(recipe)).stdout == good.stdout


def test_validate_tells_every_problem_of_every_recipe(recipe: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(recipe.read_text().replace("[latent]", "[latnt]"))
    told = upskit("validate", str(recipe), str(other), str(tmp_path / "none.toml"), "--set", "run.seed=x")
    assert told.returncode == 2
    assert f"{recipe}: 1 problem\n  run.seed (--set 'run.seed=x'): expected a whole number" in told.stderr
    assert f"{other}: 3 problems\n" in told.stderr
    assert "none.toml: 1 problem" in told.stderr
    assert "Traceback" not in told.stderr
    records = [json.loads(line) for line in upskit("validate", str(recipe), str(other), "--json").stdout.splitlines()]
    assert [record["valid"] for record in records] == [True, False]
    assert {problem["path"] for problem in records[1]["problems"]} == {"latent", "latnt"}


def test_validate_explains_where_a_value_comes_from(recipe: Path) -> None:
    told = upskit("validate", str(recipe), "--explain", "run", "--set", "run.seed=5").stdout
    assert f'run.name         = "my_run"  ({recipe}, line 2)' in told
    assert "run.seed         = 5  (--set 'run.seed=5')" in told
    assert 'run.precision    = "fp32"  (default)' in told
    wrong = upskit("validate", str(recipe), "--explain", "run.sead")
    assert (wrong.returncode, "did you mean 'run.seed'?" in wrong.stderr) == (2, True)


def test_validate_describes_the_data(recipe: Path) -> None:
    told = upskit("validate", str(recipe), "--data").stdout
    assert "layout      grid" in told
    assert "conditions  dt" in told


def test_schema(tmp_path: Path) -> None:
    schema = json.loads(upskit("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    path = tmp_path / "a/b/recipe.schema.json"
    assert str(path) in upskit("schema", "--write", str(path)).stdout
    assert json.loads(path.read_text()) == schema


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    script = upskit("completion", shell)
    assert script.returncode == 0
    assert "_UPSKIT_COMPLETE" in script.stdout


def test_completion_knows_components() -> None:
    told = upskit(_UPSKIT_COMPLETE="bash_complete", COMP_WORDS="upskit show optimizer ada", COMP_CWORD="3").stdout
    assert told.split() == ["plain,adam", "plain,adamw"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["list-plugins"],
        ["list"],
        ["show", "optimizer", "adamw"],
        ["schema"],
        ["validate", "no_such_recipe.toml"],
        ["validate", "{recipe}", "--explain", "run"],
        ["run", "no_such_recipe.toml"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_nothing_heavy_is_loaded(recipe: Path, arguments: list[str]) -> None:
    code = (
        "import sys\nfrom ups_kit.cli import main\n"
        f"try:\n    main({[argument.format(recipe=recipe) for argument in arguments]!r})\n"
        f"except SystemExit:\n    print('loaded', *(set(sys.modules) & set({HEAVY!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split()) - {"loaded"}
    assert loaded <= ({"h5py"} if "{recipe}" in arguments else set())  # the header of the recipe's data is looked at


def test_a_reader_who_leaves_is_not_told(tmp_path: Path) -> None:
    """`upskit schema | head -1`: no traceback, no message about a broken pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "ups_kit", "schema"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert done.stderr == ""


def test_an_output_that_takes_nothing_is_told_in_a_line(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no full device here")
    with full.open("w") as output:
        done = subprocess.run(
            [sys.executable, "-m", "ups_kit", "schema"], stdout=output, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr.count("\n"), "No space left" in done.stderr) == (6, 1, True)


def test_a_closed_output_is_no_error() -> None:
    command = f'"{sys.executable}" -m ups_kit list >&-'
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_odd_text_on_a_plain_terminal(recipe: Path, encoding: str) -> None:
    """Docstrings and recipes may hold letters that a terminal does not know."""
    command = [sys.executable, "-m", "ups_kit"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    for arguments in (["list"], ["schema"], ["validate", str(recipe), "--set", "run.name='\u4e2d \u03b5'"]):
        told = subprocess.run([*command, *arguments], capture_output=True, check=False, env=environment)
        assert told.returncode == (2 if arguments[0] == "validate" else 0)
        assert b"Traceback" not in told.stderr


def test_run_tells_what_is_wrong_before_it_starts(recipe: Path, tmp_path: Path) -> None:
    wrong = upskit("run", str(recipe), "--device", "tpu", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "run.device (--set 'run.device=\"tpu\"'): 'tpu' does not fit" in wrong.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]


def test_run_tells_that_it_cannot_write_before_it_starts(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    wrong = upskit("run", str(recipe), "--set", "run.folder=file/runs", cwd=tmp_path)
    assert wrong.returncode == 2
    folder = tmp_path / "file"
    assert f"run.folder (--set 'run.folder=file/runs'): no run folder can be made in {folder}/runs" in wrong.stderr
    assert f"{folder} is a file; choose another" in wrong.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "recipe.toml"]


def test_a_run_folder_is_only_continued(tmp_path: Path) -> None:
    folder = tmp_path / "runs/waves/1"
    folder.mkdir(parents=True)
    (folder / "resolved.json").write_text("{}")
    told = upskit("run", str(folder))
    assert (told.returncode, "add --resume" in told.stderr) == (2, True)
    told = upskit("run", str(folder), "--resume", "--set", "run.seed=1")
    assert (told.returncode, "continued as it was" in told.stderr) == (2, True)
    told = upskit("run", str(folder), "--resume")
    assert (told.returncode, "is not the resolved.json of a run" in told.stderr) == (2, True)
