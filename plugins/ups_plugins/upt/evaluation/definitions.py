"""What the numbers of a score card are, in sentences."""

from __future__ import annotations

from collections.abc import Mapping

from ups_kit.interfaces import Field

from .truth import Truth


def definition(truth: Truth, split: str, tokens: int, remarks: Mapping[str, str]) -> dict[str, str]:
    """What the numbers are: space, frames, denominators, order of averages (reliability of a score begins here)."""
    fields = truth.fields
    units = ", ".join(field_label(target) for target in fields.targets)
    samples = "samples" if fields.steady else "trajectories"
    return {
        "data": f"{truth.samples} {samples} of the split '{split}', {truth.values.shape[2]} points, fields {units}",
        "space": "physical units: the normalisation is undone first",
        **(_steady(truth) if fields.steady else _series(truth)),
        **remarks,
        "interpolation": f"the true {'answer' if fields.steady else 'frame'} by cubic splines through as many of its "
        f"points as there are tokens, {tokens}",
    }


def _steady(truth: Truth) -> dict[str, str]:
    names = ", ".join(field.name for field in truth.fields.statics)
    parameters = ", ".join(name for name in truth.fields.conditions if name != "dt")
    given = " and ".join(part for part in (names, parameters) if part) or "nothing"
    return {
        "answer": f"in one model step from {given}; steady data have no frames and no rollout",
        "nrmse": "per sample and channel: RMSE over points / RMS of the truth; then the mean. Relative to each "
        "sample's own size, so that samples count alike where parameters and answers span decades",
        "vrmse": "per sample and channel: sqrt(MSE / (variance of the truth in space + 1e-7)); then the mean",
        "average": "over channels, then over samples; RMSE and max error are in the field's unit and ruled by the "
        "samples with large answers",
        "spatial mean": "the true answer's own mean over points: what one right number would score",
    }


def _series(truth: Truth) -> dict[str, str]:
    first, last = truth.scored.start, truth.scored.stop - 1
    times = f"t = {truth.times[first]:.4g} to {truth.times[last]:.4g}"
    given = "frame 0" if truth.given == 1 else f"frames 0 to {truth.given - 1}"
    return {
        "frames": f"{given} given and never scored; frames {first} to {last} scored ({times})",
        "nrmse": "per sample, frame and channel: RMSE over points / RMS of the truth; then the mean",
        "vrmse": "per sample, frame and channel: sqrt(MSE / (variance of the truth in space + 1e-7)); then the mean",
        "average": "over channels, then over samples and scored frames, all alike",
        "one step": "each scored frame from the true frames before it",
        "rollout": f"each scored frame from {given} alone; 'step k' is the k-th frame after it, 'rollout' their mean",
        "corr. time": "time after the given frames at which the Pearson correlation first falls under 0.8, the last "
        "time if never; mean over samples",
    }


OTHER_METRICS = {
    "rmse": "RMSE over points, in the field's unit",
    "max_error": "largest absolute error over points, in the field's unit",
    "crmse": "error of the field's integral per unit volume, in the field's unit",
    "brmse": "RMSE over boundary points: both sides of the seam of a periodic axis, first and last points of others",
    "frmse_low, _mid, _high": "Fourier error in the wave numbers 0-4, 5-12 and from 13 on: root of the summed squared "
    "amplitudes over the number of wave numbers",
    "nrmse/<field>, vrmse/<field>": "of one field alone, where there are several",
    "nrmse_median, vrmse_median": "over samples and scored frames; the mean VRMSE is ruled by truths gone flat",
    "relative_l2": "error norm over truth norm, both over all scored frames and points of a sample",
    "geometric_mean_nrmse": "geometric mean over the scored frames, at most 100, of the samples' mean nRMSE",
}


def field_label(field: Field) -> str:
    """A field and its unit; nothing where it has none."""
    return field.name if field.unit in ("", "1") else f"{field.name} [{field.unit}]"
