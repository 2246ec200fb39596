"""A recipe: everything that a run is made of, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from attrs import field, fields_dict, frozen
from attrs.validators import ge, gt, matches_re, optional

from .interfaces import (
    ConstraintConfig,
    DatasetConfig,
    DecoderConfig,
    EncoderConfig,
    LatentSpec,
    ModelConfig,
    OperatorConfig,
    StageConfig,
    TrackerConfig,
)

RUN_NAME = r"(?!\.)[A-Za-z0-9._-]{1,80}"


@frozen(kw_only=True)
class Run:
    """The run as a whole: its name, its seed, and where it computes."""

    name: str = field(
        validator=matches_re(RUN_NAME),
        metadata={"help": "name of the run's folder: letters, digits, . _ -", "example": '"my_run"'},
    )
    seed: int = field(default=0, validator=ge(0), metadata={"help": "seed of everything that is drawn"})
    device: str = field(
        default="auto", validator=matches_re(r"auto|cpu|cuda(:\d+)?"), metadata={"help": "auto, cpu, cuda or cuda:N"}
    )
    folder: Path = field(
        default=Path("runs"),
        converter=Path,
        metadata={
            "help": "where run folders are made, from the working directory",
            "relative_to": "working directory",
        },
    )
    threads: int | None = field(
        default=None, validator=optional(gt(0)), metadata={"help": "CPU threads; torch's choice where not given"}
    )
    precision: Literal["fp32", "bf16", "fp16"] = field(
        default="fp32", metadata={"help": "arithmetic of forward and backward"}
    )
    compile: bool = field(default=False, metadata={"help": "torch.compile the model's parts"})
    workers: int = field(
        default=0,
        validator=ge(0),
        metadata={"help": "processes that read batches ahead; 0: a thread of this one, the same batches"},
    )
    worker_start: Literal["forkserver", "spawn", "fork"] = field(
        default="forkserver",
        metadata={"help": "how they are started; fork is quickest, and may hang after threads or a GPU were in use"},
    )


@frozen(kw_only=True)
class PluginsTable:
    """Which plugins a recipe does without, and which it needs."""

    disable: tuple[str, ...] = field(default=(), metadata={"help": "names of plugins that are not loaded"})
    require: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "distributions of plugins that must be installed, in such versions",
            "example": '["ups-wavelets >= 0.3"]',
        },
    )


@frozen(kw_only=True)
class LatentCache:
    """Latents of the train split, encoded once and kept on disk, for operator stages that freeze the encoder.

    They are addressed by their content: other weights of the encoder or other data have another folder.
    """

    folder: Path | None = field(
        default=None, metadata={"help": "where they are kept; .latents in run.folder where absent"}
    )
    dtype: Literal["float32", "float16", "bfloat16"] = field(
        default="float32", metadata={"help": "how they are stored; float32 trains as if there were no cache"}
    )
    preload: Literal["auto"] | bool = field(
        default="auto",
        metadata={"help": "hold them in memory: auto where they fill at most half of what is free, true, or false"},
    )
    shard: int = field(default=64, validator=gt(0), metadata={"help": "largest size of a file", "unit": "MB"})


@frozen(kw_only=True)
class Recipe:
    """A whole run: data, model, constraints, stages, trackers."""

    run: Run = field(metadata={"help": "the run as a whole"})
    dataset: DatasetConfig = field(metadata={"help": "the data; everything downstream is sized from them"})
    latent: LatentSpec = field(metadata={"help": "how large the latent space is"})
    encoder: EncoderConfig = field(metadata={"help": "fields at points to latent tokens"})
    operator: OperatorConfig = field(metadata={"help": "one step in the latent space"})
    decoder: DecoderConfig = field(metadata={"help": "latent tokens to fields at any points"})
    stages: tuple[StageConfig, ...] = field(metadata={"help": "what is done, in this order"})
    constraints: tuple[ConstraintConfig, ...] = field(
        default=(), metadata={"help": "laws that all decoded fields keep exactly, in this order"}
    )
    latent_cache: LatentCache | None = field(
        default=None, metadata={"help": "cached latents, for stages that freeze the encoder"}
    )
    trackers: tuple[TrackerConfig, ...] = field(default=(), metadata={"help": "where numbers and pictures go"})
    plugins: PluginsTable = field(factory=PluginsTable, metadata={"help": "which plugins are not loaded"})
    recipe_version: int = field(default=1, metadata={"help": "version of the form that recipes have"})
    description: str = field(default="", metadata={"help": "what the recipe is for"})


@frozen(kw_only=True)
class ModelRecipe:
    """A whole run of a family of its own: data, a model in one component, stages, trackers."""

    run: Run = field(metadata={"help": "the run as a whole"})
    dataset: DatasetConfig = field(metadata={"help": "the data; the model is sized from them"})
    model: ModelConfig = field(metadata={"help": "the whole model, where it is not encoder, operator and decoder"})
    stages: tuple[StageConfig, ...] = field(metadata={"help": "what is done, in this order"})
    trackers: tuple[TrackerConfig, ...] = field(default=(), metadata={"help": "where numbers and pictures go"})
    plugins: PluginsTable = field(factory=PluginsTable, metadata={"help": "which plugins are not loaded"})
    recipe_version: int = field(default=1, metadata={"help": "version of the form that recipes have"})
    description: str = field(default="", metadata={"help": "what the recipe is for"})


AnyRecipe = Recipe | ModelRecipe
FIELD_TABLES = tuple(name for name in fields_dict(Recipe) if name not in fields_dict(ModelRecipe))  # beside no [model]


def form_of(tables: Mapping[str, Any]) -> type[Recipe] | type[ModelRecipe]:
    """Which of the two forms a recipe's tables have: a table `model` stands for encoder, operator and decoder."""
    return ModelRecipe if "model" in tables else Recipe
