"""Several tasks behind one interface: rows grouped by task, equal observations and actions.

Multi-task agents are tested on tasks whose rewards differ in size (`reward_scales`) and in density.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.envs.base import Generators, Obs, Step, Tabular, TensorEnv, map_obs
from assay.envs.catch import Catch
from assay.envs.goto import GotoGrid
from assay.envs.grid import Board, open_board_moves
from assay.envs.rooms import RoomsGrid

MakeTask = Callable[..., TensorEnv]
"""Called with (num_envs, generator=..., device=..., autoreset=..., validate=...)."""


class MultiTask(TensorEnv):
    """Copies of several tasks in one batch.

    Rows come task after task. With a sequence of G generators each of the G blocks of rows holds every task (its
    rows task after task), so that several seeds share one batch.

    A step's `info` adds to what all tasks tell alike: `task` [N] int64 and `raw_reward` [N], the reward before
    scaling. Observations do not tell the task.

    Args:
        tasks: what makes each task: a class or function of (num_envs, **options). Their observations and numbers of
            actions have to be equal.
        copies: of each task in a block; one number for all, or one a task.
        reward_scales: rewards are multiplied by this, task by task.
        labels: the numbers that `task` and `info["task"]` tell; default 0, 1, ... An actor that runs some of an agent's
            tasks says which.
        generator, device, autoreset, validate: see `TensorEnv`.

    Example:
        >>> from functools import partial
        >>> both = MultiTask([Catch, partial(Catch, moves=(1, 0, -1))], copies=3, reward_scales=(1, 100))
        >>> both.num_envs, both.task.tolist()
        (6, [0, 0, 0, 1, 1, 1])
    """

    def __init__(
        self,
        tasks: Sequence[MakeTask],
        copies: int | Sequence[int],
        *,
        reward_scales: Sequence[float] | None = None,
        labels: Sequence[int] | None = None,
        generator: Generators | None = None,
        device: str | torch.device = "cpu",
        autoreset: bool = True,
        validate: bool = True,
    ):
        counts = [copies] * len(tasks) if isinstance(copies, int) else list(copies)
        scales = [1.0] * len(tasks) if reward_scales is None else list(reward_scales)
        if not tasks or len(counts) != len(tasks) or len(scales) != len(tasks):
            raise ValueError(f"{len(tasks)} tasks need as many copies and scales: got {counts} and {scales}")
        names = list(range(len(tasks))) if labels is None else list(labels)
        if len(names) != len(tasks) or min(names) < 0:
            raise ValueError(f"{len(tasks)} tasks need as many labels, not negative: got {names}")
        blocks = len(generator) if isinstance(generator, Sequence) else 1
        super().__init__(
            blocks * sum(counts), generator=generator, device=device, autoreset=autoreset, validate=validate
        )
        self.envs = [
            make(
                blocks * count,
                generator=self.generators if blocks > 1 else self.generator,
                device=device,
                autoreset=autoreset,
                validate=False,
            )
            for make, count in zip(tasks, counts, strict=True)
        ]
        shapes = {(env.obs_shape, env.num_actions, env.has_action_mask) for env in self.envs}
        if len(shapes) != 1 or self.envs[0].num_actions is None:
            raise ValueError(
                f"tasks need equal observations and discrete actions: got {sorted(map(str, shapes))}"
            )
        self.obs_shape, self.num_actions, self.has_action_mask = shapes.pop()
        # Rows of the tasks one after the other, and how the blocks want them.
        parts = [torch.arange(blocks * n).view(blocks, n) for n in counts]
        offsets = [blocks * sum(counts[:k]) for k in range(len(counts))]
        order = torch.cat([part + offset for part, offset in zip(parts, offsets, strict=True)], 1).flatten()
        self._order, self._back = order.to(self.device), order.argsort().to(self.device)
        self._blocks = blocks
        self._sizes = [env.num_envs for env in self.envs]
        kinds = torch.repeat_interleave(torch.arange(len(tasks)), torch.tensor(self._sizes))
        self.task = torch.tensor(names)[kinds[order]].to(self.device)
        """[N]: task of each row."""
        self.reward_scales = torch.tensor(scales, device=self.device)
        self._row_scale = self.reward_scales[kinds[order].to(self.device)]

    @property
    def num_tasks(self) -> int:
        """How many tasks there are."""
        return len(self.envs)

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        joined = torch.cat(tuple(parts))
        return joined if self._blocks == 1 else joined[self._order]

    def _split(self, rows: Tensor) -> list[Tensor]:
        return list((rows if self._blocks == 1 else rows[self._back]).split(self._sizes))

    def _join_obs(self, parts: Sequence[Obs]) -> Obs:
        return map_obs(lambda *tensors: self._join(tensors), *parts)

    def step(self, action: Tensor) -> Step:
        if self.validate:
            self._check(action)
        steps = [env.step(part) for env, part in zip(self.envs, self._split(action), strict=True)]
        raw = self._join([s.reward for s in steps])
        info = {"task": self.task, "raw_reward": raw}
        for key, value in steps[0].info.items():
            if all(key in s.info and s.info[key].shape[1:] == value.shape[1:] for s in steps):
                info[key] = self._join([s.info[key] for s in steps])
        obs = self._join_obs([s.obs for s in steps])
        ended = any(s.obs is not s.final_obs for s in steps)
        self._gather()
        return Step(
            obs,
            raw * self._row_scale,
            self._join([s.terminated for s in steps]),
            self._join([s.truncated for s in steps]),
            self._join_obs([s.final_obs for s in steps]) if ended else obs,
            info,
        )

    def _gather(self) -> None:
        self.elapsed = self._join([env.elapsed for env in self.envs])
        self._ended = self._join([env._ended for env in self.envs])

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        # The tasks end and begin anew by themselves, each with its own time limit: see `step`.
        step = self.step(action)
        return step.reward, step.terminated, step.info

    def _reset_all(self, options: dict[str, Any] | None) -> None:
        if options:
            super()._reset_all(options)  # says that there are none
        # Not row by row: simulators are seeded at their first whole reset.
        for env in self.envs:
            env.reset()
        self._gather()

    def _reset_rows(self, mask: Tensor) -> None:
        for env, part in zip(self.envs, self._split(mask), strict=True):
            if bool(part.any()):
                env.reset_where(part)

    def close(self) -> None:
        for env in self.envs:
            env.close()

    def _reset_info(self) -> dict[str, Tensor]:
        return {**super()._reset_info(), "task": self.task}

    def action_mask(self) -> Tensor:
        return self._join([env.action_mask() for env in self.envs])

    def observe(self) -> Obs:
        return self._join_obs([env.observe() for env in self.envs])

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        return self.envs[0]._both_spaces()

    def render(self, i: int = 0) -> Tensor:
        """Picture of row `i`, as its task draws it."""
        at = int(self._order[i])
        for env in self.envs:
            if at < env.num_envs:
                return env.render(at)
            at -= env.num_envs
        raise IndexError(f"row {i} of {self.num_envs}")

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        for k, env in enumerate(self.envs):
            part = env.state_dict()
            del part["generators"]  # shared, and saved above
            state[f"task{k}"] = part
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        names = [f"task{k}" for k in range(len(self.envs))]
        if not set(names) <= set(state):
            raise ValueError(f"a snapshot of these tasks holds {names}: got {sorted(state)}")
        for name, env in zip(names, self.envs, strict=True):
            env.load_state_dict({**state[name], "generators": state["generators"]})
        super().load_state_dict({key: value for key, value in state.items() if key not in names})

    def to(self, device: str | torch.device) -> "MultiTask":
        super().to(device)
        for env in self.envs:
            env.to(device)
            env.generators = self.generators
        return self


class SnackGrid(Board):
    """Collect pellets on an open board: a dense task. Time alone ends an episode.

    Args:
        num_envs: N.
        size: side of the board, or (height, width).
        pellets: placed at random, one in a cell.
        reward: for each pellet.
        max_steps: of an episode.
        **options: of `Board`; planes are agent, nothing, pellets. Moves as in `GotoGrid`.
    """

    state_names = ("agent", "pellets")
    kinds = 3

    def __init__(
        self,
        num_envs: int,
        size: int | tuple[int, int] = 7,
        *,
        pellets: int = 10,
        reward: float = 0.05,
        max_steps: int | None = 40,
        **options: Any,
    ):
        board = (size, size) if isinstance(size, int) else size
        if not 1 <= pellets < board[0] * board[1]:
            raise ValueError(f"{board} cells hold the agent and 1 or more pellets: got {pellets}")
        super().__init__(num_envs, board=board, max_steps=max_steps, **options)
        self._next = open_board_moves(*board).to(self.device)[:, self.moves].flatten()
        self._unit = torch.eye(self.area, dtype=torch.bool, device=self.device)
        self.reward, self.count = reward, pellets
        self.highest = reward * pellets
        self.agent = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self.pellets = torch.zeros(num_envs, self.area, dtype=torch.bool, device=self.device)

    def _reset_rows(self, mask: Tensor) -> None:
        # Random ranks of the cells: the agent on the first, pellets on the next.
        rank = self.uniform(self.area).argsort(1)
        self.agent = torch.where(mask, rank[:, 0], self.agent)
        fresh = torch.zeros_like(self.pellets).scatter_(1, rank[:, 1 : 1 + self.count], True)
        self.pellets = torch.where(mask[:, None], fresh, self.pellets)

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        self.agent = self._next[self.agent * self.num_actions + action]
        found = self.pellets.gather(1, self.agent[:, None]).squeeze(1)
        self.pellets = self.pellets & ~self._unit[self.agent]
        done = torch.zeros_like(found)
        return self.reward * found.float(), done, {"success": ~self.pellets.any(1)}

    def _marks(self) -> Tensor:
        marks = self._marked(self.agent)
        marks[:, 2] = self.pellets.float()
        return marks


class Jackpot(Board):
    """A corridor in which counting rewards misleads: many small ones to the left, one large one to the right.

    The agent starts in cell 5 of 11. The left end pays 1 and moves the agent to cell 2; the right end pays `jackpot`
    and terminates. Within 40 steps the left end can be reached 18 times: an agent that sees rewards clipped to 1
    prefers it.

    Args:
        num_envs: N.
        jackpot: reward at the right end.
        moves: cells that each action moves by, default left and right.
        board: (height, width) on which the corridor is drawn, line after line as text is; default one line.
        max_steps: of an episode.
        **options: of `Board`; planes are agent, right end, left end.
    """

    state_names = ("cell",)
    kinds = 3
    length, first, back = 11, 5, 2

    def __init__(
        self,
        num_envs: int,
        jackpot: float = 100.0,
        *,
        moves: Sequence[int] = (-1, 1),
        board: tuple[int, int] = (1, 11),
        max_steps: int | None = 40,
        **options: Any,
    ):
        if board[0] * board[1] < self.length:
            raise ValueError(f"the corridor has {self.length} cells: got a board of {board}")
        super().__init__(num_envs, board=board, moves=moves, max_steps=max_steps, **options)
        self.jackpot = jackpot
        # The left end can be had once after 5 steps, then every second.
        small = 0.0 if max_steps is None else max(0.0, float((max_steps - self.first) // self.back + 1))
        self.highest = max(jackpot, small)
        self.cell = torch.full((num_envs,), self.first, dtype=torch.int64, device=self.device)

    def _reset_rows(self, mask: Tensor) -> None:
        self.cell = self.cell.masked_fill(mask, self.first)

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        cell = (self.cell + self.moves[action]).clamp(0, self.length - 1)
        left, right = cell == 0, cell == self.length - 1
        self.cell = cell.masked_fill(left, self.back)
        return left.float() + self.jackpot * right.float(), right, {"success": right}

    def _marks(self) -> Tensor:
        right = torch.full_like(self.cell, self.length - 1)
        return self._marked(self.cell, right, torch.zeros_like(right))

    def state_index(self) -> Tensor:
        """[N] int64: the cell."""
        return self.cell

    def tabular(self) -> Tabular:
        """The 11 cells without the time limit; the last is terminal, and nobody stays in the first."""
        cells = torch.arange(self.length, device=self.device)
        after = (cells[:, None] + self.moves).clamp(0, self.length - 1)
        left, right = after == 0, after == self.length - 1
        terminal = cells == self.length - 1
        after = torch.where(terminal[:, None], cells[:, None], after.masked_fill(left, self.back))
        R = (left.double() + self.jackpot * right.double()).masked_fill(terminal[:, None], 0.0)
        P = F.one_hot(after, self.length).double()
        return Tabular(P, R, (cells == self.first).double(), terminal)


class DensityGrid(Board):
    """Go to the lit cell and stay there; paid every step (dense) or once at the end (sparse), 1 in all.

    Both kinds have the same optimal policies and returns of one size: only the density of the rewards differs.
    Episodes last `length` steps and then terminate.

    Args:
        num_envs: N.
        dense: 1 / length for every step that ends on the lit cell; else 1 for ending the episode there.
        size: side of the board, or (height, width).
        length: of an episode.
        moves: as in `GotoGrid`; the default has "stay" as the last.
        **options: of `Board`; planes are agent and lit cell.
    """

    state_names = ("agent", "goal")

    def __init__(
        self,
        num_envs: int,
        dense: bool,
        size: int | tuple[int, int] = 7,
        *,
        length: int = 20,
        moves: Sequence[int] = (0, 1, 2, 3, 4),
        **options: Any,
    ):
        if length < 1:
            raise ValueError(f"an episode has at least one step: got length={length}")
        board = (size, size) if isinstance(size, int) else size
        super().__init__(num_envs, board=board, moves=moves, **options)
        self.dense, self.length = dense, length
        self._next = open_board_moves(*board).to(self.device)[:, self.moves].flatten()
        self.agent = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self.goal = torch.zeros_like(self.agent)

    def _reset_rows(self, mask: Tensor) -> None:
        place = self.integers(self.area, 2)
        self.agent = torch.where(mask, place[:, 0], self.agent)
        self.goal = torch.where(mask, place[:, 1], self.goal)

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        self.agent = self._next[self.agent * self.num_actions + action]
        there = self.agent == self.goal
        over = self.elapsed + 1 >= self.length
        reward = there.float() / self.length if self.dense else (there & over).float()
        return reward, over, {"success": there}

    def _marks(self) -> Tensor:
        return self._marked(self.agent, self.goal)


class TaskSuite(MultiTask):
    """Small tasks of one observation, [4, 7, 7] or flat 50, and four actions (up, right, down, left).

    - `catch`: -1 or 1 at the end of each episode (up and down leave the paddle where it is); `mirror`: the same with
      left and right exchanged;
    - `goal`: sparse, 1 at a random goal within 40 steps;
    - `snack`: dense, 0.05 for each of 10 pellets, 40 steps;
    - `jackpot`: see `Jackpot`.

    Planes: agent or paddle; ball, goal or jackpot; pellets or the corridor's left end; none. In the flat view (a board
    of 10 x 5, as large as bsuite's Catch) they are bright 1, 0.75, 0.5 and 0.25. What task it is can be
    seen from the board, except `catch` from `mirror`: there an agent can do no better than guess.

    Args:
        copies: of each task in a block of rows.
        tasks: which, in order.
        reward_scales: of each task; default 1.
        flat: observations [50] instead of [4, 7, 7].
        jackpot: its size before scaling.
        generator, device, autoreset, validate: see `TensorEnv`.
    """

    names = ("catch", "mirror", "goal", "snack", "jackpot")

    def __init__(
        self,
        copies: int | Sequence[int] = 32,
        tasks: Sequence[str] = ("catch", "goal", "snack", "jackpot"),
        *,
        reward_scales: Sequence[float] | None = None,
        flat: bool = False,
        jackpot: float = 100.0,
        **options: Any,
    ):
        board = (10, 5) if flat else (7, 7)
        look: dict[str, Any] = {
            "planes": 4,
            "view": "flat" if flat else "planes",
            "brightness": (1.0, 0.75, 0.5, 0.25),
        }
        makers: dict[str, MakeTask] = {
            "catch": lambda n, **kw: Catch(n, *board, moves=(0, 1, 0, -1), **look, **kw),
            "mirror": lambda n, **kw: Catch(n, *board, moves=(0, -1, 0, 1), **look, **kw),
            "goal": lambda n, **kw: GotoGrid(n, board, max_steps=40, **look, **kw),
            "snack": lambda n, **kw: SnackGrid(n, board, max_steps=40, **look, **kw),
            "jackpot": lambda n, **kw: Jackpot(n, jackpot, moves=(0, 1, 0, -1), board=board, **look, **kw),
        }
        unknown = [task for task in tasks if task not in makers]
        if unknown:
            raise ValueError(f"tasks are {', '.join(makers)}: got {unknown}")
        super().__init__([makers[task] for task in tasks], copies, reward_scales=reward_scales, **options)
        bounds = [(env.lowest, env.highest) for env in self.envs]
        self.lowest, self.highest = torch.tensor(bounds, device=self.device).unbind(1)
        """[tasks]: return of an episode that fails, and of a perfect one, before scaling."""

    def normalised(self, returns: Tensor) -> Tensor:
        """Unscaled returns of each task [..., tasks] as a score: 0 failure, 1 perfect."""
        return (returns - self.lowest) / (self.highest - self.lowest)


class RoomsSuite(MultiTask):
    """Six related `RoomsGrid` tasks: find the goal, shown as the same sign everywhere, in different worlds.

    Four rooms of 3 x 3, seen as a picture [3, 9, 9], 60 steps: (0) the plain chain of rooms; (1) a random start; (2)
    the goal in the second room; (3) openings in varying places; (4) a locked door and its key; (5) deadly cells.

    Args:
        copies: of each task in a block of rows.
        tasks: which of the six, in order.
        max_steps: of an episode.
        reward_scales, generator, device, autoreset, validate: see `MultiTask`.
    """

    def __init__(
        self,
        copies: int | Sequence[int] = 32,
        tasks: Sequence[int] = (0, 1, 2, 3, 4, 5),
        *,
        max_steps: int = 60,
        **options: Any,
    ):
        kinds: list[dict[str, Any]] = [
            {},
            {"start": "random"},
            {"goal_room": 1},
            {"layouts": range(8)},
            {"keys": 1},
            {"traps": 1},
        ]
        if any(not 0 <= task < len(kinds) for task in tasks):
            raise ValueError(f"tasks are 0..{len(kinds) - 1}: got {list(tasks)}")

        def maker(kind: dict[str, Any]) -> MakeTask:
            return lambda n, **kw: RoomsGrid(n, 2, 3, view="image", max_steps=max_steps, **kind, **kw)

        super().__init__([maker(kinds[task]) for task in tasks], copies, **options)
