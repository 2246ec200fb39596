"""The contracts of their kinds, and the README's code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ups_kit.testing import check_component
from ups_tokens.config import GalaxiesConfig, TypedTokensConfig

README = Path(__file__).parents[2] / "README.md"


def test_they_keep_their_contracts(galaxies: Path, tiny: GalaxiesConfig) -> None:
    check_component("dataset", "typed_tokens", settings={"path": galaxies, "validation": 6, "test": 8})
    small = {"trajectories": 12, "pixels": 8, "wavelengths": 32, "image_tokens": 16, "spectrum_tokens": 16}
    check_component("simulator", "galaxies", settings={**small, "scalar_tokens": 8, "fitted_on": 60})


def test_the_readmes_code_writes_a_file_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (code,) = (block for block in blocks if "write_tokens" in block)
    exec(compile(code, str(README), "exec"), {})
    dataset = TypedTokensConfig(path=Path("mine.h5"), validation=4, test=4).build(0)
    assert [dataset.count(split) for split in ("train", "validation", "test")] == [12, 4, 4]
