r"""Curiosity as surprise: the error of a forward model in predicting what an action leads to,

$$r_t = \tfrac1d \lVert f(\phi(x_t), a_t) - \phi(x_{t+1}) \rVert^2 ,$$

in a feature space $\phi$ of choice (Pathak et al. 2017, arXiv 1705.05363; Burda et al. 2018, arXiv 1808.04355). Where
what follows is random, the error never goes away: with independent noise of covariance $S$ in linear features
$\phi(x) = Wx$ it stays at $\mathrm{tr}(W S W^\top)/d$. That floor is why a television holds such an agent, and what
random network distillation does without.
"""

import torch
from torch import Tensor, nn

from assay.envs.base import Obs, TensorEnv, map_obs
from assay.rl.intrinsic.base import IntrinsicReward
from assay.rl.intrinsic.features import ActionCode, FeatureSpace, make_features
from assay.rl.nets import orthogonal
from assay.rl.rollout import Batch, Rollout


class ResidualDynamics(nn.Module):
    """Features and action to the features that follow, the action shown to every layer (released code of the paper).

    A dense layer, `blocks` residual blocks of two, a linear output; leaky ReLU.

    Args:
        size: d, of the features.
        actions: numbers in an action's code.
        hidden: units; 512 in the paper.
        blocks: 4 in the paper; 0: one hidden layer.
        generator: of the initialisation.

    >>> ResidualDynamics(8, 3, 16)(torch.randn(5, 8), torch.randn(5, 3)).shape
    torch.Size([5, 8])
    """

    def __init__(
        self,
        size: int,
        actions: int,
        hidden: int = 512,
        blocks: int = 4,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if min(size, actions, hidden) < 1 or blocks < 0:
            raise ValueError(f"sizes are positive: got {(size, actions, hidden, blocks)}")

        def dense(inputs: int, outputs: int, gain: float = 2**0.5) -> nn.Linear:
            return orthogonal(nn.Linear(inputs + actions, outputs), gain, generator=generator)

        self.first = dense(size, hidden)
        self.blocks = nn.ModuleList(
            nn.ModuleList([dense(hidden, hidden), dense(hidden, hidden, 1.0)]) for _ in range(blocks)
        )
        self.last = dense(hidden, size, 1.0)

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """[B, d] and [B, a] to [B, d]."""

        def told(x: Tensor) -> Tensor:
            return torch.cat((x, action), -1)

        act = nn.functional.leaky_relu
        x = act(self.first(told(features)), 0.2)
        for inner, outer in self.blocks:
            x = x + outer(told(act(inner(told(x)), 0.2)))
        return self.last(told(x))


class ForwardDynamics(IntrinsicReward):
    """The forward model's error on the step just made, as a reward.

    Rewards are computed with features and model as they were before the rollout is learnt from. The forward loss
    trains the model only: features get no gradient from it on either side (`detach_features`), so they cannot make
    themselves predictable by becoming trivial.

    Args:
        features: where the error is measured.
        actions: the code of the actions.
        model: features [B, d] and action codes [B, a] to features [B, d]; None: `ResidualDynamics`.
        hidden, blocks: of that.
        detach_features: False: the forward loss trains the features of x_t too, as the first ICM's did (never those
            that are the target).
        forward_weight, feature_weight: of the two losses.
        generator: of the initialisation.

    >>> bonus = ForwardDynamics(make_features("random", (4,), 8, 16, normalize=False), ActionCode(3), hidden=16)
    >>> bonus.bonus(torch.randn(7, 5, 4), torch.zeros(7, 5, dtype=torch.int64), torch.randn(7, 5, 4)).shape
    torch.Size([7, 5])
    """

    def __init__(
        self,
        features: FeatureSpace,
        actions: ActionCode,
        model: nn.Module | None = None,
        *,
        hidden: int = 512,
        blocks: int = 4,
        detach_features: bool = True,
        forward_weight: float = 1.0,
        feature_weight: float = 1.0,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.features, self.actions = features, actions
        self.model = model or ResidualDynamics(features.size, actions.size, hidden, blocks, generator)
        self.detach_features = detach_features
        self.forward_weight, self.feature_weight = forward_weight, feature_weight

    def _errors(self, obs: Obs, action: Tensor, next_obs: Obs) -> Tensor:
        """[B], of one batch."""
        before = self.features.features(obs)
        if self.detach_features:
            before = before.detach()
        with torch.no_grad():
            after = self.features.features(next_obs)
        guess = self.model(before, self.actions(action))
        if guess.shape != after.shape:
            raise ValueError(
                f"the model predicts {guess.shape[-1]} features of {after.shape[-1]}: make them equal"
            )
        return (guess - after).square().mean(-1)

    @torch.no_grad()
    def bonus(self, obs: Obs, action: Tensor, next_obs: Obs) -> Tensor:
        """[...]: the error on steps from `obs` [..., *obs] by `action` [...] to `next_obs`."""
        ndim = action.ndim if self.actions.discrete else action.ndim - 1
        lead = action.shape[:ndim]

        def flat(o: Tensor) -> Tensor:
            if o.shape[:ndim] != lead:
                raise ValueError(f"observations and actions begin with one shape: {tuple(o.shape)}, {lead}")
            return o.reshape(-1, *o.shape[ndim:])

        return self._errors(map_obs(flat, obs), flat(action), map_obs(flat, next_obs)).view(lead)

    def reward(self, rollout: Rollout) -> Tensor:
        """[T, N]: of every step to its true successor."""
        steps = rollout.steps
        return self.bonus(map_obs(lambda o: o[:steps], rollout.obs), rollout.action, rollout.next_obs())

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The forward loss ("forward") and the features' own, weighted; rows that are no transitions do not count."""
        valid = batch.valid
        action = batch.action[valid]
        rows = [map_obs(lambda o: o[valid], o) for o in (batch.obs, batch.next_obs)]
        if len(action):
            error = self._errors(rows[0], action, rows[1]).mean()
        else:
            error = batch.rollout.reward.new_zeros(())
        learnt = self.features.loss(batch)
        return {
            "forward": self.forward_weight * error,
            **{name: self.feature_weight * value for name, value in learnt.items()},
        }

    def observe(self, rollout: Rollout) -> None:
        """Update the features' statistics."""
        self.features.observe(rollout)

    def init_stats(self, env: TensorEnv, steps: int, generator: torch.Generator | None = None) -> None:
        """Fill the features' statistics with random actions' observations; resets `env`."""
        self.features.init_stats(env, steps, generator)


def ICM(
    obs_shape: tuple[int, ...],
    actions: ActionCode,
    size: int = 256,
    hidden: int = 256,
    generator: torch.Generator | None = None,
    **options: object,
) -> ForwardDynamics:
    """The intrinsic curiosity module: forward error in inverse-dynamics features, losses weighted 0.2 and 0.8.

    Pathak et al. 2017 (arXiv 1705.05363), with one hidden layer in the forward model. There the policy's loss had
    weight 0.1 beside these: scale it in the learner, or use the mixer's `loss_weight` = 10.

    Args:
        obs_shape: of one observation.
        actions: the code of the actions.
        size: d.
        hidden: units.
        generator: of the initialisation.
        **options: of `make_features` (normalize, scalar_std, preprocess, ...).
    """
    features = make_features("inverse", obs_shape, size, hidden, actions, generator=generator, **options)  # type: ignore[arg-type]
    return ForwardDynamics(
        features,
        actions,
        hidden=hidden,
        blocks=0,
        forward_weight=0.2,
        feature_weight=0.8,
        generator=generator,
    )
