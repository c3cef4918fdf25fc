"""Layers whose shared part is known: what each measure reports, and what it cannot see."""

from collections.abc import Callable

import torch
from torch import Tensor

from assay.analysis import cca, linear_cka, mean_cca, procrustes, pwcca, svcca
from assay.lab import Trial
from assay.studies.pwcca import study
from assay.studies.pwcca.config import SyntheticConfig


def neuron_correlation(x: Tensor, y: Tensor) -> Tensor:
    """Plain practice: the mean over neurons of x of the best absolute correlation with a neuron of y."""
    x, y = ((a - a.mean(0)) / (a - a.mean(0)).norm(dim=0) for a in (x, y))
    return (x.mT @ y).abs().amax(1).mean()


MEASURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pwcca": pwcca,
    "pwcca_variance": lambda x, y: pwcca(x, y, weight="variance"),
    "mean_cca": mean_cca,
    "svcca": svcca,
    "linear_cka": linear_cka,
    "procrustes": procrustes,
    "neurons": neuron_correlation,
}


@study.trial("synthetic/*", config="synthetic")
def synthetic(run: Trial, arm: str, config: SyntheticConfig) -> dict[str, float]:
    """`signal`: shared and private directions behind random rotations. `maps`: a layer and linear images of itself."""
    generator = run.generator("layers", device="cpu")

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    n, d = config.observations, config.shared + config.private
    shared = normal(n, config.shared)
    layers = []
    for _ in range(2):
        parts = torch.cat([shared, config.loudness * normal(n, config.private)], 1)
        layers.append(parts @ torch.linalg.qr(normal(d, d)).Q + config.offset)
    x, y = layers
    if arm == "synthetic/signal":
        pair = cca(x, y)
        run.save(
            "coefficients",
            {
                "rho": pair.rho.float(),
                "l1": pair.weights("x").float(),
                "variance": pair.weights("x", "variance").float(),
            },
        )
        return {name: float(measure(x, y)) for name, measure in MEASURES.items()} | toy(normal)
    rotation = torch.linalg.qr(normal(d, d)).Q
    scales = torch.logspace(-1, 1, d, dtype=torch.float64)
    images = {
        "permutation": x[:, torch.randperm(d, generator=generator)],
        "rotation": x @ rotation,
        "scaling": x * scales,
        "any": x @ (rotation * scales) @ torch.linalg.qr(normal(d, d)).Q - 5,
    }
    return {
        f"{name}_{kind}": float(measure(x, image))
        for kind, image in images.items()
        for name, measure in MEASURES.items()
    }


def toy(normal: Callable[..., Tensor]) -> dict[str, float]:
    """Three neurons that span two dimensions, up to a whisper, beside a layer that shares exactly these two."""
    plane = normal(500, 2)
    x, y = (torch.cat([plane, plane.sum(1, keepdim=True)], 1) + 1e-3 * normal(500, 3) for _ in range(2))
    return {f"toy_{name}": float(MEASURES[name](x, y)) for name in ("pwcca", "mean_cca", "svcca")}
