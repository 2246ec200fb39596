"""From a recipe to its parts: the data come first and size everything else. The only place that calls `build`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from attrs import frozen

from .errors import DataError, Problem, RecipeError
from .interfaces import Checks, FieldSpec, LatentSpec, OrderChecks
from .plugins import Catalog, discover
from .recipe import Recipe

if TYPE_CHECKING:
    import torch

    from .interfaces import Dataset, Stage
    from .model import LatentModel


@frozen
class Experiment:
    """The parts of a run: what a stage works with. The model is on the device, and is what the stages change."""

    recipe: Recipe
    dataset: Dataset
    model: LatentModel
    stages: tuple[Stage, ...]  # in the order of recipe.stages
    device: torch.device
    catalog: Catalog


def assemble(recipe: Recipe, catalog: Catalog | None = None) -> Experiment:
    """Build every part of a recipe.

    Weights are drawn from the recipe's seed. Raises RecipeError with all problems where parts do not fit together or
    the data, DataError where data are missing or damaged.
    """
    import torch

    from .fit.precision import Precision, choose_device, is_memory

    catalog = discover(recipe.plugins.disable) if catalog is None else catalog
    problems = check(recipe)
    if problems:
        raise RecipeError("the recipe", problems)
    device = choose_device(recipe.run.device)
    Precision(device, recipe.run.precision).check()
    if recipe.run.threads is not None:
        torch.set_num_threads(recipe.run.threads)
    dataset = recipe.dataset.build(recipe.run.seed)
    torch.manual_seed(recipe.run.seed)
    try:
        model = build_model(recipe, dataset.fields).to(device)
    except RuntimeError as error:
        if not is_memory(error):
            raise
        width = recipe.latent.width
        message = f"a model {width} wide does not fit in the memory of {device} ({str(error).splitlines()[0]})"
        raise RecipeError("the recipe", [Problem("latent.width", message)]) from error
    return Experiment(recipe, dataset, model, tuple(stage.build() for stage in recipe.stages), device, catalog)


def build_model(recipe: Recipe, fields: FieldSpec) -> LatentModel:
    """The model of a recipe for such data, with fresh weights on the CPU."""
    from .model import LatentModel

    return LatentModel(
        recipe.encoder.build(fields, recipe.latent),
        recipe.operator.build(fields, recipe.latent),
        recipe.decoder.build(fields, recipe.latent),
        fields,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Checks that need no torch
# ---------------------------------------------------------------------------------------------------------------------
def check(recipe: Recipe) -> list[Problem]:
    """Everything that does not fit together, before anything is built: parts and data, parts and stages, stages' order.

    Reads headers of data files only. A DataError becomes the one problem that is reported for the dataset, at the key
    that it names.
    """
    problems = list(_order_problems(recipe))
    try:
        fields = recipe.dataset.describe()
    except DataError as error:
        return [*problems, Problem(f"dataset.{error.key}" if error.key else "dataset", str(error), in_data=True)]
    parts = {name: getattr(recipe, name) for name in ("dataset", "encoder", "operator", "decoder")}
    for path, config in {**parts, **{f"stages.{stage.name}": stage for stage in recipe.stages}}.items():
        problems += _own_problems(path, config, fields, recipe.latent)
    return problems


def _own_problems(path: str, config: object, fields: FieldSpec, latent: LatentSpec) -> Iterator[Problem]:
    if isinstance(config, Checks):
        for key, message in config.check(fields, latent):
            yield Problem(f"{path}.{key}" if key else path, message)


def _order_problems(recipe: Recipe) -> Iterator[Problem]:
    names = [stage.name for stage in recipe.stages]
    if not names:
        yield Problem("stages", 'no stage is listed; add for example [[stages]] with use = "operator"')
    for number, stage in enumerate(recipe.stages):
        if stage.name in names[:number]:
            yield Problem(
                f"stages.{stage.name}", f"two stages are called '{stage.name}'; give one of them another name"
            )
        if isinstance(stage, OrderChecks):
            for key, message in stage.check_order(recipe.stages[:number]):
                yield Problem(f"stages.{stage.name}.{key}" if key else f"stages.{stage.name}", message)
