"""What comparing many layers costs, as ratios measured in one run on one machine.

    python benchmarks/similarity.py [--release FOLDER]

Bar: all 190 pairs among 20 layers (1,000 observations, 100 neurons) with shared bases take at most an eighth of 190
calls of `compute_pwcca` of github.com/google/svcca on one thread. With `--release`, a folder that holds its `pwcca.py`
and `cca_core.py`, that code itself is timed; without, a function that does the same work by the same NumPy calls
(covariance of both, two pseudo-inverses, two matrix square roots, a decomposition, an orthonormalisation, and the
search for the trailing correlations, which it does twice).
"""

import argparse
import importlib
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from assay.analysis import pwcca, similarity_matrix

LAYERS, OBSERVATIONS, NEURONS = 20, 1_000, 100


def same_work(a: np.ndarray, b: np.ndarray) -> float:
    """What one call of the release computes; activations are neurons by observations."""
    d = len(a)
    covariance = np.cov(a, b)
    xx, xy, yy = covariance[:d, :d], covariance[:d, d:], covariance[d:, d:]
    roots = []
    for inverse in (np.linalg.pinv(xx), np.linalg.pinv(yy)):
        values, vectors = np.linalg.eigh(inverse)
        roots.append(vectors @ (np.diag(np.sqrt(values.clip(0))) @ vectors.T))
    u, rho, _ = np.linalg.svd(roots[0] @ xy @ roots[1])
    for _ in range(2):
        next(i for i in range(d + 1) if np.sum(rho[:i]) / np.sum(rho) >= 0.98)
    vectors, _ = np.linalg.qr((u.T @ (a - a.mean(1, keepdims=True))).T)
    weights = np.abs(vectors.T @ a.T).sum(1)
    return float((weights * rho).sum() / weights.sum())


def released(folder: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """`compute_pwcca` of a checkout."""
    sys.path.insert(0, folder)
    function = importlib.import_module("pwcca").compute_pwcca
    return lambda a, b: float(function(a, b)[0])


def seconds(program: Callable[[], object]) -> float:
    """Wall seconds of one run."""
    begun = time.perf_counter()
    program()
    return time.perf_counter() - begun


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--release", default="", help="folder with pwcca.py and cca_core.py of google/svcca")
    folder = parser.parse_args().release
    peer, name = (released(folder), "the release") if folder else (same_work, "the release's steps")
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    shape = OBSERVATIONS, NEURONS
    signal = torch.randn(shape, generator=generator)
    layers = [(signal + torch.randn(shape, generator=generator)) for _ in range(LAYERS)]
    plain = [layer.double().T.numpy().copy() for layer in layers]
    pairs = [(i, j) for i in range(LAYERS) for j in range(i)]
    ours, each, theirs = [], [], []
    similarity_matrix(layers[:3])
    for _ in range(3):  # they take turns, so that a busy machine slows all alike
        ours.append(seconds(lambda: similarity_matrix(layers)))
        each.append(seconds(lambda: [pwcca(layers[i], layers[j]) for i, j in pairs[:40]]) * len(pairs) / 40)
        theirs.append(seconds(lambda: [peer(plain[i], plain[j]) for i, j in pairs[:40]]) * len(pairs) / 40)
    matrix, one_by_one, release = (sorted(times)[1] for times in (ours, each, theirs))
    print(f"{len(pairs)} pairs: {release / matrix:.1f} times as fast as {name}, call by call (bar: 8)")
    print(f"shared bases: {one_by_one / matrix:.1f} times as fast as one pair after the other")


if __name__ == "__main__":
    main()
