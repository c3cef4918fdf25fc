"""How much of what it should show does a generator show? Mode collapse, counted."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def nearest_template(
    samples: Float[Tensor, "n channels height width"], templates: Float[Tensor, "modes channels height width"]
) -> tuple[Int64[Tensor, " n"], Float[Tensor, " n"]]:
    """Index of each sample's nearest template, and the mean squared difference per pixel and channel to
    it."""
    if samples.shape[1:] != templates.shape[1:]:
        raise ValueError(
            f"samples {tuple(samples.shape[1:])} and templates {tuple(templates.shape[1:])} differ in shape"
        )
    x, t = samples.flatten(1), templates.flatten(1)
    # |x - t|^2 by one matrix product; the part |x|^2 does not change which is nearest.
    partial = t.square().sum(1) - 2 * x @ t.T
    least, index = partial.min(1)
    return index, (least + x.square().sum(1)).clamp_min(0) / x.shape[1]


def position_coverage(
    samples: Float[Tensor, "n channels height width"],
    templates: Float[Tensor, "modes channels height width"],
    tol: float,
) -> dict[str, float]:
    """Which of the possible images does a generator produce, and how evenly?

    The measure of mode collapse for scenes in which every possible image is known, such as one square at any
    place (after the histograms of object positions in Liu et al. 2018, section 5.2).

    Args:
        samples: generated images.
        templates: all possible images, one a mode.
        tol: a sample is valid where its mean squared difference to the nearest template is at most `tol`.
            Below a quarter of the smallest distance between two templates no sample can be near to both.

    Returns:
        `valid`, the share of valid samples; `covered`, the number of templates that at least one valid sample
        shows; `entropy` in nats of the valid samples' distribution over templates (at most `log(modes)`, 0
        where no sample is valid; with n samples it cannot exceed `log(n)` either, so compare equal n).

    >>> squares = torch.eye(4).reshape(4, 1, 2, 2)
    >>> position_coverage(squares[[0, 0, 1, 1]], squares, tol=0.01)["covered"]
    2.0
    """
    if tol < 0:
        raise ValueError(f"tol must not be negative: got {tol}")
    index, distance = nearest_template(samples, templates)
    counts = torch.bincount(index[distance <= tol], minlength=len(templates)).double()
    total = counts.sum()
    share = counts / total.clamp_min(1)
    return {
        "valid": float(total / max(len(samples), 1)),
        "covered": float((counts > 0).sum()),
        "entropy": float(-torch.special.xlogy(share, share).sum()) + 0.0,
    }
