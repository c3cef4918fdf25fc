"""Wrappers: final observations, draws of their own, and what each one promises."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from assay.envs.base import Step, TensorEnv
from assay.envs.wrappers import (
    AppendSkill,
    AppendTaskId,
    EpisodeStats,
    FrameStack,
    NoDone,
    NoisyTV,
    OneHot,
    RecordVisits,
    RepeatAction,
    RewardClip,
    RewardDelay,
    RewardScale,
    SparseReward,
    StickyActions,
    TileMask,
    TimeLimit,
)

from .common import assert_same_step, check_env, generator, rows, same
from .counters import Counter, Painting, Pair

Make = Callable[[TensorEnv], TensorEnv]

WRAPPERS: dict[str, Make] = {
    "time limit": lambda env: TimeLimit(env, 3),
    "no done": NoDone,
    "sticky": lambda env: StickyActions(env, 0.5),
    "repeat": lambda env: RepeatAction(env, 3),
    "tv pictures": lambda env: NoisyTV(env, "image_action", bits=3),
    "tv bits": lambda env: NoisyTV(env, "noise_action", bits=3, noop=0),
    "tv noise": lambda env: NoisyTV(env, "noise", bits=3),
    "scale": lambda env: RewardScale(env, 0.5),
    "clip": lambda env: RewardClip(env, -1, 2),
    "delay": lambda env: RewardDelay(env, 2),
    "sparse": lambda env: SparseReward(env, 3),
    "frames": lambda env: FrameStack(env, 3),
    "skill": lambda env: AppendSkill(env, 5),
    "task": lambda env: AppendTaskId(env, 2, torch.arange(env.num_envs) % 2),
    "mask": lambda env: TileMask(env, 0.5),
    "mask a step": lambda env: TileMask(env, 0.5, "step"),
    "visits": RecordVisits,
    "visits by key": lambda env: RecordVisits(env, 9, "count"),
    "stats": EpisodeStats,
    "many": lambda env: EpisodeStats(FrameStack(AppendSkill(StickyActions(TimeLimit(env, 4), 0.3), 3), 2)),
}


def play(env: TensorEnv, actions: Tensor) -> list[Step]:
    return [env.step(action) for action in actions]


def acts(steps: int, copies: int, kinds: int = 3, seed: int = 0) -> Tensor:
    return torch.randint(kinds, (steps, copies), generator=generator(seed))


# What holds for all.


@pytest.mark.parametrize("name", [name for name in WRAPPERS if name != "no done"])
def test_common_checks(name: str) -> None:
    check_env(
        lambda num_envs, generator: WRAPPERS[name](Counter(num_envs, max_steps=4, generator=generator)),
        num_envs=6,
        steps=60,
        split=False,
    )


@pytest.mark.parametrize("name", WRAPPERS)
def test_blocks_do_not_depend_on_their_company(name: str) -> None:
    def make(seeds: list[int]) -> TensorEnv:
        generators = [generator(seed) for seed in seeds]
        return WRAPPERS[name](Counter(2 * len(seeds), max_steps=4, generator=generators))

    together, alone = make([3, 4, 5]), make([4])
    actions = acts(40, 6, together.num_actions or 3)
    middle = slice(2, 4)
    obs, _ = together.reset()
    assert same(obs[middle], alone.reset()[0])  # type: ignore[index]
    for action in actions:
        assert_same_step(rows(together.step(action), middle), alone.step(action[middle]))


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize("world", [Counter, Painting])
def test_gymnasium_is_content(name: str, world: type[Counter]) -> None:
    import warnings

    from gymnasium.utils.env_checker import check_env as check_gymnasium

    from assay.envs.adapters import as_gymnasium

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_gymnasium(as_gymnasium(WRAPPERS[name](world(1))), skip_render_check=True)


@pytest.mark.parametrize("name", [name for name in WRAPPERS if name != "no done"])
def test_without_autoreset_nothing_begins_by_itself(name: str) -> None:
    env = WRAPPERS[name](Counter(2, length=2, autoreset=False))
    env.reset(seed=0)
    still = torch.zeros(2, dtype=torch.int64)
    step = env.step(still)
    if name != "repeat":
        step = env.step(still)
    assert step.ended.all()
    assert same(step.obs, step.final_obs)
    with pytest.raises(ValueError, match="reset_where"):
        env.step(still)
    env.reset_where(torch.tensor([True, True]))
    assert env.step(still).ended.tolist() == [name == "repeat"] * 2


def test_a_wrapper_leaves_the_draws_of_the_world_alone() -> None:
    plain, sticky = Counter(4), StickyActions(AppendSkill(Counter(4), 3), 0.0)
    plain.reset(seed=1)
    sticky.reset(seed=1)
    for action in acts(20, 4):
        assert torch.equal(plain.step(action).obs, sticky.step(action).obs[:, :4])  # type: ignore[index]


def test_two_wrappers_of_a_kind_draw_differently() -> None:
    env = AppendSkill(AppendSkill(Counter(64), 50), 50)
    obs, _ = env.reset(seed=0)
    assert not torch.equal(obs[:, 4:54], obs[:, 54:])  # type: ignore[index]


# Time.


def test_time_limit_truncates_only_what_runs_on() -> None:
    env = TimeLimit(Counter(2, length=9), 3)
    env.reset(seed=0)
    steps = play(env, torch.tensor([[0, 0], [0, 0], [0, 2], [0, 0]]))
    assert steps[2].truncated.tolist() == [True, False]
    assert steps[2].terminated.tolist() == [False, True]
    assert steps[2].final_obs[:, 1].tolist() == [3, 3]
    assert steps[2].obs[:, 1].tolist() == [0, 0]
    assert steps[3].obs[:, 1].tolist() == [1, 1]
    assert env.elapsed.tolist() == [1, 1]
    assert env.max_steps == 3


def test_no_done_hides_ends_and_dying_leads_to_the_first_observation() -> None:
    env = NoDone(Counter(2, length=3))
    env.reset(seed=0)
    steps = play(env, torch.zeros(6, 2, dtype=torch.int64))
    assert not any(step.ended.any() for step in steps)
    assert [bool(step.info["episode_end"][0]) for step in steps] == [False, False, True] * 2
    assert steps[2].info["terminated"].all()
    assert not steps[2].info["truncated"].any()
    assert same(steps[2].obs, steps[2].final_obs)
    assert steps[2].final_obs[:, 1].tolist() == [0, 0]
    with pytest.raises(ValueError, match="autoreset"):
        NoDone(Counter(2, autoreset=False))


def test_wrappers_see_through_no_done() -> None:
    frames = FrameStack(NoDone(Counter(1, length=3)), 2)
    frames.reset(seed=0)
    steps = play(frames, torch.zeros(3, 1, dtype=torch.int64))
    counts = steps[2].obs.view(1, 2, 4)[0, :, 1]  # type: ignore[union-attr]
    assert counts.tolist() == [0, 0], "frames stacked across lives"
    assert same(steps[2].obs, steps[2].final_obs)
    stats = EpisodeStats(NoDone(Counter(1, length=3)))
    stats.reset(seed=0)
    assert [int(s.info["episode_length"]) for s in play(stats, torch.zeros(5, 1, dtype=torch.int64))] == [
        1,
        2,
        3,
        1,
        2,
    ]
    assert stats.means()["return"].tolist() == [6.0]


# Actions.


def test_sticky_actions_repeat_as_often_as_said_and_not_across_episodes() -> None:
    env = StickyActions(Counter(4_000, length=3), 0.25)
    env.reset(seed=0)
    zeros, ones = torch.zeros(4_000, dtype=torch.int64), torch.ones(4_000, dtype=torch.int64)
    assert torch.equal(env.step(zeros).info["executed_action"], zeros), "nothing to repeat at first"
    second = env.step(ones).info["executed_action"]
    assert abs(float((second == 0).float().mean()) - 0.25) < 0.03
    env.step(zeros)
    assert torch.equal(env.step(ones).info["executed_action"], ones), "a new episode"


def test_repeat_action_sums_rewards_and_stops_at_ends() -> None:
    env = RepeatAction(Counter(3, length=4), 3)
    env.reset(seed=0)
    step = env.step(torch.tensor([0, 2, 0]))
    assert step.reward.tolist() == [6, 1, 6]
    assert step.terminated.tolist() == [False, True, False]
    assert step.final_obs[:, 1].tolist() == [3, 1, 3]
    assert step.obs[:, 1].tolist() == [3, 0, 3]
    assert step.info["count"].tolist() == [3, 1, 3]
    assert step.info["success"].tolist() == [False, True, False]
    step = env.step(torch.tensor([0, 0, 1]))
    assert step.reward.tolist() == [4, 6, 4]
    assert step.terminated.tolist() == [True, False, True]
    assert step.obs[:, 0].tolist() == [2, 2, 2]
    assert env.elapsed.tolist() == [0, 3, 0]
    with pytest.raises(ValueError, match="directly around"):
        RepeatAction(FrameStack(Counter(1), 2), 2)


@pytest.mark.parametrize("kind", ["image_action", "noise_action", "noise"])
def test_the_picture_changes_when_it_should(kind: str) -> None:
    env = NoisyTV(Counter(200, length=50), kind, bits=16, pictures=3)  # type: ignore[arg-type]
    assert env.num_actions == (3 if kind == "noise" else 4)
    assert env.obs_shape == (20,)
    before, _ = env.reset(seed=0)
    seen = {tuple(row) for row in before[:, 4:].int().tolist()}  # type: ignore[index]
    quiet = env.step(torch.zeros(200, dtype=torch.int64))
    changed = (quiet.obs[:, 4:] != before[:, 4:]).any(1)  # type: ignore[index]
    assert bool(changed.all()) if kind == "noise" else not bool(changed.any())
    assert not quiet.info["tv"].any()
    if kind != "noise":
        loud = env.step(torch.full((200,), 3))
        changed = (loud.obs[:, 4:] != quiet.obs[:, 4:]).any(1).float().mean()  # type: ignore[index]
        assert abs(float(changed) - 2 / 3) < 0.12 if kind == "image_action" else changed == 1
        seen |= {tuple(row) for row in loud.obs[:, 4:].int().tolist()}  # type: ignore[index]
        assert loud.info["tv"].all()
    assert (len(seen) == 3) if kind == "image_action" else len(seen) > 100


def test_pressing_the_button_lets_time_pass_and_nothing_else() -> None:
    env = NoisyTV(Counter(2, length=9, max_steps=4), "noise_action")
    obs, _ = env.reset(seed=0)
    first = env.step(torch.tensor([3, 1]))
    assert torch.equal(first.final_obs[0, :4], obs[0, :4])  # type: ignore[index]
    assert first.reward.tolist() == [0, 1]
    assert env.elapsed.tolist() == [1, 1]
    steps = play(env, torch.tensor([[0, 0], [3, 3], [3, 2], [0, 0]]))
    assert steps[1].info["count"].tolist() == [1, 2], "the world's info stays"
    # Time ran out in a row that stood still; the other one ended by itself.
    assert steps[2].truncated.tolist() == [True, False]
    assert steps[2].terminated.tolist() == [False, True]
    assert steps[2].final_obs[:, 1].tolist() == [1, 3]
    assert steps[2].reward.tolist() == [0, 3]
    assert steps[2].obs[:, :2].tolist() == [[2, 0], [2, 0]]  # type: ignore[index]
    assert steps[3].obs[:, 1].tolist() == [1, 1]  # type: ignore[index]


def test_a_button_over_a_move_that_would_have_ended_the_episode() -> None:
    env = NoisyTV(Counter(2, length=1), "noise_action")
    env.reset(seed=0)
    step = env.step(torch.tensor([3, 0]))
    assert step.terminated.tolist() == [False, True]
    assert step.obs[:, 0].tolist() == [1, 2]


def test_pictures_are_painted_over_pictures() -> None:
    env = NoisyTV(Painting(2, length=9), "noise", patch=2)
    assert env.obs_shape == (2, 4, 5)
    obs, _ = env.reset(seed=0)
    assert obs.dtype == torch.uint8
    assert (obs[:, :, :2] == 1).all()
    assert (obs[..., :3] == 1).all()
    step = env.step(torch.zeros(2, dtype=torch.int64))
    assert (step.obs[..., :3] == 2).all()
    assert not torch.equal(step.obs[..., -2:, -2:], obs[..., -2:, -2:])
    pair = NoisyTV(Pair(2), "noise", bits=3, key="flat")
    assert pair.reset()[0]["flat"].shape == (2, 7)  # type: ignore[call-overload]
    assert pair.single_observation_space["flat"].shape == (7,)
    with pytest.raises(ValueError, match="name the entry"):
        NoisyTV(Pair(2), "noise")


def test_pictures_are_the_seeds() -> None:
    def pictures(seed: int) -> Tensor:
        env = NoisyTV(Counter(4), "image_action", generator=None)
        env.reset(seed=seed)
        assert env.pictures is not None
        return env.pictures

    assert torch.equal(pictures(1), pictures(1))
    assert not torch.equal(pictures(1), pictures(2))
    both = NoisyTV(Counter(4, generator=[generator(1), generator(2)]), "image_action")
    assert both.pictures is not None
    assert torch.equal(
        both.pictures[1:], NoisyTV(Counter(2, generator=generator(2)), "image_action").pictures
    )


# Rewards: 1, 2, 3, 4, 5 and then the end.


@pytest.mark.parametrize(
    ("make", "paid"),
    [
        (lambda env: RewardScale(env, 2.0), [2, 4, 6, 8, 10]),
        (lambda env: RewardClip(env, 2.0, 3.0), [2, 2, 3, 3, 3]),
        (lambda env: RewardDelay(env, 2), [0, 0, 1, 2, 12]),
        (lambda env: RewardDelay(env, 9), [0, 0, 0, 0, 15]),
        (lambda env: SparseReward(env, 2), [0, 3, 0, 7, 5]),
        (lambda env: SparseReward(env, 3), [0, 0, 6, 0, 9]),
    ],
)
def test_rewards(make: Make, paid: list[float]) -> None:
    env = make(Counter(1))
    env.reset(seed=0)
    steps = play(env, torch.zeros(10, 1, dtype=torch.int64))
    assert [float(step.reward) for step in steps] == paid * 2
    assert [float(step.info["raw_reward"]) for step in steps] == [1, 2, 3, 4, 5] * 2
    with pytest.raises(NotImplementedError, match="changes the process"):
        env.tabular()


# Observations.


def test_frames_at_an_end_are_those_of_the_true_last_step() -> None:
    env = FrameStack(Counter(2, length=3), 3)
    assert env.obs_shape == (12,)
    assert env.single_observation_space.shape == (12,)
    obs, _ = env.reset(seed=0)

    def counts(obs: Tensor) -> list[list[float]]:
        return obs.view(2, 3, 4)[..., 1].tolist()

    assert counts(obs) == [[0, 0, 0]] * 2  # type: ignore[arg-type]
    steps = play(env, torch.tensor([[0, 0], [0, 2], [0, 0]]))
    assert counts(steps[0].obs) == [[0, 0, 1]] * 2  # type: ignore[arg-type]
    assert counts(steps[1].final_obs) == [[0, 1, 2], [0, 1, 2]]  # type: ignore[arg-type]
    assert counts(steps[1].obs) == [[0, 1, 2], [0, 0, 0]]  # type: ignore[arg-type]
    assert counts(steps[2].final_obs) == [[1, 2, 3], [0, 0, 1]]  # type: ignore[arg-type]
    assert counts(steps[2].obs) == [[0, 0, 0], [0, 0, 1]]  # type: ignore[arg-type]
    picture = FrameStack(Painting(2), 3)
    assert picture.obs_shape == (6, 4, 5)
    assert picture.reset()[0].shape == (2, 6, 4, 5)
    both = FrameStack(Pair(2), 3).reset()[0]
    assert {key: tuple(value.shape) for key, value in both.items()} == {"flat": (2, 12), "steps": (2, 3)}  # type: ignore


def test_frames_over_next_step_autoreset_begin_with_the_dummy_row() -> None:
    from assay.envs.adapters import from_gymnasium

    from .test_adapters import Count

    env = EpisodeStats(FrameStack(from_gymnasium(Count, 1, autoreset_mode="next_step", length=2), 2))
    env.reset(seed=0)
    steps = play(env, torch.zeros(5, 1, dtype=torch.int64))
    assert [s.obs.view(2, 2)[:, 1].tolist() for s in steps] == [[0, 1], [1, 2], [0, 0], [0, 1], [1, 2]]  # type: ignore
    assert [int(s.info["episode_length"]) for s in steps] == [1, 2, 2, 1, 2]
    assert env.finished.tolist() == [2]
    assert env.means()["length"].tolist() == [2.0]
    assert env.means()["return"].tolist() == [3.0]


def test_a_skill_lasts_for_an_episode() -> None:
    env = AppendSkill(Counter(500, length=3), 5)
    obs, info = env.reset(seed=0)
    shown = obs[:, 4:].argmax(1)  # type: ignore[index]
    assert torch.equal(shown, info["skill"])
    share = torch.bincount(shown, minlength=5) / 500
    assert float((share - 0.2).abs().max()) < 0.07
    steps = play(env, torch.zeros(4, 500, dtype=torch.int64))
    for step in steps[:3]:
        assert torch.equal(step.info["skill"], shown)
        assert torch.equal(step.final_obs[:, 4:].argmax(1), shown), "the old skill, also at the end"  # type: ignore[index]
    assert (steps[2].obs[:, 4:].argmax(1) != shown).float().mean() > 0.6  # type: ignore[index]
    assert torch.equal(steps[3].info["skill"], steps[2].obs[:, 4:].argmax(1))  # type: ignore[index]
    env.fix(torch.full((500,), 2))
    obs, _ = env.reset()
    assert (obs[:, 4:].argmax(1) == 2).all()  # type: ignore[index]
    with pytest.raises(ValueError, match=r"a skill 0\.\.4"):
        env.fix(torch.full((500,), 5))


def test_skills_on_pictures_and_dictionaries() -> None:
    planes, info = AppendSkill(Painting(3), 4).reset()
    assert planes.shape == (3, 6, 4, 5)
    assert planes.dtype == torch.uint8
    assert torch.equal(planes[:, 2:, 1, 1].argmax(1), info["skill"])
    assert planes[:, 2:].max() == 255
    entries = AppendSkill(Pair(3), 4)
    assert entries.reset()[0]["skill"].shape == (3, 4)  # type: ignore[call-overload]
    assert set(entries.single_observation_space.spaces) == {"flat", "steps", "skill"}


def test_task_ids() -> None:
    env = AppendTaskId(Counter(3), 2, torch.tensor([0, 1, 1]))
    assert env.reset()[0][:, 4:].tolist() == [[1, 0], [0, 1], [0, 1]]  # type: ignore[index]
    with pytest.raises(ValueError, match="give task"):
        AppendTaskId(Counter(3), 2)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        AppendTaskId(Counter(1), 2, torch.tensor([2]))


def test_one_hot() -> None:
    class Numbers(Counter):
        obs_shape = (2,)

        def observe(self) -> Tensor:
            return torch.stack((self.count % 2, self.count % 3), 1)

        def _spaces(self, spaces: object) -> tuple[object, object]:
            return spaces.MultiDiscrete([2, 3]), spaces.Discrete(3)  # type: ignore[attr-defined]

    env = OneHot(Numbers(2))
    env.reset(seed=0)
    step = env.step(torch.zeros(2, dtype=torch.int64))
    assert step.obs.tolist() == [[0, 1, 0, 1, 0]] * 2  # type: ignore[union-attr]
    assert env.obs_shape == (5,)
    assert env.single_observation_space.contains(step.obs[0].numpy())
    with pytest.raises(TypeError, match="whole numbers"):
        OneHot(Counter(2), [2, 3]).reset()


def test_tile_mask_hides_cells_in_all_channels_as_often_as_said() -> None:
    env = TileMask(Painting(300, length=3), 0.3)
    obs, _ = env.reset(seed=0)
    hidden = obs == 0
    assert torch.equal(hidden[:, 0], hidden[:, 1])  # type: ignore[index]
    assert abs(float(hidden.float().mean()) - 0.3) < 0.02  # type: ignore[union-attr]
    steps = play(env, torch.zeros(3, 300, dtype=torch.int64))
    assert all(torch.equal(step.final_obs == 0, hidden) for step in steps), "one mask an episode"  # type: ignore
    assert not torch.equal(steps[2].obs == 0, hidden)  # type: ignore[arg-type]
    flicker = TileMask(Painting(300, length=9), 0.3, "step")
    obs, _ = flicker.reset(seed=0)
    assert not torch.equal(flicker.step(torch.zeros(300, dtype=torch.int64)).obs == 0, obs == 0)  # type: ignore


# Measuring.


@pytest.mark.parametrize("inner", [lambda env: env, lambda env: FrameStack(StickyActions(env, 0.0), 2)])
def test_visits_count_first_and_last_states_and_change_nothing(inner: Make) -> None:
    counted, plain = RecordVisits(inner(Counter(4, length=3))), inner(Counter(4, length=3))
    counted.reset(seed=0)
    plain.reset(seed=0)
    for t in range(1, 8):
        action = torch.zeros(4, dtype=torch.int64)
        a, b = counted.step(action), plain.step(action)
        assert same(a.obs, b.obs)
        assert same(a.final_obs, b.final_obs)
        assert torch.equal(a.terminated, b.terminated)
        assert a.info["distinct"].tolist() == [2 + (t - 1) % 3] * 4
    # Seven steps from state 0: 0 1 2 3 | 0 1 2 3 | 0 1
    assert counted.visits.tolist() == [[12, 12, 8, 8]]
    assert counted.coverage.tolist() == [1.0]
    counted.clear()
    assert counted.coverage.tolist() == [0.0]


def test_visits_by_key_are_a_row_for_each_generator() -> None:
    env = RecordVisits(Counter(4, length=3, generator=[generator(0), generator(1)]), 4, "count")
    env.reset()
    play(env, torch.tensor([[0, 0, 2, 2], [0, 0, 2, 2]]))
    assert env.visits.tolist() == [[0, 2, 2, 0], [0, 4, 0, 0]]
    with pytest.raises(ValueError, match="outside"):
        RecordVisits(NoDone(Counter(2)))


def test_button_and_repeat_under_visits() -> None:
    for wrap in (lambda env: NoisyTV(env, "noise_action"), lambda env: RepeatAction(env, 2)):
        counted = RecordVisits(wrap(Counter(3, length=4, max_steps=3)))
        plain = wrap(Counter(3, length=4, max_steps=3))
        counted.reset(seed=0)
        plain.reset(seed=0)
        for action in acts(40, 3, plain.num_actions or 3):
            a, b = counted.step(action), plain.step(action)
            assert same(a.final_obs, b.final_obs)
            assert torch.equal(a.ended, b.ended)
            assert same(a.obs, b.obs)
            assert torch.equal(a.reward, b.reward)


def test_episode_statistics() -> None:
    env = EpisodeStats(Counter(2, length=3))
    env.reset(seed=0)
    steps = play(env, torch.tensor([[0, 0], [0, 2], [0, 0], [0, 2]]))
    assert [s.info["episode_return"].tolist() for s in steps] == [[1, 1], [3, 3], [6, 1], [1, 3]]
    assert [s.info["episode_length"].tolist() for s in steps] == [[1, 1], [2, 2], [3, 1], [1, 2]]
    assert [s.info["episode_end"].tolist() for s in steps] == [[0, 0], [0, 1], [1, 0], [0, 1]]
    assert steps[1].info["episode_success"].tolist() == [False, True]
    assert env.finished.tolist() == [1, 2]
    means = env.means()
    assert means["return"].tolist() == [6.0, 3.0]
    assert means["length"].tolist() == [3.0, 2.0]
    assert means["success"].tolist() == [0.0, 1.0]
    env.clear()
    assert env.means()["return"].isnan().all()


def test_bad_arguments_are_said_so() -> None:
    for call, words in (
        (lambda: TimeLimit(Counter(1), 0), "at least 1"),
        (lambda: StickyActions(Counter(1), 2.0), "probability"),
        (lambda: RepeatAction(Counter(1), 0), "at least 1"),
        (lambda: NoisyTV(Painting(1), patch=9), "patch"),
        (lambda: RewardClip(Counter(1), 1.0, 0.0), "at most"),
        (lambda: TileMask(Counter(1), -1.0), "probability"),
        (lambda: FrameStack(Counter(1), 0), "at least 1"),
        (lambda: StickyActions(Counter(3), generator=[generator(0), generator(1)]), "do not divide"),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            call()


def test_describes_itself_and_finds_the_world() -> None:
    env = FrameStack(NoDone(Counter(2)), 2)
    assert repr(env) == "FrameStack(NoDone(Counter(num_envs=2, max_steps=None)))"
    assert isinstance(env.unwrapped, Counter)
    assert env.to("cpu") is env
