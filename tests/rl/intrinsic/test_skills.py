"""Skills without reward: discriminator, priors, measures, two-level control."""

from math import log

import pytest
import torch

from assay.envs import AppendSkill, PointBox
from assay.envs.point import CornerTask
from assay.rl.intrinsic.skills import (
    DIAYNReward,
    MetaController,
    SkillPolicy,
    SkillPrior,
    measure_skills,
    mutual_information_lower_bound,
    primitive_skills,
    skill_wrapper,
)
from assay.rl.policies import actor_critic
from assay.rl.rollout import Batch, random_rollout
from tests.rl.worlds import Line


def _g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _flat(reward: DIAYNReward) -> DIAYNReward:
    """A discriminator that knows nothing."""
    for p in reward.discriminator[-1].parameters():
        torch.nn.init.zeros_(p)
    return reward


def test_an_ignorant_discriminator_pays_nothing() -> None:
    states, z = torch.randn(5, 7, 2), torch.randint(4, (7,))
    assert (_flat(DIAYNReward(2, 4)).bonus(states, z).abs() < 1e-6).all()
    without = _flat(DIAYNReward(2, 4, add_log_prior=False)).bonus(states, z)
    torch.testing.assert_close(without, torch.full((5, 7), -log(4)))  # every step costs: ending pays


def test_a_perfect_discriminator_pays_log_k() -> None:
    reward = DIAYNReward(4, 4)
    reward.discriminator = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False))
    torch.nn.init.eye_(reward.discriminator[0].weight)
    z = torch.arange(4)
    torch.testing.assert_close(reward.bonus(100.0 * torch.eye(4), z), torch.full((4,), log(4)))
    assert reward.infer_skill(torch.eye(4)[None].expand(3, 4, 4)).tolist() == [0, 1, 2, 3]


def test_the_reward_is_of_the_true_successor_under_its_own_skill() -> None:
    env = AppendSkill(PointBox(16, max_steps=5, generator=_g()), 3, generator=_g(1))
    rollout = random_rollout(env, 12, _g(2), info=("skill",))
    reward = DIAYNReward(2, 3, generator=_g(3))
    states = rollout.next_obs()[..., :2]
    torch.testing.assert_close(reward.reward(rollout), reward.bonus(states, rollout.info["skill"]))
    # The code in the last observation is that of the episode that ended, not of the next one.
    assert torch.equal(rollout.next_obs()[..., 2:].argmax(-1), rollout.info["skill"])
    following = rollout.obs[1:, ..., 2:].argmax(-1)
    assert (following != rollout.info["skill"])[rollout.ended].any()
    assert (following == rollout.info["skill"])[~rollout.ended].all()


def test_skills_stay_for_an_episode_and_follow_the_prior() -> None:
    env = AppendSkill(PointBox(500, max_steps=3, generator=_g()), 4, generator=_g(1))
    env.set_prior(torch.tensor([0.0, 0.5, 0.25, 0.25]))
    skills = random_rollout(env, 30, _g(2), info=("skill",)).info["skill"]
    by_episode = skills.view(10, 3, 500)
    assert (by_episode == by_episode[:, :1]).all()
    share = torch.bincount(by_episode[:, 0].flatten(), minlength=4) / 5000
    assert share[0] == 0
    assert ((share - torch.tensor([0.0, 0.5, 0.25, 0.25])).abs() < 0.03).all()
    with pytest.raises(ValueError, match="4 probabilities"):
        env.set_prior(torch.ones(3))


def test_two_skills_left_and_right_reach_log_two() -> None:
    # Skill 0 lives on the left, skill 1 on the right: the optimum of the bound is log 2.
    reward = DIAYNReward(1, 2, hidden=(16,), generator=_g())
    optimizer = torch.optim.Adam(reward.parameters(), 0.05)
    z = torch.randint(2, (256,), generator=_g(1))
    states = (2.0 * z - 1)[:, None] + 0.1 * torch.randn(256, 1, generator=_g(2))
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(reward.logits(states), z).backward()
        optimizer.step()
    assert reward.bonus(states, z).mean().item() == pytest.approx(log(2), abs=0.05)


def test_the_discriminator_finds_the_posterior_of_visits() -> None:
    # A corridor of five cells, two skills with known visit frequencies.
    p = torch.tensor([[0.5, 0.3, 0.1, 0.05, 0.05], [0.05, 0.05, 0.2, 0.3, 0.4]])
    cells = [torch.multinomial(p[z], 20_000, replacement=True, generator=_g(z)) for z in (0, 1)]
    x = torch.nn.functional.one_hot(torch.cat(cells), 5).float()
    y = torch.arange(2).repeat_interleave(20_000)
    reward = DIAYNReward(5, 2, hidden=(16,), generator=_g())
    optimizer = torch.optim.Adam(reward.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(reward.logits(x), y).backward()
        optimizer.step()
    counts = torch.stack([torch.bincount(c, minlength=5) for c in cells]).float()
    exact = (counts / counts.sum(0)).T
    assert (reward.predict(torch.eye(5)).exp() - exact).abs().max() < 0.03


def test_a_subset_of_the_state_is_all_that_it_sees() -> None:
    reward = DIAYNReward(4, 3, discriminator_obs=lambda s: s[..., :1], generator=_g())
    a, b = torch.randn(6, 4), torch.randn(6, 4)
    b[:, 0] = a[:, 0]
    torch.testing.assert_close(reward.predict(a), reward.predict(b))


def test_the_loss_trains_only_the_discriminator_and_reads_no_world_reward() -> None:
    env = AppendSkill(Line(8, length=4, max_steps=6), 3, generator=_g(1))
    rollout = random_rollout(env, 12, _g(2), info=("skill",))
    reward = DIAYNReward(1, 3, generator=_g(3))
    batch = Batch(rollout, torch.arange(50))
    first = reward.loss(batch)["discriminator"]
    paid = reward.reward(rollout)
    rollout.reward *= 1e6
    assert torch.equal(reward.loss(batch)["discriminator"], first)
    assert torch.equal(reward.reward(rollout), paid)
    assert not paid.requires_grad


def test_priors() -> None:
    z = torch.tensor([0, 0, 1, 1])
    value = torch.tensor([2.0, 2.0, 0.0, 0.0])
    uniform, vic, official = SkillPrior(3), SkillPrior(3, "vic"), SkillPrior(3, "official")
    for prior in (uniform, vic, official):
        prior.update(z, value, value - 1)
    assert uniform.effective_number() == pytest.approx(3)
    # Exponentiated gradient: p_0 grows by exp(0.5 * 2) against p_1; skill 2 was not visited and keeps its weight.
    assert (vic.probs[0] / vic.probs[1]).item() == pytest.approx(2.71828, rel=1e-4)
    assert (vic.probs[1] / vic.probs[2]).item() == pytest.approx(1, rel=1e-4)
    assert (official.probs[0] / official.probs[1]).item() == pytest.approx(torch.e**2, rel=1e-4)
    for _ in range(200):
        vic.update(z, value, value)
    assert vic.probs.min() >= 0.9e-6
    assert vic.effective_number() < 1.01
    share = torch.bincount(SkillPrior(4).sample(8000, _g()), minlength=4) / 8000
    assert ((share - 0.25).abs() < 0.03).all()
    for bad in ({"num_skills": 1}, {"num_skills": 3, "kind": "learned"}):
        with pytest.raises(ValueError, match=r"skills|kind"):
            SkillPrior(**bad)


def test_measures_lie_between_nothing_and_log_k() -> None:
    z = torch.arange(4).repeat(16)
    apart = torch.nn.functional.one_hot(z, 4).float().expand(10, 64, 4)
    found = measure_skills(apart + 0.01 * torch.randn(10, 64, 4, generator=_g()), z, 4, _g(1))
    assert found.mi == pytest.approx(log(4), abs=0.05)
    assert found.accuracy > 0.99
    assert found.alive() == 4
    blind = measure_skills(torch.randn(10, 64, 4, generator=_g()), z, 4, _g(1))
    assert 0 <= blind.mi < 0.1
    assert blind.alive() <= 1
    # A trajectory that betrays itself says nothing about skills: the split is by trajectory.
    named = torch.randn(1, 64, 8, generator=_g(3)).expand(10, 64, 8)
    assert mutual_information_lower_bound(named, z, 4, _g(1)) < 0.5
    with pytest.raises(ValueError, match="two trajectories"):
        measure_skills(torch.zeros(3, 1, 2), torch.zeros(1, dtype=torch.int64), 2)


@pytest.mark.parametrize("ended_by", ["time", "the world"])
def test_primitive_skills_of_one_step_are_the_flat_world(ended_by: str) -> None:
    options = {"max_steps": 6} if ended_by == "time" else {"max_steps": None}
    make = lambda: Line(8, length=3, **options)  # noqa: E731
    flat, meta = make(), MetaController(make(), primitive_skills(2), 2, k=1)
    a, b = flat.reset(seed=0)[0], meta.reset(seed=0)[0]
    assert torch.equal(a, b)
    generator = _g()
    for _ in range(30):
        action = torch.randint(2, (8,), generator=generator)
        one, two = flat.step(action), meta.step(action)
        for x, y in zip(one[:5], two[:5], strict=True):
            assert torch.equal(x, y)
        assert (two.info["macro_len"] == 1).all()


def test_a_macro_step_discounts_and_ends_with_its_episode() -> None:
    meta = MetaController(Line(2, length=3, max_steps=50), primitive_skills(2), 2, k=5, gamma=0.5)
    meta.reset(seed=0)
    step = meta.step(torch.tensor([1, 0]))
    assert step.reward.tolist() == [0.25, 0.0]  # the goal is reached in the third of five steps
    assert step.info["macro_len"].tolist() == [3, 5]
    assert step.terminated.tolist() == [True, False]
    assert step.final_obs[:, 0].tolist() == [3, 0]
    assert step.obs[:, 0].tolist() == [0, 0]


def test_frozen_skills_steer_a_world_that_shows_more() -> None:
    env = AppendSkill(PointBox(4), 3)
    skills = SkillPolicy(actor_critic(env, hidden=(8,), generator=_g()), 3).freeze()
    assert not any(p.requires_grad for p in skills.parameters())
    meta = MetaController(CornerTask(4), skills.policy, 3, k=10, skill_obs=lambda obs: obs[..., :2])
    obs, _ = meta.reset(seed=0)
    assert obs.shape == (4, 5)
    assert meta.step(torch.tensor([0, 1, 2, 0])).info["macro_len"].tolist() == [10] * 4
    assert meta.single_action_space.n == 3


def test_a_specialised_skill_is_the_skill_and_can_learn() -> None:
    model = actor_critic(AppendSkill(PointBox(4), 3), hidden=(8, 8), generator=_g())
    skills = SkillPolicy(model, 3).freeze()
    states = torch.randn(5, 2)
    mine = skills.specialise(1)
    torch.testing.assert_close(mine(states).dist.params, skills.policy(states, torch.ones(5).long()).params)
    codes = torch.eye(3)[1].expand(5, 3)
    torch.testing.assert_close(mine(states).value, model(torch.cat([states, codes], 1)).value)
    fresh = skills.specialise(1, value=False)
    assert (fresh(states).value == 0).all()
    torch.testing.assert_close(fresh(states).dist.params, mine(states).dist.params)
    assert all(p.requires_grad for p in mine.parameters())
    assert not any(p.requires_grad for p in skills.parameters())
    between = skills.policy(states, torch.tensor([0.5, 0.5, 0.0]))  # halfway between two skills
    assert between.params.shape == (5, 9)
    assert len(skills.as_option_set()) == 3


def test_a_code_in_the_state_is_refused() -> None:
    reward = DIAYNReward(2, 3)
    with pytest.raises(ValueError, match="still hold the skill's code"):
        reward.predict(torch.zeros(4, 5))
    with pytest.raises(ValueError, match="2 numbers"):
        reward.predict(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="not finite"):
        reward.predict(torch.full((4, 2), float("nan")))
    with pytest.raises(ValueError, match=r"skills are int64 in 0\.\.2"):
        reward.bonus(torch.zeros(4, 2), torch.full((4,), 3))
    with pytest.raises(ValueError, match="from two on"):
        DIAYNReward(2, 1)


def test_somebody_elses_gymnasium_environment_gets_skills() -> None:
    gymnasium = pytest.importorskip("gymnasium", reason="needs the extra assay[rl]")
    reward = DIAYNReward(4, 3)
    env = skill_wrapper(gymnasium.make("CartPole-v1"), reward, seed=1)
    obs, info = env.reset(seed=0)
    assert obs.shape == (7,)
    assert obs[4:].argmax() == info["skill"]
    obs, paid, *_, info = env.step(0)
    assert info["extrinsic_reward"] == 1.0
    assert paid == pytest.approx(
        float(reward.bonus(torch.tensor(obs[:4])[None], torch.tensor([info["skill"]])))
    )
    assert env.observation_space.contains(obs)
