"""PPO with a bonus of any kind: what all worlds of the study share."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from assay.envs import TensorEnv
from assay.lab import Trial
from assay.rl.intrinsic import (
    RND,
    ActionCode,
    CountBonus,
    ForwardDynamics,
    IntrinsicMixer,
    IntrinsicReward,
    RandomFeatures,
    make_features,
    make_rnd,
)
from assay.rl.nets import SmallGridConv, orthogonal
from assay.rl.normalize import ReturnNormalizer, RunningMeanStd
from assay.rl.policies import ActorCritic, actor_critic
from assay.rl.ppo import PPO
from assay.rl.rollout import Rollout
from assay.rl.train import Update, train
from assay.studies.random_network_distillation.config import Agent


class SummedMixer(IntrinsicMixer):
    """One stream for one value head: the weighted sum of the world's reward and the bonus."""

    def __init__(
        self, module: IntrinsicReward, normalizer: ReturnNormalizer, weights: tuple[float, float]
    ) -> None:
        super().__init__([module], extrinsic=False, normalizers=[normalizer])
        self.weights = weights

    def fill(self, rollout: Rollout) -> list[Tensor]:
        """Put the bonus into stream 0 as always, then add the world's reward to it."""
        world = rollout.reward[..., 0].clone()
        raws = super().fill(rollout)
        rollout.reward[..., 0] = self.weights[0] * world + self.weights[1] * rollout.reward[..., 0]
        return raws


def make_bonus(
    kind: str, env: TensorEnv, config: Agent, generator: torch.Generator, side: int | None = None
) -> IntrinsicReward:
    """The bonus of an arm; `side` of a one-hot grid is what counts need."""
    shape = env.obs_shape
    if kind == "count":
        assert side is not None

        def cell(obs: Tensor) -> Tensor:
            return obs[:, :side].argmax(1) * side + obs[:, side : 2 * side].argmax(1)

        return CountBonus(cell, side * side)
    if kind == "rnd" and len(shape) == 3:
        # Small pictures: the same two convolutions in both networks, and a layer more in the predictor.
        def net(extra: bool) -> nn.Module:
            body = SmallGridConv(shape, config.hidden, act="leaky_relu", generator=generator)
            more = [orthogonal(nn.Linear(config.hidden, config.hidden), generator=generator), nn.ReLU()]
            last = orthogonal(nn.Linear(config.hidden, config.features), generator=generator)
            return nn.Sequential(body, *(more if extra else ()), last)

        return RND(
            net(False),
            net(True),
            RunningMeanStd(shape),
            update_fraction=config.update_fraction,
            generator=generator,
        )
    if kind == "rnd":
        return make_rnd(
            shape,
            k=config.features,
            hidden=config.hidden,
            extra_layers=1,
            update_fraction=config.update_fraction,
            generator=generator,
        )
    if kind == "dynamics":
        features = make_features("random", shape, config.features, config.hidden, generator=generator)
        assert isinstance(features, RandomFeatures)
        return ForwardDynamics(
            features, ActionCode.of(env), hidden=config.hidden, blocks=config.blocks, generator=generator
        )
    raise ValueError(f"unknown bonus {kind!r}: choose rnd, dynamics or count")


def explore(
    run: Trial,
    env: TensorEnv,
    kind: str,
    config: Agent,
    updates: int,
    *,
    extrinsic: bool = True,
    episodic: bool = False,
    one_head: bool = False,
    side: int | None = None,
    info: tuple[str, ...] = (),
) -> Iterator[tuple[Update, ActorCritic, IntrinsicReward | None]]:
    """Train PPO with the bonus `kind` ("ppo": none); yields every update with the model and the bonus.

    Args:
        extrinsic: whether the world's reward is learnt from.
        episodic: whether returns of the bonus stop where episodes end.
        one_head: one value of the summed reward, with the bonus's discount (as the paper's single head).
        side: of a one-hot grid.
        info: kept in each rollout.
    """
    bonus, mixer = None, None
    weights = (config.weight_extrinsic, config.weight_intrinsic)
    options: dict[str, Any] = {"gamma": config.gamma_extrinsic}
    if kind != "ppo":
        bonus = make_bonus(kind, env, config, run.generator("bonus", device="cpu"), side).to(run.device)
        if isinstance(bonus, RND):
            bonus.generator = run.generator("rows")  # draws where the networks are
        if hasattr(bonus, "init_stats"):
            bonus.init_stats(env, config.warmup, run.generator("warm-up"))
        normalizer = ReturnNormalizer(config.gamma_intrinsic, env.num_envs).to(run.device)
        if one_head:
            mixer = SummedMixer(bonus, normalizer, weights)
            options = {"gamma": config.gamma_intrinsic, "episodic": episodic}
        elif extrinsic:
            mixer = IntrinsicMixer([bonus], normalizers=[normalizer])
            options = {
                "gamma": (config.gamma_extrinsic, config.gamma_intrinsic),
                "episodic": (True, episodic),
                "stream_weights": weights,
            }
        else:
            mixer = IntrinsicMixer([bonus], extrinsic=False, normalizers=[normalizer])
            options = {"gamma": config.gamma_intrinsic, "episodic": episodic}
        options["aux_losses"] = [mixer.loss]
    hidden = (config.hidden, config.hidden)
    streams = mixer.streams if mixer else 1
    model = actor_critic(env, hidden, streams=streams, generator=run.generator("policy", device="cpu")).to(
        run.device
    )
    learnt = [*model.parameters(), *(mixer.parameters() if mixer else ())]
    ppo = PPO(
        model,
        torch.optim.Adam(learnt, config.rate),
        clip=config.clip,
        epochs=config.epochs,
        minibatches=config.minibatches,
        lam=config.lam,
        ent_coef=config.entropy,
        max_grad_norm=0.5,
        **options,
    )
    loop = train(env, model, ppo, updates, config.steps, mixer, run.generator("actions"), info)
    for _, update in zip(run.steps(updates), loop, strict=True):
        yield update, model, bonus
