r"""Soft actor-critic (Haarnoja et al., 2018, arXiv 1801.01290, 1812.05905): torchrl's loss under policies of ours.

The loss, its target networks and the replay buffer are torchrl's (the extra `torchrl`); the policy is one of ours, so
that `assay.rl.evaluate.evaluate`, rollouts and skills take it as they stand. Rewards may be **relabelled**: computed
when a transition is sampled instead of when it was made, by whatever pays it then (a discriminator that went on
learning, an inverse-reinforcement-learning reward).

    env = Pendulum(8, generator=torch.Generator().manual_seed(0))
    learner = SAC(env, hidden=(64, 64), generator=torch.Generator().manual_seed(1))
    for metrics in learner.run(steps=2_000):
        metrics["step_reward"]
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay._extras import require
from assay.envs.base import TensorEnv
from assay.rl.distributions import DiagGaussian
from assay.rl.intrinsic.skills import DIAYNReward
from assay.rl.nets import GaussianHead, MLPTorso, mlp


class BoundedGaussian(DiagGaussian):
    r"""A squashed normal stretched to a box: $a = l + (h - l)(1 + \tanh x)/2$, $x \sim N(\mu, \sigma^2)$."""

    def __init__(self, mean: Tensor, log_std: Tensor, low: Tensor, high: Tensor):
        super().__init__(mean, log_std, squash=True)
        self.low, self.high = low, high

    def _stretched(self, unit: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * (1 + unit) / 2

    def rsample(self, generator: torch.Generator | None = None) -> Tensor:
        """[..., d] within the box, differentiable."""
        return self._stretched(super().rsample(generator))

    def log_prob(self, action: Tensor) -> Tensor:
        """[...]: log-density in the box's units."""
        unit = 2 * (action - self.low) / (self.high - self.low) - 1
        return super().log_prob(unit) - ((self.high - self.low) / 2).log().sum(-1)

    def mode(self) -> Tensor:
        """[..., d]: where the normal's mean goes."""
        return self._stretched(super().mode())


class _BoundedHead(GaussianHead):
    """Means and standard deviations from the state, for actions in a box."""

    def __init__(self, features: int, low: Tensor, high: Tensor, generator: torch.Generator | None):
        super().__init__(
            features, len(low), "tanh", state_dependent_std=True, bounds=(-10.0, 2.0), generator=generator
        )
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def distribution(self, params: Tensor, mask: Tensor | None = None) -> BoundedGaussian:
        if mask is not None:
            raise ValueError("action masks serve discrete actions only")
        mean, log_std = params.split(self.actions, -1)
        return BoundedGaussian(mean, log_std, self.low, self.high)  # type: ignore[arg-type]


class SoftActor(nn.Module):
    """SAC's policy: a perceptron to a bounded Gaussian. It acts in rollouts and `evaluate` as any policy here does.

    Args:
        env: with vector observations and a bounded continuous action space.
        hidden: widths.
        generator: of the initialisation.
    """

    recurrent = False

    def __init__(
        self,
        env: TensorEnv,
        hidden: tuple[int, ...] = (256, 256),
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if env.num_actions is not None or not env.obs_shape:
            raise ValueError(
                f"SAC is for continuous actions and one tensor of observations: {type(env.unwrapped).__name__} has "
                f"{env.num_actions or 'continuous'} actions and observations of shape {env.obs_shape}"
            )
        space = env.single_action_space
        low, high = (torch.as_tensor(bound, dtype=torch.float32) for bound in (space.low, space.high))
        if not bool((low.isfinite() & high.isfinite()).all()):
            raise ValueError(f"SAC squashes actions into bounds: give a bounded action space, not {space}")
        self.torso = MLPTorso((prod(env.obs_shape), *hidden), "relu", len(env.obs_shape), generator)
        self.policy_head = _BoundedHead(self.torso.features, low, high, generator)

    def initial_state(self, num_envs: int) -> None:
        """No memory."""

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Means and standard deviations before squashing [..., d]."""
        mean, log_std = self.policy_head.params(self.torso(obs)).chunk(2, -1)
        return mean, log_std.exp()

    def policy(
        self, obs: Tensor, state: object = None, first: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[BoundedGaussian, None]:
        """The action distribution."""
        return self.policy_head.distribution(self.policy_head.params(self.torso(obs)), mask), None


class _Q(nn.Module):
    def __init__(self, inputs: int, hidden: tuple[int, ...], generator: torch.Generator | None):
        super().__init__()
        self.net = mlp((inputs, *hidden, 1), "relu", 1.0, generator)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.net(torch.cat((obs.flatten(action.ndim - 1), action), -1))


class Transitions(NamedTuple):
    """A minibatch out of the replay buffer."""

    obs: Tensor
    """[B, *obs]."""
    action: Tensor
    """[B, d]."""
    next_obs: Tensor
    """[B, *obs]: the true successors."""
    reward: Tensor
    """[B]: as the world gave it."""
    terminated: Tensor
    """[B] bool."""
    info: dict[str, Tensor]
    """[B, ...] by key."""


Relabel = Callable[[Transitions], Tensor]
"""From a minibatch to the rewards [B] to learn from."""


class SAC:
    """Soft actor-critic on a tensor world.

    Time limits are not terminations: the value of a truncated step's true successor is bootstrapped.

    Args:
        env: vector observations, bounded continuous actions.
        hidden: widths of policy and value networks.
        gamma: discount.
        tau: the share of the present value networks that enters their targets at each update.
        lr: Adam's, for all.
        batch: transitions of an update.
        capacity: transitions kept.
        alpha: weight of the entropy; None: learned, so that the entropy stays near `target_entropy`.
        target_entropy: "auto": minus the number of action dimensions.
        relabel: rewards of sampled transitions; None: those of the world.
        info: keys of `Step.info` that transitions keep for `relabel`.
        generator: of initialisation, actions and minibatches. The global generator is left as it was.

    Raises:
        MissingExtra: torchrl is not installed.
        ValueError: discrete or unbounded actions, observations that are not a tensor.
    """

    def __init__(
        self,
        env: TensorEnv,
        *,
        hidden: tuple[int, ...] = (256, 256),
        gamma: float = 0.99,
        tau: float = 0.005,
        lr: float = 3e-4,
        batch: int = 256,
        capacity: int = 1_000_000,
        alpha: float | None = None,
        target_entropy: float | str = "auto",
        relabel: Relabel | None = None,
        info: Sequence[str] = (),
        generator: torch.Generator | None = None,
    ):
        objectives = require("torchrl.objectives", "torchrl")
        modules = require("torchrl.modules", "torchrl")
        data = require("torchrl.data", "torchrl")
        nets = require("tensordict.nn", "torchrl")
        if min(batch, capacity) < 1:
            raise ValueError(f"batch and capacity are at least 1: got {batch} and {capacity}")
        self.env, self.relabel, self.keys, self.batch = env, relabel, tuple(info), batch
        self.generator = generator or torch.Generator(env.device).manual_seed(0)
        with self._own_randomness():  # layers draw their first weights from the global generator
            self.actor = SoftActor(env, hidden, self.generator).to(env.device)
            """The policy."""
            head = self.actor.policy_head
            inputs = prod(env.obs_shape) + head.actions
            self.critics = [_Q(inputs, hidden, self.generator).to(env.device) for _ in range(2)]
        actor = nets.ProbabilisticTensorDictSequential(
            nets.TensorDictModule(self.actor, in_keys=["observation"], out_keys=["loc", "scale"]),
            nets.ProbabilisticTensorDictModule(
                in_keys=["loc", "scale"],
                out_keys=["action"],
                distribution_class=modules.TanhNormal,
                distribution_kwargs={"low": head.low, "high": head.high, "tanh_loc": False},
                return_log_prob=True,
            ),
        )
        values = [modules.ValueOperator(q, in_keys=["observation", "action"]) for q in self.critics]
        entropy = -float(head.actions) if target_entropy == "auto" else float(target_entropy)
        with self._own_randomness():
            self.loss = objectives.SACLoss(
                actor,
                values,
                alpha_init=1.0 if alpha is None else alpha,
                fixed_alpha=alpha is not None,
                target_entropy=entropy,
                loss_function="l2",
            ).to(env.device)
            self.loss.make_value_estimator(objectives.ValueEstimators.TD0, gamma=gamma)
            self.target = objectives.SoftUpdate(self.loss, tau=tau)
            self.replay = data.ReplayBuffer(
                storage=data.LazyTensorStorage(capacity, device=env.device), batch_size=batch
            )
        self.optimizer = torch.optim.Adam([p for p in self.loss.parameters() if p.requires_grad], lr)
        self._tensordict = require("tensordict", "torchrl").TensorDict
        self.obs: Tensor | None = None
        """[N, *obs]: the present observation."""
        self.env_steps = 0
        """Transitions made so far."""
        self.updates = 0

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """torchrl draws from the global generator: lend it a state out of ours, and give the old one back."""
        seed = int(torch.randint(2**62, (1,), generator=self.generator, device=self.generator.device))
        devices = [self.env.device] if self.env.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield

    @torch.no_grad()
    def collect(self, steps: int, random: bool = False) -> Tensor:
        """Make so many steps of every copy into the replay buffer; returns the world's rewards [T, N].

        `random`: by uniform actions instead of the policy's.
        """
        if self.obs is None:
            obs, _ = self.env.reset()
            assert isinstance(obs, Tensor)
            self.obs = obs
        rewards = []
        head = self.actor.policy_head
        for _ in range(steps):
            if random:
                unit = torch.rand(
                    (self.env.num_envs, head.actions), generator=self.generator, device=self.env.device
                )
                action = head.low + (head.high - head.low) * unit
            else:
                action = self.actor.policy(self.obs)[0].sample(self.generator)
            step = self.env.step(action)
            rows: dict[Any, Tensor] = {
                "observation": self.obs,
                "action": action,
                ("next", "observation"): step.final_obs,  # type: ignore[dict-item]
                ("next", "reward"): step.reward[:, None],
                ("next", "terminated"): step.terminated[:, None],
                ("next", "done"): step.ended[:, None],
                **{("info", key): step.info[key] for key in self.keys},
            }
            valid = step.info.get("valid")
            made = self._tensordict(rows, batch_size=[self.env.num_envs])
            made = made if valid is None else made[valid]
            if len(made):
                self.replay.extend(made)
            self.env_steps += len(made)
            self.obs = step.obs  # type: ignore[assignment]
            rewards.append(step.reward)
        return torch.stack(rewards)

    def update(self) -> dict[str, float]:
        """One step of policy, value networks and (if learned) alpha on a minibatch, and of the targets."""
        if not len(self.replay):
            raise ValueError("nothing to learn from yet: collect first")
        with self._own_randomness():
            sampled = self.replay.sample().to(self.env.device)
            if self.relabel is not None:
                after = sampled["next"]
                info = {key: sampled["info", key] for key in self.keys}
                made = Transitions(
                    sampled["observation"],
                    sampled["action"],
                    after["observation"],
                    after["reward"][:, 0],
                    after["terminated"][:, 0],
                    info,
                )
                paid = self.relabel(made)
                if paid.shape != made.reward.shape:
                    raise ValueError(f"relabel gives rewards [{len(made.reward)}]: got {tuple(paid.shape)}")
                sampled["next", "reward"] = paid.detach()[:, None]
            losses = self.loss(sampled)
            total = losses["loss_actor"] + losses["loss_qvalue"]
            if "loss_alpha" in losses.keys():  # noqa: SIM118 (a TensorDict is no mapping)
                total = total + losses["loss_alpha"]
            self.optimizer.zero_grad()
            total.backward()
            self.optimizer.step()
            self.target.step()
        self.updates += 1
        names = ("loss_actor", "loss_qvalue", "alpha", "entropy")
        metrics = {name.removeprefix("loss_"): float(losses[name].detach()) for name in names}
        return {**metrics, "reward": float(sampled["next", "reward"].mean())}

    def run(
        self, steps: int, warmup: int = 1_000, updates_per_step: float = 1.0, every: int = 1_000
    ) -> Iterator[dict[str, float]]:
        """Act and learn in turns; yields the last update's metrics about every `every` transitions.

        Args:
            steps: transitions, over all copies (the warm-up among them).
            warmup: transitions of uniform actions before the first update.
            updates_per_step: updates for each transition (1 in the papers; less with many copies).
            every: transitions between two yields.

        Yields:
            actor, qvalue (losses), alpha, entropy, reward (mean of the minibatch), `step_reward` (mean of the world's
            since the last yield), `env_steps`.
        """
        if updates_per_step <= 0 or every < 1:
            raise ValueError(f"updates_per_step and every are positive: got {updates_per_step} and {every}")
        owed, begun = 0.0, self.env_steps
        metrics: dict[str, float] = {}
        earned: list[Tensor] = []
        told = self.env_steps
        while self.env_steps - begun < steps:
            before = self.env_steps
            earned.append(self.collect(1, random=self.env_steps < warmup).mean())
            if before >= warmup:
                owed += (self.env_steps - before) * updates_per_step
                while owed >= 1:
                    metrics = self.update()
                    owed -= 1
            if self.env_steps - told >= every and metrics:
                mean = float(torch.stack(earned).mean())
                yield {**metrics, "step_reward": mean, "env_steps": float(self.env_steps)}
                earned, told = [], self.env_steps


def skill_relabel(reward: DIAYNReward, lr: float = 3e-4) -> Relabel:
    """DIAYN's reward at sampling time: one step of the discriminator on the minibatch, then what it pays.

    For a world wrapped in `AppendSkill`, and a learner that keeps `info=("skill",)`. The reward of a transition changes
    with the discriminator, so it must not be stored. As in the paper's algorithm the discriminator makes one step for
    each of the policy's.

    Example:
        env = AppendSkill(world, 8)
        learner = SAC(env, alpha=0.1, relabel=skill_relabel(DIAYNReward(obs_dim, 8)), info=("skill",))
    """
    optimizer = torch.optim.Adam(reward.discriminator.parameters(), lr)

    def relabel(made: Transitions) -> Tensor:
        states, z = made.next_obs[..., : -reward.num_skills], made.info["skill"]
        loss = F.cross_entropy(reward.logits(states), z)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return reward.bonus(states, z)

    return relabel
