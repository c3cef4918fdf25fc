"""A small side-scrolling platform game with generated levels: pits, steps, and a texture to look at."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor
from torch.nn import functional as F

from assay.envs.base import TensorEnv

ROWS, WINDOW, BEHIND, BITS = 8, 10, 3, 6
"""Rows of the screen, its columns, those of them behind the runner, texture bits a column."""
HIGHEST, JUMP = 5, 2
"""Greatest height of the ground, and of a jump above it."""
TEXTURES = ("random", "constant", "fading", "scrambled")
SCALE = 10
"""Pixels of a cell in a picture."""


class Level(NamedTuple):
    """One level."""

    ground: Tensor
    """[W] int64: height of the ground, 1..5; 0 is a pit."""
    texture: Tensor
    """[W, 6] bool."""


def generate_level(seed: int, width: int = 120) -> Level:
    """The level of a seed: every 4 to 6 columns a pit (1 or 2 wide) or a step (1 or 2 high, up or down).

    Args:
        seed: of the level; the same seed gives the same level everywhere.
        width: columns.
    """
    if width < 2 * WINDOW:
        raise ValueError(f"a level is at least {2 * WINDOW} columns wide: got {width}")
    generator = torch.Generator().manual_seed(seed)
    # Four numbers an obstacle; more obstacles are drawn than fit.
    drawn = torch.randint(1 << 16, (width, 4), generator=generator).tolist()
    heights: list[int] = [2] * 2
    for gap, kind, size, sign in drawn:
        heights += [heights[-1]] * (4 + gap % 3)
        if len(heights) >= width:
            break
        length, here = 1 + size % 2, heights[-1]
        if kind % 2:
            heights += [0] * length + [here]
        else:
            up = here + length if sign % 2 else here - length
            heights.append(up if 1 <= up <= HIGHEST else 2 * here - up)
    texture = torch.rand(width, BITS, generator=generator) < 0.5
    return Level(torch.tensor(heights[:width]), texture)


class SideScroller(TensorEnv):
    """Run to the right through a level; a fall into a pit leads back to the start.

    Physics, on cells: a step first moves the runner up (two cells after a jump, one a step) or down (one a step while
    in the air), then to the side unless ground is in the way; jumps begin on the ground, and steering works in the
    air. Actions: 0 stay, 1 right, 2 left, 3 jump, 4 jump right. The reward is the number of new columns reached, so
    an episode's return is its score, the furthest column.

    The observation shows 10 columns, 3 of them behind the runner. Flat [N, 131]: for each column its height one-hot
    (0..5), then for each its texture bits, then the runner's height (8) and what is left of its jump (3), both
    one-hot. Image [N, 4, 8, 10] (row 0 is the top): ground, pit (bottom row),
    texture, runner ((1 + rest of the jump) / 3). Outside the level are high walls.

    `info`: `column`, `furthest` (the score; of the episode), `death`, `finished` (the last column is reached; nothing
    else happens there), `state` [N, 4] (column, height, rest of the jump, level's index).

    Burda et al. (2019), "Large-scale study of curiosity-driven learning", used Super Mario Bros. in this role.

    Args:
        num_envs: N.
        levels: seeds of the levels; each episode plays one of them, drawn uniformly (two lists make a transfer set).
        width: columns of a level.
        view: "flat" or "image".
        death_terminates: a death ends the episode; else the runner is back at the start and the episode goes on.
        texture: "random": bits fixed for each level; "constant": none; "fading": ever fewer of them to the right, so
            that progress brings less novelty; "scrambled": drawn anew each episode, in every column.
        scrambled_columns: draw the texture of the first so many columns anew each episode (a novel start).
        max_steps: time limit H.
        **options: see `TensorEnv`.
    """

    num_actions = 5
    state_names = ("level", "column", "height", "rise", "furthest", "offset")
    _BANK = 4096

    def __init__(
        self,
        num_envs: int,
        *,
        levels: Sequence[int] = (0,),
        width: int = 120,
        view: str = "flat",
        death_terminates: bool = True,
        texture: str = "random",
        scrambled_columns: int = 0,
        max_steps: int | None = 200,
        **options: Any,
    ):
        super().__init__(num_envs, max_steps=max_steps, **options)
        if not levels:
            raise ValueError("give at least one level seed")
        if view not in ("flat", "image"):
            raise ValueError(f"view is 'flat' or 'image': got {view!r}")
        if texture not in TEXTURES:
            raise ValueError(f"texture is one of {', '.join(TEXTURES)}: got {texture!r}")
        if not 0 <= scrambled_columns <= width:
            raise ValueError(f"scrambled_columns is 0..{width}: got {scrambled_columns}")
        self.width, self.view, self.death_terminates = width, view, death_terminates
        self.levels = tuple(levels)
        self.scrambled_columns = width if texture == "scrambled" else scrambled_columns
        self.obs_shape = (4, ROWS, WINDOW) if view == "image" else (WINDOW * (HIGHEST + 1 + BITS) + ROWS + 3,)

        made = [generate_level(seed, width) for seed in self.levels]
        self.ground = torch.stack([level.ground for level in made]).to(self.device)
        """[L, W]: heights."""
        self._flat_ground = self.ground.flatten()
        bits = torch.stack([level.texture for level in made]).to(self.device)
        if texture == "constant":
            bits = torch.zeros_like(bits)
        elif texture == "fading":
            # A column keeps its texture with probability 1 - its share of the way, the same ones in every run.
            rank = torch.rand(width, generator=torch.Generator().manual_seed(12345)).to(self.device)
            bits = bits & (rank >= torch.arange(width, device=self.device) / width)[:, None]
        self.texture = bits
        """[L, W, 6] bool; columns below `scrambled_columns` show other bits each episode."""
        bank = torch.rand(self._BANK + WINDOW, BITS, generator=torch.Generator().manual_seed(54321)) < 0.5

        self._tables(bank.to(self.device))
        # What an action does: sideways, and whether it asks for a jump.
        self._sideways = torch.tensor([0, 1, -1, 0, 1], device=self.device)
        self._jumps = torch.tensor([0, 0, 0, JUMP, JUMP], device=self.device)
        zero = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self.level, self.column, self.rise, self.furthest, self.offset = (zero.clone() for _ in range(5))
        self.height = torch.full_like(zero, 2)

    def _tables(self, bank: Bool[Tensor, "bank bits"]) -> None:
        """Precompute the window of every column, so that observing is a look-up."""
        ahead = WINDOW - 1 - BEHIND
        ground = F.pad(self.ground, (BEHIND, ahead), value=HIGHEST)
        texture = F.pad(self.texture, (0, 0, BEHIND, ahead))
        heights = ground.unfold(1, WINDOW, 1)  # [L, W, WINDOW]
        bits = texture.unfold(1, WINDOW, 1).transpose(2, 3)  # [L, W, WINDOW, BITS]
        fresh = torch.arange(-BEHIND, self.width + ahead, device=self.device)
        fresh = ((fresh >= 0) & (fresh < self.scrambled_columns)).unfold(0, WINDOW, 1)  # [W, WINDOW]
        drawn = bank.unfold(0, WINDOW, 1).transpose(1, 2)  # [BANK + 1, WINDOW, BITS]
        if self.view == "image":
            rows = torch.arange(ROWS - 1, -1, -1, device=self.device)[:, None]
            solid = rows < heights[..., None, :]
            pit = (rows == 0) & (heights[..., None, :] == 0)
            self._static = torch.stack((solid, pit), 2).float()
            # Bits hang in rows 1..6 of their column.
            bits = F.pad(bits.transpose(2, 3).flip(2), (0, 0, 1, 1))
            drawn = F.pad(drawn.transpose(1, 2).flip(1), (0, 0, 1, 1))
            self._fresh = fresh[:, None, :]
        else:
            self._static = F.one_hot(heights, HIGHEST + 1).float().flatten(2)
            bits, drawn = bits.flatten(2), drawn.flatten(1)
            self._fresh = fresh.repeat_interleave(BITS, 1)
        # One row of a table for every (level, column).
        self._static, self._bits = self._static.flatten(0, 1), bits.float().flatten(0, 1)
        self._drawn = drawn.float()
        if not self.scrambled_columns:
            shown = self._bits[:, None] if self.view == "image" else self._bits
            self._static = torch.cat((self._static, shown), 1)
        high, rest = torch.eye(ROWS, device=self.device), torch.eye(JUMP + 1, device=self.device)
        pairs = (high.repeat_interleave(JUMP + 1, 0), rest.repeat(ROWS, 1))
        self._body = torch.cat(pairs, 1)

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        base = self.level * self.width
        here = self._flat_ground[base + self.column]
        standing = (self.height == here) & (self.rise == 0)
        rise = torch.where(standing, self._jumps[action], self.rise)
        up = rise > 0
        # In a pit the ground is at 0, which is death; so nobody ever stands there.
        height = self.height + up.long() - (~up & (self.height > here)).long()
        rise = rise - up.long()
        target = (self.column + self._sideways[action]).clamp_(0, self.width - 1)
        column = torch.where(self._flat_ground[base + target] <= height, target, self.column)
        death = height <= 0

        furthest = torch.maximum(self.furthest, column)
        reward = (furthest - self.furthest).float()
        finished = column == self.width - 1
        info = {"column": column, "furthest": furthest, "death": death, "finished": finished}
        info["state"] = torch.stack((column, height, rise, self.level), 1)
        self.column, self.height, self.rise, self.furthest = column, height, rise, furthest
        if self.death_terminates:
            return reward, death, info
        self._to_start(death)
        return reward, torch.zeros_like(death), info

    def _to_start(self, mask: Tensor) -> None:
        self.column, self.rise = self.column.masked_fill(mask, 0), self.rise.masked_fill(mask, 0)
        self.height = torch.where(mask, self.ground[self.level, 0], self.height)

    def _reset_rows(self, mask: Tensor) -> None:
        drawn = self.uniform(2)
        level = (drawn[:, 0] * len(self.levels)).long().clamp(max=len(self.levels) - 1)
        self.level = torch.where(mask, level, self.level)
        self.offset = torch.where(mask, (drawn[:, 1] * (self._BANK - self.width)).long(), self.offset)
        self.furthest = self.furthest.masked_fill(mask, 0)
        self._to_start(mask)

    def observe(self) -> Tensor:
        place = self.level * self.width + self.column
        parts = [self._static.index_select(0, place)]
        if self.scrambled_columns:
            drawn = self._drawn.index_select(0, self.offset + self.column)
            bits = torch.where(self._fresh[self.column], drawn, self._bits.index_select(0, place))
            parts.append(bits[:, None] if self.view == "image" else bits)
        if self.view == "flat":
            return torch.cat((*parts, self._body[self.height * (JUMP + 1) + self.rise]), 1)
        runner = torch.zeros(self.num_envs, ROWS * WINDOW, device=self.device)
        cell = (ROWS - 1 - self.height) * WINDOW + BEHIND
        runner.scatter_(1, cell[:, None], (self.rise + 1.0)[:, None] / (JUMP + 1))
        return torch.cat((*parts, runner.view(-1, 1, ROWS, WINDOW)), 1)

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        import numpy as np

        return spaces.Box(0.0, 1.0, self.obs_shape, np.float32), spaces.Discrete(5)

    def render(self, i: int = 0) -> UInt8[Tensor, "height width 3"]:
        """The whole level with its texture; the window is framed by a brighter sky."""
        level, column = int(self.level[i]), int(self.column[i])
        ground = self.ground[level].cpu()
        rows = torch.arange(ROWS - 1, -1, -1)[:, None]
        image = torch.tensor([150, 180, 220], dtype=torch.uint8).repeat(ROWS, self.width, 1)
        image[:, max(0, column - BEHIND) : column + WINDOW - BEHIND] = torch.tensor(
            [200, 222, 245], dtype=torch.uint8
        )
        bits = self._shown(i).cpu()  # [W, BITS]
        image[1 : 1 + BITS][bits.t().flip(0)] = torch.tensor([240, 240, 200], dtype=torch.uint8)
        image[rows < ground] = torch.tensor([120, 84, 50], dtype=torch.uint8)
        image[ROWS - 1, ground == 0] = torch.tensor([190, 40, 40], dtype=torch.uint8)
        image[ROWS - 1 - int(self.height[i]), column] = torch.tensor([20, 20, 20], dtype=torch.uint8)
        return image.repeat_interleave(SCALE, 0).repeat_interleave(SCALE, 1)

    def _shown(self, i: int) -> Bool[Tensor, "columns bits"]:
        """The texture that copy `i` shows in this episode."""
        own = self.texture[int(self.level[i])]
        if not self.scrambled_columns:
            return own
        columns = torch.arange(self.width, device=self.device)
        # Column c of an episode shows row offset + c of the bank, which is the runner's place in its own window.
        drawn = self._drawn[int(self.offset[i]) + columns]
        if self.view == "image":
            drawn = drawn[:, 1:-1, BEHIND].flip(1)
        else:
            drawn = drawn.view(self.width, WINDOW, BITS)[:, BEHIND]
        return torch.where((columns < self.scrambled_columns)[:, None], drawn > 0, own)
