r"""Feature spaces in which curiosity measures its surprise (Burda et al. 2018, arXiv 1808.04355, section 2.1).

A forward model that predicts pixels is surprised by every leaf in the wind; what it should predict is a question of the
feature space. Three properties are wanted and none of the four spaces has all: *compact* (few numbers),
*sufficient* (they hold what matters), *stationary* (they do not move while the forward model learns).

=====================  ========  ==========  ===========
space                  compact   sufficient  stationary
=====================  ========  ==========  ===========
pixels                 no        yes         yes
random features        yes       perhaps     yes
inverse dynamics       yes       perhaps     no
autoencoder (VAE)      yes       yes         no
=====================  ========  ==========  ===========
"""

import abc
import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from assay.envs.base import Obs, TensorEnv
from assay.rl.intrinsic.base import flat_view, freeze
from assay.rl.nets import NatureConv, SmallGridConv, mlp, orthogonal
from assay.rl.normalize import RunningMeanStd
from assay.rl.rollout import Batch, Rollout, random_rollout


class ActionCode(nn.Module):
    """Actions as vectors of `size` numbers: one-hot where they are discrete, themselves where they are continuous.

    Args:
        num_actions: number of discrete actions, or
        act_dim: numbers in a continuous action.

    >>> ActionCode(num_actions=3)(torch.tensor([2, 0]))
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """

    def __init__(self, num_actions: int | None = None, act_dim: int | None = None):
        super().__init__()
        if (num_actions is None) == (act_dim is None):
            raise ValueError("say how many discrete actions there are, or how many numbers an action has")
        self.discrete = num_actions is not None
        self.size: int = num_actions if num_actions is not None else act_dim  # type: ignore[assignment]
        if self.size < 1:
            raise ValueError(f"an action space has at least one action or dimension: got {self.size}")

    @classmethod
    def of(cls, env: TensorEnv) -> "ActionCode":
        """The code of an environment's actions."""
        if env.num_actions is not None:
            return cls(num_actions=env.num_actions)
        return cls(act_dim=math.prod(env.single_action_space.shape))

    def forward(self, action: Tensor) -> Tensor:
        """Actions [B] int64, or [B, size] floats, to [B, size] float32."""
        if not self.discrete:
            if action.shape[-1:] != (self.size,) or not action.is_floating_point():
                raise ValueError(
                    f"actions are floats [B, {self.size}]: got {tuple(action.shape)} {action.dtype}"
                )
            return action.float()
        if action.ndim != 1 or action.is_floating_point():
            raise ValueError(
                f"discrete actions are whole numbers [B]: got {tuple(action.shape)} {action.dtype}"
            )
        return F.one_hot(action, self.size).float()


class FeatureSpace(nn.Module, abc.ABC):
    """An embedding of observations. Subclasses write `embed`, and `loss` if it learns.

    Args:
        size: d, numbers in an embedding.
        obs_ndim: dimensions of one observation (1 for vectors, 3 for images).
        obs_norm: statistics by which observations are whitened; gather them with `init_stats`.
        scalar_std: divide by ONE standard deviation, the mean over all entries, instead of each by its own (the
            released code of arXiv 1808.04355): pixels that hardly ever change are then not blown up.
        clip: whitened observations are cut to [-clip, clip]; None: not.
        preprocess: from the policy's observation to what is embedded.
    """

    stationary: bool = False
    """Whether the embedding of an observation stays what it is while the agent learns."""

    def __init__(
        self,
        size: int,
        obs_ndim: int = 1,
        obs_norm: RunningMeanStd | None = None,
        scalar_std: bool = False,
        clip: float | None = 5.0,
        preprocess: Callable[[Obs], Tensor] | None = None,
    ):
        super().__init__()
        if size < 1:
            raise ValueError(f"a feature space has at least one feature: got {size}")
        self.size, self.obs_ndim, self.obs_norm = size, obs_ndim, obs_norm
        self.scalar_std, self.clip, self.preprocess = scalar_std, clip, preprocess

    @abc.abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """[B, *x] (whitened) to [B, d]."""

    def see(self, obs: Obs) -> tuple[Tensor, tuple[int, ...]]:
        """What `embed` is given, [B, *x], and the leading dimensions of `obs`.

        Raises:
            ValueError: observations that are not finite, or cannot be read.
        """
        return self._whiten(self._raw(obs))

    def _raw(self, obs: Obs) -> Tensor:
        x = obs if self.preprocess is None else self.preprocess(obs)
        if isinstance(x, dict):
            raise ValueError("features are of one tensor: give `preprocess` to choose it from a dictionary")
        if x.dtype == torch.uint8 and self.obs_norm is None:
            raise ValueError("uint8 images need obs_norm (or a preprocess that scales them)")
        return x if x.is_floating_point() else x.float()

    def _whiten(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        name = type(self).__name__
        if not self.scalar_std or self.obs_norm is None:
            flat, lead = flat_view(x, self.obs_ndim, self.obs_norm, self.clip, who=name)
        else:
            if not bool(self.obs_norm.count > 0):
                raise ValueError("no statistics yet: call init_stats before the first use")
            flat, lead = flat_view(x, self.obs_ndim, who=name)
            flat = (flat - self.obs_norm.mean.to(flat.dtype)) / self.obs_norm.std.mean().to(flat.dtype)
            flat = flat if self.clip is None else flat.clamp(-self.clip, self.clip)
        if not bool(torch.isfinite(flat).all()):
            raise ValueError(f"{name} was given observations that are not finite")
        return flat, lead

    def features(self, obs: Obs) -> Tensor:
        """[..., d] of observations [..., *obs], with gradient."""
        flat, lead = self.see(obs)
        return self.embed(flat).reshape(*lead, self.size)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """What trains the embedding, by name; nothing where it does not learn."""
        return {}

    def observe(self, rollout: Rollout) -> None:
        """Take the rollout's valid next observations into the statistics (unless these are frozen)."""
        if self.obs_norm is not None and not bool(self.obs_norm.frozen):
            self.obs_norm.update(self._raw(rollout.next_obs()), rollout.valid)

    def init_stats(self, env: TensorEnv, steps: int, generator: torch.Generator | None = None) -> None:
        """Fill the statistics with random actions' observations; resets `env`."""
        self.observe(random_rollout(env, steps, generator))


class PixelFeatures(FeatureSpace):
    """The observation itself, whitened and flattened: complete, and as large as it is.

    Args:
        obs_shape: of one observation.
        **options: of `FeatureSpace` (obs_norm, scalar_std, clip, preprocess).
    """

    stationary = True

    def __init__(self, obs_shape: tuple[int, ...], **options: Any):
        super().__init__(math.prod(obs_shape), len(obs_shape), **options)

    def embed(self, x: Tensor) -> Tensor:
        """[B, *obs] to [B, d]."""
        return x.flatten(1)


class RandomFeatures(FeatureSpace):
    """A network that keeps its random weights: compact and stationary, and nobody promised that it is sufficient.

    Args:
        net: [B, *obs] to [B, d]; its parameters are turned into buffers.
        size: d.
        obs_ndim: dimensions of one observation.
        **options: of `FeatureSpace`.

    >>> space = make_features("random", (4,), 16, normalize=False)
    >>> space.features(torch.randn(7, 5, 4)).shape, list(space.parameters())
    (torch.Size([7, 5, 16]), [])
    """

    stationary = True

    def __init__(self, net: nn.Module, size: int, obs_ndim: int = 1, **options: Any):
        super().__init__(size, obs_ndim, **options)
        self.net = freeze(net)

    def embed(self, x: Tensor) -> Tensor:
        """[B, *obs] to [B, d]."""
        with torch.no_grad():
            return self.net(x)


class InverseDynamicsFeatures(FeatureSpace):
    r"""Features from which the action between two observations can be told (Pathak et al. 2017, arXiv 1705.05363).

    $\phi$ and a small network $g$ are trained on $-\log p(a_t | g(\phi(x_t), \phi(x_{t+1})))$, for continuous actions
    on the squared error. What the agent cannot influence does not help, so it need not be in $\phi$.

    Args:
        net: [B, *obs] to [B, d].
        size: d.
        actions: the code of the actions.
        hidden: units of g's hidden layer.
        obs_ndim: dimensions of one observation.
        generator: of g's initialisation.
        **options: of `FeatureSpace`.
    """

    def __init__(
        self,
        net: nn.Module,
        size: int,
        actions: ActionCode,
        hidden: int = 512,
        obs_ndim: int = 1,
        generator: torch.Generator | None = None,
        **options: Any,
    ):
        super().__init__(size, obs_ndim, **options)
        self.net, self.actions = net, actions
        self.inverse = mlp((2 * size, hidden, actions.size), "relu", 1.0, generator)

    def embed(self, x: Tensor) -> Tensor:
        """[B, *obs] to [B, d]."""
        return self.net(x)

    def guess(self, obs: Obs, next_obs: Obs) -> Float[Tensor, "batch actions"]:
        """Logits of the action between two observations [B, *obs] (continuous: the action itself)."""
        return self.inverse(torch.cat((self.features(obs), self.features(next_obs)), -1))

    def accuracy(self, obs: Obs, action: Tensor, next_obs: Obs) -> Tensor:
        """Share of discrete actions [B] that are told right (continuous: the mean squared error)."""
        with torch.no_grad():
            guess = self.guess(obs, next_obs)
            if self.actions.discrete:
                return (guess.argmax(-1) == action).float().mean()
            return F.mse_loss(guess, self.actions(action))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The inverse model's loss; rows that are no transitions do not count."""
        action, valid = batch.action[batch.valid], batch.valid
        if not len(action):
            return {"inverse": batch.rollout.reward.new_zeros(())}
        guess = self.guess(_rows(batch.obs, valid), _rows(batch.next_obs, valid))
        if self.actions.discrete:
            return {"inverse": F.cross_entropy(guess, action)}
        return {"inverse": F.mse_loss(guess, self.actions(action))}


class VAEFeatures(FeatureSpace):
    r"""The means of a variational autoencoder's code (Kingma & Welling, arXiv 1312.6114).

    Trained on minus the evidence bound, summed over pixels, averaged over observations:
    $\mathrm{KL}(q(z|x) \| N(0, I)) - E_q \log N(x; \mathrm{decoder}(z), \sigma^2)$.

    Args:
        encoder: [B, *obs] to [B, 2 d]: means, and what the softplus turns into standard deviations.
        decoder: [B, d] to [B, *obs] (flat or in shape).
        size: d.
        obs_shape: of one observation.
        scale: "shared": one learned sigma; "pixel": one for each entry.
        dequantise: uint8 observations get uniform noise in [0, 1) before they are reconstructed.
        generator: of the code's noise.
        **options: of `FeatureSpace`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        size: int,
        obs_shape: tuple[int, ...],
        scale: str = "shared",
        dequantise: bool = True,
        generator: torch.Generator | None = None,
        **options: Any,
    ):
        super().__init__(size, len(obs_shape), **options)
        if scale not in ("shared", "pixel"):
            raise ValueError(f"scale is 'shared' or 'pixel': got {scale!r}")
        self.encoder, self.decoder, self.generator, self.dequantise = encoder, decoder, generator, dequantise
        self.log_scale = nn.Parameter(torch.zeros(() if scale == "shared" else obs_shape))

    def code(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [B, d] of the code of [B, *obs]."""
        mean, raw = self.encoder(x).chunk(2, -1)
        if mean.shape[-1] != self.size:
            raise ValueError(f"the encoder must give {2 * self.size} numbers: got {2 * mean.shape[-1]}")
        return mean, F.softplus(raw)

    def embed(self, x: Tensor) -> Tensor:
        """The mean of the code, [B, d]."""
        return self.code(x)[0]

    def negative_elbo(
        self, x: Float[Tensor, "batch ..."], noise: Float[Tensor, "batch d"] | None = None
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """(KL, minus the log-likelihood of one sample) for each of [B, *obs]; `noise` replaces the drawn one."""
        mean, std = self.code(x)
        if noise is None:
            noise = torch.empty_like(mean).normal_(generator=self.generator)
        kl = (0.5 * (mean.square() + std.square() - 1) - std.log()).sum(-1)
        shown = self.decoder(mean + std * noise).view_as(x)
        log_scale = self.log_scale.expand_as(x)
        nll = 0.5 * ((x - shown) / log_scale.exp()).square() + log_scale + 0.5 * math.log(2 * math.pi)
        return kl, nll.flatten(1).sum(1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The negative bound a pixel, so that its size does not drown the other losses in a shared optimizer."""
        obs = self._raw(_rows(batch.obs, batch.valid))
        if not len(obs):
            return {"vae": obs.new_zeros(())}
        pictures = batch.rollout.obs
        if self.dequantise and isinstance(pictures, Tensor) and pictures.dtype == torch.uint8:
            obs = obs + torch.empty_like(obs).uniform_(generator=self.generator)
        x, _ = self._whiten(obs)
        kl, nll = self.negative_elbo(x)
        return {"vae": (kl + nll).mean() / x[0].numel()}


def _rows(obs: Obs, valid: Tensor) -> Obs:
    return {k: v[valid] for k, v in obs.items()} if isinstance(obs, dict) else obs[valid]


def make_features(
    kind: str,
    obs_shape: tuple[int, ...],
    size: int = 512,
    hidden: int = 512,
    actions: ActionCode | None = None,
    normalize: bool = True,
    generator: torch.Generator | None = None,
    **options: Any,
) -> FeatureSpace:
    """A feature space with ready-made networks: the paper's convolutions for images of 36 pixels a side or more, two
    small ones for smaller images, else two layers of leaky ReLU.

    Args:
        kind: "pixels", "random", "inverse" or "vae".
        obs_shape: of what is embedded.
        size: d (pixels: all of them).
        hidden: units.
        actions: code of the actions; "inverse" needs it.
        normalize: whiten observations.
        generator: of initialisation (and of the autoencoder's noise).
        **options: of `FeatureSpace`.
    """
    norm = RunningMeanStd(obs_shape) if normalize else None
    options = {"obs_norm": norm, **options}
    if kind == "pixels":
        return PixelFeatures(obs_shape, **options)
    if kind not in ("random", "inverse", "vae"):
        raise ValueError(f"feature spaces are pixels, random, inverse or vae: got {kind!r}")
    ndim = len(obs_shape)

    def network(outputs: int) -> nn.Module:
        if ndim == 3:
            channels, height, width = obs_shape
            body: nn.Module
            if min(height, width) >= 36:
                if height != width:
                    raise ValueError(f"large images are square: got {height} x {width}")
                body = NatureConv(channels, height, hidden, "leaky_relu", generator)
            else:
                body = SmallGridConv((channels, height, width), hidden, act="leaky_relu", generator=generator)
            return nn.Sequential(body, orthogonal(nn.Linear(hidden, outputs), 1.0, generator=generator))
        sizes = (math.prod(obs_shape), hidden, outputs)
        return nn.Sequential(nn.Flatten(), mlp(sizes, "leaky_relu", 2**0.5, generator))

    if kind == "random":
        return RandomFeatures(network(size), size, ndim, **options)
    if kind == "inverse":
        if actions is None:
            raise ValueError("inverse dynamics needs to know the actions: give actions=ActionCode.of(env)")
        return InverseDynamicsFeatures(network(size), size, actions, hidden, ndim, generator, **options)
    decoder = mlp((size, hidden, math.prod(obs_shape)), "leaky_relu", 1.0, generator)
    return VAEFeatures(network(2 * size), decoder, size, obs_shape, generator=generator, **options)
