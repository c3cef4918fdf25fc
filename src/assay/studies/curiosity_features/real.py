"""Paper profile: Atari, Doom's maze with a television, two-player Pong, and Mario where it can be had."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from assay._extras import MissingExtra, missing, pip_command, require
from assay.envs import EpisodeStats, NoDone, NoisyTV, SelfPlay, TensorEnv, from_gymnasium, from_pettingzoo
from assay.envs import real as simulators
from assay.lab import Trial
from assay.rl.intrinsic import ActionCode, ForwardDynamics, IntrinsicMixer, VAEFeatures, make_features
from assay.rl.intrinsic.unet import ActionUNet
from assay.rl.nets import CategoricalHead, NatureConv, ValueHead
from assay.rl.normalize import ReturnNormalizer
from assay.rl.policies import ActorCritic
from assay.rl.ppo import PPO
from assay.rl.rollout import RandomPolicy, Rollout, collect, start
from assay.rl.train import Update, train

QUICK = (
    "BeamRider",
    "Breakout",
    "MontezumaRevenge",
    "Pong",
    "Qbert",
    "Riverraid",
    "Seaquest",
    "SpaceInvaders",
)
"""The eight games of Figure 2."""
ATARI = (
    *("Alien", "Amidar", "Assault", "Asterix", "Asteroids", "Atlantis", "BankHeist", "BattleZone"),
    *("BeamRider", "Berzerk", "Bowling", "Boxing", "Breakout", "Centipede", "ChopperCommand", "CrazyClimber"),
    *("DemonAttack", "Enduro", "FishingDerby", "Freeway", "Frostbite", "Gopher", "Gravitar", "Hero"),
    *("IceHockey", "Jamesbond", "Kangaroo", "Krull", "KungFuMaster", "MontezumaRevenge", "MsPacman", "NameThisGame"),
    *("Pong", "PrivateEye", "Qbert", "Riverraid", "RoadRunner", "Robotank", "Seaquest", "SpaceInvaders"),
    *("StarGunner", "TimePilot", "Tutankham", "UpNDown", "Venture", "VideoPinball", "WizardOfWor", "Zaxxon"),
)  # fmt: skip
"""48 games of the arcade learning environment."""
KINDS = {"pixels": "pixels", "rf": "random", "idf": "inverse", "vae": "vae"}


@dataclass(frozen=True)
class RealConfig:
    """The settings of the paper's released code."""

    enabled: bool = False
    mario: bool = False
    """Super Mario Bros. is among the worlds: it needs a package that does not install beside current ones."""
    copies: int = 128
    steps: int = 128
    updates: int = 1_526
    """Of 128 x 128 decisions of four frames: 1e8 frames."""
    vector: str = "async"
    features: int = 512
    hidden: int = 512
    blocks: int = 4
    width: int = 32
    """Channels of the U-Net's first convolution (pixels)."""
    warmup: int = 10_000
    """Random steps for the statistics of observations."""
    rate: float = 1e-4
    clip: float = 0.1
    epochs: int = 3
    minibatches: int = 8
    entropy: float = 0.001
    gamma: float = 0.99
    lam: float = 0.95
    patch: int = 28
    """Side of the television in Doom's maze."""
    checkpoint_every: int = 500


def check(config: RealConfig) -> None:
    """Raise one clear error where the games' simulator is missing (the other worlds ask for theirs when made)."""
    if absent := missing("atari"):
        raise MissingExtra(f"the games need {', '.join(absent)}: {pip_command('atari')}")
    if config.mario:
        mario_is_there()


def mario_is_there() -> None:
    """Raise where Super Mario Bros. cannot be had."""
    if find_spec("gym_super_mario_bros") is None:
        raise MissingExtra(
            "Super Mario Bros. needs gym-super-mario-bros, which rests on the old package gym and its own emulator: "
            "install it in an environment that can hold both (pip install gym-super-mario-bros), or leave "
            "real.mario=False and the arms real/mario-* out"
        )


def _mario(level: str) -> Any:
    """One level as a Gymnasium environment: the released wrapper's actions, 84 x 84 grey, four frames."""
    gymnasium = require("gymnasium", "rl")
    gsmb = require("gym_super_mario_bros", "rl")
    actions = require("gym_super_mario_bros.actions", "rl")
    joypad = require("nes_py.wrappers", "rl")
    import numpy as np

    cv2 = require("cv2", "atari")

    class Mario(gymnasium.Env):
        """The old five-value interface behind the new one."""

        def __init__(self) -> None:
            self.game = joypad.JoypadSpace(gsmb.make(f"SuperMarioBros-{level}-v1"), actions.SIMPLE_MOVEMENT)
            self.observation_space = gymnasium.spaces.Box(0, 255, (84, 84), np.uint8)
            self.action_space = gymnasium.spaces.Discrete(len(actions.SIMPLE_MOVEMENT))

        def _see(self, picture: Any) -> Any:
            grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
            return cv2.resize(grey, (84, 84), interpolation=cv2.INTER_AREA)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            out = self.game.reset()
            return self._see(out[0] if isinstance(out, tuple) else out), {}

        def step(self, action: Any) -> Any:
            total, done, truncated, picture = 0.0, False, False, None
            for _ in range(4):
                picture, reward, done, *rest = self.game.step(int(action))
                truncated = bool(rest[0]) if len(rest) > 1 else False
                total += float(reward)
                if done or truncated:
                    break
            return self._see(picture), total, bool(done), truncated, {}

    return gymnasium.wrappers.FrameStackObservation(Mario(), 4)


def _pong() -> Any:
    """PettingZoo's two-player Pong in 84 x 84 grey pictures, the newest first-player view for both."""
    require("multi_agent_ale_py", "rl")
    pong = require("pettingzoo.atari.pong_v3", "rl")
    cv2 = require("cv2", "atari")
    gymnasium = require("gymnasium", "rl")
    wrappers = require("pettingzoo.utils", "rl")
    import numpy as np

    class Small(wrappers.BaseParallelWrapper):
        """One grey picture; the right player sees it mirrored; each action is held for four frames."""

        space = gymnasium.spaces.Box(0, 255, (1, 84, 84), np.uint8)

        def observation_space(self, agent: str) -> Any:
            return self.space

        def _see(self, obs: dict[str, Any]) -> dict[str, Any]:
            small = {}
            for k, (agent, picture) in enumerate(obs.items()):
                grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
                grey = cv2.resize(grey, (84, 84), interpolation=cv2.INTER_AREA)
                small[agent] = (grey[:, ::-1] if k else grey)[None].copy()
            return small

        def reset(self, seed: int | None = None, options: Any = None) -> Any:
            obs, info = self.env.reset(seed=seed, options=options)
            return self._see(obs), info

        def step(self, actions: dict[str, Any]) -> Any:
            total: dict[str, float] = {}
            for _ in range(4):
                obs, reward, terminated, truncated, info = self.env.step(actions)
                total = {agent: total.get(agent, 0.0) + float(r) for agent, r in reward.items()}
                if not self.env.agents:
                    break
            return self._see(obs), total, terminated, truncated, info

    roms = Path(require("ale_py", "atari").__file__ or "").parent  # current ale-py brings the games
    return Small(pong.parallel_env(num_players=2, auto_rom_install_path=str(roms)))


def make(world: str, config: RealConfig, generator: torch.Generator, device: torch.device) -> TensorEnv:
    """A world by its arm's name: "Breakout", "maze", "maze_tv", "pong_duel", "mario_1-1"."""
    options: dict[str, Any] = {"generator": generator, "device": device}
    env: TensorEnv
    if world in ("maze", "maze_tv"):
        mode: Any = "sync" if config.vector == "sync" else "async"
        env = simulators.vizdoom("VizdoomMyWayHome-v1", config.copies, mode=mode, **options)
        if world == "maze_tv":
            env = NoisyTV(env, "image_action", pictures=30, patch=config.patch, noop=0)
    elif world == "pong_duel":
        if find_spec("multi_agent_ale_py") is None:
            raise MissingExtra(
                "two-player Pong needs multi-agent-ale-py beside the extra atari: pip install multi-agent-ale-py"
            )
        env = SelfPlay(from_pettingzoo(_pong, max(config.copies // 2, 1), **options))
    elif world.startswith("mario_"):
        mario_is_there()
        env = from_gymnasium(
            partial(_mario, world.removeprefix("mario_")), config.copies, config.vector, **options
        )
    else:
        env = simulators.atari(f"ALE/{world}-v5", config.copies, mode=config.vector, **options)  # type: ignore[arg-type]
    return NoDone(EpisodeStats(env))


def make_curiosity(kind: str, env: TensorEnv, config: RealConfig, run: Trial) -> ForwardDynamics:
    """The paper's networks: Nature convolutions and residual dynamics, or a U-Net on pixels."""
    g, code = run.generator("curiosity", device="cpu"), ActionCode.of(env)
    space = make_features(
        KINDS[kind],
        env.obs_shape,
        config.features,
        config.hidden,
        code,
        generator=g,
        scalar_std=True,
        clip=None,
    )
    model: nn.Module | None = None
    if kind == "pixels":
        model = ActionUNet(env.obs_shape, code.size, config.width, config.hidden, generator=g)  # type: ignore[arg-type]
    curiosity = ForwardDynamics(
        space, code, model, hidden=config.hidden, blocks=config.blocks, generator=g
    ).to(run.device)
    if isinstance(space, VAEFeatures):
        space.generator = run.generator("code")
    curiosity.init_stats(env, max(config.warmup // env.num_envs, 2), run.generator("warm-up"))
    assert space.obs_norm is not None
    space.obs_norm.freeze()
    return curiosity


class Scores:
    """Returns and lengths of the games that ended (two players share a length; their returns cancel)."""

    def __init__(self, updates: int):
        self.updates = updates
        self.games = self.total = self.steps = self.late_games = self.late = 0.0
        self.best = float("-inf")

    def add(self, update: Update) -> float:
        """Count a rollout; returns the mean return of the games that ended in it."""
        info = update.rollout.info
        returns = info["episode_return"][info["episode_end"]]
        count, total = float(len(returns)), float(returns.sum())
        self.games, self.total = self.games + count, self.total + total
        self.steps += float(info["episode_length"][info["episode_end"]].sum())
        if update.index >= 0.9 * self.updates:
            self.late_games, self.late = self.late_games + count, self.late + total
        if count:
            self.best = max(self.best, float(returns.max()))
        return total / count if count else float("nan")

    def metrics(self) -> dict[str, float]:
        """NaN where no game ended."""
        nan = float("nan")
        return {
            "score": self.total / self.games if self.games else nan,
            "late_score": self.late / self.late_games if self.late_games else nan,
            "length": self.steps / self.games if self.games else nan,
            "best_score": self.best if self.games else nan,
            "games": self.games,
        }


def explore(run: Trial, arm: str, config: RealConfig) -> dict[str, float]:
    """One agent in one world ("Breakout-rf")."""
    world, _, kind = arm.rpartition("-")
    env = make(world, config, run.generator("world", device="cpu"), run.device)
    try:
        return play(run, env, kind, config)
    finally:
        env.close()


def play(run: Trial, env: TensorEnv, kind: str, config: RealConfig) -> dict[str, float]:
    """Train without any reward (or act at random) in an environment of pictures."""
    scores, info = Scores(config.updates), ("episode_end", "episode_return", "episode_length")
    if kind == "random":
        policy = RandomPolicy(env).to(run.device)
        carry = start(env, policy)
        for index in run.steps(config.updates):
            rollout = Rollout(config.steps, env.num_envs, info=info)
            carry = collect(env, policy, rollout, carry, run.generator(f"actions-{index}"), values=False)
            scores.add(Update(index, 0, rollout, {}))
        return scores.metrics()
    curiosity = make_curiosity(kind, env, config, run)
    normalizer = ReturnNormalizer(config.gamma, env.num_envs).to(run.device)
    mixer = IntrinsicMixer([curiosity], extrinsic=False, normalizers=[normalizer])
    g = run.generator("policy", device="cpu")
    assert env.num_actions is not None
    model = ActorCritic(
        Whitened(
            NatureConv(env.obs_shape[0], env.obs_shape[1], config.hidden, generator=g), curiosity.features.see
        ),
        CategoricalHead(config.hidden, env.num_actions, generator=g),
        ValueHead(config.hidden, generator=g),
    ).to(run.device)
    optimizer = torch.optim.Adam([*model.parameters(), *mixer.parameters()], config.rate)
    ppo = PPO(
        model,
        optimizer,
        clip=config.clip,
        epochs=config.epochs,
        minibatches=config.minibatches,
        gamma=config.gamma,
        lam=config.lam,
        episodic=False,
        ent_coef=config.entropy,
        max_grad_norm=None,
        aux_losses=[mixer.loss],
    )
    loop = train(env, model, ppo, config.updates, config.steps, mixer, run.generator("actions"), info)
    for _, update in zip(run.steps(config.updates), loop, strict=True):
        run.log(update.env_steps, score=scores.add(update), bonus=update.metrics["intrinsic_0"])
        if update.index == config.updates - 1 or (update.index + 1) % config.checkpoint_every == 0:
            parts: dict[str, Any] = {
                "model": model,
                "optimizer": optimizer,
                "curiosity": curiosity,
                "normalizer": normalizer,
            }
            buffer = io.BytesIO()
            torch.save({name: part.state_dict() for name, part in parts.items()}, buffer)
            run.save("checkpoint.pt", buffer.getvalue())
    return scores.metrics()


class Whitened(nn.Module):
    """A torso that sees what the features see: in the released code one set of statistics serves both."""

    def __init__(self, torso: NatureConv, see: Callable[[Tensor], tuple[Tensor, tuple[int, ...]]]):
        super().__init__()
        self.torso, self.see, self.features = torso, see, torso.features

    def forward(self, obs: Tensor) -> Tensor:
        """Any leading dimensions."""
        flat, lead = self.see(obs)
        return self.torso.encode(flat).unflatten(0, lead) if len(lead) != 1 else self.torso.encode(flat)
