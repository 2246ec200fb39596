"""Files that meshio writes in the public formats, as stores: values, times, samples; and files that are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ups_kit import DataError
from ups_kit.data.conversion_options import mesh_options
from ups_kit.data.mesh_conversion import convert_meshes
from ups_plugins.mesh.formats import MeshZarrConfig

from .flows import square, wave

meshio = pytest.importorskip("meshio")

Upskit = Callable[..., tuple[int, str]]


def mesh(number: int, frame: int, **replaced: Any) -> Any:
    """A frame of a planar flow, in three dimensions as such files have it."""
    nodes, cells = square(number)
    flow = wave(nodes, np.array([0.25 * frame]), number)[0]
    content: dict[str, Any] = {
        "points": np.c_[nodes, np.full(len(nodes), 2.0)],
        "cells": [("triangle", cells), ("line", np.array([[0, 1]]))],
        "point_data": {"U": np.c_[flow, 0 * flow[:, :1]], "p": flow[:, 0].astype(np.float64)},
    }
    return meshio.Mesh(**{**content, **replaced})


def convert(source: Path, name: str = "out.zarr", **options: Any) -> tuple[Path, dict[str, Any]]:
    """As the child does that `data convert` starts."""
    given = {"arrays": None, "names": None, "statics": None, "parameters": (), "dt": None, **options}
    out = Path(source.anchor, *[part for part in source.parts[1:] if "*" not in part]).parent / name
    return out, convert_meshes(lambda what: None, source, out, mesh_options(**given))


def source_of(path: Path, **keys: Any) -> Any:
    return MeshZarrConfig(path=path, **keys).open_source(path)


def check_flow(path: Path, number: int, frames: int, sample: int = 0) -> Any:
    """The store holds the frames of a flow, at the nodes of its mesh."""
    source = source_of(path)
    nodes, cells = square(number)
    assert [(each.name, each.channels) for each in source.targets] == [("U", 2), ("p", 1)]
    assert source.frames[sample] == frames
    assert np.allclose(source.coords(sample), nodes, rtol=0, atol=1e-10)  # in a file of text
    assert np.array_equal(source.cells(sample), cells)
    whole = wave(nodes, 0.25 * np.arange(frames), number)
    values = source.values(sample, np.arange(frames))
    assert np.allclose(values, np.concatenate([whole, whole[..., :1]], -1), rtol=0, atol=1e-7)
    assert source.problem(sample) is None
    return source


@pytest.mark.parametrize(("ending", "options"), [("vtu", {}), ("vtk", {}), ("vtu", {"binary": False})])
def test_a_folder_of_frames(tmp_path: Path, ending: str, options: dict[str, Any]) -> None:
    (tmp_path / "run").mkdir()
    for frame in range(11):  # u_10 comes after u_2
        mesh(1, frame).write(tmp_path / f"run/u_{frame}.{ending}", **options)
    out, done = convert(tmp_path / "run", dt=0.25)
    source = check_flow(out, 1, 11)
    assert source.dt == 0.25
    assert done["use"] == "mesh_zarr"
    assert "cells of fewer dimensions (line) are left out" in done["notes"]
    assert any("component across the plane" in note for note in done["notes"])
    again, _ = convert(
        tmp_path / "run" / f"u_*.{ending}", "again.zarr", arrays=("p",), names=("pressure",), parameters=("nu=0.1",)
    )
    chosen = source_of(again)
    assert [each.name for each in chosen.targets] == ["pressure"]
    assert chosen.conditions == ("nu",)
    assert chosen.dt == 1.0


def test_a_gmsh_file_is_one_steady_frame(tmp_path: Path) -> None:
    only = [("triangle", square(0)[1])]
    mesh(0, 0, cells=only).write(tmp_path / "one.msh", file_format="gmsh22")
    out, done = convert(tmp_path / "one.msh", statics=("p",), arrays=("U",))
    source = source_of(out)
    assert source.frames.tolist() == [1]
    assert [each.name for each in source.statics] == ["p"]
    assert np.allclose(source.given(0)[:, 0], wave(square(0)[0], np.zeros(1), 0)[0, :, 0], atol=1e-6)
    assert not any("one frame is steady" in note for note in done["notes"])


def test_xdmf_time_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where meshio puts its values
    first = mesh(2, 0)
    with meshio.xdmf.TimeSeriesWriter(tmp_path / "flow.xdmf") as writer:
        writer.write_points_cells(first.points, [first.cells[0]])
        for frame in range(4):
            writer.write_data(0.5 + 0.25 * frame, point_data=mesh(2, frame).point_data)
    out, _ = convert(tmp_path / "flow.xdmf")
    source = check_flow(out, 2, 4)
    assert np.allclose(source.times(0), 0.5 + 0.25 * np.arange(4))
    text = (tmp_path / "flow.xdmf").read_text()
    (tmp_path / "flow.xdmf").write_text(text.replace("flow.h5:", "../flow.h5:"))
    with pytest.raises(DataError, match=r"names the file '\.\./flow\.h5', which lies outside of its folder"):
        convert(tmp_path / "flow.xdmf", "other.zarr")
    mesh(0, 0).write(tmp_path / "one.xdmf")
    assert source_of(convert(tmp_path / "one.xdmf", "one.zarr")[0]).frames.tolist() == [1]


def test_a_collection_says_when_its_frames_are(tmp_path: Path) -> None:
    for frame in range(3):
        mesh(0, frame).write(tmp_path / f"f{frame}.vtu")
    listed = "".join(f'<DataSet timestep="{1 + 0.2 * k}" part="0" file="f{k}.vtu"/>' for k in (2, 0, 1))
    (tmp_path / "all.pvd").write_text(f'<VTKFile type="Collection"><Collection>{listed}</Collection></VTKFile>')
    out, _ = convert(tmp_path, "all.zarr")  # the folder's frames are those that the collection lists
    assert np.allclose(check_flow(out, 0, 3).times(0), [1, 1.2, 1.4])
    uneven = (tmp_path / "all.pvd").read_text().replace("1.4", "1.9")
    (tmp_path / "all.pvd").write_text(uneven)
    with pytest.raises(DataError, match=r"frames are 0.2 to 0.7 apart in time.*--dt"):
        convert(tmp_path / "all.pvd", "uneven.zarr")
    out, _ = convert(tmp_path / "all.pvd", "told.zarr", dt=0.5)
    assert source_of(out).dt == 0.5
    (tmp_path / "all.pvd").write_text(uneven.replace("f1.vtu", "/etc/passwd"))
    with pytest.raises(DataError, match="lies outside of its folder"):
        convert(tmp_path / "all.pvd", "other.zarr")


def test_folders_are_samples_and_the_command_converts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upskit: Upskit
) -> None:
    for number in range(4):
        (tmp_path / f"runs/run_{number}").mkdir(parents=True)
        (tmp_path / f"runs/run_{number}/parameters.json").write_text(f'{{"nu": {0.1 * (number + 1)}}}')
        for frame in range(3):
            marked = (square(number)[0][:, 0] == 0).astype(np.int32)
            numbered = np.arange(1000, 1000 + len(marked))
            more = {**mesh(number, frame).point_data, "side": marked, "GlobalNodeId": numbered}
            mesh(number, frame, point_data=more).write(tmp_path / f"runs/run_{number}/u_{frame}.vtu")
    monkeypatch.chdir(tmp_path)
    code, said = upskit("convert", "runs", "--to", "zarr")
    assert code == 0
    assert "the dataset 'mesh_zarr' reads it" in said
    assert "'GlobalNodeId' holds whole numbers: left out" in said
    for number in range(4):
        source = check_flow(tmp_path / "runs.zarr", number, 3, number)
        assert [(each.name, each.channels) for each in source.statics] == [("side", 2)]
    assert np.allclose(source.parameters[:, 0], 0.1 * np.arange(1, 5))
    code, said = upskit("convert", "runs", "--to", "zarr")
    assert "is there already, and nothing is overwritten" in said
    assert code == 6
    for wrong in (["--out", "runs.h5"], ["--to", "npz"], ["--to", "zarr", "--out", "x.h5"], []):
        assert upskit("convert", "runs", *wrong)[0] == 2
    (tmp_path / "broken.vtu").write_text("<VTKFile")
    code, said = upskit("convert", "broken.vtu", "--to", "zarr")
    assert code == 3
    assert "its parser says" in said
    code, said = upskit("validate", "runs.zarr")
    assert code == 0
    assert "4 checked one by one" in said


def test_what_is_mended_is_noted(tmp_path: Path) -> None:
    nodes, cells = square(0)
    flow = np.sin(nodes[:, 0])
    both = np.concatenate([nodes, nodes[[7]], [[0.5, 0.5]]])  # node 7 once more, and one in no cell
    table = cells.copy()
    cell = int(np.argmax((table == 7).any(1)))
    table[cell][table[cell] == 7] = len(nodes)
    extra = np.concatenate([flow, flow[[7]], [9.0]])
    size = np.abs(np.linalg.det(nodes[cells[:, 1:]] - nodes[cells[:, :1]]))
    data = {
        "points": both,
        "cells": [("triangle", table)],
        "point_data": {"h": extra},
        "cell_data": {"q": [size + 1.0]},
    }
    mesh(0, 0, **data).write(tmp_path / "a.vtk")
    out, done = convert(tmp_path / "a.vtk")
    source = source_of(out)
    assert np.array_equal(source.coords(0), nodes)
    assert np.allclose(source.values(0, np.zeros(1, int))[0, :, 0], flow)
    made_one = "1 of 27 nodes lie where another does, the first pair being 7 and 25, with its values: made one"
    assert {"1 of 27 nodes are in no cell: left out", made_one} <= set(done["notes"])
    assert any("each node has the mean of its cells" in note for note in done["notes"])
    corner = int(np.argmin(np.abs(nodes).sum(1)))
    around = (cells == corner).any(1)
    mean = (size[around] * (size[around] + 1)).sum() / size[around].sum()
    assert source.values(0, np.zeros(1, int))[0, corner, 1] == pytest.approx(mean)
    extra[len(nodes)] += 1.0
    mesh(0, 0, **data).write(tmp_path / "b.vtk")
    with pytest.raises(DataError, match=r"1 of 27 nodes lie where .* 'h' differs at 1 of them, .* 7 and 25"):
        convert(tmp_path / "b.vtk", "b.zarr")


def test_triangles_and_quads_together(tmp_path: Path) -> None:
    points = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [2, 0, 0]])
    blocks = [("triangle", np.array([[1, 4, 2]])), ("quad", np.array([[0, 1, 2, 3]]))]
    values = {"q": [np.array([3.0]), np.array([5.0])]}
    meshio.Mesh(points, blocks, {"h": points[:, 0]}, values).write(tmp_path / "a.vtu")
    source = source_of(convert(tmp_path / "a.vtu")[0])
    assert source.weights(0).sum() == pytest.approx(1.5)
    assert source.values(0, np.zeros(1, int))[0, [4, 0], 1].tolist() == [3.0, 5.0]


def test_frames_with_other_meshes(tmp_path: Path) -> None:
    mesh(0, 0).write(tmp_path / "u_0.vtu")
    moved = mesh(0, 1).points + 0.01
    for name, other, words in (
        ("points", mesh(1, 1), "36 points instead of 25"),
        ("moved", mesh(0, 1, points=moved), "point 0 is 0.01 away from where it was"),
        ("cells", mesh(0, 1, cells=[("triangle", square(0)[1][::-1])]), "its cells differ"),
        ("data", mesh(0, 1, point_data={"p": np.ones(25)}), "expected the data U, p of the first frame, got p"),
    ):
        other.write(tmp_path / "u_1.vtu")
        with pytest.raises(DataError, match=words) as told:
            convert(tmp_path / "u_*.vtu", f"{name}.zarr")
        assert "u_1.vtu" in str(told.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.vtu", b"<VTKFile nonsense", "a.vtu: cannot be read; its parser says: .*Couldn't read file .*a.vtu as vtu"),
        (
            "a.vtk",
            b"# vtk DataFile Version 4.2\nx\nBINARY\nDATASET UNSTRUCTURED_GRID\nPOINTS 9 double\n12",
            "its parser says",
        ),
        ("a.msh", b"$MeshFormat\n4.1 0 8\n$EndMeshFormat\n$Nodes\n1 4", "a.msh: cannot be read; its parser says"),
        ("a.xdmf", b"\x89HDF\r\n", "a.xdmf: is no XML"),
        ("a.pvd", b"<VTKFile><Collection/></VTKFile>", "a.pvd: lists no frames"),
        ("a.xdmf", b'<Xdmf Version="2.0"><Domain/></Xdmf>', "its parser says"),
    ],
)
def test_broken_files_are_told_in_their_parsers_words(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        convert(tmp_path / name)
    assert {entry.name for entry in tmp_path.iterdir()} == {name, ".out.zarr.lock"} - (
        set() if (tmp_path / ".out.zarr.lock").exists() else {".out.zarr.lock"}
    )


def test_cells_that_are_not_read(tmp_path: Path) -> None:
    points = np.random.default_rng(0).random((6, 3))
    for name, blocks, words in (
        ("six", [("triangle6", np.arange(6)[None])], "holds 1 triangle6; expected cells of one kind of line, triangle"),
        ("points", [("vertex", np.arange(6)[:, None])], "has no cells, points alone"),
        ("index", [("tetra", np.array([[0, 1, 2, 9]]))], "cells: 1 of 1 cells name nodes that are not in 0 … 5"),
        ("flat", [("tetra", np.array([[0, 1, 2, 3]]))], "has no volume|have no volume"),
    ):
        places = points * [1, 1, 0] + [[0, 0, 0.5 * (n > 3)] for n in range(6)] if name == "flat" else points
        meshio.Mesh(places, blocks, {"h": points[:, 0]}).write(tmp_path / f"{name}.vtu", binary=True)
        with pytest.raises(DataError, match=words):
            convert(tmp_path / f"{name}.vtu", f"{name}.zarr")
    mesh(0, 0, point_data={}).write(tmp_path / "bare.vtu")
    with pytest.raises(DataError, match="no data of floats at its nodes"):
        convert(tmp_path / "bare.vtu", "bare.zarr")
    with pytest.raises(DataError, match="no file of a mesh is there"):
        convert(tmp_path / "none_*.vtu")


def test_without_meshio_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ups_kit.data import mesh_files

    mesh(0, 0).write(tmp_path / "a.vtu")
    monkeypatch.setitem(__import__("sys").modules, "meshio", None)
    series = mesh_files.find_series(tmp_path / "a.vtu")
    with pytest.raises(DataError, match=r"needs meshio: `pip install 'ups_kit\[mesh\]'`"):
        next(mesh_files.frames_of(series[0], lambda what: None))


def test_a_file_of_a_mesh_is_pointed_to_its_conversion(tmp_path: Path, upskit: Upskit) -> None:
    mesh(0, 0).write(tmp_path / "a.vtu")
    for command in ("inspect", "stats"):
        code, said = upskit(command, tmp_path / "a.vtu")
        assert code == 3
        assert "is a file of a mesh; `upskit data convert" in said


def test_odd_times_parameters_and_hidden_files(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for frame in range(2):
        meshio.write(folder / f"u_{frame}.vtu", mesh(0, frame))
    (folder / "._u_0.vtu").write_bytes(b"what a file system keeps beside a file")
    source = source_of(convert(folder)[0])
    assert source.frames.tolist() == [2]
    (folder / "parameters.json").write_text(f'{{"nu": {10**400}}}')
    with pytest.raises(DataError, match=r"parameters.json: expected a table of finite numbers, got {'nu': 1000"):
        convert(folder, "other.zarr")
    listed = '<VTKFile type="Collection"><Collection><DataSet timestep="nan" file="u_0.vtu"/></Collection></VTKFile>'
    (folder / "u.pvd").write_text(listed)
    with pytest.raises(DataError, match=r"u.pvd: expected a finite number as the time of 'u_0.vtu', got 'nan'"):
        convert(folder / "u.pvd", "listed.zarr")
