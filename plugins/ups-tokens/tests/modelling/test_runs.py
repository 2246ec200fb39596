"""Whole runs: figures that are what they say, bundles, kills, and what goes wrong before anything is trained."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch

from ups_kit.assemble import assemble, check
from ups_kit.bundle import load_model
from ups_kit.comparing.comparison import compare
from ups_kit.errors import UsageError
from ups_kit.evaluating import evaluate
from ups_kit.planning.plan import plan
from ups_kit.reading import read_recipe
from ups_kit.run import RunResult, run
from ups_tokens.dataset import TokenDataset
from ups_tokens.training.stage import TokenTraining

SMALL = Path(__file__).parent / "small.toml"
NO_WARM_UP = ("stages.training.schedule.warmup=0",)
PATIENCE = 120.0  # seconds; a test that waits longer has failed


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens")


def _recipe(home: Path, *settings: str) -> Any:
    return read_recipe(SMALL, [f"run.folder={home}", f"dataset.path={home}/galaxies.h5", *settings]).recipe


@pytest.fixture(scope="module")
def finished(home: Path) -> Iterator[RunResult]:
    with torch.random.fork_rng():
        yield run(_recipe(home))


def _answers(folder: Path) -> tuple[TokenDataset, Any, Any]:
    """The trained model's data set, all test sequences, and its logits for them."""
    bundle = load_model(folder / "bundle")
    dataset = assemble(attrs.evolve(bundle.recipe)).dataset
    assert isinstance(dataset, TokenDataset)
    batch = dataset.batch("test", np.arange(dataset.count("test")))
    with torch.no_grad():
        logits = bundle.model.eval()(batch.tokens, batch.types, batch.mask)
    return dataset, batch, logits.double()


def test_the_figures_are_those_of_the_model_on_every_single_target(finished: RunResult) -> None:
    """One target after the other, from the bundle; the unigram counted, and the token before looked up, by hand."""
    dataset, batch, logits = _answers(finished.folder)
    vocabulary, books = dataset.description.vocabulary, dataset.description.codebooks
    train = dataset.batch("train", np.arange(dataset.count("train"))).tokens
    counts = Counter(train[:, 1:][train[:, 1:] > 1].tolist())
    found: dict[str, list[float]] = {"cross_entropy": []}
    for row in range(batch.samples):
        before: dict[str, int] = {}
        for place in range(1, batch.tokens.shape[1]):
            token, scores = int(batch.tokens[row, place]), logits[row, place - 1]
            if not batch.mask[row, place] or token == vocabulary.id_of("MISSING"):
                continue
            found["cross_entropy"].append(float(scores.logsumexp(0) - scores[token]))
            for name in vocabulary.names if token >= len(vocabulary.special) else ():
                block, book = vocabulary.block(name), books[name].astype(np.float64)
                if not block.start <= token < block.stop:
                    continue
                p, own = scores[block].softmax(0).numpy(), token - block.start
                seen = np.array([counts[other] + 0.5 for other in range(block.start, block.stop)])
                usual = seen / seen.sum() @ book
                last = book[before[name]] if name in before else usual
                errors = {"expected": p @ book, "best": book[p.argmax()], "unigram": usual, "previous": last}
                for kind, value in errors.items():
                    found.setdefault(f"{name}/{kind}", []).append(float(((value - book[own]) ** 2).mean()))
                found.setdefault(f"{name}/nats", []).append(-math.log(p[own]))
                found.setdefault(f"{name}/unigram nats", []).append(-math.log(seen[own] / seen.sum()))
                found.setdefault(f"{name}/right", []).append(float(p.argmax() == own))
                before[name] = own
    mean = {name: float(np.mean(values)) for name, values in found.items()}
    metrics, floors = finished.summary["metrics"], finished.summary["floors"]
    assert metrics["next_token"]["cross_entropy"] == pytest.approx(mean["cross_entropy"], rel=1e-5)
    assert metrics["next_token"]["perplexity"] == pytest.approx(math.exp(mean["cross_entropy"]), rel=1e-5)
    for name in vocabulary.names:
        assert metrics["expected_value"][f"{name}_mse"] == pytest.approx(mean[f"{name}/expected"], rel=1e-4)
        assert metrics["arg_max"][f"{name}_mse"] == pytest.approx(mean[f"{name}/best"], rel=1e-4)
        assert metrics["arg_max"][f"{name}_accuracy"] == pytest.approx(mean[f"{name}/right"])
        assert metrics["next_token"][f"{name}_cross_entropy"] == pytest.approx(mean[f"{name}/nats"], rel=1e-4)
        assert floors["unigram"][f"{name}_mse"] == pytest.approx(mean[f"{name}/unigram"], rel=1e-4)
        assert floors["unigram"][f"{name}_cross_entropy"] == pytest.approx(mean[f"{name}/unigram nats"], rel=1e-4)
        assert floors["previous"][f"{name}_mse"] == pytest.approx(mean[f"{name}/previous"], rel=1e-4)
        assert finished.summary["stages"]["evaluation"]["targets"][name] == len(found[f"{name}/right"])


def test_what_tokens_were_made_from_is_nearest_to_their_own_centroids(finished: RunResult) -> None:
    """Quantising is what no token model can undo: every other forecast is further from the values."""
    rows = {**finished.summary["metrics"], **finished.summary["floors"]}
    for name in ("image", "spectrum", "redshift"):
        floor = rows["quantisation"][f"{name}_mse_to_values"]
        others = [rows[row][f"{name}_mse_to_values"] for row in ("expected_value", "arg_max", "unigram", "previous")]
        assert 0 < floor < min(others)


def test_training_losses_are_reported_on_the_split(finished: RunResult) -> None:
    """At all positions, and their weighted sum; with them the training's own validation."""
    metrics = finished.summary["metrics"]
    losses = metrics["training_losses"]
    assert losses["training/next_token"] == pytest.approx(metrics["next_token"]["cross_entropy"], rel=1e-5)
    assert losses["training/image"] == pytest.approx(metrics["expected_value"]["image_mse"], rel=1e-5)
    parts = {name: losses[f"training/{name}"] for name in ("next_token", "image", "spectrum", "redshift")}
    total = parts["next_token"] + 0.1 * parts["image"] + 0.1 * parts["spectrum"] + 0.5 * parts["redshift"]
    assert losses["training/score"] == pytest.approx(total, rel=1e-5)
    trained = finished.summary["stages"]["training"]
    assert trained["last_validation"].keys() == {"score", *parts}
    assert trained["acceleration"] == "cpu: nothing to set up"
    lines = [json.loads(line) for line in (finished.folder / "metrics.jsonl").read_text().splitlines()]
    scores = [line["validation/score"] for line in lines if "validation/score" in line]
    assert scores[-1] < scores[0]


def test_the_report_asks_nothing_of_any_other_machine(finished: RunResult) -> None:
    page = (finished.folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4  # image, spectrum, scalars, training
    assert not re.findall(r"https?://|<script|<link", page)
    for words in ("unigram", "quantisation", "image MSE to values", "training: next_token"):
        assert words in page
    assert finished.summary["card"]["verdict"] in page.replace("&#x27;", "'")


def test_the_score_card_is_compared_with_that_of_another_run(finished: RunResult, home: Path) -> None:
    other = run(_recipe(home, "stages.training.budget.steps=8"))
    table = compare([finished.folder, other.folder])
    told = table.text()
    assert re.search(r"^  expected value, image MSE +\d", told, re.MULTILINE)
    assert re.search(r"^  unigram, image MSE +\d", told, re.MULTILINE)  # floors of other names are not left out
    assert re.search(r"^  next token, cross-entropy +\d", told, re.MULTILINE)
    with pytest.raises(UsageError, match=r"scored by different definitions.*\n  split: test .*; validation"):
        compare([finished.folder, evaluate(other.folder, changes={"split": "validation"}).folder])


def test_a_finished_run_is_evaluated_again_to_the_same_numbers(finished: RunResult) -> None:
    again = evaluate(finished.folder)
    for part in ("metrics", "floors", "status"):
        assert again.result[part] == finished.summary[part]
    some = evaluate(finished.folder, changes={"samples": 5}).result
    assert some["card"]["fingerprint"]["sequences"] == 5


def test_below_its_floors_is_told(finished: RunResult, home: Path) -> None:
    untrained = run(_recipe(home, "stages.training.budget.steps=1", "stages.evaluation.judged=both", *NO_WARM_UP))
    assert untrained.exit_code == 7
    assert re.match(r"below_floor: cross-entropy \S+ does not beat unigram", untrained.summary["card"]["verdict"])
    assert untrained.summary["status"] == "below_floor"


def test_a_bundle_holds_the_codebooks_and_answers_like_the_run(finished: RunResult) -> None:
    bundle = load_model(finished.folder / "bundle")
    experiment = assemble(bundle.recipe)
    experiment.model.load_state_dict(bundle.model.state_dict())
    batch = experiment.dataset.batch("test", np.arange(5))
    with torch.no_grad():
        answers = [model.eval()(batch.tokens, batch.types, batch.mask) for model in (experiment.model, bundle.model)]
    assert torch.equal(*answers)
    for name, values in experiment.dataset.description.codebooks.items():
        assert torch.equal(bundle.model.state_dict()[f"codebooks.{name}"], torch.from_numpy(values))


def test_accumulation_trains_as_the_whole_batch(home: Path) -> None:
    """Without dropout and with all positions, three steps of four parts are those of one."""
    settings = ["model.dropout=0", "stages.training.losses.image.positions=9999"]
    found = []
    for parts in (1, 4):
        experiment = assemble(_recipe(home, *settings, f"stages.training.accumulation={parts}"))
        stage = experiment.stages[0]
        assert isinstance(stage, TokenTraining)
        with stage.task(experiment) as task:
            from ups_kit.fit.fitting import prepare
            from ups_kit.fit.loop import training_step

            fitting = prepare(task)
            fitting.optimizer = torch.optim.SGD(task.model.parameters(), lr=0.5)
            for step in range(3):
                training_step(fitting, task.source.read(step))
        found.append({name: weight.detach() for name, weight in experiment.model.named_parameters()})
    for name, weight in found[0].items():
        torch.testing.assert_close(found[1][name], weight, atol=1e-5, rtol=1e-4)


def test_losses_without_a_target_are_told_before_anything_is_trained(home: Path) -> None:
    made = ["missing=0.999", "scalar_tokens=60", "trajectories=50"]
    settings = [f"dataset.path={home}/neither.h5", "run.name=other", *(f"dataset.simulate.{key}" for key in made)]
    recipe = _recipe(home, *settings, "stages.training.losses.image.weight=0")
    with pytest.raises(UsageError, match="loss 'spectrum' has no target of spectrum in 18 train sequences"):
        run(recipe)
    assert not (home / "other").exists()
    experiment = assemble(attrs.evolve(recipe, stages=assemble(_recipe(home)).recipe.stages))
    with pytest.raises(UsageError, match="stage 'training': loss 'image' has no target of image"):
        experiment.stages[0].check_ahead(experiment)


@pytest.mark.parametrize(
    ("settings", "path", "message"),
    [
        (
            ['stages.training.losses.image={use="forward"}'],
            "stages.training.losses.image.use",
            "this loss is for models of fields in space",
        ),
        (['stages.training.losses.image.modality="imgae"'], "stages.training.losses.image.modality", "'image'"),
        (
            ["model.length=10"],
            "model.length",
            "sequences of the data are up to 12 long; expected at least that, got 10",
        ),
        (["stages.training.schedule.warmup=50"], "stages.training.schedule.warmup", "nearest: warmup = 40"),
        (["stages.training.budget.steps=0"], "stages.evaluation", "no earlier stage trains the model"),
    ],
)
def test_what_does_not_fit_is_told_with_its_key(home: Path, settings: list[str], path: str, message: str) -> None:
    problems = check(_recipe(home, *settings))
    assert [problem.path for problem in problems] == [path]
    assert message in problems[0].message


def test_a_plan_of_the_recipe(home: Path, finished: RunResult) -> None:
    found = plan(_recipe(home), probed=False).stages[0]
    size = finished.summary["parameters"]["total"]
    assert (found.parameters, found.batch, found.windows, found.steps) == (size, 8, 68, 40)
    assert found.step is not None
    assert found.step.most_flops > 2 * 3 * size


def test_the_recipe_of_the_distribution_is_valid(home: Path) -> None:
    """Its sizes are those of the data that it makes, and one loss for each modality."""
    path = Path(__file__).parents[2] / "recipes" / "tokens.toml"
    recipe: Any = read_recipe(path, [f"dataset.path={home}/other.h5"]).recipe
    assert not check(recipe)
    data = recipe.dataset.describe()
    assert (recipe.model.length, recipe.model.types) == (data.length, data.types)
    assert list(recipe.stages[0].losses) == ["next_token", *data.vocabulary.names]


@pytest.mark.slow
def test_the_benchmark_runs() -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "positions.py"
    done = subprocess.run([sys.executable, str(path), "--quick"], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 11


# ---------------------------------------------------------------------------------------------------------------------
# Kills
# ---------------------------------------------------------------------------------------------------------------------
def _command(folder: Path, data: Path, *more: str) -> subprocess.Popen[str]:
    settings = [f"run.folder={folder}", f"dataset.path={data}", "stages.evaluation.shown=0"]
    words = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "ups_kit", "run", str(SMALL), *words, *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def _finish(folder: Path, data: Path, *more: str) -> None:
    with _command(folder, data, *more) as process:
        _, told = process.communicate(timeout=PATIENCE)
        assert process.returncode in (0, 7), told


def _stop(folder: Path, data: Path, number: signal.Signals, after: int, *more: str) -> int:
    """Signal the run when it has made a checkpoint of so many steps; its exit code."""
    with _command(folder, data, *more) as process:
        checkpoint, began = folder / "small/1/training/checkpoints" / f"step_{after:08}", time.monotonic()
        while not checkpoint.exists():
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() - began < PATIENCE
            time.sleep(0.002)
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)
        return process.returncode


def test_a_run_that_is_killed_and_preempted_ends_with_the_same_bits(
    home: Path, tmp_path: Path, finished: RunResult
) -> None:
    """With dropout, drawn positions, accumulation, a moving average, and checkpoints of steps and of epochs."""
    data, stopped = home / "galaxies.h5", tmp_path
    assert _stop(stopped, data, signal.SIGKILL, 9) == -9  # 68 sequences: the first epoch ends within step 9
    assert _stop(stopped, data, signal.SIGTERM, 30, "--resume") in (75, 0, 7)
    _finish(stopped, data, "--resume")
    for name in ("training/model.safetensors", "bundle/weights.safetensors"):
        assert (stopped / "small/1" / name).read_bytes() == (finished.folder / name).read_bytes(), name
    summary = json.loads((stopped / "small/1/summary.json").read_text())
    assert summary["metrics"] == finished.summary["metrics"]
