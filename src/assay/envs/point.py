"""A point in the plane: an empty box, three corners to visit in order, and mazes with walls.

Coordinates (x, y) lie in [-1, 1]; y points up. Discrete actions 0..7 are the eight directions counter-clockwise from
east, all of the same length, and 8 stays; continuous ones are [N, 2] in [-1, 1]. Either moves the point by `step`
times the direction, or, with momentum, pushes it: v <- friction v + force direction, then x <- x + v.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from assay.envs.base import TensorEnv, where_rows
from assay.envs.classic import check_box

STAY = 8
"""The discrete action that does not move."""
PIXELS = 128
"""Side of a rendered picture."""
WHITE, GREY, DARK, RED, GREEN = (
    torch.tensor(rgb, dtype=torch.uint8)
    for rgb in ((250, 250, 250), (200, 205, 210), (60, 66, 75), (200, 60, 50), (70, 160, 90))
)


def directions(device: torch.device | str = "cpu") -> Tensor:
    """[9, 2]: unit vectors of the actions 0..7, counter-clockwise from east, and zero for `STAY`."""
    angle = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    table = torch.stack((torch.cos(angle), torch.sin(angle)), 1)
    table = table.masked_fill(table.abs() < 1e-9, 0.0)  # the cosine of a right angle
    return torch.cat((table, torch.zeros(1, 2, dtype=torch.float64))).float().to(device)


class _Point(TensorEnv):
    """A point that moves; subclasses say what stops it and what is rewarded.

    Attributes:
        position: [N, 2]; assign a new tensor to set it.
        velocity: [N, 2]; zero without momentum.
    """

    state_names: tuple[str, ...] = ("position", "velocity")

    def __init__(
        self,
        num_envs: int,
        *,
        step: float = 0.1,
        momentum: bool = False,
        force: float = 0.02,
        friction: float = 0.9,
        continuous: bool = False,
        max_steps: int | None,
        **options: Any,
    ):
        super().__init__(num_envs, max_steps=max_steps, **options)
        if step <= 0 or force <= 0:
            raise ValueError(f"step and force are positive: got step={step}, force={force}")
        if not 0 <= friction < 1:
            raise ValueError(f"friction (the share of velocity kept) is in [0, 1): got {friction}")
        self.step_size, self.momentum, self.force, self.friction = step, momentum, force, friction
        self.continuous = continuous
        self.num_actions = None if continuous else 9
        self.fastest = force / (1.0 - friction) if momentum else step
        """Greatest change of a coordinate in a step."""
        self._directions = directions(self.device)
        self.position = torch.zeros(num_envs, 2, device=self.device)
        self.velocity = torch.zeros(num_envs, 2, device=self.device)
        self.obs_shape = (4,) if momentum else (2,)

    def _check(self, action: Tensor) -> None:
        if self.continuous:
            check_box(action, self.num_envs, 2)
        super()._check(action)

    def _move(self, action: Tensor) -> Tensor:
        """Displacement [N, 2] that the point tries to make."""
        direction = action.clamp(-1.0, 1.0) if self.continuous else self._directions[action]
        if not self.momentum:
            return direction * self.step_size
        self.velocity = self.velocity * self.friction + direction * self.force
        return self.velocity

    def _go(self, target: Tensor, asked: Tensor | None = None) -> None:
        """Put the point at `target`; along an axis where that is not what it `asked` for, it stops."""
        if self.momentum and asked is not None:
            self.velocity = torch.where(target == asked, self.velocity, 0.0)
        self.position = target

    def _begin(self, mask: Tensor, position: Tensor) -> None:
        self.position = where_rows(mask, position, self.position)
        self.velocity = self.velocity.masked_fill(mask[:, None], 0.0)

    def observe(self) -> Tensor:
        return torch.cat((self.position, self.velocity), 1) if self.momentum else self.position.clone()

    def _action_space(self, spaces: Any) -> Any:
        import numpy as np

        return spaces.Box(-1.0, 1.0, (2,), np.float32) if self.continuous else spaces.Discrete(9)

    def _canvas(self) -> Tensor:
        return WHITE.expand(PIXELS, PIXELS, 3).clone()

    def _disc(self, image: Tensor, centre: Tensor, radius: float, colour: Tensor) -> Tensor:
        """The picture with a disc of `radius` at `centre`, in the plane's coordinates."""
        axis = (torch.arange(PIXELS) + 0.5) / PIXELS * 2 - 1
        inside = (axis - float(centre[0])) ** 2 + (-axis[:, None] - float(centre[1])) ** 2 <= radius**2
        return torch.where(inside[..., None], colour, image)


class PointBox(_Point):
    """A point in an empty box, without reward: the toy world of skill discovery.

    Observation [N, 2] (x, y), or [N, 4] (x, y, vx, vy) with momentum. `info["state"]` is the position [N, 2].
    After the 2-D navigation of Eysenbach et al. (2019), "Diversity is all you need", Figure 2a.

    Args:
        num_envs: N.
        step: length of a move without momentum.
        closed: walls at -1 and 1 (a push into one loses its velocity); else the plane is open.
        momentum: push instead of move.
        force, friction: of a push; friction is the share of the velocity kept.
        continuous: actions [N, 2] in [-1, 1] instead of the nine discrete ones.
        start_spread: the start is uniform within so much of the centre, along each axis.
        max_steps: time limit; default 30, or 60 with momentum.
        **options: see `TensorEnv`.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        step: float = 0.1,
        closed: bool = True,
        momentum: bool = False,
        force: float = 0.02,
        friction: float = 0.9,
        continuous: bool = False,
        start_spread: float = 0.0,
        max_steps: int | None = -1,
        **options: Any,
    ):
        if max_steps == -1:
            max_steps = 60 if momentum else 30
        super().__init__(
            num_envs,
            step=step,
            momentum=momentum,
            force=force,
            friction=friction,
            continuous=continuous,
            max_steps=max_steps,
            **options,
        )
        if not 0 <= start_spread <= 1:
            raise ValueError(f"start_spread is in [0, 1]: got {start_spread}")
        self.closed, self.start_spread = closed, start_spread

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        asked = self.position + self._move(action)
        if self.closed:
            self._go(asked.clamp(-1.0, 1.0), asked)
        else:
            self._go(asked)
        reward = torch.zeros(self.num_envs, device=self.device)
        return reward, torch.zeros_like(reward, dtype=torch.bool), {"state": self.position}

    def _reset_rows(self, mask: Tensor) -> None:
        self._begin(mask, (self.uniform(2) * 2.0 - 1.0) * self.start_spread)

    def _bounds(self) -> list[float]:
        place = [1.0 if self.closed else math.inf] * 2
        return [*place, self.fastest * 1.0001, self.fastest * 1.0001] if self.momentum else place

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        import numpy as np

        high = np.array(self._bounds(), dtype=np.float32)
        return spaces.Box(-high, high, dtype=np.float32), self._action_space(spaces)

    def render(self, i: int = 0) -> UInt8[Tensor, "height width 3"]:
        return self._disc(self._canvas(), self.position[i], 0.05, RED)


class CornerTask(PointBox):
    """Visit three corners of the box in order, +1 for each: a sparse task that needs long straight moves.

    The observation ends with a one-hot [3] of the corner to visit next (all zero once none is left), unless
    `show_progress` is off; the point's own coordinates always come first. Terminated when all are visited.
    `info` gives `state` (position), `progress` (corners visited) and `success`.

    Args:
        num_envs: N.
        corners: the places, in order.
        radius: so near counts as visited.
        show_progress: append the one-hot; else the task is not Markov.
        max_steps: time limit.
        **options: see `PointBox` and `TensorEnv`.
    """

    state_names = ("position", "velocity", "progress")

    def __init__(
        self,
        num_envs: int,
        *,
        corners: Sequence[tuple[float, float]] = ((1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0)),
        radius: float = 0.25,
        show_progress: bool = True,
        max_steps: int | None = 120,
        **options: Any,
    ):
        super().__init__(num_envs, max_steps=max_steps, **options)
        if len(corners) < 1 or any(len(corner) != 2 for corner in corners):
            raise ValueError(f"corners are pairs (x, y), at least one: got {corners!r}")
        if radius <= 0:
            raise ValueError(f"radius is positive: got {radius}")
        self.corners = torch.tensor(corners, dtype=torch.float32, device=self.device)
        self.radius, self.show_progress = radius, show_progress
        self.progress = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        count = len(corners)
        # One row more than corners: nothing is left to visit.
        self._hot = torch.eye(count + 1, device=self.device)[:, :count].contiguous()
        if show_progress:
            self.obs_shape = (self.obs_shape[0] + count,)

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        super()._step(action)
        last = len(self.corners) - 1
        near = (self.position - self.corners[self.progress.clamp(max=last)]).norm(dim=1) <= self.radius
        near = near & (self.progress <= last)
        self.progress = self.progress + near
        done = self.progress > last
        return near.float(), done, {"state": self.position, "progress": self.progress, "success": done}

    def _reset_rows(self, mask: Tensor) -> None:
        super()._reset_rows(mask)
        self.progress = self.progress.masked_fill(mask, 0)

    def observe(self) -> Tensor:
        place = super().observe()
        return torch.cat((place, self._hot[self.progress]), 1) if self.show_progress else place

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        import numpy as np

        extra = len(self.corners) if self.show_progress else 0
        place = np.array(self._bounds(), dtype=np.float32)
        high = np.concatenate((place, np.ones(extra, np.float32)))
        low = np.concatenate((-place, np.zeros(extra, np.float32)))
        return spaces.Box(low, high, dtype=np.float32), self._action_space(spaces)

    def render(self, i: int = 0) -> UInt8[Tensor, "height width 3"]:
        image = self._canvas()
        for k, corner in enumerate(self.corners):
            image = self._disc(image, corner, self.radius, GREY if k < int(self.progress[i]) else GREEN)
        return self._disc(image, self.position[i], 0.05, RED)


LAYOUTS: dict[str, tuple[str, ...]] = {
    "u": (
        "SS.......",
        "SS.......",
        ".........",
        ".........",
        "#######..",
        ".........",
        ".........",
        "GG.......",
        "GG.......",
    ),
    "serpentine": (
        "SS.......",
        "SS.......",
        "#######..",
        ".........",
        ".........",
        "..#######",
        ".........",
        ".......GG",
        ".......GG",
    ),
    "four-rooms": (
        "SS...#.....",
        "SS...#.....",
        "...........",
        "...........",
        ".....#.....",
        "#..######..",
        ".....#.....",
        "...........",
        "...........",
        ".....#...GG",
        ".....#...GG",
    ),
    "barrier-left": (
        "....G....",
        ".........",
        ".........",
        ".........",
        "..#######",
        ".........",
        ".........",
        ".........",
        "....S....",
    ),
    "barrier-right": (
        "....G....",
        ".........",
        ".........",
        ".........",
        "#######..",
        ".........",
        ".........",
        ".........",
        "....S....",
    ),
}
"""Mazes by name: '#' wall, 'S' start, 'G' goal; the first line is the top (y = 1)."""


class PointMaze(_Point):
    """A point in a maze; reward 1 in the goal cells.

    The layout is stretched over [-1, 1]^2. A move that would enter a wall is dropped along that axis only (the point
    slides). Observation (x, y), with momentum also (vx, vy). `info` gives `state` (position [N, 2]), `cell` (index
    of the cell, row by row) and `success` (in a goal cell).

    Args:
        num_envs: N.
        layout: a name of `LAYOUTS`, or lines of '#', 'S', 'G' and '.'.
        terminate: the goal ends the episode; else every step in it is rewarded.
        random_start: uniform over the free cells that are not goals, instead of the 'S' cells.
        step, momentum, force, friction, continuous: see `PointBox`.
        max_steps: time limit.
        **options: see `TensorEnv`.

    Raises:
        ValueError: for an unknown or ragged layout, one without start or goal, or moves longer than a cell.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        layout: str | Sequence[str] = "u",
        terminate: bool = True,
        random_start: bool = False,
        force: float = 0.015,
        max_steps: int | None = 200,
        **options: Any,
    ):
        super().__init__(num_envs, force=force, max_steps=max_steps, **options)
        if isinstance(layout, str):
            if layout not in LAYOUTS:
                raise ValueError(f"unknown layout {layout!r}: choose from {', '.join(LAYOUTS)} or give lines")
            layout = LAYOUTS[layout]
        if len({len(line) for line in layout}) != 1 or set("".join(layout)) - set("#SG."):
            raise ValueError("a layout is a list of equally long lines of '#', 'S', 'G' and '.'")
        rows = torch.tensor([[ord(mark) for mark in line] for line in layout], device=self.device)
        self.height, self.width = rows.shape
        self.walls, self.goals = rows == ord("#"), rows == ord("G")
        """[height, width] bool."""
        start = (rows == ord(".")) | (rows == ord("S")) if random_start else rows == ord("S")
        if not bool(start.any()) or not bool(self.goals.any()):
            raise ValueError("a layout needs a start 'S' and a goal 'G'")
        if self.fastest >= 2.0 / max(self.height, self.width):
            raise ValueError(
                f"a step of up to {self.fastest:g} could jump a cell of {2 / max(rows.shape):.3g}: "
                "make it smaller (step, or force / (1 - friction))"
            )
        self.terminate = terminate
        self._starts = start.flatten().nonzero().flatten()
        self._solid, self._prize = self.walls.flatten(), self.goals.flatten()

    @property
    def num_cells(self) -> int:
        """Cells of the layout, walls included."""
        return self.height * self.width

    def _column(self, x: Tensor) -> Tensor:
        return ((x + 1.0) * (self.width / 2)).long().clamp(0, self.width - 1)

    def _row(self, y: Tensor) -> Tensor:
        return ((1.0 - y) * (self.height / 2)).long().clamp(0, self.height - 1)

    def cell_of(self, position: Tensor) -> Tensor:
        """Index of the cell in which positions [N, 2] lie."""
        return self._row(position[:, 1]) * self.width + self._column(position[:, 0])

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        asked = self.position + self._move(action)
        x, y = self.position.unbind(1)
        to_x, to_y = asked.clamp(-1.0, 1.0).unbind(1)
        # One axis after the other, so that no corner is cut.
        to_column = self._column(to_x)
        row = self._row(y)
        blocked = self._solid[row * self.width + to_column]
        x = torch.where(blocked, x, to_x)
        column = self._column(x)
        to_row = self._row(to_y)
        blocked = self._solid[to_row * self.width + column]
        y = torch.where(blocked, y, to_y)
        self._go(torch.stack((x, y), 1), asked)
        cell = torch.where(blocked, row, to_row) * self.width + column
        success = self._prize[cell]
        done = success if self.terminate else torch.zeros_like(success)
        return success.float(), done, {"state": self.position, "cell": cell, "success": success}

    def _reset_rows(self, mask: Tensor) -> None:
        drawn = self.uniform(3)
        cell = self._starts[(drawn[:, 0] * len(self._starts)).long().clamp(max=len(self._starts) - 1)]
        # Keep off the cell's very edge, so that rounding never puts the point into the neighbour.
        within = drawn[:, 1:] * 0.98 + 0.01
        x = (cell % self.width + within[:, 0]) * (2.0 / self.width) - 1.0
        y = 1.0 - (cell // self.width + within[:, 1]) * (2.0 / self.height)
        self._begin(mask, torch.stack((x, y), 1))

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        import numpy as np

        fastest = self.fastest * 1.0001
        high = np.array([1.0, 1.0, fastest, fastest] if self.momentum else [1.0, 1.0], dtype=np.float32)
        return spaces.Box(-high, high, dtype=np.float32), self._action_space(spaces)

    def render(self, i: int = 0) -> UInt8[Tensor, "height width 3"]:
        axis = (torch.arange(PIXELS) + 0.5) / PIXELS
        row, column = (axis * self.height).long(), (axis * self.width).long()
        walls, goals = self.walls.cpu()[row][:, column], self.goals.cpu()[row][:, column]
        image = torch.where(goals[..., None], GREEN, self._canvas())
        return self._disc(torch.where(walls[..., None], DARK, image), self.position[i], 0.05, RED)
