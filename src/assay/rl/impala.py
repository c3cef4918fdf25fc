r"""IMPALA's learner (Espeholt et al., 2018): an actor-critic on unrolls that an older policy collected.

Its loss per transition, with V-trace targets $v_s$ and truncated weights $\rho_s$, is

$$-\rho_s \log\pi(a_s|x_s)\,(r_s + \gamma v_{s+1} - V(x_s)) + c_V\tfrac12 (v_s - V(x_s))^2 - c_H H[\pi(\cdot|x_s)].$$
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from assay.rl.losses import Reduction, entropy_loss, policy_gradient_loss, value_loss
from assay.rl.policies import ActorCritic, PolicyOutput
from assay.rl.rollout import Rollout, true_next_value
from assay.rl.schedules import Schedule, as_schedule
from assay.rl.vtrace import Corrected, corrected_targets

Correction = Literal["vtrace", "onestep", "epsilon", "none", "is"]


class VTraceLearner:
    """Trains an actor-critic on stacked unrolls, whoever collected them, by one gradient step a batch.

    Args:
        model: one value stream.
        optimizer: over its parameters. The paper uses RMSProp (`RMSPropTF`) with epsilon 0.1, which belongs to
            SUMMED losses.
        gamma: discount.
        lam: decay of the traces.
        rho_bar, c_bar, pg_rho_bar: truncations of the weight of the temporal difference, of the trace, and of the
            weight of the policy gradient.
        correction: "vtrace", or an ablation ("none", "onestep", "epsilon", "is"); see `corrected_targets`.
        epsilon: of the epsilon-correction.
        ent_coef: weight of the entropy bonus, a number or a schedule of environment steps.
        vf_coef: weight of half the squared value error.
        reduction: "mean" over transitions, or their "sum" (the released code).
        max_grad_norm: of the global gradient; None: unclipped.
        reward_transform: applied to rewards first (`SquashReward`).
        learning_rate: schedule of environment steps; None: the optimizer's own.

    Raises:
        ValueError: the model has more than one value stream.
    """

    def __init__(
        self,
        model: ActorCritic,
        optimizer: torch.optim.Optimizer,
        *,
        gamma: float = 0.99,
        lam: float = 1.0,
        rho_bar: float = 1.0,
        c_bar: float = 1.0,
        pg_rho_bar: float | None = None,
        correction: Correction = "vtrace",
        epsilon: float = 1e-6,
        ent_coef: float | Schedule = 0.01,
        vf_coef: float = 0.5,
        reduction: Reduction = "mean",
        max_grad_norm: float | None = 40.0,
        reward_transform: Callable[[Tensor], Tensor] | None = None,
        learning_rate: Schedule | None = None,
    ):
        self._check_model(model)
        self.model, self.optimizer = model, optimizer
        self.gamma, self.lam = gamma, lam
        self.rho_bar, self.c_bar, self.pg_rho_bar = rho_bar, c_bar, pg_rho_bar
        self.correction, self.epsilon = correction, epsilon
        self.ent_coef, self.vf_coef, self.reduction = as_schedule(ent_coef), vf_coef, reduction
        self.max_grad_norm, self.reward_transform = max_grad_norm, reward_transform
        self.learning_rate = learning_rate
        self.env_steps = 0
        """Transitions consumed so far."""
        self.version = 0
        """Updates made so far."""
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def _check_model(self, model: ActorCritic) -> None:
        if model.streams != 1:
            raise ValueError(f"VTraceLearner trains one value: the model has {model.streams}")

    def update(self, rollout: Rollout, generator: torch.Generator | None = None) -> dict[str, float]:
        """One gradient step on a rollout (of one actor, or `Rollout.stack` of several).

        `generator` is taken for the sake of the other learners' signature and not used: nothing is shuffled.
        """
        fresh = rollout.valid.sum()
        self.env_steps += int(fresh)
        if self.learning_rate is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(self.env_steps)
        reward = rollout.reward[..., 0]
        if self.reward_transform is not None:
            reward = self.reward_transform(reward)
        out = self.model(rollout.obs, rollout.core_state, rollout.first)
        terms = self._losses(rollout, out, reward)
        self.optimizer.zero_grad()
        terms["loss"].backward()
        if self.max_grad_norm is not None:
            terms["grad_norm"] = nn.utils.clip_grad_norm_(self._parameters, self.max_grad_norm)
        self.optimizer.step()
        terms["lag"] = (self.version - rollout.policy_version).float().mean()
        self.version += 1
        return {name: float(value.detach()) for name, value in terms.items()}

    def _losses(self, rollout: Rollout, out: PolicyOutput, reward: Tensor) -> dict[str, Tensor]:
        value = out.value[..., 0]
        next_value = true_next_value(self.model, rollout, out.value.detach())[..., 0]
        logp, entropy = self.action_terms(rollout, out)
        corrected = self.correct(rollout, logp, reward, value[:-1], next_value)
        critic = value_loss(value[:-1], corrected.targets, mask=rollout.valid, reduction=self.reduction)
        return self.total(rollout, logp, entropy, corrected.pg_advantage, critic, corrected)

    def action_terms(self, rollout: Rollout, out: PolicyOutput) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the actions taken and entropies under the learner's policy, [T, N] each."""
        params = out.dist.params[:-1]
        dist = self.model.policy_head.distribution(params, rollout.mask)
        return dist.log_prob(rollout.action), dist.entropy()

    def correct(
        self, rollout: Rollout, logp: Tensor, reward: Tensor, value: Tensor, next_value: Tensor
    ) -> Corrected:
        """Targets and advantages under this learner's correction."""
        return corrected_targets(
            self.correction,
            logp.detach(),
            rollout.logp,
            reward,
            value.detach(),
            next_value,
            rollout.terminated,
            rollout.truncated,
            self.gamma,
            rho_bar=self.rho_bar,
            c_bar=self.c_bar,
            pg_rho_bar=self.pg_rho_bar,
            lam=self.lam,
            epsilon=self.epsilon,
            valid=rollout.valid,
        )

    def total(
        self,
        rollout: Rollout,
        logp: Tensor,
        entropy: Tensor,
        advantage: Tensor,
        critic: Tensor,
        corrected: Corrected,
    ) -> dict[str, Tensor]:
        """The loss from its parts, and what is worth watching about the importance weights."""
        valid = rollout.valid
        actor = policy_gradient_loss(
            logp, advantage, mask=valid, reduction=self.reduction, epsilon=corrected.epsilon
        )
        bonus = entropy_loss(entropy, mask=valid, reduction=self.reduction)
        loss = actor + self.vf_coef * critic + self.ent_coef(self.env_steps) * bonus
        rho = corrected.rho[valid]
        return {
            "loss": loss,
            "policy": actor,
            "value": critic,
            "entropy": -entropy_loss(entropy, mask=valid),
            "rho_mean": rho.mean(),
            "rho_max": rho.max(),
            "clipped": (rho > self.rho_bar).float().mean(),
            "effective_sample_share": rho.sum().square() / (len(rho) * rho.square().sum()).clamp(min=1e-12),
        }


class RMSPropTF(torch.optim.Optimizer):
    r"""RMSProp as TensorFlow 1 computed it, for hyper-parameters of the A3C and IMPALA era.

    $g^2$ starts at 1 rather than 0, and epsilon stands inside the root: $\theta \leftarrow \theta - \eta\,
    g / \sqrt{\overline{g^2} + \epsilon}$ (torch: $g / (\sqrt{\overline{g^2}} + \epsilon)$). With epsilon 0.1, as in
    IMPALA, the difference is a factor of ten in the first steps.

    Args:
        params: parameters or groups.
        lr: learning rate.
        alpha: decay of the squared gradient's mean.
        eps: inside the root.
        momentum: of the update.
    """

    def __init__(
        self,
        params: object,
        lr: float = 4.8e-4,
        alpha: float = 0.99,
        eps: float = 0.1,
        momentum: float = 0.0,
    ):
        if lr < 0 or not 0 <= alpha < 1 or eps < 0 or momentum < 0:
            raise ValueError(
                f"lr, eps, momentum >= 0 and 0 <= alpha < 1: got {lr}, {eps}, {momentum}, {alpha}"
            )
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum})  # type: ignore[arg-type]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p]["square_avg"] = torch.ones_like(p)
                    if group["momentum"]:
                        self.state[p]["velocity"] = torch.zeros_like(p)
            grads = [p.grad for p in params]
            squares = [self.state[p]["square_avg"] for p in params]
            torch._foreach_lerp_(squares, torch._foreach_mul(grads, grads), 1 - group["alpha"])
            roots = torch._foreach_add(squares, group["eps"])
            torch._foreach_sqrt_(roots)
            moves = torch._foreach_div(grads, roots)
            if group["momentum"]:
                velocities = [self.state[p]["velocity"] for p in params]
                torch._foreach_mul_(velocities, group["momentum"])
                torch._foreach_add_(velocities, moves, alpha=group["lr"])
                torch._foreach_sub_(params, velocities)
            else:
                torch._foreach_add_(params, moves, alpha=-group["lr"])
        return loss
