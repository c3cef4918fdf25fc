r"""Episodic curiosity around anybody's Gymnasium environment, for learners that know nothing of it.

    import gymnasium
    from assay.rl.intrinsic.episodic_wrapper import EpisodicCuriosityVectorWrapper, EpisodicCuriosityWrapper

    env = EpisodicCuriosityWrapper(gymnasium.make("MountainCar-v0"), scale=0.03)
    obs, info = env.reset(seed=0)  # random steps first: they teach the network what is near
    obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
    info["extrinsic_reward"], info["intrinsic_reward"]

    envs = EpisodicCuriosityVectorWrapper(gymnasium.make_vec("CartPole-v1", num_envs=8))

The reward of a step becomes $r + \alpha(\beta - F)$, F being how close its true successor is to what the copy remembers
of this episode (Savinov et al., 2019, arXiv 1810.02274, section 2; `assay.rl.intrinsic.episodic`). The reachability
network first learns from random steps (the paper's EC), and then, every `interval` steps, from what the learner itself
came to see (its ECO, appendix S4).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from assay.rl.intrinsic.episodic import EpisodicCuriosity, OnlineRTrainer, RNetwork
from assay.rl.intrinsic.wrapper import BonusVectorWrapper, BonusWrapper, Payer, Transition, check_box
from assay.rl.nets import mlp
from assay.rl.normalize import RunningMeanStd


class _Whiten(nn.Module):
    """Observations [B, *obs] of any type to whitened rows [B, n]."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.norm = RunningMeanStd(shape)

    def forward(self, obs: Tensor) -> Tensor:
        return self.norm.normalize(obs.float(), clip=5.0).flatten(1)


class Reachability(Payer):
    """Episodic curiosity, step by step, with the lessons of its network.

    Args:
        space: of one observation, a `Box`.
        num_envs: N.
        rnet: a network of one's own, which sees observations as they are; None: one for flattened and whitened
            observations (64 hidden units, 32 features).
        offset: beta.
        capacity: M, entries of a copy's memory.
        k, gap_multiplier: at most k steps apart is near, more than k * gap_multiplier is far.
        lessons: gradient steps of a training.
        online: go on training on the learner's experience.
        interval, history: steps, over all copies, between two trainings, and kept for them.
        lr, batch: Adam's rate and pairs of a gradient step.
        seed: of networks, pairs and memory.
    """

    def __init__(
        self,
        space: Any,
        num_envs: int,
        rnet: RNetwork | None,
        offset: float,
        capacity: int,
        k: int,
        gap_multiplier: int,
        lessons: int,
        online: bool,
        interval: int,
        history: int,
        lr: float,
        batch: int,
        seed: int,
    ):
        check_box(space, "Episodic curiosity")
        if k < 1 or gap_multiplier < 2:
            raise ValueError(f"k is at least 1 and gap_multiplier at least 2: got {k} and {gap_multiplier}")
        if min(lessons, interval, history) < 1:
            raise ValueError(
                f"lessons, interval and history are at least 1: got {(lessons, interval, history)}"
            )
        generator = torch.Generator().manual_seed(seed)
        self._whiten: _Whiten | None = None
        if rnet is None:
            shape = tuple(space.shape)
            self._whiten = _Whiten(shape)
            inputs = int(np.prod(shape))
            encoder = nn.Sequential(self._whiten, mlp((inputs, 64, 32), "relu", 1.0, generator))
            rnet = RNetwork(encoder, 32, generator=generator)
        self.trainer = OnlineRTrainer(
            rnet, history, interval, lessons, k, gap_multiplier, batch, lr, generator
        )
        self.curiosity = EpisodicCuriosity(
            rnet, num_envs, capacity, alpha=1.0, beta=offset, generator=generator
        )
        # The bonus is bounded, offset - 1 .. offset, and its sign has a meaning: it is not normalised. Its network is
        # the trainer's to teach, so `Payer` finds no parameters to optimise.
        super().__init__(self.curiosity, num_envs, 0.99, lr, interval, 1, batch, generator)
        self.lessons, self.online = lessons, online
        self._steps = -(-interval // num_envs)
        self._new = torch.ones(num_envs, dtype=torch.bool)
        self._pending: list[tuple[Tensor, Tensor]] = []

    @property
    def ready(self) -> bool:
        """Whether the network was ever trained; before that nothing is paid."""
        return self.trainer.ready

    def _first(self, step: Transition) -> Tensor:
        """[N]: the step begins an episode."""
        first = self._new & step.valid
        # After an end a step is the next episode's, unless it only resets (next-step mode): then the one after it is.
        self._new = step.ended | ~step.valid
        return first

    def _whiten_by(self, obs: Tensor) -> None:
        if self._whiten is not None:
            self._whiten.norm.update(obs.flatten(0, 1).float())

    def warm_up(self, steps: list[Transition]) -> None:
        """The first lesson, from random steps."""
        obs = torch.stack([step.obs for step in steps])
        first = torch.stack([self._first(step) for step in steps])
        self._whiten_by(obs)
        trainer = self.trainer
        trainer.ready = trainer.rnet.fit_episodes(
            obs,
            first,
            trainer.k,
            trainer.gap_multiplier,
            self.lessons,
            trainer.batch,
            trainer.optimizer,
            trainer.generator,
        )
        self.updates += trainer.ready

    def begin(self) -> None:
        """Every copy forgets."""
        self._new = torch.ones_like(self._new)
        self.curiosity.reset_where(self._new)

    def bonus(self, step: Transition) -> Tensor:
        """[N]: offset - F; 0 where the episode ended, or a step only began one."""
        over = step.ended | ~step.valid
        if not self.ready:
            return torch.zeros(len(over))
        return self.curiosity.step(step.next_obs, over)

    def pay(self, step: Transition) -> np.ndarray:
        """Bonuses [N] of a step; trains when due."""
        paid = self.bonus(step)
        if self.online:
            self._pending.append((step.obs, self._first(step)))
            if len(self._pending) == self._steps:
                self._lesson()
        return paid.double().numpy()

    def _lesson(self) -> None:
        obs, first = (torch.stack(part) for part in zip(*self._pending, strict=True))
        self._pending = []
        self._whiten_by(obs)
        self.updates += self.trainer.add(obs, first)
        # What is remembered was embedded by the network (and whitened by the statistics) as they were.
        self.curiosity.reset_where(torch.ones_like(self._new))

    def state_dict(self) -> dict[str, Any]:
        """Network, statistics and optimizer; not the memories of the running episodes."""
        trainer = self.trainer
        return {
            "rnet": trainer.rnet.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "ready": trainer.ready,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `state_dict` gave; memories are emptied."""
        self.trainer.rnet.load_state_dict(state["rnet"])
        self.trainer.optimizer.load_state_dict(state["optimizer"])
        self.trainer.ready = state["ready"]
        self.curiosity.reset_where(torch.ones_like(self._new))


class EpisodicCuriosityWrapper(BonusWrapper):
    """One environment whose reward includes (or is) how far a step led from everything seen in this episode.

    `info` gains `extrinsic_reward` (the raw one) and `intrinsic_reward` (before `scale`, between offset - 1 and
    offset). The first `reset` makes `warmup` random steps and trains the network on them. The memory is emptied when an
    episode ends, by `reset`, and after every training.

    Args:
        env: what to wrap; its observations are of a `Box` space.
        rnet: a reachability network of your own (for pictures, say), which sees observations as they are; None: one
            for flattened and whitened observations.
        mode: "add" to the reward, or "replace" it.
        scale: alpha.
        offset: beta: 0.5 for episodes of fixed length; 1 where the agent can end one, for then a negative bonus
            would teach it to.
        warmup: random steps before the first episode.
        capacity: entries of the memory.
        k: what is at most so many steps apart counts as near.
        gap_multiplier: what is more than k times this apart counts as far. Only episodes longer than
            k * gap_multiplier + 1 teach anything, and nothing is paid before the first lesson.
        lessons: gradient steps of a training.
        online: go on training on the learner's experience (False: random steps alone).
        interval: steps between two trainings.
        history: steps of the learner kept for them.
        lr, batch: Adam's rate and pairs of a gradient step.
        seed: of networks, pairs, memory and random steps.
    """

    def __init__(
        self,
        env: Any,
        rnet: RNetwork | None = None,
        *,
        mode: str = "add",
        scale: float = 0.03,
        offset: float = 0.5,
        warmup: int = 2000,
        capacity: int = 200,
        k: int = 2,
        gap_multiplier: int = 5,
        lessons: int = 500,
        online: bool = True,
        interval: int = 10_000,
        history: int = 10_000,
        lr: float = 1e-3,
        batch: int = 256,
        seed: int = 0,
    ):
        self.reachability = Reachability(
            env.observation_space,
            1,
            rnet,
            offset,
            capacity,
            k,
            gap_multiplier,
            lessons,
            online,
            interval,
            history,
            lr,
            batch,
            seed,
        )
        super().__init__(env, self.reachability, mode=mode, weight=scale, warmup=warmup, seed=seed)


class EpisodicCuriosityVectorWrapper(BonusVectorWrapper):
    """`EpisodicCuriosityWrapper` for a vector environment: one memory a copy, one network for all.

    Both of Gymnasium's autoreset modes are understood: the bonus is that of the true successor, and the step that only
    resets a copy earns nothing and is not remembered.

    Args:
        env: what to wrap.
        **options: see `EpisodicCuriosityWrapper`; `warmup` counts steps that all copies make together;
            `interval` and `history` count a step of eight copies as eight.
    """

    def __init__(
        self,
        env: Any,
        rnet: RNetwork | None = None,
        *,
        mode: str = "add",
        scale: float = 0.03,
        offset: float = 0.5,
        warmup: int = 256,
        capacity: int = 200,
        k: int = 2,
        gap_multiplier: int = 5,
        lessons: int = 500,
        online: bool = True,
        interval: int = 10_000,
        history: int = 10_000,
        lr: float = 1e-3,
        batch: int = 256,
        seed: int = 0,
    ):
        told = (env.metadata or {}).get("autoreset_mode")
        if "disabled" in str(getattr(told, "value", told)).lower():
            raise ValueError(
                "episodic memories follow autoreset: make the vector environment with NEXT_STEP or SAME_STEP"
            )
        self.reachability = Reachability(
            env.single_observation_space,
            env.num_envs,
            rnet,
            offset,
            capacity,
            k,
            gap_multiplier,
            lessons,
            online,
            interval,
            history,
            lr,
            batch,
            seed,
        )
        super().__init__(env, self.reachability, mode=mode, weight=scale, warmup=warmup, seed=seed)
