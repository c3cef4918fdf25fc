r"""Torsos, cores and heads of policies: from observations to features to distributions and values.

A **torso** maps observations with any leading dimensions, [N, *obs] or [T, N, *obs], to features [..., F]: time is
folded into the batch (IMPALA, section 3.1). A **core** carries memory over time. A **head** reads features.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from assay.rl.distributions import ActionDistribution, Categorical, DiagGaussian, MultiCategorical

Layer = TypeVar("Layer", nn.Linear, nn.Conv1d, nn.Conv2d)
_ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "silu": nn.SiLU, "elu": nn.ELU}


def activation(name: str) -> nn.Module:
    """The activation called `name`: tanh, relu, leaky_relu, silu (swish) or elu."""
    if name not in _ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}: choose from {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]()


def orthogonal(
    layer: Layer, gain: float = 2**0.5, bias: float = 0.0, generator: torch.Generator | None = None
) -> Layer:
    """Orthogonal weights with `gain` and a constant bias, in place (Saxe et al., 2014); returns the layer."""
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    if layer.bias is not None:
        nn.init.constant_(layer.bias, bias)
    return layer


def mlp(
    sizes: Sequence[int],
    act: str = "relu",
    final_gain: float | None = None,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Linear layers with activations between, orthogonally initialised.

    Args:
        sizes: of the layers, inputs included.
        act: see `activation`.
        final_gain: the last layer has no activation and this gain; None: it is activated like the others.
        generator: of the initialisation.
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes are at least inputs and outputs: got {tuple(sizes)}")
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(sizes)):
        plain = final_gain is not None and i == len(sizes) - 2
        gain = final_gain if final_gain is not None and plain else 2**0.5
        layers.append(orthogonal(nn.Linear(a, b), gain, generator=generator))
        if not plain:
            layers.append(activation(act))
    return nn.Sequential(*layers)


class Torso(nn.Module):
    """Observations [..., *obs] to features [..., `features`]; subclasses write `encode` on a flat batch."""

    features: int
    obs_ndim: int
    """Dimensions of one observation: 1 for vectors, 3 for images."""

    def encode(self, obs: Tensor) -> Tensor:
        """[B, *obs] to [B, features]."""
        raise NotImplementedError

    def forward(self, obs: Tensor) -> Tensor:
        """Any leading dimensions."""
        lead = obs.shape[: obs.ndim - self.obs_ndim]
        if len(lead) == 1:
            return self.encode(obs)
        return self.encode(obs.reshape(-1, *obs.shape[len(lead) :])).unflatten(0, lead)


class MLPTorso(Torso):
    """A multilayer perceptron; with `obs_ndim` 2 or 3 grids and images are flattened first.

    >>> MLPTorso((4, 64, 64), "tanh")(torch.randn(7, 5, 4)).shape
    torch.Size([7, 5, 64])
    """

    def __init__(
        self,
        sizes: Sequence[int],
        act: str = "tanh",
        obs_ndim: int = 1,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.net = mlp(sizes, act, generator=generator)
        self.features, self.obs_ndim = sizes[-1], obs_ndim

    def encode(self, obs: Tensor) -> Tensor:
        """[B, *obs] to [B, features]."""
        return self.net(_scaled(obs).flatten(1))

    def forward(self, obs: Tensor) -> Tensor:
        """Linear layers take any leading dimensions as they are."""
        return self.net(obs) if self.obs_ndim == 1 else super().forward(obs)


def _scaled(obs: Tensor) -> Tensor:
    return obs.float() / 255 if obs.dtype == torch.uint8 else obs


class NatureConv(Torso):
    """Three strided convolutions and a dense layer, for 84x84 frames (Mnih et al., 2015); uint8 is scaled to 0..1."""

    obs_ndim = 3

    def __init__(
        self,
        channels: int = 4,
        size: int = 84,
        features: int = 512,
        act: str = "relu",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        convs: list[nn.Module] = []
        for before, after, kernel, stride in ((channels, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1)):
            convs.append(orthogonal(nn.Conv2d(before, after, kernel, stride), generator=generator))
            convs.append(activation(act))
            size = (size - kernel) // stride + 1
        if size < 1:
            raise ValueError("the Nature network needs images of at least 36x36 pixels")
        self.convs = nn.Sequential(*convs, nn.Flatten())
        dense = orthogonal(nn.Linear(64 * size**2, features), generator=generator)
        self.dense = nn.Sequential(dense, activation(act))
        self.features = features

    def encode(self, obs: Tensor) -> Tensor:
        """[B, C, S, S] to [B, features]."""
        return self.dense(self.convs(_scaled(obs)))


class SmallGridConv(Torso):
    """Two 3x3 convolutions and a dense layer, for grids of 7 to 20 cells a side.

    Args:
        shape: (channels, height, width) of an observation.
        features: outputs.
        width: channels of the first convolution; the second has twice as many.
        stride: of the second convolution.
        act: see `activation`.
        generator: of the initialisation.
    """

    obs_ndim = 3

    def __init__(
        self,
        shape: tuple[int, int, int],
        features: int = 64,
        width: int = 16,
        stride: int = 2,
        act: str = "relu",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        channels, height, across = shape
        self.convs = nn.Sequential(
            orthogonal(nn.Conv2d(channels, width, 3, padding=1), generator=generator),
            activation(act),
            orthogonal(nn.Conv2d(width, 2 * width, 3, stride, padding=1), generator=generator),
            activation(act),
            nn.Flatten(),
        )
        flat = 2 * width * ((height - 1) // stride + 1) * ((across - 1) // stride + 1)
        dense = orthogonal(nn.Linear(flat, features), generator=generator)
        self.dense = nn.Sequential(dense, activation(act))
        self.features = features

    def encode(self, obs: Tensor) -> Tensor:
        """[B, C, H, W] to [B, features]."""
        return self.dense(self.convs(_scaled(obs)))


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.one = nn.Conv2d(channels, channels, 3, padding=1)
        self.two = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(F.relu(self.one(F.relu(x))))


class ImpalaResNet(Torso):
    """The deep network of IMPALA (Espeholt et al., 2018, figure 3).

    A section is a convolution, a pooling that halves the image, and two residual blocks.

    Args:
        channels: of the observation.
        size: pixels a side, or (height, width).
        widths: channels of the sections; (16, 32, 32) in the paper.
        features: of the dense layer; 256 in the paper.
    """

    obs_ndim = 3

    def __init__(
        self,
        channels: int = 4,
        size: int | tuple[int, int] = 84,
        widths: Sequence[int] = (16, 32, 32),
        features: int = 256,
    ):
        super().__init__()
        height, across = (size, size) if isinstance(size, int) else size
        layers: list[nn.Module] = []
        for width in widths:
            layers += [
                nn.Conv2d(channels, width, 3, padding=1),
                nn.MaxPool2d(3, 2, padding=1),
                _ResidualBlock(width),
                _ResidualBlock(width),
            ]
            channels, height, across = width, (height - 1) // 2 + 1, (across - 1) // 2 + 1
        self.sections = nn.Sequential(*layers, nn.ReLU(), nn.Flatten())
        self.dense = nn.Sequential(nn.Linear(channels * height * across, features), nn.ReLU())
        self.features = features

    def encode(self, obs: Tensor) -> Tensor:
        """[B, C, H, W] to [B, features]."""
        return self.dense(self.sections(_scaled(obs)))


class TextEncoder(Torso):
    """Word ids [..., L] to a vector: embeddings, then their mean ("bag") or a GRU's last state; id 0 is padding."""

    obs_ndim = 1

    def __init__(self, vocabulary: int, dim: int = 32, kind: str = "gru"):
        super().__init__()
        if kind not in ("bag", "gru"):
            raise ValueError(f"kind is 'bag' or 'gru': got {kind!r}")
        self.embedding = nn.Embedding(vocabulary, dim, padding_idx=0)
        self.gru = nn.GRU(dim, dim, batch_first=True) if kind == "gru" else None
        self.features = dim

    def encode(self, obs: Tensor) -> Tensor:
        """[B, L] int64 to [B, dim]; a text of padding alone is zeros."""
        words, real = self.embedding(obs), obs != 0
        if self.gru is None:
            return words.sum(1) / real.sum(1, keepdim=True).clamp(min=1)
        states, _ = self.gru(words)
        last = (real.sum(1) - 1).clamp(min=0)
        return states[torch.arange(len(obs), device=obs.device), last] * real.any(1, keepdim=True)


class DictTorso(nn.Module):
    """Dictionaries of observations: one torso a key, features side by side.

    >>> torso = DictTorso({"image": SmallGridConv((3, 7, 7)), "mission": TextEncoder(20)})
    >>> torso({"image": torch.rand(5, 3, 7, 7), "mission": torch.randint(20, (5, 4))}).shape
    torch.Size([5, 96])
    """

    def __init__(self, torsos: dict[str, Torso]):
        super().__init__()
        self.torsos = nn.ModuleDict(torsos)
        self.features = sum(torso.features for torso in torsos.values())

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        """Any leading dimensions, the same in every key."""
        return torch.cat([torso(obs[key]) for key, torso in self.torsos.items()], -1)


LSTMState = tuple[Tensor, Tensor]


class LSTMCore(nn.Module):
    """An LSTM over [T, N, F] whose state is zeroed BEFORE every step that begins an episode.

    >>> core = LSTMCore(8, 16)
    >>> y, state = core(torch.randn(5, 3, 8), core.initial(3), torch.zeros(5, 3, dtype=torch.bool))
    >>> y.shape
    torch.Size([5, 3, 16])
    """

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden)
        self.features = hidden

    def initial(self, num_envs: int) -> LSTMState:
        """Zeros ([N, hidden] twice)."""
        zeros = self.lstm.weight_hh_l0.new_zeros(num_envs, self.features)
        return zeros, zeros.clone()

    def forward(
        self, x: Float[Tensor, "time envs inputs"], state: LSTMState, first: Tensor
    ) -> tuple[Float[Tensor, "time envs hidden"], LSTMState]:
        """`first` [T, N] bool: this step begins an episode."""
        # Steps between two beginnings of episodes go through the fused kernel in one call.
        starts = sorted({0, *first.any(1).nonzero().flatten().tolist()})
        outputs = []
        for a, b in pairwise([*starts, len(x)]):
            keep = (~first[a]).to(x.dtype)[:, None]
            y, (h, c) = self.lstm(x[a:b], ((state[0] * keep)[None], (state[1] * keep)[None]))
            outputs.append(y)
            state = (h[0], c[0])
        return torch.cat(outputs), state


class PolicyHead(nn.Module):
    """Features to the parameters of an action distribution."""

    def params(self, features: Tensor) -> Tensor:
        """[..., F] to [..., P]."""
        raise NotImplementedError

    def distribution(self, params: Tensor, mask: Tensor | None = None) -> ActionDistribution:
        """The distribution with these parameters (as a rollout stores them)."""
        raise NotImplementedError

    def forward(self, features: Tensor, mask: Tensor | None = None) -> ActionDistribution:
        """The distribution; `mask` [..., A]: legal actions."""
        return self.distribution(self.params(features), mask)


class CategoricalHead(PolicyHead):
    """A linear layer to logits, small at first (gain 0.01), so that the first policy is nearly uniform."""

    def __init__(
        self, features: int, actions: int, gain: float = 0.01, generator: torch.Generator | None = None
    ):
        super().__init__()
        self.linear = orthogonal(nn.Linear(features, actions), gain, generator=generator)

    def params(self, features: Tensor) -> Tensor:
        """Logits [..., A]."""
        return self.linear(features)

    def distribution(self, params: Tensor, mask: Tensor | None = None) -> Categorical:
        """From logits [..., A]."""
        return Categorical(params, mask)


class MultiCategoricalHead(PolicyHead):
    """Several independent discrete choices: actions [..., k]."""

    def __init__(
        self,
        features: int,
        sizes: Sequence[int],
        gain: float = 0.01,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.sizes = tuple(sizes)
        self.linear = orthogonal(nn.Linear(features, sum(sizes)), gain, generator=generator)

    def params(self, features: Tensor) -> Tensor:
        """Logits [..., sum(sizes)]."""
        return self.linear(features)

    def distribution(self, params: Tensor, mask: Tensor | None = None) -> MultiCategorical:
        """From logits; takes no mask."""
        if mask is not None:
            raise ValueError("action masks serve single discrete actions only")
        return MultiCategorical(params, self.sizes)


class GaussianHead(PolicyHead):
    """Means from a linear layer; log standard deviations free, or from the state (`state_dependent_std`).

    Args:
        features: F.
        actions: d.
        squash: None, or "tanh".
        state_dependent_std: a second linear output instead of one parameter an action.
        log_std: at first.
        bounds: of the log standard deviation.
        gain: of the linear layer.
        generator: of the initialisation.
    """

    def __init__(
        self,
        features: int,
        actions: int,
        squash: str | None = None,
        state_dependent_std: bool = False,
        log_std: float = 0.0,
        bounds: tuple[float, float] = (-5.0, 2.0),
        gain: float = 0.01,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if squash not in (None, "tanh"):
            raise ValueError(f"squash is None or 'tanh': got {squash!r}")
        self.actions, self.squash, self.bounds = actions, squash == "tanh", bounds
        outputs = 2 * actions if state_dependent_std else actions
        self.linear = orthogonal(nn.Linear(features, outputs), gain, generator=generator)
        self.log_std = None if state_dependent_std else nn.Parameter(torch.full((actions,), log_std))
        if state_dependent_std:
            nn.init.constant_(self.linear.bias[actions:], log_std)

    def params(self, features: Tensor) -> Tensor:
        """Means and log standard deviations [..., 2 d]."""
        out = self.linear(features)
        if self.log_std is None:
            mean, log_std = out.split(self.actions, -1)
        else:
            mean, log_std = out, self.log_std.expand_as(out)
        return torch.cat([mean, log_std.clamp(*self.bounds)], -1)

    def distribution(self, params: Tensor, mask: Tensor | None = None) -> DiagGaussian:
        """From means and log standard deviations [..., 2 d]."""
        if mask is not None:
            raise ValueError("action masks serve discrete actions only")
        mean, log_std = params.split(self.actions, -1)
        return DiagGaussian(mean, log_std, self.squash)


class ValueHead(nn.Module):
    """A linear layer to K values, one a reward stream."""

    def __init__(
        self, features: int, streams: int = 1, gain: float = 1.0, generator: torch.Generator | None = None
    ):
        super().__init__()
        self.linear = orthogonal(nn.Linear(features, streams), gain, generator=generator)
        self.streams = streams

    def forward(self, features: Tensor) -> Tensor:
        """[..., F] to [..., K]."""
        return self.linear(features)
