"""`pytest docs README.md` (`make test-docs`) runs what stands on the pages: see docs/_examples/blocks.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.integration import pytest as collecting

HERE = Path(__file__).parent
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
sys.path.insert(0, str(HERE / "_examples"))

from blocks import parse  # noqa: E402 - from the folder above
from page import close_page, open_page  # noqa: E402

PAGES = Sybil([parse], path=str(HERE.parent), patterns=["README.md", "docs/*.md"], setup=open_page, teardown=close_page)


class Pages:
    """The hook that makes tests of pages, as a plugin of its own: one of a conftest.py serves its own folder alone."""

    pytest_collect_file = staticmethod(collecting.pytest_integration(PAGES))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Pages(), "pages")
