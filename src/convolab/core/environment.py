"""The machine and the installed packages that results depend on, and the one folder that convolab keeps files in."""

import ctypes
import os
import platform
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from typing_extensions import TypedDict  # typing has what pydantic needs from Python 3.12 on

from convolab.core.errors import require

RECORDED_PACKAGES = ("convolab", "torch", "numpy", "scikit-learn", "safetensors", "pydantic")
SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
CACHE_TAG = "CACHEDIR.TAG"  # backup programs leave out a folder that holds this file (bford.info/cachedir)
CACHE_TAG_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# convolab's cache: it may be deleted at any time.\n"


class HardwareInfo(TypedDict, total=False):
    """The machine that a run's results depend on, besides its recipe and the packages."""

    processor: str
    cores: int | None
    system: str
    python: str
    graphics_card: str  # of a run on one


@cache
def package_version(name: str) -> str:
    from importlib.metadata import version  # a fifth of the time that --help takes

    return version(name)


def package_versions() -> dict[str, str]:
    """The installed version of each package that a run's results depend on; read from the disk once per process."""
    return {name: package_version(name) for name in RECORDED_PACKAGES}


def require_device(device: object) -> None:
    """Raise LabError for a device that is unknown, or that this machine lacks."""
    import torch

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    name = str(device)
    kind = name.partition(":")[0]
    try:
        torch.device(name)
    except RuntimeError:
        kind = ""
    require(kind in available, f"unknown device '{name}': give cpu, cuda or mps")
    require(available[kind], f"torch finds no {kind} device on this machine: give cpu")


def hardware_info(device: str = "cpu") -> HardwareInfo:
    """The processor and the system, and the graphics card if the device is one of CUDA's, as a run records them."""
    info: HardwareInfo = {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    if device.startswith("cuda"):
        import torch

        info["graphics_card"] = torch.cuda.get_device_name(device)
    return info


@cache
def processor_name() -> str:
    """The processor's name, as the system reports it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def count_usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_physical_cores() -> int:
    """The cores that this process may use, counting one that runs two threads at a time (hyper-threading) once."""
    try:
        siblings = [Path(SIBLINGS.format(number)).read_text() for number in os.sched_getaffinity(0)]
    except (AttributeError, OSError):  # only Linux tells
        return count_usable_cores()
    return len(set(siblings))


def has_native_bf16() -> bool:
    """Whether this processor multiplies bfloat16 matrices itself (AVX-512 BF16, AMX, or ARM's BF16)."""
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line.split(":")[1].split() for line in file if line.startswith(("flags", "Features"))), [])
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))


def data_root() -> Path:
    """The folder that holds downloaded datasets and caches: $CONVOLAB_DATA, or ~/.cache/convolab."""
    return Path(os.environ.get("CONVOLAB_DATA") or "~/.cache/convolab").expanduser()


def cache_folder(name: str) -> Path:
    """The folder of one of convolab's caches, `data_root()/cache/NAME`.

    It is created if that is possible, and tagged, so that `data clean` knows that convolab created it. Where it cannot
    be created, its path is returned nevertheless: writing a file there then raises the error.
    """
    folder = data_root() / "cache" / name
    tag = folder / CACHE_TAG
    with suppress(OSError):
        if not tag.exists():
            folder.mkdir(parents=True, exist_ok=True)
            if not any(folder.iterdir()):  # a folder with files and no tag is the user's
                tag.write_text(CACHE_TAG_TEXT)
    return folder


def tune_malloc() -> None:
    """Let this process keep the memory that tensors free, for the tensors of the next step.

    For the command line and for workers, never for a library call: it changes the whole process and cannot be undone.
    By default glibc maps each large block separately and returns free memory at the end of its heap, so that the system
    fills every page with zeros again: this took a fifth of a training step of simple_convnet at batch size 512. Other C
    libraries are left as they are.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no large block is mapped separately
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: return memory only past 2 GB
