"""Every key of the ancestor is accounted for in one group; those that are carried over reach the recipe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ups_kit.moving_in.dialect import STAGES, TITLES, find
from ups_kit.moving_in.old_keys import TABLE
from ups_kit.moving_in.settings import MOVED, Settings
from ups_kit.moving_in.writing import page_rows
from ups_kit.moving_in.yaml_files import Value

from .conftest import translated

ROOT = Path(__file__).parents[2]

# What the file of all keys leaves to other configurations, as a few changes of it each.
BASES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no cache": {"training.latent_cache_dir": None},
    "a stack": {"operator.architecture_type": "pdet_stack", "training.latent_cache_dir": None},
    "a stack of depths": {"operator.architecture_type": "pdet_stack", "operator.pdet.depth": None},
    "stages without keys of their own": {
        f"stages.{stage}.{name}": None for stage in STAGES for name in ("patience", "grad_clip", "ema_decay")
    },
    "a mesh": {"data.task": None, "data.kind": "mesh", "training.latent_cache_dir": None},
    "a task without a simulator": {"data.task": "cfd2d_rand"},
    "steady": {
        "data.task": "darcy2d",
        "stages.steady_prior.epochs": 3,
        "training.latent_cache_dir": None,
    },
}
OTHER = {
    "data.task": "advection1d",
    "data.kind": "particles",
    "training.amp_dtype": "float16",
    "training.latent_cache_dtype": "float32",
    "training.query_sampling.strategy": "uniform",
    "training.physics_priors.bc_type": "right",
    "evaluation.split": "test",
    "operator.pdet.depths": [1, 1, 1],
    "operator.pdet.num_heads": 2,
    "operator.pdet.group_size": 64,
    "latent.dim": 256,
    "latent.tokens": 16,
    "training.accum_steps": 2,
    "training.distill_micro_batch": 4,
    "data.patch_size": 2,
}


def other(path: str, value: Any) -> Any:
    """Another value of a key, which is as right."""
    key = find(TABLE, path)
    assert key is not None
    if path in OTHER:
        return OTHER[path]
    if path.endswith("optimizer.name"):
        return "adam" if value.lower() != "adam" else "adamw"
    if path.endswith("scheduler.name"):
        return "steplr" if value.lower() != "steplr" else "cosineannealinglr"
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.9
    if isinstance(value, str):
        choices = key.limits.choices
        return f"{value}_2" if choices is None else next(each for each in choices if each != value)
    return [0.8, 0.9] if path.endswith("betas") else [*value, *value[-1:]]


def written(every: dict[str, Any], base: str) -> dict[str, Any]:
    return {path: value for path, value in {**every, **BASES[base]}.items() if value is not None}


def listed() -> set[str]:
    """The keys of the table, stages by name."""
    return {path.replace("stages.*", f"stages.{stage}") for path in TABLE for stage in STAGES}


def test_the_file_holds_every_key_of_the_table(every: dict[str, Any]) -> None:
    general = {re.sub(r"^stages\.(\w+)\.", "stages.*.", path) for path in every} | set(every)
    schedulers = {path for path in listed() if ".scheduler." in path and path not in every}
    missing = {
        path
        for path in TABLE
        if path not in general and not (path.endswith(".*") and any(name.startswith(path[:-1]) for name in every))
    }
    assert missing == set()
    assert all(find(TABLE, path) is not None for path in every)
    assert len(every) > 200
    assert schedulers  # a stage has the keys of one schedule


@pytest.mark.parametrize("base", BASES)
def test_each_key_is_in_one_group(every: dict[str, Any], base: str) -> None:
    values = written(every, base)
    _, settings = translated(values)
    fates = settings.fates()
    assert [fate.path for fate in fates] == list(values)
    assert {fate.group for fate in fates} <= set(TITLES) - {"unknown"}
    for fate in fates:
        key = find(TABLE, fate.path)
        assert key is not None
        assert fate.group == key.group or (key.group in MOVED and fate.group == "elsewhere" and fate.remark)
        assert (fate.becomes != "") == (fate.group in MOVED)


def test_what_is_carried_over_changes_the_recipe_and_nothing_else_does(every: dict[str, Any]) -> None:
    """Each key is given another value: where it is said to be carried over, the recipe is another, else the same."""
    reached, wrong = set(), []
    for base in BASES:
        values = written(every, base)
        recipe, settings = translated(values)
        groups = {fate.path: fate.group for fate in settings.fates()}
        for path, value in values.items():
            if path == "stages.steady_prior.epochs" and not value:
                continue  # it is left out with any number, since these data evolve
            if path.startswith("ttc.") and base != "as it is":
                continue
            changed = {**settings.written, path: Value(other(path, value), "")}
            moved = translated(Settings("some.yaml", changed))[0] != recipe
            if moved:
                reached.add(path)
            if moved != (groups[path] in MOVED):
                wrong.append((base, path, groups[path]))
    assert not wrong, "\n".join(map(str, wrong))
    carried = {path for path in every if (key := find(TABLE, path)) is not None and key.group in MOVED}
    general = {re.sub(r"^stages\.\w+\.", "stages.*.", path) for path in reached}
    unreached = {path for path in carried if re.sub(r"^stages\.\w+\.", "stages.*.", path) not in general}
    assert unreached == set()


@pytest.mark.parametrize(
    ("name", "use"), [("adam", "adam"), ("AdamW", "adamw"), ("sgd", "sgd"), ("muon_hybrid", "muon")]
)
def test_optimisers(every: dict[str, Any], name: str, use: str) -> None:
    recipe, _ = translated({**every, "stages.operator.optimizer.name": name})
    table = next(stage for stage in recipe["stages"] if stage["use"] == "operator")["optimizer"]
    assert (table["use"], table["lr"], table["weight_decay"]) == (use, 1.4e-3, 0.03)
    assert table.get("momentum") == {"sgd": 0.8, "muon": 0.94}.get(use)
    assert table.get("rest_lr") == (1.4e-3 if use == "muon" else None)
    assert table.get("eps") == (1e-7 if use in ("adam", "adamw") else None)


def test_values_are_where_they_should_be(every: dict[str, Any]) -> None:
    recipe, _ = translated(written(every, "no cache"))
    run, (operator, diffusion, consistency, evaluation) = recipe["run"], recipe["stages"]
    assert run == {
        "name": "burgers_128tok",
        "seed": 42,
        "folder": "checkpoints/burgers",
        "precision": "bf16",
        "compile": True,
        "workers": 3,
    }
    assert recipe["dataset"]["path"] == "../data/pdebench/burgers1d.h5"
    assert (recipe["dataset"]["time_stride"], recipe["dataset"]["simulate"]["use"]) == (2, "burgers1d")
    assert (recipe["latent"], recipe["encoder"]["patch_size"]) == ({"width": 128}, 4)  # 64 tokens of 256 points
    assert recipe["operator"] == {
        "use": "pde_transformer",
        "depths": [3, 2, 1],
        "heads": 4,
        "channel_groups": 4,
        "mlp_ratio": 3.0,
    }
    assert (operator["budget"], operator["batch"], operator["accumulation"]) == ({"epochs": 40}, 48, 4)
    assert (operator["clip"], operator["ema"], operator["patience"]) == (0.5, 0.99, 5)
    assert operator["schedule"] == {"use": "step", "steps": round(2 * 1000 * 20 / 48), "factor": 0.4}
    sampler = {"use": "stratified", "queries": 128}
    curriculum = {"warmup": 5.0, "cap": 0.04, "every": 2}
    losses = operator["losses"]
    assert losses["forward"] == {"sampler": sampler}
    assert losses["inverse_encoding"] == {"weight": 0.02, **curriculum, "sampler": sampler}
    assert losses["inverse_decoding"] == {"weight": 0.01, **curriculum}
    assert losses["latent_rollout"] == {"weight": 0.3, "horizon": 4}
    assert (losses["spectral"], losses["conservation"]) == ({"weight": 0.05}, {"weight": 0.12})
    assert losses["boundary"] == {"weight": 0.13, "sides": ["x0"], "values": {"u": 0.5}}
    assert losses["positivity"] == {"weight": 0.14, "fields": ["rho"]}
    assert (losses["latent_norm"], losses["latent_diversity"]) == ({"weight": 1e-4}, {"weight": 2e-4})
    assert (diffusion["budget"], diffusion["width"], diffusion["checkpoint_epochs"]) == ({"epochs": 15}, 96, 25.0)
    assert diffusion["schedule"] == {
        "use": "plateau",
        "factor": 0.3,
        "patience": 4,
        "threshold": 0.002,
        "minimum": 0.1,
    }
    assert (consistency["batch"], consistency["accumulation"], consistency["budget"]) == (8, 4, {"epochs": 10})
    assert consistency["schedule"] == {"use": "cosine", "final": 0.01}
    assert evaluation == {"use": "evaluate", "split": "validation"}
    assert recipe["trackers"] == [
        {
            "use": "wandb",
            "project": "universal-simulator",
            "entity": "somebody",
            "tags": ["upt", "128tokens"],
            "group": "upt",
            "notes": "all keys at once",
            "name": "burgers 128tok",
        }
    ]


def test_a_cache_has_a_codec_before_it(every: dict[str, Any]) -> None:
    recipe, _ = translated(every)
    codec, operator, *_ = recipe["stages"]
    assert recipe["latent_cache"] == {"folder": "../data/latent_cache", "dtype": "float16"}
    assert (codec["use"], operator["freeze"]) == ("codec", ["encoder", "decoder"])
    assert set(codec["losses"]) == {"inverse_encoding", "inverse_decoding"}
    assert "inverse_encoding" not in operator["losses"]


def test_stages_of_no_epochs_are_left_out(every: dict[str, Any]) -> None:
    recipe, settings = translated({**every, "stages.diff_residual.epochs": 0})
    assert [stage["use"] for stage in recipe["stages"]] == ["codec", "operator", "evaluate"]
    fates = {fate.path: fate for fate in settings.fates()}
    assert fates["stages.diff_residual.epochs"].group == "carried"
    assert "no diff_residual stage before it" in fates["stages.consistency_distill.optimizer.lr"].remark


def test_the_page_has_the_table_of_keys() -> None:
    page = (ROOT / "docs/moving_in.md").read_text()
    assert "\n".join(page_rows()) in page
