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

from typing import Any

import numpy as np
import torch
from torch import Tensor

from assay._extras import require
from assay.rl.intrinsic.rnd import RND, make_rnd
from assay.rl.normalize import ReturnNormalizer

gymnasium = require("gymnasium", "rl")


class Distiller:
    """RND with its optimizer, normaliser and memory, fed step by step: what both wrappers hold.

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
        if not isinstance(space, gymnasium.spaces.Box):
            raise ValueError(
                f"RND wraps Box observations (gymnasium.wrappers.FlattenObservation makes them): got {space}"
            )
        if min(update_every, epochs, batch) < 1:
            raise ValueError(
                f"update_every, epochs and batch are at least 1: {(update_every, epochs, batch)}"
            )
        self.generator = torch.Generator().manual_seed(seed)
        if rnd is None:
            rnd = make_rnd(
                tuple(space.shape), k=64, hidden=128, update_fraction=1.0, generator=self.generator
            )
        self.rnd, self.normalizer = rnd, ReturnNormalizer(gamma, num_envs)
        self.optimizer = torch.optim.Adam(rnd.parameters(), lr)
        self.update_every, self.epochs, self.batch = update_every, epochs, batch
        self.waiting: list[Tensor] = []
        self.waited = 0
        self.updates = 0
        """Trainings so far."""

    def _learn_statistics(self, x: Tensor) -> None:
        if self.rnd.obs_norm is not None:
            self.rnd.obs_norm.update((x if self.rnd.preprocess is None else self.rnd.preprocess(x)).float())

    def warm_up(self, steps: list[tuple[Tensor, Tensor]]) -> None:
        """Statistics of observations, then of bonuses, from random steps [(observations [N, ...], valid [N])]."""
        seen, valid = (torch.stack(part) for part in zip(*steps, strict=True))
        self._learn_statistics(seen[valid])
        self.normalizer(self.rnd.bonus(seen), valid=valid)

    def pay(self, next_obs: Tensor, valid: Tensor) -> np.ndarray:
        """Normalised bonuses [N] of the true next observations; trains every so often."""
        raw = self.rnd.bonus(next_obs).masked_fill(~valid, 0.0)
        paid = self.normalizer(raw[None], valid=valid[None])[0]
        self.waiting.append(next_obs[valid])
        self.waited += 1
        if self.waited == self.update_every:
            self._train(torch.cat(self.waiting))
            self.waiting, self.waited = [], 0
        return paid.double().numpy()

    def _train(self, x: Tensor) -> None:
        if not len(x):
            return
        self._learn_statistics(x)
        for _ in range(self.epochs):
            for rows in torch.randperm(len(x), generator=self.generator).split(self.batch):
                self.optimizer.zero_grad()
                self.rnd.prediction_loss(x[rows]).backward()
                self.optimizer.step()
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """Networks, statistics and optimizer."""
        parts = {"rnd": self.rnd, "normalizer": self.normalizer, "optimizer": self.optimizer}
        return {name: part.state_dict() for name, part in parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `state_dict` gave."""
        for name in ("rnd", "normalizer", "optimizer"):
            getattr(self, name).load_state_dict(state[name])


def _mixed(extrinsic: Any, intrinsic: Any, mode: str, weight: float) -> Any:
    return weight * intrinsic if mode == "replace" else extrinsic + weight * intrinsic


def _check(mode: str, warmup: int) -> None:
    if mode not in ("replace", "add"):
        raise ValueError(f"mode is 'replace' or 'add': got {mode!r}")
    if warmup < 2:
        raise ValueError(f"the first statistics need at least 2 random steps: got warmup={warmup}")


class RNDWrapper(gymnasium.Wrapper):
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
        super().__init__(env)
        _check(mode, warmup)
        self.mode, self.weight, self.warmup, self._seed = mode, weight, warmup, seed
        self.distiller = Distiller(
            env.observation_space, 1, rnd, gamma, lr, update_every, epochs, batch, seed
        )
        self._warm = False

    def _warm_up(self) -> None:
        space = self.env.action_space
        space.seed(self._seed)
        self.env.reset(seed=self._seed)
        steps, one = [], torch.ones(1, dtype=torch.bool)
        for _ in range(self.warmup):
            obs, _, terminated, truncated, _ = self.env.step(space.sample())
            steps.append((torch.as_tensor(np.asarray(obs))[None], one))
            if terminated or truncated:
                self.env.reset()
        self.distiller.warm_up(steps)
        self._warm = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """Begin an episode."""
        if not self._warm:
            self._warm_up()
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, and pay for novelty."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        seen = torch.as_tensor(np.asarray(obs))[None]
        bonus = float(self.distiller.pay(seen, torch.ones(1, dtype=torch.bool))[0])
        info = {**info, "extrinsic_reward": float(reward), "intrinsic_reward": bonus}
        return obs, _mixed(float(reward), bonus, self.mode, self.weight), terminated, truncated, info


class RNDVectorWrapper(gymnasium.vector.VectorWrapper):
    """`RNDWrapper` for a vector environment, whatever its autoreset mode.

    The bonus is that of the TRUE next observation: of `info["final_obs"]` where the copy begins anew in the same
    step; and the step that only resets a copy (next-step autoreset) earns nothing and trains nothing.

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
        super().__init__(env)
        _check(mode, warmup)
        self.mode, self.weight, self.warmup, self._seed = mode, weight, warmup, seed
        self.distiller = Distiller(
            env.single_observation_space, env.num_envs, rnd, gamma, lr, update_every, epochs, batch, seed
        )
        mode_ = (env.metadata or {}).get("autoreset_mode")
        self._next_step = mode_ is None or "next" in str(getattr(mode_, "value", mode_)).lower()
        self._ended = torch.zeros(env.num_envs, dtype=torch.bool)
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

    def _inner_step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any], Tensor, Tensor]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        ended = torch.as_tensor(np.logical_or(terminated, truncated))
        return obs, reward, terminated, truncated, info, *self._true_next(obs, info, ended)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """Begin an episode in every copy."""
        if not self._warm:
            space = self.env.action_space
            space.seed(self._seed)
            self.env.reset(seed=self._seed)
            self.distiller.warm_up([self._inner_step(space.sample())[5:] for _ in range(self.warmup)])
            self._warm = True
        self._ended = torch.zeros_like(self._ended)
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step every copy, and pay for novelty."""
        obs, reward, terminated, truncated, info, seen, valid = self._inner_step(actions)
        bonus = self.distiller.pay(seen, valid)
        info = {**info, "extrinsic_reward": np.asarray(reward, np.float64), "intrinsic_reward": bonus}
        mixed = _mixed(np.asarray(reward, np.float64), bonus, self.mode, self.weight)
        return obs, mixed, terminated, truncated, info
