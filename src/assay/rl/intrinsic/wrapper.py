r"""Random network distillation around anybody's Gymnasium environment, for learners that know nothing of it.

    import gymnasium
    from assay.rl.intrinsic.wrapper import RNDVectorWrapper, RNDWrapper

    env = RNDWrapper(gymnasium.make("MountainCar-v0"), mode="add", weight=0.5)
    obs, info = env.reset(seed=0)
    obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
    info["extrinsic_reward"], info["intrinsic_reward"]

    envs = RNDVectorWrapper(gymnasium.make_vec("CartPole-v1", num_envs=8))       # the same for vector environments

The wrapper carries the networks, trains the predictor on what the learner sees while it acts, and normalises
observations and bonuses as the paper does. What it cannot give is a second value head: the learner gets ONE reward, so
both kinds of reward share its discount and its episodes. (Use `assay.rl.intrinsic.two_stream_advantage` in a learner of
your own.)
"""

import abc
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from assay._extras import require
from assay.rl.intrinsic.base import IntrinsicReward
from assay.rl.intrinsic.rnd import RND, make_rnd
from assay.rl.normalize import ReturnNormalizer

gymnasium = require("gymnasium", "rl")


class Transition(NamedTuple):
    """One step of N copies, as a wrapper hands it to who pays for it."""

    obs: Tensor
    """[N, *obs] before the step."""
    action: Tensor
    """[N], or [N, d]."""
    next_obs: Tensor
    """[N, *obs]: the TRUE successor, the last observation of an episode where one ended."""
    valid: Tensor
    """[N] bool: False where the step only began an episode anew (next-step autoreset)."""
    ended: Tensor
    """[N] bool: the step ended an episode."""


class Payer(abc.ABC):
    """An intrinsic reward with its optimizer, normaliser and memory, fed step by step: what the wrappers hold.

    Subclasses say what the raw bonus of a step is, what of a step is kept for training, and what the loss on kept rows
    is. A reward that does not learn has no parameters and trains nothing.

    Args:
        module: networks.
        num_envs: N.
        gamma: of the bonus's normaliser.
        lr: Adam's.
        update_every: steps between two trainings.
        epochs: passes over these steps.
        batch: rows of a training step.
        generator: of the shuffling.
    """

    def __init__(
        self,
        module: IntrinsicReward,
        num_envs: int,
        gamma: float,
        lr: float,
        update_every: int,
        epochs: int,
        batch: int,
        generator: torch.Generator,
    ):
        if min(update_every, epochs, batch) < 1:
            raise ValueError(
                f"update_every, epochs and batch are at least 1: {(update_every, epochs, batch)}"
            )
        self.module, self.generator = module, generator
        self.normalizer = ReturnNormalizer(gamma, num_envs)
        parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(parameters, lr) if parameters else None
        self.update_every, self.epochs, self.batch = update_every, epochs, batch
        self.kept: list[tuple[Tensor, ...]] = []
        """Rows of the steps that wait for the next training."""
        self.updates = 0
        """Trainings so far."""

    @abc.abstractmethod
    def bonus(self, step: Transition) -> Tensor:
        """[N]: what the step is worth, before normalisation, without gradient."""

    @abc.abstractmethod
    def warm_up(self, steps: list[Transition]) -> None:
        """Statistics of observations, then of bonuses, from random steps."""

    def keep(self, step: Transition) -> tuple[Tensor, ...]:
        """What training needs of a step, [N, ...] each."""
        return ()

    def loss(self, *rows: Tensor) -> Tensor:
        """What training minimises on rows that `keep` chose."""
        raise NotImplementedError

    def learn_statistics(self, *rows: Tensor) -> None:  # noqa: B027 (most need it, not all)
        """Take kept rows into the statistics of observations, before they train."""

    def begin(self) -> None:  # noqa: B027
        """Every copy begins an episode (memories of episodes are emptied)."""

    def pay(self, step: Transition) -> np.ndarray:
        """Normalised bonuses [N] of a step; trains every so often."""
        raw = self.bonus(step).masked_fill(~step.valid, 0.0)
        paid = self.normalizer(raw[None], valid=step.valid[None])[0]
        if self.optimizer is not None:
            self.kept.append(tuple(part[step.valid] for part in self.keep(step)))
            if len(self.kept) == self.update_every:
                self._train(*(torch.cat(parts) for parts in zip(*self.kept, strict=True)))
                self.kept = []
        return paid.double().numpy()

    def _train(self, *rows: Tensor) -> None:
        assert self.optimizer is not None
        if not len(rows[0]):
            return
        self.learn_statistics(*rows)
        for _ in range(self.epochs):
            for chosen in torch.randperm(len(rows[0]), generator=self.generator).split(self.batch):
                self.optimizer.zero_grad()
                self.loss(*(part[chosen] for part in rows)).backward()
                self.optimizer.step()
        self.updates += 1

    def _parts(self) -> dict[str, Any]:
        parts = {"module": self.module, "normalizer": self.normalizer, "optimizer": self.optimizer}
        return {name: part for name, part in parts.items() if part is not None}

    def state_dict(self) -> dict[str, Any]:
        """Networks, statistics and optimizer."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `state_dict` gave."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])


class Distiller(Payer):
    """RND, step by step.

    Args:
        space: of one observation, a `Box`.
        num_envs: N.
        rnd: the networks; None: `make_rnd` for the space.
        gamma: of the bonus's normaliser.
        lr: Adam's.
        update_every: steps between two trainings of the predictor.
        epochs: passes over these steps.
        batch: observations of a training step.
        seed: of networks and shuffling.
    """

    def __init__(
        self,
        space: Any,
        num_envs: int,
        rnd: RND | None,
        gamma: float,
        lr: float,
        update_every: int,
        epochs: int,
        batch: int,
        seed: int,
    ):
        check_box(space, "RND")
        generator = torch.Generator().manual_seed(seed)
        if rnd is None:
            rnd = make_rnd(tuple(space.shape), k=64, hidden=128, update_fraction=1.0, generator=generator)
        self.rnd = rnd
        super().__init__(rnd, num_envs, gamma, lr, update_every, epochs, batch, generator)

    @property
    def waiting(self) -> list[Tensor]:
        """Observations that wait for the next training."""
        return [seen for (seen,) in self.kept]

    def learn_statistics(self, *rows: Tensor) -> None:
        """Of observations [B, *obs]."""
        if self.rnd.obs_norm is not None:
            (x,) = rows
            self.rnd.obs_norm.update((x if self.rnd.preprocess is None else self.rnd.preprocess(x)).float())

    def warm_up(self, steps: list[Transition]) -> None:
        """Statistics of observations, then of bonuses, from random steps."""
        seen = torch.stack([step.next_obs for step in steps])
        valid = torch.stack([step.valid for step in steps])
        self.learn_statistics(seen[valid])
        self.normalizer(self.rnd.bonus(seen), valid=valid)

    def bonus(self, step: Transition) -> Tensor:
        """[N]: error on the next observation."""
        return self.rnd.bonus(step.next_obs)

    def keep(self, step: Transition) -> tuple[Tensor, ...]:
        """The next observation."""
        return (step.next_obs,)

    def loss(self, *rows: Tensor) -> Tensor:
        """The predictor's."""
        return self.rnd.prediction_loss(*rows)

    def _parts(self) -> dict[str, Any]:
        parts = super()._parts()
        return {"rnd": parts.pop("module"), **parts}


def check_box(space: Any, who: str) -> None:
    """Raise a ValueError unless observations are of a `Box` space."""
    if not isinstance(space, gymnasium.spaces.Box):
        raise ValueError(
            f"{who} wraps Box observations (gymnasium.wrappers.FlattenObservation makes them): got {space}"
        )


def _mixed(extrinsic: Any, intrinsic: Any, mode: str, weight: float) -> Any:
    return weight * intrinsic if mode == "replace" else extrinsic + weight * intrinsic


def _check(mode: str, warmup: int) -> None:
    if mode not in ("replace", "add"):
        raise ValueError(f"mode is 'replace' or 'add': got {mode!r}")
    if warmup < 2:
        raise ValueError(f"the first statistics need at least 2 random steps: got warmup={warmup}")


def _action(action: Any, space: Any, rows: tuple[int, ...] = ()) -> Tensor:
    """Discrete actions count from 0, floats are float32; of composite spaces nothing is told."""
    kinds = gymnasium.spaces
    if not isinstance(space, kinds.Discrete | kinds.Box | kinds.MultiDiscrete | kinds.MultiBinary):
        return torch.zeros(*rows, 0)
    given = torch.as_tensor(np.asarray(action))
    if isinstance(space, gymnasium.spaces.Discrete):
        return given.long() - int(space.start)
    return given.float() if given.is_floating_point() else given


class BonusWrapper(gymnasium.Wrapper):
    """One environment whose reward is (or includes) what a `Payer` pays.

    `info` gains `extrinsic_reward` and `intrinsic_reward` (normalised, before `weight`). The first `reset` makes
    `warmup` random steps to gather statistics.

    Args:
        env: what to wrap.
        payer: made for one copy.
        mode: "replace" the reward, or "add" to it.
        weight: of the bonus.
        warmup: random steps before the first episode.
        seed: of random steps.
    """

    def __init__(
        self,
        env: Any,
        payer: Payer,
        *,
        mode: str = "add",
        weight: float = 1.0,
        warmup: int = 500,
        seed: int = 0,
    ):
        super().__init__(env)
        _check(mode, warmup)
        self.payer, self.mode, self.weight, self.warmup, self._seed = payer, mode, weight, warmup, seed
        self._warm = False
        self._obs = torch.zeros(0)

    def _transition(self, action: Any, obs: Any, ended: bool) -> Transition:
        """The step from the observation before to `obs`, which becomes the one before."""
        before, self._obs = self._obs, torch.as_tensor(np.array(obs))[None]
        told = _action(action, self.env.action_space)[None]
        one = torch.ones(1, dtype=torch.bool)
        return Transition(before, told, self._obs, one, one if ended else ~one)

    def _begin(self, obs: Any) -> None:
        self._obs = torch.as_tensor(np.array(obs))[None]

    def _warm_up(self) -> None:
        space = self.env.action_space
        space.seed(self._seed)
        self._begin(self.env.reset(seed=self._seed)[0])
        steps = []
        for _ in range(self.warmup):
            action = space.sample()
            obs, _, terminated, truncated, _ = self.env.step(action)
            ended = bool(terminated or truncated)
            steps.append(self._transition(action, obs, ended))
            if ended:
                self._begin(self.env.reset()[0])
        self.payer.warm_up(steps)
        self._warm = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """Begin an episode."""
        if not self._warm:
            self._warm_up()
        obs, info = self.env.reset(seed=seed, options=options)
        self._begin(obs)
        self.payer.begin()
        return obs, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, and pay the bonus."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        bonus = float(self.payer.pay(self._transition(action, obs, bool(terminated or truncated)))[0])
        info = {**info, "extrinsic_reward": float(reward), "intrinsic_reward": bonus}
        return obs, _mixed(float(reward), bonus, self.mode, self.weight), terminated, truncated, info


class BonusVectorWrapper(gymnasium.vector.VectorWrapper):
    """`BonusWrapper` for a vector environment, whatever its autoreset mode.

    The bonus is that of the TRUE next observation: of `info["final_obs"]` where the copy begins anew in the same
    step; and the step that only resets a copy (next-step autoreset) earns nothing and trains nothing.

    Args:
        env: what to wrap.
        payer: made for its number of copies.
        **options: see `BonusWrapper`; `warmup` counts steps of all copies together.
    """

    def __init__(
        self,
        env: Any,
        payer: Payer,
        *,
        mode: str = "add",
        weight: float = 1.0,
        warmup: int = 64,
        seed: int = 0,
    ):
        super().__init__(env)
        _check(mode, warmup)
        self.payer, self.mode, self.weight, self.warmup, self._seed = payer, mode, weight, warmup, seed
        mode_ = (env.metadata or {}).get("autoreset_mode")
        self._next_step = mode_ is None or "next" in str(getattr(mode_, "value", mode_)).lower()
        self._ended = torch.zeros(env.num_envs, dtype=torch.bool)
        self._obs = torch.zeros(0)
        self._warm = False

    def _true_next(self, obs: Any, info: dict[str, Any], ended: Tensor) -> tuple[Tensor, Tensor]:
        """(true successors [N, ...], which rows are transitions [N])."""
        seen = torch.as_tensor(np.array(obs))
        valid = ~self._ended if self._next_step else torch.ones_like(ended)
        if "final_obs" in info:
            for row in ended.nonzero().flatten().tolist():
                final = info["final_obs"][row]
                if final is not None:
                    seen[row] = torch.as_tensor(np.asarray(final))
        self._ended = ended
        return seen, valid

    def _inner_step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any], Transition]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        ended = torch.as_tensor(np.logical_or(terminated, truncated))
        seen, valid = self._true_next(obs, info, ended)
        told = _action(action, self.env.single_action_space, (self.env.num_envs,))
        transition = Transition(self._obs, told, seen, valid, ended)
        # The next step begins at what the environment shows now, in same-step mode that of a new episode.
        self._obs = torch.as_tensor(np.array(obs))
        return obs, reward, terminated, truncated, info, transition

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """Begin an episode in every copy."""
        if not self._warm:
            space = self.env.action_space
            space.seed(self._seed)
            self._obs = torch.as_tensor(np.array(self.env.reset(seed=self._seed)[0]))
            self.payer.warm_up([self._inner_step(space.sample())[5] for _ in range(self.warmup)])
            self._warm = True
        self._ended = torch.zeros_like(self._ended)
        obs, info = self.env.reset(seed=seed, options=options)
        self._obs = torch.as_tensor(np.array(obs))
        self.payer.begin()
        return obs, info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step every copy, and pay the bonus."""
        obs, reward, terminated, truncated, info, transition = self._inner_step(actions)
        bonus = self.payer.pay(transition)
        info = {**info, "extrinsic_reward": np.asarray(reward, np.float64), "intrinsic_reward": bonus}
        mixed = _mixed(np.asarray(reward, np.float64), bonus, self.mode, self.weight)
        return obs, mixed, terminated, truncated, info


class RNDWrapper(BonusWrapper):
    """One environment whose reward is (or includes) the novelty of where a step led.

    `info` gains `extrinsic_reward` and `intrinsic_reward` (normalised, before `weight`). The first `reset` makes
    `warmup` random steps to gather statistics.

    Args:
        env: what to wrap.
        rnd: networks of your own (with a `preprocess` for stacked or channel-last pictures); None: those of
            `make_rnd`.
        mode: "replace" the reward, or "add" to it.
        weight: of the bonus.
        warmup: random steps before the first episode.
        gamma: of the bonus's normaliser.
        lr, update_every, epochs, batch: of the predictor's training: Adam's rate, steps between trainings, passes,
            rows of a step.
        seed: of networks, shuffling and random steps.
    """

    def __init__(
        self,
        env: Any,
        rnd: RND | None = None,
        *,
        mode: str = "add",
        weight: float = 1.0,
        warmup: int = 500,
        gamma: float = 0.99,
        lr: float = 1e-4,
        update_every: int = 128,
        epochs: int = 4,
        batch: int = 64,
        seed: int = 0,
    ):
        self.distiller = Distiller(
            env.observation_space, 1, rnd, gamma, lr, update_every, epochs, batch, seed
        )
        super().__init__(env, self.distiller, mode=mode, weight=weight, warmup=warmup, seed=seed)


class RNDVectorWrapper(BonusVectorWrapper):
    """`RNDWrapper` for a vector environment, whatever its autoreset mode (see `BonusVectorWrapper`).

    Args:
        env: what to wrap.
        **options: see `RNDWrapper`; `warmup` counts steps of all copies together.
    """

    def __init__(
        self,
        env: Any,
        rnd: RND | None = None,
        *,
        mode: str = "add",
        weight: float = 1.0,
        warmup: int = 64,
        gamma: float = 0.99,
        lr: float = 1e-4,
        update_every: int = 128,
        epochs: int = 4,
        batch: int = 64,
        seed: int = 0,
    ):
        self.distiller = Distiller(
            env.single_observation_space, env.num_envs, rnd, gamma, lr, update_every, epochs, batch, seed
        )
        super().__init__(env, self.distiller, mode=mode, weight=weight, warmup=warmup, seed=seed)
