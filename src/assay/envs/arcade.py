"""Two small arcade games on a 10x10 screen: breakout by MinAtar's rules, and pong for two.

Observations are images [channels, 10, 10]: float32 of zeros and ones, or (`pixels=torch.uint8`, a quarter of the
memory) of 0 and 255.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from assay.envs.base import Obs, Step, TensorEnv, TensorMultiEnv, map_obs, where_rows

SIZE = 10
CELLS = SIZE * SIZE
WALL = (1 << 4 * SIZE) - (1 << SIZE)
"""All bricks of breakout, as bits."""
SCALE = 12
"""Pixels of a cell in a picture."""
COLOURS = ((90, 160, 240), (250, 250, 250), (110, 110, 110), (230, 140, 60))


def _paint(channels: Tensor, colours: tuple[tuple[int, int, int], ...]) -> Tensor:
    """[H, W, 3] uint8: each channel [C, H, W] in its colour, later ones on top."""
    image = torch.full((*channels.shape[1:], 3), 20, dtype=torch.uint8)
    for channel, colour in zip(channels.cpu(), colours, strict=True):
        image = torch.where((channel > 0)[..., None], torch.tensor(colour, dtype=torch.uint8), image)
    return image.repeat_interleave(SCALE, 0).repeat_interleave(SCALE, 1)


class _Screen(TensorEnv):
    """A game on a screen of four channels."""

    num_actions = 3
    obs_shape: tuple[int, ...] = (4, SIZE, SIZE)

    def __init__(self, num_envs: int, *, pixels: torch.dtype = torch.float32, **options: Any):
        super().__init__(num_envs, **options)
        if pixels not in (torch.float32, torch.uint8):
            raise ValueError(f"pixels are torch.float32 or torch.uint8: got {pixels}")
        self.pixels, self.lit = pixels, 1 if pixels == torch.float32 else 255

    def _light(self, cells: Tensor) -> Tensor:
        """[rows, 400]: dark screens, lit at `cells` [rows, K] of the flattened channels."""
        screen = torch.zeros(len(cells), 4 * CELLS, dtype=self.pixels, device=self.device)
        return screen.scatter_(1, cells, self.lit)

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        import numpy as np

        kind = np.float32 if self.pixels == torch.float32 else np.uint8
        return spaces.Box(0, self.lit, (4, SIZE, SIZE), kind), spaces.Discrete(3)


class MiniBreakout(_Screen):
    """Breakout by the rules of MinAtar (Young and Tian 2019), as one tensor program.

    A paddle in the bottom row, three rows of bricks, a ball that moves one cell diagonally a step. +1 a brick; a new
    wall appears when the ball comes down and none is left; terminated when the ball is missed. Actions: 0 stay, 1
    left, 2 right (MinAtar's minimal set 0, 1, 3). Observation [N, 4, 10, 10]: paddle, ball, trail (where the ball
    was), bricks. `info` gives `bricks`, those broken in the step. Sticky actions are a wrapper.

    Attributes:
        paddle: [N] column.
        ball: [N] cell of the ball, 10 row + column.
        last: [N] cell where the ball was.
        heading: [N] 0..3: left-up, right-up, right-down, left-down.
        bricks: [N] the wall as bits: 10 row + column counts 2^(10 row + column), rows 1 to 3.
        strike: [N] bool: the ball is inside the wall and breaks nothing until it has left.

    Args:
        num_envs: N.
        max_steps: time limit; MinAtar has none.
        pixels: torch.float32 or torch.uint8.
        **options: see `TensorEnv`.
    """

    state_names = ("paddle", "ball", "last", "heading", "bricks", "strike")

    def __init__(self, num_envs: int, *, max_steps: int | None = None, **options: Any):
        super().__init__(num_envs, max_steps=max_steps, **options)
        device = self.device
        self._moves = torch.tensor([0, -1, 1], device=device)
        # Where a ball in each cell goes next under each heading, and its heading then, as far as walls and ceiling
        # decide. A heading turns left-right by XOR 1, up-down by XOR 3, right round by XOR 2.
        dx, dy = torch.tensor([[-1, 1, 1, -1], [-1, -1, 1, 1]])[:, :, None]
        asked_x, asked_y = torch.arange(CELLS) % SIZE + dx, torch.arange(CELLS) // SIZE + dy
        x, y = asked_x.clamp(0, SIZE - 1), asked_y.clamp(0, SIZE - 1)
        self._next = (y * SIZE + x).flatten().to(device)
        turned = torch.arange(4)[:, None] ^ (x != asked_x) ^ ((asked_y < 0) * 3)
        self._turned = turned.flatten().to(device)
        self._columns = torch.arange(CELLS, device=device) % SIZE
        # Bits of a row of bricks as pixels, for drawing; where each row's bits begin.
        self._patterns = (
            torch.arange(1 << SIZE, device=device)[:, None] >> torch.arange(SIZE, device=device)
        ) & 1
        self._patterns = self._patterns.to(self.pixels) * self.lit
        self._rows = torch.tensor([SIZE, 2 * SIZE, 3 * SIZE], device=device)
        self.paddle = torch.full((num_envs,), 4, device=device)
        self.ball = torch.full_like(self.paddle, 3 * SIZE)
        self.last, self.heading = self.ball, torch.full_like(self.paddle, 2)
        self.bricks = torch.full_like(self.paddle, WALL)
        self.strike = torch.zeros(num_envs, dtype=torch.bool, device=device)

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        self.paddle = paddle = (self.paddle + self._moves.take(action)).clamp_(0, SIZE - 1)
        self.last = last = self.ball
        way = self.heading * CELLS + last
        ball, heading = self._next.take(way), self._turned.take(way)

        # No bit above row 3 is ever set, nor one in row 0: neither the floor nor the ceiling holds a brick.
        bit = ball.clamp(max=62)
        inwall = (self.bricks >> bit & 1).bool()
        hit = inwall & ~self.strike
        bricks = self.bricks ^ (hit.long() << bit)

        bottom = ball >= CELLS - SIZE
        self.bricks = torch.where(bottom & (bricks == 0), WALL, bricks)
        old_x, x = self._columns.take(last), self._columns.take(ball)
        below = old_x == paddle
        touch = bottom & (below | (x == paddle))
        # The paddle sends the ball right round, except one that comes straight from above, which it sends only up.
        self.heading = heading ^ (hit * 3) ^ (touch * 2) ^ (touch & below)
        # A ball that is sent back stays in its row and keeps its new column.
        self.ball = torch.where(hit | touch, last - old_x + x, ball)
        self.strike = inwall
        reward = hit.float()
        return reward, bottom & ~touch, {"bricks": reward}

    def _reset_rows(self, mask: Tensor) -> None:
        right = self.integers(2)
        self.paddle = self.paddle.masked_fill(mask, 4)
        serve = 3 * SIZE + right * (SIZE - 1)
        self.ball, self.last = torch.where(mask, serve, self.ball), torch.where(mask, serve, self.last)
        self.heading = torch.where(mask, 2 + right, self.heading)
        self.bricks = self.bricks.masked_fill(mask, WALL)
        self.strike = self.strike & ~mask

    def observe(self) -> Tensor:
        lit = torch.stack((self.paddle + (CELLS - SIZE), self.ball + CELLS, self.last + 2 * CELLS), 1)
        screen = self._light(lit).view(-1, 4, SIZE, SIZE)
        rows = (self.bricks[:, None] >> self._rows & (1 << SIZE) - 1).view(-1)
        screen[:, 3, 1:4] = self._patterns.index_select(0, rows).view(-1, 3, SIZE)
        return screen

    def render(self, i: int = 0) -> UInt8[Tensor, "height width 3"]:
        paddle, ball, trail, bricks = self.observe()[i]
        return _paint(
            torch.stack((bricks, trail, paddle, ball)), (COLOURS[3], COLOURS[2], COLOURS[0], COLOURS[1])
        )


class _Pong(_Screen):
    """The game of pong: its state, its rules, and how either player sees it."""

    state_names = ("paddles", "ball", "last", "heading", "rally")

    def __init__(self, num_envs: int, *, max_steps: int | None = 500, **options: Any):
        super().__init__(num_envs, max_steps=max_steps, **options)
        device = self.device
        self._moves = torch.tensor([0, -1, 1], device=device)
        own = torch.tensor([-SIZE, 0, SIZE], device=device)
        # Added to 10 x a paddle's row: its three cells in the own column (left) and in the other one (right).
        self._cells = torch.stack((own, own + CELLS + SIZE - 1))
        self._layers = torch.tensor([2 * CELLS, 3 * CELLS], device=device)
        # Cell of a place seen by the left player: x; by the right one, whose screen is mirrored: 9 - x.
        self._mirror = torch.tensor([0, SIZE - 1], device=device)
        self.paddles = torch.full((num_envs, 2), 4, device=device)
        """[N, 2]: row of the middle of the left and of the right paddle (three cells long)."""
        self.ball = torch.full((num_envs, 2), 4, device=device)
        """[N, 2]: column and row."""
        self.last = self.ball
        self.heading = torch.ones(num_envs, 2, dtype=torch.int64, device=device)
        """[N, 2]: +1 or -1 along columns and rows."""
        self.rally = torch.zeros(num_envs, dtype=torch.int64, device=device)
        """[N]: returns made in the running point."""

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """Move paddles and ball: (reward [N] of the left player, whether the point is over [N])."""
        self.paddles = (self.paddles + self._moves.take(action)).clamp_(1, SIZE - 2)
        self.last = self.ball
        old_x = self.ball[:, 0]
        dx, dy = self.heading.unbind(1)
        asked = self.ball + self.heading
        x, asked_y = asked.unbind(1)
        y = asked_y.clamp(0, SIZE - 1)
        dy = torch.where(asked_y == y, dy, -dy)
        defender = self.paddles.gather(1, (dx > 0).long()[:, None]).squeeze(1)
        offset = y - defender
        end = (x == 0) | (x == SIZE - 1)
        hit = end & (offset.abs() <= 1)
        over = end & ~hit
        # An end of the paddle sends the ball its own way; the middle leaves its course.
        dy = torch.where(hit & (offset != 0), offset, dy)
        self.heading = torch.stack((torch.where(hit, -dx, dx), dy), 1)
        self.ball = torch.stack((torch.where(hit, old_x, x), y), 1)
        self.rally = self.rally + hit
        return (over * dx).float(), over

    def _reset_rows(self, mask: Tensor) -> None:
        drawn = self.uniform(3)
        heading = (drawn[:, :2] < 0.5).long() * 2 - 1
        # The server's half: the ball crosses at least four columns before anybody has to be there.
        x = torch.where(heading[:, 0] > 0, SIZE // 2 - 1, SIZE // 2)
        y = (drawn[:, 2] * SIZE).long().clamp(max=SIZE - 1)
        ball = torch.stack((x, y), 1)
        self.paddles = torch.where(mask[:, None], SIZE // 2 - 1, self.paddles)
        self.ball, self.last = where_rows(mask, ball, self.ball), where_rows(mask, ball, self.last)
        self.heading = where_rows(mask, heading, self.heading)
        self.rally = self.rally.masked_fill(mask, 0)

    def _views(self, players: slice = slice(0, 2)) -> Tensor:
        """[N, P, 4, 10, 10]: own paddle, other paddle, ball, trail, as each player sees them from the left."""
        sides = torch.stack((self.paddles, self.paddles.flip(1)), 1)[:, players] * SIZE
        paddles = sides[..., None] + self._cells
        places = torch.stack((self.ball, self.last), 1)[:, None]
        column = (places[..., 0] - self._mirror[players, None]).abs_()
        points = places[..., 1] * SIZE + column + self._layers
        cells = torch.cat((paddles.flatten(2), points), 2)
        return self._light(cells.flatten(0, 1)).view(self.num_envs, -1, 4, SIZE, SIZE)

    def render(self, i: int = 0) -> UInt8[Tensor, "height width 3"]:
        left, right, ball, trail = self._views()[i, 0]
        return _paint(
            torch.stack((trail, left, right, ball)), (COLOURS[2], COLOURS[0], COLOURS[3], COLOURS[1])
        )


class TwoPlayerPong(_Pong, TensorMultiEnv):
    """Pong for two: who misses the ball loses the point (-1, the other +1) and the episode ends.

    The ball moves one cell diagonally a step; paddles are three cells long and move one cell a step; an end of a
    paddle sends the ball up or down, its middle leaves its course. Actions 0 stay, 1 up, 2 down. Observations
    [N, 2, 4, 10, 10]: own paddle, other paddle, ball, trail; either player sees itself on the left, so one policy can
    play both. `info["rally"]` counts the returns of the point, the score where nobody is rewarded (Burda et al. 2019).

    Args:
        num_envs: N.
        max_steps: time limit.
        pixels: torch.float32 or torch.uint8.
        **options: see `TensorEnv`.
    """

    agents = ("left", "right")
    obs_shape = (2, 4, SIZE, SIZE)

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        left, over = self._play(action)
        return torch.stack((left, -left), 1), over, {"rally": self.rally}

    def observe(self) -> Tensor:
        return self._views()


Opponent = Callable[[Tensor], Tensor]
"""A policy: observation [N, 4, 10, 10], seen from its own side, to actions [N]."""


class Pong(_Pong):
    """The left side of `TwoPlayerPong` against a fixed opponent on the right: +1 a point won, -1 a point lost.

    Args:
        num_envs: N.
        opponent: "track": follows the row of the ball; "random"; or a policy from observations (its own view,
            [N, 4, 10, 10]) to actions [N], such as a frozen copy of the learner.
        skill: probability with which "track" follows the ball instead of moving at random.
        max_steps: time limit.
        **options: `pixels` (torch.float32 or torch.uint8) and those of `TensorEnv`.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        opponent: str | Opponent = "track",
        skill: float = 0.7,
        max_steps: int | None = 500,
        **options: Any,
    ):
        super().__init__(num_envs, max_steps=max_steps, **options)
        if isinstance(opponent, str) and opponent not in ("track", "random"):
            raise ValueError(f"opponent is 'track', 'random' or a policy: got {opponent!r}")
        if not 0 <= skill <= 1:
            raise ValueError(f"skill is a probability: got {skill}")
        self.opponent, self.skill = opponent, skill

    def _reply(self) -> Tensor:
        if not isinstance(self.opponent, str):
            return self.opponent(self._views(slice(1, 2))[:, 0])
        drawn = self.uniform(2)
        moves = (drawn[:, 0] * 3).long().clamp(max=2)
        if self.opponent == "random":
            return moves
        ahead = self.ball[:, 1] - self.paddles[:, 1]
        follow = (ahead < 0).long() + 2 * (ahead > 0)
        return torch.where(drawn[:, 1] < self.skill, follow, moves)

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        reward, over = self._play(torch.stack((action, self._reply()), 1))
        return reward, over, {"rally": self.rally}

    def observe(self) -> Tensor:
        return self._views(slice(0, 1))[:, 0]


class SelfPlay(TensorEnv):
    """A game whose agents are all played by one policy: every agent becomes a row.

    Rows A i .. A i + A - 1 are the agents of game i; their rewards, observations and ends are what the game gives
    them. Any single-agent learner then trains by self-play without knowing it.

    Args:
        env: the game; not to be stepped elsewhere.

    Example:
        >>> env = SelfPlay(TwoPlayerPong(32))
        >>> env.reset()[0].shape
        torch.Size([64, 4, 10, 10])
    """

    def __init__(self, env: TensorMultiEnv):
        self.env, self._count = env, len(env.agents)
        super().__init__(
            env.num_envs * self._count,
            max_steps=env.max_steps,
            generator=env.generators,
            device=env.device,
            autoreset=env.autoreset,
            validate=env.validate,
        )
        self.num_actions, self.obs_shape = env.num_actions, env.obs_shape[1:]
        self.has_action_mask = env.has_action_mask

    def _apart(self, obs: Obs) -> Obs:
        return map_obs(lambda o: o.flatten(0, 1), obs)

    def _each(self, per_game: Tensor) -> Tensor:
        return per_game.repeat_interleave(self._count, 0)

    def _info(self, info: dict[str, Tensor]) -> dict[str, Tensor]:
        mask = {"action_mask": info["action_mask"].flatten(0, 1)} if "action_mask" in info else {}
        return {**{key: self._each(value) for key, value in info.items()}, **mask}

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Tensor]]:
        obs, info = self.env.reset(seed, options)
        self.elapsed = self._each(self.env.elapsed)
        return self._apart(obs), self._info(info)

    def reset_where(self, mask: Tensor) -> Obs:
        games = mask.view(-1, self._count)
        if bool((games.any(1) != games.all(1)).any()):
            raise ValueError("the agents of a game begin anew together: give them the same mask")
        obs = self.env.reset_where(games[:, 0])
        self.elapsed = self._each(self.env.elapsed)
        return self._apart(obs)

    def step(self, action: Tensor) -> Step:
        if self.validate:
            self._check(action)
        step = self.env.step(action.view(-1, self._count, *action.shape[1:]))
        self.elapsed = self._each(self.env.elapsed)
        return Step(
            self._apart(step.obs),
            step.reward.flatten(0, 1),
            self._each(step.terminated),
            self._each(step.truncated),
            self._apart(step.final_obs),
            self._info(step.info),
        )

    def observe(self) -> Obs:
        return self._apart(self.env.observe())

    def action_mask(self) -> Tensor:
        return self.env.action_mask().flatten(0, 1)

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        raise NotImplementedError("SelfPlay steps the game it holds")

    def _reset_rows(self, mask: Tensor) -> None:
        raise NotImplementedError("SelfPlay resets the game it holds")

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        return self.env.single_observation_space, self.env.single_action_space

    def seed(self, seed: int) -> None:
        self.env.seed(seed)

    def state_dict(self) -> dict[str, Any]:
        return self.env.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.env.load_state_dict(state)
        self.elapsed = self._each(self.env.elapsed)

    def to(self, device: str | torch.device) -> "SelfPlay":
        self.env.to(device)
        self.elapsed, self._ended = self.elapsed.to(device), self._ended.to(device)
        self.device, self.generators = self.env.device, self.env.generators
        return self

    def render(self, i: int = 0) -> Tensor:
        return self.env.render(i // self._count)
