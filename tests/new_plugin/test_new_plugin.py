"""`upskit new-plugin`: what it writes is installed, found, clean, and passes its own tests; names are checked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from ups_kit.cli import cli
from ups_kit.errors import StorageError, UsageError
from ups_kit.interfaces import KINDS
from ups_kit.new_plugin.modules import join
from ups_kit.new_plugin.naming import LONGEST, Names, names_of
from ups_kit.new_plugin.rendering import Package
from ups_kit.new_plugin.writing import write_package
from ups_kit.plugins import discover

ROOT = Path(__file__).parents[2]
TOGETHER = [kind for kind in KINDS if kind != "model"]  # kinds that one package may offer


def called(kind: str) -> str:
    """The distribution of the tests for a kind: components of one kind are not to share a name."""
    return f"ups-made-{kind}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package of every kind, each written by the command."""
    folder = tmp_path_factory.mktemp("made")
    for kind in KINDS:
        done = CliRunner().invoke(cli, ["new-plugin", called(kind), "--kind", kind, "--out", str(folder)])
        assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def site(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which all of them are installed, without a network."""
    target = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "-q"]
    packages = [made / called(kind) for kind in KINDS]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", target, *packages], check=True)
    return target


@pytest.fixture(scope="module")
def plugins() -> list[str]:
    """The names of the installed plugins."""
    return [plugin.name for plugin in discover().plugins]


def process(site: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=settings, cwd=site)


def render(kinds: Sequence[str], name: str = "ups-wavelets") -> dict[str, str]:
    return Package.of(Names(name), kinds).files()


def test_a_package_of_every_kind_passes_its_own_tests(made: Path, site: Path) -> None:
    folders = [made / called(kind) / "tests" for kind in KINDS]
    options = [
        "-q",
        "--import-mode=importlib",
        "-p",
        "ups_kit.testing.fixtures",
        "-c",
        made / called("loss/pyproject.toml"),
    ]
    done = process(site, "-m", "pytest", *options, "--rootdir", made, *folders)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"^(\d+) passed", done.stdout, re.MULTILINE)
    assert passed is not None
    assert "skipped" not in done.stdout
    assert int(passed[1]) >= 3 * len(KINDS)  # its contract, what it computes, its recipe


def test_every_package_is_found_with_what_it_offers(site: Path) -> None:
    code = (
        "from ups_kit.plugins import discover\n"
        "for plugin in discover().plugins:\n"
        "    print(plugin.name, plugin.distribution, plugin.state, *plugin.components)"
    )
    lines = [line.split() for line in process(site, "-c", code).stdout.splitlines()]
    found = {name: (distribution, state, kinds) for name, distribution, state, *kinds in lines}
    for kind in KINDS:
        distribution, state, kinds = found[f"made_{kind}"]
        assert (distribution, state) == (called(kind), "ok")
        assert kind in kinds


@pytest.mark.parametrize("name", ["x", "ups-x", "ups-" + "turbulence"[: LONGEST - 4], "a" * LONGEST])
def test_what_is_written_is_clean_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    for number, kinds in enumerate([*([kind] for kind in KINDS), TOGETHER, ["loss", "encoder"], ["model", "loss"]]):
        for path, text in render(kinds, name).items():
            target = tmp_path / f"{number}" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", tmp_path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_what_is_written_passes_mypy_as_its_own_project_says(made: Path) -> None:
    for kind in KINDS:
        command = [sys.executable, "-m", "mypy", "--cache-dir", made / "cache"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=made / called(kind))
        assert done.returncode == 0, f"{kind}:\n{done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_stranger_has_green_tests_with_every_kind_in_a_fresh_environment() -> None:
    command = [sys.executable, ROOT / "benchmarks/new_plugin.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == list(KINDS)


def test_several_kinds_are_one_package(tmp_path: Path) -> None:
    files = render(["loss", "encoder", "loss"])
    hook: dict[str, object] = {}
    assert '"encoder": {"wavelets": WaveletsEncoderConfig}' in files["ups_wavelets/__init__.py"]
    assert '"loss": {"wavelets": WaveletsLossConfig}' in files["ups_wavelets/__init__.py"]
    assert {"recipes/wavelets_loss.toml", "recipes/wavelets_encoder.toml", "tests/test_wavelets_loss.py"} <= set(files)
    exec(compile(files["ups_wavelets/config.py"], "config.py", "exec"), hook)
    assert {"WaveletsEncoderConfig", "WaveletsLossConfig"} <= set(hook)


def test_a_package_says_whom_it_was_written_for(made: Path) -> None:
    project = tomllib.loads((made / called("loss") / "pyproject.toml").read_text())
    assert project["project"]["dependencies"] == ["ups_kit>=0.1,<0.2"]
    points = project["project"]["entry-points"]
    assert points == {"ups_kit": {"made_loss": "ups_made_loss"}, "ups_kit.api": {"made_loss": "v1"}}
    assert project["tool"]["pytest"]["ini_options"]["addopts"] == ["-p", "ups_kit.testing.fixtures"]


def test_nothing_that_stands_for_something_is_left_in_a_file(made: Path) -> None:
    for path in made.rglob("*"):
        if path.is_file():
            rest = path.read_text().replace("${{ matrix.python }}", "")
            assert not re.search(r"\$\{?[a-zA-Z]", rest.replace("$ ", "")), path
            assert "#: " not in rest or path.suffix != ".toml", path


def test_models_bring_data_and_a_stage_of_their_own() -> None:
    with pytest.raises(UsageError, match="'model' brings a stage of its own; write two packages"):
        Package.of(Names("ups-wavelets"), ["stage", "model"])


NAMES = {
    "Ups_Wavelets": ("lower-case letters", "ups-wavelets"),
    "ups--x": ("lower-case letters", "ups-x"),
    "ups-": ("lower-case letters", "ups-plugin"),
    "wavelets é": ("lower-case letters", "ups-wavelets"),
    "ups-3d-wavelets": ("begin with a letter", "ups-d-wavelets"),
    "ups-" + "x" * 60: ("at most 28", "ups-" + "x" * 21),
    "json": ("Python's own library", "ups-json"),
    "class": ("a word of Python's own", "ups-class"),
    "torch": ("installed", "ups-torch"),
    "click": ("installed", "ups-click"),
    "ups-kit": ("installed", "ups-kit-2"),
    "grid": ("one of that name is installed", "ups-grid-2"),
    "ups-grid": ("one of that name is installed", "ups-grid-2"),
    "tests": ("a folder of that name is something else", "ups-tests"),
    "ups-plugins": ("ups_plugins', ", "ups-plugins-2"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_would_not_do_is_refused_with_the_nearest_that_would(name: str, plugins: list[str]) -> None:
    why, near = NAMES[name]
    with pytest.raises(UsageError) as refused:
        names_of(name, plugins)
    assert why in str(refused.value)
    assert str(refused.value).endswith(f"nearest: '{near}'")
    assert names_of(near, plugins).distribution == near


@pytest.mark.parametrize(("name", "kind"), [("ups-adamw", "optimizer"), ("evaluate", "stage"), ("ups-bundle", "model")])
def test_a_component_is_not_called_as_one_that_is_there(tmp_path: Path, name: str, kind: str) -> None:
    done = CliRunner().invoke(cli, ["new-plugin", name, "--kind", kind, "--out", str(tmp_path)])
    assert str(done.exception).startswith(f"NAME: '{name}' would make a component ")
    assert list(tmp_path.iterdir()) == []
    other = CliRunner().invoke(cli, ["new-plugin", name, "--kind", "schedule", "--out", str(tmp_path)])
    assert other.exit_code == 0


def test_for_a_refused_name_nothing_is_written(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["new-plugin", "grid", "--out", str(tmp_path)])
    assert isinstance(done.exception, UsageError)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_and_nothing_half_written_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, plain = Names("ups-wavelets"), Path.write_text

    def full(self: Path, *arguments: object, **options: object) -> int:
        if self.name == "config.py":
            raise OSError(28, "No space left on device")
        return plain(self, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(StorageError, match="No space left on device"):
            write_package(names, ["loss"], tmp_path)
    assert list(tmp_path.iterdir()) == []
    write_package(names, ["loss"], tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(StorageError, match="is there already"):
        write_package(names, ["encoder"], tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_next_commands_are_told(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["new-plugin", "ups-wavelets", "--out", str(tmp_path)])
    commands = done.output.split("next:")[1].split("\n")
    told = [command.strip() for command in commands if command.strip()]
    assert told == [
        f"cd {tmp_path}/ups-wavelets",
        'pip install -e ".[dev]"',
        "pytest",
        "upskit run recipes/wavelets.toml",
    ]


def test_modules_are_joined_with_their_imports_sorted() -> None:
    first = (
        '"""One."""\nfrom __future__ import annotations\nfrom b import y, CONST, Zed\nimport os\nimport a\n\nX = 1\n'
    )
    second = (
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nfrom b import x\nfrom .c import d\n"
        "from own import e\nif TYPE_CHECKING:\n    import torch\n\n\ndef f():\n    pass\n"
    )
    assert join("Both.", [first, second], "own") == (
        '"""Both."""\n\nfrom __future__ import annotations\n\nimport os\nfrom typing import TYPE_CHECKING\n\n'
        "import a\nfrom b import CONST, Zed, x, y\n\nfrom own import e\n\nfrom .c import d\n\n"
        "if TYPE_CHECKING:\n    import torch\n\nX = 1\n\n\ndef f():\n    pass\n"
    )


def test_the_templates_are_in_the_wheel_and_in_the_sdist() -> None:
    from hatchling.builders.sdist import SdistBuilder
    from hatchling.builders.wheel import WheelBuilder

    templates = {str(path.relative_to(ROOT)) for path in (ROOT / "ups_kit/new_plugin/templates").rglob("*.tmpl")}
    assert len(templates) > 80
    for builder in (WheelBuilder(str(ROOT)), SdistBuilder(str(ROOT))):
        assert templates <= {included.relative_path for included in builder.recurse_included_files()}
