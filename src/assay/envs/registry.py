"""Every world of assay by name: for `make`, and as Gymnasium ids `assay/<Name>-v0`.

Names lead to dotted paths, so listing them imports nothing.
"""

from functools import partial
from importlib import import_module
from typing import Any

from assay._extras import require
from assay.envs.base import TensorEnv

WORLDS: dict[str, str] = {
    "Acrobot": "assay.envs.classic:Acrobot",
    "CartPole": "assay.envs.classic:CartPole",
    "CartPoleSwingUp": "assay.envs.classic:CartPoleSwingUp",
    "Catch": "assay.envs.catch:Catch",
    "Chain": "assay.envs.chain:Chain",
    "CornerTask": "assay.envs.point:CornerTask",
    "DoorKeyGrid": "assay.envs.rooms:DoorKeyGrid",
    "FourRooms": "assay.envs.rooms:FourRooms",
    "GotoGrid": "assay.envs.goto:GotoGrid",
    "Jackpot": "assay.envs.suite:Jackpot",
    "MiniBreakout": "assay.envs.arcade:MiniBreakout",
    "MountainCar": "assay.envs.classic:MountainCar",
    "MountainCarContinuous": "assay.envs.classic:MountainCarContinuous",
    "Pendulum": "assay.envs.classic:Pendulum",
    "PointBox": "assay.envs.point:PointBox",
    "PointMaze": "assay.envs.point:PointMaze",
    "Pong": "assay.envs.arcade:Pong",
    "RoomsGrid": "assay.envs.rooms:RoomsGrid",
    "SideScroller": "assay.envs.scroller:SideScroller",
    "SnackGrid": "assay.envs.suite:SnackGrid",
    "Taxi": "assay.envs.taxi:Taxi",
}
"""Name -> where its constructor is: called with the number of copies and keywords."""


def _name(id: str) -> str:
    name = id.removeprefix("assay/").removesuffix("-v0")
    if name not in WORLDS:
        raise ValueError(f"unknown world {id!r}: choose from {', '.join(sorted(WORLDS))}")
    return name


def make(id: str, num_envs: int = 1, **kwargs: Any) -> TensorEnv:
    """Build `num_envs` copies of a world.

    Args:
        id: a name ("Catch") or a Gymnasium id ("assay/Catch-v0").
        num_envs: N.
        kwargs: for the world's constructor.

    Raises:
        ValueError: there is no such world.
    """
    module, _, attribute = WORLDS[_name(id)].partition(":")
    return getattr(import_module(module), attribute)(num_envs, **kwargs)


def _single(name: str, render_mode: str | None = None, **kwargs: Any) -> Any:
    from assay.envs.adapters import as_gymnasium

    return as_gymnasium(make(name, 1, **kwargs), render_mode)


def _vector(name: str, num_envs: int = 1, render_mode: str | None = None, **kwargs: Any) -> Any:
    from assay.envs.adapters import as_gymnasium_vector

    return as_gymnasium_vector(make(name, num_envs, **kwargs), render_mode)


def register_gymnasium() -> tuple[str, ...]:
    """Register every world with Gymnasium; returns the ids.

    `gymnasium.make(id)` then gives one copy, `gymnasium.make_vec(id, num_envs=N)` the batched program itself.
    Calling it again changes nothing.

    Example:
        >>> import gymnasium
        >>> from assay.envs import register_gymnasium
        >>> ids = register_gymnasium()
        >>> gymnasium.make_vec("assay/Catch-v0", num_envs=3).num_envs
        3
    """
    gymnasium = require("gymnasium", "rl")
    ids = tuple(f"assay/{name}-v0" for name in WORLDS)
    for id in ids:
        if id not in gymnasium.registry:
            name = _name(id)
            gymnasium.register(
                id, entry_point=partial(_single, name), vector_entry_point=partial(_vector, name)
            )
    return ids
