"""`Bundle.predict` at points that are given, standing and moving."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ups_kit.bundle import Bundle
from ups_kit.data.normalisation import Normaliser
from ups_kit.errors import DataError
from ups_kit.interfaces import Field, FieldSpec, Latent, PointSet, Queries
from ups_kit.model import LatentModel
from ups_kit.motion import travelled

DT = 0.1


class Encoder(nn.Module):
    """The mean of the newest frame, over the points."""

    def forward(self, points: PointSet) -> Latent:
        return Latent(points.values.mean(1, keepdim=True), None)


class Operator(nn.Module):
    def forward(self, latent: Latent, condition: Tensor) -> Latent:
        return latent


class Decoder(nn.Module):
    """What the encoder saw, the same everywhere."""

    def forward(self, latent: Latent, queries: Queries) -> Tensor:
        return latent.tokens[..., :2].expand(-1, queries.positions.shape[1], -1)


def bundle(moves: bool, walls: bool = False) -> Bundle:
    statics = (Field("kinematic"),) if walls else ()
    fields = FieldSpec(
        (Field("velocity", 2),), ((0.0, 1.0),) * 2, (True, True), "particles", None, DT, statics,
        counts=(3, 9), moves_with="velocity" if moves else None,
    )  # fmt: skip
    normaliser = Normaliser((1.0, -1.0), (2.0, 0.5), (DT,), (0.0,), (False,), (0.0,) * walls, (1.0,) * walls)
    model = LatentModel(Encoder(), Operator(), Decoder(), fields)  # type: ignore[arg-type]
    nothing: Any = SimpleNamespace(stages=())
    return Bundle(model, nothing, fields, normaliser, {}, {})


def test_points_stand_where_they_are_given() -> None:
    places, frames = torch.rand(2, 5, 2), torch.rand(2, 1, 5, 2)
    found = bundle(False).predict(frames, {}, 3, positions=places)
    assert found.shape == (2, 3, 5, 2)
    assert torch.allclose(found, frames.mean(2, keepdim=True).expand(-1, 3, 5, -1), atol=1e-6)
    one = bundle(False).predict(frames[0, 0].numpy(), {}, 3, positions=places[0].numpy())
    assert torch.allclose(one, found[:1], atol=1e-6)
    elsewhere = bundle(False).predict(frames, {}, 3, torch.rand(4, 2), positions=places)
    assert elsewhere.shape == (2, 3, 4, 2)


def test_points_move_with_what_is_predicted_and_walls_with_what_they_had() -> None:
    places = torch.rand(1, 5, 2)
    frames = torch.tensor([0.6, -0.2]).expand(1, 1, 5, 2).clone()
    moving = bundle(True)
    went = travelled(places, moving.predict(frames, {}, 4, positions=places), moving.fields)
    steps = DT * torch.arange(1, 5)[:, None, None] * torch.tensor([0.6, -0.2])
    assert torch.allclose(went, (places + steps) % 1, atol=1e-6)
    frames[0, 0, 0] = 0.0
    wall = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0])[:, None]
    walled = bundle(True, walls=True).predict(frames, {}, 4, positions=places, statics=wall)
    assert walled[0, :, 0].abs().max() < 1e-6
    assert torch.allclose(walled[0, :, 1], frames.mean(2)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, r"positions: the model is of points of its own \(particles\)"),
        ({"positions": torch.rand(5, 3)}, r"expected \(points, 2\) or \(samples, points, 2\); got \(5, 3\)"),
        ({"positions": torch.rand(4, 2)}, r"frames: expected \(samples, 1, 4, 2\)"),
        ({"positions": torch.rand(3, 5, 2)}, "expected one number of samples, or 1; got 3, 2"),
        ({"positions": torch.rand(5, 2), "statics": torch.rand(5, 1)}, "no static fields; leave them out"),
    ],
)
def test_what_does_not_fit_is_told(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        bundle(False).predict(torch.rand(2, 1, 5, 2), {}, 1, **keys)
    with pytest.raises(DataError, match="static fields \\(kinematic\\); expected"):
        bundle(True, walls=True).predict(torch.rand(1, 1, 5, 2), {}, 1, positions=torch.rand(5, 2))
