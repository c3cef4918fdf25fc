"""The study of episodic curiosity: worlds, tallies, the shared network, the paper profile for one step."""

from dataclasses import replace

import pytest
import torch

import assay
from assay.envs import EpisodeStats
from assay.lab.errors import InputError
from assay.rl.rollout import Rollout, random_rollout
from assay.studies.episodic_curiosity import DENSITIES, SCREENS, worlds
from assay.studies.episodic_curiosity import real as real_worlds
from assay.studies.episodic_curiosity.config import Small
from assay.studies.episodic_curiosity.explore import Tally, ablated, keys, world_of
from assay.studies.episodic_curiosity.worlds import ReachConfig, WorldConfig, make, random_walks, reachability

TINY = WorldConfig(rooms=2, room_size=3, horizon=20)
QUICK = ReachConfig(copies=16, steps=60, fits=150, features=8, hidden=32)


def _g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "world",
    [*DENSITIES, *(f"tv:{s}" for s in SCREENS), "walls:plain", "walls:textured"],
)
def test_every_world_steps_and_tells_what_is_counted(world: str) -> None:
    env = EpisodeStats(make(world, TINY, 6, _g()))
    for kind in ("ec", "oracle"):
        rollout = random_rollout(env, 25, _g(1), keys(world, kind))
        assert rollout.info["rooms_visited"].min() >= 1
    if world == "none" or world.startswith(("tv", "walls")):
        assert (rollout.reward == 0).all()
    if world.startswith("tv:"):
        flat = make("none", TINY, 1, _g()).obs_shape[0]
        assert env.obs_shape[0] == flat + 16
        extra = 0 if world == "tv:noise" else 1
        assert env.num_actions == 4 + extra
    with pytest.raises(ValueError, match="unknown world"):
        make("bright", TINY, 1, _g())


def test_textures_change_what_walls_look_like() -> None:
    plain, textured = (make(f"walls:{w}", TINY, 1, _g()).reset(0)[0] for w in ("plain", "textured"))
    assert plain.shape == textured.shape
    assert not torch.equal(plain, textured)


def test_arms_name_their_worlds() -> None:
    assert world_of("none/ec") == "none"
    assert world_of("tv-image-3/icm") == "tv:image-3"
    assert world_of("walls/ec-plain") == "walls:plain"
    assert world_of("ablate/k-4") == "none"
    study = assay.load("episodic-curiosity")
    shown = {world_of(arm.name) for arm in study.arms if not arm.name.startswith(("rnet", "real"))}
    assert shown == {*DENSITIES, *(f"tv:{s}" for s in SCREENS), "walls:plain", "walls:textured"}


def test_an_ablation_changes_one_thing() -> None:
    config = Small()
    assert ablated("ablate/k-4", config) == (replace(config, reach=replace(config.reach, k=4)), {})
    assert ablated("ablate/memory-5", config) == (replace(config, learn=replace(config.learn, memory=5)), {})
    assert ablated("ablate/fits-100", config) == (replace(config, reach=replace(config.reach, fits=100)), {})
    assert ablated("ablate/max", config) == (config, {"how": "max"})


def test_the_best_return_of_a_dense_world_is_one() -> None:
    from assay.studies.episodic_curiosity.worlds import BEST

    env = make("collect", WorldConfig(), 1, _g())
    env.reset(0)
    assert env.num_items * 0.1 == pytest.approx(BEST["collect"])


def test_a_network_is_trained_once_for_all_seeds_and_learns() -> None:
    first, accuracy = reachability("none", TINY, QUICK, "cpu")
    again, _ = reachability("none", TINY, QUICK, "cpu")
    assert first is again
    assert accuracy > 0.7
    assert not any(p.requires_grad for p in first.parameters())
    assert reachability("very_sparse", TINY, QUICK, "cpu")[0] is first, "the same maze, the same network"
    assert reachability("doors", TINY, QUICK, "cpu")[0] is not first
    worlds._reachability.cache_clear()
    anew, same = reachability("none", TINY, QUICK, "cpu")
    assert same == accuracy, "whoever asks first gets the same network"
    assert torch.equal(anew.left.weight, first.left.weight)


def test_walks_have_no_end() -> None:
    env = make("tv:noise", TINY, 4, _g(), start="random", max_steps=None)
    walks, first = random_walks(env, QUICK, _g(1))
    assert not first[1:].any()
    assert walks.shape[:2] == (60, 4)
    # A walk that ended would begin anew somewhere else: neighbouring steps differ in one coordinate by one at most.
    place = walks[..., :-16]
    row = place[..., : place.shape[-1] // 2].argmax(-1)
    column = place[..., place.shape[-1] // 2 :].argmax(-1)
    assert (row.diff(dim=0).abs() + column.diff(dim=0).abs()).max() <= 1


def test_a_tally_counts_whole_episodes_of_the_last_fifth() -> None:
    tally = Tally(updates=10)
    for index in range(10):
        rollout = Rollout(2, 1, 2)
        rollout.reward = torch.tensor([0.0, 3.0, 0.0, 1.0]).reshape(2, 1, 2)
        rollout.terminated = torch.tensor([[False], [True]])
        rollout.truncated = torch.zeros(2, 1, dtype=torch.bool)
        rollout.info = {
            "rooms_visited": torch.tensor([[9], [index]]),
            "episode_return": torch.tensor([[50.0], [2.0 * index]]),
            "tv": torch.tensor([[True], [False]]),
        }
        assert tally.take(index, rollout) == (index, 2 * index)
        rollout.terminated = torch.zeros(2, 1, dtype=torch.bool)
        assert tally.take(index, rollout) is None, "an episode that goes on is not one of no return"
    found = tally.metrics("none", actions=5)
    assert found["rooms"] == 9  # of any step of any episode
    assert found["rooms_mean"] == pytest.approx(8.5)
    assert found["return"] == pytest.approx(2 * 8.5)
    assert found["tv_share"] == 0.5
    assert found["tv_pay"] == pytest.approx(2.0)  # 3 with the screen, 1 without
    assert found["tv_above_uniform"] == pytest.approx(0.3)


@pytest.mark.parametrize("world", ["MiniGrid-Empty-8x8-v0", "VizdoomMyWayHome-v1"])
def test_the_paper_profile_steps_real_worlds(world: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = assay.load("episodic-curiosity")
    config = study.configure("paper").real
    assert (config.world, config.memory, config.k) == ("VizdoomMyWayHome-v1", 200, 5)
    tiny = replace(
        config, world=world, copies=2, mode="sync", walks=120, fits=2, k=1, gap=2, batch=8, features=16
    )
    pytest.importorskip(real_worlds.extra_of(tiny), reason="needs its extra")
    net = real_worlds.reachability(tiny, _g())
    env = real_worlds.make(tiny, 2)
    obs, _ = env.reset(seed=0)
    assert net.embed(obs).shape == (2, 16)
    env.close()


def test_a_missing_simulator_is_one_clear_line(monkeypatch, tmp_path) -> None:
    import assay._extras as extras

    original = extras.import_module

    def without(name: str):
        if name.startswith("vizdoom"):
            raise ImportError(name)
        return original(name)

    monkeypatch.setattr(extras, "import_module", without)
    with pytest.raises((InputError, ImportError), match="pip install gymnasium vizdoom"):
        assay.run(
            "episodic-curiosity",
            profile="paper",
            arms=["real/ppo"],
            seeds=1,
            executor="inline",
            results=tmp_path,
        )
