"""The `grid_zarr` layout: trajectories on a regular grid in one Zarr v3 group, and what writes it.

    store.zarr/
      zarr.json             attributes as below
      coords/<axis>         (points,) float64, for each axis of the grid, in the order of the fields' axes
      time                  (T,) float64; one entry for steady data
      fields/<name>         (N, T, X, Y, Z, C): trajectory, frame, the grid's one to three axes, channel
      statics/<name>        (N, X, Y, Z, C): fields that do not change in time; (X, Y, Z, C) if all trajectories share it
      parameters/<name>     (N,) float64: parameters of the equation

A store of one trajectory may leave out the first axis: fields (T, X, Y, Z, C), statics (X, Y, Z, C), parameters ().
`coords` may also be one array with the coordinates of all points, (points, D) or (X, Y, Z, D).

| attribute of the root | what it says |
| --- | --- |
| `layout`, `version` | "ups_kit/grid_zarr", 1 |
| `axes` | names of the axes in `coords`, in order |
| `fields`, `statics`, `parameters` | names, in the order of the channels |
| `steady` | whether the fields are the answer to the statics, and no time series |
| `periodic` | true or false for each axis |
| `domain` | [low, high] for each axis, optional |
| `boundary_conditions` | what holds at the ends of each axis: "periodic", "wall", "open", …; optional |
| `units` | units by name of field, static, parameter and axis, and of "time"; optional |
| `checksum` | of all metadata of the store, see `ups_kit.data.zarr_metadata` |

Arrays are sharded, `ZstdCodec(level=1, checksum=True)`, with the fill value NaN, and every chunk is written, so that a
missing one is seen. Only `layout`, `version`, `coords`, `time` and `fields` must be there.
"""

from __future__ import annotations

LAYOUT, VERSION = "ups_kit/grid_zarr", 1
