"""Codebooks in every form that they come in, and what is wrong with bad ones."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from ups_kit import DataError
from ups_tokens.codebooks import KEYS, load_codebook
from ups_tokens.config import TypedTokensConfig
from ups_tokens.vocabulary import Modality

IMAGE, SCALAR = Modality("image", "image", 4, 3), Modality("z", "scalar", 4)
VALUES = np.arange(12.0).reshape(4, 3)


class Booby:
    """Leaves a file where it is unpickled."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> Any:
        return Path.touch, (self.trap,)


@pytest.mark.parametrize("key", KEYS)
def test_archives(tmp_path: Path, key: str) -> None:
    np.savez(tmp_path / "book.npz", **{key: VALUES, "sizes": np.ones(4)})
    book = load_codebook(tmp_path / "book.npz", IMAGE, "codebooks.image")
    assert book.dtype == np.float32
    assert np.array_equal(book, VALUES)


def test_plain_arrays_and_scalars_of_one_axis(tmp_path: Path) -> None:
    np.save(tmp_path / "book.npy", VALUES.astype(np.float16))
    assert np.array_equal(load_codebook(tmp_path / "book.npy", IMAGE, "codebooks.image"), VALUES)
    np.savez(tmp_path / "bins.npz", bin_centers=np.arange(4))
    assert load_codebook(tmp_path / "bins.npz", SCALAR, "codebooks.z").tolist() == [[0], [1], [2], [3]]


def bad(values: np.ndarray, at: tuple[int, int], to: float) -> np.ndarray:
    values = values.copy()
    values[at] = to
    return values


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (
            {"centroid": VALUES},
            "expected one array of the names centroids, codebook, .*; did you mean 'cent",
        ),
        ({"a": VALUES, "b": VALUES}, "expected one array of the names .*; got a, b"),
        ({"centroids": VALUES, "codebook": VALUES}, "expected one array of the names"),
        ({"centroids": VALUES.T}, r"expected \(4, 3\).*got the shape \(3, 4\); it is the other way round"),
        ({"centroids": VALUES[:3]}, r"expected \(4, 3\), as 'image' has 4 tokens of 3 numbers; got the shape \(3, 3\)"),
        ({"centroids": VALUES[:, 0]}, r"got the shape \(4\)"),
        (
            {"centroids": bad(VALUES, (2, 1), np.nan)},
            "in 1 of 4 tokens .as float32., the first is token 2 of 'image'",
        ),
        ({"centroids": bad(VALUES, (0, 0), np.inf)}, "NaN or infinity in 1 of 4"),
        ({"centroids": bad(VALUES.astype(float), (3, 0), 1e300)}, "the first is token 3 of 'image'"),
        ({"centroids": VALUES.astype(str)}, "got values of the type <U"),
        ({"centroids": VALUES.astype(object)}, "holds pickled Python objects, which may run code"),
    ],
)
def test_bad_archives(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    path = tmp_path / "book.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=said) as caught:
        load_codebook(path, IMAGE, "codebooks.image")
    assert str(caught.value).startswith(str(path))
    assert caught.value.key == "codebooks.image"


def header(text: str) -> bytes:
    """An array's file that holds no more than its header."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text.encode() + b"\n"


def packed(shape: tuple[int, ...]) -> bytes:
    """An archive with such an array."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("centroids.npy", header(str({"descr": "<f4", "fortran_order": False, "shape": shape})))
    return content.getvalue()


def test_files_that_are_none(tmp_path: Path) -> None:
    for name, content, said in (
        ("cut.npz", b"PK\x03\x04", "is no readable .npz file"),
        ("text.npy", b"1 2 3", "pickled Python objects|is no readable .npy file"),
        ("empty.npy", b"", "is no readable .npy file"),
        ("text.npz", b"<html>", r"is no readable .npz file \(it begins b'<html>'\)"),
        ("pointer.npz", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        ("header.npy", header("{" * 90), "is no readable .npy file"),
        ("claims.npy", header(str({"descr": "<f4", "fortran_order": False, "shape": (4, 10**14)})), "is no readable"),
        ("claims.npz", packed((10**9, 10**6)), r"got the shape \(1000000000, 1000000\)"),
        ("book.csv", b"1", "expected a codebook that ends in .npz, .npy, .joblib; got '.csv'"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=said):
            load_codebook(tmp_path / name, IMAGE, "codebooks.image")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(DataError, match="is no regular file"):
        load_codebook(tmp_path / "folder.npz", IMAGE, "codebooks.image")
    with pytest.raises(DataError, match=r"no such file; did you mean 'cut.npz'"):
        load_codebook(tmp_path / "cut2.npz", IMAGE, "codebooks.image")


def test_a_pickle_in_the_clothes_of_an_array_is_not_opened(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    (tmp_path / "book.npy").write_bytes(pickle.dumps(Booby(trap)))
    np.save(tmp_path / "objects.npy", np.array([Booby(trap)], object), allow_pickle=True)
    for name in ("book.npy", "objects.npy"):
        with pytest.raises(DataError, match="pickled Python objects"):
            load_codebook(tmp_path / name, IMAGE, "codebooks.image", allow_pickle=True)
    assert not trap.exists()


def test_joblib_is_opened_only_where_the_recipe_says_so(tmp_path: Path, settings: TypedTokensConfig) -> None:
    joblib = pytest.importorskip("joblib")
    trap = tmp_path / "ran"
    joblib.dump(Booby(trap), tmp_path / "book.joblib")
    given = attrs.evolve(settings, codebooks={"image": tmp_path / "book.joblib"})
    for read in (given.describe, lambda: given.build(0)):
        with pytest.raises(DataError, match=r"runs whatever code it holds.*dataset.allow_pickle = true") as caught:
            read()
        assert caught.value.key == "codebooks.image"
    assert not trap.exists()
    with pytest.raises(DataError, match="got an object of the type"):
        attrs.evolve(given, allow_pickle=True).build(0)
    assert trap.exists()  # it does run


def test_what_joblib_files_hold(tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    path = tmp_path / "book.joblib"
    for content in (VALUES, {"centers": VALUES}, Fitted(VALUES)):
        joblib.dump(content, path)
        assert np.array_equal(load_codebook(path, IMAGE, "codebooks.image", allow_pickle=True), VALUES)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="could not be opened"):
        load_codebook(path, IMAGE, "codebooks.image", allow_pickle=True)


class Fitted:
    """As scikit-learn keeps centroids."""

    def __init__(self, centroids: np.ndarray) -> None:
        self.cluster_centers_ = centroids


def test_the_recipes_codebooks_stand_in_for_the_files(tmp_path: Path, settings: TypedTokensConfig) -> None:
    own = settings.build(0).description.codebooks
    np.save(tmp_path / "image.npy", own["image"] + 1)
    given = attrs.evolve(settings, codebooks={"image": tmp_path / "image.npy"}).build(0)
    assert np.array_equal(given.description.codebooks["image"], own["image"] + 1)
    assert np.array_equal(given.description.codebooks["spectrum"], own["spectrum"])
    assert given.fingerprint != settings.build(0).fingerprint
    with pytest.raises(DataError, match="expected the name of a modality; did you mean 'image'"):
        attrs.evolve(settings, codebooks={"imag": tmp_path / "image.npy"}).describe()
