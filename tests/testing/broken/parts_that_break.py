"""What the components of `broken_parts` build."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from ups_kit import Batch, FieldSpec, Latent, LatentSpec, Needs, PointSet, Progress, Queries
from ups_kit.testing.tiny import TinyDatasetConfig
from ups_kit.testing.tiny_parts import TinyDecoder, TinyEncoder, TinyOperator, TinyStage

BUILT = itertools.count()


# -- encoders ---------------------------------------------------------------------------------------------------------
class Padded(TinyEncoder):
    def forward(self, points: PointSet) -> Latent:
        return super().forward(points._replace(mask=None))


class Ordered(TinyEncoder):
    def forward(self, points: PointSet) -> Latent:
        latent = super().forward(points)
        return latent._replace(tokens=latent.tokens + points.values[:, :1, :1])


class Narrow(TinyEncoder):
    def forward(self, points: PointSet) -> Latent:
        latent = super().forward(points)
        return latent._replace(tokens=latent.tokens[..., ::2])


class Mixing(TinyEncoder):
    def forward(self, points: PointSet) -> Latent:
        latent = super().forward(points)
        return latent._replace(tokens=latent.tokens - latent.tokens.mean(0))


class Rooted(TinyEncoder):
    def forward(self, points: PointSet) -> Latent:
        latent = super().forward(points)
        return latent._replace(tokens=latent.tokens + (latent.tokens - latent.tokens).sqrt())


# -- operators --------------------------------------------------------------------------------------------------------
class Idle(TinyOperator):
    def __init__(self, fields: FieldSpec, latent: LatentSpec) -> None:
        super().__init__(fields, latent)
        self.spare = nn.Linear(3, 3)


class NumpyState(TinyOperator):
    def get_extra_state(self) -> Any:
        return {"scale": np.float64(1.5)}

    def set_extra_state(self, state: Any) -> None:
        pass


class Random(TinyOperator):
    def forward(self, latent: Latent, condition: Tensor) -> Latent:
        after = super().forward(latent, condition)
        return after._replace(tokens=after.tokens + 0.1 * torch.randn_like(after.tokens))


class Unseeded(TinyOperator):
    def __init__(self, fields: FieldSpec, latent: LatentSpec) -> None:
        super().__init__(fields, latent)
        with torch.no_grad():
            self.linear.bias.add_(1e-3 * next(BUILT))


# -- decoders ---------------------------------------------------------------------------------------------------------
class MixesQueries(TinyDecoder):
    def forward(self, latent: Latent, queries: Queries) -> Tensor:
        values = super().forward(latent, queries)
        return values - values.mean(1, keepdim=True)


class Numbered(TinyDecoder):
    def forward(self, latent: Latent, queries: Queries) -> Tensor:
        values = super().forward(latent, queries)
        return values * (1 + torch.arange(values.shape[1])[None, :, None])


# -- losses -----------------------------------------------------------------------------------------------------------
class Overclaims:
    reaches: tuple[str, ...] = ("encoder", "operator", "decoder")
    sampler = None
    horizon = 1

    def needs(self, progress: Progress) -> Needs | None:
        return Needs(decodes=(0,))

    def __call__(self, forward: Any) -> Tensor:
        found = forward.decoded(0)
        error = (found.values - found.truth).square().mean(-1)
        mask = torch.ones_like(error) if found.mask is None else found.mask
        loss: Tensor = ((error * mask).sum(1) / mask.sum(1)).mean()
        return loss


class Greedy(Overclaims):
    reaches = ("encoder", "decoder")

    def __call__(self, forward: Any) -> Tensor:
        return super().__call__(forward) + 0 * forward.decoded(1).values.mean()


class Unmasked(Overclaims):
    reaches = ("encoder", "decoder")

    def __call__(self, forward: Any) -> Tensor:
        found = forward.decoded(0)
        loss: Tensor = (found.values - found.truth).square().mean()
        return loss


class Short(Overclaims):
    horizon = 0

    def needs(self, progress: Progress) -> Needs | None:
        return Needs(steps=1, decodes=(1,)) if progress.fraction == 0.5 else Needs(steps=1, decodes=(0,))


# -- samplers ---------------------------------------------------------------------------------------------------------
class DrawsPadding:
    def __call__(
        self, positions: Tensor, grid: object, progress: Progress, generator: torch.Generator, mask: Any = None
    ) -> Tensor:
        drawn = [torch.randperm(positions.shape[1], generator=generator)[:20] for _ in positions]
        return torch.stack(drawn)


class DrawsTwice:
    def __call__(
        self, positions: Tensor, grid: object, progress: Progress, generator: torch.Generator, mask: Any = None
    ) -> Tensor:
        return torch.zeros(len(positions), 2, dtype=torch.int64)


class DrawsAnew:
    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)

    def __call__(
        self, positions: Tensor, grid: object, progress: Progress, generator: torch.Generator, mask: Any = None
    ) -> Tensor:
        return torch.stack([torch.randperm(20, generator=self._generator)[:3] for _ in positions])


# -- metrics, trackers, optimisers, schedules -------------------------------------------------------------------------
class Nan:
    def __call__(self, prediction: Tensor, truth: Tensor, fields: FieldSpec) -> Tensor:
        return (prediction - truth).square().mean((2, 3)) / truth.square().mean((2, 3))


class Offset:
    def __call__(self, prediction: Tensor, truth: Tensor, fields: FieldSpec) -> Tensor:
        return 1 + (prediction - truth).square().mean((2, 3))


class Littering:
    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        Path("litter.txt").write_text("here")

    def figure(self, stage: str, step: int, name: str, figure: Any) -> None:
        pass

    def close(self) -> None:
        pass


class Forgetful(torch.optim.SGD):
    def __init__(self, model: nn.Module, lr: float) -> None:
        super().__init__([weight for weight in model.parameters() if weight.requires_grad], lr=lr, momentum=0.9)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "state": {}}


class Negative:
    def factor(self, progress: Progress) -> float:
        return 0.5 - progress.fraction

    def observe(self, validation: float) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


# -- a stage, a simulator, data ---------------------------------------------------------------------------------------
class CarelessStage(TinyStage):
    def run(self, experiment: Any, folder: Any, trackers: Any) -> Mapping[str, Any]:
        draws = np.random.default_rng(0)

        def disturbed(module: nn.Module, given: Any, result: Latent) -> Latent:
            return result._replace(tokens=result.tokens * float(draws.uniform(0.5, 1.5)))

        hook = experiment.model.encoder.register_forward_hook(disturbed)
        try:
            return super().run(experiment, folder, trackers)
        finally:
            hook.remove()


class Uneven:
    part = 100
    bytes = 1000

    def __init__(self, trajectories: int) -> None:
        self.trajectories = trajectories

    def solve(self, start: int, stop: int, report: Any) -> Mapping[str, Any]:
        report(1.0)
        return {"tensor": np.random.default_rng(start).standard_normal((stop - start, 3, 8)).astype(np.float32)}

    def write(self, path: Path, parts: Any) -> None:
        import h5py

        with h5py.File(path, "w") as file:
            file["tensor"] = np.concatenate([part["tensor"] for part in parts])


def twice_normalised(seed: int) -> Any:
    dataset = TinyDatasetConfig().build(seed)
    return Twice(**{each.name: getattr(dataset, each.name) for each in attrs.fields(type(dataset))})


@attrs.frozen(eq=False)
class Twice(type(TinyDatasetConfig().build(0))):  # type: ignore[misc]
    def batch(self, split: str, windows: np.ndarray, steps: int) -> Batch:
        batch = super().batch(split, windows, steps)
        return batch._replace(states=self.normaliser.targets(batch.states))
