"""The guarded child: what becomes of files that hang, crash or fill their reader (D03, D17; findings 6 and 7)."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ups_kit import DataError
from ups_kit.data.guard import Watch, guarded
from ups_kit.data.inspection import inspect_file

sys.path.insert(0, str(Path(__file__).parent))
import corruption_harness

HARNESS = Path(corruption_harness.__file__)
ENDLESS = 74  # a seed whose damage has HDF5 read an attribute for ever


def watched(code: str, seconds: float = 5.0, streaming: bool = False) -> tuple[Any, str]:
    """A small process as a child: its answer, and what is said of its end."""
    program = f"import os, sys, time, json\nsay = lambda **m: print(json.dumps(m), flush=True)\n{textwrap.dedent(code)}"
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        watch = Watch(Path("data/a.h5"), child.pid, seconds, 2**30, streaming)
        answer = watch.listen(child.stdout)
        child.kill() if watch.timed_out else None
        return answer, "" if answer is not None else str(watch.failure(child.wait(), child.stderr.read().decode()))
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
        child.stderr.close()


def test_an_answer_comes_through_with_signs_before_it() -> None:
    answer, _ = watched('say(at="tensor")\nsay(result={"a": 1})')
    assert answer == {"result": {"a": 1}}


def test_a_crash_is_told_with_the_object_that_was_read_last() -> None:
    _, said = watched('say(at="fields/u")\nos.kill(os.getpid(), 11)')
    assert said.startswith("data/a.h5: reader ended by signal 11 (SIGSEGV) at 'fields/u'; ")
    _, said = watched('say(at="u")\nos.kill(os.getpid(), 9)')
    assert "signal 9 (SIGKILL, often out of memory) at 'u'" in said
    _, said = watched('sys.exit("no library")')
    assert "reader ended with code 1 (no library)" in said


def test_a_hang_is_told_with_the_object_that_was_read_last() -> None:
    _, said = watched('say(at="fields/u")\ntime.sleep(60)', seconds=1.0)
    assert said.startswith("data/a.h5: reader stopped after 1 s at 'fields/u'; ")
    _, said = watched('say(at="u")\nwhile True: pass', seconds=1.0, streaming=True)
    assert "reader stopped after 1 s without a sign of life at 'u'" in said


def test_a_reader_that_goes_on_reading_may_be_silent() -> None:
    """A pass over a large file says nothing for a while, and is not stopped as long as it reads."""
    code = """
        say(at="u")
        end = time.monotonic() + 3
        while time.monotonic() < end:
            open(sys.executable, "rb").read(2**16)
            time.sleep(0.01)
        say(result=1)
    """
    assert watched(code, seconds=1.0, streaming=True)[0] == {"result": 1}
    assert watched(code, seconds=1.0)[0] is None


def test_memory_has_a_limit(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import io, json, sys, types
        from ups_kit.data import guard
        module = types.ModuleType("hungry")
        def task(sign):
            sign("fields/u")
            return len(bytearray(3 * 2**30))
        module.task = task
        sys.modules["hungry"] = module
        guard.TASKS = {"hungry": "hungry:task"}
        guard.serve("hungry", {"memory": 2**30, "cpu": 0, "arguments": {}}, sys.stdout.buffer)
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    last = json.loads(done.stdout.splitlines()[-1])
    assert last == {"error": ["", "reading 'fields/u' takes more than 1.0 GiB of memory", ""]}


def test_d03_an_endless_attribute(tmp_path: Path) -> None:
    template = corruption_harness.templates(tmp_path)[ENDLESS % 4]
    path = tmp_path / "endless.h5"
    path.write_bytes(corruption_harness.corrupted(template, ENDLESS))
    started = time.monotonic()
    with pytest.raises(DataError) as raised:
        inspect_file(path, seconds=2.0)
    assert str(raised.value).startswith(f"{path}: reader stopped after 2 s at attribute 'key1' of '/'")
    assert time.monotonic() - started < 20


def test_what_lies_in_the_working_directory_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('ran')")
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('ran')")
    np.save(tmp_path / "a.npy", np.zeros(3))
    monkeypatch.chdir(tmp_path)
    assert inspect_file(Path("a.npy")).values["a"].total == 3


def test_errors_of_the_child_are_its_own_kinds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        guarded("inspect", tmp_path / "a.h5", {"path": str(tmp_path / "a.h5"), "whole": False, "seconds": 5.0})


# ---------------------------------------------------------------------------------------------------------------------
# Corrupted files
# ---------------------------------------------------------------------------------------------------------------------
def outcomes(folder: Path, first: int, count: int, seconds: float) -> list[dict[str, Any]]:
    command = [sys.executable, str(HARNESS), str(folder), str(first), str(count), str(seconds)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=290)
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(found: list[dict[str, Any]], count: int) -> None:
    """Every file has an outcome: no crash, and what is wrong is told in words with the file's name."""
    assert len(found) == count
    for each in found:
        assert "signal" not in each.get("ended", ""), each
        if "error" in each:
            kind, message, _ = each["error"]
            assert kind == "DataError", each
            assert f"damaged{each['seed']}.h5" in message
    told = [each for each in found if "error" in each or "ended" in each or each["result"]["problems"]]
    assert len(told) > count // 2


def test_300_corrupted_files(tmp_path: Path) -> None:
    found = outcomes(tmp_path, 0, 300, 1.0)
    check(found, 300)
    assert any("at attribute 'key1' of '/'" in each.get("ended", "") for each in found)


@pytest.mark.slow
def test_1000_more_corrupted_files(tmp_path: Path) -> None:
    check([each for first in (300, 800) for each in outcomes(tmp_path, first, 500, 3.0)], 1000)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends children with their parent on Linux alone")
def test_a_reader_ends_with_who_asked(tmp_path: Path) -> None:
    """Also one that is in a loop, when its parent is killed: nobody else would ever stop it."""
    path = tmp_path / "a.h5"
    path.write_bytes(corruption_harness.corrupted(corruption_harness.templates(tmp_path)[ENDLESS % 4], ENDLESS))
    code = "import sys\nfrom pathlib import Path\nfrom ups_kit.data.inspection import inspect_file\n"
    code += "inspect_file(Path(sys.argv[1]), 60, whole=True)"
    parent = subprocess.Popen([sys.executable, "-c", code, str(path)])
    try:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        while not (found := children.read_text().split()):
            assert parent.poll() is None
            time.sleep(0.01)
        command = Path(f"/proc/{found[0]}/cmdline")
        while b"guard" not in command.read_bytes():
            time.sleep(0.01)
        time.sleep(1.0)
        assert parent.poll() is None
    finally:
        parent.kill()
        parent.wait()
    ended = time.monotonic() + 10
    while command.exists() and command.read_bytes() and time.monotonic() < ended:
        time.sleep(0.02)
    assert not command.exists() or not command.read_bytes()  # gone, or waiting to be collected
