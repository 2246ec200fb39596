"""Training on cached latents: the same numbers as with a frozen encoder, from a cache that is always true."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest
import torch

from ups_kit.data import latents as cached
from ups_kit.data.latents import CachedLatents, Opened, check_numbering, open_latents
from ups_kit.errors import DataError, PluginError, Preempted, StorageError
from ups_kit.fit.settings import Budget
from ups_kit.interfaces import Batch, Needs
from ups_kit.recipe import LatentCache
from ups_kit.trackers import Trackers
from ups_plugins.grid.config import GridEncoderConfig
from ups_plugins.upt.config import ForwardConfig, LatentForwardConfig, LatentRolloutConfig

LATENT = {"latent_forward": LatentForwardConfig(), "latent_rollout": LatentRolloutConfig(horizon=3, full=0.5)}
MIXED = {"latent_forward": LatentForwardConfig(), "forward": ForwardConfig(error="relative")}


class Recorder:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}
        self.lines: list[str] = []

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.values.setdefault(name, []).append(value)

    def line(self, text: str) -> None:
        self.lines.append(text)

    def figure(self, *arguments: object) -> None:
        pass

    def close(self) -> None:
        pass


def _experiment(tiny: SimpleNamespace, folder: Path, cache: LatentCache | None = None, **keys: Any) -> Any:
    experiment = tiny.experiment(**keys)
    recipe = experiment.recipe
    recipe.latent_cache, recipe.encoder = cache, GridEncoderConfig(patch_size=4, heads=1)
    recipe.run = attrs.evolve(recipe.run, folder=folder / "runs")
    return experiment


def _stage(tiny: SimpleNamespace, losses: Mapping[str, Any] = LATENT, **keys: Any) -> Any:
    frozen = ("encoder", "decoder") if losses is LATENT else ("encoder",)
    settings = {"freeze": frozen, "periodic_shifts": False, "losses": losses, "log_every": 1, "calibrate": False}
    return tiny.operator_stage(**(settings | keys))


def _train(tiny: SimpleNamespace, path: Path, config: Any, cache: LatentCache | None, resume: bool = False) -> Any:
    experiment, recorder = _experiment(tiny, path.parent, cache), Recorder()
    result = config.build().run(experiment, tiny.folder(path, config.name, resume), Trackers([recorder]))
    return SimpleNamespace(model=experiment.model, result=result, recorder=recorder, experiment=experiment)


def _same(one: Any, other: Any) -> bool:
    states = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("losses", [LATENT, MIXED], ids=["latents alone", "with fields"])
@pytest.mark.parametrize("preload", [True, False])
def test_it_trains_as_with_a_frozen_encoder(
    tiny: SimpleNamespace, tmp_path: Path, losses: Mapping[str, Any], preload: bool
) -> None:
    # AdamW: Muon makes weak directions as large as strong ones, and the last bits of the encoder's numbers with them
    config = _stage(tiny, losses, budget=Budget(steps=8), optimizer=tiny.adamw(lr=1e-3), schedule=None)
    plain = _train(tiny, tmp_path / "plain", config, None)
    with_cache = _train(tiny, tmp_path / "cached", config, LatentCache(preload=preload))
    names = ["loss", "grad_norm", *(f"losses/{name}" for name in losses)]
    for name in names:
        np.testing.assert_allclose(
            with_cache.recorder.values[name], plain.recorder.values[name], rtol=1e-5 if name == "grad_norm" else 1e-6
        )
    assert with_cache.result["best_score"] == pytest.approx(plain.result["best_score"], rel=1e-4)
    assert "latent_cache" not in plain.result
    assert with_cache.result["latent_cache"]["in_memory"] == preload
    (line,) = with_cache.recorder.lines
    assert "latents of 12 trajectories of 8 frames, 4 x 8 float32" in line


def test_the_batches_are_those_of_the_dataset(tiny: SimpleNamespace, tmp_path: Path) -> None:
    experiment = _experiment(tiny, tmp_path)
    reader = open_latents(experiment).reader
    numbers = np.random.default_rng(0).permutation(tiny.dataset.windows("train", 2))[:9]
    own = tiny.dataset.batch("train", numbers, 2)
    experiment.model.eval()
    for reads_fields in (True, False):
        view = CachedLatents(tiny.dataset, reader, "train", reads_fields)
        batch = view.batch("train", numbers, 2)
        for name in ("condition", "ids", "times"):
            torch.testing.assert_close(getattr(batch, name), getattr(own, name), rtol=0, atol=0)
        assert batch.states.shape == (9, 3, 16 if reads_fields else 0, 1)
        assert batch.latents is not None
        for step, latent in enumerate(batch.latents):
            with torch.no_grad():
                truth = experiment.model.encode(own.inputs._replace(values=own.states[:, step]))
            torch.testing.assert_close(latent.tokens, truth.tokens, rtol=0, atol=1e-6)
            torch.testing.assert_close(latent.anchors, truth.anchors)
            assert latent.grid == truth.grid
        held = view.batch("validation", numbers[:2] % 4, 2)
        assert held.latents is None
        assert view.windows("train", 2) == tiny.dataset.windows("train", 2)


class Blind:
    """A dataset that has forgotten its train fields."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def batch(self, split: str, windows: np.ndarray, steps: int) -> Batch:
        assert split != "train", "train fields were read"
        batch: Batch = self._dataset.batch(split, windows, steps)
        return batch


def test_no_field_is_read_for_losses_that_compare_latents(tiny: SimpleNamespace, tmp_path: Path) -> None:
    reader = open_latents(_experiment(tiny, tmp_path)).reader
    batch = CachedLatents(Blind(tiny.dataset), reader, "train", False).batch("train", np.arange(5), 3)
    assert len(batch.latents or ()) == 4


def test_a_loss_that_says_so_and_decodes_is_told(tiny: SimpleNamespace, tmp_path: Path) -> None:
    @attrs.define
    class Deceiver:
        horizon: int = 1
        sampler: None = None
        reaches: tuple[str, ...] = ("operator",)
        latents_only: bool = True

        def needs(self, progress: object) -> Needs:
            return Needs(steps=1, decodes=(1,))

    config = _stage(
        tiny, LATENT | {"liar": SimpleNamespace(build=lambda fields: Deceiver())}, freeze=("encoder", "decoder")
    )
    with pytest.raises(PluginError, match="'liar' asks for fields, and says that it compares latents alone"):
        _train(tiny, tmp_path / "a", config, LatentCache())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_the_bytes_at_the_precision_of_the_type(tiny: SimpleNamespace, tmp_path: Path, dtype: Any) -> None:
    opened = [open_latents(_experiment(tiny, tmp_path, LatentCache(dtype=kind))) for kind in ("float32", dtype)]
    places = np.arange(12), np.zeros((1, 12), np.int64)
    exact, rounded = (one.reader.tokens(*places)[0] for one in opened)
    assert opened[1].reader.store.layout.bytes * 2 == opened[0].reader.store.layout.bytes
    torch.testing.assert_close(rounded, exact.to(getattr(torch, dtype)).float(), rtol=0, atol=0)
    opened[1] = open_latents(_experiment(tiny, tmp_path, LatentCache(dtype=dtype, preload=False)))
    torch.testing.assert_close(opened[1].reader.tokens(*places)[0], rounded, rtol=0, atol=0)


def test_values_beyond_a_type_are_refused(tiny: SimpleNamespace, tmp_path: Path) -> None:
    experiment = _experiment(tiny, tmp_path, LatentCache(dtype="float16"))
    with torch.no_grad():
        experiment.model.encoder.linear.weight *= 1e6
    with pytest.raises(DataError, match=r"tokens reach .*, which float16 does not hold; set latent_cache\.dtype"):
        open_latents(experiment)
    assert isinstance(open_latents(_with_cache(experiment, LatentCache(dtype="bfloat16"))), Opened)


def _with_cache(experiment: Any, cache: LatentCache) -> Any:
    experiment.recipe.latent_cache = cache
    return experiment


# ---------------------------------------------------------------------------------------------------------------------
# What a cache is of
# ---------------------------------------------------------------------------------------------------------------------
def test_a_cache_is_used_again_by_the_same_encoder_on_the_same_data(tiny: SimpleNamespace, tmp_path: Path) -> None:
    first, again = (open_latents(_experiment(tiny, tmp_path, LatentCache(shard=shard))) for shard in (1, 2))
    assert (first.encoded, again.encoded) == (1, 0)
    assert first.reader.store.path == again.reader.store.path


def test_anything_else_has_another_cache(tiny: SimpleNamespace, tmp_path: Path) -> None:
    plain, weights, keys, normaliser, split = (_experiment(tiny, tmp_path) for _ in range(5))
    with torch.no_grad():
        weight = next(iter(weights.model.encoder.parameters())).view(-1)
        weight[0] = torch.nextafter(weight[0], torch.tensor(10.0))  # the last bit of one weight
    keys.recipe.encoder = attrs.evolve(keys.recipe.encoder, mlp_ratio=3.0)
    moved = attrs.evolve(tiny.dataset.normaliser, target_mean=(0.123,))
    normaliser.dataset = attrs.evolve(tiny.dataset, normaliser=moved)
    opened = [open_latents(one) for one in (plain, weights, keys, normaliser)]
    opened += [open_latents(split, "test"), open_latents(_with_cache(plain, LatentCache(dtype="float16")))]
    assert all(one.encoded for one in opened)
    assert len({one.reader.store.path for one in opened}) == len(opened)


def test_changed_files_have_another_cache(tiny: SimpleNamespace, tmp_path: Path) -> None:
    class Files(Blind):
        fingerprint = "as they were"

        def batch(self, *arguments: Any) -> Batch:
            batch: Batch = self._dataset.batch(*arguments)
            return batch

    experiment = _experiment(tiny, tmp_path)
    experiment.dataset = Files(tiny.dataset)
    assert open_latents(experiment).encoded
    assert not open_latents(experiment).encoded
    experiment.dataset.fingerprint = "as they are"
    assert open_latents(experiment).encoded


# ---------------------------------------------------------------------------------------------------------------------
# Resuming, damage, memory
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("lost", [False, True], ids=["with its cache", "without"])
def test_a_stopped_stage_resumes_to_the_same_bits(
    tiny: SimpleNamespace, tmp_path: Path, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _stage(tiny, MIXED)
    whole = _train(tiny, tmp_path / "whole", config, LatentCache())
    from ups_kit.fit import loop

    plain = loop.training_step

    def stopped(fitting: Any, batch: Any) -> None:
        if fitting.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        plain(fitting, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "training_step", stopped)
        with pytest.raises(Preempted):
            _train(tiny, tmp_path / "stopped", config, LatentCache())
    if lost:
        shutil.rmtree(tmp_path / "runs")
    resumed = _train(tiny, tmp_path / "stopped", config, LatentCache(preload=False), resume=True)
    assert resumed.result["latent_cache"]["encoded_shards"] == int(lost)
    assert _same(whole, resumed)


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_damage_is_repaired(
    tiny: SimpleNamespace, tmp_path: Path, damage: str, recwarn: pytest.WarningsRecorder
) -> None:
    opened = open_latents(_experiment(tiny, tmp_path))
    places = np.arange(12), np.zeros((1, 12), np.int64)
    truth = opened.reader.tokens(*places)[0]
    file = opened.reader.store.file(0)
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-9] if damage == "cut" else bytes([content[0] ^ 1, *content[1:]]))
    again = open_latents(_experiment(tiny, tmp_path))
    assert again.encoded == 1
    assert torch.equal(again.reader.tokens(*places)[0], truth)
    (warning,) = (str(warning.message) for warning in recwarn.list)
    assert "shard 0: tokens/c/0/0/0/0" in warning
    assert warning.endswith("it is encoded anew")


def test_a_cache_that_changes_while_it_is_read_is_told(tiny: SimpleNamespace, tmp_path: Path) -> None:
    reader = open_latents(_experiment(tiny, tmp_path, LatentCache(preload=False))).reader
    places = np.arange(12), np.zeros((1, 12), np.int64)
    file = reader.store.file(0)
    content = bytearray(file.read_bytes())
    offset = int(reader.indices[0][3, 0, 0])
    content[offset + 50] ^= 4
    file.write_bytes(content)
    with pytest.raises(StorageError, match=r"latents changed while they were in use .*--resume"):
        reader.tokens(*places)
    file.unlink()
    with pytest.raises(StorageError, match="No such file"):
        reader.tokens(*places)


def test_a_reader_reaches_another_process_without_its_memory(tiny: SimpleNamespace, tmp_path: Path) -> None:
    reader = open_latents(_experiment(tiny, tmp_path, LatentCache(preload=True))).reader
    assert reader.memory is not None
    text = pickle.dumps(reader)
    other = pickle.loads(text)
    places = np.arange(12), np.ones((2, 12), np.int64)
    assert other.memory is None
    assert all(torch.equal(one, two) for one, two in zip(reader.tokens(*places), other.tokens(*places), strict=True))


def test_memory_is_looked_at_before_it_is_filled(
    tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 12 * 8 * 4 * 8 * 4
    found = {}
    for free in (2 * size, 2 * size - 2):
        monkeypatch.setattr(cached, "available_memory", lambda free=free: free)
        found[free] = open_latents(_experiment(tiny, tmp_path, LatentCache())).reader.memory is not None
    assert found == {2 * size: True, 2 * size - 2: False}
    monkeypatch.setattr(cached, "available_memory", lambda: size - 1)
    with pytest.raises(StorageError, match=r"preload = true: the latents take .*set preload = \"auto\" or false"):
        open_latents(_experiment(tiny, tmp_path, LatentCache(preload=True)))


def test_a_full_disk_is_told_before_anything_is_encoded(
    tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(
        StorageError, match=r"the latents still need .* GB are free; choose another latent_cache.folder"
    ):
        open_latents(_experiment(tiny, tmp_path))


def test_fields_at_some_points_come_with_whole_latents(tiny: SimpleNamespace, tmp_path: Path) -> None:
    reader = open_latents(_experiment(tiny, tmp_path)).reader
    sampled = attrs.evolve(tiny.dataset, fields=attrs.evolve(tiny.dataset.fields, sampled=5))
    view = CachedLatents(sampled, reader, "train", True)
    batch = view.batch_at_points("train", np.arange(6), 2, seed=3)
    own = sampled.batch_at_points("train", np.arange(6), 2, 3)
    assert batch.states.shape == (6, 3, 5, 1)
    assert torch.equal(batch.states, own.states)
    whole = CachedLatents(tiny.dataset, reader, "train", True).batch("train", np.arange(6), 2)
    for one, other in zip(batch.latents or (), whole.latents or (), strict=True):
        assert torch.equal(one.tokens, other.tokens)


def test_touched_files_have_another_cache(tiny: SimpleNamespace, tmp_path: Path) -> None:
    path = tiny.dataset.settings.path
    first = tiny.dataset.fingerprint
    again = tiny.dataset.settings.build(0)
    assert again.fingerprint == first
    kept = path.stat()
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns + 10**9))
    try:
        assert tiny.dataset.settings.build(0).fingerprint != first
    finally:
        os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))


def test_windows_in_another_order_are_refused(tiny: SimpleNamespace, tmp_path: Path) -> None:
    class Backwards(Blind):
        def batch(self, split: str, windows: np.ndarray, steps: int) -> Batch:
            batch: Batch = self._dataset.batch(split, self.windows(split, steps) - 1 - windows, steps)
            return batch

    reader = open_latents(_experiment(tiny, tmp_path)).reader
    check_numbering(tiny.dataset, reader, "train", 3)
    with pytest.raises(DataError, match="numbers its windows of 3 steps otherwise"):
        check_numbering(Backwards(tiny.dataset), reader, "train", 3)  # type: ignore[arg-type]
