"""What latents are of: everything that they depend on, as one hash."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..interfaces import Dataset, Identified
from .latent_store import FORMAT

if TYPE_CHECKING:
    from ..assemble import Experiment

PROBES = 4  # windows whose values are part of the key


def content(experiment: Experiment, split: str, dtype: str) -> dict[str, Any]:
    """All that a split's latents depend on, as JSON can hold it; its hash is the cache's key."""
    config: Any = experiment.recipe.encoder
    return {
        "format": FORMAT,
        "encoder": json.loads(json.dumps({"type": type(config).__qualname__, **attrs.asdict(config)}, default=str)),
        "weights": weights_hash(experiment.model.encoder),
        "data": data_hash(experiment.dataset, split),
        "split": split,
        "dtype": dtype,
    }


def weights_hash(module: nn.Module) -> str:
    """One hash of all weights and buffers of a module: their names, types, shapes and bits."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        tensor = value.detach().cpu().contiguous()
        digest.update(f"{name.replace('_orig_mod.', '')} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def data_hash(dataset: Dataset, split: str) -> str:
    """One hash of what a split holds and how it is normalised.

    Of the initial conditions, the statistics of the train data, the field spec, the values of some windows, and the
    fingerprint of the files where the dataset has one.
    """
    facts = {
        "splits": dataset.splits.digest,
        "ids": list(dataset.splits[split]),
        "normaliser": dataset.normaliser.to_dict(),
        "fields": attrs.asdict(dataset.fields),
        "frames": dataset.windows(split, 0),
        "files": dataset.fingerprint if isinstance(dataset, Identified) else None,
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    batch = dataset.batch(split, probes(dataset.windows(split, 0)), 0)
    for values in (batch.inputs.positions, batch.inputs.values, batch.condition, batch.times):
        digest.update(np.ascontiguousarray(values.numpy()).tobytes())
    return digest.hexdigest()


def probes(total: int) -> NDArray[np.int64]:
    """A few of so many window numbers, spread evenly."""
    return np.unique(np.linspace(0, total - 1, min(PROBES, total)).round().astype(np.int64))
