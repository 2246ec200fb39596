"""The losses of an imported recipe's stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

from .data_part import Data
from .settings import Settings

PRIORS = "training.physics_priors"
SIDES = {"left": ["x0"], "right": ["x1"], "top": ["y1"], "bottom": ["y0"]}

# The weight that switches each loss on; those of a list are left out together.
WEIGHTS = {
    "inverse_encoding": "training.lambda_inv_enc",
    "inverse_decoding": "training.lambda_inv_dec",
    "latent_rollout": "training.lambda_rollout",
    "spectral": "training.lambda_spectral",
    "divergence": f"{PRIORS}.lambda_divergence",
    "conservation": f"{PRIORS}.lambda_conservation",
    "boundary": f"{PRIORS}.lambda_boundary",
    "positivity": f"{PRIORS}.lambda_positivity",
    "latent_norm": f"{PRIORS}.lambda_latent_norm",
    "latent_diversity": f"{PRIORS}.lambda_latent_diversity",
}
INVERSE = ("inverse_encoding", "inverse_decoding")
Losses = dict[str, dict[str, Any]]


@frozen
class LossPart:
    """Makes tables of losses; `without` holds losses that the data refuse, and why."""

    settings: Settings
    data: Data
    without: Mapping[str, str]

    def whole(self) -> Losses:
        """Of an operator stage that trains all parts."""
        losses: Losses = {"forward": self._sampled({})}
        if not self.data.steady:
            losses["latent_forward"] = {}
        return {**losses, **self._inverse(), **self._rollout(), **self._spectral(), **self._priors(step=0)}

    def frozen(self) -> Losses:
        """Of an operator stage on the latents of a codec that stays as it is."""
        return {"latent_forward": {}, **self._rollout(), **self._spectral(), **self._priors(step=1)}

    def codec(self) -> Losses:
        """Of a codec stage: it reconstructs from the first step on, with weight 1."""
        inverse = self._inverse()
        self.settings.drop(WEIGHTS["inverse_encoding"], "the codec stage trains on it with weight 1")
        return {"inverse_encoding": self._sampled({}), **{k: v for k, v in inverse.items() if k == "inverse_decoding"}}

    def _weight(self, loss: str) -> float:
        """The weight of a loss; 0 where it is not asked for, or the data refuse it."""
        path = WEIGHTS[loss]
        weight: float = self.settings.take(path)
        if weight and loss in self.without:
            self.settings.drop(path, self.without[loss])
            return 0.0
        if not weight:
            self.settings.remark(path, "0: left out")
        return weight

    def _inverse(self) -> Losses:
        settings = self.settings
        reason = "training.use_inverse_losses is false"
        if self.data.steady:
            reason = "steady data have no frame to encode and decode"
            settings.drop("training.use_inverse_losses", reason)
        if self.data.steady or not settings.take("training.use_inverse_losses"):
            self._plays_no_part([WEIGHTS[loss] for loss in INVERSE], reason)
            return {}
        found: Losses = {}
        for loss in INVERSE:
            weight = self._weight(loss)
            if weight:
                found[loss] = {"weight": weight, **self._curriculum()}
        if "inverse_encoding" in found:
            found["inverse_encoding"] = self._sampled(found["inverse_encoding"])
        return found

    def _curriculum(self) -> dict[str, Any]:
        take = self.settings.take
        warmup, every = take("training.inverse_loss_warmup_epochs"), take("training.inverse_loss_frequency")
        table = {"warmup": float(warmup)} if warmup else {}
        return {
            **table,
            "cap": float(take("training.inverse_loss_max_weight")),
            **({"every": every} if every > 1 else {}),
        }

    def _sampled(self, table: dict[str, Any]) -> dict[str, Any]:
        """A loss on decoded fields, at the points that query sampling draws."""
        settings = self.settings
        if not settings.take("training.query_sampling.enabled"):
            return table
        queries = settings.take("training.query_sampling.num_queries")
        use = settings.take("training.query_sampling.strategy")
        if queries is None:
            settings.drop("training.query_sampling.enabled", "num_queries is missing: all points")
            return table
        return {**table, "sampler": {"use": use, "queries": queries}}

    def _rollout(self) -> Losses:
        weight = 0.0 if self.data.steady else self._weight("latent_rollout")
        if not weight:
            self._plays_no_part(["training.rollout_horizon"], "it is the length of lambda_rollout's loss")
            return {}
        return {"latent_rollout": {"weight": weight, "horizon": self.settings.take("training.rollout_horizon")}}

    def _spectral(self) -> Losses:
        weight = self._weight("spectral")
        return {"spectral": {"weight": weight}} if weight else {}

    def _priors(self, step: int) -> Losses:
        """Losses that know of physics, and of latents; the latter are those of a step that has a gradient."""
        settings = self.settings
        if not settings.take(f"{PRIORS}.enabled"):
            names = [WEIGHTS[loss] for loss in WEIGHTS if WEIGHTS[loss].startswith(PRIORS)]
            self._plays_no_part(names, f"{PRIORS}.enabled is false")
            return {}
        found: Losses = {}
        for loss in ("divergence", "conservation", "boundary", "positivity", "latent_norm", "latent_diversity"):
            weight = self._weight(loss)
            if weight:
                found[loss] = {"weight": weight, **self._keys(loss, step)}
        return found

    def _keys(self, loss: str, step: int) -> dict[str, Any]:
        settings = self.settings
        if loss == "divergence":
            return {"field": self.data.first.vector or settings.take("data.field_name")}
        if loss == "positivity":
            return {"fields": ["rho"]}
        if loss.startswith("latent_"):
            return {"step": step} if step else {}
        if loss != "boundary":
            return {}
        value, side = settings.take(f"{PRIORS}.bc_value"), settings.take(f"{PRIORS}.bc_type")
        values = {} if not value else {"values": {settings.take("data.field_name"): value}}
        return {**({} if side == "all" else {"sides": SIDES[side]}), **values}

    def _plays_no_part(self, paths: Iterable[str], reason: str) -> None:
        for path in paths:
            if self.settings.look(path):
                self.settings.drop(path, reason)
