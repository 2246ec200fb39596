"""A trained model as three programs that need nothing but torch: encode, step and decode, in physical units.

    encode(given, parameters) -> latent            frames (B, history, N, C), statics (B, N, c), positions (B, N, D)
    step(latent, parameters[, noise]) -> latent    one model step on; noise (B, T, d) where forecasts are drawn
    decode(latent, parameters, queries) -> fields  (B, Q, C) at queries (B, Q, D)

`given` and `latent` are dictionaries of tensors. B and Q may be anything, and N where the encoder takes points of any
number; parameters (B, P) are in the order of `export.json`, "dt" first.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import attrs
import torch
from attrs import frozen
from torch import Tensor, nn

from .bundle import WEIGHTS, Bundle
from .errors import StorageError, UsageError
from .folder import sync_folder, write_json
from .interfaces import Corrects, DrawsStates, Latent, PointSet, Prepares, Queries
from .model import LatentModel
from .neighbours import SupernodeGraph
from .neighbours.dense import DenseLookup
from .predicting.forecast import Way, grid_places
from .tasks import TaskView

FORMAT = 1
RECORD = "export.json"
TOLERANCE = 1e-5  # of the largest value: what a program may differ by from the model
TRIALS = 4  # random sizes that are compared
SHOWN = 300  # characters of what torch says
MOST = 600  # points and queries of these, at most
Tensors = dict[str, Tensor]


@frozen(eq=False)
class Exported:
    """What was written."""

    folder: Path
    differences: Mapping[str, float]  # of each program, relative to the largest value
    record: Mapping[str, Any]


# ---------------------------------------------------------------------------------------------------------------------
# The programs
# ---------------------------------------------------------------------------------------------------------------------
class Encode(nn.Module):
    """Given fields to a latent."""

    places: Tensor | None

    def __init__(self, bundle: Bundle, model: LatentModel, way: Way) -> None:
        super().__init__()
        self.model = model
        self.fields, self.normaliser = bundle.fields, bundle.normaliser
        self.part = way.part if isinstance(way.part, DrawsStates) else None
        self.grid = None if anywhere(bundle) else bundle.fields.grid
        places = None if self.grid is None else grid_places(bundle.fields)
        self.register_buffer("places", places, persistent=False)

    def forward(self, given: Tensors, parameters: Tensor) -> Tensors:
        return tensors_of(self.latent(given, parameters))

    def latent(self, given: Tensors, parameters: Tensor) -> Latent:
        condition, parts = self.normaliser.condition(parameters), []
        if self.fields.history:
            parts.append(self.normaliser.targets(given["frames"]).permute(0, 2, 1, 3).flatten(2))
        if self.fields.statics:
            parts.append(self.normaliser.statics(given["statics"]))
        values = torch.cat(parts, -1)
        if self.places is None:
            points = PointSet(given["positions"], values)
        else:
            points = PointSet(self.places.expand(values.shape[0], -1, -1), values, grid=self.grid)
        if self.part is not None:
            return self.part.given(*self.model.placed(points, condition))
        return self.model.encode(points, condition)


class Step(nn.Module):
    """A latent to the one a model step later."""

    def __init__(self, bundle: Bundle, model: LatentModel, way: Way, grid: tuple[int, ...] | None) -> None:
        super().__init__()
        self.model, self.part, self.steps, self.grid = model, way.part, way.steps or 1, grid
        self.normaliser = bundle.normaliser

    def forward(self, latent: Tensors, parameters: Tensor, noise: Tensor | None = None) -> Tensors:
        condition = self.normaliser.condition(parameters)
        given = latent_of(latent, self.grid, condition)
        if isinstance(self.part, DrawsStates):
            given = given._replace(condition=seen_by(self.model, condition))
        else:
            given = self.model.step(given, condition)
        if self.part is not None and noise is not None:
            given = self.part.correct(given, noise, self.steps)._replace(totals=given.totals)
        return {**latent, **tensors_of(given)}


class Decode(nn.Module):
    """A latent to fields anywhere."""

    def __init__(self, bundle: Bundle, model: LatentModel, grid: tuple[int, ...] | None) -> None:
        super().__init__()
        self.model, self.grid, self.normaliser = model, grid, bundle.normaliser

    def forward(self, latent: Tensors, parameters: Tensor, queries: Tensor) -> Tensor:
        condition = seen_by(self.model, self.normaliser.condition(parameters))
        fields = self.model.decode(latent_of(latent, self.grid, condition), Queries(queries))
        values: Tensor = self.normaliser.physical(fields)
        return values


def tensors_of(latent: Latent) -> Tensors:
    """The tensors of a latent by name, but for its condition, which is given anew."""
    named = latent._asdict().items()
    return {name: value for name, value in named if isinstance(value, Tensor) and name != "condition"}


def latent_of(tensors: Tensors, grid: tuple[int, ...] | None, condition: Tensor) -> Latent:
    """The reverse."""
    return Latent(tensors["tokens"], tensors.get("anchors"), grid, condition, tensors.get("totals"))


def seen_by(model: LatentModel, condition: Tensor) -> Tensor:
    """A condition as the parts of a model are given it: of one task of several, in its place among all."""
    return model.placement.condition(condition) if isinstance(model, TaskView) else condition


def anywhere(bundle: Bundle) -> bool:
    """Whether the encoder takes points wherever they are."""
    return bundle.fields.grid is None or isinstance(bundle.model.encoder, Prepares)


@frozen(eq=False)
class Programs:
    """The three modules of a model before they are traced."""

    encode: Encode
    step: Step
    decode: Decode

    @classmethod
    def of(cls, bundle: Bundle, way: Way) -> Programs:
        encode = Encode(bundle, bundle.model, way).eval()
        given, parameters, _ = random_inputs(bundle, 1, 1, torch.Generator().manual_seed(0))
        with torch.no_grad():
            grid = encode.latent(given, parameters).grid
        return cls(encode, Step(bundle, bundle.model, way, grid).eval(), Decode(bundle, bundle.model, grid).eval())


def random_inputs(
    bundle: Bundle, samples: int, queries: int, generator: torch.Generator
) -> tuple[Tensors, Tensor, Tensor]:
    """What the programs may be given: noise of the size of the train data at random places, in physical units."""
    fields, normaliser = bundle.fields, bundle.normaliser

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def places(count: int) -> Tensor:
        low, high = torch.tensor(fields.domain, dtype=torch.float32).T
        shares = torch.rand(samples, count, fields.space_dims, generator=generator)
        return torch.lerp(low, high, shares)

    points = _points(bundle, generator)
    given: Tensors = {}
    if fields.history:
        given["frames"] = normaliser.physical(noise(samples, fields.history, points, fields.target_channels))
    if fields.statics:
        own = noise(samples, points, sum(each.channels for each in fields.statics))
        given["statics"] = own * own.new_tensor(normaliser.static_std) + own.new_tensor(normaliser.static_mean)
    if anywhere(bundle):
        given["positions"] = places(points)
    scaled = noise(samples, len(fields.conditions)).double()
    scaled = scaled * scaled.new_tensor(normaliser.condition_std) + scaled.new_tensor(normaliser.condition_mean)
    parameters = scaled.exp().where(torch.tensor(normaliser.condition_log), scaled).float()
    return given, parameters, places(queries)


def _points(bundle: Bundle, generator: torch.Generator) -> int:
    """A number of points that the encoder takes."""
    fields = bundle.fields
    if not anywhere(bundle):
        return fields.points or 0
    low, high = fields.counts or (max(1, (fields.points or MOST) // 2), fields.points or MOST)
    high = max(low, min(high, MOST))
    return int(torch.randint(low, high + 1, (1,), generator=generator))


# ---------------------------------------------------------------------------------------------------------------------
# Tracing
# ---------------------------------------------------------------------------------------------------------------------
def traced(bundle: Bundle, way: Way) -> dict[str, torch.export.ExportedProgram]:
    """The programs by name, with any number of samples and queries, and of points where the encoder takes any.

    Raises UsageError that names the part which cannot be traced, and why.
    """
    modules = Programs.of(*_traceable(bundle, way))
    given, parameters, queries = random_inputs(bundle, 2, 5, torch.Generator().manual_seed(1))
    with torch.no_grad():
        latent = modules.encode(given, parameters)
    batch = torch.export.Dim("batch", min=1)
    points = torch.export.Dim("points", min=1) if anywhere(bundle) else None
    of_points: Any = {
        "frames": {0: batch, 2: points},
        "statics": {0: batch, 1: points},
        "positions": {0: batch, 1: points},
    }
    of_given = {name: {axis: dim for axis, dim in of_points[name].items() if dim is not None} for name in given}
    of_latent = {name: {0: batch} if shared_axis(value, name) else {} for name, value in latent.items()}
    each, noise = {0: batch}, (torch.randn_like(latent["tokens"]),) if way.draws else ()
    asked = {0: batch, 1: torch.export.Dim("queries", min=1)}
    return {
        "encode": _traced("encode", modules.encode, (given, parameters), (of_given, each)),
        "step": _traced("step", modules.step, (latent, parameters, *noise), (of_latent, each, *([each] * len(noise)))),
        "decode": _traced("decode", modules.decode, (latent, parameters, queries), (of_latent, each, asked)),
    }


def shared_axis(value: Tensor, name: str) -> bool:
    """Whether a tensor of a latent has one part for each sample: all but anchors that samples share."""
    return name != "anchors" or value.dim() == 3


def _traceable(bundle: Bundle, way: Way) -> tuple[Bundle, Way]:
    """A copy whose look-ups of neighbours are made of tensor operations. Raises UsageError where there is no such."""
    model = copy.deepcopy(bundle.model).requires_grad_(False).cpu()
    for module in model.modules():
        graph = vars(module).get("preparation")
        if graph is None:
            continue
        if not isinstance(graph, SupernodeGraph) or graph.choice == "farthest":
            why = f"encoder.choice = '{graph.choice}'" if isinstance(graph, SupernodeGraph) else type(graph).__name__
            raise UsageError(
                f"encode cannot be exported: the encoder looks up its points one after the other ({why}), which is no "
                "graph of tensor operations; encoders with choice = 'grid' or 'random' can be"
            )
        module.preparation = DenseLookup.of(graph)  # type: ignore[assignment]  # of a torch module, any attribute
    part = None if way.part is None else cast("Corrects", model.added[way.use])
    return attrs.evolve(bundle, model=model), attrs.evolve(way, part=part)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says while it traces: what comes of it is told."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _traced(
    name: str, module: nn.Module, arguments: tuple[Any, ...], shapes: tuple[Any, ...]
) -> torch.export.ExportedProgram:
    try:
        with _quiet():
            return torch.export.export(module, arguments, dynamic_shapes=shapes, strict=True)
    except Exception as error:  # torch raises many kinds; whatever it is, this part is not for export
        part = {"encode": "encoder", "step": "operator", "decode": "decoder"}[name]
        inner = module.part if isinstance(module, (Encode, Step)) and module.part is not None else None
        kind = type(getattr(module.model, part) if inner is None else inner).__name__
        words = " ".join(str(error).split())[:SHOWN] or type(error).__name__
        raise UsageError(f"{name} cannot be exported: torch cannot trace the {part} ({kind}): {words}") from error


# ---------------------------------------------------------------------------------------------------------------------
# Comparing
# ---------------------------------------------------------------------------------------------------------------------
def differences(bundle: Bundle, way: Way, programs: Mapping[str, Any], seed: int = 0) -> dict[str, float]:
    """What each program differs by from the model, relative to the largest value, over random sizes and inputs."""
    modules, generator = Programs.of(bundle, way), torch.Generator().manual_seed(seed)
    found = dict.fromkeys(programs, 0.0)
    for samples in (1, 3, 2, 5)[:TRIALS]:
        queries = int(torch.randint(1, MOST, (1,), generator=generator))
        given, parameters, asked = random_inputs(bundle, samples, queries, generator)
        with torch.no_grad():
            latent = modules.encode(given, parameters)
            noise = (torch.randn(latent["tokens"].shape, generator=generator),) if way.draws else ()
            for name, arguments in (
                ("encode", (given, parameters)),
                ("step", (latent, parameters, *noise)),
                ("decode", (latent, parameters, asked)),
            ):
                wanted, got = getattr(modules, name)(*arguments), programs[name](*arguments)
                found[name] = max(found[name], _difference(wanted, got))
    return found


def _difference(wanted: Tensors | Tensor, got: Tensors | Tensor) -> float:
    if isinstance(wanted, Tensor) and isinstance(got, Tensor):
        size = float(wanted.abs().max()) or 1.0
        return float((wanted - got).abs().max()) / size
    assert isinstance(wanted, dict)
    assert isinstance(got, dict)
    return max(_difference(value, got[name]) for name, value in wanted.items())


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------
def export(bundle: Bundle, way: Way, out: Path, overwrite: bool = False) -> Exported:
    """Trace, write, load again and compare; the folder is there with all of it, or not at all.

    Raises UsageError for a part that cannot be traced, or that gives other numbers when it is; StorageError.
    """
    check_folder(out, overwrite)
    programs = traced(bundle, way)
    aside = out.with_name(f".{out.name}.{uuid4().hex}")
    try:
        aside.mkdir(parents=True)
        for name, program in programs.items():
            torch.export.save(program, aside / f"{name}.pt2")
        loaded = {name: torch.export.load(aside / f"{name}.pt2").module() for name in programs}
        found = differences(bundle, way, loaded)
        wrong = [f"{name} by {value:.2g}" for name, value in found.items() if not value <= TOLERANCE]
        if wrong:
            raise UsageError(f"the programs differ from the model: {', '.join(wrong)}; expected {TOLERANCE:g} at most")
        record = _record(bundle, way, programs, found, aside)
        write_json(aside / RECORD, record)
        _put(aside, out)
    except OSError as error:
        raise StorageError(f"{out}: could not be written: {error.strerror or error}; choose another --out") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Exported(out, found, record)


def check_folder(out: Path, overwrite: bool) -> None:
    """Say before anything is traced that a folder cannot be written. Raises StorageError."""
    if not (out.exists() or out.is_symlink()):
        return
    if not (out / RECORD).is_file():
        raise StorageError(f"--out {out}: is there already, and is no export; choose another --out")
    if not overwrite:
        raise StorageError(f"--out {out}: is there already; add --overwrite, or choose another --out")


def _put(aside: Path, out: Path) -> None:
    old = out.with_name(f"{aside.name}.old")
    if out.exists():
        out.rename(old)
    aside.rename(out)
    sync_folder(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def _record(
    bundle: Bundle, way: Way, programs: Mapping[str, Any], found: Mapping[str, float], folder: Path
) -> dict[str, Any]:
    """What the programs are: for who calls them, and for who wonders where they came from."""
    fields, latent = bundle.fields, Programs.of(bundle, way)
    given, parameters, _ = random_inputs(bundle, 1, 1, torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens = latent.encode(given, parameters)["tokens"]
    return {
        "format": FORMAT,
        "recipe": bundle.recipe.run.name,
        "weights": bundle.description["sha256"][WEIGHTS],
        "forecast": {"use": way.use, "steps": way.steps},
        "given": list(given),
        "points": None if anywhere(bundle) else list(fields.grid or ()),
        "parameters": list(fields.conditions),
        "dt": fields.dt,
        "fields": [each.name for each in fields.targets for _ in range(each.channels)],
        "statics": [each.name for each in fields.statics for _ in range(each.channels)],
        "domain": [list(ends) for ends in fields.domain],
        "periodic": list(fields.periodic),
        "noise": list(tokens.shape[1:]) if way.draws else None,
        "differences": dict(found),
        "torch": torch.__version__,
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.pt2"))},
    }
