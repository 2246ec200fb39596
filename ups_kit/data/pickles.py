"""Files that would have to be unpickled, recognised without being opened: reading one may run code."""

from __future__ import annotations

import pickletools
import zipfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path

LONGEST = 2**20  # bytes of a pickle that are looked at
SHOWN = 4  # classes that a message names
PROTOCOLS = tuple(bytes((0x80, number)) for number in range(2, 6))


def why_pickled(path: Path) -> str | None:
    """Why a file is not read, in words, where it is a pickle or a PyTorch file that holds one; None for others."""
    content = _pickle_in(path)
    if content is None:
        return None
    named = _named(content)
    listed = ", ".join(named[:SHOWN]) + (", …" if len(named) > SHOWN else "") or "no class"
    return (
        f"it is a pickled file, which may run code when it is read, so it is not (it names {listed}); where it was "
        "made, save data with numpy.savez or h5py, weights with safetensors.torch.save_file(model.state_dict(), …)"
    )


def _pickle_in(path: Path) -> bytes | None:
    """The pickle that a file is, or that a PyTorch archive holds."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            name = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
            if name is None:
                return None
            with archive.open(name) as file:
                return file.read(LONGEST)
    with path.open("rb") as file:
        content = file.read(LONGEST)
    return content if content.startswith(PROTOCOLS) else None


def _named(content: bytes) -> list[str]:
    """The classes and functions that a file's pickles call for, as far as they can be followed."""
    names: dict[str, None] = {}
    strings: list[str] = []
    with suppress(ValueError):  # cut or damaged: what was seen so far is enough to refuse it
        stream = BytesIO(content)
        while stream.tell() < len(content):  # PyTorch's old files hold several, one after the other
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL":
                    names[str(argument).replace(" ", ".")] = None
                elif opcode.name == "STACK_GLOBAL":
                    names[".".join(strings[-2:])] = None
                elif isinstance(argument, str):
                    strings.append(argument)
    return list(names)
