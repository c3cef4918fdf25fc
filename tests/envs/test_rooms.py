"""RoomsGrid, FourRooms and DoorKeyGrid: how rooms hang together, and their tasks by scripted walks."""

import pytest
import torch
from torch import Tensor

from assay.envs.base import Step, TensorEnv
from assay.envs.grid import GridLayout, connected, grid_distance
from assay.envs.rooms import DoorKeyGrid, FourRooms, RoomsGrid, rooms_layout

from .common import check_env, check_tabular, generator


def joined(layout: GridLayout) -> set[tuple[int, int]]:
    """Pairs of rooms with an opening or a door between them."""
    pairs = set()
    openings = layout.passage.flatten().clone()
    openings[list(layout.doors)] = True
    width = layout.walls.shape[1]
    for cell in openings.nonzero().flatten().tolist():
        near = {cell + step for step in (-1, 1, -width, width)}
        rooms = {int(layout.room.flatten()[c]) for c in near if not layout.walls.flatten()[c]}
        assert len(rooms) == 2
        pairs.add((min(rooms), max(rooms)))
    return pairs


def follow(world: RoomsGrid, distance: Tensor) -> int:
    """Walk down a distance map; how many steps copy 0 takes until its episode ends."""
    for t in range(1, 500):
        position = world.position[0]
        near = position + torch.tensor([[-1, 0], [0, 1], [1, 0], [0, -1]])
        value = distance[near[:, 0], near[:, 1]]
        action = torch.where(value < 0, 10_000, value).argmin()
        if bool(world.step(action.expand(world.num_envs)).ended[0]):
            return t
    raise AssertionError("the goal was not reached")


class TestLayouts:
    @pytest.mark.parametrize(("rooms", "side", "steps", "limit"), [(3, 19, 52, 150), (4, 25, 94, 200)])
    def test_the_snake_has_the_sizes_of_the_studies(
        self, rooms: int, side: int, steps: int, limit: int
    ) -> None:
        layout = rooms_layout(rooms)
        assert layout.walls.shape == (side, side)
        assert joined(layout) == {(k, k + 1) for k in range(rooms * rooms - 1)}
        distance = grid_distance(layout.walls, layout.goal)
        assert int(distance[1, 1]) == steps
        assert bool(connected(layout.walls))
        # Each room is met later than the one before: the chain has no short cut.
        begin = grid_distance(layout.walls, layout.start)
        nearest = [int(begin[(layout.room == k) & ~layout.walls].min()) for k in range(rooms * rooms)]
        assert nearest == sorted(nearest)
        world = RoomsGrid(2, rooms, max_steps=limit)
        assert world.reset()[0].shape == (2, 2 * side)
        assert follow(world, distance) == steps

    @pytest.mark.parametrize("seed", range(6))
    def test_random_layouts_are_trees_numbered_outwards(self, seed: int) -> None:
        layout = rooms_layout(3, 5, kind="random", seed=seed)
        pairs = joined(layout)
        assert len(pairs) == 8
        assert bool(connected(layout.walls))
        assert {b for _, b in pairs} == set(range(1, 9)), "every room but the first has one that leads to it"

    def test_layouts_differ_by_seed_and_only_by_seed(self) -> None:
        def drawn(seed: int) -> Tensor:
            return rooms_layout(3, kind="random", seed=seed).walls

        assert torch.equal(drawn(1), drawn(1))
        assert len({tuple(drawn(s).flatten().tolist()) for s in range(8)}) == 8

    @pytest.mark.parametrize("kind", ["serpentine", "random"])
    def test_every_key_lies_before_its_door(self, kind: str) -> None:
        for seed in range(10):
            layout = rooms_layout(3, kind=kind, seed=seed, keys=3, doors=True)
            assert len(layout.doors) == 8
            assert sorted(layout.locks) == [-1] * 5 + [0, 1, 2]
            # With no key at hand, take what can be reached, until all doors are open.
            held: set[int] = set()
            for _ in range(4):
                walls = layout.walls.flatten().clone()
                for door, lock in zip(layout.doors, layout.locks, strict=True):
                    walls[door] = lock >= 0 and lock not in held
                reached = grid_distance(walls.view(19, 19), layout.start).flatten() >= 0
                held |= {k for k, cell in enumerate(layout.items) if reached[cell]}
            assert held == {0, 1, 2}
            assert bool(reached[layout.goal.flatten()])

    def test_traps_leave_every_room_reachable(self) -> None:
        for seed in range(5):
            layout = rooms_layout(3, seed=seed, traps=2, start="random")
            assert int(layout.trap.sum()) == 16
            assert bool(connected(layout.walls | layout.trap))
            assert not bool((layout.start & layout.trap).any())
            assert not bool(layout.trap[layout.room == 0].any())
        for seed in range(20):
            layout = rooms_layout(2, 3, seed=seed, traps=3)
            assert bool(connected(layout.walls | layout.trap)), "in tight rooms, too"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"rooms": 0}, "free cells"),
            ({"rooms": 2, "room_size": 2, "doors": True}, "3 x 3"),
            ({"rooms": 2, "keys": 4}, "doors to lock"),
            ({"rooms": 2, "goal_room": 4}, "goal_room"),
            ({"rooms": 2, "room_size": 3, "traps": 8, "seed": 0}, "traps"),
        ],
    )
    def test_bad_arguments(self, options: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            rooms_layout(**options)


class TestRoomsGrid:
    def test_rewards(self) -> None:
        layout = rooms_layout(2, 3)
        distance = grid_distance(layout.walls, layout.goal)

        def earned(reward: str, **options: object) -> tuple[float, Step]:
            world = RoomsGrid(1, 2, 3, reward=reward, max_steps=int(distance[1, 1]), **options)
            world.reset()
            total = 0.0
            for _ in range(int(distance[1, 1])):
                near = world.position[0] + torch.tensor([[-1, 0], [0, 1], [1, 0], [0, -1]])
                value = distance[near[:, 0], near[:, 1]]
                step = world.step(torch.where(value < 0, 99, value).argmin().view(1))
                total += step.reward.item()
            return total, step

        assert earned("very_sparse")[0] == 1.0
        assert earned("dense")[0] == pytest.approx(2.0)
        total, step = earned("none")
        assert total == 0.0
        assert step.truncated.item()
        assert step.info["rooms_visited"].item() == 4
        # The goal of the sparse task lies in room 2 of 0..3, that of the very sparse one in the last.
        assert RoomsGrid(1, 2, 3, reward="sparse").layouts[0].goal.nonzero().tolist() == [[6, 6]]
        assert RoomsGrid(1, 2, 3).layouts[0].goal.nonzero().tolist() == [[6, 2]]
        assert (
            RoomsGrid(1, 3, reward="sparse").layouts[0].room[RoomsGrid(1, 3, reward="sparse").layouts[0].goal]
            == 4
        )
        collect = RoomsGrid(1, 2, 3, reward="collect")
        assert len(collect.layouts[0].items) == 8
        assert not bool(collect.layouts[0].goal.any())

    def test_rooms_visited_counts_this_episode_only(self) -> None:
        world = RoomsGrid(1, 2, 3, max_steps=6)
        world.reset()
        # Right to the wall's middle: corner (1, 1), opening (2, 4).
        actions = [2, 1, 1, 1, 1, 0]
        counts = [world.step(torch.tensor([a])).info["rooms_visited"].item() for a in actions]
        assert counts == [1, 1, 1, 1, 2, 2]
        assert world.step(torch.tensor([0])).info["rooms_visited"].item() == 1

    def test_doors_close_behind(self) -> None:
        world = RoomsGrid(1, 2, 3, doors=True, close_after=3)
        world.reset()
        actions = [2, 1, 1, 1, 4, 1, 1, 0, 0, 0, 2, 3]
        columns = [world.step(torch.tensor([a])).info["state"][0, 1].item() for a in actions]
        assert columns == [1, 2, 3, 3, 3, 4, 5, 5, 5, 5, 5, 5]

    def test_every_layout_is_played_equally_often(self) -> None:
        world = RoomsGrid(4000, 2, 3, layouts=range(4), generator=generator(0))
        world.reset()
        counts = torch.bincount(world.layout, minlength=4)
        assert float(((counts - 1000) ** 2 / 1000).sum()) < 21.1  # chi-square, 3 degrees, p = 1e-4

    def test_textures_show_only_where_asked_for(self) -> None:
        plain, textured = (RoomsGrid(1, 2, 3, view="egocentric", textures=t) for t in (False, True))
        assert not bool(plain.reset()[0][0, 3].any())
        seen = textured.reset()[0][0]
        assert bool(seen[3].any())
        assert not bool(seen[3][seen[0] == 0].any()), "only walls have a texture"
        assert seen.shape == (4, 7, 7)

    def test_the_picture_of_nine_rooms_is_19_by_19(self) -> None:
        assert RoomsGrid(2, 3, view="image").reset()[0].shape == (2, 3, 19, 19)

    @pytest.mark.parametrize(
        "options",
        [
            {"rooms": 2, "room_size": 3, "reward": "none", "traps": 1},
            {"rooms": 2, "room_size": 2, "layouts": (3, 4), "layout": "random", "slip": 0.2, "start": "room"},
        ],
    )
    def test_table(self, options: dict) -> None:
        check_tabular(RoomsGrid(512, max_steps=None, generator=generator(5), **options), 80)

    @pytest.mark.parametrize(
        "options",
        [
            {"reward": "dense"},
            {"doors": True, "keys": 2, "close_after": 4, "layouts": range(3), "layout": "random"},
            {
                "reward": "collect",
                "view": "egocentric",
                "control": "turn",
                "textures": True,
                "start": "random",
            },
            {"traps": 1, "reward": "none", "view": "image", "start": "room"},
        ],
    )
    def test_common(self, options: dict) -> None:
        def inside(env: TensorEnv, step: Step) -> None:
            assert isinstance(env, RoomsGrid)
            row, column = env.position.unbind(1)
            walls = torch.stack([layout.walls for layout in env.layouts])
            assert not bool(walls[env.layout, row, column].any())
            assert bool((step.info["rooms_visited"] >= 1).all())
            assert bool((step.info["room"] < env.num_rooms).all())

        check_env(
            lambda num_envs, generator: RoomsGrid(
                num_envs, 2, 3, max_steps=40, generator=generator, **options
            ),
            num_envs=64,
            invariants=inside,
            deterministic=not options.get("slip"),
        )

    def test_bad_arguments(self) -> None:
        for options, message in [
            ({"reward": "much"}, "reward"),
            ({"reward": "none", "goal_room": 2}, "goal_room"),
            ({"close_after": 3}, "doors=True"),
        ]:
            with pytest.raises((ValueError, TypeError), match=message):
                RoomsGrid(1, **options)


class TestFourRooms:
    def test_the_map(self) -> None:
        world = FourRooms(8)
        walls = world.layouts[0].walls
        assert int((~walls).sum()) == 104
        assert bool(connected(walls))
        # The four rooms of the paper are joined by four hallways, in a ring.
        for hallway in ((3, 6), (6, 2), (7, 9), (10, 6)):
            assert not walls[hallway]
            blocked = walls.clone()
            blocked[hallway] = True
            assert bool(connected(blocked)), "a ring stays connected without one hallway"
        with pytest.raises(ValueError, match="free cell"):
            FourRooms(1, goal=(0, 0))

    def test_slip_goes_each_other_way_a_third_of_the_time(self) -> None:
        check_tabular(FourRooms(2048, slip=1 / 3, max_steps=None, generator=generator(2)), 60)

    def test_common(self) -> None:
        check_env(
            lambda num_envs, generator: FourRooms(num_envs, generator=generator),
            reward_range=(0, 1),
            deterministic=True,
        )


class TestDoorKeyGrid:
    def test_a_scripted_episode(self) -> None:
        world = DoorKeyGrid(64, 5, view="image")
        world.reset(seed=0)
        k = int((world.position == torch.tensor([3, 1])).all(1).nonzero()[0])
        layout = world.layouts[int(world.layout[k])]
        key, door = layout.items[0], layout.doors[0]
        _, right, forward, toggle = range(4)
        steps = 0

        def act(action: int) -> Step:
            nonlocal steps
            steps += 1
            return world.step(torch.full((64,), action))

        def face(direction: int) -> None:
            while int(world.heading[k]) != direction:
                act(right)

        def go(row: int, column: int) -> None:
            for axis, (less, more), target in ((0, (0, 2), row), (1, (3, 1), column)):
                while (at := int(world.position[k, axis])) != target:
                    face(more if target > at else less)
                    assert int(act(forward).info["state"][k, axis]) != at, "the way is free"

        door_row = door // 5
        go(door_row, 1)
        face(1)
        if not bool(world.items[k, 0]):
            act(toggle)
            assert act(forward).info["state"][k, 1] == 1, "locked without the key"
        go(key // 5, 1)
        go(door_row, 1)
        face(1)
        assert act(forward).info["state"][k, 1] == 1, "closed until it is opened"
        act(toggle)
        go(door_row, 3)
        face(2)
        while True:
            done = act(forward)
            if bool(done.terminated[k]):
                break
        assert done.reward[k].item() == pytest.approx(1 - 0.9 * steps / 250)

    @pytest.mark.parametrize("size", [5, 6])
    def test_every_map_can_be_solved(self, size: int) -> None:
        world = DoorKeyGrid(1, size)
        assert world.max_steps == 10 * size**2
        for layout in world.layouts:
            door, key = layout.doors[0], layout.items[0]
            closed = layout.walls.flatten().clone()
            closed[door] = True
            left = grid_distance(closed.view(size, size), layout.start).flatten() >= 0
            assert bool(left[key])
            assert not bool(left[layout.goal.flatten()])
            assert bool(connected(layout.walls))
            assert not bool(layout.start.flatten()[key])

    @pytest.mark.parametrize("view", ["egocentric", "onehot"])
    def test_common(self, view: str) -> None:
        check_env(
            lambda num_envs, generator: DoorKeyGrid(
                num_envs, 5, view=view, max_steps=60, generator=generator
            ),
            reward_range=(0, 1),
        )
