"""Small files in the formats of real data sets."""

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_cifar(folder: Path, per_batch: int = 20) -> dict[str, NDArray[np.uint8]]:
    """The binary version of CIFAR-10 with few random images a file; labels go round. Returns the records."""
    rng = np.random.default_rng(0)
    tables = {}
    for name in [f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]:
        table = rng.integers(0, 256, (per_batch, 3073)).astype(np.uint8)
        table[:, 0] = np.arange(per_batch) % 10
        table.tofile(folder / name)
        tables[name] = table
    return tables


def write_idx(path: Path, array: NDArray[np.integer]) -> None:
    """One file of bytes in the IDX format of MNIST, compressed if the name ends in .gz."""
    head = b"\x00\x00\x08" + bytes([array.ndim]) + np.array(array.shape, ">i4").tobytes()
    raw = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
