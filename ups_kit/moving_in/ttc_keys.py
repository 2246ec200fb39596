"""The ancestor's keys of its search at test time, none of which a recipe has."""

from __future__ import annotations

from typing import Any

from .dialect import OldKey

INSTEAD = (
    "no candidates are searched: members are drawn (stages.diffusion; `upskit predict --forecast`), `evaluate` scores "
    "them, and [[constraints]] keep what is conserved"
)
DECODER = "the decoder is trained with the model, and is what predicts"
WRONG_LEVEL = "train.py looked for it at another level; only evaluate.py drew with it"
RANDOM_REWARD = "the reward was of a decoder with random weights: [[constraints]] keep totals exactly"
Numbers = tuple[float, ...]

_PLAIN: tuple[tuple[str, Any, Any], ...] = (
    ("enabled", bool, False),
    ("steps", int, 1),
    ("dt", float, None),
    ("candidates", int, 4),
    ("beam_width", int, 1),
    ("horizon", int, 1),
    ("gamma", float, 1.0),
    ("max_evaluations", int, None),
    ("early_stop_margin", float, None),
    ("debug", bool, False),
)
_REWARD: tuple[tuple[str, Any, Any], ...] = (
    ("analytical_weight", float, 1.0),
    ("grid", tuple[int, ...], (64, 64)),
    ("mass_field", str | tuple[str, ...], None),
    ("energy_field", str | tuple[str, ...], None),
    ("momentum_field", str | tuple[str, ...], None),
    ("weights.mass", float, 1.0),
    ("weights.momentum", float, 0.0),
    ("weights.energy", float, 0.0),
    ("weights.penalty_negative", float, 0.0),
    ("weights.smoothness", float, 0.0),
    ("critic.weight", float, 0.0),
    ("critic.hidden_dim", int, 128),
    ("critic.dropout", float, 0.0),
    ("critic.checkpoint", str, None),
)
_DECODER: tuple[tuple[str, Any, Any], ...] = (
    ("latent_dim", int, None),
    ("query_dim", int, 2),
    ("hidden_dim", int, 128),
    ("num_layers", int, 2),
    ("num_heads", int, 4),
    ("mlp_hidden_dim", int, 128),
    ("frequencies", Numbers, (1.0, 2.0, 4.0)),
    ("output_channels.*", int, None),
)

KEYS = (
    *(OldKey(f"ttc.{name}", kind, default, "elsewhere", remark=INSTEAD) for name, kind, default in _PLAIN),
    OldKey("ttc.residual_threshold", float, None, "idle"),
    OldKey("ttc.sampler.tau_range", Numbers, (0.3, 0.7), "idle", remark=WRONG_LEVEL),
    OldKey("ttc.sampler.noise_std", float, 0.0, "idle", remark=WRONG_LEVEL),
    OldKey("ttc.sampler.noise_schedule", Numbers, None, "idle", remark=WRONG_LEVEL),
    *(
        OldKey(f"ttc.reward.{name}", kind, default, "elsewhere", remark=RANDOM_REWARD)
        for name, kind, default in _REWARD
    ),
    *(OldKey(f"ttc.decoder.{name}", kind, default, "elsewhere", remark=DECODER) for name, kind, default in _DECODER),
)
