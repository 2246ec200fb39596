"""The keys of the samplers, and how many points they draw."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from attrs import field, frozen
from attrs.validators import ge, gt, in_, le, optional

from ups_kit import FieldSpec, Progress
from ups_kit.interfaces import Sampler


@frozen(kw_only=True)
class QueryCount:
    """How many points are drawn: a count or a share of the points, constant or moving between two epochs.

    With start value a, end value b and s = (epoch - start_epoch) / (end_epoch - start_epoch) held within 0 to 1:
    linear a + (b - a)·s, cosine a + (b - a)·(1 - cos πs)/2.
    """

    queries: int | None = field(
        default=None, validator=optional(gt(0)), metadata={"help": "number of points of each sample", "unit": "points"}
    )
    ratio: float | None = field(
        default=None,
        validator=optional([gt(0), le(1)]),
        metadata={"help": "share of the points; 1 takes all of them", "example": "0.5"},
    )
    schedule: Literal["constant", "linear", "cosine"] = field(
        default="constant",
        validator=in_(("constant", "linear", "cosine")),
        metadata={"help": "how the number moves from its start to its end"},
    )
    end_queries: int | None = field(
        default=None, validator=optional(gt(0)), metadata={"help": "number of points at the end", "unit": "points"}
    )
    end_ratio: float | None = field(
        default=None, validator=optional([gt(0), le(1)]), metadata={"help": "share of the points at the end"}
    )
    start_epoch: float = field(
        default=0.0, validator=ge(0), metadata={"help": "when the number begins to move", "unit": "epochs"}
    )
    end_epoch: float | None = field(
        default=None, validator=optional(gt(0)), metadata={"help": "when the number is at its end", "unit": "epochs"}
    )

    def __attrs_post_init__(self) -> None:
        if (self.queries is None) == (self.ratio is None):
            raise ValueError("one of queries (a count) and ratio (a share, 0 to 1) is needed, for example ratio = 0.5")
        end = "end_queries" if self.queries is not None else "end_ratio"
        other = "end_ratio" if self.queries is not None else "end_queries"
        if getattr(self, other) is not None:
            raise ValueError(f"{other} does not fit: the start is given as {end.removeprefix('end_')}; use {end}")
        if self.schedule == "constant":
            given = [name for name in (end, "end_epoch") if getattr(self, name) is not None]
            if given:
                raise ValueError(f"schedule = 'constant' has no {given[0]}; use schedule = 'linear' or 'cosine'")
        else:
            missing = [name for name in (end, "end_epoch") if getattr(self, name) is None]
            if missing:
                raise ValueError(f"schedule = '{self.schedule}' needs {' and '.join(missing)}")
            if self.end_epoch is not None and self.end_epoch <= self.start_epoch:
                raise ValueError(f"end_epoch = {self.end_epoch:g} is not after start_epoch = {self.start_epoch:g}")

    def count(self, points: int, progress: Progress) -> int:
        """How many of `points` points are drawn now, at least one."""
        start: float | None = self.queries if self.queries is not None else self.ratio
        end: float | None = self.end_queries if self.queries is not None else self.end_ratio
        assert start is not None
        value: float = start if end is None else start + (end - start) * self._share(progress.epoch)
        wanted: int = round(value if self.queries is not None else value * points)
        return min(max(wanted, 1), points)

    def _share(self, epoch: float) -> float:
        if self.end_epoch is None:
            return 0.0
        share = min(max((epoch - self.start_epoch) / (self.end_epoch - self.start_epoch), 0.0), 1.0)
        return share if self.schedule == "linear" else (1 - math.cos(math.pi * share)) / 2


@frozen(kw_only=True)
class UniformConfig(QueryCount):
    """Points drawn without replacement, every point equally likely."""

    def build(self, fields: FieldSpec) -> Sampler:
        from .samplers import UniformSampler

        return UniformSampler(self)


@frozen(kw_only=True)
class StratifiedConfig(QueryCount):
    """Points drawn evenly over the domain, which is cut into blocks; each block gives its share of the points.

    On a grid the blocks are blocks of the grid, elsewhere cells over the bounding box of each sample's points.
    """

    blocks: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "blocks along each axis; where not given, so many that each gives about four points"},
    )

    def blocks_along(self, dims: int, queries: int) -> int:
        """Blocks along each of `dims` axes for so many queries; in all never more than queries, so none is left out."""
        if self.blocks is not None:
            return max(1, min(self.blocks, math.floor(math.pow(queries, 1 / dims) + 1e-9)))
        return max(1, round(math.pow(queries / 4, 1 / dims)))

    def build(self, fields: FieldSpec) -> Sampler:
        from .samplers import StratifiedSampler

        return StratifiedSampler(self)


@frozen(kw_only=True)
class ImportanceConfig(QueryCount):
    """Points drawn more often where the field is steep, or errors have been large; each then counts the less.

    A point's chance is Q·((1 - epsilon)·score / sum of scores + epsilon / N), at most 1, its weight 1 / (N·chance), so
    that the expectation of a loss is the loss at all points. No weight is above 1 / (epsilon·Q).
    """

    gives_weights: ClassVar[bool] = True

    score: Literal["gradient", "error"] = field(
        default="gradient",
        validator=in_(("gradient", "error")),
        metadata={
            "help": "gradient: how steep the true fields are at the point, over the frames of the batch; "
            "error: how far off the model has been lately in the point's cell of the domain"
        },
    )
    epsilon: float = field(
        default=0.5,
        validator=[gt(0), le(1)],
        metadata={"help": "share of the chances that all points have alike; 1 draws uniformly"},
    )
    cells: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "cells along each axis that errors are kept for; where not given, about 256 in all"},
    )
    memory: float | None = field(
        default=None,
        validator=optional(ge(1)),
        metadata={
            "help": "how far back errors count: each 1/e of itself after so many steps; 100 where not given",
            "unit": "steps",
        },
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        for name in ("cells", "memory"):
            if getattr(self, name) is not None and self.score != "error":
                raise ValueError(f"{name} goes with score = 'error': a gradient is that of each batch, nothing is kept")

    @property
    def remembers_places(self) -> bool:
        return self.score == "error"

    def cells_along(self, dims: int) -> int:
        """Cells along each of `dims` axes."""
        return self.cells or max(1, round(math.pow(256, 1 / dims)))

    @property
    def decay(self) -> float:
        """What a kept error still counts one step later."""
        return math.exp(-1 / (100.0 if self.memory is None else self.memory))

    def build(self, fields: FieldSpec) -> Sampler:
        from .importance import ErrorSampler, GradientSampler

        if self.score == "error":
            return ErrorSampler(self, fields.domain, fields.periodic)
        return GradientSampler(self, fields.domain, fields.periodic)
