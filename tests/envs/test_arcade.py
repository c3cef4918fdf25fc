"""Breakout against MinAtar; pong by its own rules, from both sides."""

import pytest
import torch
from torch import Tensor

from assay.envs import MiniBreakout, Pong, SelfPlay, TwoPlayerPong
from assay.envs.arcade import WALL
from assay.envs.base import Step, TensorEnv

from .common import assert_same_step, check_env, generator, same


def sane(env: TensorEnv, step: Step) -> None:
    paddle, ball, trail, bricks = step.final_obs.unbind(1)  # type: ignore[union-attr]
    for one in (paddle, ball, trail):
        assert bool((one.flatten(1).sum(1) == 1).all())
    assert bool((paddle[:, 9].sum(1) == 1).all())
    assert not bool(bricks[:, 4:].any() or bricks[:, 0].any())


def test_common_breakout() -> None:
    check_env(lambda **k: MiniBreakout(**k), invariants=sane, reward_range=(0, 1))
    check_env(lambda **k: MiniBreakout(max_steps=9, pixels=torch.uint8, **k), steps=60)


@pytest.mark.parametrize("world", [TwoPlayerPong, Pong])
def test_common_pong(world: type[TensorEnv]) -> None:
    check_env(lambda **k: world(**k), reward_range=(-1, 1))
    check_env(lambda **k: world(pixels=torch.uint8, max_steps=7, **k), steps=60)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("skill", [0.0, 0.97, 1.0])
def test_breakout_follows_minatar_for_1000_steps(seed: int, skill: float) -> None:
    """Same side of serve, same actions: same screen, reward and end. Skilled play breaks the whole wall."""
    minatar = pytest.importorskip("minatar", reason="the parity peer (assay[peers])")
    real = minatar.Environment("breakout", sticky_action_prob=0.0)
    real.seed(seed)
    env = MiniBreakout(1, generator=generator(seed))
    env.reset()
    g = generator(seed + 10)

    def serve() -> None:
        real.reset()
        right = int(real.env.ball_x == 9)
        env.ball = torch.tensor([30 + 9 * right])
        env.heading = torch.tensor([2 + right])
        env.last = env.ball

    def screen(obs: Tensor) -> Tensor:
        return obs[0].permute(1, 2, 0).bool()

    serve()
    assert torch.equal(screen(env.observe()), torch.from_numpy(real.state()))
    broken = walls = ends = 0
    for t in range(1000):
        action = int(torch.randint(3, (1,), generator=g))
        if float(torch.rand(1, generator=g)) < skill:
            # Be where the ball will come down, or one column on: either returns it, at another angle.
            y, x, h = *divmod(int(env.ball), 10), int(env.heading)
            dx, dy = (-1, 1, 1, -1)[h], (-1, -1, 1, 1)[h]
            if dy > 0:
                for _ in range(8 - y):
                    x += dx
                    if not 0 <= x <= 9:
                        x, dx = min(max(x, 0), 9), -dx
                if float(torch.rand(1, generator=g)) < 0.5:
                    x = min(max(x + dx, 0), 9)
            # While the ball goes up, stay below it.
            action = 0 if x == int(env.paddle) else 1 if x < int(env.paddle) else 2
        before = int(env.bricks)
        reward, terminal = real.act([0, 1, 3][action])
        step = env.step(torch.tensor([action]))
        assert float(step.reward) == reward, t
        assert bool(step.terminated) == terminal, t
        assert torch.equal(screen(step.final_obs), torch.from_numpy(real.state())), t  # type: ignore[arg-type]
        broken += int(reward)
        walls += int(before == 0 and not terminal and int(env.bricks) == WALL)
        if terminal:
            ends += 1
            serve()
    assert broken > (40 if skill == 1.0 else 3)
    assert ends >= 1 or skill == 1.0
    if skill == 1.0:
        assert walls >= 1, "the wall was never built anew"


def test_breakout_serves_from_both_sides() -> None:
    env = MiniBreakout(1000, generator=generator(0))
    env.reset()
    right = env.ball == 39
    assert 420 < int(right.sum()) < 580
    assert torch.equal(env.heading, 2 + right.long())
    assert bool((env.bricks == WALL).all())
    assert float(env.observe()[:, 3].sum()) == 30_000


def tracker(env: TwoPlayerPong | Pong, side: int) -> Tensor:
    ahead = env.ball[:, 1] - env.paddles[:, side]
    return (ahead < 0).long() + 2 * (ahead > 0)


def test_pong_can_be_played_for_ever_and_lost_at_once() -> None:
    env = TwoPlayerPong(256, generator=generator(0), max_steps=400)
    env.reset()
    for _ in range(400):
        step = env.step(torch.stack((tracker(env, 0), tracker(env, 1)), 1))
        assert not bool(step.terminated.any())
    assert bool(step.truncated.all())
    assert bool((step.info["rally"] >= 40).all())
    # One who always moves up loses, the other wins as much.
    total = torch.zeros(2)
    for _ in range(60):
        step = env.step(torch.stack((tracker(env, 0), torch.ones(256, dtype=torch.int64)), 1))
        assert torch.equal(step.reward[:, 0], -step.reward[:, 1])
        assert torch.equal(step.reward[:, 0] != 0, step.terminated)
        total += step.reward.sum(0)
    assert float(total[0]) > 100


def test_pong_looks_the_same_from_both_sides() -> None:
    """The mirrored game, with the players swapped, shows each what the other saw; and stays so."""
    env, mirror = TwoPlayerPong(64, generator=generator(1)), TwoPlayerPong(64, generator=generator(2))
    env.reset()
    mirror.reset()
    mirror.ball = torch.stack((9 - env.ball[:, 0], env.ball[:, 1]), 1)
    mirror.last, mirror.heading = mirror.ball, env.heading * torch.tensor([-1, 1])
    mirror.paddles = env.paddles.flip(1)
    g, over = generator(3), torch.zeros(64, dtype=torch.bool)
    for _ in range(40):
        action = torch.randint(3, (64, 2), generator=g)
        a, b = env.step(action), mirror.step(action.flip(1))
        live = ~over
        assert torch.equal(a.final_obs[live], b.final_obs.flip(1)[live])  # type: ignore[index,union-attr]
        assert torch.equal(a.reward[live], b.reward.flip(1)[live])
        over = over | a.terminated
    assert bool(over.any())
    left, right = env.observe()[0]
    assert torch.equal(left[0].flip(1), right[1])
    assert torch.equal(left[2].flip(1), right[2])
    assert float(left[0].sum()) == 3.0


def test_pong_bounces() -> None:
    env = TwoPlayerPong(3, max_steps=None)
    env.reset()
    # A ball that meets the upper end, the middle, the lower end of the right paddle (rows 3, 4, 5).
    env.ball = torch.tensor([[8, 2], [8, 3], [8, 4]])
    env.heading = torch.tensor([[1, 1]] * 3)
    step = env.step(torch.zeros(3, 2, dtype=torch.int64))
    assert not bool(step.terminated.any())
    assert env.heading.tolist() == [[-1, -1], [-1, 1], [-1, 1]]
    assert env.ball.tolist() == [[8, 3], [8, 4], [8, 5]]
    assert step.info["rally"].tolist() == [1, 1, 1]
    env.ball = torch.tensor([[4, 0], [4, 9], [8, 7]])
    env.heading = torch.tensor([[1, -1], [1, 1], [1, 1]])
    step = env.step(torch.zeros(3, 2, dtype=torch.int64))
    assert step.terminated.tolist() == [False, False, True]
    assert step.reward[2].tolist() == [1.0, -1.0]
    assert env.heading[:2].tolist() == [[1, 1], [1, -1]]


def test_better_opponents_win_more() -> None:
    def lost(**options: object) -> float:
        env = Pong(512, generator=generator(4), **options)  # type: ignore[arg-type]
        env.reset()
        g, points, total = generator(5), 0, 0.0
        for _ in range(100):
            step = env.step(torch.randint(3, (512,), generator=g))
            points += int(step.terminated.sum())
            total += float(step.reward.sum())
        return -total / points

    random, weak, strong = lost(opponent="random"), lost(skill=0.4), lost(skill=1.0)
    assert abs(random) < 0.1
    assert random + 0.1 < weak < strong
    assert strong == 1.0


def test_an_opponent_may_be_a_policy_with_its_own_view() -> None:
    seen: list[Tensor] = []

    def policy(obs: Tensor) -> Tensor:
        seen.append(obs)
        return torch.zeros(len(obs), dtype=torch.int64)

    env = Pong(4, opponent=policy, generator=generator(0))
    env.reset()
    env.step(torch.ones(4, dtype=torch.int64))
    assert torch.equal(seen[0][:, 0, :, 0].nonzero()[:3, 1], torch.tensor([3, 4, 5]))


def test_self_play_is_the_game_row_by_row() -> None:
    pair, game = SelfPlay(TwoPlayerPong(6, generator=generator(7))), TwoPlayerPong(6, generator=generator(7))
    a, _ = pair.reset()
    b, _ = game.reset()
    assert isinstance(b, Tensor)
    assert same(a, b.flatten(0, 1))
    g = generator(8)
    for _ in range(50):
        action = torch.randint(3, (12,), generator=g)
        one, two = pair.step(action), game.step(action.view(6, 2))
        assert same(one.obs, two.obs.flatten(0, 1))  # type: ignore[union-attr]
        assert same(one.final_obs, two.final_obs.flatten(0, 1))  # type: ignore[union-attr]
        assert torch.equal(one.reward.view(6, 2), two.reward)
        assert torch.equal(one.terminated.view(6, 2), two.terminated[:, None].expand(6, 2))
        assert torch.equal(one.info["rally"].view(6, 2)[:, 1], two.info["rally"])
    saved = pair.state_dict()
    first = pair.step(action)
    pair.load_state_dict(saved)
    assert_same_step(first, pair.step(action))
    with pytest.raises(ValueError, match="together"):
        pair.reset_where(torch.arange(12) == 3)


def test_common_self_play() -> None:
    def make(num_envs: int, **k: object) -> TensorEnv:
        return SelfPlay(TwoPlayerPong(num_envs // 2, **k))  # type: ignore[arg-type]

    check_env(make, split=False, reward_range=(-1, 1))


def test_adapters_take_the_games() -> None:
    pytest.importorskip("pettingzoo", reason="the peer's own check")
    from gymnasium.utils.env_checker import check_env as gymnasium_check
    from pettingzoo.test import parallel_api_test

    from assay.envs.adapters import as_gymnasium, as_pettingzoo

    parallel_api_test(as_pettingzoo(TwoPlayerPong(1)), num_cycles=100)
    for env in (MiniBreakout(1, max_steps=50), Pong(1)):
        gymnasium_check(as_gymnasium(env), skip_render_check=True)


def test_pictures() -> None:
    for env in (MiniBreakout(2), TwoPlayerPong(2), Pong(2), SelfPlay(TwoPlayerPong(1))):
        env.reset()
        image = env.render(1)
        assert image.dtype == torch.uint8
        assert image.shape == (120, 120, 3)
        assert len(image.flatten(0, 1).unique(dim=0)) >= 4


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="pixels"):
        MiniBreakout(1, pixels=torch.float64)
    with pytest.raises(ValueError, match="opponent"):
        Pong(1, opponent="wall")
    with pytest.raises(ValueError, match="skill"):
        Pong(1, skill=2.0)
