r"""Taxi: fetch the passenger at one stop, bring them to another.

Two layouts. `"v3"` is the world of Dietterich (2000, arXiv cs/9905014) with the transition table of Gymnasium's Taxi:
5 x 5 cells, walls between some of them, illegal pick-ups and drop-offs punished, the destination seen.
`"msol"` is the one of Igl et al. (2020, "Multitask Soft Option Learning", arXiv 1904.01033, section 5): 6 x 6 cells
among them walls, one action to pick and drop, and a destination that is NOT seen: it is what the task is, and
transferring between tasks is the point. There the taxi may also have a heading (`directional`).
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from assay.envs.base import Tabular, TensorEnv

_ABOARD = 4
# (rows, columns) steps to the right, down, left, up: a clockwise turn is the next one.
_RIGHT, _DOWN, _LEFT, _UP = (0, 1), (1, 0), (0, -1), (-1, 0)
_V3_STOPS = ((0, 0), (0, 4), (4, 0), (4, 3))  # red, green, yellow, blue
_V3_WALLS = {(0, 1), (1, 1), (3, 0), (3, 2), (4, 0), (4, 2)}  # to the right of these cells
_MSOL_ROOM = ("110111", "110111", "111111", "111111", "101011", "101011")  # 1 is free
_MSOL_STOPS = ((0, 0), (0, 5), (5, 0), (5, 4))  # red, green, yellow, blue
_COLOURS = ((220, 50, 47), (60, 160, 60), (230, 200, 40), (40, 90, 210))

Task = int | Sequence[int] | Tensor


class Taxi(TensorEnv):
    """A taxi, a passenger at one of four stops, and another stop to bring them to; delivering terminates.

    A task is an ordered pair of stops, `tasks[t]` = (from, to), t = 0..11. Without `task` every episode draws one.

    Layout "v3": actions 0 down, 1 up, 2 right, 3 left, 4 pick up, 5 drop off. Rewards -1 a step, 20 for delivering, -10
    for a pick-up or drop-off that is not possible; the passenger may be dropped at any stop. Observations show one of
    500 states, numbered as Gymnasium does it: `((row * 5 + column) * 5 + passenger) * 4 + destination`, passenger 4
    being aboard.

    Layout "msol": actions 0 stay, 1 right, 2 down, 3 left, 4 up, 5 pick up or drop off; directional: 0 stay, 1
    forward, 2 turn left, 3 turn right, 4 pick up or drop off. Rewards -0.1 a step, 2 for delivering; a pick-up or
    drop-off elsewhere does nothing. Episodes begin outside the stops. Observations show place, heading and whether the
    passenger is aboard, not the task: 72 states (288 directional), `(cell * headings + heading) * 2 + aboard`.

    `info`: `success` [N], `task` [N], and `state` [N, 4]: row, column, passenger, destination.

    Args:
        num_envs: N.
        layout: "v3" or "msol".
        task: of every copy, one number or [N]; `reset(options={"task": ...})` changes it. None: drawn anew in every
            episode.
        aboard: share of episodes that begin with the passenger aboard; None: 0 in "v3", 0.5 in "msol" (whose test
            tasks have 0).
        directional: with a heading ("msol" only).
        turns: what turning right leads through: "cyclic": right, down, left, up; "released": down, up, right, left, as
            in the authors' code, where a turn can reverse the taxi.
        reorient: probability that a step ends with a random heading (directional only).
        one_hot: observe float32 one-hot vectors; else int64 indices [N, 1].
        masked: tell which actions change something, as `info["action_mask"]`.
        max_steps: time limit; None: 200 in "v3", 50 in "msol". 0: never.
        **options: see `TensorEnv`.

    Raises:
        ValueError: an unknown layout, order of turns or task, a share outside [0, 1], headings in "v3".

    Example:
        >>> Taxi(4096, layout="msol").reset()[0].shape
        torch.Size([4096, 72])
    """

    state_names = ("state", "task", "fixed")

    def __init__(
        self,
        num_envs: int,
        *,
        layout: str = "v3",
        task: Task | None = None,
        aboard: float | None = None,
        directional: bool = False,
        turns: str = "cyclic",
        reorient: float = 0.0,
        one_hot: bool = True,
        masked: bool = False,
        max_steps: int | None = None,
        **options: Any,
    ):
        if layout not in ("v3", "msol"):
            raise ValueError(f"layout is 'v3' or 'msol': got {layout!r}")
        if turns not in ("cyclic", "released"):
            raise ValueError(f"turns are 'cyclic' or 'released': got {turns!r}")
        if directional and layout == "v3":
            raise ValueError(
                "the taxi of layout 'v3' has no heading: take layout='msol' for directional=True"
            )
        limit = (200 if layout == "v3" else 50) if max_steps is None else max_steps or None
        super().__init__(num_envs, max_steps=limit, **options)
        self.layout, self.directional, self.one_hot = layout, directional, one_hot
        self.aboard = (0.0 if layout == "v3" else 0.5) if aboard is None else aboard
        self.reorient = reorient
        for name in ("aboard", "reorient"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share, 0..1: got {getattr(self, name)}")
        if reorient and not directional:
            raise ValueError("reorient turns a taxi that has a heading: take directional=True")
        self.has_action_mask = masked
        v3 = layout == "v3"
        self.height = self.width = 5 if v3 else 6
        self.stops = _V3_STOPS if v3 else _MSOL_STOPS
        """(row, column) of red, green, yellow and blue."""
        self.headings = 4 if directional else 1
        moves = (_DOWN, _UP, _RIGHT, _LEFT) if v3 or turns == "released" else (_RIGHT, _DOWN, _LEFT, _UP)
        self._moves = moves
        self.num_actions = 5 if directional else 6
        self._free = torch.tensor(
            [[True] * 5] * 5 if v3 else [[cell == "1" for cell in row] for row in _MSOL_ROOM]
        ).flatten()
        self._stop_cells = torch.tensor([row * self.width + column for row, column in self.stops])
        start = self._free.clone()
        if not v3:
            start[self._stop_cells] = False
        self._start = start.nonzero().flatten().to(self.device)
        """Cells where episodes begin."""
        pairs = [(a, b) for a in range(4) for b in range(4) if a != b]
        self.tasks = torch.tensor(pairs, device=self.device)
        """[12, 2]: (from, to) of every task."""
        successor, reward, ends = (table.to(self.device) for table in self._tables())
        self.successor, self.rewards, self.ends = successor, reward, ends
        self.num_states = len(successor)
        self.num_observations = self.num_states if v3 else self.height * self.width * self.headings * 2
        self.obs_shape = (self.num_observations,) if one_hot else (1,)
        self.state = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        """[N]: `((cell * headings + heading) * 5 + passenger) * 4 + destination`."""
        self.task = torch.zeros_like(self.state)
        """[N]: task of the running episode."""
        self.fixed = torch.full_like(self.state, -1)
        """[N]: task of all episodes to come; -1: drawn."""
        if task is not None:
            self._fix(task)

    # The world written out.

    def _parts(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(cell, heading, passenger, destination)."""
        rest, destination = state // 4, state % 4
        place, passenger = rest // 5, rest % 5
        return place // self.headings, place % self.headings, passenger, destination

    def _encode(self, cell: Tensor, heading: Tensor | int, passenger: Tensor, destination: Tensor) -> Tensor:
        return ((cell * self.headings + heading) * 5 + passenger) * 4 + destination

    def _step_table(self) -> Tensor:
        """[cells, 4]: where a step in each of the four directions leads."""
        height, width = self.height, self.width
        table = torch.arange(height * width)[:, None].repeat(1, 4)
        for row in range(height):
            for column in range(width):
                for k, (down, right) in enumerate(self._moves):
                    y, x = row + down, column + right
                    if not (0 <= y < height and 0 <= x < width):
                        continue
                    walled = right and (row, min(column, x)) in _V3_WALLS and self.layout == "v3"
                    if not walled and self._free[y * width + x]:
                        table[row * width + column, k] = y * width + x
        return table

    def _tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """Successors, rewards and ends [S, A]."""
        v3 = self.layout == "v3"
        states = torch.arange(self.height * self.width * self.headings * 20)
        cell, heading, passenger, destination = self._parts(states)
        steps = self._step_table()[cell]
        waits = passenger < _ABOARD
        picks = waits & (self._stop_cells[passenger.clamp(max=3)] == cell)
        delivers = ~waits & (self._stop_cells[destination] == cell)
        columns = []

        def act(
            to: Tensor = cell,
            facing: Tensor = heading,
            rider: Tensor = passenger,
            reward: Tensor | None = None,
            ends: Tensor | None = None,
        ) -> None:
            usual = torch.full(states.shape, -1.0 if v3 else -0.1)
            never = torch.zeros(states.shape, dtype=torch.bool)
            columns.append(
                (
                    self._encode(to, facing, rider, destination),
                    usual if reward is None else reward,
                    never if ends is None else ends,
                )
            )

        if self.directional:
            act()
            act(to=steps.gather(1, heading[:, None])[:, 0])
            act(facing=(heading - 1) % 4)
            act(facing=(heading + 1) % 4)
        else:
            if not v3:
                act()
            for k in range(4):
                act(to=steps[:, k])
        aboard = torch.full_like(passenger, _ABOARD)
        if v3:
            act(rider=torch.where(picks, aboard, passenger), reward=torch.where(picks, -1.0, -10.0))
            at_stop = (self._stop_cells == cell[:, None]).long()
            drops = ~waits & at_stop.any(1)
            act(
                rider=torch.where(drops, at_stop.argmax(1), passenger),
                reward=torch.where(delivers, 20.0, torch.where(drops, -1.0, -10.0)),
                ends=delivers,
            )
        else:
            act(
                rider=torch.where(picks, aboard, torch.where(delivers, destination, passenger)),
                reward=torch.where(delivers, 2.0, -0.1),
                ends=delivers,
            )
        successor, reward, ends = (torch.stack(parts, 1) for parts in zip(*columns, strict=True))
        return successor, reward, ends

    def tabular(self) -> Tabular:
        """All states with the destination in them; those whose passenger has arrived are terminal.

        The first distribution is that of the copies' tasks: where `task` is fixed, the copies' mean.
        """
        states = torch.arange(self.num_states, device=self.device)
        cell, _, passenger, destination = self._parts(states)
        terminal = passenger == destination
        P = torch.zeros(self.num_states, self.num_actions or 0, self.num_states, dtype=torch.float64)
        P = P.to(self.device)
        kept = torch.where(self.ends, 1.0, 1.0 - self.reorient).double()
        P.scatter_add_(2, self.successor[..., None], kept[..., None])
        if self.reorient:
            at, _, rider, goal = self._parts(self.successor)
            share = (1 - kept)[..., None] / self.headings
            for heading in range(self.headings):
                P.scatter_add_(2, self._encode(at, heading, rider, goal)[..., None], share)
        P[terminal] = 0.0
        P[terminal, :, states[terminal]] = 1.0
        R = self.rewards.double().masked_fill(terminal[:, None], 0.0)
        drawn = self.fixed < 0
        weight = torch.bincount(self.fixed[~drawn], minlength=12).double() + drawn.sum() / 12
        rho0 = torch.zeros(self.num_states, dtype=torch.float64, device=self.device)
        begins = torch.isin(cell, self._start)
        for (source, goal), share in zip(self.tasks.tolist(), weight / weight.sum(), strict=True):
            for rider, part in ((source, 1 - self.aboard), (_ABOARD, self.aboard)):
                chosen = begins & (passenger == rider) & (destination == goal)
                rho0 += share * part * chosen.double() / chosen.sum()
        return Tabular(P, R, rho0, terminal)

    def state_index(self) -> Int64[Tensor, " envs"]:
        return self.state.clone()

    # Playing.

    def _fix(self, task: Task) -> None:
        given = torch.as_tensor(task, dtype=torch.int64, device=self.device)
        if given.ndim > 1 or (given.ndim == 1 and len(given) != self.num_envs):
            raise ValueError(
                f"task is one number, or one for each of {self.num_envs} copies: got {tuple(given.shape)}"
            )
        if bool(((given < 0) | (given > 11)).any()):
            raise ValueError(f"tasks are 0..11: got {given.tolist()}")
        self.fixed = given.expand(self.num_envs).clone()

    def _reset_all(self, options: dict[str, Any] | None) -> None:
        given = dict(options or {})
        task = given.pop("task", None)
        if task is not None:
            self._fix(task)
        super()._reset_all(given or None)

    def _reset_rows(self, mask: Tensor) -> None:
        draws = self.uniform(4)
        task = torch.where(self.fixed < 0, (draws[:, 0] * 12).long().clamp(max=11), self.fixed)
        place = (draws[:, 1] * len(self._start)).long().clamp(max=len(self._start) - 1)
        heading = (draws[:, 2] * self.headings).long().clamp(max=self.headings - 1)
        source, destination = self.tasks[task].unbind(1)
        passenger = torch.where(draws[:, 3] < self.aboard, _ABOARD, source)
        state = self._encode(self._start[place], heading, passenger, destination)
        self.state = torch.where(mask, state, self.state)
        self.task = torch.where(mask, task, self.task)

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        before = self.state
        reward, ends = self.rewards[before, action], self.ends[before, action]
        self.state = self.successor[before, action]
        if self.reorient:
            draws = self.uniform(2)
            cell, heading, passenger, destination = self._parts(self.state)
            turned = (draws[:, 1] * self.headings).long().clamp(max=self.headings - 1)
            heading = torch.where((draws[:, 0] < self.reorient) & ~ends, turned, heading)
            self.state = self._encode(cell, heading, passenger, destination)
        cell, _, passenger, destination = self._parts(self.state)
        where = torch.stack((cell // self.width, cell % self.width, passenger, destination), 1)
        return reward, ends, {"success": ends, "task": self.task, "state": where}

    def action_mask(self) -> Tensor:
        """[N, A]: what changes the state (with a heading that turns by itself: what would without)."""
        return self.successor[self.state] != self.state[:, None]

    def observe(self) -> Tensor:
        """[N, 500] (or 72, 288) one-hot, or [N, 1]."""
        index = self.state
        if self.layout == "msol":
            cell, heading, passenger, _ = self._parts(self.state)
            index = (cell * self.headings + heading) * 2 + (passenger == _ABOARD)
        if self.one_hot:
            return torch.nn.functional.one_hot(index, self.num_observations).float()
        return index[:, None].clone()

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        import numpy as np

        observation = (
            spaces.Box(0.0, 1.0, self.obs_shape, np.float32)
            if self.one_hot
            else spaces.Box(0, self.num_observations - 1, (1,), np.int64)
        )
        return observation, spaces.Discrete(self.num_actions)

    def render(self, i: int = 0, tile: int = 8) -> Tensor:
        """Copy `i`: stops in their colours, walls black, the taxi grey (orange with the passenger aboard).

        A mark in the middle of a stop is the waiting passenger, a frame the destination; a notch shows the heading.
        """
        cell, heading, passenger, destination = (int(part) for part in self._parts(self.state[i].cpu()))
        side = 2 * tile
        picture = torch.full((self.height * side, self.width * side, 3), 245, dtype=torch.uint8)

        def paint(at: int, colour: Sequence[int], inset: int = 0) -> None:
            y, x = at // self.width * side, at % self.width * side
            rows, columns = slice(y + inset, y + side - inset), slice(x + inset, x + side - inset)
            picture[rows, columns] = torch.tensor(colour, dtype=torch.uint8)

        for at in (~self._free).nonzero().flatten().tolist():
            paint(at, (0, 0, 0))
        for k, at in enumerate(self._stop_cells.tolist()):
            paint(at, _COLOURS[k])
            if k == destination:
                paint(at, (245, 245, 245), 2)
                paint(at, _COLOURS[k], 3)
            if k == passenger:
                paint(at, (200, 30, 160), tile - 2)
        paint(cell, (230, 120, 20) if passenger == _ABOARD else (110, 110, 110), 4)
        if self.directional:
            down, right = self._moves[heading]
            y, x = cell // self.width * side + tile + 3 * down, cell % self.width * side + tile + 3 * right
            picture[y - 1 : y + 1, x - 1 : x + 1] = 0
        if self.layout == "v3":
            for row, column in _V3_WALLS:
                edge = (column + 1) * side
                picture[row * side : (row + 1) * side, edge - 1 : edge + 1] = 0
        return picture
