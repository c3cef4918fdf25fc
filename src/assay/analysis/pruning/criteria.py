"""Which weights to keep: scores of (initial, final) weights, and masks that keep the highest of them.

Zhou et al., "Deconstructing Lottery Tickets" (arXiv 1905.01067), section 2. A mask is a boolean tensor (True:
kept), a set of masks a plain dict from parameter name to mask.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@runtime_checkable
class MaskCriterion(Protocol):
    """Anything that scores weights; the highest scores are kept."""

    def score(
        self,
        w_init: Float[Tensor, "*shape"],
        w_final: Float[Tensor, "*shape"],
        grad: Float[Tensor, "*shape"] | None = None,
    ) -> Float[Tensor, "*shape"]:
        """One score for each weight."""
        ...


@dataclass(frozen=True)
class Criterion:
    """A named score of (initial weight, final weight, gradient).

    Attributes:
        name: its key in `CRITERIA`.
        about: what it keeps.
        function: (w_init, w_final, grad) -> scores.
        needs_grad: whether `grad` (of the loss at the initial weights) must be given.

    >>> CRITERIA["large_final"].score(torch.tensor([0.5, -0.2]), torch.tensor([0.1, -0.3]))
    tensor([0.1000, 0.3000])
    """

    name: str
    about: str
    function: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    needs_grad: bool = False

    def score(
        self,
        w_init: Float[Tensor, "*shape"],
        w_final: Float[Tensor, "*shape"],
        grad: Float[Tensor, "*shape"] | None = None,
    ) -> Float[Tensor, "*shape"]:
        """One score for each weight, highest kept.

        Raises:
            ValueError: a weight is not finite, or the criterion needs a gradient and none is given.
        """
        for what, values in (("initial", w_init), ("final", w_final)):
            if not torch.isfinite(values).all():
                raise ValueError(
                    f"{self.name}: some {what} weights are NaN or infinite; did training diverge?"
                )
        if self.needs_grad and grad is None:
            raise ValueError(f"{self.name} needs the gradient of the loss at the initial weights: pass grad=")
        return self.function(w_init, w_final, grad)


def same_sign(w_init: Float[Tensor, "*shape"], w_final: Float[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
    """Where a weight did not change its sign; zero has none, so a weight that is zero before or after counts
    as same."""
    return w_init.sign() * w_final.sign() >= 0


def _ranks(values: Tensor) -> Tensor:
    """Rank of each entry in 0..1, ties sharing the lowest."""
    flat = values.flatten()
    ranks = torch.searchsorted(flat.sort().values, flat) / max(1, flat.numel())
    return ranks.to(values.dtype).view_as(values)


def _both_large(a: Tensor, b: Tensor) -> Tensor:
    """Keeping the highest minimum of two ranks is keeping {a >= its q-th percentile and b >= its q-th}."""
    return torch.minimum(_ranks(a), _ranks(b))


def _increase(wi: Tensor, wf: Tensor) -> Tensor:
    return wf.abs() - wi.abs()


def _where_same(wi: Tensor, wf: Tensor, score: Tensor, same: bool = True) -> Tensor:
    keep = same_sign(wi, wf)
    return torch.where(keep if same else ~keep, score, torch.zeros_like(score))


CRITERIA: dict[str, MaskCriterion] = {
    one.name: one
    for one in (
        Criterion("large_final", "large at the end of training", lambda wi, wf, g: wf.abs()),
        Criterion("small_final", "small at the end", lambda wi, wf, g: -wf.abs()),
        Criterion("large_init", "large at the beginning", lambda wi, wf, g: wi.abs()),
        Criterion("small_init", "small at the beginning", lambda wi, wf, g: -wi.abs()),
        Criterion(
            "large_init_large_final",
            "large at both ends, one percentile for both",
            lambda wi, wf, g: _both_large(wi.abs(), wf.abs()),
        ),
        Criterion(
            "small_init_small_final",
            "small at both ends, one percentile for both",
            lambda wi, wf, g: _both_large(-wi.abs(), -wf.abs()),
        ),
        Criterion("magnitude_increase", "grew most in magnitude", lambda wi, wf, g: _increase(wi, wf)),
        Criterion("movement", "moved farthest", lambda wi, wf, g: (wf - wi).abs()),
        Criterion("random", "any: all scores are tied", lambda wi, wf, g: torch.zeros_like(wf)),
        Criterion(
            "large_final_same_sign",
            "large at the end, with the sign of the beginning; others score 0",
            lambda wi, wf, g: _where_same(wi, wf, wf.abs()),
        ),
        Criterion(
            "large_final_diff_sign",
            "large at the end, with the other sign; others score 0",
            lambda wi, wf, g: _where_same(wi, wf, wf.abs(), same=False),
        ),
        Criterion(
            "magnitude_increase_same_sign",
            "grew most, with the sign of the beginning; others score 0",
            lambda wi, wf, g: _where_same(wi, wf, _increase(wi, wf)),
        ),
        Criterion(
            "magnitude_increase_diff_sign",
            "grew most, with the other sign; others score 0",
            lambda wi, wf, g: _where_same(wi, wf, _increase(wi, wf), same=False),
        ),
        Criterion(
            "snip",
            "|gradient x initial weight| (SNIP, arXiv 1810.02340); needs the gradient",
            lambda wi, wf, g: (_given(g) * wi).abs(),
            needs_grad=True,
        ),
        Criterion(
            "grad", "|gradient|; needs the gradient", lambda wi, wf, g: _given(g).abs(), needs_grad=True
        ),
    )
}
"""Every criterion of the paper (and `snip` and `grad` of its code) by name.

`random` scores all weights alike: `build_mask` breaks ties at random. In the sign-aware criteria the weights
of the wrong sign score 0, so that at high densities they are filled in at random, as in the paper.
"""


def _given(grad: Tensor | None) -> Tensor:
    assert grad is not None  # Criterion.score has seen to it
    return grad


def find_criterion(criterion: str | MaskCriterion) -> MaskCriterion:
    """A criterion by name, or the one given.

    Raises:
        ValueError: no such name; the message lists them.
    """
    if not isinstance(criterion, str):
        return criterion
    if criterion not in CRITERIA:
        raise ValueError(f"unknown criterion {criterion!r}: choose from {', '.join(CRITERIA)}")
    return CRITERIA[criterion]


def n_kept(density: float, n: int) -> int:
    """How many of `n` weights a density keeps: density * n rounded (halves up), at least one.

    Raises:
        ValueError: the density is not in (0, 1].
    """
    if not 0 < density <= 1:
        raise ValueError(f"density must be in (0, 1]: got {density}")
    return min(n, max(1, int(density * n + 0.5)))


def build_mask(
    scores: Float[Tensor, "*shape"],
    density: float | None = None,
    *,
    n_keep: int | None = None,
    alive: Bool[Tensor, "*shape"] | None = None,
    generator: torch.Generator | None = None,
) -> Bool[Tensor, "*shape"]:
    """Keep exactly the highest scores.

    Args:
        scores: one a weight.
        density: share of *all* weights to keep, in (0, 1]: round(density * n) of them, at least one.
        n_keep: that number itself; give one of the two.
        alive: weights that may be kept at all (pruned ones never come back).
        generator: breaks ties at random. None: the first of equal scores, in storage order, are kept.

    Raises:
        ValueError: both or neither of density and n_keep; fewer weights alive than to be kept; NaN among the scores.

    >>> build_mask(torch.tensor([0.3, 0.1, 0.2]), n_keep=2)
    tensor([ True, False,  True])
    """
    if (density is None) == (n_keep is None):
        raise ValueError("give exactly one of density and n_keep")
    if torch.isnan(scores).any():
        raise ValueError("some scores are NaN: weights cannot be ranked")
    keep = n_kept(density, scores.numel()) if density is not None else int(n_keep or 0)
    flat = scores.flatten()
    pool = torch.arange(flat.numel(), device=flat.device)
    if alive is not None:
        if alive.shape != scores.shape:
            raise ValueError(f"alive {tuple(alive.shape)} does not fit scores {tuple(scores.shape)}")
        pool = alive.flatten().nonzero().squeeze(1)
    if not 0 <= keep <= pool.numel():
        raise ValueError(f"cannot keep {keep} of {pool.numel()} weights that are alive")
    mask = torch.zeros(flat.numel(), dtype=torch.bool, device=flat.device)
    if keep:
        values = flat[pool]
        cut = values.kthvalue(pool.numel() - keep + 1).values
        above = values > cut
        tied = (values == cut).nonzero().squeeze(1)
        if generator is not None:
            order = torch.randperm(tied.numel(), generator=generator, device=generator.device)
            tied = tied[order.to(tied.device)]
        above[tied[: keep - int(above.sum())]] = True
        mask[pool] = above
    return mask.view(scores.shape)


def quadrant_mask(
    a: Float[Tensor, "*shape"],
    b: Float[Tensor, "*shape"],
    n_keep: int,
    alive: Bool[Tensor, "*shape"] | None = None,
    generator: torch.Generator | None = None,
) -> Bool[Tensor, "*shape"]:
    """The `n_keep` weights that are large in `a` and in `b`: above the same percentile of both.

    Instead of searching for the percentile, keep the highest minimum of the two ranks, which is the same set
    and has the wanted size exactly. Ranks are taken among the weights alive.
    """
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {tuple(a.shape)} and {tuple(b.shape)}")
    if alive is None:
        return build_mask(_both_large(a, b), n_keep=n_keep, generator=generator)
    scores = torch.zeros_like(a)
    scores[alive] = _both_large(a[alive], b[alive])
    return build_mask(scores, n_keep=n_keep, alive=alive, generator=generator)


def global_magnitude_masks(
    state: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None,
    fraction: float,
    names: Iterable[str] | None = None,
) -> dict[str, Tensor]:
    """Prune `fraction` of all weights that are left, the smallest magnitudes over all layers together.

    Args:
        state: name -> weights (more names than are pruned are ignored).
        masks: of the round before; None: everything is alive.
        fraction: in (0, 1); round(fraction * left), halves to even as in `torch.nn.utils.prune`, are removed.
        names: which parameters; default: those of `masks`, else all of `state`.

    Ties are broken by order: the weights that stand first are kept.

    Raises:
        ValueError: fraction outside (0, 1); a mask or name without weights; weights that are not finite.

    >>> global_magnitude_masks({"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([2.0, 4.0])}, None, 0.5)
    {'a': tensor([False,  True]), 'b': tensor([False,  True])}
    """
    check_fraction(fraction)
    chosen = list(names) if names is not None else list(masks if masks is not None else state)
    unknown = [n for n in [*chosen, *(masks or {})] if n not in state]
    if unknown:
        raise ValueError(
            f"no weights named {', '.join(map(repr, unknown))}: the state has {', '.join(state)}"
        )
    alive = {
        n: masks[n] if masks and n in masks else torch.ones_like(state[n], dtype=torch.bool) for n in chosen
    }
    scores = {n: find_criterion("large_final").score(state[n], state[n]) for n in chosen}
    left = sum(int(mask.sum()) for mask in alive.values())
    return global_masks(scores, alive, left - round(fraction * left))


def check_fraction(fraction: float) -> None:
    """Raise ValueError unless 0 < fraction < 1."""
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction removed must lie in (0, 1): got {fraction}")


def global_masks(
    scores: Mapping[str, Tensor],
    alive: Mapping[str, Tensor],
    n_keep: int,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Keep the `n_keep` highest scores of all layers taken together; arguments as `build_mask`."""
    sizes = [scores[name].numel() for name in scores]
    together = torch.cat([scores[name].flatten() for name in scores])
    may = torch.cat([alive[name].flatten() for name in scores])
    parts = build_mask(together, n_keep=n_keep, alive=may, generator=generator).split(sizes)
    return {name: part.view(scores[name].shape) for name, part in zip(scores, parts, strict=True)}


def shuffle_masks(masks: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Random masks with the density of each layer: every mask permuted within itself (the random-pruning control)."""
    out = {}
    for name, mask in masks.items():
        order = torch.randperm(mask.numel(), generator=generator, device=generator.device).to(mask.device)
        out[name] = mask.flatten()[order].view(mask.shape)
    return out


def density(masks: Mapping[str, Tensor]) -> float:
    """Share of weights kept, over all masks together."""
    return sum(int(m.sum()) for m in masks.values()) / max(1, sum(m.numel() for m in masks.values()))
