"""Exported programs against the model, over random numbers of samples, points and queries."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ups_kit
from ups_kit.errors import UsageError
from ups_kit.exporting import TOLERANCE, differences, traced
from ups_kit.interfaces import PointSet
from ups_kit.neighbours import SupernodeGraph
from ups_kit.neighbours.dense import DenseLookup
from ups_kit.predicting.forecast import chosen

from .conftest import Case, Upskit

ALONE = """
import json, sys, torch
folder, given = sys.argv[1], torch.load(sys.argv[2], weights_only=True)
encode, step, decode = (torch.export.load(f"{folder}/{name}.pt2").module() for name in ("encode", "step", "decode"))
latent = encode({"frames": given["frames"]}, given["parameters"])
for _ in range(3):
    latent = step(latent, given["parameters"])
torch.save(decode(latent, given["parameters"], given["queries"]), sys.argv[3])
print("ups_kit" in sys.modules)
"""


def test_the_programs_need_torch_alone(burgers: Case, upskit: Upskit, tmp_path: Path) -> None:
    """Loaded in a process without this package, they forecast as the bundle does."""
    code, said, _ = upskit("export", burgers.folder, "--out", tmp_path / "out")
    assert (code, said.count("differs from the model by")) == (0, 3)
    record = json.loads((tmp_path / "out/export.json").read_text())
    assert max(record["differences"].values()) <= TOLERANCE
    assert (record["parameters"], record["points"], record["given"]) == (["dt", "epsilon"], [64], ["frames"])
    bundle = ups_kit.load(burgers.folder)
    frames, queries = torch.randn(3, 1, 64, 1), torch.rand(3, 17, 1)
    given = {"frames": frames, "queries": queries, "parameters": torch.tensor([[bundle.fields.dt, 0.01]] * 3)}
    torch.save(given, tmp_path / "given.pt")
    found = [sys.executable, "-c", ALONE, tmp_path / "out", tmp_path / "given.pt", tmp_path / "found.pt"]
    done = subprocess.run(list(map(str, found)), capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    values = torch.load(tmp_path / "found.pt", weights_only=True)
    wanted = bundle.predict(frames, {"epsilon": 0.01}, 3, queries)[:, -1]
    torch.testing.assert_close(values, wanted, rtol=1e-5, atol=1e-5)
    code, _, said = upskit("export", burgers.folder, "--out", tmp_path / "out")
    assert (code, "is there already; add --overwrite" in said) == (6, True)
    code, _, said = upskit("export", burgers.folder, "--out", tmp_path)
    assert (code, "is there already, and is no export" in said) == (6, True)


@pytest.mark.parametrize("name", ["drawing", "meshes"])
def test_programs_are_the_model_at_any_number_of_points(name: str, request: pytest.FixtureRequest) -> None:
    """Corrections with their noise as an input, and encoders that look up the points around their supernodes."""
    case: Case = request.getfixturevalue(name)
    bundle = ups_kit.load(case.folder)
    way = chosen(bundle, "diffusion" if name == "drawing" else None, 2 if name == "drawing" else None)
    programs = {name: program.module() for name, program in traced(bundle, way).items()}
    found = differences(bundle, way, programs, seed=3)
    assert max(found.values()) <= TOLERANCE, found


@pytest.mark.parametrize("choice", ["grid", "random"])
@pytest.mark.parametrize("pick", ["spread", "nearest"])
@pytest.mark.parametrize("radius", [0.2, None])
def test_look_ups_by_all_distances_are_those_of_the_search(choice: str, pick: str, radius: float | None) -> None:
    keys = {"choice": choice, "pick": pick, "radius": radius, "supernodes": 30, "degree": 12}
    graph = SupernodeGraph(domain=((0.0, 1.0), (0.0, 2.0)), periodic=(True, False), **keys)  # type: ignore[arg-type]
    for count in (40, 300):
        points = PointSet(torch.rand(3, count, 2) * torch.tensor([1.0, 2.0]), torch.rand(3, count, 1))
        searched, dense = graph(points).supernodes, DenseLookup.of(graph)(points).supernodes
        assert searched is not None
        assert dense is not None
        assert torch.equal(searched.mask, dense.mask)
        assert torch.equal(searched.neighbours, dense.neighbours)
        assert torch.equal(searched.positions, dense.positions)


def test_what_cannot_be_traced_is_named(meshes: Case, burgers: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = ups_kit.load(meshes.folder)
    graph = SupernodeGraph(
        domain=bundle.fields.domain, periodic=bundle.fields.periodic, choice="farthest", supernodes=9
    )
    monkeypatch.setattr(bundle.model.encoder, "preparation", graph)
    with pytest.raises(UsageError, match=r"encode cannot be exported: the encoder .* \(encoder.choice = 'farthest'\)"):
        traced(bundle, chosen(bundle))
    other = ups_kit.load(burgers.folder)

    def by_value(latent: object, condition: torch.Tensor) -> object:
        return latent if float(condition.sum()) > 0 else None

    monkeypatch.setattr(other.model.operator, "forward", by_value)
    with pytest.raises(UsageError, match=r"step cannot be exported: torch cannot trace the operator \(Transformer"):
        traced(other, chosen(other))
