"""A model whose weights are masked in the forward pass, so that whatever the optimiser does, pruned weights
stay put."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune


class Mask(nn.Module):
    """Parametrisation W -> M * W + (1 - M) * F: entries outside the mask are frozen at F, and get no gradient.

    Attributes:
        mask: boolean, True where the weight is kept.
        frozen: F, or None for zero.
    """

    mask: Tensor
    frozen: Tensor | None
    _keep: Tensor
    _other: Tensor | None

    def __init__(self, mask: Bool[Tensor, "*shape"], frozen: Float[Tensor, "*shape"] | None = None) -> None:
        super().__init__()
        self.register_buffer("mask", mask.clone())
        self.register_buffer("frozen", None if frozen is None else frozen.detach().clone())
        # Products of floats are several times faster on a CPU than selection by booleans.
        like = torch.get_default_dtype() if frozen is None else frozen.dtype
        self.register_buffer("_keep", mask.to(like), persistent=False)
        other = None if frozen is None else torch.where(mask, torch.zeros_like(frozen), frozen)
        self.register_buffer("_other", other, persistent=False)

    def forward(self, weight: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The effective weight; exact, since one of the two terms is zero everywhere."""
        kept = weight * self._keep
        return kept if self._other is None else kept + self._other

    def right_inverse(self, weight: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """What is stored when a weight is assigned: the weight itself."""
        return weight


class MaskedModel(nn.Module):
    """Any module with masks on some of its parameters, by `torch.nn.utils.parametrize`.

    Each masked parameter W is used as M * W + (1 - M) * F. Gradients reach kept entries only, and momentum or weight
    decay can move the stored W but never a pruned entry of what the forward pass uses. Training code needs no change:
    `parameters()`, `state_dict()`, `train()` and so on work as before. The module is changed in place (as
    `torch.nn.utils.prune` does); `bake` gives a plain copy back.

    Args:
        module: what to mask; not yet masked.
        masks: parameter name (as in `named_parameters`) -> boolean mask of its shape.
        frozen_values: parameter name -> values of the pruned entries; zero where a name is missing.

    Raises:
        ValueError: unknown parameter, wrong shape, frozen values without a mask or not finite, or a parameter that
            several layers share.

    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> masked = MaskedModel(net, {"0.weight": torch.arange(12).view(3, 4) % 2 == 0})
    >>> masked.density(), masked(torch.ones(5, 4)).shape
    (0.5, torch.Size([5, 2]))
    """

    def __init__(
        self,
        module: nn.Module,
        masks: Mapping[str, Tensor],
        frozen_values: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        frozen = dict(frozen_values or {})
        params = dict(module.named_parameters())
        everywhere = [id(p) for _, p in module.named_parameters(remove_duplicate=False)]
        for what, given in (("mask", masks), ("frozen values", frozen)):
            for name, value in given.items():
                if name not in params:
                    raise ValueError(
                        f"{what} for an unknown parameter {name!r}: the module has {', '.join(params)}"
                    )
                if value.shape != params[name].shape:
                    raise ValueError(
                        f"{what} for {name!r} has shape {tuple(value.shape)}, the parameter "
                        f"{tuple(params[name].shape)}"
                    )
        for name, mask in masks.items():
            if mask.dtype != torch.bool:
                raise ValueError(
                    f"the mask for {name!r} is {mask.dtype}: give a boolean tensor (mask.bool())"
                )
            if everywhere.count(id(params[name])) > 1:
                raise ValueError(f"parameter {name!r} is shared by several layers: untie them before masking")
        for name, value in frozen.items():
            if name not in masks:
                raise ValueError(f"frozen values for {name!r}, which has no mask")
            if not torch.isfinite(value).all():
                raise ValueError(f"frozen values for {name!r} are not all finite")
        self.module = module
        self._names = tuple(masks)
        for name, mask in masks.items():
            owner, _, leaf = name.rpartition(".")
            device = params[name].device
            value = frozen.get(name)
            parametrize.register_parametrization(
                module.get_submodule(owner),
                leaf,
                Mask(mask.to(device), None if value is None else value.to(params[name])).to(
                    params[name].dtype
                ),
                unsafe=True,  # shape and dtype were checked above; saves a forward pass each
            )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own forward."""
        return self.module(*args, **kwargs)

    def _mask(self, name: str) -> Mask:
        owner, _, leaf = name.rpartition(".")
        return self.module.get_submodule(owner).parametrizations[leaf][0]  # type: ignore[index, return-value]

    @property
    def masks(self) -> dict[str, Tensor]:
        """Parameter name -> mask."""
        return {name: self._mask(name).mask for name in self._names}

    def density(self) -> float:
        """Share of the masked parameters' entries that are kept."""
        masks = self.masks.values()
        return sum(int(m.sum()) for m in masks) / max(1, sum(m.numel() for m in masks))

    def densities(self) -> dict[str, float]:
        """The same for each parameter."""
        return {name: float(mask.float().mean()) for name, mask in self.masks.items()}

    @torch.no_grad()
    def bake(self) -> nn.Module:
        """A plain copy of the module, with the effective weights as its parameters, masks gone."""
        plain = copy.deepcopy(self.module)
        for name in self._names:
            owner, _, leaf = name.rpartition(".")
            layer = plain.get_submodule(owner)
            # A copied layer shares its generated class with the original, and removal would edit that class.
            shared = type(layer)
            own = {k: v for k, v in vars(shared).items() if k not in ("__dict__", "__weakref__")}
            layer.__class__ = type(shared.__name__, shared.__bases__, own)
            parametrize.remove_parametrizations(layer, leaf, leave_parametrized=True)
        return plain

    def to_prune(self) -> nn.Module:
        """A copy masked by `torch.nn.utils.prune.custom_from_mask` instead (pruned entries must be zero there).

        Raises:
            ValueError: some pruned entry is frozen at another value.
        """
        self._only_zeros("torch.nn.utils.prune")
        plain = self.bake()
        for name, mask in self.masks.items():
            owner, _, leaf = name.rpartition(".")
            prune.custom_from_mask(plain.get_submodule(owner), leaf, mask)
        return plain

    @torch.no_grad()
    def to_sparse(self) -> dict[str, Tensor]:
        """The effective masked weights as sparse COO tensors, by parameter name; exactly the kept entries are stored.

        Raises:
            ValueError: some pruned entry is frozen at a value other than zero.
        """
        self._only_zeros("a sparse tensor")
        weights = effective_state(self)
        return {
            name: weights[name].sparse_mask(mask.to_sparse().coalesce()) for name, mask in self.masks.items()
        }

    def _only_zeros(self, where: str) -> None:
        for name in self._names:
            one = self._mask(name)
            if one.frozen is not None and bool((one.frozen[~one.mask] != 0).any()):
                raise ValueError(
                    f"pruned entries of {name!r} are frozen at values other than 0: {where} has zeros"
                )


def plain_name(name: str) -> str:
    """The name that a parameter or buffer of a (masked) model has without masks.

    >>> plain_name("0.parametrizations.weight.original")
    '0.weight'
    """
    if ".parametrizations." in f".{name}" and name.endswith(".original"):
        owner, _, rest = f".{name}".rpartition(".parametrizations.")
        return f"{owner}.{rest.removesuffix('.original')}".lstrip(".")
    return name


def _inner(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, MaskedModel) else model


def plain_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The stored parameters of a masked or plain model under their plain names (`0.weight`)."""
    return {plain_name(name): p for name, p in _inner(model).named_parameters()}


def plain_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The buffers of a masked or plain model, without those of the masks."""
    return {n: b for n, b in _inner(model).named_buffers() if "parametrizations." not in n}


@torch.no_grad()
def effective_state(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers as the forward pass sees them, under their plain names.

    For a plain model this is its `state_dict` copied; for a `MaskedModel` masked weights are the effective ones.
    """
    state = {n: p.detach().clone() for n, p in (plain_parameters(model) | plain_buffers(model)).items()}
    if isinstance(model, MaskedModel):
        for name in model.masks:
            owner, _, leaf = name.rpartition(".")
            state[name] = getattr(model.module.get_submodule(owner), leaf).detach().clone()
    return state


@torch.no_grad()
def load_plain(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Write plain-named values into a masked or plain model (masked weights: into the stored tensor).

    Raises:
        ValueError: names are missing or unknown.
    """
    targets = plain_parameters(model) | plain_buffers(model)
    if targets.keys() != state.keys():
        odd = sorted(targets.keys() ^ state.keys())
        raise ValueError(f"state and model do not have the same parameters and buffers: {', '.join(odd)}")
    for name, target in targets.items():
        target.copy_(state[name])


class SwapIn:
    """Evaluate many sets of weights in one plain model without copying it; on leaving, the old ones are back.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> with SwapIn(net) as swap:
    ...     swap({"weight": torch.tensor([[1.0, 2.0]])})
    ...     net(torch.ones(1, 2)).item()
    3.0
    """

    def __init__(self, model: nn.Module) -> None:
        self._params = dict(model.named_parameters())
        self._old: dict[str, Tensor] = {}

    def __enter__(self) -> "SwapIn":
        self._old = {name: p.data for name, p in self._params.items()}
        return self

    def __call__(self, weights: Mapping[str, Tensor]) -> None:
        """Use these tensors (not copies of them) as parameters, until the next call or the end.

        Raises:
            ValueError: unknown name or wrong shape.
        """
        for name, value in weights.items():
            if name not in self._old:
                raise ValueError(f"no parameter {name!r}: the model has {', '.join(self._old)}")
            if value.shape != self._old[name].shape:
                raise ValueError(f"{name!r} is {tuple(self._old[name].shape)}, not {tuple(value.shape)}")
            self._params[name].data = value.detach()

    def __exit__(self, *_: object) -> None:
        for name, p in self._params.items():
            p.data = self._old[name]
