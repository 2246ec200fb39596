"""Cached latents of data on points: those that the encoder gives, where it places them, with their condition."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from ups_kit import LatentSpec
from ups_kit.data.latents import CachedLatents, check_numbering, open_latents
from ups_kit.model import LatentModel
from ups_kit.recipe import LatentCache
from ups_plugins.mesh.config import MeshEncoderConfig
from ups_plugins.particles.config import ParticleEncoderConfig

FRAMES, STEPS = 5, 2


def experiment(clouds: ModuleType, path: Path, moves: bool, **keys: object) -> SimpleNamespace:
    """An encoder with a condition, and trajectories of different numbers of points."""
    counts = np.array([20, 17, 23, 20, 18, 25, 20, 21])
    cloud = clouds.Cloud(counts, np.full(len(counts), FRAMES), moves=moves)
    dataset = clouds.dataset(path, cloud, conditions=("nu", "angle"))
    kind = ParticleEncoderConfig if moves else MeshEncoderConfig
    config = kind(supernodes=9, heads=1, degree=8, modulation="low_rank", **keys)
    torch.manual_seed(0)
    encoder = config.build(dataset.fields, LatentSpec(8))
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.copy_(0.3 * torch.randn_like(weight))
    model = LatentModel(encoder, torch.nn.Identity(), torch.nn.Identity(), dataset.fields)
    recipe = SimpleNamespace(
        encoder=config, latent_cache=LatentCache(folder=path / "cache"), run=SimpleNamespace(folder=path)
    )
    return SimpleNamespace(dataset=dataset, model=model, recipe=recipe, device=torch.device("cpu"))


@pytest.mark.parametrize("preload", [True, False])
@pytest.mark.parametrize(("moves", "choice"), [(False, "grid"), (False, "farthest"), (False, "random"), (True, "grid")])
def test_they_are_what_the_encoder_gives(
    clouds: ModuleType, tmp_path: Path, moves: bool, choice: str, preload: bool
) -> None:
    made = experiment(clouds, tmp_path, moves, choice=choice)
    opened = open_latents(made, preload=preload)
    check_numbering(made.dataset, opened.reader, "train", STEPS)
    reader = pickle.loads(pickle.dumps(opened.reader))  # as a worker gets it
    windows = np.array([0, 4, 3, 7])
    for fields in (True, False):
        batch = CachedLatents(made.dataset, reader, "train", fields).batch("train", windows, STEPS)
        members, starts = reader.places(windows, STEPS)
        assert batch.latents is not None
        for step, latent in enumerate(batch.latents):
            frame = made.dataset.batch("train", members * FRAMES + starts + step, 0)
            with torch.no_grad():
                expected = made.model.encode(frame.inputs, frame.condition)
            torch.testing.assert_close(latent.tokens, expected.tokens, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(latent.anchors, expected.anchors, rtol=0, atol=0)
            torch.testing.assert_close(latent.condition, expected.condition)
            assert latent.grid == expected.grid
            assert latent.anchors is not None
            assert latent.anchors.dim() == (2 if choice == "grid" else 3)


def test_anchors_of_standing_points_are_kept_once_for_a_trajectory(clouds: ModuleType, tmp_path: Path) -> None:
    made = experiment(clouds, tmp_path, moves=False, choice="farthest")
    reader = open_latents(made).reader
    assert reader.anchors is not None
    assert reader.anchors.shape == (len(made.dataset.splits["train"]), 1, 9, 2)
    again = open_latents(made)
    assert again.encoded == 0
    assert torch.equal(again.reader.anchors, reader.anchors)


def test_tokens_without_a_place_are_cached_too(clouds: ModuleType, tmp_path: Path) -> None:
    made = experiment(clouds, tmp_path, moves=False)
    encoder = made.recipe.encoder.build(made.dataset.fields, LatentSpec(8, tokens=4))
    made.model.encoder = encoder
    reader = open_latents(made).reader
    batch = CachedLatents(made.dataset, reader, "train", False).batch("train", np.array([1]), 0)
    assert batch.latents is not None
    assert batch.latents[0].anchors is None
    assert batch.latents[0].tokens.shape == (1, 4, 8)
