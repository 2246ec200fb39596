"""`[latent]`, `[encoder]`, `[operator]` and `[decoder]` of an imported recipe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .data_part import Data
from .settings import Settings

PDET = "operator.pdet"


def model_part(settings: Settings, data: Data) -> dict[str, dict[str, Any]]:
    """The four tables, by name."""
    width = _width(settings)
    parts: dict[str, dict[str, Any]] = {"latent": {"width": width}}
    parts["encoder"] = _grid_encoder(settings, data) if data.kind == "grid" else _point_encoder(settings, data, width)
    if width % 4:
        parts["encoder"]["heads"] = 1
    is_stack = settings.take("operator.architecture_type") == "pdet_stack"
    if data.kind != "grid":
        parts["latent"]["tokens"] = settings.take("latent.tokens")
        settings.remark("latent.tokens", "latent.tokens: supernodes are pooled to so many, as in UPT")
        if not is_stack:
            is_stack = True
            settings.drop(
                "operator.architecture_type", "a U-shape needs tokens on a lattice; `transformer` in its place"
            )
    parts["operator"] = _stack(settings, width) if is_stack else _unet(settings, width)
    parts["decoder"] = _decoder(data, parts["encoder"], width)
    settings.add(
        "encoder and decoder are trained here; the ancestor drew them anew in every process, and never trained them"
    )
    return parts


def _width(settings: Settings) -> int:
    """The width of a token, which heads cut into even parts."""
    wanted = settings.take("latent.dim")
    width: int = wanted + wanted % 2
    if width != wanted:
        settings.remark("latent.dim", f"{width}: heads cut it into even parts")
    return width


def _grid_encoder(settings: Settings, data: Data) -> dict[str, Any]:
    wanted = settings.take("latent.tokens")
    if not data.grids:
        size = settings.take("data.patch_size")
        settings.drop("latent.tokens", "follows from encoder.patch_size; the data are not there to choose that by")
        return {"use": "grid", "patch_size": size}
    common = math.gcd(*(size for grid in data.grids for size in grid))
    largest = max(data.grids, key=math.prod)
    sizes = [size for size in range(1, common + 1) if common % size == 0]
    size = min(sizes, key=lambda size: abs(math.log(_tokens(largest, size) / wanted)))
    grid = " × ".join(map(str, largest))
    settings.remark("latent.tokens", f"patches of {size}: {_tokens(largest, size)} tokens of {grid} points")
    settings.drop("data.patch_size", f"encoder.patch_size = {size} follows from latent.tokens")
    return {"use": "grid", "patch_size": size}


def _tokens(grid: Sequence[int], size: int) -> int:
    return math.prod(points // size for points in grid)


def _point_encoder(settings: Settings, data: Data, width: int) -> dict[str, Any]:
    hidden = settings.take("data.hidden_dim")
    return {
        "use": "mesh" if data.kind == "mesh" else "particle",
        "supernodes": settings.take("data.supernodes"),
        "hidden": max(2 * width, 64) if hidden is None else hidden,
    }


def _decoder(data: Data, encoder: dict[str, Any], width: int) -> dict[str, Any]:
    if data.kind != "grid":
        return {"use": "perceiver", **({"heads": 1} if width % 4 else {})}
    if not data.grids:
        return {"use": "partition"}
    size, dims = encoder["patch_size"], len(data.grids[0])
    return {"use": "partition", "modes": min(2 * size, 16) if dims == 1 else min(size, 8)}


# ---------------------------------------------------------------------------------------------------------------------
# Operators
# ---------------------------------------------------------------------------------------------------------------------
def _stack(settings: Settings, width: int) -> dict[str, Any]:
    ratio, drop_path = settings.take(f"{PDET}.mlp_ratio"), settings.take(f"{PDET}.drop_path")
    depth = settings.take(f"{PDET}.depth")
    if depth is None:
        depth = sum(settings.take(f"{PDET}.depths"))
        settings.remark(f"{PDET}.depths", f"operator.depth: {depth} blocks in all")
    table = {
        "use": "transformer",
        "depth": depth,
        "heads": _heads(settings, width),
        "mlp_ratio": 4.0 if ratio is None else ratio,
    }
    return table if not drop_path else {**table, "drop_path": drop_path}


def _unet(settings: Settings, width: int) -> dict[str, Any]:
    if settings.under(PDET):
        depths, group = list(settings.take(f"{PDET}.depths")), settings.take(f"{PDET}.group_size")
        if settings.has(f"{PDET}.depth") and not settings.has(f"{PDET}.depths"):
            depths = [settings.take(f"{PDET}.depth")] * 3
            settings.remark(f"{PDET}.depth", "operator.depths: of each of three levels")
    else:  # what the ancestor makes of a configuration without this table
        depths, group = [1, 1, 1], max(width // 2, 4)
    ratio = settings.take(f"{PDET}.mlp_ratio")
    groups = _groups(settings, width, group)
    return {
        "use": "pde_transformer",
        "depths": depths,
        "heads": _heads(settings, width // groups),
        "channel_groups": groups,
        "mlp_ratio": 2.0 if ratio is None else ratio,
    }


def _groups(settings: Settings, width: int, size: int) -> int:
    """How many groups of channels of about this size there are; each is even."""
    wanted = max(width / size, 1.0)
    fitting = [count for count in range(1, width + 1) if width % count == 0 and (width // count) % 2 == 0] or [1]
    groups = min(fitting, key=lambda count: abs(count - wanted))
    settings.remark(f"{PDET}.group_size", f"{groups} groups of {width // groups} channels")
    return groups


def _heads(settings: Settings, width: int) -> int:
    """The heads that are asked for, or the nearest number that cuts a width evenly."""
    wanted = settings.take(f"{PDET}.num_heads")
    fitting = [count for count in range(1, width + 1) if width % (2 * count) == 0]
    heads = min(fitting, key=lambda count: abs(count - wanted))
    if heads != wanted:
        settings.remark(f"{PDET}.num_heads", f"{heads}: the nearest number that cuts {width} channels into even parts")
    return heads
