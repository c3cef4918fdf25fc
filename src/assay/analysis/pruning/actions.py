"""What happens to the weights once a mask is chosen: where the kept ones restart, and what the pruned ones become.

Zhou et al., "Deconstructing Lottery Tickets" (arXiv 1905.01067), sections 3 and 4 ("mask-1" and "mask-0
actions"). Every function takes (w_init, w_final, mask, generator) and returns a tensor of the layer's shape;
inputs are never written to.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Action = Callable[[Tensor, Tensor, Tensor, torch.Generator | None], Tensor]


def _rand(like: Tensor, generator: torch.Generator | None) -> Tensor:
    device = generator.device if generator is not None else like.device
    return torch.rand(like.shape, generator=generator, device=device, dtype=torch.float32).to(like.device)


def _order(n: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
    device = generator.device if generator is not None else like.device
    return torch.randperm(n, generator=generator, device=device).to(like.device)


def _sign(w: Tensor) -> Tensor:
    """+1 or -1; a weight of exactly zero has no sign and counts as positive."""
    return torch.where(w >= 0, 1.0, -1.0).to(w.dtype)


@dataclass(frozen=True)
class Reset:
    """A mask-1 action: what the kept weights restart from.

    Calling it gives a tensor of the layer's shape, to be used where the mask is True.

    Attributes:
        name: its key in `RESETS`.
        about: what it does.
        function: (w_init, w_final, mask, generator, fresh) -> start values.
    """

    name: str
    about: str
    function: Callable[[Tensor, Tensor, Tensor, torch.Generator | None, Tensor | None], Tensor]

    def __call__(
        self,
        w_init: Float[Tensor, "*shape"],
        w_final: Float[Tensor, "*shape"],
        mask: Bool[Tensor, "*shape"],
        generator: torch.Generator | None = None,
        fresh: Float[Tensor, "*shape"] | None = None,
    ) -> Float[Tensor, "*shape"]:
        """Start values.

        Args:
            w_init: the weights to go back to (at initialisation, or at the rewinding point).
            w_final: the weights after training.
            mask: True where a weight is kept.
            generator: the source of randomness.
            fresh: a new draw from the layer's initialiser, for `reinit`. Without one it draws from the layer's own
                initial values with replacement, which follows any initialiser without knowing it.
        """
        return self.function(w_init, w_final, mask, generator, fresh)


def _fresh(wi: Tensor, wf: Tensor, m: Tensor, g: torch.Generator | None, fresh: Tensor | None) -> Tensor:
    if fresh is not None:
        return fresh.clone()
    picks = (_rand(wi, g).flatten() * wi.numel()).long().clamp_max(wi.numel() - 1)
    return wi.flatten()[picks].view_as(wi)


def _permute_all(
    wi: Tensor, wf: Tensor, m: Tensor, g: torch.Generator | None, fresh: Tensor | None
) -> Tensor:
    return wi.flatten()[_order(wi.numel(), g, wi)].view_as(wi)


def _permuted(values: Tensor, where: Tensor, g: torch.Generator | None) -> Tensor:
    out = values.clone()
    chosen = values[where]
    out[where] = chosen[_order(chosen.numel(), g, values)]
    return out


def _reshuffle(wi: Tensor, wf: Tensor, m: Tensor, g: torch.Generator | None, fresh: Tensor | None) -> Tensor:
    return _permuted(wi, m, g)


def _signed_reshuffle(
    wi: Tensor, wf: Tensor, m: Tensor, g: torch.Generator | None, fresh: Tensor | None
) -> Tensor:
    # Among those of one sign only, so that values and signs both stay what they were.
    return _permuted(_permuted(wi, m & (wi >= 0), g), m & (wi < 0), g)


def layer_scale(w_init: Float[Tensor, "*shape"]) -> float:
    """Standard deviation (population) of a layer's initial weights: the magnitude of the `constant` resets."""
    return float(w_init.double().std(correction=0))


def _constant(wi: Tensor, wf: Tensor, m: Tensor, g: torch.Generator | None, fresh: Tensor | None) -> Tensor:
    return layer_scale(wi) * _sign(_rand(wi, g) - 0.5).to(wi.dtype)


def _signed_constant(
    wi: Tensor, wf: Tensor, m: Tensor, g: torch.Generator | None, fresh: Tensor | None
) -> Tensor:
    return layer_scale(wi) * _sign(wi)


RESETS: dict[str, Reset] = {
    one.name: one
    for one in (
        Reset("rewind", "their own initial values", lambda wi, wf, m, g, f: wi.clone()),
        Reset("reinit", "a fresh draw from the initialiser", _fresh),
        Reset("reinit_permutation", "a permutation of the whole layer's initial values", _permute_all),
        Reset("reshuffle", "the kept initial values, permuted within the layer", _reshuffle),
        Reset("constant", "plus or minus the layer's initial standard deviation, sign at random", _constant),
        Reset(
            "signed_reinit",
            "a fresh draw with the sign of the initial value",
            lambda wi, wf, m, g, f: _fresh(wi, wf, m, g, f).abs() * _sign(wi),
        ),
        Reset(
            "signed_reshuffle", "kept initial values permuted among those of equal sign", _signed_reshuffle
        ),
        Reset(
            "signed_constant", "the standard deviation with the sign of the initial value", _signed_constant
        ),
        Reset("final", "where training left them (no reset)", lambda wi, wf, m, g, f: wf.clone()),
    )
}
"""Mask-1 actions by name."""


def moved_toward_zero(
    w_init: Float[Tensor, "*shape"], w_final: Float[Tensor, "*shape"]
) -> Bool[Tensor, "*shape"]:
    """Where training made a weight smaller in magnitude."""
    return w_final.abs() < w_init.abs()


@dataclass(frozen=True)
class PrunedValue:
    """A mask-0 action: the value at which pruned weights are frozen.

    Calling it gives a tensor of the layer's shape, to be used where the mask is False.

    Attributes:
        name: its key in `PRUNED_VALUES`.
        about: what it does.
        function: (w_init, w_final, mask, generator) -> frozen values.
        zeroes_kept: whether kept weights that moved toward zero start at zero, too (the paper's variant 2).
    """

    name: str
    about: str
    function: Action
    zeroes_kept: bool = False

    def __call__(
        self,
        w_init: Float[Tensor, "*shape"],
        w_final: Float[Tensor, "*shape"],
        mask: Bool[Tensor, "*shape"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*shape"]:
        """Frozen values; the arguments are those of `Reset`."""
        return self.function(w_init, w_final, mask, generator)

    def start(
        self,
        start: Float[Tensor, "*shape"],
        w_init: Float[Tensor, "*shape"],
        w_final: Float[Tensor, "*shape"],
    ) -> Float[Tensor, "*shape"]:
        """The start values of the kept weights after this action (a change in `zero_toward_all` only)."""
        if not self.zeroes_kept:
            return start
        return torch.where(moved_toward_zero(w_init, w_final), torch.zeros_like(start), start)


def _zero_where(wi: Tensor, zero: Tensor) -> Tensor:
    return torch.where(zero, torch.zeros_like(wi), wi)


def _toward(wi: Tensor, wf: Tensor, m: Tensor, g: torch.Generator | None) -> Tensor:
    return _zero_where(wi, moved_toward_zero(wi, wf))


def _random_subset(wi: Tensor, wf: Tensor, m: Tensor, g: torch.Generator | None) -> Tensor:
    # As many zeros among the pruned weights as `zero_toward` has, wherever they fall.
    return _zero_where(wi, _permuted(moved_toward_zero(wi, wf), ~m, g))


PRUNED_VALUES: dict[str, PrunedValue] = {
    one.name: one
    for one in (
        PrunedValue("zero", "zero", lambda wi, wf, m, g: torch.zeros_like(wi)),
        PrunedValue("freeze_init", "their initial value", lambda wi, wf, m, g: wi.clone()),
        PrunedValue(
            "zero_toward", "zero if training moved them toward zero, else their initial value", _toward
        ),
        PrunedValue(
            "zero_toward_all",
            "the same; and kept weights that moved toward zero start at zero",
            _toward,
            zeroes_kept=True,
        ),
        PrunedValue(
            "zero_away",
            "control: zero if training moved them away from zero",
            lambda wi, wf, m, g: _zero_where(wi, ~moved_toward_zero(wi, wf)),
        ),
        PrunedValue(
            "zero_random", "control: as many zeros as zero_toward has, drawn at random", _random_subset
        ),
    )
}
"""Mask-0 actions by name."""


def _find(table: dict[str, object], what: str, name: object) -> object:
    if not isinstance(name, str):
        return name
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}: choose from {', '.join(table)}")
    return table[name]


def find_reset(reset: str | Reset) -> Reset:
    """A reset by name, or the one given; ValueError lists the names."""
    return _find(RESETS, "reset", reset)  # type: ignore[arg-type, return-value]


def find_pruned_value(value: str | PrunedValue) -> PrunedValue:
    """A mask-0 action by name, or the one given; ValueError lists the names."""
    return _find(PRUNED_VALUES, "pruned value", value)  # type: ignore[arg-type, return-value]


def masking_is_training(
    w_init: Float[Tensor, "*shape"], w_final: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """The paper's hypothesis in one line: a weight that training moves toward zero is brought to zero, any
    other is set to its initial value. Applied to a whole layer, it is a "trained" layer that has never been trained.

    >>> masking_is_training(torch.tensor([0.5, -0.2]), torch.tensor([0.1, -0.3]))
    tensor([ 0.0000, -0.2000])
    """
    return _zero_where(w_init, moved_toward_zero(w_init, w_final))
