r"""Proximal policy optimisation (Schulman et al., 2017) and its one-epoch limit, the advantage actor-critic.

With K reward streams the policy follows $A = \sum_k w_k A_k$, while each value regresses on its own returns.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from assay.rl.losses import approximate_kl, entropy_loss, policy_gradient_loss, ppo_clip_loss, value_loss
from assay.rl.policies import ActorCritic
from assay.rl.rollout import Batch, Rollout, minibatches
from assay.rl.schedules import Schedule, as_schedule

AuxLoss = Callable[[Batch], tuple[str, Tensor, float]]


class PPO:
    """The clipped surrogate on rollouts, with any number of reward streams.

    Args:
        model: an actor-critic with K values.
        optimizer: over its parameters (and over those of auxiliary losses).
        clip: of the probability ratio; None: the plain policy gradient.
        epochs, minibatches: passes over a rollout, and parts of it a pass.
        gamma, lam: discount and trace decay, one for all or one a stream.
        episodic: whether returns stop where episodes end, one for all or one a stream.
        stream_weights: w_k; default all 1.
        ent_coef: weight of the entropy bonus; a number or a function of environment steps.
        vf_coef: weight of the value losses (each half the mean squared error, summed over streams).
        adv_norm: "batch": advantages of a rollout are shifted and scaled to mean 0 and standard deviation 1;
            "minibatch": those of every part; None: as they are.
        max_grad_norm: of the global gradient; None: unclipped.
        target_kl: stop the epochs of a rollout once the policy moved so far (nats); None: never.
        value_clip: clip the values' change too, as the first implementations did; None: no.
        aux_losses: functions of a batch that return (name, loss, weight), added to the loss.
        learning_rate: a function of environment steps that sets the optimizer's rate; None: left alone.

    Raises:
        ValueError: options out of range; streams that do not fit the model.
    """

    def __init__(
        self,
        model: ActorCritic,
        optimizer: torch.optim.Optimizer,
        *,
        clip: float | None = 0.2,
        epochs: int = 4,
        minibatches: int = 4,
        gamma: float | Sequence[float] = 0.99,
        lam: float | Sequence[float] = 0.95,
        episodic: bool | Sequence[bool] = True,
        stream_weights: Sequence[float] | None = None,
        ent_coef: float | Schedule = 0.01,
        vf_coef: float = 0.5,
        adv_norm: str | None = "batch",
        max_grad_norm: float | None = 0.5,
        target_kl: float | None = None,
        value_clip: float | None = None,
        aux_losses: Sequence[AuxLoss] = (),
        learning_rate: Schedule | None = None,
    ):
        weights = [1.0] * model.streams if stream_weights is None else list(stream_weights)
        for name, option in (
            ("stream_weights", weights),
            ("gamma", gamma),
            ("lam", lam),
            ("episodic", episodic),
        ):
            if isinstance(option, Sequence) and len(option) != model.streams:
                raise ValueError(
                    f"{name} needs one entry for each of the model's {model.streams} values: {option}"
                )
        if clip is not None and clip <= 0:
            raise ValueError(f"clip is positive, or None: got {clip}")
        if epochs < 1 or minibatches < 1:
            raise ValueError(f"epochs and minibatches are at least 1: got {epochs} and {minibatches}")
        if adv_norm not in ("batch", "minibatch", None):
            raise ValueError(f"adv_norm is 'batch', 'minibatch' or None: got {adv_norm!r}")
        self.model, self.optimizer = model, optimizer
        self.clip, self.epochs, self.minibatches = clip, epochs, minibatches
        self.gamma, self.lam, self.episodic, self.weights = gamma, lam, episodic, weights
        self.ent_coef, self.vf_coef, self.adv_norm = as_schedule(ent_coef), vf_coef, adv_norm
        self.max_grad_norm, self.target_kl, self.value_clip = max_grad_norm, target_kl, value_clip
        self.aux_losses, self.learning_rate = list(aux_losses), learning_rate
        self.env_steps = 0
        """Transitions consumed so far."""
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def update(
        self,
        rollout: Rollout,
        reward: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, float]:
        """Train on one rollout; returns means of the losses and diagnostics.

        Args:
            rollout: collected by the model as it stands.
            reward: [T, N, K] in place of the rollout's own (relabelled rewards).
            generator: of the shuffling.
        """
        if reward is not None:
            if reward.shape != rollout.reward.shape:
                raise ValueError(
                    f"relabelled rewards are {tuple(rollout.reward.shape)} (time, copies, streams): "
                    f"got {tuple(reward.shape)}"
                )
            rollout.reward = reward
        advantages = rollout.advantages(self.gamma, self.lam, self.episodic)
        targets = advantages + rollout.value[:-1]
        mixed = advantages @ torch.tensor(self.weights, device=advantages.device)
        if self.adv_norm == "batch":
            mixed = _standardised(mixed, rollout.valid)
        self.env_steps += rollout.transitions
        entropy_weight = self.ent_coef(self.env_steps)
        if self.learning_rate is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(self.env_steps)
        sums: dict[str, Tensor] = {}
        count = 0
        for _ in range(self.epochs):
            for batch in minibatches(rollout, self.minibatches, self.model.recurrent, generator):
                terms = self._losses(batch, batch.take(mixed), batch.take(targets), entropy_weight)
                self.optimizer.zero_grad()
                terms["loss"].backward()
                if self.max_grad_norm is not None:
                    terms["grad_norm"] = nn.utils.clip_grad_norm_(self._parameters, self.max_grad_norm)
                self.optimizer.step()
                count += 1
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0.0) + value.detach()
            if self.target_kl is not None and float(terms["kl"]) > self.target_kl:
                break
        return {name: float(total) / count for name, total in sums.items()}

    def _losses(
        self, batch: Batch, advantage: Tensor, target: Tensor, entropy_weight: float
    ) -> dict[str, Tensor]:
        out = self.model(batch.obs, batch.state, batch.first if self.model.recurrent else None, batch.mask)
        logp, logp_old, valid = out.dist.log_prob(batch.action), batch.take(batch.rollout.logp), batch.valid
        if self.adv_norm == "minibatch":
            advantage = _standardised(advantage, valid)
        if self.clip is None:
            policy = policy_gradient_loss(logp, advantage, mask=valid)
        else:
            policy = ppo_clip_loss(logp, logp_old, advantage, self.clip, mask=valid)
        old = batch.take(batch.rollout.value) if self.value_clip is not None else None
        # The mean is over streams too; every value has the full weight.
        value = self.model.streams * value_loss(out.value, target, old, self.value_clip, mask=valid)
        negative_entropy = entropy_loss(out.dist.entropy(), mask=valid)
        loss = policy + self.vf_coef * value + entropy_weight * negative_entropy
        terms = {
            "policy": policy,
            "value": value,
            "entropy": -negative_entropy,
            "kl": approximate_kl(logp, logp_old, valid),
        }
        for auxiliary in self.aux_losses:
            name, extra, weight = auxiliary(batch)
            terms[name] = extra
            loss = loss + weight * extra
        return {"loss": loss, **terms}


class A2C(PPO):
    """Advantage actor-critic: one pass over the rollout as one batch, the plain policy gradient."""

    def __init__(self, model: ActorCritic, optimizer: torch.optim.Optimizer, **options: object):
        fixed = {"clip": None, "epochs": 1, "minibatches": 1}
        if clash := fixed.keys() & options.keys():
            raise ValueError(f"A2C fixes {sorted(clash)}: use PPO to choose them")
        super().__init__(model, optimizer, **{"adv_norm": None, **fixed, **options})  # type: ignore[arg-type]


def _standardised(advantage: Tensor, valid: Tensor) -> Tensor:
    kept = advantage[valid]
    if len(kept) < 2:
        return advantage
    return (advantage - kept.mean()) / (kept.std() + 1e-8)
