"""Reading tickets: how far two trained subnetworks are apart, and what a mask looks like."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Stability:
    """How far apart two trained copies of a subnetwork are.

    Attributes:
        l2: norm of the difference of the weights under the mask.
        l2_normalised: that over the norm of the first copy's displacement from the reference.
        angle_deg: angle between the two displacements, degrees; NaN where one of them did not move and the other did.
    """

    l2: float
    l2_normalised: float
    angle_deg: float


def _flat(weights: Mapping[str, Tensor], names: list[str], mask: Mapping[str, Tensor] | None) -> Tensor:
    parts = []
    for name in names:
        value = weights[name].detach().double()
        parts.append((value if mask is None else value[mask[name].bool()]).flatten())
    return torch.cat(parts)


def stability(
    w_a: Mapping[str, Tensor],
    w_b: Mapping[str, Tensor],
    w_ref: Mapping[str, Tensor] | None = None,
    mask: Mapping[str, Tensor] | None = None,
) -> Stability:
    """Distance and angle between two sets of weights, both seen from a common starting point.

    Frankle et al. (arXiv 1903.01611), section 4: a = the weights trained in the dense network, b = trained in the
    subnetwork (stability to pruning), or two subnetworks trained on different data orders (stability to data order).

    Args:
        w_a, w_b: parameter name -> weights.
        w_ref: the weights both started from; None: zero.
        mask: parameter name -> boolean; only kept entries count. Its names decide which parameters are
            compared; without a mask, those of `w_a`.

    Raises:
        ValueError: a parameter is missing in one of them, shapes differ, or nothing is left to compare.

    >>> a = {"w": torch.tensor([3.0, 4.0])}
    >>> stability(a, {"w": 2 * a["w"]})
    Stability(l2=5.0, l2_normalised=1.0, angle_deg=0.0)
    """
    names = list(mask if mask is not None else w_a)
    shapes = {name: (mask if mask is not None else w_a)[name].shape for name in names}
    for what, given in (("w_a", w_a), ("w_b", w_b), ("w_ref", w_ref)):
        for name, shape in shapes.items() if given is not None else ():
            assert given is not None
            if name not in given:
                raise ValueError(f"{what} has no {name!r}")
            if given[name].shape != shape:
                raise ValueError(f"{what}[{name!r}] is {tuple(given[name].shape)}, not {tuple(shape)}")
    if not names:
        raise ValueError("nothing to compare: no parameter is named")
    a, b = _flat(w_a, names, mask), _flat(w_b, names, mask)
    if not a.numel():
        raise ValueError("nothing to compare: the masks keep no weight")
    if w_ref is not None:
        ref = _flat(w_ref, names, mask)
        a, b = a - ref, b - ref
    distance, length_a, length_b = (float(v.norm()) for v in (a - b, a, b))
    if distance == 0:
        return Stability(0.0, 0.0, 0.0)
    relative = distance / length_a if length_a else math.inf
    if not (length_a and length_b):
        return Stability(distance, relative, math.nan)
    u, v = a / length_a, b / length_b
    # Kahan's form: exact for parallel vectors, where the arc cosine loses half of the digits.
    angle = 2 * math.atan2(float((u - v).norm()), float((u + v).norm()))
    return Stability(distance, relative, math.degrees(angle))


def ticket_report(
    masks: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    w_init: Mapping[str, Tensor] | None = None,
) -> "DataFrame":
    """What a ticket looks like, one row a layer.

    Args:
        masks: parameter name -> boolean mask `[out, in, ...]`.
        weights: trained weights of the same names.
        w_init: initial weights; without them the last three kinds of columns are left out.

    Returns:
        A pandas DataFrame with the columns: layer, weights, kept, density; outputs, dead_outputs (units without any
        incoming weight), inputs, dead_inputs; in_degree_mean, in_degree_max (kept weights into an output),
        out_degree_mean, out_degree_max; kept_mean, kept_std, kept_positive (share above zero); and, given
        `w_init`, sign_agreement (share of kept weights whose initial sign is the final one), decile_1 ..
        decile_10 (share of the survivors whose initial magnitude lies in that tenth of the layer, smallest
        first; 0.1 each by chance).

    Raises:
        ValueError: a mask without weights, or of another shape.
    """
    import pandas

    rows: list[dict[str, Any]] = []
    for name, mask in masks.items():
        for what, given in (("weights", weights), ("w_init", w_init)):
            if given is not None and (name not in given or given[name].shape != mask.shape):
                raise ValueError(f"{what} has no {name!r} of shape {tuple(mask.shape)}")
        kept = mask.bool()
        flat = kept.flatten(2) if kept.ndim > 2 else kept.unsqueeze(-1)
        into, out = flat.sum((1, 2)).double(), flat.sum((0, 2)).double()
        values = weights[name][kept].double()
        none = values.numel() == 0
        row: dict[str, Any] = {
            "layer": name,
            "weights": kept.numel(),
            "kept": int(kept.sum()),
            "density": float(kept.double().mean()),
            "outputs": into.numel(),
            "dead_outputs": int((into == 0).sum()),
            "inputs": out.numel(),
            "dead_inputs": int((out == 0).sum()),
            "in_degree_mean": float(into.mean()),
            "in_degree_max": int(into.max()),
            "out_degree_mean": float(out.mean()),
            "out_degree_max": int(out.max()),
            "kept_mean": math.nan if none else float(values.mean()),
            "kept_std": math.nan if none else float(values.std(correction=0)),
            "kept_positive": math.nan if none else float((values > 0).double().mean()),
        }
        if w_init is not None:
            first = w_init[name].double()
            agree = first[kept].sign() * values.sign() >= 0
            row["sign_agreement"] = math.nan if none else float(agree.double().mean())
            rank = first.abs().flatten().argsort(stable=True).argsort()
            tenth = (rank * 10 // rank.numel()).view(first.shape)[kept]
            share = torch.bincount(tenth, minlength=10).double() / max(1, tenth.numel())
            row |= {f"decile_{k + 1}": value for k, value in enumerate(share.tolist())}
        rows.append(row)
    return pandas.DataFrame(rows)
