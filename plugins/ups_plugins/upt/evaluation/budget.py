"""Where the error of the latent rollout comes from."""

from __future__ import annotations

from torch import Tensor

from ups_kit import metrics

from .rollouts import Forecasts, Runner
from .scores import Summary, finite, finite_list
from .truth import Truth

START_TRAJECTORIES = 32  # the start's share is a diagnosis, not a score: a few trajectories tell it


def error_budget(forecasts: Forecasts, runner: Runner, truth: Truth) -> dict[str, Summary]:
    """The error of the latent rollout at frame k, split into parts that are measured in one unit.

    With E, A, D the encoder, operator and decoder, z_k = E(u_k) the true frame's latent, and k steps from the last
    given frame 0, the error is a sum of three fields, exactly:

        D(A^k z_0) − u_k  =  [D(A^k z_0) − D(A z_{k−1})]  +  [D(A z_{k−1}) − D(z_k)]  +  [D(z_k) − u_k]
              total                   drift                          step                     decode

    `decode`: what encoding and decoding the true frame loses. `step`: what one latent step adds to it. `drift`: what
    has built up since the start, in latent space. A fourth number says how much of the drift is the start's doing:

        `encode`  =  D(A^k z_0) − D(A^k E(D(z_0))),

    the change of the rollout when its start is decoded and encoded once more, on the first 32 trajectories. And
    `reencoding`, D(A^k z_0) less the re-encoding rollout, is what staying in latent space changes.

    Every number is the RMS of that field over points, over the RMS of the truth u_k: an nRMSE. The RMS of a sum is at
    most the sum of the RMS, so total ≤ drift + step + decode, and at k = 1 the drift is zero.
    """
    pairs = {
        "drift": (forecasts.latent, forecasts.one_step),
        "step": (forecasts.one_step, forecasts.codec),
        "decode": (forecasts.codec, truth.values),
        "reencoding": (forecasts.latent, forecasts.reencoded),
    }
    terms = {name: _difference(one, other, truth) for name, (one, other) in pairs.items()}
    total = metrics.nrmse(forecasts.latent, truth.values, truth.scored)
    again = runner.latent_rollout(trips=1, limit=START_TRAJECTORIES)
    terms["encode"] = _difference(forecasts.latent[: len(again)], again, truth)
    order = {"encode": terms["encode"], "drift": terms["drift"], "step": terms["step"], "decode": terms["decode"]}
    parts = order | {"total": total, "reencoding": terms["reencoding"]}
    return {name: _summary(values) for name, values in parts.items()}


def _difference(one: Tensor, other: Tensor, truth: Truth) -> Tensor:
    """RMS of the difference of two forecasts over the RMS of the truth, (S, steps)."""
    reference = truth.values[: len(one)].double()
    return metrics.nrmse(reference + (one.double() - other.double()), reference, truth.scored)


def _summary(values: Tensor) -> Summary:
    curve = values.mean(0)
    return {
        "mean": finite(values.mean().item()),
        "first": finite(curve[0].item()),
        "last": finite(curve[-1].item()),
        "curve": finite_list(curve.tolist()),
    }
