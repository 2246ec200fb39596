"""Statistics of a file or of a recipe's train split, taken from beside the data where they are there already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from .checking import Target, in_child
from .guard import Sign, guarded
from .statistics import check_of, fingerprint, keep, kept


def statistics_of_target(
    target: Target, recompute: bool, seconds: float, memory: int, report: Sign | None = None
) -> tuple[Mapping[str, Any], bool]:
    """The statistics, and whether they were kept. Raises DataError where kept ones are of other data."""
    if target.is_recipe:
        files = [file for file in target.files if file.exists()]
        config = json.dumps([target.seed, target.dataset], sort_keys=True)
        key = "train " + hashlib.sha256(config.encode()).hexdigest()[:16]
    else:
        from .headers import file_format

        file_format(target.path)  # tells what is no data file
        files, key = [target.path.absolute()], "file"
    now = fingerprint(files) if files else ""
    there = kept(files, key) if files and not recompute else None
    if there is not None:
        check_of(files, there, now, f"upskit data stats {target.command or target.path} --recompute")
        return there.found, True
    if target.is_recipe:
        found = in_child("train_statistics", target, seconds, memory, report)
    else:
        arguments = {"path": str(target.path)}
        found = guarded("statistics", target.path, arguments, seconds, memory, streaming=True, report=report)
    if files and fingerprint(files) == now:
        keep(files, key, found, now)
    return found, False
