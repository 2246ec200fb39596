"""From a recipe to its parts: the data come first and size everything else. The only place that calls `build`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, overload

from attrs import evolve, frozen

from .blame import blaming
from .errors import DataError, Problem, RecipeError
from .families import check_family, check_model, data_problem
from .fit.order import LearnsFrom, is_skipped, part_name, trained_by
from .fit.settings import FieldFitSettings, FitSettings
from .interfaces import (
    AddsPart,
    Checks,
    DescribesTasks,
    FieldSpec,
    GivesLatents,
    LatentSpec,
    OrderChecks,
    TakesForms,
    TakesLatents,
)
from .keypaths import render
from .plugins import Catalog, discover
from .recipe import AnyRecipe, ModelRecipe, Recipe

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .data.normalisation import Normaliser
    from .interfaces import Dataset, DescribedDataset, Stage, StageConfig
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


@frozen
class ModelExperiment:
    """The parts of a run of a family of its own. The model is on the device, and is what the stages change."""

    recipe: ModelRecipe
    dataset: DescribedDataset
    model: nn.Module
    stages: tuple[Stage, ...]  # in the order of recipe.stages
    device: torch.device
    catalog: Catalog


AnyExperiment = Experiment | ModelExperiment


@overload
def assemble(recipe: Recipe, catalog: Catalog | None = None) -> Experiment: ...
@overload
def assemble(recipe: ModelRecipe, catalog: Catalog | None = None) -> ModelExperiment: ...
def assemble(recipe: AnyRecipe, catalog: Catalog | None = None) -> AnyExperiment:
    """Build every part of a recipe.

    Weights are drawn from the recipe's seed. Raises RecipeError with all problems where parts do not fit together or
    the data, DataError where data are missing or damaged, PluginError where a plugin fails in its own code.
    """
    catalog = discover(recipe.plugins.disable) if catalog is None else catalog
    with blaming(catalog):
        return _assembled(recipe, catalog)


def _assembled(recipe: AnyRecipe, catalog: Catalog) -> AnyExperiment:
    import torch

    from .fit.precision import Precision, check_compiler, choose_device

    problems = check(recipe)
    if problems:
        raise RecipeError("the recipe", problems)
    device = choose_device(recipe.run.device)
    Precision(device, recipe.run.precision).check()
    if recipe.run.compile:
        check_compiler(device)
    if recipe.run.threads is not None:
        torch.set_num_threads(recipe.run.threads)
    dataset = recipe.dataset.build(recipe.run.seed)
    torch.manual_seed(recipe.run.seed)
    if isinstance(recipe, ModelRecipe):
        with _in_memory(device, "model", "the model"):
            whole = recipe.model.build(dataset.description).to(device)
        return ModelExperiment(recipe, dataset, whole, _stages(recipe), device, catalog)
    with _in_memory(device, "latent.width", f"a model {recipe.latent.width} wide"):
        model = build_model(recipe, dataset.fields, dataset.normaliser).to(device)
    return Experiment(recipe, dataset, model, _stages(recipe), device, catalog)


def _stages(recipe: AnyRecipe) -> tuple[Stage, ...]:
    return tuple(stage.build() for stage in recipe.stages)


@contextmanager
def _in_memory(device: torch.device, path: str, what: str) -> Iterator[None]:
    """A model that does not fit in a device's memory is the recipe's problem."""
    from .fit.precision import is_memory

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not is_memory(error):
            raise
        message = f"{what} does not fit in the memory of {device} ({str(error).splitlines()[0]})"
        raise RecipeError("the recipe", [Problem(path, message)]) from error


def build_model(recipe: Recipe, fields: FieldSpec, normaliser: Normaliser) -> LatentModel:
    """The model of a recipe for such data, with fresh weights on the CPU, those of parts that stages add too."""
    from .constraining import Constraining
    from .model import LatentModel

    encoder = recipe.encoder.build(fields, recipe.latent)
    operator = recipe.operator.build(fields, recipe.latent)
    decoder = recipe.decoder.build(fields, recipe.latent)
    parts = {
        stage.name: _part(stage.name, stage, recipe, fields) for stage in recipe.stages if isinstance(stage, AddsPart)
    }
    added = {name: part for name, part in parts.items() if part is not None}
    constraints = [config.build(fields, normaliser) for config in recipe.constraints]
    constraining = Constraining(constraints, fields) if constraints else None
    return LatentModel(encoder, operator, decoder, fields, normaliser, added, constraining)


def _part(name: str, stage: AddsPart, recipe: Recipe, fields: FieldSpec) -> nn.Module | None:
    """A part that a stage adds, with weights that depend on the seed and its name, and on no other stage."""
    import torch

    from .fit.forward import derived_seed

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(recipe.run.seed, f"added/{name}"))
        return stage.build_part(recipe, fields)


# ---------------------------------------------------------------------------------------------------------------------
# Checks that need no torch
# ---------------------------------------------------------------------------------------------------------------------
def check(recipe: AnyRecipe) -> list[Problem]:
    """Everything that does not fit together, before anything is built: parts and data, parts and stages, stages' order.

    Reads headers of data files only. A DataError becomes the one problem that is reported for the dataset, at the key
    that it names. Parts of different families are told alone: nothing else about them would make sense.
    """
    strangers = list(check_family(recipe))
    if strangers:
        return strangers
    if isinstance(recipe, ModelRecipe):
        return [*_order_problems(recipe, None), *check_model(recipe)]
    try:
        fields = recipe.dataset.describe()
        tasks = recipe.dataset.describe_tasks() if isinstance(recipe.dataset, DescribesTasks) else {"": fields}
    except DataError as error:
        return [*_order_problems(recipe, None), *_cache_problems(recipe), data_problem(error)]
    problems = [*_order_problems(recipe, fields), *_stale_problems(recipe, fields), *_cache_problems(recipe)]
    if recipe.latent_cache is not None and fields.steady:
        problems.append(Problem("latent_cache", "steady data have no series of latents; remove [latent_cache]"))
    problems += _own_problems("dataset", recipe.dataset, fields, recipe.latent)
    parts = {name: getattr(recipe, name) for name in PARTS}
    problems += _form_problems(recipe)
    problems += _constraint_problems(recipe, fields)
    for path, config in {**parts, **{f"stages.{stage.name}": stage for stage in recipe.stages}}.items():
        problems += _problems_by_task(path, config, tasks, recipe.latent)
    return problems


PARTS = ("encoder", "operator", "decoder")
FORMS = {
    "lattice": "tokens on a lattice",
    "scattered": "tokens at places of their own",
    "pooled": "tokens without a place",
}


def _form_problems(recipe: Recipe) -> Iterator[Problem]:
    """Operators and decoders that cannot take the tokens as the encoder places them."""
    if not isinstance(recipe.encoder, GivesLatents):
        return
    form = recipe.encoder.form(recipe.latent)
    for name in ("operator", "decoder"):
        config = getattr(recipe, name)
        if isinstance(config, TakesForms) and form not in config.forms:
            wanted = " or ".join(FORMS[each] for each in config.forms)
            why = "latent.tokens pools them; leave it out" if form == "pooled" else "encoder.choice = 'grid' gives one"
            yield Problem(
                f"{name}.use", f"needs {wanted}, and the encoder gives {FORMS[form]}: {why}, or use another {name}"
            )


def _problems_by_task(
    path: str, config: object, tasks: Mapping[str, FieldSpec], latent: LatentSpec
) -> Iterator[Problem]:
    """A part's problems with the data of each task; those that it has with only some of them say with which."""
    found: dict[Problem, list[str]] = {}
    for task, fields in tasks.items():
        for problem in _own_problems(path, config, fields, latent):
            found.setdefault(problem, []).append(task)
    for problem, concerned in found.items():
        some = "" if len(concerned) == len(tasks) else f" (dataset.tasks.{', '.join(concerned)})"
        yield evolve(problem, message=problem.message + some)


def _own_problems(path: str, config: object, fields: FieldSpec, latent: LatentSpec) -> Iterator[Problem]:
    if isinstance(config, Checks):
        for key, message in config.check(fields, latent):
            yield Problem(f"{path}.{key}" if key else path, message)


def _constraint_problems(recipe: Recipe, fields: FieldSpec) -> Iterator[Problem]:
    """Constraints that the data do not allow, or that stand in each other's way."""
    taken: dict[tuple[type, str], str] = {}
    names = [config.name for config in recipe.constraints]
    for number, config in enumerate(recipe.constraints):
        path = f"constraints.{config.name}"
        if config.name in names[:number]:
            yield Problem(f"{path}.use", f"two constraints are called '{config.name}'; give one of them another name")
            continue
        if isinstance(recipe.dataset, DescribesTasks):
            yield Problem(
                f"{path}.use", "a mixture of tasks has no grid that all share, on which to constrain; remove the table"
            )
            continue
        yield from _own_problems(path, config, fields, recipe.latent)
        for name in config.constrains:
            other = taken.setdefault((type(config), name), config.name)
            if other != config.name:
                message = f"'{name}' is constrained by constraints.{other} already; name it in one of them"
                yield Problem(f"{path}.use", message)


def _order_problems(recipe: AnyRecipe, fields: FieldSpec | None) -> Iterator[Problem]:
    names = [stage.name for stage in recipe.stages]
    if not names:
        yield Problem("stages", 'no stage is listed; add for example [[stages]] with use = "operator"')
    for number, stage in enumerate(recipe.stages):
        if stage.name in names[:number]:
            yield Problem(
                f"stages.{stage.name}", f"two stages are called '{stage.name}'; give one of them another name"
            )
        if isinstance(stage, AddsPart) and stage.name != (meant := part_name(stage.name)):
            message = f"'{stage.name}' cannot name a part of the model, as this stage's does; nearest: '{meant}'"
            yield Problem(render(("stages", stage.name, "name")), message)
        if isinstance(stage, OrderChecks):
            earlier, later = recipe.stages[:number], recipe.stages[number + 1 :]
            for key, message in stage.check_order(earlier, fields):
                path = f"stages.{stage.name}.{key}" if key else f"stages.{stage.name}"
                yield Problem(path, message + _comes_later(stage, (key, message), earlier, later, fields))


def _stale_problems(recipe: Recipe, fields: FieldSpec) -> Iterator[Problem]:
    """Stages that change what an earlier one has learnt from, so that what it has learnt would no longer hold."""
    for number, stage in enumerate(recipe.stages):
        trained, moved = trained_by([stage], fields), dict[str, tuple[str, ...]]()
        for place, other in enumerate(recipe.stages[:number]):
            if isinstance(other, LearnsFrom) and not is_skipped(other):
                learnt = trained_by(recipe.stages[:place], fields)  # what comes too late is told by itself
                if parts_moved := tuple(part for part in other.learns_from if part in trained & learnt):
                    moved[other.name] = parts_moved
        if moved:
            parts = " and ".join(dict.fromkeys(part for parts in moved.values() for part in parts))
            names = " and ".join(f"'{name}'" for name in moved)
            yield Problem(
                f"stages.{stage.name}",
                f"changes the {parts} after {names} learnt from {'it' if parts in PARTS else 'them'}, so that what was "
                f"learnt no longer holds; put '{stage.name}' before {names}"
                + (f", or freeze the {parts} in it" if hasattr(stage, "freeze") else ""),
            )


def _comes_later(
    stage: OrderChecks,
    problem: tuple[str, str],
    earlier: Sequence[StageConfig],
    later: Sequence[StageConfig],
    fields: FieldSpec | None,
) -> str:
    """A hint where what a stage needs before it is listed after it."""
    for other in later:
        if problem not in list(stage.check_order([*earlier, other], fields)):
            return f" ('{other.name}' comes after it; stages are run in the order in which they are listed)"
    return ""


def _cache_problems(recipe: Recipe) -> Iterator[Problem]:
    """Cached latents serve stages that keep the encoder, and see every sample where it lies in the data."""
    if recipe.latent_cache is None:
        return
    if isinstance(recipe.dataset, DescribesTasks):
        yield Problem("latent_cache", "latents of a mixture of tasks are not cached; remove [latent_cache]")
        return
    if recipe.latent_cache.folder is not None:
        folder = recipe.latent_cache.folder.absolute()
        there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
        if not there.is_dir():  # told now, and not after the stage before
            yield Problem("latent_cache.folder", f"{there} is a file; expected a folder, or a name for a new one")
    training = [stage for stage in recipe.stages if isinstance(stage, FitSettings)]
    takers = [stage for stage in training if isinstance(stage, TakesLatents)]
    if not any(stage.keeps_encoder for stage in takers if isinstance(stage, TakesLatents)):
        for stage in takers:
            yield Problem(
                f"stages.{stage.name}.freeze",
                "this stage trains the encoder, whose latents then change with every step, and there is a "
                '[latent_cache]; set freeze = ["encoder"] after a stage that trains it (use = "codec"), or remove '
                "[latent_cache]",
            )
        if not takers:
            yield Problem("latent_cache", "no stage trains an operator on latents; remove [latent_cache]")
    for stage in takers:
        shifts = isinstance(stage, FieldFitSettings) and stage.periodic_shifts
        if shifts and isinstance(stage, TakesLatents) and stage.keeps_encoder:
            yield Problem(
                f"stages.{stage.name}.periodic_shifts",
                "cached latents cannot be shifted along with their fields, and there is a [latent_cache]; set "
                "periodic_shifts = false, or remove [latent_cache]",
            )
