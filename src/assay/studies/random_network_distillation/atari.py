"""The paper's own experiment: Atari games with the settings of its appendix."""

import io
from typing import Any

import torch
from torch import nn

from assay._extras import MissingExtra, missing, pip_command
from assay.envs.base import TensorEnv
from assay.envs.real import atari
from assay.lab import Trial
from assay.rl.intrinsic import (
    ActionCode,
    ForwardDynamics,
    IntrinsicMixer,
    IntrinsicReward,
    last_frame,
    make_features,
    make_rnd,
)
from assay.rl.nets import CategoricalHead, LSTMCore, NatureConv, ValueHead
from assay.rl.normalize import ReturnNormalizer
from assay.rl.policies import ActorCritic
from assay.rl.ppo import PPO
from assay.rl.train import train
from assay.studies.random_network_distillation import study
from assay.studies.random_network_distillation.config import AtariConfig


def check(config: AtariConfig) -> None:
    """Raise one clear error where the simulator is missing."""
    if absent := missing("atari"):
        raise MissingExtra(f"the games need {', '.join(absent)}: {pip_command('atari')}")


def make_bonus(kind: str, env: TensorEnv, config: AtariConfig, generator: torch.Generator) -> IntrinsicReward:
    """RND or the forward model, on the newest frame."""
    shape = (1, *env.obs_shape[1:])
    if kind == "rnd":
        return make_rnd(
            shape,
            config.features,
            config.hidden,
            update_fraction=config.update_fraction,
            preprocess=last_frame,
            generator=generator,
        )
    features = make_features(
        "random", shape, config.features, config.hidden, preprocess=last_frame, generator=generator
    )
    return ForwardDynamics(features, ActionCode.of(env), hidden=config.hidden, generator=generator)


@study.trial("atari/*", config="atari")
def games(run: Trial, arm: str, config: AtariConfig) -> dict[str, float]:
    """One game; reports the mean return of the last tenth, the best one, and Montezuma's rooms."""
    game, _, kind = arm.partition("/")[2].rpartition("-")
    env = atari(
        f"ALE/{game}-v5",
        config.copies,
        clip=False,
        mode=config.vector,  # type: ignore[arg-type]
        generator=run.generator("world", device="cpu"),
        device=run.device,
    )
    try:
        return play(run, env, kind, config, "Montezuma" in game and config.vector != "native")
    finally:
        env.close()


def play(
    run: Trial, env: TensorEnv, kind: str, config: AtariConfig, tells_rooms: bool = False
) -> dict[str, float]:
    """Train in an environment with stacked frames."""
    bonus, mixer, normalizer = None, None, None
    options: dict[str, Any] = {"gamma": config.gamma_extrinsic}
    if kind != "ppo":
        bonus = make_bonus(kind, env, config, run.generator("bonus", device="cpu")).to(run.device)
        if kind == "rnd":
            bonus.generator = run.generator("rows")  # draws on the networks' device
        bonus.init_stats(env, config.warmup, run.generator("warm-up"))  # type: ignore[operator]
        normalizer = ReturnNormalizer(config.gamma_intrinsic, env.num_envs).to(run.device)
        mixer = ClippedMixer([bonus], normalizers=[normalizer])
        options = {
            "gamma": (config.gamma_extrinsic, config.gamma_intrinsic),
            "episodic": (True, False),
            "stream_weights": (config.weight_extrinsic, config.weight_intrinsic),
            "aux_losses": [mixer.loss],
        }
    else:
        mixer = ClippedMixer([])
    g = run.generator("policy", device="cpu")
    torso = NatureConv(env.obs_shape[0], env.obs_shape[1], config.hidden, generator=g)
    core = LSTMCore(config.hidden, config.lstm) if config.lstm else None
    width = core.features if core else config.hidden
    assert env.num_actions is not None
    model = ActorCritic(
        torso,
        CategoricalHead(width, env.num_actions, generator=g),
        ValueHead(width, mixer.streams, 0.01, generator=g),
        core,
    ).to(run.device)
    optimizer = torch.optim.Adam([*model.parameters(), *mixer.parameters()], config.rate)
    ppo = PPO(
        model,
        optimizer,
        clip=config.clip,
        epochs=config.epochs,
        minibatches=config.minibatches,
        lam=config.lam,
        ent_coef=config.entropy,
        max_grad_norm=None,
        **options,
    )
    rooms: set[int] = set()
    running = torch.zeros(env.num_envs, device=run.device)
    late: list[float] = []
    best = float("-inf")
    info = ("room",) if tells_rooms else ()
    loop = train(env, model, ppo, config.updates, config.steps, mixer, run.generator("actions"), info)
    for _, update in zip(run.steps(config.updates), loop, strict=True):
        finished = []
        for reward, ended in zip(mixer.raw, update.rollout.ended, strict=True):
            running = running + reward
            finished += running[ended].tolist()
            running = running.masked_fill(ended, 0.0)
        best = max([best, *finished])
        if update.index >= 0.9 * config.updates:
            late += finished
        if info:
            rooms |= set(update.rollout.info["room"].unique().tolist())
        run.log(update.env_steps, best=best if best > float("-inf") else 0.0, rooms=float(len(rooms)))
        last = update.index == config.updates - 1
        if last or (update.index + 1) % config.checkpoint_every == 0:
            # Both networks and all statistics: without them the bonus would start anew.
            parts: dict[str, nn.Module | torch.optim.Optimizer | None] = {
                "model": model,
                "optimizer": optimizer,
                "bonus": bonus,
                "normalizer": normalizer,
            }
            buffer = io.BytesIO()
            torch.save({name: part.state_dict() for name, part in parts.items() if part is not None}, buffer)
            run.save("checkpoint.pt", buffer.getvalue())
    return {
        "late_return": sum(late) / len(late) if late else float("nan"),
        "best_return": best if best > float("-inf") else float("nan"),
        "rooms": float(len(rooms)),
    }


class ClippedMixer(IntrinsicMixer):
    """Extrinsic rewards are cut to [-1, 1] for the learner; `raw` [T, N] keeps the game's own."""

    raw: torch.Tensor

    def fill(self, rollout: Any) -> list[torch.Tensor]:
        """Clip, then fill as always."""
        self.raw = rollout.reward[..., 0].clone()
        rollout.reward[..., 0].clamp_(-1.0, 1.0)
        return super().fill(rollout)
