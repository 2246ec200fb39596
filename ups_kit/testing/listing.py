"""What a plugin loads when it is listed: asked of a fresh process, once for each plugin."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache

from .report import Broken, Skipped
from .subject import Subject

CODE = """
import importlib, json, sys
module, path = json.loads(sys.argv[1])
sys.path[:] = path
loaded = importlib.import_module(module)
getattr(loaded, "ups_kit_components", lambda: None)()
print("torch" in sys.modules)
"""
SECONDS = 120


def no_torch_at_listing(subject: Subject) -> str | None:
    """Listing the plugin imports no torch."""
    if not subject.module:
        raise Skipped("the catalog does not say which module it comes from")
    if _loads_torch(subject.module, tuple(sys.path)):
        raise Broken(
            f"importing {subject.module} and asking it what it offers imports torch",
            "import torch inside `build`, or in a module that only `build` imports",
        )
    return None


@cache
def _loads_torch(module: str, path: tuple[str, ...]) -> bool:
    command = [sys.executable, "-c", CODE, json.dumps([module, path])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise Broken(f"importing {module} takes more than {SECONDS} s", "do the work when it is asked for") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["without a message"])[-1]
        raise Broken(f"importing {module} in a fresh process fails: {last}", "import what the module needs")
    return done.stdout.split()[-1] == "True"
