"""Sequences of discrete tokens of several modalities: a family of models of its own for ups_kit."""

from __future__ import annotations

from ups_kit import Components, hookimpl

from .config import GalaxiesConfig, TypedTokensConfig
from .evaluation.config import TokenEvaluationConfig
from .model.config import TokenTransformerConfig
from .training.config import ExpectedValueConfig, NextTokenConfig, TokenTrainingConfig


@hookimpl
def ups_kit_components() -> Components:
    """What the distribution offers."""
    return {
        "dataset": {"typed_tokens": TypedTokensConfig},
        "simulator": {"galaxies": GalaxiesConfig},
        "model": {"token_transformer": TokenTransformerConfig},
        "loss": {"next_token": NextTokenConfig, "expected_value": ExpectedValueConfig},
        "stage": {"token_training": TokenTrainingConfig, "token_evaluation": TokenEvaluationConfig},
    }
