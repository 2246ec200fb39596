"""A stranger's plugins: a distribution of its own, installed by pip, found and used without a word in our code.

They are those of docs/plugins.md: an encoder, a simulator, a format of files.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from ups_kit.plugins import discover
from ups_kit.sketches import sketch

PAGE = Path(__file__).parents[2] / "docs/plugins.md"


def blocks(language: str) -> list[str]:
    """All blocks of a language on the page about plugins."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def modules() -> dict[str, str]:
    """The files of the stranger's package that the page shows."""
    return dict(re.findall(r"<!-- file: (ups_wavelets/\w+\.py) -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the stranger's distribution is installed."""
    source = tmp_path_factory.mktemp("ups-wavelets")
    point = 'wavelets = "ups_wavelets"\n'
    project, *_ = blocks("toml")
    others = "".join(f'{name} = "ups_wavelets.{name}"\n' for name in ("broken", "heat", "frames"))
    (source / "pyproject.toml").write_text(project.replace(point, point + others))
    (source / "ups_wavelets").mkdir()
    assert modules().keys() == {f"ups_wavelets/{name}.py" for name in ("__init__", "heat", "frames")}
    for name, text in modules().items():
        (source / name).write_text(text)
    (source / "ups_wavelets/broken.py").write_text("import a_library_that_is_missing\n")
    target = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "-q"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", target, source], check=True)
    return target


def upskit(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ups_kit", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A small recipe of built-in components, with the stranger's encoder."""
    path = tmp_path / "recipe.toml"
    text = sketch(discover())
    encoder = text[text.index("[encoder]") : text.index("[operator]")]
    dataset = text[text.index("[dataset]") : text.index("[latent]")]
    data = '[dataset]\nuse = "pdebench"\nsimulate = { use = "burgers1d" }\npath = "data/burgers.h5"\n\n'
    path.write_text(text.replace(encoder, '[encoder]\nuse = "wavelets"\nlevels = 2\n\n').replace(dataset, data))
    return path


def test_it_is_listed(site: Path) -> None:
    plugins = {plugin["name"]: plugin for plugin in json.loads(upskit(site, "list-plugins", "--json").stdout)}
    assert plugins["wavelets"]["components"] == {"encoder": ["wavelets"]}
    assert (plugins["wavelets"]["distribution"], plugins["wavelets"]["version"]) == ("ups-wavelets", "0.3")
    assert plugins["broken"]["state"] == "broken"
    assert "a_library_that_is_missing" in plugins["broken"]["reason"]
    assert set(plugins) == {plugin.name for plugin in discover().plugins} | {"wavelets", "broken", "heat", "frames"}
    assert "levels" in upskit(site, "show", "encoder", "wavelets").stdout


def test_a_recipe_uses_it(site: Path, recipe: Path) -> None:
    done = upskit(site, "validate", str(recipe))
    assert (done.returncode, done.stderr) == (0, "")
    done = upskit(site, "validate", str(recipe), "--set", "encoder.family=haas", "--set", "encoder.levels=0")
    assert done.returncode == 2
    assert "encoder.family (--set 'encoder.family=haas'): expected one of 'haar', 'db2'" in done.stderr
    assert "encoder.levels (--set 'encoder.levels=0'): expected a whole number greater than 0, got 0" in done.stderr


def test_without_it_the_recipe_says_what_is_missing(recipe: Path, tmp_path: Path) -> None:
    done = upskit(tmp_path, "validate", str(recipe))
    assert done.returncode == 2
    assert "no encoder is called 'wavelets'" in done.stderr


def test_the_schema_knows_it(site: Path) -> None:
    schema = json.loads(upskit(site, "schema").stdout)
    assert schema["$defs"]["encoder.wavelets"]["properties"]["family"]["enum"] == ["haar", "db2"]


def test_its_simulator_makes_data_that_are_checked_by_it(site: Path, tmp_path: Path) -> None:
    *_, console = blocks("console")
    make, check = (line.removeprefix("$ upskit ").split() for line in console.splitlines())
    target = str(tmp_path / "heat.h5")
    done = upskit(site, *(target if word == "heat.h5" else word for word in make))
    assert (done.returncode, "made" in done.stdout) == (0, True)
    with h5py.File(target) as file:
        assert file["tensor"].shape == (200, 21, 32)
    check = [target if word == "heat.h5" else word for word in check]
    done = upskit(site, *check, "--json")
    assert done.returncode == 0
    assert "residual" in done.stdout
    with h5py.File(target, "a") as file:
        file["tensor"][:, 5] *= 1.1
    done = upskit(site, *check)
    assert done.returncode == 3
    assert "residual" in done.stdout + done.stderr


def test_its_files_are_recognised_and_read(site: Path, tmp_path: Path) -> None:
    x, t = np.arange(16) / 16, np.arange(6) * 0.1
    u = np.random.default_rng(0).standard_normal((30, 6, 16)).astype("f4")
    np.savez(tmp_path / "u.npz", u=u, x=x, t=t)
    code = (
        "import sys; from pathlib import Path; from ups_kit.data.layouts import guess_layouts; "
        "from ups_kit.plugins import discover; import numpy as np; "
        "(layout,) = guess_layouts(Path(sys.argv[1])); "
        "config = discover()['dataset']['frames'].config(path=Path(sys.argv[1]), validation=4, test=8); "
        "built = config.build(0); batch = built.batch('train', np.arange(5), 2); "
        "seen = batch.states[0, :, :, 0] * built.normaliser.target_std[0] + built.normaliser.target_mean[0]; "
        "print(layout.use, dict(layout.table), tuple(batch.states.shape)); np.save(sys.argv[2], seen.numpy())"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-c", code, str(tmp_path / "u.npz"), str(tmp_path / "seen.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("frames {")
    assert done.stdout.rstrip().endswith("(5, 3, 16, 1)")
    seen = np.load(tmp_path / "seen.npy")
    distances = [np.abs(u[sample, :3] - seen).max() for sample in range(30)]
    assert min(distances) < 1e-5
