"""Episodic curiosity: pairs, memory, aggregation, bonus."""

import numpy as np
import pytest
import torch
from torch import Tensor

from assay.envs.grid import grid_distance
from assay.rl.intrinsic.episodic import (
    EpisodicCuriosity,
    EpisodicMemory,
    GridOracle,
    OnlineRTrainer,
    RNetwork,
    aggregate_similarity,
    sample_reachability_pairs,
)
from assay.rl.rollout import random_rollout
from tests.rl.worlds import Line


def _g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("mode", ["uniform", "walk"])
def test_pairs_are_labelled_by_their_distance(mode: str) -> None:
    lengths = torch.tensor([30, 60, 12])
    pairs = sample_reachability_pairs(lengths, 2, 5, 6000, mode, _g())
    apart = (pairs.i - pairs.j).abs()
    close = pairs.label == 1
    assert close.float().mean() == 0.5
    assert (apart[close] >= 1).all()
    assert (apart[close] <= 2).all()
    assert (apart[~close] > 10).all()  # nothing inside the gap
    for place in (pairs.i, pairs.j):
        assert (place >= 0).all()
        assert (place < lengths[pairs.trajectory]).all()
    order = (pairs.i < pairs.j).float().mean()
    assert abs(order.item() - 0.5) < 4 * (0.25 / 6000) ** 0.5
    assert set(pairs.trajectory.tolist()) == {0, 1, 2}


def test_every_far_pair_is_as_likely() -> None:
    pairs = sample_reachability_pairs([13], 2, 5, 60_000, generator=_g())
    far = pairs.label == 0
    lowest = torch.minimum(pairs.i, pairs.j)[far]
    assert set(lowest.tolist()) == {0, 1}  # (0, 11), (0, 12), (1, 12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0, "gap_multiplier": 5}, "at least 1"),
        ({"k": 2, "gap_multiplier": 1}, "must exceed k"),
        ({"k": 5, "gap_multiplier": 5}, "trajectory of 20 observations"),
        ({"k": 1, "gap_multiplier": 2, "mode": "all"}, "'uniform' or 'walk'"),
    ],
)
def test_impossible_pairs_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_reachability_pairs([40, 20], n=10, **options)


def test_the_percentile_is_numpys_on_what_is_filled() -> None:
    c = torch.tensor([[0.9, 0.1, 0.3, 0.2, 0.6, 0.05, 0.4, 0.8, 0.7, 0.15]])
    everything = torch.ones(1, 10, dtype=torch.bool)
    assert aggregate_similarity(c, everything).item() == pytest.approx(0.81)
    generator = _g(1)
    c = torch.rand(200, 17, generator=generator)
    filled = torch.rand(200, 17, generator=generator) < 0.4
    filled[:3] = False
    got = aggregate_similarity(c, filled)
    assert (got[:3] == 0).all()
    for row in range(3, 200):
        kept = c[row][filled[row]].numpy()
        if len(kept):
            assert got[row].item() == pytest.approx(np.percentile(kept, 90), abs=1e-6)
            assert aggregate_similarity(c, filled, "max")[row].item() == kept.max()
            third = np.sort(kept)[::-1][min(2, len(kept) - 1)]
            assert aggregate_similarity(c, filled, "nth", 3)[row].item() == third
            share = aggregate_similarity(c, filled, "count")[row].item()
            assert share == pytest.approx((kept > 0.5).mean())
    with pytest.raises(ValueError, match="how is"):
        aggregate_similarity(c, filled, "mean")
    with pytest.raises(ValueError, match="between 0 and 100"):
        aggregate_similarity(c, filled, q=101)


def test_a_memory_of_rows_is_as_many_single_memories() -> None:
    together = EpisodicMemory(3, 4, 2, "fifo")
    apart = [EpisodicMemory(1, 4, 2, "fifo") for _ in range(3)]
    generator = _g()
    for _ in range(30):
        vectors = torch.rand(3, 2, generator=generator)
        mask = torch.rand(3, generator=generator) < 0.6
        ended = torch.rand(3, generator=generator) < 0.1
        together.add(vectors, mask)
        together.reset_where(ended)
        for i, one in enumerate(apart):
            one.add(vectors[i : i + 1], mask[i : i + 1])
            one.reset_where(ended[i : i + 1])
            entries, filled = together.get()
            alone, has = one.get()
            assert torch.equal(filled[i], has[0])
            assert torch.equal(entries[i][filled[i]], alone[0][has[0]])
    assert together.filled.sum(1).max() <= 4


def test_random_replacement_forgets_geometrically() -> None:
    # With capacity M an entry survives each further addition with probability 1 - 1/M.
    capacity, later = 5, 8
    memory = EpisodicMemory(20_000, capacity, 1, generator=_g())
    everywhere = torch.ones(20_000, dtype=torch.bool)
    for t in range(capacity + later):
        memory.add(torch.full((20_000, 1), float(t)), everywhere)
    survived = (memory.entries[..., 0] == capacity - 1).any(1).float().mean().item()
    expected = (1 - 1 / capacity) ** later
    assert abs(survived - expected) < 4 * (expected * (1 - expected) / 20_000) ** 0.5
    assert (memory.entries[..., 0] == capacity + later - 1).any(1).all(), "the newest is always there"
    with pytest.raises(ValueError, match="at least one entry"):
        EpisodicMemory(1, 0, 2)
    with pytest.raises(ValueError, match="'random' or 'fifo'"):
        EpisodicMemory(1, 2, 2, "lifo")


class _Perfect(RNetwork):
    """Knows the true distance: on an empty board observations are cells (row, column)."""

    def __init__(self, k: int):
        super().__init__(torch.nn.Identity(), 2, comparator="metric")
        self.k = k

    def logits(self, embedding: Tensor, remembered: Tensor) -> Tensor:
        close = (embedding - remembered).abs().sum(-1) <= self.k
        return torch.where(close, 50.0, -50.0)


def test_with_a_perfect_comparator_the_memory_packs_and_covers() -> None:
    k, side = 2, 9
    generator = _g(3)
    curiosity = EpisodicCuriosity(_Perfect(k), 50, capacity=100, how="max")
    place = torch.randint(side, (50, 2), generator=generator)
    visited = []
    going = torch.zeros(50, dtype=torch.bool)
    for _ in range(60):
        curiosity.step(place.float(), going)
        visited.append(place)
        move = torch.tensor([[0, 1], [0, -1], [1, 0], [-1, 0]])[torch.randint(4, (50,), generator=generator)]
        place = (place + move).clamp(0, side - 1)
    walls = torch.zeros(side, side, dtype=torch.bool)
    entries, filled = curiosity.memory.get()
    for walk in range(50):
        kept = entries[walk][filled[walk]].long()
        assert len(kept) > 1
        for a in range(len(kept)):
            source = torch.zeros(side, side, dtype=torch.bool)
            source[kept[a, 0], kept[a, 1]] = True
            others = torch.cat([kept[:a], kept[a + 1 :]])
            distance = grid_distance(walls, source)
            assert (distance[others[:, 0], others[:, 1]] > k).all(), "two stored cells are more than k apart"
        sources = torch.zeros(side, side, dtype=torch.bool)
        sources[kept[:, 0], kept[:, 1]] = True
        reach = grid_distance(walls, sources)
        path = torch.stack(visited)[:, walk]
        assert (reach[path[:, 0], path[:, 1]] <= k).all(), "every visited cell is within k of a stored one"


def test_bonus_bounds_first_step_and_ends() -> None:
    net = RNetwork.mlp(3, 4, 8, _g())
    curiosity = EpisodicCuriosity(net, 6, capacity=5, alpha=0.03, beta=0.5, generator=_g(1))
    generator, none = _g(2), torch.zeros(6, dtype=torch.bool)
    first = curiosity.step(torch.randn(6, 3, generator=generator), none)
    torch.testing.assert_close(first, torch.full((6,), 0.03 * 0.5))  # an empty memory: F = 0
    for _ in range(20):
        bonus = curiosity.step(torch.randn(6, 3, generator=generator), none)
        assert (bonus >= 0.03 * (0.5 - 1) - 1e-6).all()
        assert (bonus <= 0.03 * 0.5 + 1e-6).all()
    ended = torch.tensor([True, False] * 3)
    kept = curiosity.memory.count.clone()
    bonus = curiosity.step(torch.randn(6, 3, generator=generator), ended)
    assert (bonus[ended] == 0).all()
    assert (curiosity.memory.count[ended] == 0).all()
    assert (curiosity.memory.count[~ended] >= kept[~ended]).all()


def test_the_memory_goes_on_over_rollouts_and_never_holds_the_next_episode_too_early() -> None:
    rollout = random_rollout(Line(8, length=4, max_steps=6), 20, _g())
    net = RNetwork.mlp(1, 4, 8, _g(1))
    whole = EpisodicCuriosity(net, 8, generator=_g(2)).reward(rollout)
    stepwise = EpisodicCuriosity(net, 8, generator=_g(2))
    by_hand = torch.stack(
        [stepwise.step(o, e) for o, e in zip(rollout.next_obs(), rollout.ended, strict=True)]
    )
    torch.testing.assert_close(whole, by_hand, rtol=1e-4, atol=1e-6)
    assert (whole[rollout.ended] == 0).all()
    begins = rollout.first[:-1]
    torch.testing.assert_close(
        whole[begins & ~rollout.ended], torch.full_like(whole[begins & ~rollout.ended], 0.5)
    )


def test_negative_bonuses_make_ending_pay_unless_beta_is_one() -> None:
    # In a world that is all one place the bonus tends to beta - 1: below zero for 0.5, never for 1.
    for beta, least in ((0.5, -0.5), (1.0, 0.0)):
        curiosity = EpisodicCuriosity(_Perfect(2), 1, beta=beta)
        none = torch.zeros(1, dtype=torch.bool)
        total = [float(curiosity.step(torch.zeros(1, 2), none)) for _ in range(5)]
        assert total[-1] == pytest.approx(least, abs=1e-6)


def test_the_network_stays_as_it_was_trained() -> None:
    encoder = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.BatchNorm1d(4))
    net = RNetwork(encoder, 4, (8, 8))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    curiosity = EpisodicCuriosity(net, 8)
    assert not list(curiosity.parameters())
    curiosity.reward(random_rollout(Line(8, max_steps=6), 10, _g()))
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in before.items())


@pytest.mark.parametrize("comparator", ["deep", "metric"])
def test_it_learns_what_is_near_on_a_line(comparator: str) -> None:
    rollout = random_rollout(Line(32, length=60, max_steps=200), 150, _g())
    seen = torch.nn.functional.one_hot(rollout.obs[:-1, :, 0].long().clamp(max=30), 31).float()
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Linear(31, 32), torch.nn.ReLU(), torch.nn.Linear(32, 16))
    net = RNetwork(encoder, 16, (32, 32), comparator, _g(1))
    losses = net.fit(seen, k=2, gap_multiplier=10, steps=250, generator=_g(2))
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])
    assert net.accuracy(seen, 2, 10, generator=_g(3)) > 0.6
    place = torch.eye(31)
    near = net.compare(net.embed(place[5:6]), net.embed(place[6:7]))
    far = net.compare(net.embed(place[0:1]), net.embed(place[15:16]))
    assert near > far, "C is the probability of being CLOSE"
    # The memory's half-finished comparison is the whole one.
    a, b = net.embed(place[:4]), net.embed(place[4:8])
    whole = torch.sigmoid(net(place[:4], place[4:8]))
    torch.testing.assert_close(torch.sigmoid(net.logits(a, net.remember(b))), whole)


def test_online_training_waits_and_crosses_no_episode() -> None:
    net = RNetwork.mlp(1, 4, 8, _g())
    trainer = OnlineRTrainer(net, 400, 300, 3, k=1, gap_multiplier=2, batch=16, generator=_g(1))
    rollout = random_rollout(Line(8, max_steps=6), 20, _g())
    before = net.left.weight.clone()
    assert not trainer.add(rollout.obs[:-1], rollout.first[:-1])
    assert not trainer.ready
    assert torch.equal(before, net.left.weight)
    assert trainer.add(rollout.obs[:-1], rollout.first[:-1])
    assert trainer.ready
    assert not torch.equal(before, net.left.weight)
    assert not net.training
    for _ in range(5):
        trainer.add(rollout.obs[:-1], rollout.first[:-1])
    assert sum(len(o) for o in trainer._obs) * 8 <= 400 + 160
    short = OnlineRTrainer(net, 400, 100, 3, k=2, gap_multiplier=5)
    assert not short.add(rollout.obs[:-1], rollout.first[:-1]), "no episode is longer than the gap"


def test_the_oracle_counts_cells_as_a_set_does() -> None:
    env = Line(6, length=5, max_steps=9)
    rollout = random_rollout(env, 60, _g(), info=("where",))
    oracle = GridOracle(6, "where", cells=10)
    reward = oracle.reward(rollout)
    for n in range(6):
        seen: set[int] = set()
        for t in range(60):
            cell = int(rollout.info["where"][t, n])
            ended = bool(rollout.ended[t, n])
            assert reward[t, n] == float(cell not in seen and not ended)
            seen = set() if ended else seen | {cell}
    with pytest.raises(ValueError, match="raise `cells`"):
        GridOracle(6, "where", cells=2).reward(rollout)
