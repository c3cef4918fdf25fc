r"""Gridworlds from lookup tables, and the geometry that they share.

A grid has so few cells that everything about it can be written down beforehand: where each action leads from each
cell, what the agent sees there, what it earns. `GridWorld` builds these tables once; a step of thousands of copies is
then a handful of indexing operations, without a branch.

Directions are numbered 0 up, 1 right, 2 down, 3 left everywhere. Cells are (row, column) pairs, or flat indices
row * width + column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from assay.envs.base import Generators, Tabular, TensorEnv, where_rows

DIRECTIONS = torch.tensor([[-1, 0], [0, 1], [1, 0], [0, -1]])
"""[4, 2]: (row, column) step of up, right, down, left."""

View = Literal["onehot", "egocentric", "image"]


def grid_move(
    pos: Int[Tensor, "*batch 2"], action: Int[Tensor, "*batch"], walls: Bool[Tensor, "height width"]
) -> Int[Tensor, "*batch 2"]:
    """Where a step leads: one cell on in the direction, or nowhere if a wall or the edge is in the way.

    Args:
        pos: (row, column) of each agent.
        action: direction 0 up, 1 right, 2 down, 3 left.
        walls: one map for all.

    Example:
        >>> grid_move(torch.tensor([1, 1]), torch.tensor(0), torch.zeros(3, 3, dtype=torch.bool))
        tensor([0, 1])
    """
    height, width = walls.shape
    target = pos + DIRECTIONS.to(pos.device)[action]
    row, column = target.unbind(-1)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    free = inside & ~walls[row.clamp(0, height - 1), column.clamp(0, width - 1)]
    return torch.where(free.unsqueeze(-1), target, pos)


def _spread(mask: Tensor) -> Tensor:
    """[..., H, W] bool: the cells of a mask and their four neighbours."""
    out = mask.clone()
    out[..., 1:, :] |= mask[..., :-1, :]
    out[..., :-1, :] |= mask[..., 1:, :]
    out[..., :, 1:] |= mask[..., :, :-1]
    out[..., :, :-1] |= mask[..., :, 1:]
    return out


def grid_distance(
    walls: Bool[Tensor, "*maps height width"], sources: Bool[Tensor, "*batch height width"]
) -> Int[Tensor, "*batch height width"]:
    """Steps from the nearest source cell to every cell, around walls; -1 where none leads.

    Breadth-first search of all maps at once: the reached set grows by one ring of neighbours a pass.

    Args:
        walls: maps; their leading dimensions broadcast against those of `sources`.
        sources: where the distance is zero (sources inside walls are ignored).
    """
    free = (~walls).expand(sources.shape)
    reached = sources & free
    distance = torch.where(reached, 0, -1)
    ring = 0
    while True:
        grown = _spread(reached) & free
        fresh = grown & ~reached
        if not bool(fresh.any()):
            return distance
        ring += 1
        distance = distance.masked_fill(fresh, ring)
        reached = grown


def all_distances(walls: Bool[Tensor, "height width"]) -> Int[Tensor, "cells cells"]:
    """Steps between every two cells of one map (flat indices); -1 where no path leads, or inside walls."""
    height, width = walls.shape
    sources = torch.eye(height * width, dtype=torch.bool, device=walls.device)
    return grid_distance(walls, sources.view(-1, height, width)).flatten(1)


def connected(walls: Bool[Tensor, "*maps height width"]) -> Bool[Tensor, "*maps"]:
    """Whether every free cell can be reached from every other (true for a map without free cells)."""
    free = ~walls.flatten(-2)
    first = F.one_hot(free.long().argmax(-1), free.shape[-1]).bool() & free
    return ((grid_distance(walls, first.view(walls.shape)).flatten(-2) >= 0) == free).all(-1)


def random_tree(
    nodes: int, edges: Int[Tensor, "edges 2"], weights: Float[Tensor, "n edges"]
) -> Bool[Tensor, "n edges"]:
    """Minimum spanning trees of one graph under n sets of edge weights (Prim's algorithm, all n at once).

    Random weights give random trees; the graph has to be connected.
    """
    inside = torch.zeros(len(weights), nodes, dtype=torch.bool, device=weights.device)
    inside[:, 0] = True
    taken = torch.zeros_like(weights, dtype=torch.bool)
    row = torch.arange(len(weights), device=weights.device)
    for _ in range(nodes - 1):
        crossing = inside[:, edges[:, 0]] ^ inside[:, edges[:, 1]]
        best = weights.masked_fill(~crossing, torch.inf).argmin(1)
        taken[row, best] = True
        inside[row[:, None], edges[best]] = True
    return taken


def lattice_edges(rows: int, columns: int) -> Int[Tensor, "edges 2"]:
    """Pairs of neighbouring nodes of a rows x columns lattice, numbered row by row."""
    index = torch.arange(rows * columns).view(rows, columns)
    across = torch.stack((index[:, :-1], index[:, 1:]), -1).reshape(-1, 2)
    down = torch.stack((index[:-1], index[1:]), -1).reshape(-1, 2)
    return torch.cat((across, down))


def random_maze(
    generator: torch.Generator, n: int, height: int, width: int, loops: float = 0.0
) -> Bool[Tensor, "n height width"]:
    """Random mazes of corridors one cell wide, walls True.

    Args:
        generator: source of randomness (its device is the mazes').
        n: how many.
        height: cells, odd, at least 3.
        width: likewise.
        loops: probability that a wall between two corridors is missing beyond what a perfect maze needs;
            0: exactly one path between any two cells.
    """
    if min(height, width) < 3 or height % 2 == 0 or width % 2 == 0:
        raise ValueError(f"a maze has odd sides of at least 3: got {height} x {width}")
    rows, columns = height // 2, width // 2
    device = generator.device
    edges = lattice_edges(rows, columns).to(device)
    weights = torch.rand(n, len(edges), generator=generator, device=device)
    taken = random_tree(rows * columns, edges, weights)
    if loops > 0:
        taken |= torch.rand(n, len(edges), generator=generator, device=device) < loops
    walls = torch.ones(n, height, width, dtype=torch.bool, device=device)
    walls[:, 1::2, 1::2] = False
    # Node (i, j) is the cell (2i+1, 2j+1); the wall between two nodes lies at the mean of their cells.
    a, b = edges.unbind(1)
    row = a // columns + b // columns + 1
    column = a % columns + b % columns + 1
    walls[:, row, column] &= ~taken
    return walls


def egocentric_index(
    height: int, width: int, size: int, *, rotate: bool = True, ahead: bool = True
) -> Int[Tensor, "4 cells window"]:
    """Which cell stands in each place of an agent's square window, by heading and by the agent's cell.

    Args:
        height: of the map.
        width: of the map.
        size: side of the window, odd.
        rotate: turn the window so that the agent looks up; else north is up, whatever the heading.
        ahead: the agent stands in the middle of the last row; else in the centre.

    Returns:
        Flat cell indices; height * width stands for everything outside of the map.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a window has an odd side: got {size}")
    place = torch.arange(size)
    forward = (size - 1 if ahead else size // 2) - place.view(-1, 1, 1)
    right = place.view(1, -1, 1) - size // 2
    heading = torch.arange(4) if rotate else torch.zeros(4, dtype=torch.int64)
    up, side = DIRECTIONS[heading].view(4, 1, 1, 2), DIRECTIONS[(heading + 1) % 4].view(4, 1, 1, 2)
    offset = (forward * up + right * side).view(4, 1, -1, 2)
    cell = torch.arange(height * width).view(1, -1, 1)
    row, column = cell // width + offset[..., 0], cell % width + offset[..., 1]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return torch.where(inside, row * width + column, height * width)


def crop_and_rotate(
    image: Float[Tensor, "batch channels height width"],
    pos: Int[Tensor, "batch 2"],
    heading: Int[Tensor, "batch"],
    size: int,
    *,
    ahead: bool = True,
    fill: float = 0.0,
) -> Float[Tensor, "batch channels size size"]:
    """What agents see of a map: a window around each, turned so that it looks up.

    Args:
        image: maps of cells.
        pos: (row, column) of each agent.
        heading: direction each looks in.
        size: side of the window, odd.
        ahead: the agent stands in the middle of the last row; else in the centre.
        fill: value outside of the map.
    """
    batch, channels, height, width = image.shape
    table = egocentric_index(height, width, size, ahead=ahead).to(image.device)
    cells = table[heading, pos[:, 0] * width + pos[:, 1]]
    padded = F.pad(image.flatten(2), (0, 1), value=fill)
    window = padded.gather(2, cells.unsqueeze(1).expand(-1, channels, -1))
    return window.view(batch, channels, size, size)


@dataclass(frozen=True)
class GridLayout:
    """One map. Masks are [height, width]; doors and items are flat cell indices."""

    walls: Bool[Tensor, "height width"]
    start: Bool[Tensor, "height width"]
    """An episode begins in one of these cells."""
    goal: Bool[Tensor, "height width"]
    trap: Bool[Tensor, "height width"]
    """Stepping here ends the episode."""
    passage: Bool[Tensor, "height width"]
    """Openings between rooms, drawn as open doors; nothing else."""
    room: Int[Tensor, "height width"]
    """Room of each cell, from 0."""
    texture: Int[Tensor, "height width"]
    """Pattern 0..7 of each wall, where textures are shown."""
    doors: tuple[int, ...] = ()
    locks: tuple[int, ...] = ()
    """For each door the item that unlocks it; -1: not locked."""
    items: tuple[int, ...] = ()
    """Things that are taken by stepping on them: keys, if a lock names them, else pellets."""

    def __post_init__(self) -> None:
        if len(self.doors) != len(self.locks):
            raise ValueError(f"{len(self.doors)} doors need as many locks: got {len(self.locks)}")
        if any(lock < -1 or lock >= len(self.items) for lock in self.locks):
            raise ValueError(f"a lock names one of the {len(self.items)} items, or -1: got {self.locks}")
        if not bool((self.start & ~self.walls).any()) or bool((self.start & self.walls).any()):
            raise ValueError("an episode has to begin in at least one free cell, and in no wall")

    @classmethod
    def from_ascii(cls, text: str) -> "GridLayout":
        """Read a drawing.

        `#` wall; `.`, blank or a digit floor (of that room); `S` a start; `G` goal; `x` trap; `+` door;
        `a`..`f` a key and `A`..`F` the door it unlocks; `*` pellet. Without an `S` every floor cell is a start.

        Raises:
            ValueError: for lines of unequal length, an unknown sign, or a lock without its key.
        """
        lines = text.strip("\n").split("\n")
        if len({len(line) for line in lines}) != 1:
            raise ValueError(f"the lines of a map have one length: got {[len(line) for line in lines]}")
        flat = "".join(lines)
        shape = (len(lines), len(lines[0]))
        known = set("#. SGx+abcdefABCDEF*0123456789")
        if not set(flat) <= known:
            raise ValueError(f"unknown signs in the map: {sorted(set(flat) - known)}")

        def mask(signs: str) -> Tensor:
            return torch.tensor([sign in signs for sign in flat]).view(shape)

        keys = [sign for sign in "abcdef" if sign in flat]
        for lock in "ABCDEF":
            if lock in flat and lock.lower() not in keys:
                raise ValueError(f"door {lock} has no key {lock.lower()}")
        doors = [(i, sign) for i, sign in enumerate(flat) if sign in "+ABCDEF"]
        floor = mask(". 0123456789")
        return cls(
            walls=mask("#"),
            start=mask("S") if "S" in flat else floor,
            goal=mask("G"),
            trap=mask("x"),
            passage=torch.zeros(shape, dtype=torch.bool),
            room=torch.tensor([int(sign) if sign.isdigit() else 0 for sign in flat]).view(shape),
            texture=torch.zeros(shape, dtype=torch.int64),
            doors=tuple(i for i, _ in doors),
            locks=tuple(keys.index(sign.lower()) if sign != "+" else -1 for _, sign in doors),
            items=tuple(flat.index(key) for key in keys)
            + tuple(i for i, sign in enumerate(flat) if sign == "*"),
        )


class GridWorld(TensorEnv):
    r"""N copies of a gridworld with walls, goals, traps, doors, keys and pellets.

    Every episode takes place on one of the layouts, drawn uniformly. Reaching the goal pays `goal_reward` and
    terminates; a trap terminates.

    Actions are moves up, right, down, left (`control="compass"`), or turn left, turn right, go forward
    (`"turn"`); then, with `toggle`, one more that opens or closes the doors next to the agent (with "turn": the door
    ahead). Without `toggle` a door gives way to whoever walks into it, a locked one to who holds its key.

    Observations, float32 in [0, 1]:

    - `"onehot"` [D]: row, column, heading (only with "turn"), a bit for each item held, and with `toggle` a bit for
      each direction (with "turn": only for the one ahead): there is an open door;
    - `"egocentric"` [4, view, view]: wall, door (1 closed, 0.5 open or a passage), things (goal 1, item 0.5, trap
      0.25), wall texture. With "turn" the agent looks up from the middle of the last row; with "compass" it stands
      in the centre and north is up. Nothing hides what is behind a wall;
    - `"image"` [3, height, width]: walls (1; with textures 0.5 to 1; a closed door 0.25), things, the agent.

    `info` of a step: `state` [N, 4 + items] int64 (row, column, room, heading, items held), `room` [N],
    `rooms_visited` [N] in this episode, `success` [N] bool (goal reached), and with the egocentric view `wall_ahead`.

    Args:
        num_envs: N.
        layouts: maps of one size; at most as many doors and items each as the fullest.
        control: "compass" or "turn".
        toggle: see above.
        close_after: a door closes again so many steps after it was opened (once nobody stands in it); None: never.
        slip: probability that a move goes in one of the other three directions ("compass").
        view: kind of observation.
        view_size: side of the egocentric window, odd.
        textures: show the layouts' wall textures; else all walls look alike.
        goal_reward: paid at the goal.
        goal_decay: of the goal's reward, this share is lost evenly over `max_steps` (MiniGrid: 0.9).
        goal_ends: reaching the goal terminates.
        item_reward: paid for each pellet (not for keys).
        progress_reward: paid for each step nearer to the goal along the shortest path, and taken back for each
            step away. It counts paths through closed doors.
        random_heading: begin an episode with a random heading, else facing right.
        max_steps, generator, device, autoreset, validate: see `TensorEnv`.

    Example:
        >>> world = GridWorld.from_ascii("#####\n#S.G#\n#####", num_envs=2)
        >>> obs, info = world.reset()
        >>> world.step(torch.tensor([1, 0])).info["state"][:, :2]
        tensor([[1, 2],
                [1, 1]])
    """

    state_names = ("cell", "heading", "items", "doors", "visited")

    def __init__(
        self,
        num_envs: int,
        layouts: Sequence[GridLayout],
        *,
        control: Literal["compass", "turn"] = "compass",
        toggle: bool = False,
        close_after: int | None = None,
        slip: float = 0.0,
        view: View = "onehot",
        view_size: int = 7,
        textures: bool = False,
        goal_reward: float = 1.0,
        goal_decay: float = 0.0,
        goal_ends: bool = True,
        item_reward: float = 0.0,
        progress_reward: float = 0.0,
        random_heading: bool = False,
        max_steps: int | None = None,
        generator: Generators | None = None,
        device: str | torch.device = "cpu",
        autoreset: bool = True,
        validate: bool = True,
    ):
        super().__init__(
            num_envs,
            max_steps=max_steps,
            generator=generator,
            device=device,
            autoreset=autoreset,
            validate=validate,
        )
        if not layouts or len({layout.walls.shape for layout in layouts}) != 1:
            raise ValueError("give at least one layout, all of one height and width")
        if control not in ("compass", "turn") or view not in ("onehot", "egocentric", "image"):
            raise ValueError(
                f"control is compass or turn, view onehot, egocentric or image: got {control}, {view}"
            )
        if not 0 <= slip <= 1 or (slip and control == "turn"):
            raise ValueError(f"slip is a probability, and 0 with control='turn': got {slip}")
        if goal_decay and max_steps is None:
            raise ValueError("goal_decay spreads over max_steps: give max_steps")
        if close_after is not None and close_after < 1:
            raise ValueError(f"close_after is at least 1 step, or None: got {close_after}")
        self.layouts = tuple(layouts)
        self.height, self.width = layouts[0].walls.shape
        self.control, self.toggle, self.close_after = control, toggle, close_after
        self.slip, self.view, self.view_size, self.textures = slip, view, view_size, textures
        self.goal_decay, self.goal_ends = goal_decay, goal_ends
        self.random_heading = random_heading
        self.num_rooms = 1 + max(int(layout.room.max()) for layout in layouts)
        self.num_doors = max(len(layout.doors) for layout in layouts)
        self.num_items = max(len(layout.items) for layout in layouts)
        self._moves = 4 if control == "compass" else 3
        self.num_actions = self._moves + toggle
        self._stride = self.height * self.width + 1
        """Cells of a layout, and one more that stands for everything outside."""
        self._build(goal_reward, item_reward, progress_reward)
        self._build_view()
        # A valid state from the start, without a draw: the first cell of the first layout.
        self.cell = self._starts[0, :1].repeat(num_envs)
        """[N]: cell of the agent, counted through all layouts (layout * stride + flat cell)."""
        self.heading = torch.ones_like(self.cell)
        self.items = F.one_hot(torch.full((num_envs,), self.num_items), self.num_items + 1).bool()
        """[N, items + 1]: items held; one more that everybody holds, for doors without a lock."""
        self.doors = F.one_hot(torch.full((num_envs,), self.num_doors), self.num_doors + 1)
        """[N, doors + 1]: above 0 open, for so many steps more if doors close again. One more always is open, for
        cells without a door."""
        self.visited = self._room_row[self.cell]
        """[N, rooms]: rooms seen in the running episode."""
        self._no_items, self._all_closed = self.items[:1].clone(), self.doors[:1].clone()
        TensorEnv.to(self, self.device)

    @classmethod
    def from_ascii(cls, maps: str | Sequence[str], num_envs: int, **options: Any) -> "GridWorld":
        """A world from drawings (signs: `GridLayout.from_ascii`); `options` as of the class."""
        texts = [maps] if isinstance(maps, str) else maps
        return GridWorld(num_envs, [GridLayout.from_ascii(text) for text in texts], **options)

    # Tables.

    def _over_layouts(self, name: str, outside: float) -> Tensor:
        """One field of every layout, flat, with a value for the outside: [layouts * stride]."""
        fields = torch.stack([getattr(layout, name).flatten() for layout in self.layouts])
        return F.pad(fields, (0, 1), value=outside).flatten()

    def _places(self, name: str, none: int) -> tuple[Tensor, Tensor]:
        """Where doors or items are: index at each cell [layouts * stride, 1], and cell of each [layouts, none + 1]."""
        at = torch.full((len(self.layouts), self._stride), none)
        cells = torch.full((len(self.layouts), none + 1), self._stride - 1)
        for k, layout in enumerate(self.layouts):
            places = torch.tensor(getattr(layout, name), dtype=torch.int64)
            at[k, places] = torch.arange(len(places))
            cells[k, : len(places)] = places
        return at.view(-1, 1), cells

    def _build(self, goal_reward: float, item_reward: float, progress_reward: float) -> None:
        count, stride, cells = len(self.layouts), self._stride, self.height * self.width
        grid = torch.stack((torch.arange(cells) // self.width, torch.arange(cells) % self.width), -1)
        ways = torch.arange(4).expand(cells, 4)
        target = torch.full((count, stride, 4), cells)
        for k, layout in enumerate(self.layouts):
            pos = grid_move(grid[:, None].expand(cells, 4, 2), ways, layout.walls)
            target[k, :cells] = pos[..., 0] * self.width + pos[..., 1]
        target = (target + stride * torch.arange(count).view(-1, 1, 1)).flatten(0, 1)
        here = torch.arange(count * stride)
        # The free cell in front, by heading; a wall in front is where a move leads nowhere.
        self._wall_ahead = (target == here[:, None]).flatten()
        if self.control == "compass":
            table = target
            turned = torch.arange(4).expand(4, 4)
        else:
            # [cell, heading, action]: only going forward moves.
            stay = here[:, None, None].expand(-1, 4, 2)
            table = torch.cat((stay, target[..., None]), -1).flatten(0, 1)
            now = torch.arange(4)
            turned = torch.stack(((now - 1) % 4, (now + 1) % 4, now), 1)
        if self.toggle:
            stay = here if self.control == "compass" else here.repeat_interleave(4)
            table = torch.cat((table, stay[:, None]), 1)
            turned = torch.cat((turned, torch.arange(4)[:, None]), 1)
        self._next = table.flatten()
        self._number: Tensor | None = None  # of every free cell, made when first asked for
        self._turned = turned.flatten()

        goal, trap = self._over_layouts("goal", False), self._over_layouts("trap", False)
        self._goal, self._terminal = goal, trap | goal if self.goal_ends else trap
        self._reward = goal_reward * goal.float()
        self._potential: Tensor | None = None
        if progress_reward:
            far = torch.stack([grid_distance(x.walls, x.goal) for x in self.layouts]).flatten(1)
            self._potential = -progress_reward * F.pad(far, (0, 1)).flatten().float()
        room = self._over_layouts("room", 0)
        self._room_row = F.one_hot(room, self.num_rooms).bool()
        self._where = torch.stack((here % stride // self.width, here % stride % self.width, room), 1)
        starts = [layout.start.flatten().nonzero().flatten() for layout in self.layouts]
        self._start_count = torch.tensor([len(s) for s in starts])
        self._starts = torch.zeros(count, int(self._start_count.max()), dtype=torch.int64)
        for k, s in enumerate(starts):
            self._starts[k, : len(s)] = s + k * stride
        self._many_starts = self._starts.shape[1] > 1

        self._door_at, door_cells = self._places("doors", self.num_doors)
        self._item_at, item_cells = self._places("items", self.num_items)
        self._thing_cells = torch.cat((door_cells, item_cells), 1)
        door_row = torch.eye(self.num_doors + 1, dtype=torch.bool)
        door_row[-1] = False
        item_row = torch.eye(self.num_items + 1, dtype=torch.bool)
        item_row[-1] = False
        self._found = item_row[self._item_at.squeeze(1)]
        # [cells, doors + 1]: doors that cannot fall shut now: the one somebody stands in, and the last.
        self._kept_open = door_row[self._door_at.squeeze(1)].long()
        self._kept_open[:, -1] = 1
        self._lock = torch.full((count, self.num_doors + 1), self.num_items)
        self._pays = bool(item_reward)
        self._item_value = torch.full((count, self.num_items + 1), item_reward)
        for k, layout in enumerate(self.layouts):
            for door, lock in enumerate(layout.locks):
                if lock >= 0:
                    self._lock[k, door] = lock
                    self._item_value[k, lock] = 0.0
        self._locked = bool((self._lock < self.num_items).any())
        # The door beside a cell in each direction, [cells, 4]. (Who stands in a doorway with a wall ahead, where a
        # move would lead nowhere, reaches no door by it.)
        self._beside = self._door_at[target].squeeze(-1)
        self._beside = self._beside.masked_fill(target == here[:, None], self.num_doors)
        reach = door_row[self._beside]
        reach = reach.any(1) if self.control == "compass" else reach.flatten(0, 1)
        # Doors that an action works, counted as the successors are: by cell, (heading,) action.
        self._worked = torch.zeros(len(reach), self.num_actions, self.num_doors + 1, dtype=torch.bool)
        if self.toggle:
            self._worked[:, -1] = reach
        self._worked = self._worked.flatten(0, 1)

    def _build_view(self) -> None:
        """What is seen in every situation: fixed values, and what a closed door or an item left lying adds where.

        A situation is a cell (with "turn": a cell and a heading); for the image view it is a layout.
        """
        wall = self._over_layouts("walls", True)
        texture = self._over_layouts("texture", 0).float() / 7 * wall
        things = self._over_layouts("goal", False).float() + 0.25 * self._over_layouts("trap", False)
        opening = self._over_layouts("passage", False).float()
        opening.view(len(self.layouts), -1).scatter_(1, self._thing_cells[:, : self.num_doors], 1.0)
        opening = 0.5 * opening.masked_fill(wall, 0.0)
        cells, turns = len(wall), 4 if self.control == "turn" else 1
        here = torch.arange(cells).repeat_interleave(turns)
        heading = torch.arange(turns).repeat(cells)
        layout = here // self._stride
        # [situations, doors + 1 + items + 1]: where each door and item shows, and by how much; 0: it does not.
        shape = (self.num_doors + 1, self.num_items + 1)
        if self.view == "onehot":
            row, column = self._where[here, 0], self._where[here, 1]
            parts = [F.one_hot(row, self.height + 1)[:, : self.height], F.one_hot(column, self.width)]
            if turns == 4:
                parts.append(F.one_hot(heading, 4))
            bits = sum(part.shape[1] for part in parts)
            items = bits + torch.arange(self.num_items + 1)
            bits += self.num_items
            parts.append(torch.ones(len(here), self.num_items, dtype=torch.int64))
            door_place = torch.zeros(len(here), shape[0], dtype=torch.int64)
            door_weight = torch.zeros(len(here), shape[0])
            if self.toggle and self.num_doors:
                beside = self._beside if turns == 1 else self._beside.view(-1, 1)
                parts.append((beside < self.num_doors).long())
                door_weight.scatter_(1, beside, -1.0)[:, -1] = 0.0
                door_place.scatter_(1, beside, (bits + torch.arange(beside.shape[1])).expand_as(beside))
            seen = torch.cat(parts, 1).float()
            place = torch.cat((door_place, items.expand(len(here), -1)), 1)
            weight = torch.cat((door_weight, torch.full((len(here), shape[1]), -1.0)), 1)
            self.obs_shape = (seen.shape[1],)
        elif self.view == "egocentric":
            turn = self.control == "turn"
            index = egocentric_index(self.height, self.width, self.view_size, rotate=turn, ahead=turn)
            index = F.pad(index, (0, 0, 0, 1), value=self._stride - 1)
            window = index[heading, here % self._stride]
            area = self.view_size**2
            if len(here) * area * 16 > 2**29:
                raise ValueError(
                    "the egocentric view of so many layouts takes over 512 MB: give fewer, or smaller"
                )
            shown = texture if self.textures else torch.zeros_like(texture)
            table = torch.stack((wall.float(), opening, things, shown), 1)
            seen = table[window + layout[:, None] * self._stride].transpose(1, 2).flatten(1)
            match = window[:, None] == self._thing_cells[layout][:, :, None]
            visible, place = match.float().max(2)
            door = (torch.arange(sum(shape)) < shape[0]).long()
            place = place + area * (2 - door)
            weight = 0.5 * visible * (self._thing_cells[layout] < self._stride - 1)
            self.obs_shape = (4, self.view_size, self.view_size)
        else:
            shade = torch.where(wall, 0.5 + 0.5 * texture, 0.0) if self.textures else wall.float()
            picture = torch.stack((shade, things, torch.zeros_like(shade)), 1)
            picture = picture.view(len(self.layouts), self._stride, 3)[:, :-1].transpose(1, 2)
            seen = picture.flatten(1)
            area = self._stride - 1
            door = torch.arange(sum(shape)) < shape[0]
            place = self._thing_cells.clamp(max=area - 1) + area * (~door).long()
            weight = torch.where(door, 0.25, 0.5) * (self._thing_cells < area)
            self.obs_shape = (3, self.height, self.width)
        weight[:, [self.num_doors, -1]] = 0.0
        place = torch.where(weight == 0, 0, place)
        self._changes = bool(self.num_items or (self.toggle and self.num_doors))
        if not self.toggle:
            # Doors that open by themselves always look closed.
            seen = seen.scatter_add(1, place[:, : shape[0]], weight[:, : shape[0]])
            weight = torch.cat((torch.zeros_like(weight[:, : shape[0]]), weight[:, shape[0] :]), 1)
        self._seen, self._place, self._weight = seen.contiguous(), place, weight

    # The world.

    def _layout(self, cell: Tensor) -> Tensor:
        if len(self.layouts) == 1:
            return torch.zeros_like(cell)
        return torch.div(cell, self._stride, rounding_mode="floor")

    @property
    def layout(self) -> Tensor:
        """[N]: layout of the running episode."""
        return self._layout(self.cell)

    @property
    def position(self) -> Tensor:
        """[N, 2]: row and column of the agent."""
        return self._where[self.cell, :2]

    def _reset_rows(self, mask: Tensor) -> None:
        layout = torch.zeros_like(self.cell)
        if len(self.layouts) > 1:
            layout = self.integers(len(self.layouts))
        if self._many_starts:
            begin = self._starts[layout, self.integers(self._start_count[layout])]
        else:
            begin = self._starts[layout, 0]
        self.cell = torch.where(mask, begin, self.cell)
        if self.random_heading:
            self.heading = torch.where(mask, self.integers(4), self.heading)
        else:
            self.heading = self.heading.masked_fill(mask, 1)
        self.visited = where_rows(mask, self._room_row[begin], self.visited)
        if self.num_items:
            self.items = where_rows(mask, self._no_items, self.items)
        if self.num_doors:
            self.doors = where_rows(mask, self._all_closed, self.doors)

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        if self.slip:
            u = self.uniform()
            other = (action + 1 + (u * (3 / self.slip)).long().clamp(max=2)) % 4
            action = torch.where((u < self.slip) & (action < 4), other, action)
        before = self.cell
        if self.control == "compass":
            chosen = before * self.num_actions + action
            if self.toggle:
                heading = torch.where(action < 4, action, self.heading)
            else:
                heading = action.clone()
        else:
            chosen = (before * 4 + self.heading) * self.num_actions + action
            heading = self._turned[self.heading * self.num_actions + action]
        target = self._next[chosen]
        if self.num_doors:
            target = self._through_doors(target, chosen)
        self.cell, self.heading = target, heading
        reward, terminated = self._reward[target], self._terminal[target]
        if self.goal_decay:
            assert self.max_steps is not None
            reward = reward * (1 - self.goal_decay / self.max_steps * (self.elapsed + 1))
        if self._potential is not None:
            reward = reward + (self._potential[target] - self._potential[before])
        where = self._where[target]
        state = [where, heading[:, None]]
        if self.num_items:
            found = self._found[target]
            if self._pays:
                value = self._item_value[self._layout(target)]
                reward = reward + ((found & ~self.items) * value).sum(1)
            self.items = self.items | found
            state.append(self.items[:, :-1])
        self.visited = self.visited | self._room_row[target]
        info = {
            "state": torch.cat(state, 1),
            "room": where[:, 2],
            "rooms_visited": self.visited.sum(1),
            "success": self._goal[target],
        }
        if self.view == "egocentric":
            info["wall_ahead"] = self._wall_ahead[target * 4 + heading]
        return reward, terminated, info

    def _through_doors(self, target: Tensor, chosen: Tensor) -> Tensor:
        """Work the doors; where the agent comes to, given where it wants to go and the row of its action."""
        unlocked: Tensor | None = None
        if self._locked:
            lock = self._lock if len(self.layouts) == 1 else self._lock[self._layout(target)]
            unlocked = self.items.gather(1, lock.expand(self.num_envs, -1))
        if not self.toggle:
            if unlocked is None:
                return target
            through = unlocked.gather(1, self._door_at[target])
            return torch.where(through.squeeze(1), target, self.cell)
        is_open = self.doors != 0
        through = is_open.gather(1, self._door_at[target])
        target = torch.where(through.squeeze(1), target, self.cell)
        worked = self._worked[chosen]
        if unlocked is not None:
            worked = worked & (is_open | unlocked)
        doors, opened = self.doors, 1
        if self.close_after is not None:
            doors, opened = torch.maximum(doors - 1, self._kept_open[target]), self.close_after
        self.doors = torch.where(worked, torch.where(is_open, 0, opened), doors)
        return target

    def _situation(self) -> Tensor:
        if self.view == "image":
            return self._layout(self.cell)
        return self.cell if self.control == "compass" else self.cell * 4 + self.heading

    def observe(self) -> Tensor:
        situation = self._situation()
        seen = self._seen[situation]  # fresh memory, so that the rest may be written into it
        if self._changes:
            changing = torch.cat((self.doors == 0, ~self.items), 1)
            seen.scatter_add_(1, self._place[situation], self._weight[situation] * changing)
        if self.view == "image":
            pos = self.cell - situation * self._stride + 2 * (self._stride - 1)
            seen.scatter_(1, pos.unsqueeze(1), 1.0)
        return seen.view(-1, *self.obs_shape)

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        return spaces.Box(0.0, 1.0, self.obs_shape, "float32"), spaces.Discrete(self.num_actions)

    # The world written out.

    def _check_tabular(self) -> None:
        if self.num_doors or self.num_items:
            raise NotImplementedError(
                "tabular() covers worlds without doors and items: their state is the cell"
            )

    def _tabular_cells(self) -> Tensor:
        """The free cells, counted through all layouts."""
        return (~self._over_layouts("walls", True).to(self.device)).nonzero().flatten()

    def state_index(self) -> Tensor:
        """[N] int64: number of the free cell, layout after layout; with "turn" four headings each."""
        self._check_tabular()
        if self._number is None:
            free = self._tabular_cells()
            self._number = torch.zeros(
                len(self.layouts) * self._stride, dtype=torch.int64, device=self.device
            )
            self._number[free] = torch.arange(len(free), device=self.device)
        number = self._number
        return number[self.cell] if self.control == "compass" else number[self.cell] * 4 + self.heading

    def tabular(self) -> Tabular:
        """The decision process without its time limit, in float64.

        Raises:
            NotImplementedError: with doors or items, or a goal reward that decays with time.
        """
        self._check_tabular()
        if self.goal_decay:
            raise NotImplementedError("a goal reward that decays with time is no function of the cell")
        free = self._tabular_cells()
        turns = 1 if self.control == "compass" else 4
        number = torch.zeros(len(self.layouts) * self._stride, dtype=torch.int64, device=self.device)
        number[free] = torch.arange(len(free), device=self.device)
        table = self._next.view(-1, turns, self.num_actions)[free]
        size = len(free) * turns
        successor = number[table] * turns
        if turns == 4:
            successor = successor + self._turned.view(1, 4, -1)
        chosen = F.one_hot(successor.view(size, -1), size).double()
        gain = self._reward[table].double()
        if self._potential is not None:
            gain = gain + self._potential[table].double() - self._potential[free].double().view(-1, 1, 1)
        gain = gain.view(size, -1)
        if self.slip:
            moves = torch.full((4, 4), self.slip / 3, dtype=torch.float64, device=self.device)
            moves.fill_diagonal_(1 - self.slip)
            mix = torch.eye(self.num_actions, dtype=torch.float64, device=self.device)
            mix[:4, :4] = moves
            chosen = torch.einsum("ab,sbt->sat", mix, chosen)
            gain = gain @ mix.T
        terminal = self._terminal[free].repeat_interleave(turns)
        P = torch.where(
            terminal[:, None, None], torch.eye(size, device=self.device).double()[:, None], chosen
        )
        R = gain.masked_fill(terminal[:, None], 0.0)
        rho0 = torch.zeros(size, dtype=torch.float64, device=self.device)
        for starts, count in zip(self._starts, self._start_count.tolist(), strict=True):
            share = 1 / (len(self.layouts) * count)
            begin = number[starts[:count]] * turns
            for heading in range(turns) if self.random_heading else [min(1, turns - 1)]:
                rho0[begin + heading] += share / (turns if self.random_heading else 1)
        return Tabular(P, R, rho0, terminal)

    def distances(self) -> Int[Tensor, "layouts cells cells"]:
        """Steps between every two cells of each layout, around walls and through doors; -1: no path. Cached."""
        if self._distances is None:
            self._distances = torch.stack([all_distances(x.walls) for x in self.layouts]).to(self.device)
        return self._distances

    _distances: Tensor | None = None

    # A picture.

    def render(self, i: int = 0, tile: int = 12) -> Tensor:
        """Picture [height * tile, width * tile, 3] uint8 of copy `i`: the agent blue, with its heading in white."""
        k, cell = divmod(int(self.cell[i]), self._stride)
        layout = self.layouts[k]
        picture = torch.full((self.height, self.width, 3), 245, dtype=torch.uint8)
        picture[layout.passage] = torch.tensor([225, 215, 195], dtype=torch.uint8)
        shade = 60 + 18 * (layout.texture if self.textures else torch.zeros_like(layout.texture))
        grey = shade.clamp(max=200).to(torch.uint8)
        picture = torch.where(layout.walls[..., None], grey[..., None], picture)
        picture[layout.goal] = torch.tensor([60, 160, 80], dtype=torch.uint8)
        picture[layout.trap] = torch.tensor([200, 60, 50], dtype=torch.uint8)
        flat = picture.view(-1, 3)
        is_open = (self.doors[i] != 0).tolist() if self.toggle else [False] * self.num_doors
        for door, opened in zip(layout.doors, is_open, strict=False):
            flat[door] = torch.tensor([225, 190, 120] if opened else [140, 90, 40], dtype=torch.uint8)
        for item, held in zip(layout.items, self.items[i].tolist(), strict=False):
            if not held:
                flat[item] = torch.tensor([230, 190, 40], dtype=torch.uint8)
        large = picture.repeat_interleave(tile, 0).repeat_interleave(tile, 1)
        top, left = cell // self.width * tile, cell % self.width * tile
        edge = max(1, tile // 6)
        body = large[top + edge : top + tile - edge, left + edge : left + tile - edge]
        body[:] = torch.tensor([50, 90, 200], dtype=torch.uint8)
        if body.shape[0] >= 3:
            side = body.shape[0]
            heading = int(self.heading[i])
            nose = [body[0], body[:, side - 1], body[side - 1], body[:, 0]][heading]
            nose[:] = 255
        return large


class Board(TensorEnv):
    """N copies of a small game on a height x width board; subclasses mark what stands where.

    Observations, float32 in [0, 1], all written from the same marks: `"planes"` [planes, height, width], `"board"`
    [height, width] (the brightest mark of each cell) or `"flat"` [height * width].

    Args:
        num_envs: N.
        board: (height, width).
        planes: how many kinds of thing are told apart; more than the game has are left dark.
        view: kind of observation.
        brightness: of each plane's marks in the views "board" and "flat"; default 1 each.
        moves: what each action does; its meaning is the game's.
        max_steps, generator, device, autoreset, validate: see `TensorEnv`.
    """

    lowest, highest = 0.0, 1.0
    """Return of an episode that fails, and of a perfect one (scales of scores)."""
    kinds: int = 2
    """Planes that the game uses."""

    def __init__(
        self,
        num_envs: int,
        *,
        board: tuple[int, int],
        planes: int | None = None,
        view: Literal["planes", "board", "flat"] = "planes",
        brightness: Sequence[float] | None = None,
        moves: Sequence[int] = (0, 1, 2, 3),
        max_steps: int | None = None,
        generator: Generators | None = None,
        device: str | torch.device = "cpu",
        autoreset: bool = True,
        validate: bool = True,
    ):
        super().__init__(
            num_envs,
            max_steps=max_steps,
            generator=generator,
            device=device,
            autoreset=autoreset,
            validate=validate,
        )
        self.planes = self.kinds if planes is None else planes
        if min(board) < 1 or self.planes < self.kinds:
            raise ValueError(
                f"a board has positive sides and {self.kinds} planes: got {board}, {self.planes}"
            )
        if view not in ("planes", "board", "flat"):
            raise ValueError(f"view is planes, board or flat: got {view!r}")
        self.height, self.width = board
        self.area = self.height * self.width
        self.view = view
        self.num_actions = len(moves)
        self.moves = torch.tensor(list(moves), device=self.device)
        bright = [1.0] * self.planes if brightness is None else list(brightness)
        if len(bright) != self.planes:
            raise ValueError(f"give a brightness to each of {self.planes} planes: got {len(bright)}")
        self._bright = torch.tensor(bright, device=self.device).view(1, -1, 1)
        shapes = {"planes": (self.planes, *board), "board": board, "flat": (self.area,)}
        self.obs_shape = shapes[view]

    def _marks(self) -> Tensor:
        """[N, planes, area] float32: what stands where, in fresh memory."""
        raise NotImplementedError

    def _marked(self, *cells: Tensor) -> Tensor:
        """Planes with one mark each: the k-th at `cells[k]` [N]."""
        marks = torch.zeros(self.num_envs, self.planes * self.area, device=self.device)
        at = torch.stack([cell + plane * self.area for plane, cell in enumerate(cells)], 1)
        return marks.scatter_(1, at, 1.0).view(-1, self.planes, self.area)

    def observe(self) -> Tensor:
        marks = self._marks()
        if self.view != "planes":
            marks = (marks * self._bright).amax(1)
        return marks.view(-1, *self.obs_shape)

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        return spaces.Box(0.0, 1.0, self.obs_shape, "float32"), spaces.Discrete(self.num_actions)

    def render(self, i: int = 0, tile: int = 16) -> Tensor:
        """Picture [height * tile, width * tile, 3] uint8 of copy `i`, one colour a plane."""
        colours = torch.tensor([[80, 130, 230], [90, 190, 110], [230, 190, 60], [130, 130, 130]])
        marks = self._marks()[i].cpu()
        picture = torch.full((self.area, 3), 25, dtype=torch.int64)
        for plane in reversed(range(self.planes)):
            picture[marks[plane] > 0] = colours[plane % len(colours)]
        picture = picture.view(self.height, self.width, 3).to(torch.uint8)
        return picture.repeat_interleave(tile, 0).repeat_interleave(tile, 1)


def open_board_moves(height: int, width: int) -> Int[Tensor, "cells 5"]:
    """Where each cell leads on a board without walls: up, right, down, left, stay (flat indices)."""
    cells = torch.arange(height * width)
    pos = torch.stack((cells // width, cells % width), -1)
    walls = torch.zeros(height, width, dtype=torch.bool)
    target = grid_move(pos[:, None].expand(-1, 4, 2), torch.arange(4).expand(len(cells), 4), walls)
    return torch.cat((target[..., 0] * width + target[..., 1], cells[:, None]), 1)
