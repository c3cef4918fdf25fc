"""The paper's continuous experiments: half-cheetah and ant maze, with a policy trained in imagination."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from assay._extras import MissingExtra, missing, pip_command, require
from assay.envs.adapters import from_gymnasium
from assay.envs.base import TensorEnv
from assay.envs.real import mujoco
from assay.lab import Trial
from assay.rl.dynamics import DynamicsEnsemble, GaussianPrediction, Imagination, ImaginationEnv, Transitions
from assay.rl.information import mean_variance
from assay.rl.planning import CEM
from assay.studies.max_exploration.config import RobotConfig

TASKS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    # With positions in the observation, entries 0..8 of the cheetah are positions and 9..17 velocities.
    "run": lambda state, action, following: following[..., 9] - 0.1 * action.square().sum(-1),
    "flip": lambda state, action, following: following[..., 11] - 0.1 * action.square().sum(-1),
}


def check(config: RobotConfig) -> None:
    """The packages that a robot needs are installed.

    Raises:
        MissingExtra, ValueError: saying what to do.
    """
    if config.planner not in ("sac", "cem"):
        raise ValueError(f"the robots' planner is 'sac' or 'cem': got {config.planner!r}")
    if missing("mujoco"):
        raise MissingExtra(f"{config.env} needs MuJoCo: {pip_command('mujoco')}")
    if config.planner == "sac" and missing("torchrl"):
        raise MissingExtra(
            f"a policy in imagination needs torchrl: {pip_command('torchrl')}; or plan by sampling: "
            "--set robot.planner=cem --set ant.planner=cem"
        )
    if config.env.startswith("AntMaze"):
        _robotics()


def _robotics() -> Any:
    try:
        import gymnasium_robotics
    except ImportError as error:
        raise MissingExtra("the ant maze needs: pip install gymnasium-robotics") from error
    return gymnasium_robotics


def _make_ant(id: str) -> Any:
    gymnasium = require("gymnasium", "mujoco")
    gymnasium.register_envs(_robotics())
    env = gymnasium.make(id, continuing_task=True)
    env = gymnasium.wrappers.FilterObservation(env, ["achieved_goal", "observation"])
    env = gymnasium.wrappers.FlattenObservation(env)
    space = gymnasium.spaces.Box(-float("inf"), float("inf"), env.observation_space.shape, "float32")
    return gymnasium.wrappers.TransformObservation(env, lambda obs: obs.astype("float32"), space)


def make_env(config: RobotConfig, generator: torch.Generator) -> TensorEnv:
    """One copy of the robot, its place in the world included in the observation (the ant's first two numbers)."""
    if config.env.startswith("AntMaze"):
        return from_gymnasium(lambda: _make_ant(config.env), 1, "sync", generator=generator)
    options = {"exclude_current_positions_from_observation": False}
    return mujoco(config.env, 1, options=options, generator=generator)


class SAC:
    """Soft actor-critic: torchrl's loss and modules, with a temperature that stays.

    torchrl draws from torch's global generator, so every call runs in a fork of it, seeded from `generator`.
    """

    def __init__(
        self, obs_dim: int, act_dim: int, config: RobotConfig, alpha: float, generator: torch.Generator
    ):
        self.config, self.generator = config, generator
        modules = require("torchrl.modules", "torchrl")
        objectives = require("torchrl.objectives", "torchrl")
        nested = require("tensordict.nn", "torchrl")
        self.tensordict = require("tensordict", "torchrl").TensorDict
        with self._seeded():
            body = modules.MLP(
                in_features=obs_dim, out_features=2 * act_dim, num_cells=list(config.policy_hidden),
                activation_class=nn.ReLU,
            )  # fmt: skip
            trunk = nested.TensorDictModule(
                nn.Sequential(body, modules.NormalParamExtractor()),
                in_keys=["observation"],
                out_keys=["loc", "scale"],
            )
            self.actor = modules.ProbabilisticActor(
                trunk, in_keys=["loc", "scale"], distribution_class=modules.TanhNormal, return_log_prob=True
            )
            critic = modules.ValueOperator(
                modules.MLP(
                    in_features=obs_dim + act_dim, out_features=1, num_cells=list(config.policy_hidden),
                    activation_class=nn.ReLU,
                ),
                in_keys=["observation", "action"],
            )  # fmt: skip
            self.loss = objectives.SACLoss(
                self.actor, critic, alpha_init=alpha, fixed_alpha=True, target_entropy=-float(act_dim)
            )
        self.loss.make_value_estimator(gamma=config.gamma)
        self.follow = objectives.SoftUpdate(self.loss, tau=config.tau)
        self.optimizer = torch.optim.Adam(self.loss.parameters(), lr=config.policy_rate)

    def _seeded(self) -> Any:
        seed = int(torch.randint(2**31, (), generator=self.generator))
        fork = torch.random.fork_rng(devices=[])

        class Seeded:
            def __enter__(self) -> None:
                fork.__enter__()
                torch.manual_seed(seed)

            def __exit__(self, *error: Any) -> None:
                fork.__exit__(*error)

        return Seeded()

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """Sampled actions [N, A] in [-1, 1]."""
        with self._seeded():
            return self.actor(self.tensordict({"observation": obs}, batch_size=[len(obs)]))["action"]

    def update(self, state: Tensor, action: Tensor, reward: Tensor, following: Tensor) -> None:
        """One step of actor and critics on transitions [b, ...] (which never terminate)."""
        never = torch.zeros(len(state), 1, dtype=torch.bool)
        batch = self.tensordict(
            {
                "observation": state,
                "action": action,
                "next": {
                    "observation": following,
                    "reward": reward[:, None],
                    "done": never,
                    "terminated": never,
                },
            },
            batch_size=[len(state)],
        )
        with self._seeded():
            losses = self.loss(batch)
        total = losses["loss_actor"] + losses["loss_qvalue"]
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.optimizer.step()
        self.follow.step()


def units(model: DynamicsEnsemble, obs: Tensor) -> Tensor:
    """Observations in the model's own units: policies and models see the same scale."""
    size = model.obs_dim
    return (obs - model.in_mean[0, :, :size]) / model.in_std[0, :, :size]


def dream(
    model: DynamicsEnsemble,
    start: Tensor,
    config: RobotConfig,
    alpha: float,
    generator: torch.Generator,
    utility: Callable[..., Tensor] | None,
    reward: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    iterations: int | None = None,
    horizon: int | None = None,
) -> Callable[[Tensor], Tensor]:
    """A policy for the model, from scratch: SAC on imagined episodes that begin in `start` [K, D]."""
    horizon = horizon or config.horizon
    env = ImaginationEnv(
        config.actors, model, start, utility=utility, reward=reward, horizon=horizon, generator=generator
    )
    agent = SAC(model.obs_dim, model.act_dim, config, alpha, generator)
    obs, _ = env.reset()
    assert isinstance(obs, Tensor)
    seen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for _ in range((iterations or config.plan_iterations) * horizon):
        action = agent.act(units(model, obs))
        step = env.step(action)
        assert isinstance(step.final_obs, Tensor)
        assert isinstance(step.obs, Tensor)
        seen.append((units(model, obs), action, step.reward, units(model, step.final_obs)))
        obs = step.obs
        rows = torch.randint(len(seen) * config.actors, (config.policy_batch,), generator=generator)
        steps, copies = rows // config.actors, rows % config.actors
        chosen = sorted(set(steps.tolist()))
        place = torch.zeros(len(seen), dtype=torch.int64)
        place[chosen] = torch.arange(len(chosen))
        agent.update(*(torch.stack([seen[i][k] for i in chosen])[place[steps], copies] for k in range(4)))
    return lambda state: agent.act(units(model, state))


def sampled(
    model: DynamicsEnsemble,
    config: RobotConfig,
    generator: torch.Generator,
    utility: Callable[..., Tensor] | None,
    reward: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
) -> Callable[[Tensor], Tensor]:
    """Model-predictive control by CEM: a plan a step, of which the first action is made."""
    planner = CEM(
        _one_plan(Imagination(model, utility, reward)), config.cem_horizon, config.candidates,
        config.cem_iterations, action_dim=model.act_dim, generators=generator,
    )  # fmt: skip
    return lambda state: planner.plan(state)[0][:, 0]


def _one_plan(imagine: Imagination) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """An ensemble without groups as a model of one plan: [1, C, D] instead of [C, D]."""

    def model(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        following, reward = imagine(state[0], action[0])
        return following[None], reward[None]

    return model


def variance(prediction: Any) -> Tensor:
    """What TVAX plans for."""
    assert isinstance(prediction, GaussianPrediction)
    return mean_variance(prediction.mean.movedim(-3, -2))


def explore(run: Trial, arm: str, config: RobotConfig) -> dict[str, float]:
    """Explore for `steps` steps by the arm's rule; every `eval_every` of them try the tasks (cheetah), and count the
    places reached."""
    check(config)
    kind = arm.partition("/")[2]
    g = run.generator("explorer", "cpu")
    env = make_env(config, run.generator("world", "cpu"))
    obs, _ = env.reset(seed=int(torch.randint(2**31, (), generator=run.generator("world", "cpu"))))
    assert isinstance(obs, Tensor)
    obs_dim, act_dim = obs.shape[1], env.single_action_space.shape[0]
    model = DynamicsEnsemble(
        obs_dim, act_dim, config.members, config.hidden, "gaussian", min_logvar=config.min_logvar,
        max_logvar=config.max_logvar, act="swish", generators=g,
    ).to(run.device)  # fmt: skip

    def jensen(prediction: Any) -> Tensor:
        return model.disagreement(prediction, config.decay)

    utility = variance if kind == "tvax" else jensen
    alpha = config.alpha if kind in ("max", "jdrx") else config.alpha_variance
    reactive = None
    if kind in ("jdrx", "perx"):
        reactive = SAC(obs_dim, act_dim, config, alpha, g) if config.planner == "sac" else None
        if reactive is None:
            raise ValueError("the reactive arms learn a policy from experience: they need planner='sac'")
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    policy: Callable[[Tensor], Tensor] | None = None
    places: set[tuple[int, int]] = set()
    scores: dict[str, float] = {}

    def data() -> Transitions:
        return Transitions(*(torch.cat(column).to(run.device) for column in zip(*rows, strict=True)))

    def fit(epochs: int) -> None:
        steps = max(1, epochs * max(1, len(rows) // config.batch))
        model.fit(data(), steps, config.rate, min(config.batch, len(rows)), config.clip)

    for t in run.steps(config.steps):
        ready = t >= config.warmup and kind != "random"
        if ready and ((t - config.warmup) % config.refit_every == 0):
            fit(config.epochs)
            if reactive is None:
                # Model and policy are made anew: nothing planned in the old model is kept.
                start = obs.to(run.device)
                policy = (
                    dream(model, start, config, alpha, g, utility)
                    if config.planner == "sac"
                    else sampled(model, config, g, utility)
                )
        if not ready:
            action = torch.rand(1, act_dim, generator=g) * 2 - 1
        elif reactive is not None:
            action = reactive.act(units(model, obs.to(run.device))).cpu()
        else:
            assert policy is not None
            action = policy(obs.to(run.device)).cpu()
        step = env.step(action)
        assert isinstance(step.final_obs, Tensor)
        assert isinstance(step.obs, Tensor)
        rows.append((obs, action, step.final_obs))
        places.add(tuple((step.final_obs[0, :2]).floor().int().tolist()))
        obs = step.obs
        if reactive is not None and ready:
            pick = torch.randint(len(rows), (min(config.policy_batch, len(rows)),), generator=g).tolist()
            state, act, following = (torch.cat([rows[i][k] for i in pick]).to(run.device) for k in range(3))
            with torch.no_grad():
                prediction = model(state, act)
                if kind == "jdrx":
                    reward = jensen(prediction)
                else:
                    guess = model.next_state(prediction, state)
                    reward = ((following - guess) / model.delta_std[0]).square().mean(-1)
            reactive.update(units(model, state), act, reward, units(model, following))
        if (t + 1) % config.eval_every == 0 or t + 1 == config.steps:
            run.log(t + 1, places=float(len(places)))
            if not config.env.startswith("AntMaze"):
                fit(config.final_epochs)
                for name, reward_of in TASKS.items():
                    scores[f"return_{name}"] = solve(run, model, config, reward_of, g)
                    run.log(t + 1, **{f"return_{name}": scores[f"return_{name}"]})
    return {**scores, "places": float(len(places))}


def solve(
    run: Trial,
    model: DynamicsEnsemble,
    config: RobotConfig,
    reward: Callable[[Tensor, Tensor, Tensor], Tensor],
    generator: torch.Generator,
) -> float:
    """Mean return on the real robot of a policy made in the model for `reward`."""
    env = make_env(config, run.generator("task", "cpu"))
    total = 0.0
    for episode in range(config.task_episodes):
        obs, _ = env.reset(seed=episode)
        assert isinstance(obs, Tensor)
        if config.planner == "sac":
            policy = dream(
                model, obs.to(run.device), config, config.alpha_task, generator, None, reward,
                config.task_iterations, config.task_horizon,
            )  # fmt: skip
        else:
            policy = sampled(model, config, generator, None, reward)
        for _ in range(config.task_steps):
            action = policy(obs.to(run.device)).cpu()
            step = env.step(action)
            assert isinstance(step.final_obs, Tensor)
            assert isinstance(step.obs, Tensor)
            total += float(reward(obs, action, step.final_obs).sum())
            obs = step.obs
    return total / config.task_episodes
