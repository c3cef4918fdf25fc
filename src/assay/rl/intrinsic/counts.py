r"""Count-based novelty: $\beta / n^p$ for the n-th visit, of known states or of hashed observations.

With an index of states it is the oracle that learned novelty is held against; with `SimHash` it needs nothing but the
observation (Tang et al. 2017, arXiv 1611.04717): similar observations share a bucket. Counts are shared by all copies.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from assay.rl.intrinsic.base import IntrinsicReward
from assay.rl.rollout import Rollout

LARGEST_TABLE = 1 << 24


class SimHash(nn.Module):
    """The signs of random projections as an index: observations [B, *obs] to [B] int64 in 0..2**bits - 1.

    Args:
        obs_shape: of one observation.
        bits: more bits, finer buckets; at most 24.
        generator: of the projections.

    >>> SimHash((4,), bits=8)(torch.zeros(3, 4)).shape
    torch.Size([3])
    """

    projection: Tensor
    powers: Tensor

    def __init__(self, obs_shape: tuple[int, ...], bits: int, generator: torch.Generator | None = None):
        super().__init__()
        if not 1 <= bits <= 24:
            raise ValueError(f"a hash has 1 to 24 bits: got {bits}")
        inputs = int(torch.Size(obs_shape).numel())
        self.register_buffer("projection", torch.empty(inputs, bits).normal_(generator=generator))
        self.register_buffer("powers", 2 ** torch.arange(bits))
        self.size = 1 << bits

    def forward(self, obs: Tensor) -> Tensor:
        """[B] int64."""
        signs = obs.flatten(1).to(self.projection.dtype) @ self.projection > 0
        return (signs * self.powers).sum(1)


class CountBonus(IntrinsicReward):
    r"""$\beta / n^{power}$, where n counts the visit itself: the first visit of an index earns beta.

    Exact within a rollout too: the second of two copies that meet a new index in the same rollout earns the second
    visit's bonus (in the order of time, then of copies).

    Args:
        index: what is counted. A function of the true next observations [B, *obs] that gives [B] int64 (a `SimHash`,
            say); or the key of `rollout.info` under which the environment tells the index; with `num_actions`, of the
            observations acted in.
        size: indices are 0..size-1; default: that of the hash.
        num_actions: count pairs (index of the state acted in, action) instead.
        beta: size of the first bonus.
        power: 0.5 in MBIE-EB and its successors.

    Attributes:
        counts: [size] (or [size x num_actions]) int64.

    Raises:
        ValueError: no size, or a table that would not fit.

    >>> CountBonus(SimHash((4,), 8)).visit(torch.tensor([3, 3, 5]))
    tensor([1., 2., 1.])
    """

    counts: Tensor

    def __init__(
        self,
        index: Callable[[Tensor], Tensor] | str,
        size: int | None = None,
        *,
        num_actions: int | None = None,
        beta: float = 1.0,
        power: float = 0.5,
    ):
        super().__init__()
        if size is None:
            size = getattr(index, "size", None)
        if size is None or not 1 <= size * (num_actions or 1) <= LARGEST_TABLE:
            raise ValueError(f"say how many indices there are, 1 to {LARGEST_TABLE}: got size={size}")
        if isinstance(index, str) and num_actions is not None:
            raise ValueError(
                "the environment tells the index of successors: pairs need a function of observations"
            )
        self.index, self.size, self.num_actions = index, size, num_actions
        self.beta, self.power = beta, power
        self.register_buffer("counts", torch.zeros(size * (num_actions or 1), dtype=torch.int64))

    def _ranks(self, index: Tensor) -> Tensor:
        """[B] int64: how many earlier entries of `index` are equal to each."""
        order = index.argsort(stable=True)
        ordered = index[order]
        place = torch.arange(len(index), device=index.device)
        new = torch.ones_like(ordered, dtype=torch.bool)
        new[1:] = ordered[1:] != ordered[:-1]
        first = torch.where(new, place, 0).cummax(0).values
        return torch.empty_like(place).scatter_(0, order, place - first)

    def _after(self, index: Tensor) -> Tensor:
        if bool(((index < 0) | (index >= len(self.counts))).any()):
            raise ValueError(
                f"indices are 0..{len(self.counts) - 1}: got {int(index.min())}..{int(index.max())}"
            )
        return (self.counts[index] + self._ranks(index) + 1).float()

    def visit(self, index: Int64[Tensor, "rows"]) -> Float[Tensor, "rows"]:
        """Count visits one after the other; the count of each with itself, as floats."""
        seen = self._after(index)
        self.counts += torch.bincount(index, minlength=len(self.counts))
        return seen

    def _indices(self, rollout: Rollout) -> Tensor:
        """[T * N] in the order of time."""
        if isinstance(self.index, str):
            if self.index not in rollout.info:
                raise ValueError(f"collect the rollout with info=({self.index!r},): it is what is counted")
            return rollout.info[self.index].flatten().long()
        if self.num_actions is None:
            obs = rollout.next_obs()
        else:
            obs = rollout.obs[:-1] if isinstance(rollout.obs, Tensor) else rollout.obs
        if not isinstance(obs, Tensor):
            raise ValueError(
                "counts need one tensor of observations: choose it before, or count a key of info"
            )
        index = self.index(obs.flatten(0, 1))
        return index if self.num_actions is None else index * self.num_actions + rollout.action.flatten()

    @torch.no_grad()
    def reward(self, rollout: Rollout) -> Tensor:
        """[T, N]. Rows that are no transitions earn nothing and are not counted."""
        valid = rollout.valid.flatten()
        index = self._indices(rollout)[valid]
        out = torch.zeros(valid.shape, device=index.device)
        out[valid] = self.beta * self._after(index) ** -self.power
        return out.view(rollout.valid.shape)

    @torch.no_grad()
    def observe(self, rollout: Rollout) -> None:
        """Count the rollout."""
        index = self._indices(rollout)[rollout.valid.flatten()]
        self.counts += torch.bincount(index, minlength=len(self.counts))
