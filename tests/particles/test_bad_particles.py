"""Files of particles that are wrong (D22): each is told with file, place, what was expected and what was got."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from ups_kit import DataError
from ups_kit.data.particle_store import ParticleSample, write_particles
from ups_plugins.particles.formats import LagrangeBenchConfig, ParticleZarrConfig
from ups_plugins.particles.neighbours import problem_of_ids, problem_of_neighbours

Change = Callable[[NDArray[Any]], NDArray[Any]]


@pytest.fixture
def bench(files: ModuleType, tmp_path: Path) -> Path:
    """A sound folder in LagrangeBench's layout, to be spoilt."""
    path: Path = files.benchmark(tmp_path / "bench")
    return path


def told(path: Path, **keys: Any) -> str:
    """What reading the folder says, with the place of the test's folder left out."""
    with pytest.raises(DataError) as caught:
        LagrangeBenchConfig(path=path, **keys).build(0)
    return str(caught.value).replace(f"{path.parent}/", "")


def spoil(path: Path, array: str, change: Change) -> None:
    """Replace an array of an HDF5 file."""
    with h5py.File(path, "r+") as file:
        values = np.asarray(file[array])
        del file[array]
        file[array] = change(values.copy())


def put(*where: Any) -> Change:
    """Set a value at a place of an array."""
    *place, value = where

    def change(values: NDArray[Any]) -> NDArray[Any]:
        values[tuple(place)] = value
        return values

    return change


UNFIT = "; 1 trajectories are unfit (ids 1); to leave these trajectories out, set dataset.drop_bad_samples = true"


# ---------------------------------------------------------------------------------------------------------------------
# Values
# ---------------------------------------------------------------------------------------------------------------------
def test_positions_that_are_nan(bench: Path) -> None:
    spoil(bench / "train.h5", "00001/position", put(slice(3, 6), slice(7, 11), 1, np.nan))
    assert told(bench) == (
        "bench/train.h5, trajectory 00001: frame 3: 'positions' of 4 of 40 particles is NaN or infinite, the first "
        "being particle 7 (and in 2 more of the 11 frames from 0 on); expected finite values, and the same particles "
        "in all frames of a trajectory" + UNFIT
    )
    assert LagrangeBenchConfig(path=bench, drop_bad_samples=True).build(0).splits["train"] == (0, 2)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e30])
def test_positions_that_are_infinite_do_nothing_worse(bench: Path, value: float) -> None:
    spoil(bench / "train.h5", "00001/position", put(3, 7, 1, value))
    assert "frame 3" in told(bench)
    assert "particle 7" in told(bench)
    with np.errstate(all="raise"):
        assert LagrangeBenchConfig(path=bench, drop_bad_samples=True).build(0).splits["train"] == (0, 2)


def test_positions_outside_of_the_box(bench: Path) -> None:
    spoil(bench / "train.h5", "00001/position", put(4, slice(2, 5), 0, 1.25))
    y = h5py.File(bench / "train.h5")["00001/position"][4, 2, 1]
    assert told(bench) == (
        f"bench/train.h5, trajectory 00001: frame 4: 3 of 40 particles lie outside of the box [0, 1] x [0, 2], the "
        f"first being particle 2 at (1.25, {y:g}); expected positions in it: mend the box, or, where positions on "
        "periodic axes are counted on beyond it, set dataset.wrap = true" + UNFIT
    )


def test_positions_outside_by_rounding_are_inside(bench: Path) -> None:
    spoil(bench / "train.h5", "00001/position", lambda values: np.where(values > 0.999, values + 1e-6, values))
    spoil(bench / "train.h5", "00001/position", put(slice(None), 0, 0, 1.000001))
    spoil(bench / "train.h5", "00001/position", put(slice(None), 1, 0, -0.000001))
    assert len(LagrangeBenchConfig(path=bench).build(0).splits["train"]) == 3


def test_a_closed_axis_far_away_is_another_box(bench: Path) -> None:
    said = json.loads((bench / "metadata.json").read_text())
    (bench / "metadata.json").write_text(json.dumps({**said, "periodic_boundary_conditions": [False, False]}))
    spoil(bench / "train.h5", "00001/position", put(4, 2, 1, 77.0))
    assert "lie outside of the box [0, 1] (closed) x [0, 2] (closed)" in told(bench)
    assert "expected positions in it: mend the box;" in told(bench)


def test_a_way_of_more_than_half_a_box_within_a_stride(files: ModuleType, tmp_path: Path) -> None:
    path = files.benchmark(tmp_path / "bench", velocity=(4.0, 0.1))  # 0.16 of the box in a stored step
    assert LagrangeBenchConfig(path=path, time_stride=3).build(0).fields.dt == pytest.approx(0.12)
    assert told(path, time_stride=4) == (
        "bench/train.h5, trajectory 00000: frame 4: particle 0 moves by 0.64 of the box's length along periodic axis 0 "
        "within dataset.time_stride = 4 frames, so that it is not known which way it went: expected less than half of "
        "it; nearest: dataset.time_stride = 2; 7 trajectories are unfit (ids 0, 1, 2, 3, 4, 5, 6); to leave these "
        "trajectories out, set dataset.drop_bad_samples = true"
    )


def test_a_way_of_nearly_half_a_box_in_one_stored_step(bench: Path) -> None:
    spoil(bench / "test.h5", "00000/position", put(slice(0, 6), 3, 1, 0.0))
    spoil(bench / "test.h5", "00000/position", put(6, 3, 1, 0.96))
    assert told(bench).startswith(
        "bench/test.h5, trajectory 00000: frame 6: particle 3 moves by 0.48 of the box's length along periodic axis 1 "
        "between two stored frames, so that it is not known which way it went: expected frames that are nearer in "
        "time, or a larger box"
    )


# ---------------------------------------------------------------------------------------------------------------------
# Headers
# ---------------------------------------------------------------------------------------------------------------------
def test_a_count_that_varies_and_a_dimension_that_does(bench: Path) -> None:
    spoil(bench / "train.h5", "00000/particle_type", lambda values: values[:38])
    spoil(bench / "valid.h5", "00001/position", lambda values: values[..., :1])
    spoil(bench / "test.h5", "00000/position", lambda values: values[:0])
    spoil(bench / "test.h5", "00001/particle_type", put(5, -3))
    assert told(bench) == (
        "bench: 4 problems:\n"
        "  bench/train.h5: '00000/particle_type': expected [40], a type for each particle of 'position' [11, 40, 2], "
        "got [38]: the number of particles may not change within a trajectory\n"
        "  bench/valid.h5: '00001/position': expected [frames, particles, 2], as 'dim' in metadata.json says, got "
        "[15, 40, 1]\n"
        "  bench/test.h5: '00000/position': expected [frames, particles, 2], as 'dim' in metadata.json says, got "
        "[0, 40, 2]\n"
        "  bench/test.h5: '00001/particle_type': expected types 0 … 63, got 1 others, the first being -3 of particle 5"
    )


def test_all_that_is_wrong_with_the_metadata(bench: Path, files: ModuleType) -> None:
    said = {key: value for key, value in files.METADATA.items() if key not in ("dt", "bounds")}
    said |= {"periodic_boundary_conditions": [True, 1], "write_every": 0.5, "bound": 3}
    (bench / "metadata.json").write_text(json.dumps(said))
    assert told(bench) == (
        "bench/metadata.json: 4 problems:\n"
        "  bench/metadata.json: key 'periodic_boundary_conditions': expected true or false for each of 2 axes, got "
        "[true, 1]\n"
        "  bench/metadata.json: key 'bounds' is missing; did you mean 'bound'?; expected [low, high] for each of 2 "
        "axes\n"
        "  bench/metadata.json: key 'dt' is missing; expected a number above 0, the time step of the solver, or set "
        "dataset.dt to the time between two frames\n"
        "  bench/metadata.json: key 'write_every': expected a whole number of steps between two frames, got 0.5"
    )


def test_the_time_step_may_stand_in_the_recipe(bench: Path, files: ModuleType) -> None:
    said = {key: value for key, value in files.METADATA.items() if key != "write_every"}
    (bench / "metadata.json").write_text(json.dumps(said))
    assert LagrangeBenchConfig(path=bench, dt=0.5, time_stride=2).describe().dt == 1.0


def test_files_that_are_not_there(bench: Path) -> None:
    (bench / "valid.h5").rename(bench / "validation.h5")
    (bench / "metadata.json").unlink()
    assert told(bench) == (
        "bench: expected train.h5, valid.h5, test.h5 and metadata.json, as LagrangeBench has them; not there: "
        "valid.h5, metadata.json; did you mean 'validation.h5'? (the folder holds test.h5, train.h5, validation.h5)"
    )
    assert told(bench / "train.h5", validation=1, test=1) == (
        "metadata.json: no such file; LagrangeBench keeps the time step, the box and which axes are periodic in it, "
        "beside train.h5, valid.h5, test.h5: download it"
    )


def test_the_folder_around_it(bench: Path) -> None:
    assert "did you mean the folder 'bench' in it?" in told(bench.parent)


def test_too_few_frames(bench: Path) -> None:
    assert told(bench, history=8, time_stride=2) == (
        "bench: 7 of 7 trajectories have too few frames: trajectory 00000 (11), trajectory 00001 (11), trajectory "
        "00002 (11), trajectory 00000 (15), trajectory 00001 (15), trajectory 00000 (15), trajectory 00001 (15); "
        "expected at least 19 with dataset.history = 8, time_stride = 2 and first_frame = 0: a velocity lies between "
        "two frames, and one must be left to predict; nearest: time_stride = 1"
    )
    assert "nearest: history = 9" in told(bench, history=12)


def test_keys_that_do_not_fit_the_files(bench: Path) -> None:
    spoil(bench / "valid.h5", "00001/particle_type", put(5, 3))
    assert told(bench, types=2).endswith(
        "holds particles of type 3, and dataset.types = 2 has 0 … 1; nearest: types = 4"
    )
    assert told(bench, cut=30).startswith("dataset.cut = 30: expected 2 … 14 frames")
    config = LagrangeBenchConfig(path=bench / "train.h5")
    assert [key for key, _ in config.check(config.describe(), None)][-2:] == ["validation", "test"]  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------------------
# Hostile and damaged files
# ---------------------------------------------------------------------------------------------------------------------
def _external(file: h5py.File) -> None:
    del file["00000/position"]
    file["00000/position"] = h5py.ExternalLink("/etc/passwd", "position")


def _external_storage(file: h5py.File) -> None:
    del file["00000/position"]
    file.create_dataset("00000/position", (11, 40, 2), "f4", external=[("/etc/hostname", 0, 11 * 40 * 2 * 4)])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((11, 40, 2), "f4")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "position", (11, 40, 2))
    del file["00000/position"]
    file.create_virtual_dataset("00000/position", layout)


def _external_group(file: h5py.File) -> None:
    del file["00000"]
    file["00000"] = h5py.ExternalLink("/etc/other.h5", "/")


def _group_for_array(file: h5py.File) -> None:
    del file["00000/position"]
    file.create_group("00000/position")


def _text(file: h5py.File) -> None:
    del file["00000/particle_type"]
    file["00000/particle_type"] = ["fluid"] * 40


def _unwritten(file: h5py.File) -> None:
    del file["00000/position"]
    file.create_dataset("00000/position", (11, 40, 2), "f4", chunks=(2, 40, 2))


def _never_written(file: h5py.File) -> None:
    del file["00000/position"]
    file.create_dataset("00000/position", (2**40, 40, 2), "f4")


def _bomb(file: h5py.File) -> None:
    del file["00000"]
    file.create_dataset("00000/position", (2**40, 40, 2), "f4", chunks=(2, 40, 2), compression="gzip")
    file["00000/particle_type"] = np.zeros(40, int)


def _whole_numbers(file: h5py.File) -> None:
    del file["00000/position"]
    file["00000/position"] = np.zeros((11, 40, 2), int)


def _empty(file: h5py.File) -> None:
    for name in list(file):
        del file[name]


def _no_values(file: h5py.File) -> None:
    del file["00000/particle_type"]
    file["00000/particle_type"] = h5py.Empty("i8")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_external, "is a link to /etc/passwd:position"),
        (_external_storage, "keeps its values in /etc/hostname"),
        (_virtual, "is virtual, made of /etc/other.h5"),
        (_external_group, "'00000' is a link to /etc/other.h5:/"),
        (_group_for_array, "no dataset is called '00000/position'"),
        (_text, "expected whole numbers from 0"),
        (_unwritten, "and 0 of them were written"),
        (_never_written, "and none of them were written"),
        (_bomb, "and 0 of them were written"),
        (_whole_numbers, "holds values of type int64"),
        (_empty, "expected groups '00000', '00001', …"),
        (_no_values, "expected [40], a type for each particle"),
    ],
)
def test_arrays_that_are_none(bench: Path, change: Callable[[h5py.File], None], words: str) -> None:
    with h5py.File(bench / "train.h5", "r+") as file:
        change(file)
    assert words in told(bench)


def test_cut_and_broken_files(bench: Path) -> None:
    whole = (bench / "train.h5").read_bytes()
    for size in (0, 100, 2000, len(whole) - 10):
        (bench / "train.h5").write_bytes(whole[:size])
        assert "bench/train.h5" in told(bench)
    for seed in range(12):
        damaged = bytearray(whole)
        generator = np.random.default_rng(seed)
        for place in generator.integers(0, len(whole), 40):
            damaged[place] ^= int(generator.integers(1, 255))
        (bench / "train.h5").write_bytes(damaged)
        with suppress(DataError):  # what is not seen may be read
            LagrangeBenchConfig(path=bench).build(0)


@pytest.mark.parametrize(("key", "value"), [("dt", 10**400), ("write_every", 10**400), ("bounds", [[0, 10**400]] * 2)])
def test_numbers_that_no_float_holds(bench: Path, files: ModuleType, key: str, value: Any) -> None:
    (bench / "metadata.json").write_text(json.dumps({**files.METADATA, key: value}))
    assert told(bench).startswith(f"bench/metadata.json: key '{key}': expected")


@pytest.mark.parametrize("text", ["", "[]", "{", "NaN", '{"dim": NaN}', '{"dim": 1e400}', "\x00", '{"dim": 9}'])
def test_metadata_that_are_none(bench: Path, text: str) -> None:
    (bench / "metadata.json").write_text(text)
    assert told(bench).startswith("bench/metadata.json")


def test_metadata_of_another_encoding(bench: Path) -> None:
    (bench / "metadata.json").write_bytes('{"case": "Größe"}'.encode("latin-1"))
    assert told(bench).startswith("bench/metadata.json: expected JSON")


# ---------------------------------------------------------------------------------------------------------------------
# Stores
# ---------------------------------------------------------------------------------------------------------------------
def store_told(path: Path, **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        ParticleZarrConfig(path=path, **{"validation": 1, "test": 1, **keys}).build(0)
    return str(caught.value).replace(f"{path.parent}/", "")


def document(path: Path, change: Callable[[dict[str, Any]], None], sealed: bool = False) -> None:
    """Change a zarr.json; the root's checksum is taken away unless `sealed`."""
    own = json.loads((path / "zarr.json").read_text())
    if not sealed:
        own["attributes"].pop("checksum", None)
    change(own["attributes"])
    (path / "zarr.json").write_text(json.dumps(own))


def test_ids_that_stand_twice(files: ModuleType, tmp_path: Path) -> None:
    path = files.store(tmp_path, ids=np.array([4, 7, 9, 7, *range(100, 115), 4]))
    assert store_told(path).startswith(
        "particles.zarr/sample_00000/ids: expected every id once, got 2 ids more than once, the first being 4 "
        "(particles 0 and 19); 6 trajectories are unfit"
    )
    assert problem_of_ids(np.array([3, 1, 2]), "x") is None


def test_neighbours_that_are_none() -> None:
    indptr, indices = np.array([0, 2, 3, 3]), np.array([1, 2, 0])
    assert problem_of_neighbours(indptr, indices, 4, 3, "n") is None
    assert problem_of_neighbours(np.tile([0], 13), np.empty(0, int), 4, 3, "n") is None
    assert problem_of_neighbours(indptr[:3], indices, 4, 3, "n") == (
        "n/indptr: expected 4 entries, one more than there are particles, or 13 for all 4 frames, got 3"
    )
    assert problem_of_neighbours(np.array([0, 2, 1, 3]), indices, 4, 3, "n") == (
        "n/indptr: expected numbers that start at 0 and never fall, got entry 2 below entry 1"
    )
    assert problem_of_neighbours(indptr, indices[:2], 4, 3, "n") == (
        "n/indices: expected 3 entries, as the last of 'indptr' says, got 2"
    )
    assert problem_of_neighbours(indptr, np.array([1, 3, 0]), 4, 3, "n") == (
        "n/indices: expected numbers of the 3 particles, 0 … 2, got 1 others, the first being 3 as a neighbour of "
        "particle 0"
    )


def test_stored_neighbours_are_looked_at(files: ModuleType, tmp_path: Path) -> None:
    table = (np.arange(21), np.full(20, 25), 0.1)
    assert "neighbours/indices: expected numbers of the 20 particles" in store_told(
        files.store(tmp_path, neighbours=table)
    )


def test_times_that_are_not_even(files: ModuleType, tmp_path: Path) -> None:
    time = 0.1 * np.arange(7)
    time[4] = 0.43
    path = files.store(tmp_path, time=time)
    text = store_told(path)
    assert text.startswith("particles.zarr: 6 problems:\n  ")
    assert "/sample_00000/time: expected evenly spaced times that rise, got steps from 0.07 to 0.13" in text


def test_samples_of_other_steps(files: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "p.zarr"
    steps = (0.1, 0.1, 0.2, 0.1)
    samples = [
        ParticleSample(positions=files.translated(k, 6, 9, (0.1, 0.1)), time=step * np.arange(6))
        for k, step in enumerate(steps)
    ]
    write_particles(path, samples, domain=files.BOX, periodic=(True, True))
    assert store_told(path) == (
        "p.zarr: expected the same time step in all samples, 0.1 as most have, got sample_00002 (0.2); put samples of "
        "other time steps into stores of their own"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda own: own.pop("domain"), "attribute 'domain' is missing; expected [low, high] for each of 1 to 3 axes"),
        (lambda own: own.update(domain=[[0, 1], [2, 1]]), "domain: expected [low, high]"),
        (lambda own: own.update(domain=[[0, 1]], periodic=[True]), "shape: expected [frames, particles, 1]"),
        (lambda own: own.update(periodic=[True]), "periodic: expected true or false for each axis of 'domain'"),
        (lambda own: own.update(layout="other"), "layout: expected 'ups_kit/particle_zarr', got 'other'"),
        (lambda own: own.update(version=2), "version: expected 1, got 2"),
        (lambda own: own.update(samples=7), "sample_00006"),
        (lambda own: own.update(kinematic=["wall"]), "kinematic: expected a list of types"),
        (lambda own: own.update(arrays=3), "arrays: expected the names of a sample's arrays"),
        (lambda own: own.update(arrays=["positions", "time", "../../x", "fields/none"]), ""),
    ],
)
def test_attributes_that_are_wrong(files: ModuleType, tmp_path: Path, change: Any, words: str) -> None:
    path = files.store(tmp_path, samples=3)
    document(path, change)
    if words:
        assert words in store_told(path)
    else:
        assert "no field of its samples is called 'density'" in store_told(path, fields=("density",))


def test_metadata_that_were_changed_are_seen(files: ModuleType, tmp_path: Path) -> None:
    path = files.store(tmp_path, samples=3)
    document(path, lambda own: own.update(domain=[[0, 1], [0, 3]]), sealed=True)
    assert "checksum: expected sha256:" in store_told(path)
    document(path, lambda own: own.pop("checksum"), sealed=True)
    document(path / "sample_00001", lambda own: own.update(split="tset"))
    assert "split: expected train, validation, test, got 'tset'; did you mean 'test'?" in store_told(path)


@pytest.mark.parametrize("name", ["positions", "time", "types"])
def test_missing_parts_are_no_fill_values(files: ModuleType, tmp_path: Path, name: str) -> None:
    path = files.store(tmp_path, samples=3)
    shutil.rmtree(path / "sample_00001" / name / "c")
    assert f"sample_00001/{name}" in store_told(path)
    shutil.rmtree(path / "sample_00001" / name)
    assert f"sample_00001/{name}/zarr.json" in store_told(path)


def test_fields_that_are_nowhere(files: ModuleType, tmp_path: Path) -> None:
    path = files.store(tmp_path, samples=3)
    assert store_told(path, fields=("densty",)) == (
        "particles.zarr: no field of its samples is called 'densty'; did you mean 'density'? (fields: density, "
        "velocities)"
    )


def test_the_writer_refuses_what_does_not_fit(files: ModuleType, tmp_path: Path) -> None:
    places = files.translated(0, 6, 9, (0.1, 0.1))
    with pytest.raises(ValueError, match=r"types: expected the shape \[9\], got \[8\]"):
        ParticleSample(positions=places, time=0.1 * np.arange(6), types=np.zeros(8, int))
    with pytest.raises(ValueError, match=r"fields/density: expected the shape \[6, 9, 1\], got \[6, 1\]"):
        ParticleSample(positions=places, time=0.1 * np.arange(6), fields={"density": np.zeros((6, 1))})
    one = ParticleSample(positions=places, time=0.1 * np.arange(6))
    two = ParticleSample(positions=places, time=0.1 * np.arange(6), types=np.zeros(9, int))
    with pytest.raises(ValueError, match="sample 1: expected the arrays positions, time, got positions, time, types"):
        write_particles(tmp_path / "p.zarr", [one, two], domain=files.BOX, periodic=(True, True))
    with pytest.raises(ValueError, match="there are no samples"):
        write_particles(tmp_path / "p.zarr", [], domain=files.BOX, periodic=(True, True))
    assert not list(tmp_path.iterdir())


def test_what_stands_in_a_files_place_is_told(bench: Path) -> None:
    (bench / "valid.h5").unlink()
    (bench / "valid.h5").mkdir()
    assert told(bench) == (
        "bench: expected train.h5, valid.h5, test.h5 and metadata.json, as LagrangeBench has them; not there: "
        "valid.h5; 'valid.h5' is no file (the folder holds metadata.json, test.h5, train.h5, valid.h5)"
    )


def test_samples_with_other_channels_are_told(tmp_path: Path) -> None:
    def sample(number: int) -> ParticleSample:
        places = np.random.default_rng(number).random((5, 9, 2)) * 0.01 + 0.4
        return ParticleSample(
            positions=places,
            time=0.1 * np.arange(5),
            fields={"density": np.ones((5, 9, 1 + number // 3))},
            statics={"mass": np.ones((9, 1 + number // 3))},
        )

    write_particles(tmp_path / "p.zarr", map(sample, range(4)), domain=[(0, 1), (0, 1)], periodic=[True, True])
    with pytest.raises(DataError) as caught:
        ParticleZarrConfig(path=tmp_path / "p.zarr", fields=("density",), validation=1, test=1).build(0)
    words = "shape: expected 1 channels, as sample_00000 has, got 2"
    assert str(caught.value).replace(f"{tmp_path}/", "") == (
        "p.zarr: 2 problems:\n"
        f"  p.zarr/sample_00003/fields/density/zarr.json: {words}\n"
        f"  p.zarr/sample_00003/statics/mass/zarr.json: {words}"
    )


def test_what_is_not_there_or_named_twice_is_told(tmp_path: Path) -> None:
    assert told(tmp_path / "2D_TGV") == (
        "2D_TGV: no such folder or file; expected a folder with train.h5, valid.h5, test.h5 and metadata.json, or one "
        "of these HDF5 files beside it"
    )
    sample = ParticleSample(
        positions=np.full((3, 1, 2), 0.5), time=np.arange(3.0), fields={"density": np.ones((3, 1, 1))}
    )
    write_particles(tmp_path / "p.zarr", [sample], domain=[(0, 1), (0, 1)], periodic=[True, True])
    with pytest.raises(DataError, match=r"p.zarr: dataset.fields: 'density' is there twice"):
        ParticleZarrConfig(path=tmp_path / "p.zarr", fields=("density", "density")).describe()
    with pytest.raises(ValueError, match="types"):
        ParticleZarrConfig(path=tmp_path / "p.zarr", types=10**8)


def test_walls_without_a_fluid_are_told(bench: Path) -> None:
    with h5py.File(bench / "train.h5") as file:
        count = len(file["00001/particle_type"])
    spoil(bench / "train.h5", "00001/particle_type", lambda kinds: np.ones_like(kinds))
    assert told(bench) == (
        f"bench/train.h5, trajectory 00001: all {count} particles are of types that move as given (kinematic: 1, 2); "
        "expected others, which are predicted"
    )
