"""The curiosity study: nothing leaks, ends are hidden, what is counted, and that the paper's profile is real code."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from assay._extras import MissingExtra
from assay.envs import NoisyTV, RewardScale, SideScroller
from assay.lab import Results, registry
from assay.lab.trial import Trial
from assay.rl.intrinsic import ForwardDynamics, IntrinsicMixer
from assay.rl.normalize import ReturnNormalizer
from assay.rl.policies import actor_critic
from assay.rl.returns import gae
from assay.rl.rollout import Batch, Rollout, collect, random_rollout, start
from assay.rl.train import Update


def _g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def study():
    return registry.load("curiosity-features")


def _trial(study, folder: Path, arm: str = "scroller/rf", seed: int = 100) -> Trial:
    return Trial(
        arm, seed, study=study.id, profile="smoke", device="cpu", folder=folder, time_limit=600.0, report=None
    )


def run_arm(
    study, folder: Path, arm: str, changes=None, profile="smoke", seed: int = 100
) -> dict[str, float]:
    config = study.part(arm, study.configure(profile, changes or {}))
    return study.experiment(arm).function(_trial(study, folder, arm, seed), arm, config)


def tiny(study, game: str = "scroller"):
    return getattr(study.configure("smoke", {}), game)


@pytest.mark.parametrize("arm", ["scroller/vae", "tv/idf-image", "transfer/idf", "leak/done-constant"])
def test_the_same_trial_twice_is_the_same(study, tmp_path, arm):
    one, two = run_arm(study, tmp_path, arm), run_arm(study, tmp_path, arm)
    assert one.keys() == two.keys()
    assert all(one[k] == two[k] or one[k] != one[k] for k in one)


def _learner(study, folder, env, kind="idf", **options):
    from assay.studies.curiosity_features.agents import Learner, make_curiosity
    from assay.studies.curiosity_features.worlds import make_world

    config, run = tiny(study), _trial(study, folder)
    spare = make_world("scroller", config, _g(9))
    curiosity = make_curiosity(kind, spare, config.agent, run)
    return Learner(run, env, curiosity, config.agent, **options)


@pytest.mark.parametrize("kind", ["rf", "idf", "vae", "pixels"])
def test_the_games_reward_and_its_ends_never_reach_the_learner(study, tmp_path, kind):
    from assay.studies.curiosity_features.worlds import make_world

    after = []
    for scale in (1.0, 1e6):
        env = RewardScale(make_world("scroller", tiny(study), _g()), scale)
        learner = _learner(study, tmp_path, env, kind)
        paid = []
        for update in learner.train(env, 3, ("episode_end", "episode_return")):
            assert not update.rollout.ended.any()
            assert update.rollout.final_obs is None
            paid.append(update.rollout.info["episode_return"].sum())
        assert update.rollout.info["episode_end"].any(), "there were ends to hide"
        after.append([*learner.model.state_dict().values(), *learner.reward.state_dict().values(), *paid])
    assert all(torch.equal(a, b) for a, b in zip(*after, strict=True)), "bit for bit"


@pytest.mark.parametrize("kind", ["pixels", "rf", "idf", "vae"])
def test_thrift_changes_neither_rewards_nor_losses_nor_gradients(study, tmp_path, kind):
    from assay.studies.curiosity_features.worlds import make_world

    env = make_world("scroller", tiny(study), _g())
    thrifty = _learner(study, tmp_path, env, kind).reward
    rollout = random_rollout(env, 20, _g(1))
    plain = ForwardDynamics.reward(thrifty, rollout)
    torch.testing.assert_close(thrifty.reward(rollout), plain)
    batch = Batch(rollout, torch.arange(0, 100, 3))
    found = []
    for loss in (thrifty.loss, lambda b: ForwardDynamics.loss(thrifty, b)):
        if kind == "vae":
            thrifty.features.generator = _g(5)
        thrifty.zero_grad()
        losses = loss(batch)
        sum(losses.values()).backward()
        found.append((losses, {n: p.grad for n, p in thrifty.named_parameters()}))
    (a, grads), (b, others) = found
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name])
    for name, grad in grads.items():
        torch.testing.assert_close(grad, others[name])
    # A rollout that it has not seen, and rows that are no transitions, go the plain way.
    fresh = random_rollout(env, 10, _g(2))
    assert thrifty.loss(Batch(fresh, torch.arange(40)))["forward"] > 0
    rollout.valid[0, 0] = False
    torch.testing.assert_close(
        thrifty.loss(batch)["forward"], ForwardDynamics.loss(thrifty, batch)["forward"]
    )


def test_without_ends_advantages_are_those_of_one_endless_life(study):
    from assay.studies.curiosity_features.worlds import make_world

    config = replace(tiny(study), limit=7)
    rollouts = []
    for done in (False, True):
        env = make_world("scroller", config, _g(), done=done)
        model = actor_critic(env, (16,), generator=_g(1))
        rollout = Rollout(40, env.num_envs, info=("episode_end",))
        collect(env, model, rollout, start(env, model), _g(2))
        rollout.reward[..., 0] = torch.rand(40, env.num_envs, generator=_g(3))
        rollouts.append(rollout)
    endless, episodic = rollouts
    assert endless.info["episode_end"].sum() > 20
    torch.testing.assert_close(endless.next_obs(), endless.obs[1:])
    # By hand, in double precision, on the lives laid end to end.
    reward, value = endless.reward[..., 0].double(), endless.value[..., 0].double()
    expected, ahead = torch.zeros_like(reward), torch.zeros_like(reward[0])
    for t in reversed(range(40)):
        ahead = reward[t] + 0.99 * value[t + 1] - value[t] + 0.99 * 0.95 * ahead
        expected[t] = ahead
    found = endless.advantages(0.99, 0.95)[..., 0]
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)
    # The same world with ends, and returns that ignore them: the same numbers. With them: others.
    ignored = episodic.advantages(0.99, 0.95, episodic=False)[..., 0]
    torch.testing.assert_close(ignored, found, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(episodic.advantages(0.99, 0.95)[..., 0], found, atol=1e-2)
    none = torch.zeros_like(endless.terminated)
    by_function = gae(reward, value[:-1], value[1:], none, none, 0.99, 0.95)
    torch.testing.assert_close(by_function, expected)


def test_with_the_value_bias_a_constant_reward_says_nothing(study, tmp_path):
    from assay.studies.curiosity_features.agents import Constant, Learner
    from assay.studies.curiosity_features.worlds import make_world

    config = tiny(study)
    agent = replace(config.agent, reward_norm=False, advantage_norm=False)
    env = make_world("scroller", config, _g())
    spread = {}
    for name, value in (("bias", 10.0), ("zero", None)):
        learner = Learner(_trial(study, tmp_path), env, Constant(0.1), agent, value=value)
        rollout = Rollout(16, env.num_envs)
        collect(env, learner.model, rollout, start(env, learner.model), _g(1))
        learner.mixer.fill(rollout)
        assert (rollout.reward == 0.1).all()
        spread[name] = float(rollout.advantages(0.99, 0.95, episodic=False).abs().max())
    assert spread["bias"] < 2e-5, "zero, up to the rounding of 10 in float32"
    assert spread["zero"] > 0.1


def test_and_the_agent_stays_as_it_is(study, tmp_path):
    changes = {"leak.game.updates": 40, "leak.game.agent.copies": 32, "leak.game.agent.hidden": 32}
    lengths = {
        name: run_arm(study, tmp_path, f"leak/{name}", changes, "laptop")["late_length"]
        for name in ("random", "nodone-bias")
    }
    assert lengths["nodone-bias"] == pytest.approx(lengths["random"], rel=0.15)


def test_scaled_errors_are_paid_alike_and_a_constant_one_fills_the_filter():
    raw = torch.rand(60, 4, generator=_g()) + 0.5
    paid = []
    for scale in (1.0, 1e-4):
        normalizer = ReturnNormalizer(0.9, 4)
        paid.append(torch.cat([normalizer(scale * part) for part in raw.split(10)]))
    torch.testing.assert_close(*paid, rtol=1e-4, atol=1e-6)
    normalizer = ReturnNormalizer(0.9, 4)
    filtered = normalizer.filter(torch.full((300, 4), 0.3))
    assert float(filtered[-1, 0]) == pytest.approx(0.3 / (1 - 0.9), rel=1e-6)


def test_variants_change_what_their_names_say(study, tmp_path):
    from assay.studies.curiosity_features import VARIANTS
    from assay.studies.curiosity_features.config import variant

    config = study.configure("laptop", {}).scroller
    assert variant(config, "") == (config, {})
    assert variant(config, "d8")[0].agent.features == 8
    few = variant(config, "few-actors")[0]
    assert few.agent.copies * few.updates == config.agent.copies * config.updates
    assert variant(config, "no-ppo")[0].agent.clip is None
    assert variant(config, "fading")[1] == {"texture": "fading"}
    assert variant(config, "novel-start")[1] == {"novel_start": True}
    changed = [variant(config, name) for name in VARIANTS]
    assert all(pair != (config, {}) for pair in changed)
    with pytest.raises(ValueError, match="unknown variant"):
        variant(config, "blue")
    for name in ("feature-norm", "no-ppo", "image", "no-obs-norm", "novel-start", "done"):
        metrics = run_arm(study, tmp_path, f"scroller/rf-{name}", {"scroller.updates": 2})
        assert metrics["episodes"] > 0
    from assay.studies.curiosity_features.agents import Learner, make_curiosity
    from assay.studies.curiosity_features.worlds import make_world

    env, run = make_world("scroller", tiny(study), _g()), _trial(study, tmp_path)
    agent = replace(tiny(study).agent, feature_norm=True)
    space = make_curiosity("rf", env, agent, run).features
    rollout = random_rollout(env, 30, _g(1))
    std = space.features(rollout.obs).std((0, 1))
    assert 0.5 < float(std.median()) < 2
    learner = Learner(
        run, env, make_curiosity("rf", env, replace(agent, clip=None), run), replace(agent, clip=None)
    )
    assert (learner.ppo.clip, learner.ppo.epochs) == (None, 1)


def test_worlds_show_ends_to_the_done_arms_only(study):
    from assay.studies.curiosity_features.worlds import SCORES, make_world

    config = study.configure("smoke", {})
    for game, score in SCORES.items():
        part = getattr(config, game)
        for done in (False, True):
            env = make_world(game, part, _g(), done=done)
            rollout = random_rollout(env, 30, _g(1), info=("episode_end", "episode_length", score))
            assert rollout.info["episode_end"].any(), game
            assert bool(rollout.ended.any()) == done
            if done:
                assert torch.equal(rollout.ended, rollout.info["episode_end"])
            assert len(env.obs_shape) == 1
    for screen, actions in (("button", 5), ("image", 5), ("noise", 4), (None, 4)):
        env = make_world("rooms", config.tv, _g(), television=screen)
        assert env.num_actions == actions
        inner = env.env.env
        assert isinstance(inner, NoisyTV) == (screen is not None)
    with pytest.raises(ValueError, match="unknown game"):
        make_world("chess", config.rooms, _g())


def test_the_hills_peak_is_of_the_episode(study):
    from assay.studies.curiosity_features.worlds import Hill

    env = Hill(8, max_steps=20, generator=_g())
    rollout = random_rollout(env, 45, _g(1), info=("height", "peak"))
    best = torch.zeros(8)
    for t in range(45):
        best = torch.maximum(best, rollout.info["height"][t])
        torch.testing.assert_close(rollout.info["peak"][t], best)
        best = best.masked_fill(rollout.ended[t], 0.0)
    assert rollout.obs.abs().max() <= 1.01


def test_probe_batches_pair_each_observation_with_its_own_state(study):
    from assay.studies.curiosity_features.worlds import make_world, probe_batch

    config = study.configure("laptop", {}).scroller
    batch = probe_batch(make_world("scroller", config, _g()), _g(1))
    assert len(batch.action) == 1_024
    assert torch.equal(batch.obs[:, 120:128].argmax(1), batch.state[:, 1].long()), (
        "height, as the screen shows it"
    )
    rise = batch.obs[:, 128:].argmax(1)
    assert torch.equal(rise, batch.state[:, 2].long())
    world = SideScroller(1, levels=(config.level,))
    column = batch.state[:, 0].long()
    ground = world.ground[0][column]
    shown = batch.obs[:, :60].view(-1, 10, 6)[:, 3].argmax(1)
    assert torch.equal(shown, ground)


def test_the_tally_counts_episodes_and_visits(study):
    from assay.studies.curiosity_features.games import Tally

    def update(index: int, ended, score, length) -> Update:
        rollout = Rollout(2, 2)
        column = torch.tensor([[0, 1], [1, 2]])
        rollout.info = {
            "episode_end": torch.tensor(ended),
            "furthest": torch.tensor(score),
            "episode_length": torch.tensor(length),
            "column": column,
            "death": torch.tensor(ended),
        }
        return Update(index, 0, rollout, {})

    tally = Tally("scroller", 3, 5)
    nothing = [[False, False], [False, False]]
    numbers = [[10, 20], [30, 40]]
    assert np.isnan(tally.add(update(0, nothing, numbers, numbers)))
    assert tally.add(update(1, [[True, False], [False, True]], numbers, [[5, 6], [7, 9]])) == 25
    assert tally.add(update(2, [[False, True], [False, False]], numbers, [[5, 6], [7, 9]])) == 20
    metrics = tally.metrics()
    assert metrics["score"] == pytest.approx((10 + 40 + 20) / 3)
    assert metrics["late_score"] == 20
    assert metrics["length"] == pytest.approx((5 + 9 + 6) / 3)
    assert metrics["peak_score"] == 25
    assert metrics["deaths"] == 1
    assert tally.visits.sum() == 12
    assert tally.visits[:, 1].sum() == 6


def test_claims_measure_what_they_say(study):
    from assay.studies.curiosity_features import GAMES, lead_over_learned, lead_over_pixels, survival_leak

    def table(values):
        return {
            f"{game}/{kind}": {"score": np.full(5, float(values[game][kind]))}
            for game, kinds in GAMES.items()
            for kind in kinds
        }

    scale = {"random": 1.0, "pixels": 2.0, "rf": 4.0, "idf": 5.0, "vae": 3.0}
    same = table(dict.fromkeys(GAMES, scale))
    assert lead_over_learned(same) == pytest.approx((4 - 5) / (5 - 1))
    assert lead_over_pixels(same) == pytest.approx((4 - 2) / (5 - 1))
    # A game in which nobody beats chance has no range, and units do not matter.
    odd = dict.fromkeys(GAMES, scale)
    odd["pong"] = {"random": 9.0, "pixels": 1.0, "rf": 0.0, "idf": 2.0, "vae": 1.0}
    odd["rooms"] = {kind: 1e3 * value for kind, value in scale.items()}
    assert lead_over_learned(table(odd)) == pytest.approx(-0.25)
    cell = {
        "leak/done-constant": {"late_length": 200.0},
        "leak/nodone-constant": {"late_length": 120.0},
        "leak/random": {"length": 80.0},
    }
    assert survival_leak(cell) == 1
    raised = study.claims[0].test
    assert "scroller/rf" in raised.arms
    # At least three of four games: the scroller, which has a test of its own, and any two of the others.
    assert raised.tests[0].arm == "scroller/rf"
    pairs = [{test.arm for test in part.tests} for part in raised.tests[1].tests]
    others = {"rooms/rf", "breakout/rf", "pong/rf"}
    assert sorted(map(sorted, pairs)) == sorted(sorted(others - {left}) for left in others)


def test_errors_are_of_the_networks_before_the_update(study, tmp_path):
    from assay.studies.curiosity_features.worlds import make_world

    env = make_world("scroller", tiny(study), _g())
    learner = _learner(study, tmp_path, env, "rf")
    before = {k: v.clone() for k, v in learner.reward.state_dict().items()}
    (update,) = learner.train(env, 1, ("episode_end",))
    paid = update.metrics["intrinsic_0"]
    later = float(learner.reward.reward(update.rollout).mean())
    learner.reward.load_state_dict(before)
    assert float(learner.reward.reward(update.rollout).mean()) == pytest.approx(paid, rel=1e-5)
    assert later < paid
    assert isinstance(learner.mixer, IntrinsicMixer)
    assert learner.mixer.offset == 0, "the world's reward has no stream"


def test_figures_need_only_what_is_there(study):
    empty = Results(study, "laptop", study.config, [])
    assert [spec.name for spec in study.figures if spec.function(empty) is not None] == []


# -- the paper's worlds -------------------------------------------------------------------------------------------

SMALL = {
    "real.copies": 2, "real.steps": 4, "real.updates": 1, "real.features": 8, "real.hidden": 16, "real.blocks": 1,
    "real.width": 4, "real.warmup": 6, "real.minibatches": 2, "real.epochs": 1, "real.vector": "sync",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["random", "pixels", "rf", "idf", "vae"])
def test_one_tiny_update_of_an_atari_game(study, tmp_path, kind):
    for module in ("gymnasium", "ale_py", "cv2"):
        pytest.importorskip(module, reason="the extra atari")
    metrics = run_arm(study, tmp_path, f"real/Breakout-{kind}", SMALL, "paper")
    assert metrics["games"] == 0
    if kind != "random":
        (path,) = tmp_path.rglob("checkpoint.pt")
        assert set(torch.load(path, weights_only=True)) == {"model", "optimizer", "curiosity", "normalizer"}


@pytest.mark.parametrize("world", ["maze", "maze_tv"])
def test_one_tiny_update_in_dooms_maze(study, tmp_path, world):
    for module in ("gymnasium", "vizdoom", "cv2"):
        pytest.importorskip(module, reason="the extra vizdoom")
    assert run_arm(study, tmp_path, f"real/{world}-rf", SMALL, "paper")["games"] == 0


def test_one_tiny_update_of_two_player_pong(study, tmp_path):
    for module in ("pettingzoo", "multi_agent_ale_py", "cv2"):
        pytest.importorskip(module, reason="PettingZoo's Atari games")
    assert "length" in run_arm(study, tmp_path, "real/pong_duel-rf", SMALL, "paper")


def test_both_players_of_a_pettingzoo_game_are_one_policy():
    for module in ("gymnasium", "pettingzoo"):
        pytest.importorskip(module, reason="the extra rl")
    from assay.envs import EpisodeStats, NoDone, SelfPlay, TwoPlayerPong, as_pettingzoo, from_pettingzoo

    games = from_pettingzoo(lambda: as_pettingzoo(TwoPlayerPong(1, max_steps=30)), 2, generator=_g())
    env = NoDone(EpisodeStats(SelfPlay(games)))
    rollout = random_rollout(env, 60, _g(1), info=("episode_end", "episode_length"))
    ends = rollout.info["episode_end"]
    assert ends.shape == (60, 4)
    assert ends.any()
    assert torch.equal(ends[:, 0::2], ends[:, 1::2]), "both sides of a game end together"
    assert not rollout.ended.any()


def test_missing_simulators_are_one_clear_error(study, tmp_path, monkeypatch):
    from assay.studies.curiosity_features import packages_are_there, real

    packages_are_there(study.configure("laptop"))
    monkeypatch.setattr(real, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="gym-super-mario-bros"):
        run_arm(study, tmp_path, "real/mario_1-1-rf", SMALL, "paper")
    with pytest.raises(MissingExtra, match="multi-agent-ale-py"):
        run_arm(study, tmp_path, "real/pong_duel-rf", SMALL, "paper")
    with pytest.raises(MissingExtra, match="gym-super-mario-bros"):
        packages_are_there(study.configure("paper", {"real.mario": True}))
    monkeypatch.setattr(real, "missing", lambda extra: ("ale_py",))
    with pytest.raises(MissingExtra, match="the games need ale_py"):
        packages_are_there(study.configure("paper"))
