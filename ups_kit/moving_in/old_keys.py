"""All keys of the ancestor's configurations, by their paths."""

from __future__ import annotations

from . import model_keys, stage_keys, training_keys, ttc_keys
from .dialect import OldKey

TABLE: dict[str, OldKey] = {
    key.path: key for key in (*model_keys.KEYS, *training_keys.KEYS, *stage_keys.KEYS, *ttc_keys.KEYS)
}
