"""What a batched game with simultaneous moves returns from a step."""

from typing import Any, NamedTuple

from torch import Tensor


class GameStep(NamedTuple):
    """One step of ``copies`` copies of a game between ``agents`` players.

    A copy that ended is started again within the step: `obs` then holds its first observation and `final_obs` its true
    last one (equal to `obs` elsewhere), so a value can be bootstrapped where a copy was only cut off.
    """

    obs: Tensor
    """``[copies, agents, ...]``: what each player sees now."""
    reward: Tensor
    """``[copies, agents]``."""
    terminated: Tensor
    """``[copies]`` bool: the game itself ended."""
    truncated: Tensor
    """``[copies]`` bool: the copy was cut off at its horizon."""
    final_obs: Tensor
    """``[copies, agents, ...]``."""
    info: dict[str, Any]
    """Further tensors with leading axis ``copies``."""
