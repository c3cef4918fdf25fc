"""The scroller: its levels, its physics by hand, exact search for a way through, what it shows."""

import pytest
import torch

from assay.envs import SideScroller, generate_level
from assay.envs.base import Step, TensorEnv
from assay.envs.scroller import BEHIND, BITS, HIGHEST, JUMP, TEXTURES, WINDOW

from .common import check_env, generator

STAY, RIGHT, LEFT, UP, LEAP = range(5)


def sane(env: TensorEnv, step: Step) -> None:
    assert isinstance(env, SideScroller)
    column, height, rise, level = step.info["state"].unbind(1)
    assert bool((height <= HIGHEST + JUMP).all())
    assert bool((height >= env.ground[level, column]).all()), "inside the ground"
    assert torch.equal(step.info["death"], height <= 0)
    assert bool((step.info["furthest"] >= column).all())
    assert bool(((rise >= 0) & (rise <= JUMP)).all())


@pytest.mark.parametrize("view", ["flat", "image"])
@pytest.mark.parametrize("texture", TEXTURES)
def test_common(view: str, texture: str) -> None:
    for dies in (True, False):

        def make(dies: bool = dies, **k: object) -> TensorEnv:
            return SideScroller(
                levels=(1, 2, 3),
                view=view,
                texture=texture,
                death_terminates=dies,
                scrambled_columns=5,
                max_steps=60,
                **k,  # type: ignore[arg-type]
            )

        check_env(make, invariants=sane, reward_range=(0, 1), steps=120)


@pytest.mark.parametrize("seed", range(20))
def test_levels_are_what_they_should_be(seed: int) -> None:
    ground, texture = generate_level(seed)
    assert ground.shape == (120,)
    assert texture.shape == (120, BITS)
    assert 0.4 < float(texture.float().mean()) < 0.6
    assert bool(((ground >= 0) & (ground <= HIGHEST)).all())
    assert bool((ground[:6] == 2).all()), "a calm start"
    pit = ground == 0
    walls = torch.cat((torch.tensor([False]), pit, torch.tensor([False]))).int().diff()
    lengths = (walls == -1).nonzero() - (walls == 1).nonzero()
    assert bool(((lengths == 1) | (lengths == 2)).all())
    # Steps are 1 or 2 high; ground is as high behind a pit as before it.
    land = ground[~pit]
    change = land.diff().abs()
    assert bool((change <= 2).all())
    events = sorted({*(walls == 1).nonzero().flatten().tolist(), *steps_of(ground)})
    gaps = torch.tensor(events).diff()
    assert bool((gaps >= 4).all())
    assert bool((gaps <= 6 + 3).all())
    assert torch.equal(generate_level(seed).ground, ground)


def steps_of(ground: torch.Tensor) -> list[int]:
    """Columns where the ground changes height without a pit."""
    both = (ground[1:] > 0) & (ground[:-1] > 0) & (ground[1:] != ground[:-1])
    return (both.nonzero().flatten() + 1).tolist()


def test_every_level_can_be_finished_in_time() -> None:
    """Breadth-first search over all (column, height, rest of the jump) with the environment's own step."""
    levels = tuple(range(6))
    states = torch.cartesian_prod(torch.arange(120), torch.arange(8), torch.arange(JUMP + 1))
    many = len(states)
    for seed in levels:
        env = SideScroller(many * 5, levels=(seed,), max_steps=None, validate=False)
        env.reset()
        env.column, env.height, env.rise = (part.repeat_interleave(5) for part in states.unbind(1))
        _, dead, info = env._step(torch.arange(5).repeat(many))
        column, height, rise, _ = info["state"].unbind(1)
        index = ((column * 8 + height.clamp(0, 7)) * (JUMP + 1) + rise).view(many, 5)
        index = torch.where(dead.view(many, 5), -1, index)
        reached = torch.zeros(many, dtype=torch.bool)
        reached[(0 * 8 + 2) * (JUMP + 1)] = True
        needed = 0
        while needed < 200 and not bool(reached.view(120, -1)[119].any()):
            into = index[reached].flatten()
            reached[into[into >= 0]] = True
            needed += 1
        assert 119 <= needed < 200, f"level {seed} cannot be finished in time"


def flat_env(ground: list[int], **options: object) -> SideScroller:
    """A level written by hand, the runner at its start."""
    env = SideScroller(1, levels=(0,), width=len(ground), **options)  # type: ignore[arg-type]
    env.ground = torch.tensor([ground])
    env._flat_ground = env.ground.flatten()
    env.reset()
    return env


def path(env: SideScroller, actions: list[int]) -> list[tuple[int, int]]:
    states = []
    for action in actions:
        state = env.step(torch.tensor([action])).info["state"][0]
        states.append((int(state[0]), int(state[1])))
    return states


def test_physics_by_hand() -> None:
    flat = [2] * 24
    assert path(flat_env(flat), [RIGHT, RIGHT, LEFT, LEFT, LEFT]) == [(1, 2), (2, 2), (1, 2), (0, 2), (0, 2)]
    assert path(flat_env(flat), [UP, STAY, STAY, STAY]) == [(0, 3), (0, 4), (0, 3), (0, 2)]
    # In the air a jump does nothing; steering works.
    assert path(flat_env(flat), [LEAP, LEAP, LEAP, LEFT]) == [(1, 3), (2, 4), (3, 3), (2, 2)]
    high = [2, 2, 4, 4] + [4] * 20
    assert path(flat_env(high), [RIGHT, RIGHT, LEAP, LEAP, RIGHT]) == [(1, 2), (1, 2), (1, 3), (2, 4), (3, 4)]
    pit = [2, 2, 0, 0] + [2] * 20
    assert path(flat_env(pit), [RIGHT, LEAP, RIGHT, RIGHT, RIGHT]) == [(1, 2), (2, 3), (3, 4), (4, 3), (5, 2)]


@pytest.mark.parametrize("terminates", [True, False])
def test_death_leads_to_the_start(terminates: bool) -> None:
    env = flat_env([2, 0, 0] + [2] * 21, death_terminates=terminates)
    assert path(env, [RIGHT, RIGHT]) == [(1, 2), (2, 1)]
    step = env.step(torch.tensor([STAY]))
    assert bool(step.info["death"])
    assert bool(step.terminated) == terminates
    assert not bool(step.truncated)
    assert (int(env.column), int(env.height)) == (0, 2)
    assert int(step.info["furthest"]) == 2
    # The score belongs to the episode: it is lost with it, and kept where the episode goes on.
    assert int(env.furthest) == (0 if terminates else 2)
    assert int(env.elapsed) == (0 if terminates else 3)
    assert float(env.step(torch.tensor([RIGHT])).reward) == float(terminates)


def test_the_return_is_the_furthest_column() -> None:
    env = SideScroller(64, levels=(1, 2), generator=generator(0))
    env.reset()
    g, total, checked = generator(1), torch.zeros(64), 0
    for _ in range(300):
        step = env.step(torch.randint(5, (64,), generator=g))
        total = total + step.reward
        assert torch.equal(total, step.info["furthest"].float())
        checked += int(step.ended.sum())
        total = total.masked_fill(step.ended, 0.0)
    assert checked > 64


def test_flat_view_by_hand() -> None:
    env = SideScroller(3, levels=(4, 5), generator=generator(0))
    env.reset()
    env.level = torch.tensor([0, 1, 1])
    env.column, env.height, env.rise = (
        torch.tensor([0, 50, 119]),
        torch.tensor([2, 6, 7]),
        torch.tensor([0, 1, 2]),
    )
    obs = env.observe()
    assert obs.shape == (3, 131)
    for i in range(3):
        heights = obs[i, :60].view(WINDOW, 6)
        bits = obs[i, 60:120].view(WINDOW, BITS)
        for k in range(WINDOW):
            c = int(env.column[i]) - BEHIND + k
            if 0 <= c < 120:
                assert int(heights[k].argmax()) == int(env.ground[env.level[i], c])
                assert torch.equal(bits[k].bool(), env.texture[env.level[i], c])
            else:
                assert int(heights[k].argmax()) == HIGHEST
                assert not bool(bits[k].any())
        assert int(obs[i, 120:128].argmax()) == int(env.height[i])
        assert int(obs[i, 128:].argmax()) == int(env.rise[i])


def test_image_view_by_hand() -> None:
    env = SideScroller(1, levels=(4,), view="image")
    env.reset()
    env.column, env.height, env.rise = torch.tensor([40]), torch.tensor([6]), torch.tensor([1])
    ground, pit, bits, runner = env.observe()[0]
    part = slice(40 - BEHIND, 40 - BEHIND + WINDOW)
    assert torch.equal(ground.sum(0).long(), env.ground[0, part])
    assert torch.equal(ground, ground.cummax(0).values), "ground lies at the bottom"
    assert torch.equal(pit[7] > 0, env.ground[0, part] == 0)
    assert float(pit[:7].sum()) == 0
    assert torch.equal(bits[1:7].flip(0).t().bool(), env.texture[0, part])
    assert runner.nonzero().tolist() == [[1, BEHIND]]
    assert float(runner.max()) == pytest.approx(2 / 3)


@pytest.mark.parametrize("view", ["flat", "image"])
def test_scrambled_texture_belongs_to_the_episode_and_the_column(view: str) -> None:
    env = SideScroller(
        2, levels=(3,), view=view, scrambled_columns=12, max_steps=None, generator=generator(1)
    )
    env.reset()
    env.offset = torch.tensor([5, 900])

    def seen(column: int) -> torch.Tensor:
        env.column = torch.tensor([column] * 2)
        obs = env.observe()
        if view == "image":
            return obs[:, 2, 1:7].flip(1).transpose(1, 2)
        return obs[:, 60:120].view(2, WINDOW, BITS)

    for column in (3, 6, 9):
        bits = seen(column)
        for k in range(WINDOW):
            c = column - BEHIND + k
            if c < 12:
                for i in range(2):
                    assert torch.equal(bits[i, k] > 0, env._shown(i)[c]), (
                        "a column looks alike from everywhere"
                    )
            else:
                assert torch.equal(bits[0, k].bool(), env.texture[0, c])
    assert not torch.equal(env._shown(0)[:12], env._shown(1)[:12])
    assert torch.equal(env._shown(0)[12:], env.texture[0, 12:])
    whole = SideScroller(1, texture="scrambled")
    assert whole.scrambled_columns == 120


def test_textures() -> None:
    bits = {name: SideScroller(1, levels=(7,), texture=name).texture[0].float() for name in TEXTURES}
    assert float(bits["constant"].sum()) == 0
    assert float(bits["fading"][:40].mean()) > 2 * float(bits["fading"][80:].mean())
    assert bool((bits["fading"] <= bits["random"]).all())


def test_level_sets() -> None:
    env = SideScroller(600, levels=(10, 11, 12), generator=generator(0))
    env.reset()
    counts = torch.bincount(env.level, minlength=3)
    assert bool((counts > 150).all())
    assert torch.equal(env.ground[1], generate_level(11).ground)
    assert not torch.equal(env.ground[0], env.ground[1])


def test_picture() -> None:
    env = SideScroller(2)
    env.reset()
    image = env.render(1)
    assert image.shape == (80, 1200, 3)
    assert image.dtype == torch.uint8


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="level seed"):
        SideScroller(1, levels=())
    with pytest.raises(ValueError, match="view"):
        SideScroller(1, view="sound")
    with pytest.raises(ValueError, match="texture"):
        SideScroller(1, texture="wood")
    with pytest.raises(ValueError, match="scrambled_columns"):
        SideScroller(1, scrambled_columns=121)
    with pytest.raises(ValueError, match="wide"):
        generate_level(0, 10)
