"""The coin game: rules, tie rules, views."""

import inspect

import pytest
import torch

from assay.envs import CoinGame

from .common import check_env


def world(num_envs: int = 1, seed: int = 0, **options) -> CoinGame:
    game = CoinGame(num_envs, generator=torch.Generator().manual_seed(seed), **options)
    game.reset()
    return game


def place(game: CoinGame, red: int, blue: int, coin: int, owner: int) -> None:
    game.players = torch.tensor([[red, blue]]).expand(game.num_envs, 2).clone()
    game.coin = torch.full((game.num_envs,), coin)
    game.owner = torch.full((game.num_envs,), owner)


@pytest.mark.parametrize(
    ("owner", "rewards"), [(0, [1.0, 0.0]), (1, [1.0, -2.0])], ids=["own coin", "the other's coin"]
)
def test_rewards_of_a_pick_up(owner, rewards):
    game = world()
    place(game, red=0, blue=8, coin=1, owner=owner)
    step = game.step(torch.tensor([[0, 2]]))  # red to the right, blue down (wraps to 2)
    assert step.reward.tolist() == [rewards]
    assert step.info["own"].tolist() == [[owner == 0, False]]
    assert step.info["other"].tolist() == [[owner == 1, False]]
    assert game.owner.tolist() == [1 - owner]
    assert int(game.coin[0]) not in game.players[0].tolist()


def test_moves_wrap_around_the_torus():
    game = world(max_steps=100)
    place(game, red=4, blue=4, coin=0, owner=0)
    for move, target in ((0, 5), (0, 3), (1, 5), (2, 8), (2, 2), (3, 8)):
        game.step(torch.tensor([[move, 0 if target != 0 else 1]]))
        assert int(game.players[0, 0]) == target
        game.coin = torch.tensor([0])
        game.players[0, 1] = 4


def test_nobody_on_the_coin_means_nothing_happens():
    game = world()
    place(game, red=0, blue=4, coin=8, owner=1)
    step = game.step(torch.tensor([[0, 0]]))
    assert step.reward.tolist() == [[0.0, 0.0]]
    assert int(game.coin[0]) == 8
    assert int(game.owner[0]) == 1


@pytest.mark.parametrize("tie", ["red", "both", "random"])
def test_ties(tie):
    game = world(num_envs=400, tie=tie)
    place(game, red=0, blue=2, coin=1, owner=0)
    step = game.step(torch.tensor([[0, 1]]).expand(400, 2))
    red_took, blue_took = step.info["own"][:, 0], step.info["other"][:, 1]
    if tie == "both":
        assert red_took.all()
        assert blue_took.all()
        assert (step.reward == torch.tensor([-1.0, 1.0])).all()
    else:
        assert (red_took ^ blue_took).all()
        share = float(red_took.float().mean())
        assert share == 1.0 if tie == "red" else 0.4 < share < 0.6


def test_observations_are_each_players_own_view():
    game = world()
    place(game, red=0, blue=5, coin=7, owner=1)
    obs = game.observe()
    assert obs.shape == (1, 2, 4, 3, 3)
    assert obs[0, 0, 0, 0, 0] == 1
    assert obs[0, 0, 1, 1, 2] == 1
    assert obs[0, 0, 3, 2, 1] == 1  # for red the coin is the other's
    assert obs[0, 1, 0, 1, 2] == 1
    assert obs[0, 1, 2, 2, 1] == 1  # for blue it is its own
    assert float(obs.sum()) == 6


def test_starts_and_horizon():
    game = world(num_envs=64, max_steps=5)
    first, _ = game.reset()
    cells = torch.cat([game.players, game.coin.unsqueeze(1)], 1)
    assert all(len(set(row)) == 3 for row in cells.tolist())
    assert first.shape == (64, 2, 4, 3, 3)
    generator = torch.Generator().manual_seed(1)
    for t in range(5):
        step = game.step(torch.randint(4, (64, 2), generator=generator))
        assert bool(step.truncated.all()) == (t == 4)
    assert not torch.equal(step.obs, step.final_obs)
    assert torch.equal(step.obs, game.observe())


def test_random_walkers_take_both_colours_alike():
    game = world(num_envs=512, max_steps=1_000)
    generator = torch.Generator().manual_seed(3)
    own, other, total = 0.0, 0.0, 0.0
    for _ in range(100):
        step = game.step(torch.randint(4, (512, 2), generator=generator))
        own += float(step.info["own"].sum())
        other += float(step.info["other"].sum())
        total += float(step.reward.sum())
    assert abs(own / (own + other) - 0.5) < 0.02
    assert total == own - other


def test_bad_input_is_told():
    with pytest.raises(ValueError, match="tie rule"):
        inspect.unwrap(CoinGame.__init__)(object.__new__(CoinGame), tie="blue")
    with pytest.raises(ValueError, match="at least one copy"):
        CoinGame(0)
    with pytest.raises(ValueError, match="size"):
        CoinGame(size=1)
    with pytest.raises(ValueError, match="actions"):
        world().step(torch.tensor([[0, 4]]))


def test_it_keeps_the_rules_of_every_environment():
    check_env(lambda **k: CoinGame(max_steps=9, **k), reward_range=(-2, 1), steps=60)


def test_it_is_a_parallel_environment():
    pytest.importorskip("pettingzoo", reason="needs the extra assay[rl]")
    from pettingzoo.test import parallel_api_test

    from assay.envs import as_pettingzoo

    parallel_api_test(as_pettingzoo(CoinGame(1, max_steps=7)), num_cycles=50)
