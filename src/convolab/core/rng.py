"""Randomness as a pure function of its key, such as (seed, stream, epoch, step).

No draw depends on how many were made before it, so a run that is killed and resumed draws the same numbers.
"""

import hashlib
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

KeyPart = int | str

GLOBAL_GENERATORS = threading.RLock()  # held by the thread that has seeded them: they are those of the whole process


def derive_seed(*key: KeyPart) -> int:
    """A 63-bit seed for a key, by BLAKE2b: equal keys give equal seeds, any other key an unrelated one.

    >>> first = derive_seed(0, "order", 1)
    >>> first == derive_seed(0, "order", 1), first == derive_seed(0, "order", 2)
    (True, False)
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def make_generator(*key: KeyPart) -> torch.Generator:
    """A new CPU generator, seeded by a key.

    >>> first, second = (torch.randperm(9, generator=make_generator(0, "order")) for _ in range(2))
    >>> torch.equal(first, second)
    True
    """
    return torch.Generator().manual_seed(derive_seed(*key))


@contextmanager
def isolated_rng(device: torch.device | str = "cpu") -> Iterator[None]:
    """Restore the states of torch's global generators at the end of the block.

    Layers such as `nn.Dropout`, and layers' own `reset_parameters`, draw from the global generator and take no other.
    Inside the block they may be seeded by `seed_default_generator`; outside nothing has changed. Blocks of other threads
    wait until this one ends.
    """
    device = torch.device(device)
    with GLOBAL_GENERATORS:
        mps_state = torch.mps.get_rng_state() if device.type == "mps" else None
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                yield
        finally:
            if mps_state is not None:
                torch.mps.set_rng_state(mps_state)


@contextmanager
def lent_generators(device: torch.device | str, seed: int) -> Iterator[None]:
    """Inside the block, the global generators of torch, NumPy and Python are seeded; at its end they are as before.

    For code of a person's own, which may draw from any of them.
    """
    with isolated_rng(device):
        python_state, numpy_state = random.getstate(), np.random.get_state()
        try:
            seed_default_generator(torch.device(device), seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


@contextmanager
def kept_python_generator() -> Iterator[None]:
    """Python's global generator is at the end of the block as before it: rich draws from it when it is imported."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


@contextmanager
def reproducible_kernels(device: torch.device | str = "cpu") -> Iterator[None]:
    """On a CUDA device, convolutions that give the same bits each time, in fp32 and not in TensorFloat-32.

    The settings are those of the whole process, and are restored at the end of the block. Elsewhere nothing changes.
    """
    if torch.device(device).type != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark, cudnn.conv.fp32_precision
    cudnn.deterministic, cudnn.benchmark, cudnn.conv.fp32_precision = True, False, "ieee"
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark, cudnn.conv.fp32_precision = before


def seed_default_generator(device: torch.device, *key: KeyPart) -> None:
    """Seed the global generator that layers on `device` draw from; only inside `isolated_rng`.

    Not by torch.manual_seed, which seeds the generators of all kinds of devices and records a traceback at every call:
    that takes 0.4 ms per step.
    """
    seed = derive_seed(*key)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def seed_all_generators(device: torch.device, *key: KeyPart) -> None:
    """As `seed_default_generator`, and the global generators of NumPy and Python too; only inside `lent_generators`."""
    seed_default_generator(device, *key)
    seed = derive_seed(*key)
    random.seed(seed)
    np.random.seed(seed % 2**32)
