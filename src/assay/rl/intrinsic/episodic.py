r"""Episodic curiosity through reachability (Savinov et al., 2019, arXiv 1810.02274).

An observation is novel if it takes many steps to get there from everything remembered of this episode. A comparator
$C(E(o), E(o'))$, the probability that two observations are at most k steps apart, is trained on random trajectories;
the bonus compares the present observation with a memory $M$,

$$b = \alpha\,\big(\beta - F(\{C(E(m), E(o)) : m \in M\})\big),$$

$F$ a high percentile. What cannot be predicted but is always one step away (a noisy screen) earns nothing.

**C near 1 means close**, that is: not novel.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from assay.envs.base import where_rows
from assay.rl.intrinsic.base import IntrinsicReward
from assay.rl.nets import mlp
from assay.rl.rollout import Rollout


class Pairs(NamedTuple):
    """Positions in trajectories, and whether they are close."""

    trajectory: Tensor
    """[n] int64."""
    i: Tensor
    """[n]: step of one observation."""
    j: Tensor
    """[n]: step of the other, before or after."""
    label: Tensor
    """[n] float: 1 at most k steps apart, 0 more than k * gap_multiplier."""


def sample_reachability_pairs(
    lengths: Int64[Tensor, " trajectories"] | Sequence[int],
    k: int,
    gap_multiplier: int,
    n: int,
    mode: str = "uniform",
    generator: torch.Generator | None = None,
) -> Pairs:
    """Training pairs for a reachability classifier: index arithmetic only, for any store of trajectories.

    No pair crosses the end of a trajectory; distances between k and k * gap_multiplier are left out, so that the
    classes do not touch; half of the pairs are positive, and both orders are as frequent.

    Args:
        lengths: observations of every trajectory.
        k: steps that count as close.
        gap_multiplier: negatives are more than k * gap_multiplier apart.
        n: pairs.
        mode: "uniform": positions uniform over the trajectories; "walk": one pass over each, as the released code
            does it: from position p to p + U{1..5} + 1, so that neighbouring pairs come from all along a trajectory.
        generator: of the draws.

    Raises:
        ValueError: k < 1, a gap that does not exceed k, or a trajectory too short to hold a negative pair.
    """
    lengths = torch.as_tensor(lengths, dtype=torch.int64)
    if k < 1 or n < 1:
        raise ValueError(f"k and n are at least 1: got {k} and {n}")
    if gap_multiplier < 2:
        raise ValueError(f"the gap must exceed k: gap_multiplier is at least 2, got {gap_multiplier}")
    gap = k * gap_multiplier
    if mode not in ("uniform", "walk"):
        raise ValueError(f"mode is 'uniform' or 'walk': got {mode!r}")
    if int(lengths.min()) <= gap + 1:
        raise ValueError(
            f"a trajectory of {int(lengths.min())} observations holds no pair more than {gap} steps apart: make "
            f"trajectories longer than {gap + 1}, or k smaller"
        )
    device = lengths.device

    def below(high: Tensor) -> Tensor:
        u = torch.rand(high.shape, generator=generator, device=device, dtype=torch.float64)
        return torch.minimum((u * high).long(), high - 1)

    if mode == "uniform":
        trajectory = torch.multinomial(lengths.double(), n, replacement=True, generator=generator)
        i = below(lengths[trajectory])
    else:
        strides = 2 + below(torch.full((n,), 5, device=device))
        along = strides.cumsum(0) - strides[0]
        edges = lengths.cumsum(0)
        along = along % edges[-1]
        trajectory = torch.searchsorted(edges, along, right=True)
        i = along - (edges - lengths)[trajectory]
    length = lengths[trajectory]
    positive = torch.arange(n, device=device) % 2 == 0
    # Close: a step of 1..k to either side that stays inside.
    step = 1 + below(torch.full((n,), k, device=device))
    side = torch.where(below(torch.full((n,), 2, device=device)) == 0, -1, 1)
    near = i + side * step
    near = torch.where((near < 0) | (near >= length), i - side * step, near)
    # Far: uniform over what lies more than `gap` before or after.
    before, after = (i - gap).clamp(min=0), (length - 1 - i - gap).clamp(min=0)
    room = before + after
    # A position in the middle of a short trajectory has nothing far away: take an end instead.
    stuck = ~positive & (room == 0)
    i = torch.where(stuck, 0, i)
    before = torch.where(stuck, 0, before)
    after = torch.where(stuck, length - 1 - gap, after)
    pick = below((before + after).clamp(min=1))
    far = torch.where(pick < before, pick, i + gap + 1 + pick - before)
    j = torch.where(positive, near, far)
    swap = below(torch.full((n,), 2, device=device)) == 1
    return Pairs(trajectory, torch.where(swap, j, i), torch.where(swap, i, j), positive.float())


class RNetwork(nn.Module):
    """The reachability network: an embedding and a comparator, trained as one classifier.

    Args:
        encoder: observations [B, *obs] to embeddings [B, n].
        features: n.
        hidden: widths of the comparator.
        comparator: "deep" (on both embeddings side by side), or "metric": sigmoid of their scaled inner product.

    >>> net = RNetwork.mlp(10, features=8)
    >>> net(torch.randn(5, 10), torch.randn(5, 10)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        encoder: nn.Module,
        features: int,
        hidden: Sequence[int] = (64, 64),
        comparator: str = "deep",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if comparator not in ("deep", "metric"):
            raise ValueError(f"comparator is 'deep' or 'metric': got {comparator!r}")
        self.encoder, self.features, self.kind = encoder, features, comparator
        if comparator == "deep":
            # The first layer reads both embeddings: its two halves are applied apart, so that a memory needs its half
            # only once.
            self.left = nn.Linear(features, hidden[0])
            self.right = nn.Linear(features, hidden[0], bias=False)
            nn.init.orthogonal_(self.left.weight, generator=generator)
            nn.init.orthogonal_(self.right.weight, generator=generator)
            nn.init.zeros_(self.left.bias)
            self.rest = nn.Sequential(nn.ReLU(), mlp((*hidden, 1), "relu", 1.0, generator))
        else:
            self.scale = nn.Parameter(torch.ones(()))
            self.shift = nn.Parameter(torch.zeros(()))

    @classmethod
    def mlp(
        cls, inputs: int, features: int = 32, hidden: int = 64, generator: torch.Generator | None = None
    ) -> "RNetwork":
        """For vectors: one hidden layer, `features` outputs, a comparator of two layers."""
        encoder = nn.Sequential(nn.Flatten(), mlp((inputs, hidden, features), "relu", 1.0, generator))
        return cls(encoder, features, (hidden, hidden), generator=generator)

    def embed(self, obs: Shaped[Tensor, "batch *obs"]) -> Float[Tensor, "batch features"]:
        """E(o)."""
        return self.encoder(obs)

    def remember(self, embedding: Tensor) -> Tensor:
        """What a memory keeps of embeddings [..., n]: the comparator's half of the work."""
        return self.right(embedding) if self.kind == "deep" else embedding

    def logits(self, embedding: Tensor, remembered: Tensor) -> Tensor:
        """Log-odds of being close, for embeddings [..., n] and what `remember` made of others; shapes broadcast."""
        if self.kind == "deep":
            return self.rest(self.left(embedding) + remembered)[..., 0]
        return self.scale * (embedding * remembered).sum(-1) / self.features**0.5 + self.shift

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """C(a, b): probability that embeddings a and b [..., n] are at most k steps apart."""
        return torch.sigmoid(self.logits(a, self.remember(b)))

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """Log-odds for observations [B, *obs]."""
        return self.logits(self.embed(x1), self.remember(self.embed(x2)))

    def fit(
        self,
        observations: Shaped[Tensor, "time trajectories *obs"],
        k: int,
        gap_multiplier: int,
        steps: int,
        lengths: Tensor | None = None,
        batch: int = 256,
        rate: float = 1e-3,
        mode: str = "uniform",
        generator: torch.Generator | None = None,
    ) -> list[float]:
        """Train on trajectories (time first) by Adam and cross-entropy; returns the losses.

        `lengths` [trajectories]: how much of each is one episode; default all of it.
        """
        if lengths is None:
            lengths = torch.full((observations.shape[1],), observations.shape[0])
        optimizer = torch.optim.Adam(self.parameters(), rate)
        losses = []
        self.train()
        for _ in range(steps):
            pairs = sample_reachability_pairs(lengths, k, gap_multiplier, batch, mode, generator)
            logits = self(observations[pairs.i, pairs.trajectory], observations[pairs.j, pairs.trajectory])
            loss = F.binary_cross_entropy_with_logits(logits, pairs.label.to(logits))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        self.eval()
        return torch.stack(losses).tolist() if losses else []

    def fit_episodes(
        self,
        observations: Shaped[Tensor, "time envs *obs"],
        first: Bool[Tensor, "time envs"],
        k: int,
        gap_multiplier: int,
        steps: int,
        batch: int = 256,
        optimizer: torch.optim.Optimizer | None = None,
        generator: torch.Generator | None = None,
    ) -> bool:
        """Train on what was seen over several episodes a copy (`first`: a step begins one); no pair crosses an end.

        Episodes too short for a negative pair are left out; returns False, and does nothing, if all are.
        """
        begins = first.clone()
        begins[0] = True
        # Episodes are stretches of the flattened history, copy after copy.
        flat = observations.transpose(0, 1).flatten(0, 1)
        starts = begins.T.flatten().nonzero().flatten()
        lengths = torch.diff(starts, append=starts.new_tensor([len(flat)]))
        enough = lengths > k * gap_multiplier + 1
        if not bool(enough.any()):
            return False
        starts, lengths = starts[enough], lengths[enough]
        optimizer = optimizer or torch.optim.Adam(self.parameters(), 1e-3)
        self.train()
        for _ in range(steps):
            pairs = sample_reachability_pairs(lengths, k, gap_multiplier, batch, generator=generator)
            base = starts[pairs.trajectory]
            logits = self(flat[base + pairs.i], flat[base + pairs.j])
            loss = F.binary_cross_entropy_with_logits(logits, pairs.label.to(logits))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.eval()
        return True

    @torch.no_grad()
    def accuracy(
        self,
        observations: Shaped[Tensor, "time trajectories *obs"],
        k: int,
        gap_multiplier: int,
        n: int = 2000,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> float:
        """Share of fresh pairs that are told right."""
        if lengths is None:
            lengths = torch.full((observations.shape[1],), observations.shape[0])
        pairs = sample_reachability_pairs(lengths, k, gap_multiplier, n, "uniform", generator)
        logits = self(observations[pairs.i, pairs.trajectory], observations[pairs.j, pairs.trajectory])
        return float(((logits > 0) == (pairs.label > 0.5)).float().mean())


class EpisodicMemory:
    """For every copy up to `capacity` vectors, emptied when its episode ends; fixed memory, no loop over copies.

    Args:
        num_envs: N.
        capacity: M.
        dim: n.
        replacement: in a full memory a "random" entry goes, or the oldest ("fifo").
        generator: of the random replacement.
    """

    def __init__(
        self,
        num_envs: int,
        capacity: int,
        dim: int,
        replacement: str = "random",
        generator: torch.Generator | None = None,
        device: str | torch.device = "cpu",
    ):
        if capacity < 1:
            raise ValueError(f"a memory holds at least one entry: got capacity={capacity}")
        if replacement not in ("random", "fifo"):
            raise ValueError(f"replacement is 'random' or 'fifo': got {replacement!r}")
        self.capacity, self.replacement, self.generator = capacity, replacement, generator
        self.entries = torch.zeros(num_envs, capacity, dim, device=device)
        self.count = torch.zeros(num_envs, dtype=torch.int64, device=device)
        """[N]: entries ever added in this episode."""

    @property
    def filled(self) -> Bool[Tensor, "envs capacity"]:
        """Which slots hold something."""
        slots = torch.arange(self.capacity, device=self.entries.device)
        return slots < self.count[:, None]

    def add(self, vectors: Float[Tensor, "envs dim"], mask: Bool[Tensor, " envs"]) -> None:
        """Keep `vectors` in the rows of `mask`."""
        full = self.count >= self.capacity
        if self.replacement == "fifo":
            slot = self.count % self.capacity
        else:
            draw = torch.rand(len(full), generator=self.generator, device=full.device)
            slot = torch.where(full, (draw * self.capacity).long().clamp(max=self.capacity - 1), self.count)
        rows = mask.nonzero().flatten()
        self.entries[rows, slot[rows]] = vectors[rows].detach()
        self.count = self.count + mask

    def reset_where(self, mask: Bool[Tensor, " envs"]) -> None:
        """Forget everything in the rows of `mask`."""
        self.count = self.count.masked_fill(mask, 0)

    def get(self) -> tuple[Float[Tensor, "envs capacity dim"], Bool[Tensor, "envs capacity"]]:
        """All slots, and which of them hold something."""
        return self.entries, self.filled


def aggregate_similarity(
    c: Float[Tensor, "envs capacity"],
    filled: Bool[Tensor, "envs capacity"],
    how: str = "percentile",
    q: float = 90.0,
) -> Float[Tensor, " envs"]:
    """F: one similarity to the whole memory; 0 for an empty one. Slots that hold nothing do not count.

    Args:
        c: similarities in 0..1.
        filled: which slots hold something.
        how: "percentile" (the q-th, linearly interpolated, as numpy's), "max", "nth" (the q-th largest, or the
            smallest where there are fewer), "count" (share of similarities above 0.5).
        q: see `how`.
    """
    count = filled.sum(1)
    some = count > 0
    if how == "max":
        return torch.where(some, c.masked_fill(~filled, 0.0).amax(1), 0.0)
    if how == "count":
        return ((c > 0.5) & filled).sum(1) / count.clamp(min=1)
    ordered = c.masked_fill(~filled, torch.inf).sort(1).values  # empty slots last
    last = (count - 1).clamp(min=0)
    if how == "nth":
        place = (count - int(q)).clamp(min=0)
        return torch.where(some, ordered.gather(1, place[:, None])[:, 0], 0.0)
    if how != "percentile":
        raise ValueError(f"how is 'percentile', 'max', 'nth' or 'count': got {how!r}")
    if not 0 <= q <= 100:
        raise ValueError(f"a percentile is between 0 and 100: got {q}")
    place = last * (q / 100)
    low = place.floor().long()
    high = torch.minimum(low + 1, last)
    a, b = ordered.gather(1, low[:, None])[:, 0], ordered.gather(1, high[:, None])[:, 0]
    return torch.where(some, torch.lerp(a, b, (place - low).to(a)), 0.0)


class EpisodicCuriosity(IntrinsicReward):
    r"""The bonus $\alpha(\beta - F)$, with its memory; observations join the memory where they are novel enough.

    Args:
        rnet: a trained `RNetwork`; it is set to evaluation mode and never trained here.
        num_envs: N.
        capacity: of the memory (200 in the paper).
        alpha: scale.
        beta: 0.5 for episodes of fixed length; 1 where the agent can end an episode (else negative bonuses teach it
            to).
        novelty_threshold: an observation is remembered where its bonus (before alpha) exceeds this.
        how, q: see `aggregate_similarity`.
        replacement: see `EpisodicMemory`.
        observation: from the policy's observations to what the network compares; None: the same.
        generator: of the replacement.
    """

    episodic = True

    def __init__(
        self,
        rnet: RNetwork,
        num_envs: int,
        capacity: int = 200,
        alpha: float = 1.0,
        beta: float = 0.5,
        novelty_threshold: float = 0.0,
        how: str = "percentile",
        q: float = 90.0,
        replacement: str = "random",
        observation: Callable[[Tensor], Tensor] | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        # Kept out of this module's parameters: the reward must not move while the policy learns.
        self._rnet = [rnet.eval()]
        self.alpha, self.beta, self.novelty_threshold = alpha, beta, novelty_threshold
        self.how, self.q, self.observation = how, q, observation
        width = rnet.remember(torch.zeros(1, rnet.features)).shape[-1]
        self.memory = EpisodicMemory(num_envs, capacity, width, replacement, generator)

    @property
    def rnet(self) -> RNetwork:
        """The network that compares."""
        return self._rnet[0]

    @torch.no_grad()
    def step(self, obs: Tensor, ended: Bool[Tensor, " envs"]) -> Float[Tensor, " envs"]:
        """Bonus of reaching `obs` [N, *obs] (the true successor); then remember it, or forget where it ended.

        An observation that ends its episode earns nothing, and empties the memory.
        """
        return self._step(self.rnet.embed(obs), ended)

    def _step(self, embedding: Tensor, ended: Tensor) -> Tensor:
        memory, filled = self.memory.get()
        used = max(int(self.memory.count.max().clamp(max=self.memory.capacity)), 1)
        memory, filled = memory[:, :used], filled[:, :used]
        similarity = torch.sigmoid(self.rnet.logits(embedding[:, None], memory))
        novelty = self.beta - aggregate_similarity(similarity, filled, self.how, self.q)
        self.memory.add(self.rnet.remember(embedding), (novelty > self.novelty_threshold) & ~ended)
        self.memory.reset_where(ended)
        return (self.alpha * novelty).masked_fill(ended, 0.0)

    @torch.no_grad()
    def reward(self, rollout: Rollout) -> Tensor:
        """[T, N]: along time, with the memories going on from the last rollout."""
        obs = rollout.next_obs()
        assert isinstance(obs, Tensor), "choose one tensor of a dictionary by `observation`"
        if self.observation is not None:
            obs = self.observation(obs)
        embedding = self.rnet.embed(obs.flatten(0, 1)).unflatten(0, obs.shape[:2])
        return torch.stack([self._step(e, end) for e, end in zip(embedding, rollout.ended, strict=True)])

    def reset_where(self, mask: Tensor) -> None:
        """Forget the running episode in the rows of `mask`."""
        self.memory.reset_where(mask)


class OnlineRTrainer:
    """Trains the reachability network on the policy's own experience (ECO).

    Args:
        rnet: trained in place.
        history: steps kept, over all copies (60,000 in the paper).
        interval: steps between trainings.
        steps: gradient steps a training.
        k, gap_multiplier: see `sample_reachability_pairs`.
        generator: of the pairs.
    """

    def __init__(
        self,
        rnet: RNetwork,
        history: int,
        interval: int,
        steps: int,
        k: int,
        gap_multiplier: int,
        batch: int = 256,
        rate: float = 1e-3,
        generator: torch.Generator | None = None,
    ):
        self.rnet, self.history, self.interval, self.steps = rnet, history, interval, steps
        self.k, self.gap_multiplier, self.batch = k, gap_multiplier, batch
        self.generator = generator
        self.optimizer = torch.optim.Adam(rnet.parameters(), rate)
        self.ready = False
        """Whether the network was trained at least once: before that its bonus means nothing."""
        self._obs: list[Tensor] = []
        self._first: list[Tensor] = []
        self._since = 0

    def add(self, obs: Shaped[Tensor, "time envs *obs"], first: Bool[Tensor, "time envs"]) -> bool:
        """Take in what the policy saw (`first`: a step begins an episode); train when due. Returns whether it did."""
        self._obs.append(obs)
        self._first.append(first)
        size = obs.shape[0] * obs.shape[1]
        while sum(o.shape[0] * o.shape[1] for o in self._obs) - size >= self.history and len(self._obs) > 1:
            del self._obs[0], self._first[0]
        self._since += size
        if self._since < self.interval:
            return False
        self._since = 0
        return self._train()

    def _train(self) -> bool:
        learnt = self.rnet.fit_episodes(
            torch.cat(self._obs),
            torch.cat(self._first),
            self.k,
            self.gap_multiplier,
            self.steps,
            self.batch,
            self.optimizer,
            self.generator,
        )
        self.ready = self.ready or learnt
        return learnt


class GridOracle(IntrinsicReward):
    """Pays 1 for every cell entered for the first time in an episode: privileged, an upper reference.

    Args:
        num_envs: N.
        key: of the rollout's info with an integer cell [T, N], or with coordinates [T, N, d].
        cell_size: side of a cell, for coordinates.
        cells: how many there are at most.
        dims: of coordinates only the first so many count.
    """

    episodic = True

    def __init__(
        self, num_envs: int, key: str = "cell", cell_size: float = 1.0, cells: int = 4096, dims: int = 2
    ):
        super().__init__()
        self.key, self.cell_size, self.cells, self.dims = key, cell_size, cells, dims
        self.visited = torch.zeros(num_envs, cells, dtype=torch.bool)

    def _cell(self, place: Tensor) -> Tensor:
        if not place.is_floating_point() and place.ndim == 2:
            return place
        place = place[..., : self.dims]
        side = round(self.cells ** (1 / place.shape[-1]))
        index = torch.div(place, self.cell_size, rounding_mode="floor").long() % side
        weight = side ** torch.arange(place.shape[-1], device=place.device)
        return (index * weight).sum(-1)

    @torch.no_grad()
    def reward(self, rollout: Rollout) -> Tensor:
        """[T, N]."""
        cells = self._cell(rollout.info[self.key])
        if int(cells.max()) >= self.cells:
            raise ValueError(
                f"GridOracle keeps {self.cells} cells and was shown cell {int(cells.max())}: raise `cells`"
            )
        rewards = []
        rows = torch.arange(cells.shape[1], device=cells.device)
        for cell, ended in zip(cells, rollout.ended, strict=True):
            rewards.append((~self.visited[rows, cell] & ~ended).float())
            self.visited[rows, cell] = True
            self.visited = where_rows(ended, torch.zeros_like(self.visited), self.visited)
        return torch.stack(rewards)

    def reset_where(self, mask: Tensor) -> None:
        """Forget the running episode in the rows of `mask`."""
        self.visited = where_rows(mask, torch.zeros_like(self.visited), self.visited)


class OnlineEpisodicCuriosity(EpisodicCuriosity):
    """Episodic curiosity whose network learns from the policy's own experience (ECO): no bonus before its first lesson.

    Args:
        trainer: of `rnet`; fed by `observe`. After every lesson the memories are emptied, for they hold embeddings of
            the network as it was.
        num_envs: N.
        **options: of `EpisodicCuriosity`.
    """

    def __init__(self, trainer: OnlineRTrainer, num_envs: int, **options: Any):
        super().__init__(trainer.rnet, num_envs, **options)
        self.trainer = trainer

    def reward(self, rollout: Rollout) -> Tensor:
        """[T, N]: zeros until the network was trained once."""
        if not self.trainer.ready:
            return torch.zeros_like(rollout.reward[..., 0])
        return super().reward(rollout)

    def observe(self, rollout: Rollout) -> None:
        """Learn from what the policy saw."""
        obs = rollout.obs[:-1]  # type: ignore[index]
        obs = obs if self.observation is None else self.observation(obs)
        with torch.enable_grad():
            learnt = self.trainer.add(obs, rollout.first[:-1])
        if learnt:
            self.memory.reset_where(torch.ones_like(rollout.ended[0]))
