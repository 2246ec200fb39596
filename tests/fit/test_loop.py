"""The loop: budgets, resuming to the same bits, best weights, patience, logging, stopping."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from attrs import frozen

from ups_kit.errors import DivergedError, Preempted, StorageError, UpsKitError, UsageError
from ups_kit.fit.clock import BudgetClock
from ups_kit.fit.interrupts import stop_requests
from ups_kit.fit.loop import fit
from ups_kit.fit.optim import moving_average
from ups_kit.fit.precision import Precision, check_compiler, choose_device, compiled_parts
from ups_kit.fit.settings import Budget
from ups_kit.fit.state import CheckpointFolder
from ups_kit.interfaces import Progress
from ups_kit.trackers import MetricsFile, Trackers


class HalvingAtEachWorse:
    """A schedule with a memory."""

    def __init__(self) -> None:
        self._best, self._factor = float("inf"), 1.0

    def factor(self, progress: Progress) -> float:
        return self._factor * (1 - 0.5 * progress.fraction)

    def observe(self, validation: float) -> None:
        self._factor *= 0.5 if validation >= self._best else 0.9
        self._best = min(self._best, validation)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "factor": self._factor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best, self._factor = state["best"], state["factor"]


@frozen
class HalvingConfig:
    def build(self) -> HalvingAtEachWorse:
        return HalvingAtEachWorse()


EVERYTHING: dict[str, Any] = {"ema": 0.8, "accumulation": 2, "schedule": HalvingConfig(), "clip": 0.5}


def _stop_at(toy: SimpleNamespace, path: Path, stop: int, trackers: Trackers | None = None, **settings: Any) -> None:
    """Train and be asked to stop within step `stop`, by a real signal."""
    source = toy.Source()
    plain = source.batch

    def batch(step: int) -> Any:
        if step == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(step)

    source.batch = batch
    with pytest.raises(Preempted, match=f"stopped by SIGTERM after step {stop + 1}; its state is saved"):
        fit(toy.task(source=source, **settings), toy.folder(path), trackers or toy.no_trackers())


def _numbers(recorder: Any) -> list[tuple[int, dict[str, float]]]:
    """What was logged, without times."""
    return [
        (step, {name: value for name, value in values.items() if "second" not in name and name != "data_wait"})
        for _, step, values in recorder.lines
    ]


@pytest.mark.parametrize("stop", [0, 3, 7, 13, 19])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_training_ends_with_the_same_bits(
    toy: SimpleNamespace, tmp_path: Path, stop: int, precision: str
) -> None:
    settings = EVERYTHING | {"run": {"precision": precision}}
    whole = toy.task(**settings)
    logs = (toy.Recorder(), toy.Recorder())
    expected = fit(whole, toy.folder(tmp_path / "whole"), Trackers([logs[0]]))
    _stop_at(toy, tmp_path / "stopped", stop, Trackers([logs[1]]), **settings)
    resumed = toy.task(**settings)
    result = fit(resumed, toy.folder(tmp_path / "stopped", resume=True), Trackers([logs[1]]))
    assert _numbers(logs[0]) == _numbers(logs[1])
    assert toy.same_bits(toy.weights(whole.model), toy.weights(resumed.model))
    for name in ("steps", "epochs", "best_step", "best_score", "last_validation"):
        assert result[name] == expected[name]
    last = [CheckpointFolder(tmp_path / run / "toy" / "checkpoints", 2).newest() for run in ("whole", "stopped")]
    for state in ("model", "average"):
        assert toy.same_bits(*(found.state[state] for found in last if found))


@pytest.mark.parametrize("stop", [11, 16])
def test_checkpoints_of_epochs_are_beside_those_of_steps_and_resume_to_the_same_bits(
    toy: SimpleNamespace, tmp_path: Path, stop: int
) -> None:
    """40 windows in batches of 4: the epochs 0.7, 1.4 and 2.1 are completed by the steps 7, 14 and 21."""
    settings = EVERYTHING | {"budget": Budget(steps=24), "checkpoint_every": 10, "checkpoint_epochs": 0.7, "keep": 9}
    whole = toy.task(**settings)
    fit(whole, toy.folder(tmp_path / "whole"), toy.no_trackers())
    folder = tmp_path / "whole" / "toy" / "checkpoints"
    assert CheckpointFolder(folder, 9).steps() == [24, 21, 20, 14, 10, 7]
    killed = tmp_path / "killed" / "toy"
    shutil.copytree(tmp_path / "whole" / "toy", killed)
    for checkpoint in (killed / "checkpoints").glob("*"):  # as a kill leaves it: nothing newer than the last epoch's
        if int(checkpoint.name.split("_")[1]) > stop:
            shutil.rmtree(checkpoint)
    resumed = toy.task(**settings)
    fit(resumed, toy.folder(tmp_path / "killed", resume=True), toy.no_trackers())
    assert toy.same_bits(toy.weights(whole.model), toy.weights(resumed.model))


def test_a_finished_training_resumes_to_its_result(toy: SimpleNamespace, tmp_path: Path) -> None:
    first = toy.task(**EVERYTHING)
    expected = fit(first, toy.folder(tmp_path), toy.no_trackers())
    again = toy.task(**EVERYTHING)
    result = fit(again, toy.folder(tmp_path, resume=True), toy.no_trackers())
    assert toy.same_bits(toy.weights(first.model), toy.weights(again.model))
    assert {**result, "seconds": 0} == {**expected, "seconds": 0}


def test_changed_circumstances_are_told(toy: SimpleNamespace, tmp_path: Path) -> None:
    _stop_at(toy, tmp_path, 5)
    with pytest.warns(UserWarning, match="not to the same bits: precision fp32 -> bf16"):
        fit(toy.task(run={"precision": "bf16"}), toy.folder(tmp_path, resume=True), toy.no_trackers())


def test_a_checkpoint_of_another_model_is_refused(toy: SimpleNamespace, tmp_path: Path) -> None:
    _stop_at(toy, tmp_path, 5)
    model = toy.Model()
    model.encoder = torch.nn.Linear(1, 6, bias=False)
    with pytest.raises(StorageError, match="the checkpoint's model does not fit this recipe"):
        fit(toy.task(model=model), toy.folder(tmp_path, resume=True), toy.no_trackers())


def test_a_used_folder_is_not_written_into(toy: SimpleNamespace, tmp_path: Path) -> None:
    fit(toy.task(), toy.folder(tmp_path), toy.no_trackers())
    with pytest.raises(StorageError, match="holds checkpoints of another run"):
        fit(toy.task(), toy.folder(tmp_path), toy.no_trackers())


def test_damaged_best_weights_are_told_and_found_anew(toy: SimpleNamespace, tmp_path: Path) -> None:
    _stop_at(toy, tmp_path, 10)
    for best in (tmp_path / "toy" / "checkpoints").glob("best_*"):
        (best / "state.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match="the next validation sets a new best"):
        result = fit(toy.task(), toy.folder(tmp_path, resume=True), toy.no_trackers())
    assert result["best_step"] in (15, 20)


def test_damaged_best_weights_of_a_finished_training_are_told(toy: SimpleNamespace, tmp_path: Path) -> None:
    fit(toy.task(), toy.folder(tmp_path), toy.no_trackers())
    for best in (tmp_path / "toy" / "checkpoints").glob("best_*"):
        (best / "state.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match="cannot be trusted"), pytest.raises(StorageError, match="budget is spent"):
        fit(toy.task(), toy.folder(tmp_path, resume=True), toy.no_trackers())


# --- validation ------------------------------------------------------------------------------------------------------
def _scores(*values: float) -> Any:
    remaining = list(values)

    def validate(model: torch.nn.Module) -> Mapping[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        return {"score": remaining.pop(0)}

    return validate


def test_the_best_weights_on_validation_are_kept(toy: SimpleNamespace, tmp_path: Path) -> None:
    seen = []
    scores = iter([0.5, 0.2, 0.4, 0.3])

    def validate(model: torch.nn.Module) -> Mapping[str, float]:
        seen.append(toy.weights(model))
        return {"score": next(scores)}

    task = toy.task(validate=validate, ema=0.7)
    result = fit(task, toy.folder(tmp_path), toy.no_trackers())
    assert (result["best_step"], result["best_score"]) == (10, 0.2)
    assert toy.same_bits(toy.weights(task.model), seen[1])
    assert not task.model.training


def test_patience_ends_a_training(toy: SimpleNamespace, tmp_path: Path) -> None:
    task = toy.task(validate=_scores(0.5, 0.2, 0.4, 0.3, 0.1), patience=2, budget=Budget(steps=1000))
    result = fit(task, toy.folder(tmp_path), toy.no_trackers())
    assert (result["steps"], result["best_step"], result["stopped_early"]) == (20, 10, True)
    again = fit(task, toy.folder(tmp_path, resume=True), toy.no_trackers())
    assert again["steps"] == 20


def test_a_score_that_is_never_finite_is_divergence(toy: SimpleNamespace, tmp_path: Path) -> None:
    nan = float("nan")
    with pytest.raises(DivergedError, match="no validation gave a finite score"):
        fit(toy.task(validate=_scores(nan, nan, nan, nan)), toy.folder(tmp_path), toy.no_trackers())


# --- logging ---------------------------------------------------------------------------------------------------------
def test_every_number_is_logged_under_its_name(toy: SimpleNamespace, tmp_path: Path) -> None:
    recorder = toy.Recorder()
    fit(toy.task(), toy.folder(tmp_path), Trackers([recorder]))
    training = [(step, values) for _, step, values in recorder.lines if "lr" in values]
    assert [step for step, _ in training] == [3, 6, 9, 12, 15, 18, 20]
    expected = {"loss", "losses/forward", "grad_norm", "lr", "epoch", "fraction", "seconds"}
    expected |= {"samples_per_second", "data_wait"}
    assert expected <= set(training[0][1])
    last = training[-1][1]
    assert last["loss"] == last["losses/forward"] > 0
    assert last["epoch"] == pytest.approx(20 * 4 / 40)
    assert last["fraction"] == 1
    assert training[2][1]["epochs_since_improvement"] == pytest.approx(4 * 4 / 40)
    validations = [step for _, step, values in recorder.lines if "validation/score" in values]
    assert validations == [5, 10, 15, 20]


def test_a_resumed_training_logs_each_step_once(toy: SimpleNamespace, tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    _stop_at(toy, tmp_path / "run", 9)
    for step in (3, 6, 9, 12, 15):
        metrics.scalars("toy", step, {"loss": -1.0})
    metrics.scalars("earlier", 12, {"loss": -1.0})
    fit(toy.task(), toy.folder(tmp_path / "run", resume=True), Trackers([metrics]))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [line.count('"loss": -1.0') for line in lines] == [1, 1, 1, 1] + [0] * (len(lines) - 4)
    assert '"earlier"' in lines[3]


def test_a_failing_tracker_is_a_warning(toy: SimpleNamespace, tmp_path: Path) -> None:
    class Failing(toy.Recorder):  # type: ignore[misc]
        def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
            raise OSError("No space left on device")

    recorder = toy.Recorder()
    with pytest.warns(UserWarning, match="Failing failed and is switched off: No space left on device") as told:
        result = fit(toy.task(), toy.folder(tmp_path), Trackers([Failing(), recorder]))
    assert len(told) == 1
    assert result["steps"] == 20
    assert len(recorder.lines) == 11


# --- budgets ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        (Budget(steps=7), 7),
        (Budget(epochs=0.5), 5),
        (Budget(epochs=0.55), 6),
        (Budget(steps=7, epochs=0.5), 5),
        (Budget(steps=3, epochs=0.5), 3),
    ],
)
def test_the_nearest_limit_ends_a_training(toy: SimpleNamespace, tmp_path: Path, budget: Budget, steps: int) -> None:
    assert fit(toy.task(budget=budget), toy.folder(tmp_path), toy.no_trackers())["steps"] == steps


def test_a_budget_in_seconds_is_read_every_tenth_step_and_carried_on() -> None:
    now = 0.0
    clock = BudgetClock(Budget(seconds=10), 100, 10, torch.device("cpu"), now=lambda: now)
    for step in range(1, 26):
        now = step * 0.2
        clock.read(step)
    assert clock.progress(25).fraction == pytest.approx(0.4)
    assert clock.seconds == pytest.approx(5.0)
    state = clock.state_dict()
    now = 100.0
    resumed = BudgetClock(Budget(seconds=10), 100, 10, torch.device("cpu"), now=lambda: now)
    resumed.load_state_dict(state)
    assert resumed.progress(25).fraction == pytest.approx(0.4)
    now = 105.0
    for step in range(26, 31):
        resumed.read(step)
    assert resumed.is_over(30)
    assert resumed.progress(30).fraction == 1


def test_a_budget_in_seconds_is_process_time(toy: SimpleNamespace, tmp_path: Path) -> None:
    result = fit(toy.task(budget=Budget(seconds=0.15)), toy.folder(tmp_path), toy.no_trackers())
    assert result["seconds"] >= 0.15
    assert result["steps"] % 10 == 0
    assert result["last_validation"]["score"] >= result["best_score"]


# --- stopping --------------------------------------------------------------------------------------------------------
def test_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    with stop_requests() as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.signal_name == "SIGUSR1"
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal_name == "SIGUSR1"
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before


SLEEPY = """
import sys, time
from pathlib import Path
from conftest import ToySource, toy_folder, toy_task
from ups_kit.errors import UpsKitError
from ups_kit.fit.loop import fit
from ups_kit.fit.optim import moving_average
from ups_kit.fit.settings import Budget
from ups_kit.trackers import Trackers
class Slow(ToySource):
    def batch(self, step):
        print(step, flush=True)
        time.sleep(float(sys.argv[2]))
        return super().batch(step)
try:
    fit(toy_task(source=Slow(), budget=Budget(steps=1000)), toy_folder(Path(sys.argv[1])), Trackers([]))
except UpsKitError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize(
    ("signals", "step_seconds", "code"),
    [([signal.SIGTERM], 0.05, 75), ([signal.SIGINT], 0.05, 75), ([signal.SIGINT, signal.SIGINT], 60, 130)],
)
def test_signals_end_the_process_with_their_codes(
    toy: SimpleNamespace, tmp_path: Path, signals: list[signal.Signals], step_seconds: float, code: int
) -> None:
    command = [sys.executable, "-c", SLEEPY, str(tmp_path), str(step_seconds)]
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths}
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # within the first step
        for number in signals:
            process.send_signal(number)
            if len(signals) > 1:
                time.sleep(0.3)
        rest = process.stdout.read()
        assert process.wait(30) == code
    if code == 75:
        assert "its state is saved" in rest
        assert rest.splitlines()[0].startswith(("1", "stage")), "it stopped within a step or two"
        found = CheckpointFolder(tmp_path / "toy" / "checkpoints", 2).newest()
        assert found is not None
        assert found.step <= 2


# --- device, memory, compiler ----------------------------------------------------------------------------------------
def test_an_absent_device_is_named_with_those_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:1"):
        with pytest.raises(UsageError, match=rf"run.device: '{name}' is not on this machine .*\(found: cpu\)"):
            choose_device(name)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda:0")
    with pytest.raises(UsageError, match=r"found: cpu, cuda:0, cuda:1"):
        choose_device("cuda:7")


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(UsageError, match="'fp16' needs a GPU"):
        Precision(torch.device("cpu"), "fp16").check()


def test_bf16_on_a_gpu_without_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old card")
    with pytest.raises(UsageError, match="an old card has no 'bf16'; use 'fp16' or 'fp32'"):
        Precision(torch.device("cuda"), "bf16").check()


def test_no_compiler_is_told_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    check_compiler(torch.device("cpu"))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "no-such-compiler"))
    with pytest.raises(
        UsageError, match=r"run\.compile: torch\.compile needs a C\+\+ compiler .*no-such-compiler"
    ) as told:
        check_compiler(torch.device("cpu"))
    assert str(told.value).endswith("or run without it: --set run.compile=false")
    monkeypatch.setattr("ups_kit.fit.precision.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs triton on a GPU"):
        check_compiler(torch.device("cuda"))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_short_memory_is_one_message_with_hints(toy: SimpleNamespace, tmp_path: Path, error: RuntimeError) -> None:
    def loss(*arguments: Any) -> Any:
        raise error

    with pytest.raises(UpsKitError, match="stage 'toy' ran out of memory on cpu: 2 samples at once") as caught:
        fit(toy.task(loss=loss, accumulation=2), toy.folder(tmp_path), toy.no_trackers())
    for hint in ("accumulation = 4", "bf16", "query points", "batch = 2"):
        assert hint in str(caught.value)


def test_compiled_parts_keep_their_names_and_results(toy: SimpleNamespace) -> None:
    plain, compiled = toy.Model(dropout=0.0), toy.Model(dropout=0.0)
    compiled.parts = {"encoder": compiled.encoder, "operator": compiled.operator, "decoder": compiled.decoder}
    values = torch.randn(3, 8, 1)
    with compiled_parts(compiled, backend="eager"):
        assert plain.state_dict().keys() == compiled.state_dict().keys()
        torch.testing.assert_close(plain(values), compiled(values))
        average = moving_average(compiled, 0.9)
        assert compiled.encoder._compiled_call_impl is not None
    assert compiled.encoder._compiled_call_impl is None
    assert average.module.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(plain(values), compiled(values))


def test_no_warning_in_a_plain_training(toy: SimpleNamespace, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(toy.task(**EVERYTHING), toy.folder(tmp_path), toy.no_trackers())
