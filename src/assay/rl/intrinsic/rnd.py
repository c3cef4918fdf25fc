r"""Random network distillation (Burda et al., 2019, arXiv 1810.12894): novelty as the error of a trained network in
predicting a fixed random one,

$$i_t = \tfrac1k \lVert \hat f(x_{t+1}) - f(x_{t+1}) \rVert^2 .$$

The target is a deterministic function of the observation alone: neither noise in the dynamics nor a model too small
for them can keep the error up, only observations unlike those seen before.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from assay.envs.base import Obs, TensorEnv
from assay.rl.intrinsic.base import IntrinsicReward, flat_view, freeze
from assay.rl.nets import NatureConv, mlp, orthogonal
from assay.rl.normalize import RunningMeanStd
from assay.rl.rollout import Batch, Rollout, random_rollout


class RND(IntrinsicReward):
    """Prediction error of a random embedding of the next observation.

    Args:
        target: fixed network f, [B, *obs] to [B, k]; its parameters are turned into buffers.
        predictor: trained network, the same interface.
        obs_norm: running statistics by which observations are whitened for both networks (never for the policy).
            Fill them with `init_stats` before the first reward.
        clip: whitened observations are clipped to [-clip, clip].
        update_fraction: share of a minibatch's rows that train the predictor, so that its speed does not grow with
            the number of copies (section 2.4; 0.25 with 128 copies).
        preprocess: from the policy's observation to what the networks see, `last_frame` for stacks of frames.
        generator: draws those rows.

    >>> rnd = make_rnd((4,), k=16, hidden=32, normalize=False)
    >>> rnd.bonus(torch.randn(7, 5, 4)).shape
    torch.Size([7, 5])
    """

    def __init__(
        self,
        target: nn.Module,
        predictor: nn.Module,
        obs_norm: RunningMeanStd | None = None,
        clip: float = 5.0,
        update_fraction: float = 0.25,
        preprocess: Callable[[Obs], Tensor] | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if not 0 <= update_fraction <= 1:
            raise ValueError(f"update_fraction is a share between 0 and 1: got {update_fraction}")
        self.target, self.predictor, self.obs_norm = freeze(target), predictor, obs_norm
        self.clip, self.update_fraction = clip, update_fraction
        self.preprocess, self.generator = preprocess, generator

    def _see(self, obs: Obs) -> tuple[Tensor, tuple[int, ...]]:
        """What the networks see, [B, *x], and the leading dimensions."""
        return flat_view(obs, self._obs_ndim(), self.obs_norm, self.clip, self.preprocess, "RND")

    def _obs_ndim(self) -> int:
        # Without statistics the shape of an observation is told by the first layer: convolutions take images.
        first = next((m for m in self.predictor.modules() if isinstance(m, nn.Linear | nn.Conv2d)), None)
        return 3 if isinstance(first, nn.Conv2d) else 1

    def _errors(self, flat: Tensor) -> Tensor:
        with torch.no_grad():
            goal = self.target(flat)
        guess = self.predictor(flat)
        if guess.shape != goal.shape:
            raise ValueError(
                f"target and predictor give {goal.shape[-1]} and {guess.shape[-1]} features: make them equal"
            )
        return (guess - goal).square().mean(-1)

    @torch.no_grad()
    def bonus(self, obs: Obs) -> Tensor:
        """[...]: the error on observations [..., *obs]. Not finite ones raise a ValueError."""
        flat, lead = self._see(obs)
        if not bool(torch.isfinite(flat).all()):
            raise ValueError("RND was given observations that are not finite")
        return self._errors(flat).view(lead)

    def reward(self, rollout: Rollout) -> Tensor:
        """[T, N]: of the true next observations."""
        return self.bonus(rollout.next_obs())

    def prediction_loss(self, obs: Obs) -> Float[Tensor, ""]:
        """Mean error over a random `update_fraction` of the rows; 0 where none was drawn."""
        flat, _ = self._see(obs)
        if self.update_fraction < 1:
            # Rows that do not train are not computed either.
            drawn = torch.empty(len(flat), device=flat.device).uniform_(generator=self.generator)
            flat = flat[drawn < self.update_fraction]
        return self._errors(flat).sum() / max(len(flat), 1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The predictor's loss on the batch's next observations."""
        return {"rnd": self.prediction_loss(batch.next_obs)}

    def observe(self, rollout: Rollout) -> None:
        """Take the rollout's valid next observations into the statistics."""
        if self.obs_norm is not None:
            x = rollout.next_obs() if self.preprocess is None else self.preprocess(rollout.next_obs())
            self.obs_norm.update(x[rollout.valid].float())  # type: ignore[index]

    def init_stats(self, env: TensorEnv, steps: int, generator: torch.Generator | None = None) -> None:
        """Fill the statistics with random actions' observations; resets `env`."""
        self.observe(random_rollout(env, steps, generator))


def last_frame(obs: Obs) -> Tensor:
    """The newest frame [..., 1, H, W] of a stack of frames [..., C, H, W]."""
    assert isinstance(obs, Tensor)
    return obs[..., -1:, :, :]


def make_rnd(
    obs_shape: tuple[int, ...],
    k: int = 512,
    hidden: int = 512,
    extra_layers: int = 2,
    normalize: bool = True,
    update_fraction: float = 0.25,
    preprocess: Callable[[Obs], Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> RND:
    """RND with the paper's networks: three convolutions for images of 36 pixels a side or more, else perceptrons.

    The predictor has `extra_layers` hidden layers more than the target (two in the paper), so that it can imitate it.

    Args:
        obs_shape: of what the networks see.
        k: features of the target.
        hidden: units.
        extra_layers: see above.
        normalize: whiten observations by running statistics.
        update_fraction, preprocess: see `RND`.
        generator: of the initialisation and of the rows that train.
    """
    if len(obs_shape) == 3 and min(obs_shape[1:]) >= 36:
        channels, size, _ = obs_shape

        def network(extra: int) -> nn.Module:
            conv = NatureConv(channels, size, hidden if extra else k, "leaky_relu", generator)
            if not extra:
                conv.dense = nn.Sequential(conv.dense[0])  # type: ignore[assignment]  # the target ends linearly
                return conv
            tail = mlp((hidden,) * extra + (k,), "relu", 1.0, generator) if extra > 1 else None
            last = tail or orthogonal(nn.Linear(hidden, k), generator=generator)
            return nn.Sequential(conv, last)
    else:
        inputs = 1
        for size in obs_shape:
            inputs *= size

        def network(extra: int) -> nn.Module:
            sizes = (inputs, hidden, *(hidden,) * extra, k)
            return nn.Sequential(nn.Flatten(), mlp(sizes, "relu", 2**0.5, generator))

    norm = RunningMeanStd(obs_shape) if normalize else None
    return RND(
        network(0),
        network(extra_layers),
        norm,
        update_fraction=update_fraction,
        preprocess=preprocess,
        generator=generator,
    )
