"""Rooms: grids of rooms joined by openings, doors and keys, where exploring is the task.

Stand-ins, thousands of times faster, for MiniGrid's MultiRoom, KeyCorridor and DoorKey and for the room structure of
Montezuma's Revenge.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from assay.envs.grid import (
    GridLayout,
    GridWorld,
    connected,
    grid_distance,
    lattice_edges,
    random_tree,
)


def _room_links(rooms: int, kind: str, generator: torch.Generator) -> tuple[Tensor, list[int]]:
    """Which neighbouring rooms are joined [links, 2], and the rooms in order of distance from the first."""
    count = rooms * rooms
    if kind == "serpentine":
        order = [
            row * rooms + (column if row % 2 == 0 else rooms - 1 - column)
            for row in range(rooms)
            for column in range(rooms)
        ]
        return torch.tensor([*pairwise(order)]).view(-1, 2), order
    edges = lattice_edges(rooms, rooms)
    links = edges[random_tree(count, edges, torch.rand(1, len(edges), generator=generator))[0]]
    order, ahead = [0], [0]
    while ahead:
        room = ahead.pop(0)
        near = [int(b if a == room else a) for a, b in links if room in (int(a), int(b))]
        ahead += [r for r in near if r not in order]
        order += [r for r in near if r not in order]
    return links, order


def rooms_layout(
    rooms: int,
    room_size: int = 5,
    *,
    kind: Literal["serpentine", "random"] = "serpentine",
    seed: int | None = None,
    start: Literal["corner", "room", "random"] = "corner",
    goal_room: int | None = -1,
    doors: bool = False,
    keys: int = 0,
    traps: int = 0,
    pellets: int = 0,
) -> GridLayout:
    """A map of rooms x rooms square rooms.

    Rooms are numbered in the order in which one meets them: along the snake ("serpentine": the first row left to
    right, the second right to left, ...), or by their distance from the first through a random spanning tree
    ("random").

    Args:
        rooms: rooms along each side.
        room_size: free cells along each side of a room; the map's side is rooms * (room_size + 1) + 1.
        kind: how the rooms are joined.
        seed: places openings, keys, traps, pellets and wall textures; None: openings in the middle of the walls
            (and seed 0 for the rest).
        start: begin in the upper left corner of room 0, anywhere in room 0, or anywhere.
        goal_room: room whose middle is the goal (negative: from the end); None: no goal.
        doors: openings are doors.
        keys: the last so many openings on the way are locked doors, each with its key in an earlier room.
        traps: deadly cells in each room but the first; every room stays reachable around them.
        pellets: things to collect in each room.
    """
    if rooms < 1 or room_size < 1 or rooms * room_size < 2:
        raise ValueError(f"rooms need at least two free cells: got rooms={rooms}, room_size={room_size}")
    if room_size < 3 and (doors or keys):
        raise ValueError(
            f"doors need rooms of at least 3 x 3 (else two may be next to one cell): got {room_size}"
        )
    if keys < 0 or keys > rooms * rooms - 1:
        raise ValueError(f"{rooms * rooms} rooms have {rooms * rooms - 1} doors to lock: got keys={keys}")
    if kind not in ("serpentine", "random") or start not in ("corner", "room", "random"):
        raise ValueError(f"kind is serpentine or random, start corner, room or random: got {kind}, {start}")
    if goal_room is not None and not -(rooms**2) <= goal_room < rooms**2:
        raise ValueError(f"goal_room is one of {rooms**2} rooms, or None: got {goal_room}")
    generator = torch.Generator().manual_seed(0 if seed is None else seed)
    links, order = _room_links(rooms, kind, generator)
    number = {room: k for k, room in enumerate(order)}
    pitch = room_size + 1
    side = rooms * pitch + 1
    walls = torch.ones(side, side, dtype=torch.bool)
    room = torch.zeros(side, side, dtype=torch.int64)
    for r in range(rooms * rooms):
        top, left = r // rooms * pitch + 1, r % rooms * pitch + 1
        walls[top : top + room_size, left : left + room_size] = False
        room[top : top + room_size, left : left + room_size] = number[r]
    # Openings, in the order of the room that they lead to.
    openings: list[tuple[int, int]] = []
    corner = 1 if room_size >= 3 else 0
    for a, b in links.tolist():
        offset = room_size // 2
        if seed is not None:
            offset = int(torch.randint(corner, room_size - corner, (1,), generator=generator))
        first = min(a, b)
        top, left = first // rooms * pitch + 1, first % rooms * pitch + 1
        across = abs(a - b) == 1
        row, column = (top + offset, left + room_size) if across else (top + room_size, left + offset)
        walls[row, column] = False
        room[row, column] = min(number[a], number[b])
        openings.append((max(number[a], number[b]), row * side + column))
    openings.sort()
    passages = torch.zeros(side * side, dtype=torch.bool)
    passages[[cell for _, cell in openings]] = True
    passages = passages.view(side, side)

    def middle(k: int) -> int:
        r = order[k]
        half = room_size // 2
        return (r // rooms * pitch + 1 + half) * side + r % rooms * pitch + 1 + half

    # Cells that may hold things: inside rooms, not beside an opening, not the start corner, not the goal.
    beside = grid_distance(torch.zeros_like(walls), passages) <= 1 if openings else torch.zeros_like(walls)
    spare = ~walls & ~passages
    spare[1, 1] = False
    goal = torch.zeros(side * side, dtype=torch.bool)
    if goal_room is not None:
        goal[middle(goal_room % rooms**2)] = True
        spare.view(-1)[goal] = False

    def place(among: Tensor, count: int, what: str) -> list[int]:
        cells = among.flatten().nonzero().flatten()
        if len(cells) < count:
            raise ValueError(f"no place for {count} {what}: give larger rooms")
        return cells[torch.randperm(len(cells), generator=generator)[:count]].tolist()

    items: list[int] = []
    for k in range(keys):
        leads_to, _ = openings[len(openings) - keys + k]
        # In a room before the door: rooms are numbered so that a path leads through lower numbers only.
        [cell] = place(spare & (room < leads_to), 1, "key")
        items.append(cell)
        spare.view(-1)[cell] = False
    trap = torch.zeros_like(walls)
    for k in range(1, rooms * rooms if traps else 1):
        for _ in range(100):
            cells = place(spare & ~beside & (room == k), traps, "traps")
            trial = trap.flatten().index_fill(0, torch.tensor(cells), True).view_as(trap)
            if bool(connected(walls | trial)):
                trap = trial
                break
        else:
            raise ValueError(f"{traps} traps close off a part of a room of {room_size} x {room_size}")
    spare &= ~trap
    for k in range(rooms * rooms if pellets else 0):
        items += place(spare & (room == k), pellets, "pellets")
    begin = torch.zeros_like(walls)
    begin[1, 1] = True
    if start != "corner":
        begin = ~walls & ~passages & ~trap & ~goal.view_as(walls)
        begin.view(-1)[items] = False
        if start == "room":
            begin &= room == 0
    locked = [cell for _, cell in openings[len(openings) - keys :]] if keys else []
    closed = [cell for _, cell in openings] if doors else locked
    texture = torch.randint(8, (side, side), generator=generator)
    passages.view(-1)[closed] = False
    return GridLayout(
        walls=walls,
        start=begin,
        goal=goal.view(side, side),
        trap=trap,
        passage=passages,
        room=room,
        texture=texture,
        doors=tuple(closed),
        locks=tuple(locked.index(cell) if cell in locked else -1 for cell in closed),
        items=tuple(items),
    )


class RoomsGrid(GridWorld):
    """rooms x rooms square rooms in a chain or a tree; the agent begins in the first, the goal lies in the last.

    Rewards:

    - `"sparse"`: 1 at the goal in the room half way (of 9 rooms, number 4, counted from 0);
    - `"very_sparse"`: 1 at the goal in the last room;
    - `"dense"`: as very sparse, and on the way a share of 1 in all for every step nearer (taken back for steps away);
    - `"collect"`: 0.1 for each of two pellets in each room, no goal;
    - `"none"`: nothing; only time (or a trap) ends an episode.

    With rooms=3 and room_size=5 the map is 19 x 19 and the goal is 52 steps from the corner, through nine rooms; with
    rooms=4 it is 25 x 25 and the goal 94 steps away. Views, actions and `info`: see `GridWorld`;
    `info["rooms_visited"]` counts the rooms of the running episode, the first included.

    Args:
        num_envs: N.
        rooms: rooms along each side.
        room_size: free cells along each side of a room.
        layout: "serpentine" or "random" (a random spanning tree).
        layouts: seeds of layouts, of which every episode draws one; None: one layout, its openings in the middle.
        reward: see above.
        goal_room: number of the goal's room instead of the one that `reward` implies (negative: from the end).
        start: "corner" of the first room, anywhere in that "room", or anywhere ("random").
        doors: openings are closed doors, and a last action works the doors next to the agent.
        close_after: doors close again after so many steps.
        keys: the last so many openings are locked; keys lie in earlier rooms and are taken by stepping on them.
        traps: deadly cells in each room but the first: the episode ends and the next begins at the start.
        pellets: in each room, with reward "collect".
        max_steps: of an episode.
        **options: `control`, `slip`, `view`, `view_size`, `textures`, `generator`, ... of `GridWorld`.

    Example:
        >>> world = RoomsGrid(4, rooms=3)
        >>> world.reset()[0].shape  # one-hot row and column of 19
        torch.Size([4, 38])
    """

    def __init__(
        self,
        num_envs: int,
        rooms: int = 3,
        room_size: int = 5,
        *,
        layout: Literal["serpentine", "random"] = "serpentine",
        layouts: Sequence[int] | None = None,
        reward: Literal["sparse", "very_sparse", "dense", "collect", "none"] = "very_sparse",
        goal_room: int | None = None,
        start: Literal["corner", "room", "random"] = "corner",
        doors: bool = False,
        close_after: int | None = None,
        keys: int = 0,
        traps: int = 0,
        pellets: int = 2,
        max_steps: int | None = 150,
        **options: Any,
    ):
        goals = {"sparse": rooms**2 // 2, "very_sparse": -1, "dense": -1, "collect": None, "none": None}
        if reward not in goals:
            raise ValueError(f"reward is one of {', '.join(goals)}: got {reward!r}")
        if goal_room is not None and goals[reward] is None:
            raise ValueError(f"reward {reward!r} has no goal: leave goal_room out")
        if close_after is not None and not doors:
            raise ValueError("close_after is about doors: set doors=True")
        # A random tree needs a seed; the snake has its openings in the middle without one.
        seeds: Sequence[int | None] = (
            layouts if layouts is not None else [None if layout == "serpentine" else 0]
        )
        maps = [
            rooms_layout(
                rooms,
                room_size,
                kind=layout,
                seed=seed,
                start=start,
                goal_room=goals[reward] if goal_room is None else goal_room,
                doors=doors,
                keys=keys,
                traps=traps,
                pellets=pellets if reward == "collect" else 0,
            )
            for seed in seeds
        ]
        self.rooms, self.room_size = rooms, room_size
        progress = 0.0
        if reward == "dense":
            far = [int(grid_distance(m.walls, m.goal)[m.start].max()) for m in maps]
            progress = 1 / max(far)
        super().__init__(
            num_envs,
            maps,
            toggle=doors,
            close_after=close_after,
            item_reward=0.1 if reward == "collect" else 0.0,
            progress_reward=progress,
            max_steps=max_steps,
            **options,
        )


FOUR_ROOMS = """
#############
#00000#11111#
#00000#11111#
#00000011111#
#00000#11111#
#00000#11111#
##0####11111#
#22222###1###
#22222#33333#
#22222#33333#
#22222233333#
#22222#33333#
#############
"""
"""Sutton, Precup and Singh's map (1999, Figure 2): 104 free cells."""


class FourRooms(GridWorld):
    """The four rooms of Sutton, Precup and Singh (1999): start anywhere, goal 1 in the eastern hallway.

    Args:
        num_envs: N.
        goal: (row, column) of the goal; default the eastern hallway (7, 9), as in the option-critic's experiments.
        start: "random" free cell, or the upper left "corner".
        slip: probability that a move goes another way (1/3 in the original; default 0).
        max_steps: of an episode.
        **options: of `GridWorld`.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        goal: tuple[int, int] = (7, 9),
        start: Literal["random", "corner"] = "random",
        slip: float = 0.0,
        max_steps: int | None = 100,
        **options: Any,
    ):
        layout = GridLayout.from_ascii(FOUR_ROOMS)
        at = torch.zeros_like(layout.walls)
        if not (0 <= goal[0] < 13 and 0 <= goal[1] < 13) or bool(layout.walls[goal]):
            raise ValueError(f"the goal is a free cell of the 13 x 13 map: got {goal}")
        at[goal] = True
        begin = ~layout.walls & ~at
        if start == "corner":
            begin = torch.zeros_like(at)
            begin[1, 1] = True
        layout = replace(layout, goal=at, start=begin)
        super().__init__(num_envs, [layout], slip=slip, max_steps=max_steps, **options)


def door_key_layouts(size: int) -> list[GridLayout]:
    """Every DoorKey map of a side: place of the dividing wall, of the door in it and of the key left of it.

    The start is any cell left of the wall but the key's; the goal is the lower right corner.
    """
    if size < 5:
        raise ValueError(f"a DoorKey map has a side of at least 5: got {size}")
    layouts = []
    inner = range(1, size - 1)
    border = torch.ones(size, size, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    goal = torch.zeros_like(border)
    goal[size - 2, size - 2] = True
    nothing = torch.zeros_like(border)
    column = torch.arange(size).expand(size, size)
    for split in range(2, size - 2):
        for door in inner:
            walls = border | (column == split)
            walls[door, split] = False
            room = (column > split).long()
            for key in [(i, j) for i in inner for j in range(1, split)]:
                start = ~walls & (column < split)
                start[key] = False
                layouts.append(
                    GridLayout(
                        walls=walls,
                        start=start,
                        goal=goal,
                        trap=nothing,
                        passage=nothing,
                        room=room,
                        texture=nothing.long(),
                        doors=(door * size + split,),
                        locks=(0,),
                        items=(key[0] * size + key[1],),
                    )
                )
    return layouts


class DoorKeyGrid(GridWorld):
    """Take the key, open the door, reach the goal behind it: the task of MiniGrid's DoorKey, batched.

    A wall divides the room; the key and the agent (with any heading) are somewhere left of it, the goal is in the
    lower right corner. Actions: turn left, turn right, go forward, open or close the door ahead. Reward at the goal:
    1 - 0.9 * steps / max_steps. Unlike MiniGrid, the key is taken by stepping on it, the agent sees through walls,
    and all maps of a side are equally likely.

    Args:
        num_envs: N.
        size: side of the map, walls included.
        max_steps: default 10 * size**2, as in MiniGrid.
        view: "egocentric" (default), "image" or "onehot".
        **options: of `GridWorld`.
    """

    def __init__(
        self,
        num_envs: int,
        size: int = 5,
        *,
        max_steps: int | None = None,
        view: Literal["egocentric", "image", "onehot"] = "egocentric",
        **options: Any,
    ):
        options = {"control": "turn", "toggle": True, "goal_decay": 0.9, "random_heading": True} | options
        super().__init__(
            num_envs,
            door_key_layouts(size),
            view=view,
            max_steps=10 * size**2 if max_steps is None else max_steps,
            **options,
        )
