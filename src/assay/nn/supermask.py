r"""Supermasks: the weights stay as they were drawn, what is learnt is which of them to use.

Zhou et al. 2019 (arXiv 1905.01067, section 5): every weight has a score $m$; a forward pass draws a mask
$z \sim \mathrm{Bernoulli}(\sigma(m))$ and uses $z \odot w$; the gradient passes the draw as if $z$ were $\sigma(m)$.
"""

import math
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Mode = Literal["bernoulli", "round"]
Weights = Literal["init", "signed_constant"]


class _StraightThrough(torch.autograd.Function):
    """p > u as zeros and ones; the gradient passes as if the result were p = sigma(score)."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, threshold: Tensor) -> Tensor:
        p = torch.sigmoid(scores)
        ctx.save_for_backward(p)
        # Comparing straight into floats: a boolean in between would cost more than all the rest.
        return torch.gt(p, threshold, out=torch.empty_like(p))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (p,) = ctx.saved_tensors
        return gradient * p * (1 - p), None


def sample_mask(
    scores: Float[Tensor, "*shape"], mode: Mode = "bernoulli", generator: torch.Generator | None = None
) -> Float[Tensor, "*shape"]:
    """A mask of zeros and ones from scores, with the straight-through gradient: d mask / d score = sigma'(score).

    Args:
        scores: logits; a weight is used with probability sigma(score).
        mode: "bernoulli" draws, "round" uses what is as likely as not or more (sigma >= 1/2).
        generator: of the draw; on the scores' device.

    >>> sample_mask(torch.tensor([-9.0, 9.0]), "round")
    tensor([0., 1.])
    """
    if mode == "bernoulli":
        u = torch.rand(scores.shape, generator=generator, device=scores.device, dtype=scores.dtype)
    elif mode == "round":
        # Just below one half, so that scores of exactly 0, where training starts, are in use and not dead.
        u = torch.nextafter(scores.new_full((), 0.5), scores.new_zeros(()))
    else:
        raise ValueError(f"mode is 'bernoulli' or 'round': got {mode!r}")
    return _StraightThrough.apply(scores, u)  # type: ignore[no-untyped-call]


class _Supermask:
    """What both layers share: frozen weights, scores, the effective weight."""

    weight: Tensor
    bias: Tensor | None
    scores: nn.Parameter

    def _setup(
        self,
        weight: Tensor,
        bias: Tensor | None,
        mode: Mode,
        weights: Weights,
        dwr: bool,
        density: float,
        generator: torch.Generator | None,
    ) -> None:
        if mode not in ("bernoulli", "round"):
            raise ValueError(f"mode is 'bernoulli' or 'round': got {mode!r}")
        if weights not in ("init", "signed_constant"):
            raise ValueError(f"weights are 'init' or 'signed_constant': got {weights!r}")
        if not 0 < density < 1:
            raise ValueError(f"the expected density must lie in (0, 1): got {density}")
        values = weight.detach().clone()
        if weights == "signed_constant":
            values = torch.where(values >= 0, 1.0, -1.0).to(values.dtype) * float(
                values.double().std(correction=0)
            )
        self.mode, self.dwr, self.generator = mode, dwr, generator
        # Not parameters: no optimiser finds them.
        self.register_buffer("weight", values)  # type: ignore[attr-defined]
        self.register_buffer("bias", None if bias is None else bias.detach().clone())  # type: ignore[attr-defined]
        self.scores = nn.Parameter(torch.full_like(values, math.log(density / (1 - density))))

    def effective_weight(self) -> Tensor:
        """Mask times weight, freshly drawn; with dynamic rescaling times size / number of ones of this draw."""
        mask = sample_mask(self.scores, self.mode, self.generator)
        weight = mask * self.weight
        if self.dwr:
            weight = weight * (mask.numel() / mask.sum().clamp_min(1.0))
        return weight

    def density(self) -> float:
        """Expected share of weights in use (mode "round": the share in use)."""
        with torch.no_grad():
            p = torch.sigmoid(self.scores)
            return float((p if self.mode == "bernoulli" else (p >= 0.5).float()).mean())


class SupermaskLinear(_Supermask, nn.Linear):
    """A linear layer with frozen random weights and a learnt mask.

    Args:
        in_features, out_features: as in `torch.nn.Linear`.
        bias: whether there is a (frozen, zero) bias.
        mode: "bernoulli" draws a mask for every forward pass, in evaluation too: average several passes. "round" is
            deterministic.
        weights: "init" (Glorot-normal), or "signed_constant": the sign of such a draw times its standard deviation.
        dwr: dynamic weight rescaling: multiply the masked weights by size / number of ones.
        density: expected share of ones at the start; the scores begin at its logit.
        generator: of the initial weights and, afterwards, of the masks.

    Only `scores` is a parameter. Train it with a large rate (the paper: momentum 0.9, rate 100).

    >>> layer = SupermaskLinear(8, 3, dwr=True)
    >>> layer(torch.ones(2, 8)).shape, [name for name, _ in layer.named_parameters()]
    (torch.Size([2, 3]), ['scores'])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        mode: Mode = "bernoulli",
        weights: Weights = "init",
        dwr: bool = False,
        density: float = 0.5,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = in_features, out_features
        weight = torch.empty(out_features, in_features, device=device, dtype=dtype)
        nn.init.xavier_normal_(weight, generator=generator)
        zeros = weight.new_zeros(out_features) if bias else None
        self._setup(weight, zeros, mode, weights, dwr, density, generator)

    def forward(self, input: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """The layer with one draw of its mask, the same for the whole batch."""
        return F.linear(input, self.effective_weight(), self.bias)


class SupermaskConv2d(_Supermask, nn.Conv2d):
    """A convolution with frozen random weights and a learnt mask; options as in `SupermaskLinear`.

    >>> SupermaskConv2d(3, 4, 3, padding=1)(torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 4, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        mode: Mode = "bernoulli",
        weights: Weights = "init",
        dwr: bool = False,
        density: float = 0.5,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        nn.Conv2d.__init__(
            self,
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        weight = nn.init.xavier_normal_(self.weight.detach(), generator=generator)
        zeros = weight.new_zeros(out_channels) if bias else None
        del self.weight, self.bias
        self._setup(weight, zeros, mode, weights, dwr, density, generator)

    def forward(
        self, input: Float[Tensor, "*batch channels height width"]
    ) -> Float[Tensor, "*batch out new_height new_width"]:
        """The convolution with one draw of its mask, the same for the whole batch."""
        return self._conv_forward(input, self.effective_weight(), self.bias)


def supermaskify(
    model: nn.Module,
    mode: Mode = "bernoulli",
    weights: Weights = "init",
    dwr: bool = False,
    density: float = 0.5,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Swap all `Linear` and `Conv2d` layers for supermask layers that keep (and freeze) the weights they have,
    in place.

    Other parameters (norm layers) stay as they are; freeze them yourself if only masks shall be learnt.

    Returns:
        `model` itself, or a new layer where `model` is one.

    Raises:
        ValueError: no layer to swap.

    >>> net = supermaskify(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), weights="signed_constant")
    >>> sorted(name for name, _ in net.named_parameters())
    ['0.scores', '2.scores']
    """
    options: dict[str, Any] = {"mode": mode, "weights": weights, "dwr": dwr, "density": density}
    kinds = (nn.Linear, nn.Conv2d)
    found = [m for m in model.modules() if type(m) in kinds]
    if not found:
        raise ValueError("the model has no Linear or Conv2d layer to give a supermask")
    swapped = {id(layer): _swapped(layer, generator, options) for layer in found}
    if id(model) in swapped:
        return swapped[id(model)]
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if id(child) in swapped:
                parent._modules[name] = swapped[id(child)]
    return model


def _swapped(layer: nn.Module, generator: torch.Generator | None, options: dict[str, Any]) -> nn.Module:
    place = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    # A throw-away generator: the new layer's own draw is replaced at once and must not use up random numbers.
    spare = torch.Generator(device=layer.weight.device)
    if isinstance(layer, nn.Conv2d):
        new: Any = SupermaskConv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            layer.groups,
            layer.bias is not None,
            layer.padding_mode,
            **options,
            **place,
            generator=spare,
        )
    else:
        assert isinstance(layer, nn.Linear)
        new = SupermaskLinear(
            layer.in_features, layer.out_features, layer.bias is not None, **options, **place, generator=spare
        )
    new._setup(
        layer.weight,
        layer.bias,
        options["mode"],
        options["weights"],
        options["dwr"],
        options["density"],
        generator,
    )
    return new.train(layer.training)
