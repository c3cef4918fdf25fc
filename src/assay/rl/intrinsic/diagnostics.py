r"""What a feature space is worth: does it stay, does it hold the state, does it hold what an action does?

Burda et al. 2018 (arXiv 1808.04355, section 2.1) want features that are *compact*, *sufficient* and *stationary*, and
argue about each space in words. `FeatureDiagnostics` measures the three on a fixed batch of transitions.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from assay.analysis.similarity import linear_cka
from assay.envs.base import Obs, map_obs
from assay.rl.intrinsic.features import FeatureSpace
from assay.rl.rollout import Rollout


class ProbeBatch(NamedTuple):
    """Transitions on which feature spaces are compared; all from one policy, usually the random one."""

    obs: Obs
    """[B, *obs]."""
    action: Tensor
    """[B] int64, or [B, d] floats."""
    next_obs: Obs
    """[B, *obs]: the true successors."""
    state: Tensor
    """[B, s]: the true state (places, speeds, ...) that `obs` shows."""

    @classmethod
    def of(
        cls,
        rollout: Rollout,
        state: Tensor,
        count: int = 1_024,
        generator: torch.Generator | None = None,
    ) -> "ProbeBatch":
        """`count` valid transitions of a rollout, drawn without replacement (all, where there are fewer).

        Args:
            rollout: from `random_rollout`, say.
            state: [T, N, s] of the observations `rollout.obs[:T]`.
            count: B.
            generator: of the draw.
        """
        pool = rollout.valid.flatten().nonzero().flatten()
        order = torch.randperm(len(pool), generator=generator, device=pool.device)
        rows = pool[order[:count]]

        def take(x: Tensor) -> Tensor:
            return x[: rollout.steps].flatten(0, 1)[rows]

        return cls(
            map_obs(take, rollout.obs),
            take(rollout.action),
            map_obs(take, rollout.next_obs()),
            take(state).float(),
        )


def ridge_fit(
    x: Float[Tensor, "rows inputs"], y: Float[Tensor, "rows outputs"], ridge: float = 1e-3
) -> Float[Tensor, "inputs_and_one outputs"]:
    """Weights and, in the last row, intercepts of a ridge regression on standardised inputs (float64 inside).

    The penalty is `ridge` times the number of rows and leaves the intercepts alone. Inputs that do not vary get weight
    0.
    """
    x, y = x.double(), y.double()
    mean, std = x.mean(0), x.std(0, correction=0)
    scaled = (x - mean) / std.clamp(min=1e-9) * (std > 1e-9)
    gram = scaled.T @ scaled + ridge * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weight = torch.linalg.solve(gram, scaled.T @ (y - y.mean(0)))
    weight = weight / std.clamp(min=1e-9)[:, None]
    return torch.cat((weight, (y.mean(0) - mean @ weight)[None]))


def _apply(weight: Tensor, x: Tensor) -> Tensor:
    return x.double() @ weight[:-1] + weight[-1]


class FeatureDiagnostics:
    r"""Measures a feature space on a fixed probe batch, every time it is called.

    - `drift_cka`: $1 - \mathrm{CKA}$ between the embeddings at the last call and now: how far the *geometry* moved
      (0 for stationary spaces; rotations do not count). NaN at the first call.
    - `drift_mse`: mean squared change of a feature since the last call, in units of the features' variance: what a
      forward model sees, for which rotations do count. NaN at the first call.
    - `probe_r2`: share of the true state's variance that ridge regression on the features explains, on the half of the
      batch that it was not fitted on; mean over the components that vary. "Sufficient".
    - `inverse_accuracy`: share of the actions that ridge regression on $(\phi(x), \phi(x'))$ names right, on the same
      half (continuous actions: $R^2$).
    - `dimension`: participation ratio $(\sum \lambda)^2 / \sum \lambda^2$ of the features' covariance. "Compact".

    Linear probes, so that the measure does not train: what is not there linearly counts as absent.

    Args:
        features: the space; its present state is read at each call.
        probe_batch: transitions; the first half fits, the second tests.
        ridge: penalty, a share of the rows.

    Raises:
        ValueError: fewer than 8 transitions, or states that do not fit.

    >>> from assay.rl.intrinsic import make_features
    >>> space, x = make_features("pixels", (3,), normalize=False), torch.randn(64, 3)
    >>> batch = ProbeBatch(x, torch.randint(2, (64,)), x + 1, x)
    >>> round(FeatureDiagnostics(space, batch)()["probe_r2"], 1)
    1.0
    """

    def __init__(self, features: FeatureSpace, probe_batch: ProbeBatch, ridge: float = 1e-4):
        rows = len(probe_batch.action)
        if rows < 8:
            raise ValueError(f"a probe batch has at least 8 transitions: got {rows}")
        if probe_batch.state.ndim != 2 or len(probe_batch.state) != rows:
            raise ValueError(
                f"states are one row a transition, [{rows}, s]: got {tuple(probe_batch.state.shape)}"
            )
        if not ridge > 0:
            raise ValueError(f"ridge is positive: got {ridge}")
        self.features, self.batch, self.ridge = features, probe_batch, ridge
        self._half = rows // 2
        self._before: Tensor | None = None
        varies = probe_batch.state[: self._half].std(0) > 1e-6
        self._state = probe_batch.state[:, varies & (probe_batch.state[self._half :].std(0) > 1e-6)]

    def _held_out_r2(self, x: Tensor, y: Tensor) -> float:
        weight = ridge_fit(x[: self._half], y[: self._half], self.ridge)
        y = y[self._half :].double()
        left = (y - _apply(weight, x[self._half :])).square().sum(0)
        return float((1 - left / (y - y.mean(0)).square().sum(0).clamp(min=1e-12)).mean())

    def _accuracy(self, x: Tensor, action: Int[Tensor, " rows"]) -> float:
        goal = F.one_hot(action, int(action.max()) + 1).double()
        weight = ridge_fit(x[: self._half], goal[: self._half], self.ridge)
        guess = _apply(weight, x[self._half :]).argmax(-1)
        return float((guess == action[self._half :]).double().mean())

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """The measures, now."""
        now, after = self.features.features(self.batch.obs), self.features.features(self.batch.next_obs)
        centred = now.double() - now.double().mean(0)
        variance = centred.square().mean(0).sum()
        found = {"drift_cka": float("nan"), "drift_mse": float("nan")}
        if self._before is not None and float(variance) > 0:
            moved = (now - self._before).double().square().mean(0).sum()
            found["drift_mse"] = float(moved / variance)
            found["drift_cka"] = float(linear_cka(self._before.double(), now.double(), distance=True))
        self._before = now.clone()
        found["probe_r2"] = self._held_out_r2(now, self._state) if self._state.shape[1] else float("nan")
        pairs = torch.cat((now, after), 1)
        action = self.batch.action
        if action.is_floating_point():
            found["inverse_accuracy"] = self._held_out_r2(pairs, action.view(len(action), -1))
        else:
            found["inverse_accuracy"] = self._accuracy(pairs, action)
        covariance = centred.T @ centred
        found["dimension"] = float(
            covariance.diagonal().sum() ** 2 / covariance.square().sum().clamp(min=1e-30)
        )
        return found
