"""The agents of the coordconv study: arms differ in their first layer only, scores are what they say, Atari is real."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from assay.envs import GotoGrid
from assay.lab import Trial, registry, runner
from assay.lab.errors import InputError
from assay.nn.coords import CoordConv2d
from assay.rl.distributions import Categorical
from assay.rl.nets import NatureConv
from assay.rl.train import train
from assay.studies.coordconv import agents
from assay.studies.coordconv.agents import AgentConfig, PooledConv

STUDY = registry.load("coordconv")
CPU = torch.device("cpu")
TINY = AgentConfig(
    size=4,
    limit=12,
    widths=(16, 32),
    strides=(1, 2),
    pool="max",
    copies=64,
    unroll=4,
    updates=150,
    conv_rate=0.02,
    coord_rate=0.02,
    episodes=64,
    evaluations=4,
)


def a_trial(folder: Path, arm: str, seed: int = 100) -> Trial:
    return Trial(
        arm,
        seed,
        study="coordconv",
        profile="laptop",
        device="cpu",
        folder=folder,
        time_limit=60.0,
        report=None,
    )


def agent(coords: str | None, config: AgentConfig = TINY) -> agents.ActorCritic:
    torch.manual_seed(0)
    return agents.make_agent(GotoGrid(1, config.size), coords, config)  # type: ignore[arg-type]


class Walker:
    """A policy from the two planes: `rule` maps (row, column) of agent and goal to an action."""

    recurrent = False
    policy_head = None

    def __init__(self, rule):
        self.rule = rule

    def initial_state(self, num_envs: int) -> None:
        return None

    def policy(self, obs, state=None, first=None, mask=None):
        cells = obs.flatten(2).argmax(2)
        down, across = cells // obs.shape[3], cells % obs.shape[3]
        action = self.rule(down[:, 1] - down[:, 0], across[:, 1] - across[:, 0])
        return Categorical(1e3 * torch.nn.functional.one_hot(action, 4).float()), None


def straight(down: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
    vertical = torch.where(down > 0, 2, 0)
    return torch.where(down != 0, vertical, torch.where(across > 0, 1, 3))


def test_arms_name_how_their_coordinates_begin() -> None:
    begins = [agents.coordinates_of(arm) for arm in STUDY.all_arms if arm.startswith("rl/")]
    assert begins == [None, "default", "zero"]
    with pytest.raises(ValueError, match="choose from conv, coordconv"):
        agents.coordinates_of("rl/deconv")


def test_agents_differ_in_the_coordinate_weights_alone() -> None:
    plain, default, zero = (agent(coords) for coords in (None, "default", "zero"))
    x = GotoGrid(9, 4).reset()[0]
    for model in (default, zero):
        layers = [m for m in model.modules() if isinstance(m, CoordConv2d)]
        assert len(layers) == 1
        assert layers[0] is model.torso.net[0]
        for (name, weight), wanted in zip(model.named_parameters(), plain.parameters(), strict=True):
            assert torch.equal(weight[:, :2] if name == "torso.net.0.weight" else weight, wanted)
    assert torch.allclose(plain(x).dist.params, zero(x).dist.params, atol=1e-6)
    assert not torch.allclose(plain(x).dist.params, default(x).dist.params, atol=1e-6)
    zero(x).value.sum().backward()
    assert zero.torso.net[0].coord_weight.abs().sum() == 0
    assert zero.torso.net[0].weight.grad[:, 2:].abs().sum() > 0


def test_the_pooled_network_has_no_weights_for_a_place() -> None:
    net = PooledConv(2, (3, 5), (2, 1), "mean")
    assert net(torch.rand(4, 7, 2, 8, 8)).shape == net(torch.rand(4, 7, 2, 13, 9)).shape == (4, 7, 5)
    x = torch.rand(2, 2, 8, 8)
    maps = net.net[:-2](x)
    assert maps.shape == (2, 5, 4, 4)
    assert torch.allclose(net(x), maps.mean((2, 3)), atol=1e-6)
    strongest = PooledConv(2, (3, 5), (2, 1), "max")
    assert torch.equal(strongest(x), strongest.net[:-2](x).amax((2, 3)))
    with pytest.raises(ValueError, match="a width and a stride"):
        PooledConv(2, (3, 5), (2,))


def test_efficiency_of_walkers_by_hand() -> None:
    config = AgentConfig(size=6, limit=20, episodes=400)

    def examined(rule) -> dict[str, float]:
        return agents.examine(Walker(rule), config, torch.Generator().manual_seed(3), CPU)

    assert examined(straight) == {"return": 1.0, "success": 1.0, "efficiency": 1.0}
    # Only up: right where the goal is straight above, and then by the shortest path.
    world = GotoGrid(400, 6, generator=torch.Generator().manual_seed(3))
    world.reset()
    above = (world.agent % 6 == world.goal % 6) & (world.goal < world.agent)
    share = pytest.approx(above.float().mean().item())
    upward = examined(lambda down, across: torch.zeros_like(down))
    assert 0 < upward["success"] == share
    assert upward["efficiency"] == upward["return"] == share


def test_efficiency_counts_wasted_steps() -> None:
    """A walker that idles against the upper edge first takes as many steps more as it stands rows from it."""
    config = AgentConfig(size=5, limit=100, episodes=300)
    turned = torch.zeros(300, dtype=torch.bool)

    class Idler(Walker):
        def policy(self, obs, state=None, first=None, mask=None):
            nonlocal turned
            row = obs.flatten(2).argmax(2)[:, 0] // 5
            turned = turned | (row == 0)
            wanted = super().policy(obs)[0].mode()
            action = torch.where(turned, wanted, 0)
            return Categorical(1e3 * torch.nn.functional.one_hot(action, 4).float()), None

    found = agents.examine(Idler(straight), config, torch.Generator().manual_seed(4), CPU)
    world = GotoGrid(300, 5, generator=torch.Generator().manual_seed(4))
    world.reset()
    row, goal, aside = world.agent // 5, world.goal // 5, (world.agent % 5 - world.goal % 5).abs()
    passes = (aside == 0) & (goal < row)  # meets the goal on its way up
    taken = torch.where(passes, row - goal, row + goal + aside)
    assert found["success"] == 1
    assert found["efficiency"] == pytest.approx((world.distance() / taken).mean().item(), abs=1e-6)


def test_agents_learn_and_repeat(tmp_path: Path) -> None:
    short = replace(TINY, updates=4)
    first, again = (agents.trial(a_trial(tmp_path, "rl/coordconv"), "rl/coordconv", short) for _ in range(2))
    assert first == again
    once = agents.trial(a_trial(tmp_path, "rl/coordconv"), "rl/coordconv", TINY)
    plain = agents.trial(a_trial(tmp_path, "rl/conv"), "rl/conv", TINY)
    for metrics in (once, plain):
        assert metrics["efficiency"] > 0.9  # a random walker: 0.25
        assert 0 < metrics["area"] < metrics["efficiency"]
    assert once["parameters"] - plain["parameters"] == 2 * 9 * TINY.widths[0]
    assert plain["coordinate_share"] == 0 < once["coordinate_share"]


def test_each_arm_has_its_rate_and_it_falls_to_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(TINY, conv_rate=0.02, coord_rate=0.01, updates=2, evaluations=1)
    made = []
    make = agents.make_learner
    monkeypatch.setattr(agents, "make_learner", lambda *a: made.append((a[1], make(*a))) or made[-1][1])
    for arm in ("conv", "coordconv", "coordconv-zero"):
        agents.trial(a_trial(tmp_path, f"rl/{arm}"), f"rl/{arm}", config)
    assert [rate for rate, _ in made] == [0.02, 0.01, 0.01]
    assert all(group["lr"] == 0 for _, learner in made for group in learner.optimizer.param_groups)


def test_worlds_and_networks_are_checked(tmp_path: Path) -> None:
    for change, message in (
        ({"agents.world": "pong"}, "neither 'goto' nor a game"),
        ({"agents.world": "ALE/Pong-v5"}, "wants agents.network='nature'"),
        ({"agents.network": "nature"}, "wants agents.network='pooled'"),
    ):
        with pytest.raises(InputError, match=message):
            runner.run(STUDY, "smoke", changes=change, results=tmp_path, executor="inline")


@pytest.mark.parametrize("coords", [None, "default"])
def test_the_papers_agent_plays_a_real_game(coords) -> None:
    pytest.importorskip("ale_py", reason="needs the extra assay[atari]")
    pytest.importorskip("cv2", reason="needs the extra assay[atari]")
    config = STUDY.configure("paper").agents
    assert config.copies * config.unroll * config.updates == 10_000_000
    config = replace(config, copies=2, unroll=3, updates=1)
    env = agents.make_world(config, 2, torch.Generator().manual_seed(0), CPU)
    torch.manual_seed(0)
    model = agents.make_agent(env, coords, config)
    assert isinstance(model.torso, NatureConv)
    assert isinstance(model.torso.convs[0], CoordConv2d) == (coords is not None)
    before = [p.detach().clone() for p in model.parameters()]
    (update,) = train(env, model, agents.make_learner(model, 7e-4, replace(config, updates=2)), 1, 3)
    assert update.rollout.obs.shape == (4, 2, 4, 84, 84)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_trial_plays_and_is_examined_on_a_real_game(tmp_path: Path) -> None:
    pytest.importorskip("ale_py", reason="needs the extra assay[atari]")
    pytest.importorskip("cv2", reason="needs the extra assay[atari]")
    config = replace(
        STUDY.configure("paper").agents,
        world="ALE/Pong-v5",
        copies=2,
        unroll=5,
        updates=2,
        episodes=1,
        evaluations=1,
    )
    metrics = agents.trial(a_trial(tmp_path, "rl/coordconv"), "rl/coordconv", config)
    assert -21 <= metrics["return"] < 0  # whole games, not clipped to a point
    assert metrics["area"] == metrics["return"]
