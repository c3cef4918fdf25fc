"""Paper profile: `real/*` in ViZDoom's My Way Home (or a MiniGrid level), pictures in, ResNet-size networks."""

from dataclasses import dataclass

import torch
from torch import nn

from assay._extras import require
from assay.envs import StickyActions, TensorEnv
from assay.envs import real as worlds
from assay.lab import Trial
from assay.rl.intrinsic import ICM, ActionCode, IntrinsicMixer, IntrinsicReward
from assay.rl.intrinsic.episodic import EpisodicCuriosity, RNetwork
from assay.rl.nets import CategoricalHead, NatureConv, SmallGridConv, Torso, ValueHead
from assay.rl.normalize import ReturnNormalizer
from assay.rl.policies import ActorCritic
from assay.rl.ppo import PPO
from assay.rl.rollout import random_rollout
from assay.rl.train import train


@dataclass(frozen=True)
class RealConfig:
    """The paper's sizes, 84x84 grey pictures in place of 160x120 in colour."""

    enabled: bool = False
    world: str = "VizdoomMyWayHome-v1"  # or a MiniGrid id, MiniGrid-MultiRoom-N6-v0
    spawn: str = "very_sparse"
    copies: int = 12
    mode: str = "async"
    steps: int = 256
    updates: int = 6_510  # 20 million steps
    features: int = 512
    rate: float = 2.5e-4
    entropy: float = 0.0020535
    memory: int = 200
    alpha: float = 0.03
    beta: float = 0.5
    k: int = 5
    gap: int = 5
    walks: int = 2_500_000  # steps of random data
    fits: int = 200_000
    batch: int = 64
    icm_weight: float = 0.01


def check(config: RealConfig) -> None:
    """The simulator is installed."""
    require(extra_of(config), extra_of(config))


def extra_of(config: RealConfig) -> str:
    """Which extra brings the world."""
    return "vizdoom" if "Vizdoom" in config.world else "minigrid"


def make(config: RealConfig, copies: int) -> TensorEnv:
    """The world."""
    if extra_of(config) == "vizdoom":
        return worlds.vizdoom(config.world, copies, spawn=config.spawn, mode=config.mode)  # type: ignore[arg-type]
    return worlds.minigrid(config.world, copies, mode=config.mode)  # type: ignore[arg-type]


def torso(env: TensorEnv, features: int) -> Torso:
    """For pictures of this size."""
    channels, height, width = env.obs_shape
    if min(height, width) >= 36:
        return NatureConv(channels, height, features)
    return SmallGridConv((channels, height, width), features)


def reachability(config: RealConfig, generator: torch.Generator) -> RNetwork:
    """Trained on random walks, episode by episode."""
    env = StickyActions(make(config, config.copies), 0.5)
    rollout = random_rollout(env, max(config.walks // config.copies, 2), generator)
    encoder = torso(env, config.features)
    net = RNetwork(nn.Sequential(encoder), config.features, (512, 512, 512, 512))
    obs = rollout.obs
    assert isinstance(obs, torch.Tensor)
    if not net.fit_episodes(
        obs[:-1], rollout.first[:-1], config.k, config.gap, config.fits, config.batch, generator=generator
    ):
        raise ValueError(
            f"no random episode was longer than {config.k * config.gap + 1} steps: make k smaller"
        )
    env.close()
    return net.requires_grad_(False)


def explore(run: Trial, kind: str, config: RealConfig) -> dict[str, float]:
    """One policy."""
    env = make(config, config.copies)
    env.seed(run.generator("world", device="cpu").initial_seed() % 2**31)
    module: IntrinsicReward | None = None
    if kind == "ec":
        net = reachability(config, run.generator("walks", device="cpu"))
        module = EpisodicCuriosity(
            net, config.copies, config.memory, config.alpha, config.beta, generator=run.generator("memory")
        )
    elif kind == "icm":
        networks = run.generator("bonus", device="cpu")
        module = ICM(env.obs_shape, ActionCode.of(env), generator=networks)
        module.init_stats(env, config.steps, run.generator("walks", device="cpu"))
    mixer = None
    if module is not None:
        mixer = IntrinsicMixer([module], normalizers=[ReturnNormalizer(0.99, config.copies)])
    streams = 1 if mixer is None else 2
    assert env.num_actions is not None
    model = ActorCritic(
        torso(env, config.features),
        CategoricalHead(config.features, env.num_actions),
        ValueHead(config.features, streams),
    )
    trained = [*model.parameters(), *(mixer.parameters() if mixer else ())]
    ppo = PPO(
        model,
        torch.optim.Adam(trained, config.rate, eps=1e-5),
        ent_coef=config.entropy,
        aux_losses=[mixer.loss] if mixer else (),
    )
    won, ended = 0.0, 0.0
    keep_from = config.updates - max(1, config.updates // 5)
    turns = train(
        env, model, ppo, config.updates, config.steps, mixer, run.generator("actions", device="cpu")
    )
    for _, update in zip(run.steps(config.updates), turns, strict=False):
        got, over = float(update.rollout.reward[..., 0].sum()), float(update.rollout.ended.sum())
        run.log(update.env_steps, score=got / max(over, 1.0))
        if update.index >= keep_from:
            won, ended = won + got, ended + over
    env.close()
    return {"return": won / max(ended, 1.0)}
