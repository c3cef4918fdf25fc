r"""Any small module S times over: seeds, arms or agents trained by one tensor program.

>>> def model():
...     return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))
>>> models = stack_seeds(model, 8)                     # replica s is what seed s gives
>>> models(torch.randn(8, 32, 4)).shape                # every replica on its own batch
torch.Size([8, 32, 2])
>>> models(torch.randn(32, 4), shared=True).shape      # all on the same
torch.Size([8, 32, 2])

On a few cores the bill of a small network is the launching of its operations, not their arithmetic, so eight replicas
cost little more than one. The replicas never meet: add up their losses, clip each one's gradient by its own norm
(`clip_replica_grad_norm_`), and any optimizer that works entry by entry (SGD, Adam, RMSProp) moves each as it would
move alone. Where every replica needs its own rate, mask or stop, take `assay.optim.EnsembleOptimizer`; where it is a
plain multilayer perceptron, `assay.nn.EnsembleMLP` saves what the generality costs here.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map

from assay.nn.ensemble import Generators, _generators, _members, _uniform

LSTMState = tuple[Tensor, Tensor]


def _scan(
    x: Tensor,
    state: LSTMState,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None,
    first: Tensor | None = None,
) -> tuple[Tensor, LSTMState]:
    """One LSTM layer of S replicas: x [S, T, N, F], state [S, N, H] twice, weights [S, 4H, ...], first [S, T, N]."""
    steps, batch = x.shape[1:3]
    hidden = weight_hh.shape[2]
    flat = x.flatten(1, 2)
    projected = flat @ weight_ih.transpose(1, 2)
    if bias is not None:
        projected = projected + bias[:, None]
    inputs = projected.unflatten(1, (steps, batch)).unbind(1)
    recurrent = weight_hh.transpose(1, 2)
    keep = [None] * steps if first is None else (~first).to(x.dtype)[..., None].unbind(1)
    h, c = state
    outputs = []
    for gates_in, kept in zip(inputs, keep, strict=True):
        if kept is not None:
            h, c = h * kept, c * kept
        gates = torch.baddbmm(gates_in, h, recurrent)
        squashed = torch.sigmoid(gates)
        new = torch.tanh(gates[..., 2 * hidden : 3 * hidden])
        let_in, forget, let_out = (squashed[..., k * hidden : (k + 1) * hidden] for k in (0, 1, 3))
        c = torch.addcmul(forget * c, let_in, new)
        h = let_out * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs, 1), (h, c)


class StackedLSTM(nn.Module):
    """`torch.nn.LSTM` (one layer, time first) for S networks at once, initialised like it.

    One batched product a time step for all replicas. `first` marks steps that begin an episode: the state is zeroed
    BEFORE them, as `assay.rl.nets.LSTMCore` does it.

    Args:
        members: S.
        inputs, hidden: of every replica.
        generators: one for each replica, one for all, or None: torch's own.

    >>> y, state = StackedLSTM(3, 5, 8)(torch.randn(3, 7, 2, 5))
    >>> y.shape, state[0].shape
    (torch.Size([3, 7, 2, 8]), torch.Size([3, 2, 8]))
    """

    def __init__(self, members: int, inputs: int, hidden: int, generators: Generators = None):
        super().__init__()
        each = _generators(generators, _members(members))
        bound = hidden**-0.5
        self.weight_ih = nn.Parameter(_uniform((4 * hidden, inputs), bound, each))
        """[S, 4 hidden, inputs]: input, forget, cell and output gates, as torch orders them."""
        self.weight_hh = nn.Parameter(_uniform((4 * hidden, hidden), bound, each))
        self.bias_ih = nn.Parameter(_uniform((4 * hidden,), bound, each))
        self.bias_hh = nn.Parameter(_uniform((4 * hidden,), bound, each))

    @property
    def members(self) -> int:
        """S."""
        return self.weight_ih.shape[0]

    def initial(self, batch: int) -> LSTMState:
        """Zeros ([S, N, hidden] twice)."""
        zeros = self.weight_hh.new_zeros(self.members, batch, self.weight_hh.shape[2])
        return zeros, zeros.clone()

    def forward(
        self,
        x: Float[Tensor, "members time batch inputs"],
        state: LSTMState | None = None,
        first: Bool[Tensor, "members time batch"] | None = None,
    ) -> tuple[Float[Tensor, "members time batch hidden"], LSTMState]:
        """States after every step, and (h, c) after the last. `state` defaults to zeros."""
        state = self.initial(x.shape[2]) if state is None else state
        return _scan(x, state, self.weight_ih, self.weight_hh, self.bias_ih + self.bias_hh, first)

    def member(self, s: int) -> nn.LSTM:
        """A copy of replica `s` as a `torch.nn.LSTM`."""
        lstm = nn.LSTM(self.weight_ih.shape[2], self.weight_hh.shape[2]).to(self.weight_ih)
        with torch.no_grad():
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(lstm, f"{name}_l0").copy_(getattr(self, name)[s])
        return lstm


class _Layer(torch.autograd.Function):
    """One LSTM layer inside `vmap`: the rule below runs all replicas in one scan, under ordinary autograd."""

    @staticmethod
    def forward(*_: Any) -> Any:
        raise NotImplementedError("an unfused LSTM runs inside a stack of replicas only")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing to keep: gradients are those of the rule's own operations."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, *tensors: Tensor | None) -> Any:
        def replicas_first(tensor: Any, where: int | None) -> Any:
            if tensor is None:
                return None
            return (
                tensor.expand(info.batch_size, *tensor.shape) if where is None else tensor.movedim(where, 0)
            )

        x, h, c, *weights = map(replicas_first, tensors, in_dims)
        y, (h, c) = _scan(x, (h, c), *weights)
        return (y, h, c), (0, 0, 0)


class _UnfusedLSTM(nn.Module):
    """Stands in for `nn.LSTM` (whose fused kernel knows no replicas), with the same parameters by the same names."""

    def __init__(self, lstm: nn.LSTM):
        super().__init__()
        if lstm.bidirectional or lstm.proj_size or lstm.dropout:
            raise ValueError(
                "replicas of an LSTM have no second direction, no projection and no dropout: build it without"
            )
        self.num_layers, self.bias, self.batch_first = lstm.num_layers, lstm.bias, lstm.batch_first
        self.hidden_size = lstm.hidden_size
        for name, parameter in lstm.named_parameters():
            self.register_parameter(name, parameter)

    def forward(self, x: Tensor, state: LSTMState | None = None) -> tuple[Tensor, LSTMState]:
        """As `nn.LSTM`: x [T, N, F], [N, T, F] where batch first, or [T, F]."""
        alone = x.ndim == 2
        if alone:
            x = x[:, None]
            state = None if state is None else (state[0][:, None], state[1][:, None])
        elif self.batch_first:
            x = x.transpose(0, 1)
        if state is None:
            zeros = x.new_zeros(self.num_layers, x.shape[1], self.hidden_size)
            state = (zeros, zeros)
        last: list[tuple[Tensor, Tensor]] = []
        for layer, (h, c) in enumerate(zip(*state, strict=True)):
            part = {
                name: getattr(self, f"{name}_l{layer}")
                for name in ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if self.bias else ()))
            }
            bias = part["bias_ih"] + part["bias_hh"] if self.bias else None
            x, h, c = _Layer.apply(x, h, c, part["weight_ih"], part["weight_hh"], bias)
            last.append((h, c))
        h, c = (torch.stack(each) for each in zip(*last, strict=True))
        if alone:
            return x[:, 0], (h[:, 0], c[:, 0])
        return x.transpose(0, 1) if self.batch_first else x, (h, c)


_REFUSED = (nn.GRU, nn.RNN, nn.modules.batchnorm._BatchNorm)


def _stackable(module: nn.Module) -> nn.Module:
    """The module with every `nn.LSTM` in it replaced."""
    if isinstance(module, nn.LSTM):
        return _UnfusedLSTM(module)
    if isinstance(module, _REFUSED):
        raise ValueError(
            f"{type(module).__name__} cannot be stacked here: take assay.nn.EnsembleGRU, EnsembleBatchNorm, or an LSTM"
        )
    for name, child in module.named_children():
        setattr(module, name, _stackable(child))
    return module


class Stacked(nn.Module):
    """S modules of one build as one: every parameter and buffer has a leading dimension S.

    Linear layers, embeddings, convolutions, norms of a sample, LSTMs and whatever else `torch.func.vmap` knows;
    the modules' own `forward` runs unchanged. Dropout draws differently in every replica.

    Args:
        models: the replicas; left as they are.

    Raises:
        ValueError: no model, models of different builds, or a layer that cannot be stacked.
    """

    def __init__(self, models: Sequence[nn.Module]):
        super().__init__()
        if not models:
            raise ValueError("a stack has at least one replica: got no models")
        states = [model.state_dict(keep_vars=True) for model in models]
        shapes = [{name: tuple(value.shape) for name, value in state.items()} for state in states]
        for s, shape in enumerate(shapes):
            if shape != shapes[0]:
                odd = sorted(
                    name for name in shape.keys() | shapes[0].keys() if shape.get(name) != shapes[0].get(name)
                )
                raise ValueError(f"replicas are of one build: replica {s} differs from the first in {odd}")
        # Kept in a list: a stack's parameters are the stacked ones alone.
        self._template = [copy.deepcopy(models[0])]
        self.members = len(models)
        """S."""
        self.replicas = _stackable(copy.deepcopy(models[0]))
        """One module's build, holding the parameters of all."""
        named = [(dict(model.named_parameters()), dict(model.named_buffers())) for model in models]
        fresh: dict[int, nn.Parameter] = {}
        for prefix, part in list(self.replicas.named_modules()):
            dot = f"{prefix}." if prefix else ""
            for name, old in list(part.named_parameters(recurse=False)):
                if id(old) not in fresh:  # a shared weight stays shared
                    each = [parameters[dot + name].detach() for parameters, _ in named]
                    fresh[id(old)] = nn.Parameter(torch.stack(each), old.requires_grad)
                part.register_parameter(name, fresh[id(old)])
            for name, _ in list(part.named_buffers(recurse=False)):
                persistent = name not in part._non_persistent_buffers_set
                each = [buffers[dot + name] for _, buffers in named]
                part.register_buffer(name, torch.stack(each), persistent=persistent)

    def forward(self, *args: Any, shared: bool = False, **kwargs: Any) -> Any:
        """What the replicas give, stacked: every tensor of the inputs and outputs has a leading dimension S.

        Args:
            *args, **kwargs: of the modules' `forward`; what is not a tensor is handed to all.
            shared: all replicas get the same inputs, which then have no leading dimension.
        """
        parameters = dict(self.replicas.named_parameters())
        buffers = dict(self.replicas.named_buffers())

        def one(parameters: Any, buffers: Any, args: Any, kwargs: Any) -> Any:
            return functional_call(self.replicas, {**parameters, **buffers}, args, kwargs)

        where = tree_map(lambda leaf: 0 if isinstance(leaf, Tensor) and not shared else None, (args, kwargs))
        return vmap(one, in_dims=(0, 0, *where), randomness="different")(parameters, buffers, args, kwargs)

    def replica(self, s: int) -> nn.Module:
        """A copy of replica `s` as the module it was."""
        like = next(iter(self.replicas.parameters()))
        model = copy.deepcopy(self._template[0]).to(like)
        model.load_state_dict({name: value[s] for name, value in self.replicas.state_dict().items()})
        return model.train(self.training)

    def vectors(self) -> Float[Tensor, "members size"]:
        """Every replica's parameters as one vector, in the order of `named_parameters` (differentiable)."""
        return torch.cat([p.flatten(1) for p in self.replicas.parameters()], 1)

    @torch.no_grad()
    def load_vectors(self, vectors: Float[Tensor, "members size"]) -> None:
        """Set every replica's parameters from its vector, as `vectors` lays them out."""
        for p, value in zip(self.replicas.parameters(), self.unflatten(vectors).values(), strict=True):
            p.copy_(value)

    def unflatten(self, vectors: Float[Tensor, "*lead size"]) -> dict[str, Tensor]:
        """Vectors to parameters [*lead, ...] by name: for `torch.func.functional_call` on a `replica`, say."""
        sizes = {name: p.shape[1:] for name, p in self.replicas.named_parameters()}
        total = sum(size.numel() for size in sizes.values())
        if vectors.shape[-1] != total:
            raise ValueError(f"a replica has {total} parameters: got vectors of {vectors.shape[-1]}")
        parts = vectors.split([size.numel() for size in sizes.values()], -1)
        return {
            name: part.reshape(*vectors.shape[:-1], *size)
            for (name, size), part in zip(sizes.items(), parts, strict=True)
        }


def stack_seeds(model_fn: Callable[[], nn.Module], seeds: int | Sequence[int]) -> Stacked:
    """Replicas of a model, each initialised by its own seed, in one module.

    Replica s is what `torch.manual_seed(seeds[s]); model_fn()` gives, whoever its companions are; torch's global
    generator is left as it was.

    Args:
        model_fn: builds one model.
        seeds: S, for the seeds 0..S-1, or the seeds themselves.

    Raises:
        ValueError: no seeds, or models that differ in more than their numbers.
    """
    chosen = range(seeds) if isinstance(seeds, int) else seeds
    models = []
    for seed in chosen:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            models.append(model_fn())
    return Stacked(models)


@torch.no_grad()
def clip_replica_grad_norm_(
    parameters: Iterable[Tensor], max_norm: float | Float[Tensor, " members"]
) -> Float[Tensor, " members"]:
    """Scale each replica's gradient to at most `max_norm`, by its own norm over all parameters; returns the norms.

    What `torch.nn.utils.clip_grad_norm_` does to each replica alone. Clipping a stack by its common norm would couple
    the replicas: one that explodes would stop the others.

    Args:
        parameters: stacked, replicas first; those without a gradient are left out.
        max_norm: one number, or one for each replica.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        raise ValueError("no parameter has a gradient: call backward first")
    if len({len(g) for g in grads}) != 1:
        raise ValueError("every parameter must be stacked with the replicas first")
    norms = torch.stack([g.flatten(1).norm(dim=1) for g in grads]).norm(dim=0)
    factor = (torch.as_tensor(max_norm, dtype=norms.dtype, device=norms.device) / (norms + 1e-6)).clamp(
        max=1.0
    )
    for g in grads:
        g.mul_(factor.view(-1, *(1,) * (g.ndim - 1)))
    return norms
