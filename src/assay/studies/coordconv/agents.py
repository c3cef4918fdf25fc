"""Reinforcement learning: does an agent that walks to a goal, or plays Atari, gain from a CoordConv first layer?"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from assay.envs import GotoGrid, TensorEnv, real
from assay.lab import Trial
from assay.nn.coords import CoordInit, coordconvert
from assay.rl.evaluate import auc, evaluate
from assay.rl.impala import RMSPropTF
from assay.rl.nets import CategoricalHead, NatureConv, Torso, ValueHead, orthogonal
from assay.rl.policies import ActorCritic
from assay.rl.ppo import A2C
from assay.rl.schedules import Linear
from assay.rl.train import train
from assay.studies.coordconv.common import build, checkpoints, parameters
from assay.studies.coordconv.harmless import coordinate_share


@dataclass(frozen=True)
class AgentConfig:
    world: str = "goto"
    """Or a game of ale-py, such as "ALE/MsPacman-v5" (with network "nature")."""
    size: int = 8
    """Cells of the board a side."""
    limit: int = 32
    """Steps of an episode on the board."""
    network: Literal["pooled", "nature"] = "pooled"
    """Strided convolutions and one global pooling; or the Atari network, which ends in a dense layer."""
    widths: tuple[int, ...] = (16, 32, 32)
    strides: tuple[int, ...] = (2, 2, 1)
    pool: Literal["mean", "max"] = "mean"
    copies: int = 64
    unroll: int = 16
    updates: int = 400
    optimizer: Literal["adam", "rmsprop"] = "adam"
    coord_rate: float = 1e-2
    conv_rate: float = 1e-2
    gamma: float = 0.97
    lam: float = 0.95
    ent_coef: float = 0.01
    vf_coef: float = 0.5
    adv_norm: str | None = "batch"
    """Advantages of a batch scaled to standard deviation 1; None: as they are."""
    max_grad_norm: float = 0.5
    episodes: int = 512
    """Of an examination, all at once."""
    evaluations: int = 10


def check(config: AgentConfig) -> None:
    """Raises ValueError where world and network are unknown or do not fit."""
    if config.world != "goto" and not config.world.startswith("ALE/"):
        raise ValueError(
            f"agents.world={config.world!r} is neither 'goto' nor a game of ale-py such as 'ALE/MsPacman-v5'"
        )
    wanted = "pooled" if config.world == "goto" else "nature"
    if config.network != wanted:
        raise ValueError(
            f"agents.world={config.world!r} wants agents.network={wanted!r}: got {config.network!r}"
        )


class PooledConv(Torso):
    """Strided 3x3 convolutions with ReLU, then one number a channel: no layer has weights of its own for a place.

    Args:
        channels: of the observation.
        widths: channels of the convolutions.
        strides: of each.
        pool: what becomes of a channel's map, its mean or its maximum.

    >>> PooledConv(2, (16, 32), (2, 2))(torch.rand(7, 2, 12, 12)).shape
    torch.Size([7, 32])
    """

    obs_ndim = 3

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        strides: tuple[int, ...],
        pool: Literal["mean", "max"] = "mean",
    ):
        super().__init__()
        if len(widths) != len(strides) or not widths:
            raise ValueError(f"give every convolution a width and a stride: got {widths} and {strides}")
        layers: list[nn.Module] = []
        for (before, after), stride in zip(pairwise((channels, *widths)), strides, strict=True):
            layers += [orthogonal(nn.Conv2d(before, after, 3, stride, padding=1)), nn.ReLU()]
        layers.append(nn.AdaptiveAvgPool2d(1) if pool == "mean" else nn.AdaptiveMaxPool2d(1))
        self.net = nn.Sequential(*layers, nn.Flatten())
        self.features = widths[-1]

    def encode(self, obs: Tensor) -> Tensor:
        """[B, C, H, W] to [B, features]."""
        return self.net(obs)


def make_world(
    config: AgentConfig, copies: int, generator: torch.Generator, device: torch.device, exam: bool = False
) -> TensorEnv:
    """The board, or an Atari game as A2C saw it: rewards clipped and a lost life an end, except in an `exam`."""
    if config.world == "goto":
        return GotoGrid(
            copies, config.size, max_steps=config.limit, generator=generator, device=device, validate=False
        )
    check(config)
    return real.atari(
        config.world,
        copies,
        sticky=0.0,
        noop_max=30,
        max_frames=108_000,
        clip=not exam,
        life_loss_ends=not exam,
        mode="native",
        generator=generator,
        device=device,
    )


def coordinates_of(arm: str) -> CoordInit | None:
    """How the coordinate weights of an arm's first layer begin; None: it has none."""
    name = arm.rpartition("/")[2]
    begins: dict[str, CoordInit | None] = {"conv": None, "coordconv": "default", "coordconv-zero": "zero"}
    if name not in begins:
        raise ValueError(f"no agent {arm!r}: choose from {', '.join(begins)}")
    return begins[name]


def make_agent(env: TensorEnv, coords: CoordInit | None, config: AgentConfig) -> ActorCritic:
    """Policy and value on one torso; unless `coords` is None, its first convolution sees where it is.

    All other weights are those that the agent without coordinates draws from the same state of torch's generator.
    """
    channels = env.obs_shape[0]
    torso: Torso
    if config.network == "nature":
        torso = NatureConv(channels, env.obs_shape[1])
    else:
        torso = PooledConv(channels, config.widths, config.strides, config.pool)
    assert env.num_actions is not None
    model = ActorCritic(torso, CategoricalHead(torso.features, env.num_actions), ValueHead(torso.features))
    # Last, so that drawing the coordinate weights does not shift what the other layers draw.
    if coords is not None:
        coordconvert(model.torso, "first", coord_init=coords)
    return model


def make_learner(model: ActorCritic, rate: float, config: AgentConfig) -> A2C:
    """Advantage actor-critic whose rate falls linearly to zero."""
    optimizer: torch.optim.Optimizer
    if config.optimizer == "rmsprop":
        optimizer = RMSPropTF(model.parameters(), rate, alpha=0.99, eps=1e-5)
    else:
        optimizer = torch.optim.Adam(model.parameters(), rate)
    return A2C(
        model,
        optimizer,
        gamma=config.gamma,
        lam=config.lam,
        ent_coef=config.ent_coef,
        vf_coef=config.vf_coef,
        adv_norm=config.adv_norm,
        max_grad_norm=config.max_grad_norm,
        learning_rate=Linear(rate, 0.0, config.updates * config.unroll * config.copies),
    )


def examine(
    model: ActorCritic, config: AgentConfig, generator: torch.Generator, device: torch.device
) -> dict[str, float]:
    """Mean return of whole episodes; on the board also `success` and `efficiency`.

    Efficiency is success weighted by path length (Anderson et al. 2018, arXiv 1807.06757): the shortest path over
    the steps taken, 0 where the goal was not reached; 1 for a perfect agent.
    """
    seed = generator.initial_seed()

    def world() -> TensorEnv:
        twin = torch.Generator(generator.device).manual_seed(seed)
        return make_world(config, config.episodes, twin, device, exam=True)

    played = evaluate(model, world(), config.episodes, generator=generator)
    found = {"return": played.returns.mean().item()}
    if config.world == "goto":
        begin = world()
        begin.reset()
        assert isinstance(begin, GotoGrid)
        share = begin.distance()[played.copy] / played.lengths
        found["success"] = played.terminated.float().mean().item()
        found["efficiency"] = (share * played.terminated).mean().item()
    return found


def trial(run: Trial, arm: str, config: AgentConfig) -> dict[str, float]:
    """One agent, without coordinates (`rl/conv`) or with (`rl/coordconv`; `rl/coordconv-zero` begins as `rl/conv`).

    `area` is the mean height of the curve of efficiency (in games: of the return), which rewards learning early.
    """
    coords = coordinates_of(arm)
    env = make_world(config, config.copies, run.generator("world"), run.device)
    model = build(run, lambda: make_agent(env, coords, config))
    learner = make_learner(model, config.conv_rate if coords is None else config.coord_rate, config)
    look = checkpoints(config.updates, config.evaluations)
    updates = train(env, model, learner, config.updates, config.unroll, generator=run.generator("actions"))
    scores: list[dict[str, float]] = []
    for _, update in zip(run.steps(config.updates), updates, strict=True):
        if update.index in look:
            # Always the same episodes: a curve compares the agent with itself.
            scores.append(examine(model, config, run.generator("exam"), run.device))
            run.log(update.env_steps, entropy=update.metrics["entropy"], **scores[-1])
    headline = torch.tensor([score.get("efficiency", score["return"]) for score in scores])
    return {
        **scores[-1],
        "area": auc(headline).item(),
        "coordinate_share": coordinate_share(model),
        "parameters": parameters(model),
    }
