r"""PopArt: value heads whose targets may have any scale.

Sources: van Hasselt et al., arXiv 1602.07714 (one task); Hessel et al., arXiv 1809.04474 (many).

Adaptively Rescaling Targets (ART): for each task i a running mean $\mu_i$ and second moment $\nu_i$ of the value
targets, $\sigma_i = \sqrt{\nu_i - \mu_i^2}$; the head learns $f_i$ with $v_i = \sigma_i f_i + \mu_i$ and regresses
$(G - \mu_i)/\sigma_i$. Preserving Outputs Precisely (POP): when the statistics move, the last layer is rewritten so
that $v_i(x)$ stays the same for every x,

$$W_i \leftarrow \frac{\sigma_i}{\sigma_i'} W_i, \qquad
b_i \leftarrow \frac{\sigma_i b_i + \mu_i - \mu_i'}{\sigma_i'}.$$

The order inside a learner's step: values with the OLD statistics (`denormalize`) -> targets -> `update` -> outputs
with the NEW head (a second `forward`, or `last_transform().convert` for outputs that carry no gradient) -> losses in
normalised units with the NEW statistics. Under plain SGD the un-normalised last layer then moves as if nothing were
normalised, while the gradient that enters the layers below is divided by $\sigma^2$: that is all that PopArt does.

What breaks it: weight decay or weight normalisation on the head, a non-linearity after it, a bias shared between
tasks, statistics of normalised targets or of rewards instead of returns, updates between the minibatches of a rollout.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from assay.rl.normalize import DoubleBuffers, _filter, merge_moments
from assay.rl.returns import check_unit

Bounds = tuple[float, float]


class Scale(NamedTuple):
    """Shift and scale of each output."""

    mu: Tensor
    """[n]."""
    sigma: Tensor
    """[n]."""


class Transform(NamedTuple):
    """An update of the statistics: outputs from before it can be converted."""

    old: Scale
    new: Scale

    def convert(
        self, outputs: Float[Tensor, "*batch"], index: Int[Tensor, "*batch"] | None = None
    ) -> Float[Tensor, "*batch"]:
        """f' = (sigma f + mu - mu') / sigma': normalised outputs of the old head as the new head gives them.

        Args:
            outputs: [..., n], or [...] with `index`.
            index: [...] which output each number belongs to.
        """
        pick: Any = slice(None) if index is None else index
        moved = outputs * self.old.sigma[pick] + (self.old.mu - self.new.mu)[pick]
        return (moved / self.new.sigma[pick]).to(outputs.dtype)


class TargetSums(NamedTuple):
    """Sums over a batch of targets, task by task (float64): what workers exchange before ART."""

    count: Tensor
    """[n]."""
    total: Tensor
    """[n]: sum of targets."""
    squares: Tensor
    """[n]: sum of their squares."""


def target_sums(
    targets: Float[Tensor, "*batch"],
    index: Int[Tensor, "*batch"],
    num_outputs: int,
    mask: Bool[Tensor, "*batch"] | None = None,
) -> TargetSums:
    """Count, sum and sum of squares of the targets of each task.

    Args:
        targets: un-normalised, any shape.
        index: task of each target, the same shape, in 0..num_outputs-1.
        num_outputs: n.
        mask: targets that count.
    """
    g, index = targets.detach().reshape(-1).double(), index.reshape(-1)
    one = torch.ones_like(g)
    if mask is not None:
        shown = mask.reshape(-1)
        g, one = torch.where(shown, g, 0), one * shown
    zeros = g.new_zeros(num_outputs)
    return TargetSums(*(zeros.scatter_add(0, index, x) for x in (one, g, g * g)))


def merge_statistics(parts: Sequence[TargetSums]) -> TargetSums:
    """The sums of several workers' batches, joined; hand them to `PopArtHead.update_from`.

    (With `torch.distributed`: all-reduce the three tensors by sum instead.)

    Raises:
        ValueError: nothing to merge.
    """
    if not parts:
        raise ValueError("give the sums of at least one worker")
    return TargetSums(*(torch.stack(tensors).sum(0) for tensors in zip(*parts, strict=True)))


def _check(beta: float, bounds: Bounds) -> None:
    if not 0 < beta <= 1:
        raise ValueError(f"beta is the weight of new targets, in (0, 1]: got {beta}")
    if not 0 < bounds[0] < bounds[1]:
        raise ValueError(f"scale_bounds are (smallest, largest), positive: got {bounds}")


def _sigma(mu: Tensor, nu: Tensor, bounds: Bounds) -> Tensor:
    # nu - mu^2 may fall below 0 by rounding; the floor takes care of it.
    return (nu - mu.square()).clamp(min=bounds[0] ** 2).sqrt().clamp(*bounds)


def _move(mu: Tensor, nu: Tensor, sums: TargetSums, rate: Tensor) -> tuple[Tensor, Tensor]:
    """ART: moments after a step of `rate` [n] towards the batch means; untouched where the batch holds nothing."""
    count = sums.count.clamp(min=1)
    seen = sums.count > 0
    return (
        torch.where(seen, mu + rate * (sums.total / count - mu), mu),
        torch.where(seen, nu + rate * (sums.squares / count - nu), nu),
    )


def _pop(weight: Tensor, bias: Tensor, old: Scale, new: Scale) -> tuple[Tensor, Tensor]:
    """POP: the last layer that gives the same un-normalised outputs; equal rows keep every bit."""
    ratio = old.sigma / new.sigma
    moved = (old.mu != new.mu) | (old.sigma != new.sigma)
    shifted = (old.sigma * bias.double() + old.mu - new.mu) / new.sigma
    return weight * ratio.to(weight.dtype)[:, None], torch.where(moved, shifted.to(bias.dtype), bias)


def _rate(beta: float, count: Tensor, per: str) -> Tensor:
    """Weight of the batch mean: that of `count` samples taken in one after the other, or beta for the batch."""
    if per == "batch":
        return torch.full_like(count, beta)
    return 1 - (1 - beta) ** count


def popart_update(
    weight: Float[Tensor, "outputs features"],
    bias: Float[Tensor, "outputs"],
    mu: Float[Tensor, "outputs"],
    nu: Float[Tensor, "outputs"],
    targets: Float[Tensor, "*batch"],
    index: Int[Tensor, "*batch"],
    beta: float,
    bounds: Bounds = (1e-4, 1e6),
    per: Literal["sample", "batch"] = "sample",
) -> tuple[
    Float[Tensor, "outputs features"],
    Float[Tensor, "outputs"],
    Float[Tensor, "outputs"],
    Float[Tensor, "outputs"],
]:
    r"""ART and POP as a pure function (for `torch.vmap` and functional code): (weight, bias, mu, nu) after a batch.

    The values of `targets` and `index` are trusted. A batch of $n_i$ targets of task i moves its moments by
    $1-(1-\beta)^{n_i}$ towards their mean. (Adding up $\beta(G-\mu)$ over the batch, as rlax does, moves them by
    $n_i\beta$, which diverges when it is large.)

    Args:
        weight: last layer [n, F].
        bias: [n].
        mu: running mean of the targets [n]; best in float64.
        nu: running mean of their squares [n].
        targets: un-normalised, any shape.
        index: task of each, the same shape.
        beta: weight of one target (of a whole batch with per="batch"), in (0, 1].
        bounds: smallest and largest sigma.
        per: what beta belongs to.

    Raises:
        ValueError: beta outside (0, 1], bounds reversed, per unknown.

    Example:
        >>> w, b, mu, nu = torch.tensor([[0.3, -0.2]]), torch.tensor([0.1]), torch.zeros(1), torch.ones(1)
        >>> w, b, mu, nu = popart_update(
        ...     w, b, mu, nu, torch.tensor([50.0, 70.0]), torch.tensor([0, 0]), 0.1, per="batch"
        ... )
        >>> mu, nu
        (tensor([6.]), tensor([370.9000]))
    """
    _check(beta, bounds)
    _check_per(per)
    sums = target_sums(targets, index, len(mu))
    old = Scale(mu.double(), _sigma(mu.double(), nu.double(), bounds))
    mu2, nu2 = _move(mu.double(), nu.double(), sums, _rate(beta, sums.count, per))
    # Rounded first: the layer must fit the statistics that are kept.
    mu2, nu2 = mu2.to(mu.dtype), nu2.to(nu.dtype)
    new = Scale(mu2.double(), _sigma(mu2.double(), nu2.double(), bounds))
    return (*_pop(weight, bias, old, new), mu2, nu2)


def _check_per(per: str) -> None:
    if per not in ("sample", "batch"):
        raise ValueError(f"beta is per 'sample' or per 'batch': got {per!r}")


class PopArtHead(DoubleBuffers):
    """A linear layer of n outputs, one a task, each with its own shift and scale; a drop-in last layer of a critic.

    Buffers: `mu`, `nu` (float64, kept so by casts), `count` (targets seen, [n]) and `weight_seen` (1 minus the weight
    that the starting values still have, [n]). `sigma` is derived from them.

    Args:
        in_features: F.
        num_outputs: n.
        beta: weight of one new target (of a whole batch with per="batch").
        scale_bounds: smallest and largest sigma. Where all targets of a task are equal (nothing but zero so far) its
            sigma sits at the floor and noise is amplified by 1 / floor: a warning says so once, raise the floor.
        debias: forget the starting values (mu 0, nu 1) at once, as Adam does: the first batch sets the moments. Without
            it the first targets of a large task reach the shared layers un-normalised.
        per: "sample" (the paper: a batch of m targets weighs as m targets one after the other) or "batch".
        init: initialises the weight [n, F] in place; default orthogonal of gain 1. The bias begins at 0.
        device: of parameters and buffers.
        dtype: of the parameters.

    Raises:
        ValueError: beta outside (0, 1], bounds reversed, per unknown, sizes below 1.

    Example:
        A regression whose targets drift by orders of magnitude, at one learning rate:

        >>> head = PopArtHead(8, 1, beta=0.1, debias=True, per="batch")
        >>> optimizer = torch.optim.SGD(head.parameters(), 0.05)
        >>> for scale in (1.0, 1e3, 1e-2):
        ...     for _ in range(100):
        ...         x = torch.randn(64, 8)
        ...         y = scale * x.sum(1, keepdim=True)
        ...         head.update(y)
        ...         loss = (head(x) - head.normalize(y)).square().mean()
        ...         optimizer.zero_grad(); loss.backward(); optimizer.step()
        >>> prediction = head.denormalize(head(x))
    """

    mu: Tensor
    nu: Tensor
    count: Tensor
    weight_seen: Tensor

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        beta: float = 3e-4,
        scale_bounds: Bounds = (1e-4, 1e6),
        debias: bool = False,
        per: Literal["sample", "batch"] = "sample",
        init: Callable[[Tensor], Any] | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        _check(beta, scale_bounds)
        _check_per(per)
        if in_features < 1 or num_outputs < 1:
            raise ValueError(f"a head needs features and outputs: got {in_features} and {num_outputs}")
        self.in_features, self.num_outputs = in_features, num_outputs
        self.beta, self.scale_bounds, self.debias, self.per = beta, scale_bounds, debias, per
        self.weight = nn.Parameter(torch.empty(num_outputs, in_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(num_outputs, device=device, dtype=dtype))
        with torch.no_grad():
            (nn.init.orthogonal_ if init is None else init)(self.weight)
        for name, start in (("mu", 0.0), ("nu", 1.0), ("count", 0.0), ("weight_seen", 0.0)):
            self.register_buffer(name, torch.full((num_outputs,), start, dtype=torch.float64, device=device))
        self._last: Transform | None = None
        self._warned = False

    def extra_repr(self) -> str:
        """Sizes and rates."""
        return (
            f"{self.in_features}, {self.num_outputs}, beta={self.beta}, per={self.per!r}, "
            f"scale_bounds={self.scale_bounds}, debias={self.debias}"
        )

    @property
    def sigma(self) -> Tensor:
        """[n] float64: scale of each output, within the bounds."""
        return _sigma(self.mu, self.nu, self.scale_bounds)

    def forward(self, h: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch outputs"]:
        """Normalised outputs [..., n] of features [..., F]."""
        return nn.functional.linear(h, self.weight, self.bias)

    def denormalize(
        self, y: Float[Tensor, "*batch"], index: Int[Tensor, "*batch"] | None = None
    ) -> Float[Tensor, "*batch"]:
        """sigma y + mu: values in units of return.

        Args:
            y: normalised, [..., n], or [...] with `index`.
            index: [...] task of each number.
        """
        pick: Any = slice(None) if index is None else index
        return (y * self.sigma[pick] + self.mu[pick]).to(y.dtype)

    def normalize(
        self, targets: Float[Tensor, "*batch"], index: Int[Tensor, "*batch"] | None = None
    ) -> Float[Tensor, "*batch"]:
        """(G - mu) / sigma: targets in the units that the head predicts.

        Args:
            targets: [..., n], or [...] with `index`.
            index: [...] task of each number.
        """
        pick: Any = slice(None) if index is None else index
        return ((targets - self.mu[pick]) / self.sigma[pick]).to(targets.dtype)

    def sums(
        self,
        targets: Float[Tensor, "*batch"],
        index: Int[Tensor, "*batch"] | None = None,
        mask: Bool[Tensor, "*batch"] | None = None,
    ) -> TargetSums:
        """This worker's part of an update; see `merge_statistics`.

        Args:
            targets: un-normalised, [...] with `index`, or [..., n] without.
            index: [...] task of each target.
            mask: targets that count; the others may hold anything.

        Raises:
            ValueError: an index out of range, targets that are not finite, or a last dimension that is not n.
        """
        if index is None:
            if targets.ndim < 1 or targets.shape[-1] != self.num_outputs:
                raise ValueError(
                    f"without index the targets need {self.num_outputs} columns: got {tuple(targets.shape)}"
                )
            index = torch.arange(self.num_outputs, device=targets.device).expand_as(targets)
        if index.shape != targets.shape or (mask is not None and mask.shape != targets.shape):
            raise ValueError(f"index and mask need the shape of the targets {tuple(targets.shape)}")
        if targets.numel():
            low, high = index.aminmax()
            if bool((low < 0) | (high >= self.num_outputs)):
                raise ValueError(f"tasks are 0..{self.num_outputs - 1}: got {int(low)} to {int(high)}")
        sums = target_sums(targets, index, self.num_outputs, mask)
        if not bool(sums.squares.sum().isfinite()):
            raise ValueError("targets must be finite: got NaN or infinity")
        return sums

    def update(
        self,
        targets: Float[Tensor, "*batch"],
        index: Int[Tensor, "*batch"] | None = None,
        mask: Bool[Tensor, "*batch"] | None = None,
        preserve: bool = True,
    ) -> None:
        """ART and POP in place: take in un-normalised targets and rewrite the layer so that its values stay.

        Tasks without a target keep every bit. A `backward` through outputs from before the update raises (the layer
        was changed in place): compute the loss from a new `forward`.

        Args:
            targets: un-normalised, [...] with `index`, or [..., n] without.
            index: [...] task of each target.
            mask: targets that count; the others may hold anything.
            preserve: POP; False: ART alone, after which the layer's values mean something else (the ablation).

        Raises:
            ValueError: an index out of range or targets that are not finite (nothing has changed then).

        Warns:
            UserWarning: once, when a sigma sits at its lower bound.
        """
        self.update_from(self.sums(targets, index, mask), preserve)

    @torch.no_grad()
    def start_from(self, sums: TargetSums) -> None:
        """Take shift and scale of these targets as they are, and leave the layer alone: for a head still untrained.

        Values of its first weights mean nothing; preserved, they would be errors of size 1 / sigma where returns are
        small. Tasks without a target stay as they are.
        """
        seen, count = sums.count > 0, sums.count.clamp(min=1)
        self.mu.copy_(torch.where(seen, sums.total / count, self.mu))
        self.nu.copy_(torch.where(seen, sums.squares / count, self.nu))
        # With debias the next batches still count for more than beta, as after a first update.
        rate = _rate(self.beta, sums.count, self.per)
        self.weight_seen.copy_(torch.where(seen, rate, self.weight_seen))
        self.count.add_(sums.count)
        self._last = None

    @torch.no_grad()
    def update_from(self, sums: TargetSums, preserve: bool = True) -> None:
        """`update` from sums, for instance those of all workers (`merge_statistics`)."""
        old = Scale(self.mu.clone(), self.sigma)
        rate = _rate(self.beta, sums.count, self.per)
        seen = self.weight_seen + rate * (1 - self.weight_seen) * (sums.count > 0)
        if self.debias:
            # Equal to dividing averages that began at 0 by the weight they have gathered.
            rate = rate / seen.clamp(min=1e-300)
        mu, nu = _move(self.mu, self.nu, sums, rate)
        self.mu.copy_(mu)
        self.nu.copy_(nu)
        self.count.add_(sums.count)
        self.weight_seen.copy_(seen)
        new = Scale(mu, self.sigma)
        if preserve:
            weight, bias = _pop(self.weight, self.bias, old, new)
            self.weight.copy_(weight)
            self.bias.copy_(bias)
        self._last = Transform(old, new) if preserve else None
        floor = (new.sigma <= self.scale_bounds[0]) & (sums.count > 0)
        if not self._warned and bool(floor.any()):
            self._warned = True
            warnings.warn(
                f"sigma of task {int(floor.nonzero()[0])} sits at its floor {self.scale_bounds[0]}: its targets are "
                f"constant so far, and any noise in them is amplified; raise scale_bounds[0] if that hurts",
                stacklevel=3,
            )

    def last_transform(self) -> Transform:
        """(old, new) shift and scale of the last update, to convert outputs cached before it.

        Raises:
            ValueError: no update yet, or one that preserved nothing.
        """
        if self._last is None:
            raise ValueError("no update yet that rewrote the layer: nothing was transformed")
        return self._last

    def rescale_optimizer(
        self, optimizer: torch.optim.Optimizer, loss: Literal["normalized", "values"] = "normalized"
    ) -> None:
        r"""Put the optimiser's moments of this head into the units of the layer that the last update left.

        A loss in normalised units gives the last layer the gradient $-(G - v)/\sigma \cdot h$: after an update all of
        it is multiplied by $\sigma/\sigma'$. A loss of the un-normalised values (its size does not know the
        statistics) gives one that is multiplied by $\sigma'/\sigma$. First moments take this factor, second moments its
        square. Optional: the papers leave the moments alone.

        Args:
            optimizer: holds the parameters of this head (SGD with momentum, Adam, RMSprop and their kin).
            loss: what the moments are gradients of.

        Raises:
            ValueError: no update yet, or an unknown loss.
        """
        if loss not in ("normalized", "values"):
            raise ValueError(f"the loss is of 'normalized' outputs or of 'values': got {loss!r}")
        old, new = self.last_transform()
        factor = old.sigma / new.sigma if loss == "normalized" else new.sigma / old.sigma
        for parameter in (self.weight, self.bias):
            state = optimizer.state.get(parameter, {})
            size = factor.view(-1, *(1,) * (parameter.ndim - 1))
            # RMSprop's momentum holds steps that were divided by the root of the second moment: without a unit.
            divided = "square_avg" in state
            for key, moment in state.items():
                if key in ("exp_avg", "grad_avg") or (key == "momentum_buffer" and not divided):
                    power = 1
                elif key in ("exp_avg_sq", "max_exp_avg_sq", "square_avg"):
                    power = 2
                else:
                    continue
                if isinstance(moment, Tensor):
                    moment.mul_((size**power).to(moment.dtype))


class ReturnScale(DoubleBuffers):
    """The cheap rival of PopArt: divide rewards by the running std of each task's discounted sums.

    As `assay.rl.normalize.ReturnNormalizer`, but with statistics a task. The sums begin anew with each episode where
    `ended` is given.

    Args:
        gamma: discount of the sums.
        index: [N] int64: task of each copy.
        num_tasks: default: the largest index and one.
        eps: smallest std.

    Raises:
        ValueError: gamma outside [0, 1], an index out of range.
    """

    state: Tensor
    index: Tensor
    count: Tensor
    mean: Tensor
    m2: Tensor

    def __init__(
        self, gamma: float, index: Int[Tensor, "envs"], num_tasks: int | None = None, eps: float = 1e-8
    ):
        super().__init__()
        check_unit("gamma", gamma)
        tasks = int(index.max()) + 1 if num_tasks is None else num_tasks
        if int(index.min()) < 0 or int(index.max()) >= tasks:
            raise ValueError(f"tasks are 0..{tasks - 1}: got {int(index.min())} to {int(index.max())}")
        self.gamma, self.num_tasks, self.eps = gamma, tasks, eps
        self.register_buffer("index", index.clone())
        self.register_buffer("state", torch.zeros(len(index), dtype=torch.float64, device=index.device))
        for name in ("count", "mean", "m2"):
            self.register_buffer(name, torch.zeros(tasks, dtype=torch.float64, device=index.device))

    @property
    def std(self) -> Tensor:
        """[tasks] float64: what each task's rewards are divided by; 1 before its first reward."""
        std = (self.m2 / self.count.clamp(min=1)).sqrt().clamp(min=self.eps)
        return torch.where(self.count > 0, std, 1.0)

    @torch.no_grad()
    def forward(
        self, reward: Float[Tensor, "time envs"], ended: Bool[Tensor, "time envs"] | None = None
    ) -> Float[Tensor, "time envs"]:
        """Update the statistics with a rollout [T, N] and divide its rewards.

        Raises:
            ValueError: another number of copies, no steps, or rewards that are not finite.
        """
        if len(reward) < 1 or reward.shape[1] != len(self.index):
            raise ValueError(
                f"give rewards [T >= 1, {len(self.index)}], time first: got shape {tuple(reward.shape)}"
            )
        filtered, last = _filter(self.state, reward.double(), self.gamma, ended)
        if not bool(last.isfinite().all()):
            raise ValueError("rewards must be finite: got NaN or infinity")
        self.state.copy_(last)
        count = torch.bincount(self.index, minlength=self.num_tasks).double() * len(reward)
        mean = torch.zeros_like(self.mean).index_add(0, self.index, filtered.sum(0)) / count.clamp(min=1)
        m2 = (filtered - mean[self.index]).square().sum(0)
        m2 = torch.zeros_like(self.m2).index_add(0, self.index, m2)
        merged = merge_moments(self.count, self.mean, self.m2, count, mean, m2)
        for buffer, value in zip((self.count, self.mean, self.m2), merged, strict=True):
            buffer.copy_(value)
        return (reward / self.std[self.index]).to(reward.dtype)


def soft_asymmetric_clip(reward: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """5 tanh(r/5) for gains, 0.3 times as much for losses (IMPALA, DMLab-30 experiments)."""
    squashed = 5 * torch.tanh(reward / 5)
    return torch.where(reward >= 0, squashed, 0.3 * squashed)


SQUASHES: dict[str, Callable[[Tensor], Tensor]] = {
    "soft_asymmetric": soft_asymmetric_clip,
    "sign": torch.sign,
    "clip": lambda reward: reward.clamp(-1, 1),
    "identity": lambda reward: reward,
}
"""What `SquashReward` knows."""


class SquashReward(nn.Module):
    """Squash rewards before they are learnt from: "soft_asymmetric", "sign", "clip" (to [-1, 1]) or "identity".

    All but the last change the objective: the agent then counts rewards and no longer weighs them.

    Raises:
        ValueError: an unknown kind.
    """

    def __init__(self, kind: str = "clip"):
        super().__init__()
        if kind not in SQUASHES:
            raise ValueError(f"unknown kind {kind!r}: choose from {', '.join(SQUASHES)}")
        self.kind = kind

    def extra_repr(self) -> str:
        """Kind."""
        return repr(self.kind)

    def forward(self, reward: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The squashed reward, the same shape."""
        return SQUASHES[self.kind](reward)


def gradient_share(losses: Float[Tensor, "tasks"], parameters: Sequence[Tensor]) -> Float[Tensor, "tasks"]:
    """Share of each task in the sum of gradient norms: who pulls on shared parameters, and how hard.

    Args:
        losses: one loss a task, from one graph (it is kept).
        parameters: the shared parameters.

    Returns:
        [n], sums to 1; equal shares where no task has a gradient.
    """
    norms = torch.stack(
        [
            torch.stack(
                [
                    g.detach().double().square().sum()
                    for g in torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)
                    if g is not None
                ]
                or [loss.new_zeros((), dtype=torch.float64)]
            )
            .sum()
            .sqrt()
            for loss in losses
        ]
    )
    total = norms.sum()
    share = torch.where(total > 0, norms / total.clamp(min=1e-300), 1.0 / len(norms))
    return share.to(losses.dtype)
