r"""Skills without reward (Eysenbach et al., 2019, "Diversity is all you need", arXiv 1802.06070).

A skill $z$ is drawn when an episode begins and kept to its end. The policy $\pi(a \mid s, z)$ is paid for visiting
states from which a discriminator $q_\phi(z \mid s)$ can tell the skill,

$$r_z(s, a) = \log q_\phi(z \mid s') - \log p(z),$$

a lower bound of the mutual information between states and skills; the discriminator learns by cross-entropy on the
same states. The world's own reward is never read.
"""

from collections.abc import Callable
from copy import deepcopy
from math import log
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from assay._extras import require
from assay.envs.base import Generators, Obs, TensorEnv
from assay.envs.wrappers import RepeatAction
from assay.rl.distributions import Categorical
from assay.rl.intrinsic.base import IntrinsicReward
from assay.rl.nets import mlp
from assay.rl.policies import ActorCritic
from assay.rl.rollout import Batch, Rollout


def _check_skills(z: Tensor, num_skills: int) -> None:
    if z.dtype != torch.int64 or bool(((z < 0) | (z >= num_skills)).any()):
        raise ValueError(
            f"skills are int64 in 0..{num_skills - 1}: got {z.dtype} from {z.min()} to {z.max()}"
        )


class SkillPrior:
    """The distribution p(z) that skills are drawn from: uniform and fixed as in the paper, or learned.

    Args:
        num_skills: K, at least 2.
        kind: "uniform"; "vic": exponentiated-gradient ascent on each skill's mean reward, which pays skills for being
            told apart already; "official": proportional to exp(mean log q(z | s)), as the released code's option.
        step: of the ascent.
        floor: least probability.

    Example:
        >>> SkillPrior(4).effective_number()
        4.0
    """

    def __init__(self, num_skills: int, kind: str = "uniform", step: float = 0.5, floor: float = 1e-6):
        if num_skills < 2:
            raise ValueError(f"skills can be told apart from two on: got num_skills={num_skills}")
        if kind not in ("uniform", "vic", "official"):
            raise ValueError(f"kind is 'uniform', 'vic' or 'official': got {kind!r}")
        self.num_skills, self.kind, self.step, self.floor = num_skills, kind, step, floor
        self.probs = torch.full((num_skills,), 1 / num_skills)
        """[K]."""

    def update(self, z: Tensor, reward: Tensor, log_q: Tensor) -> None:
        """Learn from visits: skills z, their rewards, and log q(z | s), all of one shape. Nothing for "uniform"."""
        if self.kind == "uniform":
            return
        _check_skills(z, self.num_skills)
        value = reward if self.kind == "vic" else log_q
        z, value = z.flatten(), value.flatten()
        count = torch.zeros(self.num_skills).scatter_add_(0, z, torch.ones_like(value))
        mean = torch.zeros(self.num_skills).scatter_add_(0, z, value) / count.clamp(min=1)
        logits = self.probs.log() + self.step * mean if self.kind == "vic" else mean
        # A skill that nobody visited keeps its share.
        logits = torch.where(count > 0, logits, self.probs.log())
        self.probs = logits.softmax(0).clamp(min=self.floor)
        self.probs = self.probs / self.probs.sum()

    def sample(self, n: int, generator: torch.Generator | None = None) -> Int64[Tensor, " n"]:
        """n skills."""
        return torch.multinomial(self.probs, n, replacement=True, generator=generator)

    def effective_number(self) -> float:
        """exp(H[p]): how many skills the prior really uses. K for the uniform one, whatever the skills are like."""
        return float(torch.exp(-torch.special.xlogy(self.probs, self.probs).sum()))


class DIAYNReward(IntrinsicReward):
    r"""The reward $\log q_\phi(z \mid s') - \log p(z)$ and its discriminator.

    Rollouts come from an environment wrapped in `AppendSkill`, collected with `info=("skill",)`.

    Args:
        obs_dim: D, of a state without the skill's code.
        num_skills: K, at least 2.
        hidden: widths of the discriminator.
        discriminator_obs: from states [..., D] to what the discriminator sees [..., D'] (the "prior" of the paper,
            section 4.3: a centre of mass, x alone); decides along which axis skills differ.
        add_log_prior: False leaves -log p(z) out, so that every reward is negative (the released configuration of
            the mountain car; then ending the episode is what pays).
        prior: see `SkillPrior`; default uniform.
        generator: of the initialisation.

    Raises:
        ValueError: fewer than two skills.
    """

    episodic = True

    def __init__(
        self,
        obs_dim: int,
        num_skills: int,
        hidden: tuple[int, ...] = (64, 64),
        discriminator_obs: Callable[[Tensor], Tensor] | None = None,
        add_log_prior: bool = True,
        prior: SkillPrior | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.prior = prior or SkillPrior(num_skills)
        if self.prior.num_skills != num_skills:
            raise ValueError(f"the prior is over {self.prior.num_skills} skills, not {num_skills}")
        self.obs_dim, self.num_skills, self.add_log_prior = obs_dim, num_skills, add_log_prior
        self.discriminator_obs = discriminator_obs
        width = obs_dim
        if discriminator_obs is not None:
            width = discriminator_obs(torch.zeros(1, obs_dim)).shape[-1]
        self.discriminator = mlp((width, *hidden, num_skills), "relu", 1.0, generator)

    def logits(self, obs: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch skills"]:
        """Unnormalised log q(z | s) of states without the skill's code."""
        if obs.shape[-1] == self.obs_dim + self.num_skills:
            raise ValueError(
                f"states have {self.obs_dim} numbers: these {obs.shape[-1]} still hold the skill's code, which the "
                "discriminator could just read"
            )
        if obs.shape[-1] != self.obs_dim:
            raise ValueError(f"states have {self.obs_dim} numbers: got {obs.shape[-1]}")
        if not bool(torch.isfinite(obs).all()):
            raise ValueError("the discriminator was given states that are not finite")
        return self.discriminator(obs if self.discriminator_obs is None else self.discriminator_obs(obs))

    def predict(self, obs: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch skills"]:
        """log q(z | s)."""
        return F.log_softmax(self.logits(obs), -1)

    def log_q(self, obs: Float[Tensor, "*batch dim"], z: Tensor) -> Float[Tensor, "*batch"]:
        """log q(z | s) of the given skills: z [*batch], or its last dimensions (a skill a copy, for all of time)."""
        _check_skills(z, self.num_skills)
        return self.predict(obs).gather(-1, z.expand(obs.shape[:-1])[..., None])[..., 0]

    @torch.no_grad()
    def bonus(self, next_obs: Float[Tensor, "*batch dim"], z: Tensor) -> Float[Tensor, "*batch"]:
        """The reward of reaching `next_obs` with skill z."""
        reward = self.log_q(next_obs, z)
        if not self.add_log_prior:
            return reward
        return reward - self.prior.probs.to(next_obs.device).log()[z.expand(reward.shape)]

    def _states(self, obs: Obs) -> Tensor:
        if isinstance(obs, dict):
            raise ValueError("DIAYN reads vectors with the skill's code at the end: see AppendSkill")
        return obs[..., : -self.num_skills]

    def reward(self, rollout: Rollout) -> Tensor:
        """[T, N]: of the true successors."""
        return self.bonus(self._states(rollout.next_obs()), rollout.info["skill"])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the skills given the states reached."""
        logits = self.logits(self._states(batch.next_obs))
        return {"discriminator": F.cross_entropy(logits, batch.take(batch.rollout.info["skill"]))}

    @torch.no_grad()
    def observe(self, rollout: Rollout) -> None:
        """Let a learned prior follow."""
        if self.prior.kind != "uniform":
            z = rollout.info["skill"]
            log_q = self.log_q(self._states(rollout.next_obs()), z)
            self.prior.update(z, log_q - self.prior.probs.log()[z], log_q)

    @torch.no_grad()
    def infer_skill(self, states: Float[Tensor, "time *batch dim"]) -> Int64[Tensor, "*batch"]:
        r"""The skill that a sequence of states looks like, $\arg\max_z \prod_t q(z \mid s_t)$ (imitation)."""
        return self.predict(states).sum(0).argmax(-1)


class SkillPolicy(nn.Module):
    """A trained skill-conditioned actor-critic, to be asked with states and skills apart.

    Args:
        model: trained on observations [s, one-hot z].
        num_skills: K.
    """

    def __init__(self, model: ActorCritic, num_skills: int):
        super().__init__()
        self.model, self.num_skills = model, num_skills

    def freeze(self) -> "SkillPolicy":
        """Stop all gradients, in place; returns itself."""
        self.requires_grad_(False)
        return self

    def _joined(self, obs: Tensor, z: Tensor) -> Tensor:
        if z.dtype == torch.int64 and z.ndim < obs.ndim:
            _check_skills(z, self.num_skills)
            z = F.one_hot(z, self.num_skills)
        return torch.cat([obs, z.expand(*obs.shape[:-1], -1).to(obs.dtype)], -1)

    def policy(self, obs: Tensor, z: Tensor) -> Any:
        """The action distribution in states [..., D] under skills [...], or codes [..., K] (mixtures of skills)."""
        return self.model.policy(self._joined(obs, z))[0]

    def specialise(self, z: int, value: bool = True) -> ActorCritic:
        """A policy on plain states that begins as skill z and can be trained on (fine-tuning).

        The code's columns of the first layers are folded into their biases.

        Args:
            z: the skill.
            value: also take over the critic; False: its last layer begins at zero. (A critic that expects the reward
                of skills makes every first advantage on another reward negative, and the skill is unlearnt.)
        """
        model = deepcopy(self.model).requires_grad_(True)
        for torso in (model.torso, model.value_torso):
            if torso is None:
                continue
            first = next(m for m in torso.modules() if isinstance(m, nn.Linear))
            with torch.no_grad():
                plain = nn.Linear(first.in_features - self.num_skills, first.out_features).to(first.weight)
                plain.weight.copy_(first.weight[:, : -self.num_skills])
                plain.bias.copy_(first.bias + first.weight[:, z - self.num_skills])
            _replace(torso, first, plain)
        if not value:
            for parameter in model.value_head.parameters():
                nn.init.zeros_(parameter)
        return model

    def as_option_set(self) -> list[Callable[[Tensor], Any]]:
        """K functions from states to action distributions."""
        return [lambda obs, z=z: self.policy(obs, torch.tensor(z)) for z in range(self.num_skills)]


def _replace(module: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in module.modules():
        for name, child in parent.named_children():
            if child is old:
                setattr(parent, name, new)


class MetaController(RepeatAction):
    """An environment whose actions are skills, each followed for k steps of the world below.

    Rewards within a macro step add up, discounted; an episode that ends within one ends the macro step there
    (`info["macro_len"]`). Two-level control (DIAYN, section 4.2) is any learner on this environment.

    Args:
        env: a tensor world, not wrapped, with discrete actions.
        skills: from states and skills to an action distribution (`SkillPolicy`).
        num_skills: K: the actions here.
        k: steps a skill is followed.
        gamma: discount within a macro step.
        skill_obs: from the world's observation to the states that the skills know; None: the same.
        generator: see `Wrapper`.
    """

    def __init__(
        self,
        env: TensorEnv,
        skills: Callable[[Tensor, Tensor], Any],
        num_skills: int,
        k: int,
        gamma: float = 1.0,
        skill_obs: Callable[[Tensor], Tensor] | None = None,
        generator: Generators | None = None,
    ):
        super().__init__(env, k, gamma, generator)
        self.skills, self.skill_obs, self.num_actions = skills, skill_obs, num_skills
        self.below = env.num_actions
        if self.below is None:
            raise ValueError("MetaController follows skills over discrete actions")

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        return self.env.single_observation_space, spaces.Discrete(self.num_actions)

    @torch.no_grad()
    def _inner(self, action: Tensor, obs: Obs) -> Tensor:
        assert isinstance(obs, Tensor)
        dist = self.skills(obs if self.skill_obs is None else self.skill_obs(obs), action)
        # Drawn like every other random number here, so that blocks of rows stay independent.
        noise = self._draw((self.below,), lambda out, g: out.exponential_(generator=g))  # type: ignore[arg-type]
        return (dist.params - noise.log()).argmax(-1)


def primitive_skills(num_actions: int) -> Callable[[Tensor, Tensor], Categorical]:
    """Skill z always does action z: with it a `MetaController` is plain action repeat."""

    def skills(obs: Tensor, z: Tensor) -> Categorical:
        sure = F.one_hot(z, num_actions).to(obs.dtype)
        return Categorical((sure - 1) * 1e9)

    return skills


class SkillMeasure(NamedTuple):
    """How well skills can be told from states by a discriminator that never trained the policy."""

    mi: float
    """Lower bound of I(S; Z) in nats: log K minus the held-out cross-entropy. At most log K."""
    accuracy: float
    """Held-out, over single states."""
    per_skill: Tensor
    """[K] held-out accuracy of each skill."""

    def alive(self) -> int:
        """Skills recognised more than twice as often as by chance."""
        return int((self.per_skill > 2 / len(self.per_skill)).sum())


def measure_skills(
    states: Float[Tensor, "time envs dim"],
    z: Int64[Tensor, " envs"],
    num_skills: int,
    generator: torch.Generator | None = None,
    steps: int = 400,
    hidden: int = 64,
    batch: int = 512,
) -> SkillMeasure:
    """Train a FRESH discriminator on half of the trajectories and test it on the other half.

    The discriminator that paid the policy is no measure: it was trained together with it. Splitting by trajectory
    matters too: neighbouring states of one trajectory would let it recognise the trajectory.

    Args:
        states: [T, N, D], without the skill's code.
        z: [N], the skill of each trajectory.
        num_skills: K.
        generator: of split, initialisation and batches.
        steps: of Adam.
        hidden: units of its two layers.
        batch: states a step.

    Raises:
        ValueError: fewer than two trajectories, or skills out of range.
    """
    _check_skills(z, num_skills)
    copies = states.shape[1]
    if copies < 2:
        raise ValueError(f"two trajectories at least, one to train and one to test: got {copies}")
    order = torch.randperm(copies, generator=generator)
    train, test = order[: copies // 2], order[copies // 2 :]

    def flat(rows: Tensor) -> tuple[Tensor, Tensor]:
        return states[:, rows].flatten(0, 1), z[rows].expand(len(states), -1).flatten()

    (x, y), (held_x, held_y) = flat(train), flat(test)
    mean, std = x.mean(0), x.std(0).clamp(min=1e-3)
    net = mlp((states.shape[-1], hidden, hidden, num_skills), "relu", 1.0, generator)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(steps):
        index = torch.randint(len(x), (batch,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(net((x[index] - mean) / std), y[index]).backward()
        optimizer.step()
    with torch.no_grad():
        logits = net((held_x - mean) / std)
        # A bound from a worse than uniform guess is looser than the trivial one, 0.
        mi = max(log(num_skills) - float(F.cross_entropy(logits, held_y)), 0.0)
        right = (logits.argmax(-1) == held_y).float()
    count = torch.zeros(num_skills).scatter_add_(0, held_y, torch.ones_like(right))
    per_skill = torch.zeros(num_skills).scatter_add_(0, held_y, right) / count.clamp(min=1)
    return SkillMeasure(mi, float(right.mean()), per_skill)


def mutual_information_lower_bound(
    states: Float[Tensor, "time envs dim"],
    z: Int64[Tensor, " envs"],
    num_skills: int,
    generator: torch.Generator | None = None,
) -> float:
    """I(S; Z) from below, in nats; see `measure_skills`."""
    return measure_skills(states, z, num_skills, generator).mi


def skill_wrapper(env: Any, reward: DIAYNReward, seed: int = 0) -> Any:
    """A `gymnasium.Wrapper` that hides the reward of `env` behind that of skills, for any library's learner.

    A skill is drawn at each reset and its code appended to the (vector) observation; `info` gains "skill" and
    "extrinsic_reward". Train the discriminator on what was visited by `reward.logits` and cross-entropy.

    Args:
        env: a `gymnasium.Env` with vector observations.
        reward: scores next states.
        seed: of the skills.

    Raises:
        MissingExtra: without gymnasium.
    """
    gymnasium = require("gymnasium", "rl")
    np = require("numpy", "rl")

    class SkillWrapper(gymnasium.Wrapper):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(env)
            box, k = env.observation_space, reward.num_skills
            low, high = np.append(box.low, np.zeros(k)), np.append(box.high, np.ones(k))
            self.observation_space = gymnasium.spaces.Box(
                low.astype("f4"), high.astype("f4"), dtype=np.float32
            )
            self.generator = torch.Generator().manual_seed(seed)
            self.skill = 0

        def _see(self, obs: Any) -> Any:
            code = np.eye(reward.num_skills, dtype=np.float32)[self.skill]
            return np.concatenate([np.asarray(obs, dtype=np.float32), code])

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[Any, dict]:
            if seed is not None:
                self.generator.manual_seed(seed)
            obs, info = env.reset(seed=seed, options=options)
            self.skill = int(reward.prior.sample(1, self.generator))
            return self._see(obs), {**info, "skill": self.skill}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
            obs, extrinsic, terminated, truncated, info = env.step(action)
            state = torch.as_tensor(np.asarray(obs, dtype=np.float32))
            paid = float(reward.bonus(state[None], torch.tensor([self.skill])))
            info = {**info, "skill": self.skill, "extrinsic_reward": float(extrinsic)}
            return self._see(obs), paid, terminated, truncated, info

    return SkillWrapper()
