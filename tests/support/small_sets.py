"""Small datasets in the layouts of the published ones, with random pixels."""

import gzip
import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np


def checksum(content: bytes, method: str = "sha256") -> str:
    return f"{method}:{hashlib.new(method, content).hexdigest()}"


def archive(files: dict[str, bytes]) -> bytes:
    """A tar.gz of files by name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def cifar_batch(count: int, classes: int, key: str = "labels", seed: int = 0) -> dict[str, object]:
    rows = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
    return {"data": rows, key: [i % classes for i in range(count)]}


def cifar10_files(count: int = 20) -> dict[str, bytes]:
    """A small CIFAR-10, as Python 3 pickles it for Python 2: bytes become calls of `_codecs.encode`."""
    files = {f"data_batch_{i}": pickle.dumps(cifar_batch(count, 10, seed=i), protocol=2) for i in range(1, 6)}
    files["test_batch"] = pickle.dumps(cifar_batch(count, 10), protocol=2)
    files["batches.meta"] = pickle.dumps({b"label_names": [f"class {i}".encode() for i in range(10)]}, protocol=2)
    return files


def idx(array: np.ndarray) -> bytes:
    return gzip.compress(
        bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes(), mtime=0
    )


def fashion_files(train: int = 20, test: int = 10) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {}
    for prefix, count in (("train", train), ("t10k", test)):
        files[f"{prefix}-images-idx3-ubyte.gz"] = idx(rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        files[f"{prefix}-labels-idx1-ubyte.gz"] = idx(np.arange(count, dtype=np.uint8) % 10)
    return files


def write_all(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder
