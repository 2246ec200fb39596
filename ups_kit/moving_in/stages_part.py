"""The `[[stages]]` of an imported recipe."""

from __future__ import annotations

import math
from typing import Any

from attrs import frozen

from ..errors import Problem, RecipeError
from .data_part import Data
from .losses_part import LossPart
from .settings import Settings

CACHE = "training.latent_cache_dir"
CONSISTENCY = "stages.consistency_distill"


@frozen
class StagesPart:
    """Makes the stages, each from its table and from what `training` says of all of them."""

    settings: Settings
    data: Data
    losses: LossPart
    width: int

    def tables(self) -> list[dict[str, Any]]:
        """All stages in their order. Raises RecipeError where no operator would be trained."""
        asked = {name: self._asked_for(name) for name in ("operator", "diff_residual", "consistency_distill")}
        if not asked["operator"]:
            message = "0 epochs, and a run begins with fresh weights: expected at least 1"
            origin = self.settings.written.get("stages.operator.epochs")
            raise RecipeError(
                self.settings.source, [Problem("stages.operator.epochs", message, origin.origin if origin else "")]
            )
        prior = self._asked_for("steady_prior") and self._steady_only()
        is_cached = self.caches
        found = []
        if is_cached or prior:
            found.append(self._codec())
        found.append(self._operator(is_cached, prior))
        if asked["diff_residual"] and self._evolving_only("diff_residual"):
            found.append(self._diffusion(is_cached))
            if asked["consistency_distill"]:
                found.append(self._consistency(is_cached))
        elif asked["consistency_distill"]:
            self._leave_out("consistency_distill", "there is no diff_residual stage before it to distil")
        if prior:
            found.append({"use": "steady_prior", **self._training("steady_prior")})
        if self.settings.take("evaluation.enabled"):
            found.append(self._evaluation())
        return found

    @property
    def caches(self) -> bool:
        """Whether latents are cached; says why not, where they are asked for."""
        if self.settings.take(CACHE) is None:
            return False
        reason = "a mixture's latents are not cached" if len(self.data.tasks) > 1 else ""
        reason = reason or ("steady data have no series of latents" if self.data.steady else "")
        if reason:
            self.settings.drop(CACHE, reason)
        return not reason

    # -- which stages ------------------------------------------------------------------------------------------------
    def _asked_for(self, stage: str) -> bool:
        """Whether a stage is in the file with more than 0 epochs; the operator's is, where nothing is written."""
        path = f"stages.{stage}"
        if not self.settings.under(path) and stage != "operator":
            if stage != "steady_prior":
                self.settings.add(f"{path} is not written and is left out; the ancestor trained it for one epoch")
            return False
        epochs = self.settings.take(f"{path}.epochs")
        if not epochs:
            self._leave_out(stage, f"{path}.epochs is 0: the stage is left out")
            self.settings.dropped.pop(f"{path}.epochs", None)
            self.settings.remark(f"{path}.epochs", "0: the stage is left out")
        return bool(epochs)

    def _leave_out(self, stage: str, reason: str) -> None:
        for path in self.settings.written:
            if path.startswith(f"stages.{stage}."):
                self.settings.drop(path, reason)

    def _steady_only(self) -> bool:
        if self.data.steady:
            return True
        reason = "steady_prior learns answers of steady data; what it did on time series is lambda_rollout with "
        self._leave_out("steady_prior", f"{reason}rollout_horizon = 4")
        return False

    def _evolving_only(self, stage: str) -> bool:
        if not self.data.steady:
            return True
        for each in (stage, "consistency_distill"):
            self._leave_out(each, "learns what a time step leaves out, and these data are steady: steady_prior")
        return False

    # -- single stages -----------------------------------------------------------------------------------------------
    def _codec(self) -> dict[str, Any]:
        self.settings.add("a codec stage comes first, with the keys of stages.operator: later stages use its latents")
        return {"use": "codec", **self._training("operator"), "losses": self.losses.codec()}

    def _operator(self, is_cached: bool, prior: bool) -> dict[str, Any]:
        table: dict[str, Any] = {"use": "operator"}
        if is_cached:
            table |= {"freeze": ["encoder", "decoder"], "periodic_shifts": False}
        elif prior:
            table |= {"freeze": ["decoder"]}
        table |= self._training("operator")
        latent = "latent_forward is its loss between latents, over their variance"
        if is_cached:
            self.settings.add(latent)
        elif self.data.steady:
            self.settings.add("losses.forward compares decoded answers; the ancestor compared latents alone")
        else:
            self.settings.add(f"losses.forward compares decoded fields, which trains encoder and decoder; {latent}")
        return {**table, "losses": self.losses.frozen() if is_cached else self.losses.whole()}

    def _diffusion(self, is_cached: bool) -> dict[str, Any]:
        width = self.settings.take("diffusion.hidden_dim")
        wanted = 2 * self.width if width is None else width
        even = wanted + wanted % 2
        table: dict[str, Any] = {"use": "diffusion", "width": even, **({"heads": 1} if even % 4 else {})}
        if is_cached:
            table["periodic_shifts"] = False
        self.settings.add(
            "stages.diffusion learns residuals as a distribution, by flow matching; there the stage was a second "
            "regression, without noise"
        )
        return {**table, **self._training("diff_residual")}

    def _consistency(self, is_cached: bool) -> dict[str, Any]:
        self.settings.add(
            "stages.consistency distils the diffusion stage into one or two steps; there its best student was f = 0"
        )
        shifts = {"periodic_shifts": False} if is_cached else {}
        table = {"use": "consistency", **shifts, **self._training("consistency_distill")}
        batch = self.settings.take(f"{CONSISTENCY}.batch_size")
        table["batch"] = batch
        table.pop("accumulation", None)
        part = self.settings.take("training.distill_micro_batch")
        if part is not None:
            parts = next(count for count in range(math.ceil(batch / part), batch + 1) if batch % count == 0)
            if parts > 1:
                table["accumulation"] = parts
        return table

    def _evaluation(self) -> dict[str, Any]:
        split = self.settings.take("evaluation.split")
        return {"use": "evaluate", "split": "validation" if split == "val" else split}

    # -- what all of them have ---------------------------------------------------------------------------------------
    def _training(self, stage: str) -> dict[str, Any]:
        take = self.settings.take
        parts = take("training.accum_steps")
        batch = take("training.batch_size") * parts
        table: dict[str, Any] = {
            "budget": {"epochs": take(f"stages.{stage}.epochs")},
            "batch": batch,
            **({"accumulation": parts} if parts > 1 else {}),
            "optimizer": self._optimizer(stage),
        }
        schedule = self._schedule(stage, table["batch"])
        if schedule:
            table["schedule"] = schedule
        for new, old in (("clip", "grad_clip"), ("ema", "ema_decay"), ("patience", "patience")):
            value = self._of_stage_or_all(stage, old)
            if value is not None:
                table[new] = value
        interval = take("training.checkpoint_interval")
        return {**table, "checkpoint_epochs": float(interval)} if interval else table

    def _of_stage_or_all(self, stage: str, name: str) -> Any:
        """A stage's own value, or that of `training`."""
        own = self.settings.take(f"stages.{stage}.{name}")
        return self.settings.take(f"training.{name}") if own is None else own

    def _optimizer(self, stage: str) -> dict[str, Any]:
        path = f"stages.{stage}.optimizer"
        take = self.settings.take
        name, lr, decay = take(f"{path}.name"), take(f"{path}.lr"), take(f"{path}.weight_decay")
        if name == "sgd":
            return {"use": "sgd", "lr": lr, "momentum": take(f"{path}.momentum"), "weight_decay": decay}
        betas = take(f"{path}.betas")
        moments = {} if betas is None else {"betas": [float(beta) for beta in betas]}
        if name == "muon_hybrid":
            momentum = take(f"{path}.muon_momentum")
            rest = {"rest_lr": lr, "rest_weight_decay": decay, **moments}
            return {"use": "muon", "lr": lr, "weight_decay": decay, "momentum": momentum, **rest}
        eps = take(f"{path}.eps")
        return {"use": name, "lr": lr, "weight_decay": decay, **moments, **({} if eps is None else {"eps": eps})}

    # -- schedules ---------------------------------------------------------------------------------------------------
    def _schedule(self, stage: str, batch: int) -> dict[str, Any]:
        path = f"stages.{stage}.scheduler"
        take = self.settings.take
        name = take(f"{path}.name")
        if name is None:
            return {}
        lr = self.settings.look(f"stages.{stage}.optimizer.lr")
        if name == "cosineannealinglr":
            return {"use": "cosine", "final": _share(take(f"{path}.eta_min"), lr)}
        if name == "reducelronplateau":
            return {
                "use": "plateau",
                "factor": take(f"{path}.factor"),
                "patience": take(f"{path}.patience"),
                "threshold": take(f"{path}.threshold"),
                "minimum": _share(take(f"{path}.min_lr"), lr),
            }
        return self._steps(stage, batch)

    def _steps(self, stage: str, batch: int) -> dict[str, Any]:
        """A learning rate that falls by steps; where an epoch's steps are not known, a cosine to the same end."""
        path = f"stages.{stage}.scheduler"
        size, factor = self.settings.take(f"{path}.step_size"), self.settings.take(f"{path}.gamma")
        if factor == 1:
            return {}
        stride = self.settings.look("training.time_stride")
        windows = [task.windows(stride) for task in self.data.tasks.values()]
        if None not in windows:
            steps = max(round(size * sum(each or 0 for each in windows) / batch), 1)
            self.settings.remark(f"{path}.step_size", f"{steps} steps: {size} epochs of the simulated data")
            return {"use": "step", "steps": steps, "factor": factor}
        final = factor ** (self.settings.look(f"stages.{stage}.epochs") // size)
        self.settings.remark(f"{path}.step_size", "a cosine to the same end: steps of an epoch are not known yet")
        return {"use": "cosine", "final": final}


def _share(value: float, lr: float) -> float:
    """A learning rate as a share of the first one."""
    return float(f"{min(value / lr, 1.0):.6g}")
