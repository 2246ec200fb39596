"""Ids: special tokens, then a block for each modality."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ups_kit.batching import to_device
from ups_tokens.batch import TokenBatch, expected_targets
from ups_tokens.description import TokenSpec
from ups_tokens.vocabulary import SPECIAL, Modality, Vocabulary

FLUX = Modality("flux", "spectrum", 3, 2)
VOCABULARY = Vocabulary((Modality("image", "image", 5, 4), FLUX, Modality("z", "scalar", 2)))


def test_blocks_are_contiguous_and_cover_all_ids() -> None:
    ids = [place for name in VOCABULARY.names for place in range(VOCABULARY.size)[VOCABULARY.block(name)]]
    assert ids == list(range(len(SPECIAL), VOCABULARY.size)) == list(range(4, 14))
    assert [VOCABULARY.base(name) for name in VOCABULARY.names] == [4, 9, 12]
    owners = VOCABULARY.modality_of(np.arange(-1, VOCABULARY.size + 1))
    assert owners.tolist() == [-2, -1, -1, -1, -1, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, -2]


def test_it_is_read_back_and_the_description_too() -> None:
    assert Vocabulary.from_dict(VOCABULARY.to_dict()) == VOCABULARY
    spec = TokenSpec(VOCABULARY, 12, 4, {"z": np.zeros((2, 1), np.float32)})
    again = TokenSpec.from_dict(spec.to_dict())
    assert again == spec
    assert not again.codebooks
    with pytest.raises(ValueError, match=r"codebook of 'z' has the shape \(3, 1\); expected \(2, 1\)"):
        TokenSpec(VOCABULARY, 12, 4, {"z": np.zeros((3, 1), np.float32)})


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"special": list(SPECIAL), "modalities": []},
        {"special": ["PAD"], "modalities": [{"name": "z", "kind": "scalar", "size": 2}]},
        {"special": list(SPECIAL), "modalities": [{"name": "z", "kind": "sound", "size": 2}]},
        {"special": list(SPECIAL), "modalities": [{"name": "z", "kind": "scalar", "size": 2, "dims": 3}]},
        {"special": list(SPECIAL), "modalities": [{"name": "z", "kind": "scalar", "size": 2}] * 2},
        {"special": list(SPECIAL), "modalities": [{"name": "z", "kind": "scalar", "size": 0}]},
        {"special": list(SPECIAL), "modalities": 7},
        *(
            {"special": list(SPECIAL), "modalities": [{"name": "z", "kind": "image", "size": size, "dims": dims}]}
            for size, dims in ((True, 2), (4.0, 2), (float("inf"), 2), (10**30, 2), (4, True), (4, 2.0), (4, None))
        ),
        {"special": [*SPECIAL, 7], "modalities": [{"name": "z", "kind": "scalar", "size": 2}]},
    ],
)
def test_what_is_no_vocabulary_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Vocabulary.from_dict(values)


@pytest.mark.parametrize(("key", "value"), [("name", "a b"), ("name", 3), ("kind", "sound"), ("kind", ["image"])])
def test_what_a_modality_cannot_be_is_told_in_words(key: str, value: object) -> None:
    modality = {"name": "z", "kind": "image", "size": 2, key: value}
    with pytest.raises(ValueError, match=f"^{key}: expected .*, got ") as caught:
        Vocabulary.from_dict({"special": list(SPECIAL), "modalities": [modality]})
    assert "Attribute" not in str(caught.value)


def test_nearest_modality() -> None:
    with pytest.raises(KeyError, match="did you mean 'image'"):
        VOCABULARY.base("imag")


def batch() -> TokenBatch:
    """PAD 0, BOS 1, EOS 2, MISSING 3; image 4 … 8, flux 9 … 11, z 12, 13."""
    tokens = torch.tensor([[1, 4, 9, 12, 2, 0], [1, 3, 10, 11, 13, 2], [1, 5, 6, 9, 2, 0], [4, 1, 2, 0, 0, 0]])
    mask = torch.arange(6) < torch.tensor([[5], [6], [5], [3]])
    expected = expected_targets(tokens, mask, VOCABULARY)
    return TokenBatch(tokens, torch.zeros_like(tokens), mask, torch.arange(4), expected)


def test_targets_that_count() -> None:
    # Of the rows 4 (4, 9, 12, EOS), 4 (no MISSING), 4, and 2 (the first is no target): 14 in all.
    assert torch.equal(batch().expected * 4, torch.tensor([14.0, 3.0, 4.0, 2.0]))


def test_parts_of_a_batch_average_to_the_whole() -> None:
    whole = batch()
    errors = torch.rand(whole.tokens.shape, generator=torch.Generator().manual_seed(0))
    counts = whole.mask & (whole.tokens != 0) & (whole.tokens != 3)
    counts[:, 0] = False

    def loss(part: TokenBatch, rows: slice) -> torch.Tensor:
        return (errors * counts)[rows].sum() / (part.expected[0] * part.samples)

    assert whole.part(slice(2, 4)).ids.tolist() == [2, 3]
    halves = [loss(whole.part(rows), rows) for rows in (slice(0, 2), slice(2, 4))]
    assert torch.allclose(sum(halves) / 2, loss(whole, slice(0, 4)))
    assert torch.allclose(loss(whole, slice(0, 4)), errors[counts].mean())


def test_it_is_moved_as_it_is() -> None:
    moved = to_device(batch(), torch.device("meta"))
    assert isinstance(moved, TokenBatch)
    assert {part.device.type for part in moved} == {"meta"}
