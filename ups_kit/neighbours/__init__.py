"""Who hears whom: neighbour tables of points, and the supernodes that encoders of meshes and particles gather at.

What needs torch is imported when it is asked for, so that config classes can take `graph_problems` from here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .problems import Choice, graph_problems, lattice_shape

if TYPE_CHECKING:
    from .graph import SupernodeGraph as SupernodeGraph
    from .tables import NeighbourTable as NeighbourTable
    from .tables import neighbour_table as neighbour_table

__all__ = ["Choice", "NeighbourTable", "SupernodeGraph", "graph_problems", "lattice_shape", "neighbour_table"]

HOMES = {"NeighbourTable": "tables", "SupernodeGraph": "graph", "neighbour_table": "tables"}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{HOMES[name]}", __name__), name)
