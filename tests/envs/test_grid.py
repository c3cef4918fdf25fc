"""Geometry of grids against slow references, and the rules of GridWorld by scripted walks."""

from collections import deque

import pytest
import torch
from torch import Tensor

from assay.envs.base import Step, TensorEnv
from assay.envs.grid import (
    DIRECTIONS,
    GridLayout,
    GridWorld,
    all_distances,
    connected,
    crop_and_rotate,
    grid_distance,
    grid_move,
    random_maze,
)

from .common import check_env, check_tabular, generator

UP, RIGHT, DOWN, LEFT, TOGGLE = range(5)


def search(walls: Tensor, sources: list[tuple[int, int]]) -> Tensor:
    """Breadth-first search, one cell after the other."""
    out = torch.full(walls.shape, -1)
    queue = deque(s for s in sources if not walls[s])
    for source in queue:
        out[source] = 0
    while queue:
        i, j = queue.popleft()
        for di, dj in DIRECTIONS.tolist():
            a, b = i + di, j + dj
            if 0 <= a < walls.shape[0] and 0 <= b < walls.shape[1] and not walls[a, b] and out[a, b] < 0:
                out[a, b] = out[i, j] + 1
                queue.append((a, b))
    return out


def walk(world: TensorEnv, actions: list[int]) -> list[Step]:
    """Steps of one action after the other, in every copy."""
    return [world.step(torch.full((world.num_envs,), a)) for a in actions]


class TestGeometry:
    def test_distances_are_those_of_a_search_cell_by_cell(self) -> None:
        g = generator(0)
        walls = torch.rand(12, 7, 9, generator=g) < 0.35
        sources = torch.rand(12, 7, 9, generator=g) < 0.05
        found = grid_distance(walls, sources)
        for k in range(12):
            cells = [(int(i), int(j)) for i, j in sources[k].nonzero()]
            assert torch.equal(found[k], search(walls[k], cells))

    def test_all_distances_are_symmetric_and_one_map_serves_many_sources(self) -> None:
        walls = random_maze(generator(1), 1, 9, 11)[0]
        table = all_distances(walls)
        assert torch.equal(table, table.T)
        assert torch.equal(table[12].view(9, 11), search(walls, [(1, 1)]))

    def test_a_move_stops_at_walls_and_edges(self) -> None:
        walls = torch.zeros(3, 3, dtype=torch.bool)
        walls[1, 1] = True
        pos = torch.tensor([[0, 0]] * 4 + [[0, 1]] * 4)
        moved = grid_move(pos, torch.arange(4).repeat(2), walls)
        assert moved.tolist() == [[0, 0], [0, 1], [1, 0], [0, 0], [0, 1], [0, 2], [0, 1], [0, 0]]

    def test_connected(self) -> None:
        walls = torch.zeros(3, 4, 4, dtype=torch.bool)
        walls[1, :, 2] = True
        walls[2] = True
        assert connected(walls).tolist() == [True, False, True]

    def test_a_perfect_maze_is_a_tree_and_loops_add_to_it(self) -> None:
        walls = random_maze(generator(3), 20, 9, 13)
        assert bool(connected(walls).all())
        free = ~walls
        links = (free[:, 1:] & free[:, :-1]).sum((1, 2)) + (free[:, :, 1:] & free[:, :, :-1]).sum((1, 2))
        assert torch.equal(links, free.sum((1, 2)) - 1)
        assert bool(walls[:, 0].all())
        assert len(torch.unique(walls.flatten(1), dim=0)) > 15
        more = random_maze(generator(3), 20, 9, 13, loops=0.5)
        assert bool(connected(more).all())
        assert int((~more).sum()) > int(free.sum())
        with pytest.raises(ValueError, match="odd"):
            random_maze(generator(0), 1, 8, 9)

    @pytest.mark.parametrize("ahead", [True, False])
    def test_a_window_is_the_padded_map_rotated(self, ahead: bool) -> None:
        image = torch.rand(8, 2, 5, 6, generator=generator(4))
        pos = torch.tensor([[0, 0], [4, 5], [2, 3], [1, 4]]).repeat(2, 1)
        heading = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
        seen = crop_and_rotate(image, pos, heading, 3, ahead=ahead, fill=7.0)
        padded = torch.nn.functional.pad(image, (4, 4, 4, 4), value=7.0)
        for k in range(8):
            row, column = (pos[k] + 4).tolist()
            # Turning the map by the heading makes the agent look up; then cut out around it.
            around = padded[k, :, row - 2 : row + 3, column - 2 : column + 3]
            turned = torch.rot90(around, int(heading[k]), (1, 2))
            expected = turned[:, 0:3, 1:4] if ahead else turned[:, 1:4, 1:4]
            assert torch.equal(seen[k], expected)


class TestLayout:
    def test_a_drawing_is_read(self) -> None:
        layout = GridLayout.from_ascii("#####\n#Sa*#\n#A+x#\n#0G1#\n#####")
        assert layout.items == (7, 8)
        assert layout.doors == (11, 12)
        assert layout.locks == (0, -1)
        assert layout.start.nonzero().tolist() == [[1, 1]]
        assert int(layout.room[3, 3]) == 1

    @pytest.mark.parametrize(
        ("text", "message"),
        [("##\n#", "one length"), ("S?", "unknown signs"), ("SA", "no key"), ("##", "free cell")],
    )
    def test_bad_drawings(self, text: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            GridLayout.from_ascii(text)


class TestGridWorld:
    def test_goal_trap_and_time(self) -> None:
        world = GridWorld.from_ascii("#####\n#SxG#\n#...#\n#####", 1, max_steps=4)
        world.reset()
        [step] = walk(world, [RIGHT])
        assert (step.reward.item(), step.terminated.item(), step.info["success"].item()) == (0.0, True, False)
        steps = walk(world, [DOWN, RIGHT, RIGHT, UP])
        assert [s.reward.item() for s in steps] == [0, 0, 0, 1]
        # Time is over in this step, too: termination wins.
        assert steps[-1].terminated.item()
        assert not steps[-1].truncated.item()
        assert steps[-1].info["success"].item()
        assert walk(world, [UP] * 4)[-1].truncated.item()

    def test_a_key_opens_its_door_by_walking_into_it(self) -> None:
        world = GridWorld.from_ascii("######\n#aSAG#\n######", 1)
        obs, _ = world.reset()
        assert obs.shape == (1, 3 + 6 + 1)
        steps = walk(world, [RIGHT, LEFT, RIGHT, RIGHT, RIGHT])
        assert [s.info["state"][0, 1].item() for s in steps] == [2, 1, 2, 3, 4]
        assert [s.info["state"][0, 4].item() for s in steps] == [0, 1, 1, 1, 1]
        assert [s.obs[0, -1].item() for s in steps] == [0, 1, 1, 1, 0]  # the last: a new episode
        assert steps[-1].reward.item() == 1.0

    def test_toggled_doors_close_again_but_not_on_the_agent(self) -> None:
        world = GridWorld.from_ascii("######\n#S+..#\n######", 1, toggle=True, close_after=2)
        obs, _ = world.reset()
        assert obs.shape == (1, 3 + 6 + 4)

        def place(actions: list[int]) -> list[int]:
            return [s.info["state"][0, 1].item() for s in walk(world, actions)]

        assert place([RIGHT, TOGGLE, RIGHT, UP, UP, UP, RIGHT]) == [1, 1, 2, 2, 2, 2, 3]
        # The door stood open while the agent was in it, and now is shut behind it.
        assert place([LEFT, LEFT]) == [3, 3]
        opened = walk(world, [TOGGLE, UP, UP])
        assert [s.obs[0, 9 + LEFT].item() for s in opened] == [1, 1, 0]
        assert place([LEFT]) == [3]
        assert place([TOGGLE, TOGGLE, LEFT]) == [3, 3, 3], "the second toggle closes it"

    @pytest.mark.parametrize("close_after", [2, None])
    def test_no_door_shuts_on_who_stands_in_it(self, close_after: int | None) -> None:
        world = GridWorld.from_ascii("######\n#S+..#\n######", 1, toggle=True, close_after=close_after)
        world.reset()
        # Between the door's jambs, working it reaches neither a neighbour nor the door itself.
        for action in [TOGGLE, RIGHT, UP, UP, UP, TOGGLE, TOGGLE]:
            [step] = walk(world, [action])
            assert int(world.doors[0, 0]) > 0
        assert step.info["state"][0, 1].item() == 2

    def test_a_locked_door_needs_its_key_to_be_toggled(self) -> None:
        world = GridWorld.from_ascii("#######\n#aSAbB#\n#######", 1, toggle=True)
        world.reset()
        places = [
            s.info["state"][0, 1].item() for s in walk(world, [TOGGLE, RIGHT, LEFT, RIGHT, TOGGLE, RIGHT])
        ]
        assert places == [2, 2, 1, 2, 2, 3]
        # The second door opens to the second key only.
        assert [s.info["state"][0, 1].item() for s in walk(world, [RIGHT, RIGHT, TOGGLE, RIGHT])] == [
            4,
            4,
            4,
            5,
        ]

    def test_turning_and_the_window_ahead(self) -> None:
        world = GridWorld.from_ascii(
            "#####\n#..G#\n#.S.#\n#...#\n#####", 1, control="turn", view="egocentric", view_size=3
        )
        obs, _ = world.reset()
        wall, _, things, texture = obs[0]
        assert not bool(texture.any())
        # Facing right from the middle: the goal is ahead to the left, walls two cells ahead.
        assert things.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]
        assert wall.tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
        steps = walk(world, [2, 0, 2])
        assert [s.info["wall_ahead"].item() for s in steps] == [True, False, True]
        assert steps[1].obs[0, 2, 1, 1].item() == 1.0, "after the turn to the left it is straight ahead"
        assert steps[2].terminated.item()

    def test_the_window_of_the_tables_is_the_crop_of_the_map(self) -> None:
        text = "#######\n#S.x..#\n#..#+*#\n#.aA.G#\n#######"
        turn = GridWorld.from_ascii(
            text, 16, control="turn", view="egocentric", view_size=5, toggle=True, random_heading=True
        )
        turn.reset(seed=3)
        layout = turn.layouts[0]
        g = generator(0)
        for _ in range(30):
            step = turn.step(torch.randint(4, (16,), generator=g))
            image = torch.zeros(16, 4, 35)
            image[:, 0] = layout.walls.flatten().float()
            image[:, 2] = layout.goal.flatten() + 0.25 * layout.trap.flatten()
            for d, cell in enumerate(layout.doors):
                image[:, 1, cell] = torch.where(turn.doors[:, d] != 0, 0.5, 1.0)
            for k, cell in enumerate(layout.items):
                image[:, 2, cell] = torch.where(turn.items[:, k], 0.0, 0.5)
            padded = torch.nn.functional.pad(image.view(16, 4, 5, 7), (5, 5, 5, 5))
            padded[:, 0, :5] = padded[:, 0, -5:] = 1
            padded[:, 0, :, :5] = padded[:, 0, :, -5:] = 1
            assert torch.equal(step.obs, crop_and_rotate(padded, turn.position + 5, turn.heading, 5))

    def test_the_picture_shows_agent_things_and_walls(self) -> None:
        world = GridWorld.from_ascii("#####\n#Sa.#\n#A.G#\n#####", 1, view="image")
        obs, _ = world.reset()
        assert obs[0, 2].nonzero().tolist() == [[1, 1]]
        assert obs[0, 1].nonzero().tolist() == [[1, 2], [2, 3]]
        assert obs[0, 0, 2, 1].item() == 0.25
        [step] = walk(world, [RIGHT])
        assert step.obs[0, 1, 1, 2].item() == 0.0, "the key was taken"
        assert world.render().shape == (48, 60, 3)
        assert world.render().dtype == torch.uint8

    def test_pellets_pay_once_and_keys_nothing(self) -> None:
        world = GridWorld.from_ascii("#######\n#S*a*A#\n#######", 1, item_reward=0.5)
        world.reset()
        rewards = [s.reward.item() for s in walk(world, [RIGHT, LEFT, RIGHT, RIGHT, RIGHT, RIGHT])]
        assert rewards == [0.5, 0, 0, 0, 0.5, 0]

    def test_progress_sums_to_the_distance(self) -> None:
        world = GridWorld.from_ascii("#####\n#S.G#\n#####", 1, progress_reward=0.25)
        world.reset()
        assert [s.reward.item() for s in walk(world, [RIGHT, LEFT, RIGHT, RIGHT])] == [
            0.25,
            -0.25,
            0.25,
            1.25,
        ]

    @pytest.mark.parametrize(
        "options",
        [
            {"slip": 0.3, "progress_reward": 0.1},
            {"control": "turn", "random_heading": True},
            {"goal_ends": False, "max_steps": None},
        ],
    )
    def test_the_table_tells_what_happens(self, options: dict) -> None:
        maps = ["#####\n#S.x#\n#..G#\n#####", "#####\n#SSG#\n#.x.#\n#####"]
        options = {"generator": generator(0), **options}
        check_tabular(GridWorld.from_ascii(maps, 256, **options), 60)

    def test_no_table_with_doors_or_items(self) -> None:
        with pytest.raises(NotImplementedError, match="doors and items"):
            GridWorld.from_ascii("#S+G#", 1).tabular()

    @pytest.mark.parametrize(
        "options",
        [
            {"view": "onehot", "slip": 0.2},
            {"view": "image", "toggle": True, "close_after": 3, "textures": True},
            {"view": "egocentric", "control": "turn", "toggle": True, "random_heading": True},
            {"view": "onehot", "control": "turn", "goal_decay": 0.9, "item_reward": 0.1},
        ],
    )
    def test_common(self, options: dict) -> None:
        maps = ["#######\n#S.a.*#\n#.x#A##\n#..+.G#\n#######", "#######\n#S..*.#\n#..#+##\n#a.A.G#\n#######"]

        def inside(env: TensorEnv, step: Step) -> None:
            assert isinstance(env, GridWorld)
            row, column = env.position.unbind(1)
            walls = torch.stack([layout.walls for layout in env.layouts])
            assert not bool(walls[env.layout, row, column].any())
            assert bool(env.items[:, -1].all())
            assert bool((env.doors[:, -1] == 1).all())

        check_env(
            lambda num_envs, generator: GridWorld.from_ascii(
                maps, num_envs, max_steps=20, generator=generator, **options
            ),
            invariants=inside,
            reward_range=(0, 1),
        )

    def test_bad_arguments(self) -> None:
        text = "#S.G#"
        for options, message in [
            ({"slip": 2.0}, "slip"),
            ({"goal_decay": 0.9}, "max_steps"),
            ({"close_after": 0}, "close_after"),
            ({"control": "jump"}, "control"),
            ({"view": "egocentric", "view_size": 4}, "odd"),
        ]:
            with pytest.raises((ValueError, TypeError), match=message):
                GridWorld.from_ascii(text, 1, **options)
        with pytest.raises(ValueError, match="one height"):
            GridWorld.from_ascii([text, "S"], 1)
