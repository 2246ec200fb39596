"""What crosses the border between the core and a plugin: the data, and one protocol per kind of component.

Shapes are written in a fixed order: (batch, points, channels), (batch, tokens, width), (batch, queries, space_dims).

| symbol | meaning |
| --- | --- |
| B | samples in a batch |
| N, Q | input points, query points |
| T, d | latent tokens, their width |
| D | space dimensions, 1 to 3 |
| C | channels of the target fields |
| P | conditions: the time step and the named parameters |
| K | future steps |
| S | supernodes of an encoder; trajectories, where whole ones are meant |

This module imports no torch when it runs, so that plugins can be listed and recipes checked in a fraction of a second.
"""

from __future__ import annotations

from .configs import (
    CONFIG_PROTOCOLS,
    KINDS,
    Checks,
    Components,
    DatasetConfig,
    DecoderConfig,
    DescribesTasks,
    EncoderConfig,
    LossConfig,
    MetricConfig,
    OpensGrids,
    OpensParticles,
    OperatorConfig,
    OptimizerConfig,
    OrderChecks,
    Recognises,
    SamplerConfig,
    ScheduleConfig,
    SimulatorConfig,
    StageConfig,
    TakesLatents,
    TrackerConfig,
    heads_problems,
)
from .data import (
    AuditsPhysics,
    Dataset,
    DrawsWindows,
    GridFile,
    GridHeader,
    Identified,
    ListsParameters,
    Meshed,
    Multitask,
    Offer,
    ParticleFile,
    ReadsPoints,
    Relaid,
    Relays,
    Simulator,
)
from .descriptions import (
    Field,
    FieldSpec,
    LatentSpec,
    Layout,
)
from .parts import (
    Calibrates,
    ComparesLatents,
    Decoder,
    Elsewhere,
    Encoder,
    EvaluatesElsewhere,
    ForwardPass,
    Loss,
    Metric,
    Needs,
    Operator,
    Preparation,
    Prepares,
    Sampler,
    Schedule,
    Stage,
    Tracker,
)
from .values import (
    Batch,
    Decoded,
    Example,
    Latent,
    PointSet,
    Progress,
    Queries,
    Supernodes,
    Trajectories,
)

__all__ = [
    "CONFIG_PROTOCOLS",
    "KINDS",
    "AuditsPhysics",
    "Batch",
    "Calibrates",
    "Checks",
    "ComparesLatents",
    "Components",
    "Dataset",
    "DatasetConfig",
    "Decoded",
    "Decoder",
    "DecoderConfig",
    "DescribesTasks",
    "DrawsWindows",
    "Elsewhere",
    "Encoder",
    "EncoderConfig",
    "EvaluatesElsewhere",
    "Example",
    "Field",
    "FieldSpec",
    "ForwardPass",
    "GridFile",
    "GridHeader",
    "Identified",
    "Latent",
    "LatentSpec",
    "Layout",
    "ListsParameters",
    "Loss",
    "LossConfig",
    "Meshed",
    "Metric",
    "MetricConfig",
    "Multitask",
    "Needs",
    "Offer",
    "OpensGrids",
    "OpensParticles",
    "Operator",
    "OperatorConfig",
    "OptimizerConfig",
    "OrderChecks",
    "ParticleFile",
    "PointSet",
    "Preparation",
    "Prepares",
    "Progress",
    "Queries",
    "ReadsPoints",
    "Recognises",
    "Relaid",
    "Relays",
    "Sampler",
    "SamplerConfig",
    "Schedule",
    "ScheduleConfig",
    "Simulator",
    "SimulatorConfig",
    "Stage",
    "StageConfig",
    "Supernodes",
    "TakesLatents",
    "Tracker",
    "TrackerConfig",
    "Trajectories",
    "heads_problems",
]
