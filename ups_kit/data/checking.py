"""Whether data are fit to train on: headers, values, splits, samples; leaks between splits; the equation they follow.

A *target* is a recipe, whose dataset is looked at as the recipe says, or a file, which is looked at through the layout
that a dataset recognises. Everything that opens files is a task of a guarded child.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ..addresses import url_of
from ..errors import DataError, UpsKitError
from .guard import Sign, guarded
from .sample import GivesSamples, Sample
from .whole_files import pairs_of, samples_of, sketch, twins_of, twins_of_points

if TYPE_CHECKING:
    from ..interfaces import AuditsPhysics, Dataset, OpensGrids
    from ..plugins import Catalog
    from .points.settings import PointSettings

SAMPLES = 8  # of each split that are made and checked one by one
AUDITED = 16  # trajectories that are held against their equation
WINDOWS = 16  # initial conditions that are read at a time
SPLITS = ("dataset.train:", "dataset.validation:", "dataset.test:")
SHOWN = 5


@frozen
class Target:
    """A file, or the dataset of a recipe: its table, with all defaults, and the recipe's seed."""

    path: Path  # of the file, or of the recipe
    dataset: Mapping[str, Any] | None = None
    files: tuple[Path, ...] = ()  # that the table names
    seed: int = 0
    disabled: tuple[str, ...] = ()  # plugins that the recipe does without
    command: str = ""  # how it was named on the command line

    @property
    def is_recipe(self) -> bool:
        return self.dataset is not None

    @property
    def request(self) -> dict[str, Any]:
        """As a child is told of it."""
        return {
            "path": str(self.path),
            "dataset": self.dataset,
            "seed": self.seed,
            "disabled": list(self.disabled),
        }


def in_child(task: str, target: Target, seconds: float, memory: int, report: Sign | None = None) -> dict[str, Any]:
    """Have a child do one of the tasks below, which may take as long as it reads on."""
    result: dict[str, Any] = guarded(task, target.path, target.request, seconds, memory, streaming=True, report=report)
    return result


# ---------------------------------------------------------------------------------------------------------------------
# From a target to its dataset
# ---------------------------------------------------------------------------------------------------------------------
@frozen
class Chosen:
    """The config of a target's dataset, and what goes with it."""

    config: Any
    seed: int
    catalog: Catalog
    use: str

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the config names, in its own order; patterns are filled in."""
        return data_files(self.config)


def choose(
    sign: Sign, path: str, dataset: Mapping[str, Any] | None = None, seed: int = 0, disabled: Sequence[str] = ()
) -> Chosen:
    """A target's dataset: as its table says, or the one that recognises the file. Raises DataError."""
    from ..plugins import discover
    from .headers import read_tree
    from .layouts import config_of, recognised, through

    if dataset is not None:
        catalog, use = discover(disabled), str(dataset["use"])
        table = {key: value for key, value in dataset.items() if key != "use"}
        config, problems = config_of(catalog, use, table)
        if config is None or problems:
            raise DataError(f"{path}: " + "; ".join(problems))
        return Chosen(config, seed, catalog, use)
    catalog, tree = discover(), read_tree(Path(path), sign)
    found = [through(catalog, use, tree, keys) for use, keys in recognised(tree, catalog)]
    if not found:
        listed = ", ".join(f"{name} {list(info.shape)}" for name, info in list(tree.arrays.items())[:8])
        raise DataError(
            f"{path}: no installed dataset knows this layout (arrays: {listed or 'none'}); arrays of any order of axes "
            f"become one by `upskit data convert {path} --out NEW.zarr --axes b,t,x,c`"
        )
    best = min(found, key=lambda layout: len(layout["problems"]))
    config, problems = config_of(catalog, best["use"], best["table"])
    if config is None or not best["fields"]:
        raise DataError("; ".join([*best["problems"], *problems]))
    return Chosen(config, 0, catalog, best["use"])


def data_files(config: Any) -> tuple[Path, ...]:
    """The files of this machine that a dataset's config names in keys of type Path, those of inner tables included."""
    from glob import has_magic

    found: list[Path] = []
    for value in _values(config):
        if has_magic(str(value)) and not value.exists():
            found += sorted(Path(value.anchor or ".").glob(str(value.relative_to(value.anchor))))
        else:
            found.append(value)
    return tuple(dict.fromkeys(path.absolute() for path in found))


def _values(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        if url_of(value) is None:
            yield value
    elif attrs.has(type(value)):
        for key in attrs.fields(type(value)):
            yield from _values(getattr(value, key.name))
    elif isinstance(value, (tuple, list)):
        for entry in value:
            yield from _values(entry)
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _values(entry)


def _to_be_made(chosen: Chosen) -> list[Path]:
    """Files that are not there, and that the recipe's simulator would make."""
    if getattr(chosen.config, "simulate", None) is None:
        return []
    return [path for path in chosen.files if not path.exists()]


# ---------------------------------------------------------------------------------------------------------------------
# validate
# ---------------------------------------------------------------------------------------------------------------------
def validate_task(sign: Sign, path: str, **recipe: Any) -> dict[str, Any]:
    """All that is wrong with a target's data: headers, splits, values, leaks, samples."""
    from .layouts import check_problems, in_words

    chosen = choose(sign, path, **recipe)
    sign("headers")
    try:
        spec = chosen.config.describe()
    except DataError as error:
        return {"problems": [str(error)]}
    facts: dict[str, Any] = {"use": chosen.use, "fields": in_words(spec), "files": [str(f) for f in chosen.files]}
    problems = check_problems(chosen.config, spec)
    alone = {**facts, "splits": {}, "samples_checked": 0}
    if recipe["dataset"] is None and problems and all(problem.startswith(SPLITS) for problem in problems):
        # one file of several has few trajectories: its values are looked at without splits
        return {**alone, **_values_alone(chosen, Path(path), sign)}
    missing = _to_be_made(chosen)
    if missing or problems:
        facts["to_be_made"] = [str(path) for path in missing]
        return {**facts, "problems": problems}
    dataset, problems, no_splits = _built(chosen, sign)
    if recipe["dataset"] is None and no_splits:  # too few initial conditions: nobody asked for these splits
        return {**alone, **_values_alone(chosen, Path(path), sign)}
    if dataset is not None:
        facts["splits"] = {split: len(ids) for split, ids in dataset.splits.ids.items()}
        checked, more = _check_samples(dataset, sign)
        facts["samples_checked"] = checked
        problems += more
    return {**facts, "problems": problems}


def _values_alone(chosen: Chosen, path: Path, sign: Sign) -> dict[str, Any]:
    """What is wrong with the values of a file, where its dataset opens files one by one."""
    from ..interfaces import OpensGrids
    from .gridded import unfit_values
    from .points.settings import PointSettings
    from .points.survey import unfit_samples

    if not isinstance(chosen.config, OpensGrids | PointSettings):
        return {"values_looked_at": 0, "problems": []}
    try:
        if isinstance(chosen.config, PointSettings):
            looked, problems = unfit_samples(sign, chosen.config.open_source(path))
            return {"values_looked_at": looked, "problems": problems}
        looked, problems = unfit_values(sign, chosen.config.open_grid(path), str(path))
    except DataError as error:
        return {"values_looked_at": 0, "problems": [str(error)]}
    return {"values_looked_at": looked, "problems": problems}


def _built(chosen: Chosen, sign: Sign) -> tuple[Dataset | None, list[str], bool]:
    """The dataset, read through; where bad samples stop it, also what would be wrong without them.

    And whether it is the splits that its trajectories, or those that are left, are too few for.
    """
    problems: list[str] = []
    no_splits = False
    configs = [chosen.config]
    if getattr(chosen.config, "drop_bad_samples", None) is False:
        configs.append(attrs.evolve(chosen.config, drop_bad_samples=True))
    sign("values")
    for config in configs:
        try:
            dataset: Dataset = config.build(chosen.seed)
        except DataError as error:
            no_splits = no_splits or error.key in ("train", "validation", "test")
            problems += [str(error)] if str(error) not in problems else []
        else:
            return dataset, problems, False
    return None, problems, no_splits


def _check_samples(dataset: Dataset, sign: Sign) -> tuple[int, list[str]]:
    checked, problems = 0, []
    for each, split, number in _spread(dataset, SAMPLES):
        sign(f"{split} sample {number}")
        try:
            each.sample(split, number)
        except DataError as error:
            problems.append(str(error))
        checked += 1
    return checked, problems


def _spread(dataset: Dataset, count: int) -> Iterator[tuple[GivesSamples, str, int]]:
    """Some samples of every split, of every task where there are several."""
    for part in _parts(dataset).values():
        if isinstance(part, GivesSamples):
            for split, ids in part.splits.ids.items():
                for number in np.unique(np.linspace(0, len(ids) - 1, min(count, len(ids))).astype(np.int64)):
                    yield part, split, int(number)


def _parts(dataset: Dataset) -> Mapping[str, Any]:
    from ..interfaces import Multitask

    return dataset.tasks if isinstance(dataset, Multitask) else {"": dataset}


# ---------------------------------------------------------------------------------------------------------------------
# stats
# ---------------------------------------------------------------------------------------------------------------------
def train_statistics_task(sign: Sign, path: str, **recipe: Any) -> dict[str, Any]:
    """Statistics of the fields of a recipe's train split, trajectory by trajectory."""
    from .statistics import statistics_of

    chosen = choose(sign, path, **recipe)
    _refuse_missing(chosen)
    sign("values")
    fields: dict[str, Any] = {}
    for task, part in _parts(chosen.config.build(chosen.seed)).items():
        if not isinstance(part, GivesSamples):
            raise DataError(
                f"{path}: the dataset '{chosen.use}' gives no samples one by one; its file can be looked at"
            )
        count = len(part.splits["train"])
        first = part.sample("train", 0)
        expected = [(name, values.size * count) for name, values in _columns(first).items()]

        def each(part: GivesSamples = part, count: int = count) -> Iterator[Mapping[str, NDArray[Any]]]:
            for number in range(count):
                sign(f"train sample {number}")
                yield _columns(part.sample("train", number))

        found = statistics_of(expected, each())
        fields |= {f"{task}: {name}" if task else name: values for name, values in found.items()}
    return {"fields": fields, "of": "the train split"}


def _columns(sample: Sample) -> dict[str, NDArray[Any]]:
    """Fields, statics and parameters by name; of a field of several channels, each channel."""
    columns: dict[str, NDArray[Any]] = {}
    for name, values in (*sample.fields.items(), *sample.statics.items()):
        channels = values.shape[-1]
        for channel in range(channels):
            columns[name if channels == 1 else f"{name}[{channel}]"] = values[..., channel]
    return columns | {name: np.array([value]) for name, value in sample.parameters.items()}


def _refuse_missing(chosen: Chosen) -> None:
    missing = _to_be_made(chosen)
    if missing:
        raise DataError(f"{missing[0]}: is not there yet; `upskit run` makes it, or `upskit data make`", "path")


# ---------------------------------------------------------------------------------------------------------------------
# check: leaks
# ---------------------------------------------------------------------------------------------------------------------
def leaks_task(sign: Sign, path: str, **recipe: Any) -> dict[str, Any]:
    """Initial conditions that stand twice, or nearly, in a recipe's splits or in a file; and the equation's numbers."""
    from ..interfaces import OpensGrids
    from .headers import read_tree
    from .points.settings import PointSettings

    chosen = choose(sign, path, **recipe)
    _refuse_missing(chosen)
    sign("values")
    if recipe["dataset"] is None and isinstance(chosen.config, OpensGrids | PointSettings):
        twins, problems = _whole(chosen.config, Path(path), sign)
    else:
        twins, problems = _across(chosen, sign, told=recipe["dataset"] is not None)
    audits, failed, unaudited = [], [], []
    for file in (each for each in chosen.files if each.exists()):
        maker = maker_of(read_tree(file, sign).attributes.get("", {}), chosen.catalog)
        if maker is None:
            continue
        simulator = _auditing(*maker, chosen.catalog)
        if simulator is None:
            unaudited.append({"file": str(file), "simulator": maker[0]})
            continue
        found, bad = _audited(maker[0], simulator, file, sign)
        audits += found
        failed += bad
    return {"twins": twins, "audits": audits, "unaudited": unaudited, "problems": [*problems, *failed]}


def _whole(config: OpensGrids | PointSettings, path: Path, sign: Sign) -> tuple[list[dict[str, Any]], list[str]]:
    """Twins within a file, whose trajectories need not be enough for splits, and what is wrong with its values."""
    from .gridded import unfit_values
    from .points.settings import PointSettings
    from .points.survey import unfit_samples

    try:
        if isinstance(config, PointSettings):
            source = config.open_source(path)
            return twins_of_points(source, sign), unfit_samples(sign, source)[1]
        grid = config.open_grid(path)
        return twins_of(grid, sign), unfit_values(sign, grid, str(path))[1]
    except DataError as error:
        return [], [str(error)]


def _across(chosen: Chosen, sign: Sign, told: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """Twins in a dataset's splits; `told`: those in different splits are a problem."""
    try:
        dataset = chosen.config.build(chosen.seed)
    except DataError as error:
        return [], [str(error)]
    twins = [twin for part in _parts(dataset).values() for twin in _twins(part, sign)]
    crossing = [twin for twin in twins if twin["splits"][0] != twin["splits"][1]]
    return twins, [_told(crossing)] if crossing and told else []


def _told(crossing: Sequence[Mapping[str, Any]]) -> str:
    shown = ", ".join(
        f"{t['ids'][0]} ({t['splits'][0]}) and {t['ids'][1]} ({t['splits'][1]}): {t['distance']:.1e}"
        for t in crossing[:SHOWN]
    )
    more = f" and {len(crossing) - SHOWN} more" if len(crossing) > SHOWN else ""
    return (
        f"{len(crossing)} pairs of initial conditions in different splits are the same or nearly so (distance relative "
        f"to their size): trajectories {shown}{more}; expected splits without common initial conditions"
    )


def _first_windows(dataset: Any, split: str, members: int) -> NDArray[np.int64]:
    """The number of the first window of every trajectory."""
    from .points.dataset import PointDataset

    if isinstance(dataset, PointDataset):
        return dataset.first_windows(split, 1)
    per_member = int(dataset.windows(split, 1)) // max(members, 1)
    return np.arange(members if per_member else 0, dtype=np.int64) * per_member


def _twins(dataset: Any, sign: Sign) -> list[dict[str, Any]]:
    """Pairs of trajectories of a dataset's splits whose inputs are equal or near.

    Of what are no fields in space there are none: equal ones in two splits are refused when the dataset is built.
    """
    from ..interfaces import DescribedDataset

    if isinstance(dataset, DescribedDataset):
        return []
    splits: list[str] = []
    ids: list[int] = []
    sketches: list[NDArray[np.float64]] = []
    for split, members in dataset.splits.ids.items():
        firsts = _first_windows(dataset, split, len(members))
        for start in range(0, len(firsts), WINDOWS):
            sign(f"{split} initial condition {start}")
            batch = dataset.batch(split, firsts[start : start + WINDOWS], 1)
            inputs = batch.inputs.values.numpy()
            sketches.append(sketch(inputs.reshape(len(inputs), -1)))  # zeros at points that are padding add nothing
            ids += batch.ids.tolist()
            splits += [split] * len(inputs)
    return pairs_of(ids, splits, np.concatenate(sketches)) if sketches else []


# ---------------------------------------------------------------------------------------------------------------------
# check: the equation
# ---------------------------------------------------------------------------------------------------------------------
def _audited(name: str, simulator: AuditsPhysics, file: Path, sign: Sign) -> tuple[list[dict[str, Any]], list[str]]:
    """The numbers of the equation that a file's simulator solves, against what they stay below in sound data."""
    from ..interfaces import OpensGrids

    chosen = choose(sign, str(file))
    try:
        if isinstance(chosen.config, OpensGrids):
            samples = samples_of(chosen.config.open_grid(file), file, AUDITED)
        else:
            dataset = chosen.config.build(0)
            spread = _spread(dataset, AUDITED // 3 + 1)
            samples = [each.sample(split, number) for each, split, number in spread][:AUDITED]
        sign(f"the equation of {name}")
        numbers = audit(simulator, samples)
    except DataError as error:
        return [], [str(error)]
    found, problems = [], []
    for label, values in numbers.items():
        limit, worst = simulator.tolerances.get(label), float(np.max(values))
        found.append({"file": str(file), "number": label, "worst": worst, "below": limit, "trajectories": len(samples)})
        if limit is not None and not worst < limit:
            problems.append(
                f"{samples[int(np.argmax(values))].source}: {label} is {worst:.2g}; expected less than {limit:.2g} of "
                f"what '{name}' makes: these values do not follow its equation"
            )
    return found, problems


def audit(simulator: AuditsPhysics, samples: Sequence[Sample]) -> Mapping[str, NDArray[Any]]:
    """A simulator's numbers of samples on its grid; parameters are those that they all have."""
    values = []
    for sample in samples:
        fields = np.concatenate(list(sample.fields.values()), -1)
        given = [np.broadcast_to(static, (len(fields), *static.shape)) for static in sample.statics.values()]
        whole = np.concatenate([fields, *given], -1)
        values.append(whole.reshape(len(whole), *(sample.grid or ()), whole.shape[-1]))
    names = set.intersection(*(set(sample.parameters) for sample in samples))
    parameters = {name: np.array([sample.parameters[name] for sample in samples]) for name in names}
    return simulator.audit(np.stack(values), np.asarray(samples[0].times, np.float64), parameters)


def maker_of(attributes: Mapping[str, Any], catalog: Catalog) -> tuple[str, Mapping[str, Any]] | None:
    """The simulator that a file says it was made by, where it is installed, and the keys that it was given."""
    from .making import ATTRIBUTE

    try:
        keys = dict(json.loads(attributes[ATTRIBUTE]))
        wanted = keys.pop("simulator")
    except (KeyError, ValueError, TypeError):
        return None
    names = (name for name, entry in catalog["simulator"].items() if entry.config.__qualname__ == wanted)
    return next(((name, keys) for name in names), None)


def _auditing(name: str, keys: Mapping[str, Any], catalog: Catalog) -> AuditsPhysics | None:
    """The simulator with these keys, where it can measure how well data follow its equation."""
    from ..interfaces import AuditsPhysics
    from ..strict import attempt

    given = {key: value for key, value in keys.items() if value is not None}
    try:
        config, problems = attempt(given, catalog["simulator"][name].config, catalog)
        simulator: Any = config.build() if config is not None and not problems else None
    except UpsKitError:
        return None
    return simulator if isinstance(simulator, AuditsPhysics) else None
