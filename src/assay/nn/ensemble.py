r"""Many small networks as one tensor program: stacked weights, batched matrix products.

A grid of hyperparameters times a handful of seeds is a few hundred trainings of one small network. Run one after
the other, most of their time goes into launching small operations. Stacked, member $k$ is the slice `[k]` of every
weight, and a layer of all members is one batched product:

$$Y_k = X_k W_k^\top + b_k, \qquad k = 1 \dots K.$$

Members never see each other: each has its own initialisation (its own generator), inputs, running statistics and,
with `assay.optim.EnsembleOptimizer`, its own learning rate, decay and mask. What a member computes is what the same
network computes alone, up to the order of floating-point sums.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

Generators = torch.Generator | Sequence[torch.Generator | None] | None


def _members(members: int) -> int:
    if members < 1:
        raise ValueError(f"an ensemble has at least one member: got {members}")
    return members


def _generators(generators: Generators, members: int) -> list[torch.Generator | None]:
    if generators is None or isinstance(generators, torch.Generator):
        return [generators] * members
    if len(generators) != members:
        raise ValueError(
            f"give one generator, or one for each of the {members} members: got {len(generators)}"
        )
    return list(generators)


def _uniform(shape: tuple[int, ...], bound: float, generators: list[torch.Generator | None]) -> Tensor:
    """One uniform draw in [-bound, bound] a member, each from its own generator."""
    return torch.stack([torch.empty(shape).uniform_(-bound, bound, generator=g) for g in generators])


class EnsembleLinear(nn.Module):
    r"""`torch.nn.Linear` for K networks at once, initialised like it: $U(-1/\sqrt{n}, 1/\sqrt{n})$, $n$ inputs.

    Args:
        members: K.
        in_features, out_features: of every member.
        bias: with or without.
        generators: one for each member (then a member's weights do not depend on its companions), one for all,
            or None: torch's own.

    >>> EnsembleLinear(5, 3, 2)(torch.randn(5, 7, 3)).shape
    torch.Size([5, 7, 2])
    """

    def __init__(
        self,
        members: int,
        in_features: int,
        out_features: int,
        bias: bool = True,
        generators: Generators = None,
    ):
        super().__init__()
        each = _generators(generators, _members(members))
        bound = in_features**-0.5 if in_features else 0.0
        self.weight = nn.Parameter(_uniform((out_features, in_features), bound, each))
        """[K, out, in]."""
        self.bias = nn.Parameter(_uniform((out_features,), bound, each)) if bias else None
        """[K, out]."""

    @property
    def members(self) -> int:
        """K."""
        return self.weight.shape[0]

    def forward(
        self, x: Float[Tensor, "members batch in"] | Float[Tensor, "batch in"]
    ) -> Float[Tensor, "members batch out"]:
        """Every member on its own inputs, or all on the same."""
        # W x^T rather than x W^T: the gradient of W then comes out in W's own memory layout, without a copy.
        if x.ndim == 2:
            y = (self.weight.flatten(0, 1) @ x.T).unflatten(0, self.weight.shape[:2])
            y = y if self.bias is None else y + self.bias[..., None]
        elif self.bias is None:
            y = torch.bmm(self.weight, x.transpose(1, 2))
        else:
            y = torch.baddbmm(self.bias[..., None], self.weight, x.transpose(1, 2))
        return y.transpose(1, 2)

    def extra_repr(self) -> str:
        """Sizes for `print`."""
        members, out, features = self.weight.shape
        return f"members={members}, in_features={features}, out_features={out}, bias={self.bias is not None}"


class EnsembleConv2d(nn.Module):
    """`torch.nn.Conv2d` for K networks at once (stride, padding; no dilation or groups), initialised like it.

    A grouped convolution over the members' channels. At the sizes of real networks a convolution is bound by
    arithmetic, so expect gains only for small images and few channels.

    >>> EnsembleConv2d(4, 1, 8, 3, padding=1)(torch.randn(4, 2, 1, 14, 14)).shape
    torch.Size([4, 2, 8, 14, 14])
    """

    def __init__(
        self,
        members: int,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        generators: Generators = None,
    ):
        super().__init__()
        each = _generators(generators, _members(members))
        bound = (in_channels * kernel_size**2) ** -0.5
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.stride, self.padding = stride, padding
        self.weight = nn.Parameter(_uniform(shape, bound, each))
        """[K, out, in, kernel, kernel]."""
        self.bias = nn.Parameter(_uniform((out_channels,), bound, each)) if bias else None
        """[K, out]."""

    @property
    def members(self) -> int:
        """K."""
        return self.weight.shape[0]

    def forward(
        self,
        x: Float[Tensor, "members batch channels height width"]
        | Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, "members batch out new_height new_width"]:
        """Every member on its own images, or all on the same."""
        bias = None if self.bias is None else self.bias.flatten()
        if x.ndim == 4:  # the same images for all: an ordinary convolution with K times the outputs
            y = F.conv2d(x, self.weight.flatten(0, 1), bias, self.stride, self.padding)
        else:
            channels_last = x.transpose(0, 1).flatten(1, 2)  # [B, K*C, H, W]
            y = F.conv2d(
                channels_last, self.weight.flatten(0, 1), bias, self.stride, self.padding, groups=self.members
            )
        return y.unflatten(1, (self.members, -1)).transpose(0, 1)

    def extra_repr(self) -> str:
        """Sizes for `print`."""
        members, out, channels, size, _ = self.weight.shape
        return f"members={members}, {channels}, {out}, kernel_size={size}, stride={self.stride}"


class EnsembleBatchNorm(nn.Module):
    """`torch.nn.BatchNorm1d` or `2d` for K networks at once: every member by its own batch.

    Inputs are [K, B, F] or [K, B, F, H, W]; statistics are taken over everything but members and features.

    Args:
        members: K.
        features: F.
        affine: with a trained gain and offset, [K, F] each.
        momentum: of the running statistics (torch's meaning: the weight of the new batch).
        eps: added to the variance.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self, members: int, features: int, affine: bool = False, momentum: float = 0.1, eps: float = 1e-5
    ):
        super().__init__()
        shape = (_members(members), features)
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(shape)) if affine else None
        self.bias = nn.Parameter(torch.zeros(shape)) if affine else None
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_var", torch.ones(shape))

    @property
    def members(self) -> int:
        """K."""
        return self.running_mean.shape[0]

    def forward(self, x: Float[Tensor, "members batch features *space"]) -> Float[Tensor, "..."]:
        """By the batch's statistics in training mode (which also moves the running ones), else by the running
        ones."""
        over = (1, *range(3, x.ndim))
        shape = (x.shape[0], 1, x.shape[2]) + (1,) * (x.ndim - 3)
        if self.training:
            count = x.numel() // (x.shape[0] * x.shape[2])
            if count < 2:
                raise ValueError(
                    "batch normalisation in training mode needs more than one value a feature: got a batch of 1"
                )
            mean = x.mean(over, keepdim=True)
            centred = x - mean
            variance = centred.square().mean(over, keepdim=True)
            with torch.no_grad():
                self.running_mean.lerp_(mean.detach().view_as(self.running_mean), self.momentum)
                unbiased = variance.detach().view_as(self.running_var) * (count / (count - 1))
                self.running_var.lerp_(unbiased, self.momentum)
        else:
            centred = x - self.running_mean.view(shape)
            variance = self.running_var.view(shape)
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is None or self.bias is None:
            return centred * scale
        return torch.addcmul(self.bias.view(shape), centred, scale * self.weight.view(shape))

    def extra_repr(self) -> str:
        """Sizes for `print`."""
        return (
            f"members={self.members}, features={self.running_mean.shape[1]}, affine={self.weight is not None}"
        )


class EnsembleMLP(nn.Module):
    """K multilayer perceptrons: linear, (batch normalisation,) ReLU, ..., linear.

    Args:
        sizes: of the layers, inputs and outputs included: (196, 64, 64, 10). Two sizes make softmax regression.
        members: K.
        norm: None, or "batch": batch normalisation without gain and offset before every ReLU (the linear map
            under it then has no bias), "batch-affine": with them.
        generators: one for each member, one for all, or None.

    >>> net = EnsembleMLP((4, 8, 3), members=5)
    >>> net(torch.randn(2, 4)).shape
    torch.Size([5, 2, 3])
    >>> net.member(0)
    Sequential(
      (0): Linear(in_features=4, out_features=8, bias=True)
      (1): ReLU()
      (2): Linear(in_features=8, out_features=3, bias=True)
    )
    """

    def __init__(
        self,
        sizes: Sequence[int],
        members: int,
        norm: str | None = None,
        generators: Generators = None,
    ):
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"sizes are at least inputs and outputs, all positive: got {tuple(sizes)}")
        if norm not in (None, "batch", "batch-affine"):
            raise ValueError(f"norm is None, 'batch' or 'batch-affine': got {norm!r}")
        each = _generators(generators, _members(members))
        self.sizes, self.norm = tuple(sizes), norm
        last = len(sizes) - 2
        self.linears = nn.ModuleList(
            EnsembleLinear(members, a, b, bias=norm is None or i == last, generators=each)
            for i, (a, b) in enumerate(pairwise(sizes))
        )
        self.norms = nn.ModuleList(
            EnsembleBatchNorm(members, size, affine=norm == "batch-affine")
            for size in (sizes[1:-1] if norm else ())
        )

    @property
    def members(self) -> int:
        """K."""
        return self.linears[0].members  # type: ignore[return-value]

    def hidden(
        self, x: Float[Tensor, "members batch in"] | Float[Tensor, "batch in"]
    ) -> list[Float[Tensor, "members batch width"]]:
        """Activations of every hidden layer, after the ReLU."""
        activations = []
        for i, linear in enumerate(self.linears[:-1]):
            x = linear(x)
            if self.norm:
                x = self.norms[i](x)
            x = torch.relu(x)
            activations.append(x)
        return activations

    def forward(
        self, x: Float[Tensor, "members batch in"] | Float[Tensor, "batch in"]
    ) -> Float[Tensor, "members batch out"]:
        """Logits of every member, on its own inputs or all on the same."""
        hidden = self.hidden(x)
        return self.linears[-1](hidden[-1] if hidden else x)

    @torch.no_grad()
    def recalibrate(self, x: Float[Tensor, "members batch in"] | Float[Tensor, "batch in"]) -> None:
        """Set the running statistics to those of `x` (the whole training set, say); nothing without a norm."""
        training, momenta = self.training, [norm.momentum for norm in self.norms]
        for norm in self.norms:
            norm.momentum = 1.0
        self.train()
        self(x)
        self.train(training)
        for norm, momentum in zip(self.norms, momenta, strict=True):
            norm.momentum = momentum

    def member(self, k: int) -> nn.Sequential:
        """A copy of member `k` as plain layers: Linear, (BatchNorm1d,) ReLU, ..., Linear."""
        layers: list[nn.Module] = []
        for i, linear in enumerate(self.linears):
            _, out, features = linear.weight.shape
            plain = nn.Linear(features, out, bias=linear.bias is not None).to(linear.weight)
            _copy_member(linear, plain, k)
            layers.append(plain)
            if i < len(self.norms):
                norm = nn.BatchNorm1d(out, affine=self.norm == "batch-affine").to(linear.weight)
                _copy_member(self.norms[i], norm, k)
                layers.append(norm)
            if i < len(self.linears) - 1:
                layers.append(nn.ReLU())
        return nn.Sequential(*layers).train(self.training)

    @classmethod
    def of(cls, models: Sequence[nn.Sequential]) -> "EnsembleMLP":
        """The ensemble of plain networks as `member` makes them: the inverse of it.

        Raises:
            ValueError: they are not all of the form and sizes that `member` gives.
        """
        if not models:
            raise ValueError("an ensemble has at least one member: got no models")
        linears = [layer for layer in models[0] if isinstance(layer, nn.Linear)]
        norms = [layer for layer in models[0] if isinstance(layer, nn.BatchNorm1d)]
        if not linears:
            raise ValueError("the models hold no torch.nn.Linear")
        sizes = (linears[0].in_features, *(layer.out_features for layer in linears))
        norm = None if not norms else "batch-affine" if norms[0].affine else "batch"
        ensemble = cls(sizes, len(models), norm)
        for k, model in enumerate(models):
            expected = [type(layer) for layer in ensemble.member(0)]
            if [type(layer) for layer in model] != expected:
                raise ValueError(
                    "every model must be Linear, (BatchNorm1d,) ReLU, ..., Linear, with the same layers in all:"
                    f" model {k} is {[type(layer).__name__ for layer in model]}"
                )
            plain = [layer for layer in model if isinstance(layer, nn.Linear)]
            plain_norms = [layer for layer in model if isinstance(layer, nn.BatchNorm1d)]
            for stacked, layer in zip(
                [*ensemble.linears, *ensemble.norms], [*plain, *plain_norms], strict=True
            ):
                _load_member(stacked, layer, k)
        return ensemble.train(models[0].training)


class EnsembleGRU(nn.Module):
    """`torch.nn.GRU` (one layer, batch first) for K networks at once, initialised like it.

    One batched product a time step for all members, so its cost grows slowly with K.

    >>> states, last = EnsembleGRU(3, 5, 8)(torch.randn(3, 2, 7, 5))
    >>> states.shape, last.shape
    (torch.Size([3, 2, 7, 8]), torch.Size([3, 2, 8]))
    """

    def __init__(self, members: int, inputs: int, hidden: int, generators: Generators = None):
        super().__init__()
        each = _generators(generators, _members(members))
        bound = hidden**-0.5
        self.weight_ih = nn.Parameter(_uniform((3 * hidden, inputs), bound, each))
        """[K, 3 hidden, inputs]: reset, update, candidate, as torch orders them."""
        self.weight_hh = nn.Parameter(_uniform((3 * hidden, hidden), bound, each))
        self.bias_ih = nn.Parameter(_uniform((3 * hidden,), bound, each))
        self.bias_hh = nn.Parameter(_uniform((3 * hidden,), bound, each))

    @property
    def members(self) -> int:
        """K."""
        return self.weight_ih.shape[0]

    def forward(
        self,
        x: Float[Tensor, "members batch time inputs"],
        state: Float[Tensor, "members batch hidden"] | None = None,
    ) -> tuple[Float[Tensor, "members batch time hidden"], Float[Tensor, "members batch hidden"]]:
        """States after every step, and the last one. `state` defaults to zeros."""
        members, batch, time, _ = x.shape
        hidden = self.weight_hh.shape[2]
        if state is None:
            state = x.new_zeros(members, batch, hidden)
        projected = torch.baddbmm(self.bias_ih[:, None], x.flatten(1, 2), self.weight_ih.transpose(1, 2))
        inputs = projected.view(members, batch, time, 3 * hidden).unbind(2)
        recurrent, bias = self.weight_hh.transpose(1, 2), self.bias_hh[:, None]
        states = []
        for step in inputs:
            gates = torch.baddbmm(bias, state, recurrent)
            reset_update = torch.sigmoid(step[..., : 2 * hidden] + gates[..., : 2 * hidden])
            reset, update = reset_update.chunk(2, -1)
            candidate = torch.tanh(torch.addcmul(step[..., 2 * hidden :], reset, gates[..., 2 * hidden :]))
            state = torch.lerp(candidate, state, update)
            states.append(state)
        return torch.stack(states, 2), state

    def member(self, k: int) -> nn.GRU:
        """A copy of member `k` as a `torch.nn.GRU`."""
        gru = nn.GRU(self.weight_ih.shape[2], self.weight_hh.shape[2], batch_first=True).to(self.weight_ih)
        with torch.no_grad():
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(gru, f"{name}_l0").copy_(getattr(self, name)[k])
        return gru


class EnsembleEmbedding(nn.Module):
    """`torch.nn.Embedding` for K networks at once: standard normal rows, [K, count, width].

    >>> EnsembleEmbedding(3, 10, 4)(torch.zeros(3, 2, 5, dtype=torch.int64)).shape
    torch.Size([3, 2, 5, 4])
    """

    def __init__(self, members: int, count: int, width: int, generators: Generators = None):
        super().__init__()
        each = _generators(generators, _members(members))
        self.weight = nn.Parameter(torch.stack([torch.randn(count, width, generator=g) for g in each]))

    @property
    def members(self) -> int:
        """K."""
        return self.weight.shape[0]

    def forward(self, index: Int64[Tensor, "members *shape"]) -> Float[Tensor, "members *shape width"]:
        """Rows of each member's own table."""
        members, count, width = self.weight.shape
        offset = torch.arange(members, device=index.device).mul(count).view(-1, *[1] * (index.ndim - 1))
        return F.embedding(index + offset, self.weight.view(members * count, width))


def ensemble_cross_entropy(
    logits: Float[Tensor, "members batch classes"],
    labels: Int64[Tensor, "members batch"] | Int64[Tensor, " batch"],
    label_smoothing: float = 0.0,
) -> Float[Tensor, " members"]:
    """Mean cross-entropy of every member. The sum over members is what to call `backward` on: each member's
    gradient is then that of its own mean loss."""
    members, batch, _ = logits.shape
    labels = labels.expand(members, batch)
    return (
        F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), reduction="none", label_smoothing=label_smoothing
        )
        .view(members, batch)
        .mean(1)
    )


@torch.no_grad()
def ensemble_error(
    logits: Float[Tensor, "members batch classes"],
    labels: Int64[Tensor, "members batch"] | Int64[Tensor, " batch"],
) -> Float[Tensor, " members"]:
    """Share of wrong answers of every member; 1 where a member's logits are not finite (it diverged)."""
    wrong = (logits.argmax(-1) != labels).to(logits.dtype).mean(1)
    return torch.where(logits.isfinite().flatten(1).all(1), wrong, torch.ones_like(wrong))


def _copy_member(stacked: nn.Module, plain: nn.Module, k: int) -> None:
    """Write member `k` of `stacked` into the plain layer with the same names."""
    plain.load_state_dict({name: value[k] for name, value in stacked.state_dict().items()}, strict=False)


def _load_member(stacked: nn.Module, plain: nn.Module, k: int) -> None:
    """Write the plain layer into member `k` of `stacked`."""
    source = plain.state_dict()
    for name, value in stacked.state_dict().items():
        if name not in source or source[name].shape != value[k].shape:
            raise ValueError(
                f"model {k}: {name} does not have the shape {tuple(value.shape[1:])} of the first model"
            )
        value[k].copy_(source[name])
