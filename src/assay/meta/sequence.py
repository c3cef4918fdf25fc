"""Meta-learners: a recurrent network whose weights are frozen after outer training and whose *state* learns.

At step t the network sees an input and the previous target, $[x_t; y_{t-1}]$, and predicts $y_t$. Trained over many
tasks, it must learn each new one within the episode, in its state alone (Hochreiter et al. 2001; Santoro et al. 2016).
`SequenceMetaLearner.state_after` and `predict_from` let one ask a frozen state about any input, as often as one likes,
without moving it.

`RecurrentPolicy` is the same for bandits (RL^2: Duan et al. 2016; Wang et al. 2016), trained by advantage actor-critic.
"""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from assay.meta.tasks import BanditTasks, ContextBandit

__all__ = [
    "MetaState",
    "MetaTraining",
    "RecurrentPolicy",
    "SequenceMetaLearner",
    "SequenceTasks",
    "meta_train",
    "train_policy",
]


_CACHED = 2**18
"""Numbers that are worked on at a time when many states are probed (1 MB)."""


class MetaState(NamedTuple):
    """What a meta-learner knows: the memory after t inputs and the target that it is about to be told."""

    hidden: Float[Tensor, "*batch hidden"]
    cell: Float[Tensor, "*batch hidden"]
    last: Float[Tensor, "*batch y"]
    """$y_t$, which enters together with the next input."""


class SequenceMetaLearner(nn.Module):
    """An LSTM that learns a regression task from its own inputs.

    Parameters
    ----------
    x_dim, out_dim
        Sizes of inputs and targets.
    hidden
        Units of the LSTM.
    readout
        0: linear read-out. Otherwise the units of one ReLU layer between state and prediction.
    generator
        Source of the first weights; None: torch's own. Weights are drawn as torch draws them; the forget gates' bias
        starts at 1 (Jozefowicz et al. 2015).

    >>> model = SequenceMetaLearner(3, hidden=16, out_dim=2)
    >>> x, y = torch.randn(4, 20, 3), torch.randn(4, 20, 2)
    >>> tuple(model(x, y).shape)
    (4, 20, 2)
    >>> state = model.state_after(x, y, 5)
    >>> tuple(model.predict_from(state, torch.randn(24, 3)).shape)
    (4, 24, 2)
    """

    def __init__(
        self,
        x_dim: int,
        hidden: int,
        out_dim: int,
        readout: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if min(x_dim, hidden, out_dim) < 1 or readout < 0:
            raise ValueError(
                f"x_dim, hidden and out_dim are at least 1, readout at least 0: "
                f"got {x_dim}, {hidden}, {out_dim} and {readout}"
            )
        self.x_dim, self.out_dim = x_dim, out_dim
        self.lstm = nn.LSTM(x_dim + out_dim, hidden, batch_first=True)
        self.readout: nn.Module = (
            nn.Sequential(nn.Linear(hidden, readout), nn.ReLU(), nn.Linear(readout, out_dim))
            if readout
            else nn.Linear(hidden, out_dim)
        )
        _initialise(self, generator)

    def forward(
        self, x: Float[Tensor, "batch time x"], y: Float[Tensor, "batch time y"]
    ) -> Float[Tensor, "batch time y"]:
        """Predictions of $y_1 \\dots y_T$, each from the inputs so far and the targets before it."""
        return self.readout(self.lstm(self._inputs(x, y))[0])

    def _inputs(self, x: Tensor, y: Tensor) -> Tensor:
        if x.shape[-1] != self.x_dim or y.shape[-1] != self.out_dim:
            raise ValueError(
                f"x has {self.x_dim} features and y {self.out_dim}: got {x.shape[-1]} and {y.shape[-1]}"
            )
        # y_t must not be seen at t: shift the targets by one.
        return torch.cat([x, nn.functional.pad(y, (0, 0, 1, -1))], -1)

    @torch.no_grad()
    def states(self, x: Float[Tensor, "batch time x"], y: Float[Tensor, "batch time y"]) -> MetaState:
        """The states after 0, 1, ..., T pairs: an axis of T + 1 times behind the batch. One pass over the episode."""
        cell = self._cell
        h = c = x.new_zeros(len(x), self.lstm.hidden_size)
        hidden, cells = [h], [c]
        for part in (self._inputs(x, y) @ self.lstm.weight_ih_l0.T).unbind(1):
            h, c = cell(part + h @ self.lstm.weight_hh_l0.T, c)
            hidden.append(h)
            cells.append(c)
        last = nn.functional.pad(y, (0, 0, 1, 0))
        return MetaState(torch.stack(hidden, 1), torch.stack(cells, 1), last)

    def state_after(
        self, x: Float[Tensor, "batch time x"], y: Float[Tensor, "batch time y"], t: int | Sequence[int]
    ) -> MetaState:
        """The state after `t` pairs, ``[batch, ...]``; for a list of times ``[batch, times, ...]``."""
        times = [t] if isinstance(t, int) else list(t)
        steps = x.shape[1]
        if not times or min(times) < 0 or max(times) > steps:
            raise ValueError(f"times lie in 0 .. {steps}, the length of the episode: got {t}")
        longest = max(max(times), 1)
        state = self.states(x[:, :longest], y[:, :longest])
        chosen = MetaState(*(part[:, times] for part in state))
        return MetaState(*(part[:, 0] for part in chosen)) if isinstance(t, int) else chosen

    @torch.no_grad()
    def predict_from(
        self, state: MetaState, x: Float[Tensor, "points x"] | Float[Tensor, "*batch points x"]
    ) -> Float[Tensor, "*batch points y"]:
        """What each state answers to each of the inputs: one step from a copy of the state, which stays as it is.

        `x` is shared by all states ``[points, x]`` or has the state's leading axes ``[*batch, points, x]``.
        """
        weight = self.lstm.weight_ih_l0
        # What state and last target contribute is the same for every probe.
        held = state.hidden @ self.lstm.weight_hh_l0.T + state.last @ weight[:, self.x_dim :].T
        asked = x @ weight[:, : self.x_dim].T
        if x.ndim > 2:
            hidden, _ = self._cell(held.unsqueeze(-2) + asked, state.cell.unsqueeze(-2))
            return self.readout(hidden)
        # The gates of many states times many probes outgrow the processor's cache: a few states at a time.
        size = max(1, _CACHED // asked.numel())
        portions = zip(held.flatten(0, -2).split(size), state.cell.flatten(0, -2).split(size), strict=True)
        answers = [
            self.readout(self._cell(part.unsqueeze(-2) + asked, cell.unsqueeze(-2))[0])
            for part, cell in portions
        ]
        return torch.cat(answers).unflatten(0, state.hidden.shape[:-1])

    def _cell(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """(h, c) of one step from the gates' inputs without biases."""
        gates = gates + (self.lstm.bias_ih_l0 + self.lstm.bias_hh_l0)
        i, f, g, o = gates.chunk(4, -1)
        c = (f.sigmoid_() * c).addcmul_(i.sigmoid_(), g.tanh_())
        return c.tanh() * o.sigmoid_(), c


@torch.no_grad()
def _initialise(module: nn.Module, generator: torch.Generator | None) -> None:
    """torch's own distributions from a generator, and open forget gates."""
    for part in module.modules():
        if isinstance(part, nn.LSTM):
            bound = part.hidden_size**-0.5
            for value in part.parameters():
                value.copy_(_uniform(value, bound, generator))
            part.bias_ih_l0[part.hidden_size : 2 * part.hidden_size] = 1.0
            part.bias_hh_l0[part.hidden_size : 2 * part.hidden_size] = 0.0
        elif isinstance(part, nn.Linear):
            bound = part.in_features**-0.5
            part.weight.copy_(_uniform(part.weight, bound, generator))
            part.bias.copy_(_uniform(part.bias, bound, generator))


def _uniform(like: Tensor, bound: float, generator: torch.Generator | None) -> Tensor:
    device = like.device if generator is None else generator.device
    return torch.empty(like.shape, device=device).uniform_(-bound, bound, generator=generator)


@runtime_checkable
class SequenceTasks(Protocol):
    """What `meta_train` trains on: `LinearTasks`, `FourierTasks`, or anything that samples ``x`` and ``y``."""

    def sample(self, n: int, steps: int, generator: torch.Generator | None = None) -> Any:
        """`n` sequences with ``.x [n, steps, x]`` and ``.y [n, steps, y]``."""
        ...


class MetaTraining(NamedTuple):
    """How outer training went."""

    losses: Float[Tensor, " steps"]
    """Mean squared error (summed over outputs) of each outer step."""
    snapshots: dict[float, dict[str, Tensor]]
    """Share of the outer training -> the model's state dict then."""


class _Outer:
    """Adam with linear warm-up, cosine decay and clipped gradients, and snapshots on the way."""

    def __init__(
        self,
        model: nn.Module,
        steps: int,
        rate: float,
        warmup: int,
        clip: float,
        snapshots: Sequence[float],
    ) -> None:
        if steps < 1:
            raise ValueError(f"outer training needs at least one step, got {steps}")
        if not rate > 0 or not clip > 0:
            raise ValueError(f"rate and clip must be positive, got {rate} and {clip}")
        if any(not 0 < share <= 1 for share in snapshots):
            raise ValueError(f"snapshots are shares of the training in (0, 1], got {tuple(snapshots)}")
        self.model, self.clip = model, clip
        self.parameters = list(model.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=rate, fused=True)
        warmup = min(warmup, steps - 1)

        def multiplier(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, multiplier)
        self.due = {max(1, round(share * steps)): share for share in snapshots}
        self.kept: dict[float, dict[str, Tensor]] = {}

    def step(self, loss: Tensor, number: int) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        self.schedule.step()
        if (share := self.due.get(number + 1)) is not None:
            self.kept[share] = copy.deepcopy(self.model.state_dict())


def meta_train(
    model: SequenceMetaLearner,
    tasks: SequenceTasks,
    steps: int,
    *,
    horizon: int,
    batch: int = 64,
    rate: float = 1e-2,
    warmup: int = 50,
    clip: float = 1.0,
    snapshots: Sequence[float] = (),
    generator: torch.Generator | None = None,
    over: Callable[[int], Iterable[int]] = range,
) -> MetaTraining:
    """Outer training: fresh tasks at every step, mean over the episode of $\\lVert\\hat y_t - y_t\\rVert^2$.

    Adam at `rate` with linear warm-up over `warmup` steps and cosine decay, gradients clipped at norm `clip`. `horizon`
    is the length of an episode. Copies of the weights are kept at the shares of the training named by `snapshots`.
    `over` turns the number of steps into the loop (a progress bar, say).

    >>> from assay.meta.tasks import LinearTasks
    >>> model = SequenceMetaLearner(2, hidden=8, out_dim=2)
    >>> done = meta_train(model, LinearTasks(2, 2), steps=3, horizon=5, snapshots=(1.0,))
    >>> tuple(done.losses.shape), list(done.snapshots)
    ((3,), [1.0])
    """
    outer = _Outer(model, steps, rate, warmup, clip, snapshots)
    losses = []
    for step in over(steps):
        seen = tasks.sample(batch, horizon, generator)
        loss = (model(seen.x, seen.y) - seen.y).square().sum(-1).mean()
        outer.step(loss, step)
        losses.append(loss.detach())
    return MetaTraining(torch.stack(losses), outer.kept)


class RecurrentPolicy(nn.Module):
    """An LSTM that acts: observations in, logits of the actions and a value out.

    >>> policy = RecurrentPolicy(7, hidden=16, actions=3)
    >>> logits, value = policy(torch.randn(4, 30, 7))
    >>> tuple(logits.shape), tuple(value.shape)
    ((4, 30, 3), (4, 30))
    """

    def __init__(
        self, obs_dim: int, hidden: int, actions: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if min(obs_dim, hidden) < 1 or actions < 2:
            raise ValueError(
                f"obs_dim and hidden are at least 1, actions at least 2: got {obs_dim}, {hidden}, {actions}"
            )
        self.actions = actions
        self.lstm = nn.LSTM(obs_dim, hidden, batch_first=True)
        self.heads = nn.Linear(hidden, actions + 1)
        _initialise(self, generator)

    def forward(
        self, obs: Float[Tensor, "copies time obs"]
    ) -> tuple[Float[Tensor, "copies time actions"], Float[Tensor, "copies time"]]:
        """Logits and values along whole episodes."""
        out = self.heads(self.lstm(obs)[0])
        return out[..., :-1], out[..., -1]

    @torch.no_grad()
    def play(
        self, bandit: ContextBandit, tasks: BanditTasks, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "copies time obs"], Int[Tensor, "copies time"], Float[Tensor, "copies time"]]:
        """One episode of every copy: observations, sampled actions, rewards."""
        obs, done, state = bandit.reset(tasks), False, None
        seen, acted, earned = [], [], []
        while not done:
            out, state = self.lstm(obs.unsqueeze(1), state)
            chance = self.heads(out.squeeze(1))[..., :-1].softmax(-1)
            action = torch.multinomial(chance, 1, generator=generator).squeeze(1)
            seen.append(obs)
            acted.append(action)
            obs, reward, done = bandit.step(action)
            earned.append(reward)
        return torch.stack(seen, 1), torch.stack(acted, 1), torch.stack(earned, 1)


def train_policy(
    policy: RecurrentPolicy,
    bandit: ContextBandit,
    updates: int,
    *,
    horizon: int,
    copies: int = 128,
    rate: float = 2e-2,
    warmup: int = 50,
    clip: float = 1.0,
    gamma: float = 0.0,
    value_weight: float = 0.1,
    entropy_weight: float = 0.2,
    snapshots: Sequence[float] = (),
    generator: torch.Generator | None = None,
    over: Callable[[int], Iterable[int]] = range,
) -> MetaTraining:
    """Outer training of a policy by advantage actor-critic on whole episodes.

    The advantage is the return to the episode's end, discounted by `gamma`, minus the value. In this bandit the action
    that is likeliest to pay now is also the best one to learn from, so `gamma` 0 is enough and has the least variance.
    The entropy bonus falls linearly to zero; without it policies stop exploring before the memory works. `losses` are
    minus the mean reward per step.

    >>> world = ContextBandit(2, 2)
    >>> policy = RecurrentPolicy(world.obs_dim, 8, 2)
    >>> tuple(train_policy(policy, world, 2, horizon=5, copies=4).losses.shape)
    (2,)
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma lies in [0, 1], got {gamma}")
    outer = _Outer(policy, updates, rate, warmup, clip, snapshots)
    # Row t holds the weights of the rewards from t on.
    ahead = torch.arange(horizon).unsqueeze(0) - torch.arange(horizon).unsqueeze(1)
    weights = torch.where(ahead >= 0, float(gamma) ** ahead.clamp(min=0), 0.0)
    losses = []
    for update in over(updates):
        obs, action, reward = policy.play(bandit, bandit.sample(copies, horizon, generator), generator)
        logits, value = policy(obs)
        log_chance = logits.log_softmax(-1)
        advantage = reward @ weights.to(reward.device).T - value
        entropy = -(log_chance.exp() * log_chance).sum(-1).mean()
        score = log_chance.gather(-1, action.unsqueeze(-1)).squeeze(-1) * advantage.detach()
        bonus = entropy_weight * (1 - update / updates)
        loss = -score.mean() + value_weight * advantage.square().mean() - bonus * entropy
        outer.step(loss, update)
        losses.append(-reward.mean())
    return MetaTraining(torch.stack(losses), outer.kept)
