"""The ancestor's keys of the run, the data and the model, and what has become of each."""

from __future__ import annotations

from typing import Any

from ..keys import Limits
from .dialect import ABOVE_0, AT_LEAST_0, SHARE, OldKey

NAMES = tuple[str, ...]
COUNTS = tuple[int, ...]

KEYS = (
    OldKey("seed", int, 17, "carried", "run.seed", limits=AT_LEAST_0),
    OldKey(
        "deterministic",
        bool,
        False,
        "elsewhere",
        remark="all that is drawn follows from run.seed; a run resumes to the same bits on a CPU",
    ),
    OldKey("benchmark", bool, True, "elsewhere", remark="cuDNN's choices are left to torch"),
    OldKey("precision", Any, None, "idle", remark="run.precision is the key now: fp32, bf16 or fp16"),
    # -- data ---------------------------------------------------------------------------------------------------------
    OldKey(
        "data.task",
        str | NAMES,
        None,
        "changed",
        "dataset",
        "a table of its own: PDEBench's file of the task, simulated where it is not there; several tasks are a mixture",
    ),
    OldKey(
        "data.split",
        str,
        "train",
        "derived",
        remark="every run trains on the train split; splits are made of the trajectories, by seed, and checked for "
        "initial conditions that two of them share, as the ancestor's own files do",
    ),
    OldKey(
        "data.root",
        str,
        None,
        "changed",
        "dataset.path",
        "the folder of ROOT/TASK.h5, from the recipe's folder. The ancestor's own ROOT/TASK_train.h5 holds no "
        "coordinates, times or parameters: name PDEBench's file, or convert it (upskit data convert FILE --axes "
        "b,t,x,c --arrays data --out ROOT/TASK.h5)",
        only="with data.task",
    ),
    OldKey(
        "data.kind",
        str,
        "grid",
        "changed",
        "dataset.use",
        "grid_zarr, mesh_zarr or particle_zarr, whose stores `upskit data inspect` describes",
        Limits(choices=("grid", "mesh", "particles")),
        only="where no task is written",
    ),
    OldKey(
        "data.path", str, None, "changed", "dataset.path", "from the recipe's folder", only="where no task is written"
    ),
    OldKey(
        "data.group", str, None, "changed", "dataset.path", "the group's folder in the store", only="with data.path"
    ),
    OldKey(
        "data.patch_size",
        int,
        4,
        "changed",
        "encoder.patch_size",
        "patches are the tokens here: where the grid is known the size follows from latent.tokens",
        ABOVE_0,
        only="of grids whose data are not there yet",
    ),
    OldKey(
        "data.field_name",
        str,
        "u",
        "changed",
        "stages.operator.losses.boundary.values",
        "names of fields come from the data; bc_value and lambda_divergence are of the field that is named here",
        only="with bc_value or lambda_divergence: names of fields come from the data",
    ),
    OldKey("data.field_channels.*", int, None, "derived", remark="channels come from the data"),
    OldKey(
        "data.hidden_dim",
        int,
        None,
        "changed",
        "encoder.hidden",
        "the width of a message to a supernode",
        ABOVE_0,
        only="of meshes and particles",
    ),
    OldKey(
        "data.message_passing_steps",
        int,
        3,
        "elsewhere",
        remark="points speak to supernodes once; encoder.depth blocks of attention follow",
    ),
    OldKey(
        "data.supernodes",
        int,
        2048,
        "changed",
        "encoder.supernodes",
        "supernodes stand on a lattice, whatever the order of the points",
        ABOVE_0,
        only="of meshes and particles",
    ),
    OldKey("data.use_coords", bool, True, "elsewhere", remark="places of points are always given"),
    OldKey(
        "data.task_sampling.strategy",
        str,
        None,
        "idle",
        remark='of a mixture: dataset.sampling = "equal", or dataset.weights',
    ),
    OldKey("data.shard_limit", int, None, "idle", remark="dataset.path names the files"),
    OldKey(
        "data.download.*", Any, None, "idle", remark="nothing is downloaded: simulate, or put files at dataset.path"
    ),
    # -- latent space and model ---------------------------------------------------------------------------------------
    OldKey("latent.dim", int, 32, "carried", "latent.width", limits=ABOVE_0),
    OldKey(
        "latent.tokens",
        int,
        16,
        "changed",
        "encoder.patch_size",
        "on grids as many patches as come nearest, which keep their places; latent.tokens on meshes and particles",
        ABOVE_0,
    ),
    OldKey(
        "operator.architecture_type",
        str,
        "pdet_unet",
        "changed",
        "operator.use",
        "pdet_stack: transformer; pdet_unet: pde_transformer, whose coarser levels keep places. Both are told the time "
        "step and the equation's parameters, and begin near the identity",
        Limits(choices=("pdet_unet", "pdet_stack")),
    ),
    OldKey("operator.pdet.input_dim", int, None, "derived", remark="is latent.width"),
    OldKey(
        "operator.pdet.hidden_dim",
        int,
        None,
        "elsewhere",
        remark="the operator is as wide as its tokens: latent.width; mlp_ratio and depth make it larger",
        limits=ABOVE_0,
    ),
    OldKey(
        "operator.pdet.depths",
        COUNTS,
        (2, 2, 2),
        "changed",
        "operator.depths",
        "of pdet_unet: blocks of each level on the way down, and as many on the way up; of pdet_stack their sum",
        ABOVE_0,
        only="where depth does not stand for it",
    ),
    OldKey("operator.pdet.depth", int, None, "carried", "operator.depth", limits=ABOVE_0, only="of pdet_stack"),
    OldKey(
        "operator.pdet.group_size",
        int,
        32,
        "changed",
        "operator.channel_groups",
        "latent.width / group_size groups",
        ABOVE_0,
        only="of pdet_unet",
    ),
    OldKey("operator.pdet.num_heads", int, 4, "carried", "operator.heads", limits=ABOVE_0),
    OldKey(
        "operator.pdet.mlp_ratio",
        float,
        None,
        "changed",
        "operator.mlp_ratio",
        "in widths of a token, not of hidden_dim; 2 of pdet_unet and 4 of pdet_stack where not written",
        ABOVE_0,
    ),
    OldKey("operator.pdet.dropout", float, 0.0, "elsewhere", remark="operator.drop_path", limits=SHARE),
    OldKey(
        "operator.pdet.attention_type",
        str,
        "standard",
        "elsewhere",
        remark="transformer attends over whole tokens; groups of channels are pde_transformer's channel_groups",
        limits=Limits(choices=("standard", "channel_separated")),
    ),
    OldKey("operator.pdet.qk_norm", bool, False, "elsewhere", remark="queries and keys always have unit RMS"),
    OldKey("operator.pdet.drop_path", float, 0.0, "carried", "operator.drop_path", limits=SHARE, only="of pdet_stack"),
    OldKey(
        "operator.use_activation_checkpoint",
        bool,
        False,
        "elsewhere",
        remark="where memory is short: `accumulation` of a stage, run.precision, or fewer queries of a sampler",
    ),
    OldKey(
        "operator.pdet.use_activation_checkpoint",
        bool,
        False,
        "elsewhere",
        remark="as operator.use_activation_checkpoint",
    ),
    OldKey("diffusion.latent_dim", int, None, "derived", remark="is latent.width"),
    OldKey(
        "diffusion.hidden_dim",
        int,
        None,
        "changed",
        "stages.diffusion.width",
        "of a transformer over the tokens, which hears all of them; 2 × latent.dim where not written",
        ABOVE_0,
        only="with stages.diff_residual",
    ),
    OldKey("diffusion.num_layers", int, None, "idle", remark="stages.diffusion.depth is the key now"),
    OldKey("diffusion.dropout", float, None, "idle"),
    OldKey("diffusion.time_embed_dim", int, None, "idle", remark="stages.diffusion.rank is the code of τ"),
)
