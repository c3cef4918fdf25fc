"""Is a memory-one policy reciprocal? Measures around tit-for-tat."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["always_cooperate", "always_defect", "reciprocity_stats", "tit_for_tat"]

_TFT = (True, False, True, False)  # cooperate after CC and DC (own action first): do what the other did


def reciprocity_stats(
    theta: Float[Tensor, "*batch 5"], tolerance: float = 0.1
) -> dict[str, Float[Tensor, "*batch"]]:
    """How close policies are to tit-for-tat and to even mixing, one number a policy.

    ``theta`` are logits of cooperation in CC, CD, DC, DD, start, in the player's **own view** (`swap_view` turns
    joint order into player 2's view). Foerster et al. 2018 leave open how their share of tit-for-tat is counted, so
    here are all three readings:

    - ``tft_state``: share of the four states whose more likely action is tit-for-tat's;
    - ``tft_policy``: 1 where all four are (its mean over agents is the share of such agents);
    - ``tft_prob``: mean probability of tit-for-tat's action over the four states;
    - ``mixed``: 1 where all five probabilities lie within ``tolerance`` of one half (matching pennies' equilibrium);
    - ``saturated``: share of the five logits beyond 10 in size, where gradients have vanished.

    >>> import torch
    >>> stats = reciprocity_stats(torch.tensor([9.0, -9.0, 9.0, -9.0, 9.0]))
    >>> float(stats["tft_policy"]), float(stats["mixed"])
    (1.0, 0.0)
    """
    p = torch.sigmoid(theta)
    pattern = torch.tensor(_TFT, device=theta.device)
    right = (theta[..., :4] > 0) == pattern
    chosen = torch.where(pattern, p[..., :4], 1 - p[..., :4])
    return {
        "tft_state": right.to(theta).mean(-1),
        "tft_policy": right.all(-1).to(theta),
        "tft_prob": chosen.mean(-1),
        "mixed": ((p - 0.5).abs() <= tolerance).all(-1).to(theta),
        "saturated": (theta.abs() > 10).to(theta).mean(-1),
    }


def tit_for_tat(strength: float = 10.0) -> Float[Tensor, "5"]:
    """Logits (own view) of tit-for-tat: cooperate first, then copy; ``strength`` is the size of the logits."""
    return strength * torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0], dtype=torch.float64)


def always_defect(strength: float = 10.0) -> Float[Tensor, "5"]:
    """Logits of unconditional defection."""
    return torch.full((5,), -strength, dtype=torch.float64)


def always_cooperate(strength: float = 10.0) -> Float[Tensor, "5"]:
    """Logits of unconditional cooperation."""
    return torch.full((5,), strength, dtype=torch.float64)
