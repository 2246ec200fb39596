"""The files of a new package, rendered from the templates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from string import Template

from attrs import frozen

from .. import __version__
from ..errors import UsageError
from ..hookspecs import API
from ..interfaces import KINDS
from ..keys import article
from .modules import join
from .naming import Names

SUFFIX = ".tmpl"
COMMON = "package"  # the folder of templates that all kinds share
WHOLE = {  # files of the package as a whole, and their templates
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    ".gitignore": "gitignore",
    ".github/workflows/tests.yml": "tests.yml",
}
JOINED = ("config.py", "contract.py", "test.py", "run.py")  # templates of parts of modules; others are modules
MANY = 4  # kinds: so many are still listed
BLOCK = re.compile(r"^#: (\w+)\n", re.MULTILINE)  # begins a block of a recipe, which a kind may put its own in
ADDED = {"before": 4, "settings": 8, "assertions": 4}  # what a kind adds to the test of its run, and its indentation


def offered_kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    """The kinds of components that a package of such kinds offers: also those that they bring with them."""
    return tuple(offered for kind in kinds for offered, _ in Package(Names("ups-x"), ())._offered(kind))


@frozen
class Package:
    """A package that offers a component of each of some kinds, all called as the plugin is."""

    names: Names
    kinds: tuple[str, ...]

    @classmethod
    def of(cls, names: Names, kinds: Sequence[str]) -> Package:
        """With each kind once, in the order of `KINDS`.

        Raises UsageError for kinds that bring components of one kind: all are called as the plugin is.
        """
        package = cls(names, tuple(kind for kind in KINDS if kind in kinds))
        bringing: dict[str, str] = {}
        for kind in package.kinds:
            for offered, _ in package._offered(kind):
                other = bringing.setdefault(offered, kind)
                if other != kind:
                    brings = kind if other == offered else other
                    raise UsageError(
                        f"--kind {other} --kind {kind}: '{brings}' brings {article(offered)} {offered} of its own; "
                        "write two packages"
                    )
        return package

    def files(self) -> dict[str, str]:
        """The text of every file by its path in the package's folder."""
        return {path: text.strip("\n") + "\n" if text else "" for path, text in self._files()}

    @property
    def runs(self) -> tuple[str, ...]:
        """The commands that run the recipes, and what must come before them."""
        return (*self._prepares, *(f"upskit run recipes/{self._stem(kind)}.toml" for kind in self.kinds))

    @property
    def _prepares(self) -> list[str]:
        """The commands that make what recipes and checks read."""
        return [line for kind in self.kinds for line in _lines(kind, "commands.txt", self._values(kind))]

    def _files(self) -> Iterator[tuple[str, str]]:
        own = self.names.package
        for path, template in WHOLE.items():
            yield path, _filled(COMMON, template, self._about())
        yield f"{own}/__init__.py", self._hook()
        yield f"{own}/py.typed", ""
        configs = [_filled(kind, "config.py", self._values(kind)) for kind in self.kinds]
        yield f"{own}/config.py", join("What recipes can say: a class for each component.", configs, own)
        for kind in self.kinds:
            for name in _modules(kind):
                yield f"{own}/{name}", _filled(kind, name, self._values(kind))
            yield f"recipes/{self._stem(kind)}.toml", _recipe(kind, self._values(kind))
            yield f"tests/test_{self._stem(kind)}.py", self._tests(kind)

    def _stem(self, kind: str) -> str:
        """What the recipe and the tests of a kind are called."""
        return self.names.plugin if len(self.kinds) == 1 else f"{self.names.plugin}_{kind}"

    def _values(self, kind: str) -> dict[str, str]:
        """What stands for what in a template."""
        return {
            "distribution": self.names.distribution,
            "package": self.names.package,
            "name": self.names.plugin,
            "Name": self.names.classes,
            "kind": kind,
            "stem": self._stem(kind),
            "version": ".".join(__version__.split(".")[:2]),
            "next_version": _next(__version__),
            "api": str(API),
        }

    def _about(self) -> dict[str, str]:
        """The same in the files of the whole."""
        parts = [f"## The {kind}\n\n{_filled(kind, 'about.txt', self._values(kind)).strip()}" for kind in self.kinds]
        return {
            **self._values(self.kinds[0]),
            "offers": self._offers,
            "parts": "\n\n".join(parts),
            "prepares": "".join(f"      - run: {command}\n" for command in self._prepares),
            "runs": "\n".join(f"$ {command}" for command in self.runs),
        }

    @property
    def _offers(self) -> str:
        """`an encoder and a loss`."""
        if len(self.kinds) > MANY:
            return f"components of {len(self.kinds)} kinds"
        return " and ".join(f"{article(kind)} {kind}" for kind in self.kinds)

    def _hook(self) -> str:
        """`__init__.py`: what is asked what there is."""
        offered = dict(pair for kind in self.kinds for pair in self._offered(kind))
        entries = [f'"{kind}": {{"{self.names.plugin}": {config}}}' for kind, config in offered.items()]
        one = f"{{{entries[0]}}}"
        several = "{\n" + "".join(f"        {entry},\n" for entry in entries) + "    }"
        values = {"classes": ", ".join(offered.values()), "offered": one if len(entries) == 1 else several}
        hook = _filled(COMMON, "hook.py", values)
        return join(f"A plugin of ups_kit: {self._offers}.", [hook], self.names.package)

    def _offered(self, kind: str) -> Iterator[tuple[str, str]]:
        """The kinds of components that a kind brings, and their config classes."""
        usual = f"{kind} {self.names.classes}{kind.capitalize()}Config"
        for line in _lines(kind, "offers.txt", self._values(kind)) or [usual]:
            offered, config = line.split()
            yield offered, config

    def _tests(self, kind: str) -> str:
        """The tests of a kind: its contract, what it computes, and its recipe."""
        values = self._values(kind)
        values |= {name: _added(kind, name, values) for name in ADDED}
        parts = [_filled(_owner(kind, name), name, values) for name in ("contract.py", "test.py", "run.py")]
        about = f"The {kind} '{self.names.plugin}': its contract, what it computes, and a run with it."
        return join(about, parts, self.names.package)


def _next(version: str) -> str:
    """The first version that may break what was written for this one: 0.2 after 0.1.3, 2 after 1.4."""
    major, minor = map(int, version.split(".")[:2])
    return f"{major}.{minor + 1}" if major == 0 else str(major + 1)


def _recipe(kind: str, values: Mapping[str, str]) -> str:
    """A recipe: the common one, with a kind's blocks in their places; or the kind's own, where it has no blocks."""
    own = _filled(kind, "recipe.toml", values)
    if not BLOCK.search(own):
        return own
    blocks = _blocks(_filled(COMMON, "recipe.toml", values)) | _blocks(own)
    return "\n".join(text.strip("\n") + "\n" for text in blocks.values() if text.strip())


def _blocks(text: str) -> dict[str, str]:
    """The blocks of a recipe by their names, in their order."""
    _, *parts = BLOCK.split(text)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _added(kind: str, what: str, values: Mapping[str, str]) -> str:
    """Lines that a kind adds to the test of its run, each after a line break."""
    lines = _lines(_owner(kind, f"{what}.txt"), f"{what}.txt", values)
    return "".join(f"\n{' ' * ADDED[what]}{line}" for line in lines)


# ---------------------------------------------------------------------------------------------------------------------
# Templates
# ---------------------------------------------------------------------------------------------------------------------
def _modules(kind: str) -> list[str]:
    """The modules of a kind's component."""
    found = sorted(entry.name.removesuffix(SUFFIX) for entry in _folder(kind).iterdir())
    return [name for name in found if name.endswith(".py") and name not in JOINED]


def _owner(kind: str, name: str) -> str:
    """The folder that a template is taken from: the kind's own, or else the common one."""
    return COMMON if _template(kind, name) is None else kind


def _filled(folder: str, name: str, values: Mapping[str, str]) -> str:
    text = _template(folder, name)
    assert text is not None, f"templates/{folder}/{name}{SUFFIX} is a part of ups_kit"
    return Template(text).substitute(values)


def _lines(folder: str, name: str, values: Mapping[str, str]) -> list[str]:
    """The lines of a template; none where there is no such template."""
    return [] if _template(folder, name) is None else _filled(folder, name, values).splitlines()


def _template(folder: str, name: str) -> str | None:
    path = _folder(folder) / f"{name}{SUFFIX}"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _folder(name: str) -> Traversable:
    return files(__package__) / "templates" / name
