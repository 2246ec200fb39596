"""The generative stages on real parts: what they train and leave alone, what they pick up, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ups_kit import LatentSpec
from ups_kit.assemble import Experiment
from ups_kit.data.answers import Answers, answers_of
from ups_kit.data.making import make
from ups_kit.errors import DataError
from ups_kit.fit.order import TAKEN, part_name
from ups_kit.fit.settings import Budget
from ups_kit.folder import RunFolder
from ups_kit.generating import Noise
from ups_kit.interfaces import Dataset
from ups_kit.model import LatentModel
from ups_kit.recipe import Run
from ups_kit.trackers import Trackers
from ups_plugins.decoders.config import PartitionConfig
from ups_plugins.generative.config import ConsistencyStageConfig, DiffusionStageConfig, SteadyPriorStageConfig
from ups_plugins.generative.training import residual_pair
from ups_plugins.grid.config import GridEncoderConfig, PDEBenchConfig
from ups_plugins.operators.config import TransformerConfig
from ups_plugins.optim import AdamWConfig
from ups_plugins.simulators.config import Burgers1DConfig, Darcy2DConfig
from ups_plugins.upt.config import ForwardConfig, InverseEncodingConfig
from ups_plugins.upt.evaluation.reach import gradient_reach, seen_by_stage
from ups_plugins.upt.training.config import CodecStageConfig, OperatorStageConfig

SETTINGS: dict[str, Any] = {
    "budget": Budget(steps=30),
    "optimizer": AdamWConfig(lr=0.01),
    "batch": 8,
    "validate_every": 10,
    "checkpoint_every": 10,
}
SMALL: dict[str, Any] = {**SETTINGS, "width": 8, "depth": 1, "heads": 1, "rank": 2}
CODEC = CodecStageConfig(losses={"inverse_encoding": InverseEncodingConfig()}, **SETTINGS)
OPERATOR = OperatorStageConfig(losses={"forward": ForwardConfig()}, **SETTINGS)


@pytest.fixture(scope="module")
def burgers(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("data") / "burgers.hdf5"
    make(path, Burgers1DConfig(trajectories=24, points=16, frames=8, epsilon=0.1, device="cpu"))
    return PDEBenchConfig(path=path, validation=4, test=4).build(seed=0)


@pytest.fixture(scope="module")
def darcy(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("data") / "darcy.hdf5"
    make(path, Darcy2DConfig(trajectories=24, points=16, device="cpu"))
    return PDEBenchConfig(path=path, validation=4, test=4).build(seed=0)


def experiment_of(dataset: Dataset, *stages: Any) -> Any:
    """An experiment whose model has the parts that the stages add."""
    latent, fields = LatentSpec(width=8), dataset.fields
    encoder = GridEncoderConfig(patch_size=4, heads=1)
    recipe: Any = SimpleNamespace(
        run=Run(name="tiny"), latent=latent, encoder=encoder, stages=stages, latent_cache=None
    )
    torch.manual_seed(3)
    parts = [
        encoder.build(fields, latent),
        TransformerConfig(depth=1, heads=1, rank=2).build(fields, latent),
        PartitionConfig(modes=4).build(fields, latent),
    ]
    added = {stage.name: stage.build_part(recipe, fields) for stage in stages if hasattr(stage, "build_part")}
    model = LatentModel(
        *parts, fields, dataset.normaliser, {name: part for name, part in added.items() if part is not None}
    )
    catalog: Any = None
    return Experiment(recipe, dataset, model, (), torch.device("cpu"), catalog)


def run(experiment: Any, stage: Any, folder: Path) -> Mapping[str, Any]:
    folder.mkdir(exist_ok=True)
    found: Mapping[str, Any] = stage.build().run(experiment, RunFolder(folder).stage(stage.name, False), Trackers([]))
    return found


def weights(model: LatentModel, but: str) -> dict[str, Tensor]:
    """All weights outside a part."""
    return {name: value.clone() for name, value in model.state_dict().items() if not name.startswith(f"added.{but}.")}


def test_diffusion_trains_its_part_alone(burgers: Dataset, tmp_path: Path) -> None:
    stage = DiffusionStageConfig(horizon=2, **SMALL)
    experiment = experiment_of(burgers, stage)
    before, part = weights(experiment.model, "diffusion"), experiment.model.added["diffusion"].net.give.weight.clone()
    found = run(experiment, stage, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in weights(experiment.model, "diffusion").items())
    assert not torch.equal(part, experiment.model.added["diffusion"].net.give.weight)
    assert found["steps"] == 30
    assert found["last_validation"]["score"] < 1.2  # in units of the residual: 1 says nothing of them


def test_diffusion_finds_a_constant_that_the_operator_leaves_out(burgers: Dataset, tmp_path: Path) -> None:
    stage = DiffusionStageConfig(**SMALL)
    experiment = experiment_of(burgers, stage)
    inner = experiment.model.operator.forward
    experiment.model.operator.forward = lambda latent, condition: _moved(inner(latent, condition))
    run(experiment, stage, tmp_path)
    batch = burgers.batch("test", torch.arange(4).numpy(), 1)
    pair = residual_pair(experiment.model, batch, 1)
    corrected = experiment.model.added["diffusion"].correct(pair.predicted, torch.zeros_like(pair.target), 1).tokens
    before = (pair.target - pair.predicted.tokens).square().mean()
    assert (pair.target - corrected).square().mean() < 0.1 * before


def _moved(latent: Any) -> Any:
    return latent._replace(tokens=latent.tokens + 3.0)


def test_the_student_begins_as_its_teacher_and_changes_nothing_else(burgers: Dataset, tmp_path: Path) -> None:
    teacher, stage = DiffusionStageConfig(**SMALL), ConsistencyStageConfig(**SETTINGS)
    experiment = experiment_of(burgers, teacher, stage)
    run(experiment, teacher, tmp_path)
    before = weights(experiment.model, "consistency")
    found = run(experiment, stage, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in weights(experiment.model, "consistency").items())
    student, taught = experiment.model.added["consistency"], experiment.model.added["diffusion"]
    assert torch.equal(student.residual.spread, taught.residual.spread)
    assert not torch.equal(student.net.give.weight, taught.net.give.weight)
    batch = burgers.batch("test", torch.arange(4).numpy(), 1)
    pair = residual_pair(experiment.model, batch, 1)
    noise = Noise(0, 0, (0, 1, 2, 3))(0, pair.target)
    drawn = student.correct(pair.predicted, noise, 1).tokens - pair.predicted.tokens
    assert (drawn / taught.residual.spread).std() > 0.3  # no collapse onto the mean
    assert found["best_score"] < 1.0  # nearer to the teacher's draws than zero is, whose distance is about 1


def test_a_codec_of_answers_is_an_encoder_of_its_own(darcy: Dataset, tmp_path: Path) -> None:
    experiment = experiment_of(darcy, CODEC)
    kept = {name: value.clone() for name, value in experiment.model.encoder.state_dict().items()}
    found = run(experiment, CODEC, tmp_path)
    assert found["best_score"] < 0.5  # nRMSE of answers that are encoded and decoded
    assert all(torch.equal(value, kept[name]) for name, value in experiment.model.encoder.state_dict().items())


def test_the_audit_sees_a_codec_of_answers_through_its_own_encoder(darcy: Dataset) -> None:
    experiment = experiment_of(darcy, CODEC)
    (row,) = gradient_reach(experiment.model, darcy, (CODEC,), 0)
    assert row.norms["encoder"]
    assert not row.missing()
    seen, _ = seen_by_stage(experiment.model, darcy, CODEC)
    assert seen.encoder is experiment.model.added["codec"]


def test_answers_are_frames_that_stand_still(darcy: Dataset) -> None:
    seen, numbers = Answers(darcy), torch.arange(3).numpy()
    batch, steady = seen.batch("train", numbers, 2), darcy.batch("train", numbers, 1)
    assert torch.equal(batch.inputs.values, steady.states[:, 1])
    assert all(torch.equal(batch.states[:, step], steady.states[:, 1]) for step in range(3))
    assert seen.fields.history == 1
    assert seen.fields.input_channels == seen.fields.target_channels
    assert seen.windows("train", 3) == darcy.windows("train", 1)
    assert answers_of(steady).states.shape[1] == 1


def test_the_prior_draws_answers_of_the_codec(darcy: Dataset, tmp_path: Path) -> None:
    stage = SteadyPriorStageConfig(**SMALL)
    experiment = experiment_of(darcy, CODEC, stage)
    run(experiment, CODEC, tmp_path)
    before = weights(experiment.model, "steady_prior")
    found = run(experiment, stage, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in weights(experiment.model, "steady_prior").items())
    assert found["last_validation"]["mean_left"] < 1.0  # 1: what is given says nothing of the answer
    batch = darcy.batch("test", torch.arange(4).numpy(), 1)
    part = experiment.model.added["steady_prior"]
    given = part.given(batch.inputs, batch.condition)
    drawn = [part.correct(given, Noise(0, member, (0, 1, 2, 3))(0, given.tokens), 8).tokens for member in (0, 1)]
    assert drawn[0].shape == given.tokens.shape
    assert not torch.allclose(drawn[0], drawn[1])


# ---------------------------------------------------------------------------------------------------------------------
# What is refused when a recipe is read
# ---------------------------------------------------------------------------------------------------------------------
def says(problems: Any, key: str, *words: str) -> None:
    found = [message for where, message in problems if where == key]
    assert len(found) == 1, list(problems)
    for word in words:
        assert word in found[0]


LATENT = LatentSpec(width=8)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: DiffusionStageConfig(**SMALL, tau_min=0.9, tau_max=0.1), ("tau_min = 0.9", "tau_max = 0.1")),
        (lambda: ConsistencyStageConfig(**SETTINGS, teacher_steps=2), ("teacher_steps = 2", "shown = [1, 2]", "= 3")),
        (
            lambda: ConsistencyStageConfig(**SETTINGS, teacher_steps=8, sampling_steps=9),
            ("teacher_steps = 8", "sampling_steps = 9", "= 10"),
        ),
    ],
)
def test_keys_that_clash_are_told_with_both_values(build: Callable[[], object], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as raised:
        build()
    for word in words:
        assert word in str(raised.value)


def test_stages_that_lack_what_they_need_before_them_say_so() -> None:
    diffusion, student = DiffusionStageConfig(**SMALL), ConsistencyStageConfig(**SETTINGS)
    says(diffusion.check_order([CODEC]), "use", "trains the operator")
    assert not list(diffusion.check_order([OPERATOR]))
    says(student.check_order([OPERATOR]), "teacher", "'diffusion'")
    misspelt = ConsistencyStageConfig(**SETTINGS, teacher="difusion")
    says(misspelt.check_order([OPERATOR, diffusion]), "teacher", "did you mean 'diffusion'")
    skipped = DiffusionStageConfig(**(SMALL | {"budget": Budget(steps=0)}))
    says(student.check_order([OPERATOR, skipped]), "teacher", "skipped")
    skipped_too = ConsistencyStageConfig(**(SETTINGS | {"budget": Budget(steps=0)}))
    assert not list(skipped_too.check_order([OPERATOR, skipped]))
    assert not list(skipped.check_order([]))


def test_a_prior_needs_a_codec_whose_decoder_is_left_alone() -> None:
    prior = SteadyPriorStageConfig(**SMALL)
    says(prior.check_order([OPERATOR]), "codec", "no earlier stage is a codec called 'codec'")
    says(prior.check_order([CODEC, OPERATOR]), "codec", "'operator' trains the decoder", "freeze")
    frozen = OperatorStageConfig(losses={"forward": ForwardConfig()}, freeze=("decoder",), **SETTINGS)
    assert not list(prior.check_order([CODEC, frozen]))


def test_horizons_beyond_the_data_are_told_before_any_stage_begins(burgers: Dataset) -> None:
    for config in (DiffusionStageConfig(**SMALL, horizon=8), ConsistencyStageConfig(**SETTINGS, horizon=8)):
        experiment = experiment_of(burgers, DiffusionStageConfig(**SMALL, horizon=7), config)
        stage: Any = config.build()
        with pytest.raises(DataError, match=rf"stages\.{config.name}\.horizon looks 8 .* at most 7 steps"):
            stage.check_ahead(experiment)


def test_no_part_is_called_as_torch_calls_something_of_its_own() -> None:
    own = {name for name in dir(nn.ModuleDict()) if not name.startswith("_")}
    assert own <= TAKEN
    assert [part_name(name) for name in ("diffusion", "a-b", "train", "_version", "a.b")] == [
        *("diffusion", "a-b", "train_stage", "version", "a_b")
    ]
    assert not any(hasattr(nn.ModuleDict(), part_name(name)) for name in dir(nn.ModuleDict()))


def test_data_that_a_stage_is_not_for_are_told(burgers: Dataset, darcy: Dataset) -> None:
    says(DiffusionStageConfig(**SMALL).check(darcy.fields, LATENT), "use", "steady", "steady_prior")
    says(ConsistencyStageConfig(**SETTINGS).check(darcy.fields, LATENT), "use", "steady")
    says(SteadyPriorStageConfig(**SMALL).check(burgers.fields, LATENT), "use", "evolve", "diffusion")
    wrong = DiffusionStageConfig(**(SMALL | {"heads": 3}))
    says(wrong.check(burgers.fields, LATENT), "heads", "3 heads", "width = 8")
