"""Values packed for another process come out equal, in one piece of memory that is no larger than it must be."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch

from ups_kit import Latent, PointSet
from ups_kit.data.parcels import ALIGNMENT, packed

BASE = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
TENSORS = {
    "plain": BASE,
    "transposed": BASE.transpose(0, 2),
    "every other": BASE[:, ::2],
    "a small part of much": torch.arange(10_000.0)[7_000:7_003],
    "expanded": torch.arange(4.0)[None, :, None].expand(100, -1, 2),
    "one number": torch.tensor(3.5),
    "no number": torch.empty(0, 4),
    "truth": torch.tensor([[True], [False]]),
    "half": torch.randn(7).bfloat16(),
    "numbers": torch.tensor([2**40, -1]),
}


def sent(value: Any) -> Any:
    """What arrives: the parcel itself travels pickled."""
    return pickle.loads(pickle.dumps(packed(value))).opened()


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_come_out_equal(name: str) -> None:
    tensor = TENSORS[name]
    found = sent((torch.zeros(3), tensor, "beside it"))
    assert found[1].dtype == tensor.dtype
    assert found[1].shape == tensor.shape
    assert torch.equal(found[1], tensor)
    assert found[2] == "beside it"


def test_named_tuples_and_what_is_no_tensor_stay_what_they_are() -> None:
    value = (PointSet(BASE, BASE, grid=(4, 5)), (Latent(BASE, None, (4,)),), None, 3, (1, 2))
    found = sent(value)
    assert type(found[0]) is PointSet
    assert found[0].grid == (4, 5)
    assert found[0].mask is None
    assert type(found[1][0]) is Latent
    assert found[2:] == (None, 3, (1, 2))


def size(value: Any) -> int:
    piece = packed(value).received().piece
    assert isinstance(piece, torch.Tensor)
    return piece.nbytes


def test_what_tensors_share_or_repeat_goes_once() -> None:
    states = torch.randn(8, 3, 64)
    alone = size(states)
    assert size((states, states[:, 0], states[:, 1:].transpose(1, 2))) == alone == states.nbytes
    assert size(torch.zeros(1, 64).expand(1000, -1)) == 256
    assert size(torch.zeros(10**6)[:10]) <= ALIGNMENT


def test_what_shared_memory_before_shares_it_still() -> None:
    parcel = packed((BASE, BASE[:, 0]))
    opened = parcel.opened()
    opened[0][0, 0, 0] = 77
    assert opened[1][0, 0] == 77  # still one memory
    assert BASE[0, 0, 0] == 0
