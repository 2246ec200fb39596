"""Universal Physics Transformers (Alkin et al., arXiv:2402.12365): the losses and stages that train and measure."""

from __future__ import annotations

from ups_kit import Components, hookimpl

from .config import (
    ForwardConfig,
    InverseDecodingConfig,
    InverseEncodingConfig,
    LatentForwardConfig,
    LatentRolloutConfig,
    MeanPreservationConfig,
    RelativeConfig,
    RolloutConfig,
    SpectralConfig,
    TotalVariationConfig,
)
from .evaluation.config import (
    BrmseConfig,
    CrmseConfig,
    EvaluateConfig,
    FrmseConfig,
    MaxErrorConfig,
    NrmseConfig,
    RmseConfig,
    VrmseConfig,
)
from .training.config import CodecStageConfig, OperatorStageConfig


@hookimpl
def ups_kit_components() -> Components:
    """The losses of docs/method.md §2 and the stages of its §4."""
    return {
        "loss": {
            "forward": ForwardConfig,
            "latent_forward": LatentForwardConfig,
            "latent_rollout": LatentRolloutConfig,
            "rollout": RolloutConfig,
            "relative": RelativeConfig,
            "spectral": SpectralConfig,
            "mean_preservation": MeanPreservationConfig,
            "total_variation": TotalVariationConfig,
            "inverse_encoding": InverseEncodingConfig,
            "inverse_decoding": InverseDecodingConfig,
        },
        "stage": {"codec": CodecStageConfig, "operator": OperatorStageConfig, "evaluate": EvaluateConfig},
        "metric": {
            "rmse": RmseConfig,
            "nrmse": NrmseConfig,
            "vrmse": VrmseConfig,
            "max_error": MaxErrorConfig,
            "crmse": CrmseConfig,
            "brmse": BrmseConfig,
            "frmse": FrmseConfig,
        },
    }
