"""Where a run computes, and in what arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Literal

import torch
from attrs import frozen
from torch import nn

from ..errors import UpsKitError, UsageError, did_you_mean
from .settings import FitSettings

PrecisionName = Literal["fp32", "bf16", "fp16"]


def choose_device(name: str) -> torch.device:
    """The device of `run.device`: auto is the first GPU where there is one, else the CPU.

    Raises UsageError where the device is not there; the message lists those that are.
    """
    found = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if name == "auto":
        return torch.device(found[1] if len(found) > 1 else "cpu")
    if name not in (*found, *(("cuda",) if len(found) > 1 else ())):
        raise UsageError(
            f"run.device: '{name}' is not on this machine{did_you_mean(name, found[1:])} "
            f"(found: {', '.join(found)}); use 'auto' to take what there is"
        )
    return torch.device(name)


@frozen
class Precision:
    """The arithmetic of forward and backward passes on a device; weights, losses and updates stay in float32."""

    device: torch.device
    name: PrecisionName = "fp32"

    def check(self) -> None:
        """Raises UsageError where the device does not have this arithmetic."""
        cuda = self.device.type == "cuda"
        if self.name == "fp16" and not cuda:
            raise UsageError(
                "run.precision: 'fp16' needs a GPU, and this run computes on the CPU; use 'bf16' or 'fp32'"
            )
        if self.name == "bf16" and cuda and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise UsageError(
                f"run.precision: {torch.cuda.get_device_name(self.device)} has no 'bf16'; use 'fp16' or 'fp32'"
            )

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass."""
        if self.name == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.name == "bf16" else torch.float16)

    def scaler(self) -> torch.amp.GradScaler:
        """Scales the loss so that fp16 gradients do not vanish; hands everything through in other arithmetics."""
        return torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")


def check_compiler(device: torch.device) -> None:
    """Raises UsageError where `torch.compile` has no compiler for the device: before data are read, not after."""
    reason = _no_triton() if device.type == "cuda" else _no_cpp_compiler()
    if reason:
        raise UsageError(f"run.compile: {reason}; or run without it: --set run.compile=false")


def _no_cpp_compiler() -> str:
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler
    except ImportError:  # a version of torch that looks for it elsewhere: the stage's own message has to do
        return ""
    try:
        get_cpp_compiler()
    except Exception as error:  # torch's own class for it, which is not public
        reason = str(error).strip().splitlines()[0]
        return f"torch.compile needs a C++ compiler on a CPU ({reason}); install one, such as g++, or name it in CXX"
    return ""


def _no_triton() -> str:
    return "" if find_spec("triton") is not None else "torch.compile needs triton on a GPU, and it is not installed"


@contextmanager
def compiled_parts(model: nn.Module, wanted: bool = True, backend: str = "inductor") -> Iterator[None]:
    """Compile the parts of a model in place, for as long as it is trained; the names of its weights stay as they are.

    Afterwards they run as written again: an evaluation asks in many shapes, and each would be compiled anew.
    """
    named = getattr(model, "parts", None)
    parts = (tuple(named.values()) if isinstance(named, dict) else (model,)) if wanted else ()
    for part in parts:
        part.compile(backend=backend)
    try:
        yield
    finally:
        for part in parts:
            part._compiled_call_impl = None


@contextmanager
def explained_failures(stage: str, settings: FitSettings, device: torch.device) -> Iterator[None]:
    """Say what to do about memory that is short and compilers that fail, instead of a page of traceback."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError and the compiler's errors are RuntimeErrors too
        if is_memory(error):
            raise UpsKitError(_memory_hints(stage, settings, device, error)) from error
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            reason = str(error).strip().split("\n")[0]
            raise UsageError(
                f"run.compile: stage '{stage}' could not be compiled: {reason}; run with compile = false"
            ) from error
        raise


def is_memory(error: RuntimeError) -> bool:
    """Whether an error of torch's says that memory is short."""
    text = str(error)
    short = ("can't allocate memory", "DefaultCPUAllocator", "Storage size calculation overflowed")
    return isinstance(error, torch.OutOfMemoryError) or any(words in text for words in short)


def _memory_hints(stage: str, settings: FitSettings, device: torch.device, error: RuntimeError) -> str:
    peak = ""
    if device.type == "cuda":
        peak = f", at its peak {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB"
    part = settings.batch // settings.accumulation
    return "\n".join(
        [
            f"stage '{stage}' ran out of memory on {device}: {part} samples at once "
            f"(batch = {settings.batch}, accumulation = {settings.accumulation}){peak}",
            "  what helps, in this order:",
            f"    accumulation = {settings.accumulation * 2}: the same result from half as many samples at once",
            "    run.precision = 'bf16': about half the activations",
            "    fewer query points: a sampler with a smaller ratio in the losses that decode",
            f"    batch = {max(1, settings.batch // 2)}, a smaller latent.tokens, or a shorter rollout horizon",
            f"  ({str(error).strip().splitlines()[0]})",
        ]
    )
