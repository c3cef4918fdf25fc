r"""Learned models of a world, several at once: an ensemble stands for what is not yet known about the dynamics.

`DynamicsEnsemble` holds M networks that predict the next state from state and action; trained from different
initialisations and on differently ordered data they agree where there was data and differ elsewhere.
`DirichletEnsemble` is the exact counterpart for few states: the posterior over transition tables.
`ImaginationEnv` makes an environment of an ensemble, so that whatever learns or plans in a `TensorEnv` does so in
imagination, rewarded by disagreement or by a task.

G independent ensembles (one a seed, say) can be one tensor program: with `groups=G` every tensor gets a leading
dimension G, and each group draws from its own generator only.

Shyam, Jaskowski, Gomez (2019, arXiv 1810.12162), sections 2 and 3.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from assay.envs.base import Generators, TensorEnv, where_rows
from assay.nn.ensemble import EnsembleMLP
from assay.rl.information import jensen_renyi_gaussian, jensen_shannon

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "swish": nn.functional.silu,
}
LIKELIHOODS = ("categorical", "gaussian")
BOOTSTRAPS = ("none", "poisson", "multinomial")


class StackedMLP(EnsembleMLP):
    """`EnsembleMLP` with a choice of activation: "tanh", "relu" or "swish".

    >>> StackedMLP((3, 8, 2), members=4, act="swish")(torch.zeros(5, 3)).shape
    torch.Size([4, 5, 2])
    """

    def __init__(self, sizes: Sequence[int], members: int, act: str = "relu", generators: Any = None):
        if act not in ACTIVATIONS:
            raise ValueError(f"the activation is one of {', '.join(ACTIVATIONS)}: got {act!r}")
        super().__init__(sizes, members, generators=generators)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """[K, B, in] or, the same for all, [B, in] to [K, B, out]."""
        act = ACTIVATIONS[self.act]
        for linear in self.linears[:-1]:
            x = act(linear(x))
        return self.linears[-1](x)


class CategoricalPrediction(NamedTuple):
    """Distributions over S next states."""

    log_probs: Tensor
    """[*G, M, B, S]."""

    @property
    def probs(self) -> Tensor:
        """[*G, M, B, S]."""
        return self.log_probs.exp()


class GaussianPrediction(NamedTuple):
    """Diagonal normals of the change of state, in units of its standard deviation in the data."""

    mean: Tensor
    """[*G, M, B, D]."""
    var: Tensor
    """[*G, M, B, D]."""


Prediction = CategoricalPrediction | GaussianPrediction
Utility = Callable[[Prediction], Tensor]


class Transitions(NamedTuple):
    """Data to fit: B rows for each group."""

    state: Tensor
    """[*G, B, D], or [B, D] where all groups share the inputs."""
    action: Tensor
    """[*G, B, A] floats (one-hot for discrete actions), or [B, A]."""
    target: Tensor
    """Gaussian: the next state [*G, B, D]. Categorical: probabilities of the next state [*G, B, S] (one-hot for a
    single transition)."""
    weight: Tensor | None = None
    """[*G, B]: of every row in the loss; None: equal. Rows of weight 0 do not count."""


class DynamicsEnsemble(nn.Module):
    """M networks that predict the next state; see the module.

    Args:
        obs_dim: D, size of a state (the number of states, one-hot, for "categorical").
        act_dim: A, size of an action (the number of actions, one-hot, where they are discrete).
        members: M, at least 1 (disagreement needs 2).
        hidden: widths of the hidden layers.
        likelihood: "categorical": softmax over D next states; "gaussian": mean and variance of the change of state.
        bootstrap: "none": members differ by initialisation and order of the data (as in the released code);
            "poisson", "multinomial": each member weighs the rows by its own resampling.
        min_logvar, max_logvar: bounds of the Gaussian log-variance, reached by a sigmoid.
        act: "tanh", "relu" or "swish".
        groups: None, or G independent ensembles.
        generators: of initialisation, order and resampling: one, or one for each group. None: torch's own.

    >>> model = DynamicsEnsemble(4, 2, members=5, likelihood="gaussian", act="swish")
    >>> data = Transitions(torch.randn(64, 4), torch.randn(64, 2), torch.randn(64, 4))
    >>> loss = model.fit(data, steps=3)
    >>> model.disagreement(model(torch.randn(7, 4), torch.randn(7, 2))).shape
    torch.Size([7])
    """

    def __init__(
        self,
        obs_dim: int,
        act_dim: int,
        members: int = 10,
        hidden: Sequence[int] = (32, 32),
        likelihood: str = "categorical",
        bootstrap: str = "none",
        min_logvar: float = -5.0,
        max_logvar: float = -1.0,
        act: str = "tanh",
        groups: int | None = None,
        generators: Generators | None = None,
    ):
        super().__init__()
        if likelihood not in LIKELIHOODS:
            raise ValueError(f"the likelihood is one of {', '.join(LIKELIHOODS)}: got {likelihood!r}")
        if bootstrap not in BOOTSTRAPS:
            raise ValueError(f"bootstrap is one of {', '.join(BOOTSTRAPS)}: got {bootstrap!r}")
        if members < 1 or (groups is not None and groups < 1):
            raise ValueError(f"give at least one member and group: got {members} and {groups}")
        if not min_logvar < max_logvar:
            raise ValueError(f"min_logvar lies below max_logvar: got {min_logvar} and {max_logvar}")
        self.obs_dim, self.act_dim, self.members, self.groups = obs_dim, act_dim, members, groups
        self.likelihood, self.bootstrap = likelihood, bootstrap
        self.min_logvar, self.max_logvar = min_logvar, max_logvar
        count = groups or 1
        if generators is None or isinstance(generators, torch.Generator):
            self._sources: list[torch.Generator | None] = [generators] * count
        else:
            self._sources = list(generators)
        if len(self._sources) != count:
            raise ValueError(
                f"give one generator, or one for each of {count} groups: got {len(self._sources)}"
            )
        outputs = obs_dim if likelihood == "categorical" else 2 * obs_dim
        self._sizes, self._act = (obs_dim + act_dim, *hidden, outputs), act
        self.net = self._fresh()
        self.register_buffer("in_mean", torch.zeros(count, 1, obs_dim + act_dim))
        self.register_buffer("in_std", torch.ones(count, 1, obs_dim + act_dim))
        self.register_buffer("delta_mean", torch.zeros(count, 1, obs_dim))
        self.register_buffer("delta_std", torch.ones(count, 1, obs_dim))

    in_mean: Tensor
    in_std: Tensor
    delta_mean: Tensor
    delta_std: Tensor

    def _fresh(self) -> StackedMLP:
        each = [source for source in self._sources for _ in range(self.members)]
        return StackedMLP(self._sizes, len(each), self._act, each)

    @torch.no_grad()
    def reset(self) -> None:
        """Forget everything: new weights, drawn on from the generators."""
        for old, new in zip(self.net.parameters(), self._fresh().parameters(), strict=True):
            old.copy_(new)

    def _inputs(self, state: Tensor, action: Tensor) -> Tensor:
        """[B, in] where categorical groups share their inputs, else [G, B, in]."""
        x = torch.cat((state, action), -1)
        if x.shape[-1] != self._sizes[0]:
            raise ValueError(
                f"states and actions have {self.obs_dim} and {self.act_dim} numbers: got {x.shape[-1]} together"
            )
        if self.likelihood == "categorical":
            return x
        return (x - self.in_mean) / self.in_std if x.ndim == 3 else (x[None] - self.in_mean) / self.in_std

    def _members(self, x: Tensor) -> Tensor:
        """Inputs of each member, [G, B, ...] to [G M, B, ...]."""
        return x if x.ndim == 2 or self.members == 1 else x.repeat_interleave(self.members, 0)

    def _head(self, out: Tensor) -> Prediction:
        """[K, B, out] to [*G, M, B, ...]."""
        if self.groups is not None:
            out = out.unflatten(0, (self.groups, self.members))
        if self.likelihood == "categorical":
            return CategoricalPrediction(out.log_softmax(-1))
        mean, raw = out.chunk(2, -1)
        logvar = self.min_logvar + (self.max_logvar - self.min_logvar) * torch.sigmoid(raw)
        return GaussianPrediction(mean, logvar.exp())

    def forward(self, state: Tensor, action: Tensor) -> Prediction:
        """Predictions [*G, M, B, ...] of every member.

        Args:
            state: [*G, B, D]; [B, D] is shared by all groups.
            action: [*G, B, A] floats, likewise.
        """
        return self._head(self.net(self._members(self._inputs(state, action))))

    def normalise_to(self, data: Transitions) -> None:
        """Take the units of inputs and changes of state from `data` (Gaussian ensembles; `fit` does so)."""

        def spread(x: Tensor, mean: Tensor, std: Tensor) -> None:
            x = x if x.ndim == 3 else x[None]
            var, mu = torch.var_mean(x, 1, correction=0, keepdim=True)
            mean.copy_(mu.expand_as(mean))
            # A coordinate that never changes is left in its own units.
            std.copy_(torch.where(var > 1e-16, var.sqrt(), 1.0).expand_as(std))

        spread(torch.cat((data.state, data.action), -1), self.in_mean, self.in_std)
        spread(data.target - data.state, self.delta_mean, self.delta_std)

    def losses(self, data: Transitions, index: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
        """Negative log-likelihood of each member, [K] (K = groups x members), a weighted mean over its rows.

        Args:
            data: the rows.
            index: [K, b]: which rows each member sees; None: all.
            weight: [K, B]: of the rows for each member; None: those of the data.
        """
        x = self._inputs(data.state, data.action)
        target = data.target
        if self.likelihood == "gaussian":
            delta = target - data.state
            delta = delta if delta.ndim == 3 else delta[None]
            target = (delta - self.delta_mean) / self.delta_std
        if target.ndim == 2:
            target = target[None]
        if weight is None and data.weight is not None:
            weight = data.weight if data.weight.ndim == 2 else data.weight[None]
            weight = self._members(weight[..., None])[..., 0]
        count = len(self._sources) * self.members
        if index is not None:
            # Row r of member k is row index[k, r] of its group: gather from groups laid end to end.
            x = x if x.ndim == 3 else x.expand(len(self._sources), -1, -1)
            rows = x.shape[1]
            group = torch.arange(count, device=x.device) // self.members
            flat = index + (group * rows)[:, None]
            x = x.reshape(-1, x.shape[-1])[flat]
            target = target.expand(len(self._sources), -1, -1).reshape(-1, target.shape[-1])[flat]
            weight = None if weight is None else weight.gather(1, index)
        else:
            x, target = self._members(x), self._members(target)
        prediction = self._head(self.net(x))
        if isinstance(prediction, CategoricalPrediction):
            log_probs = prediction.log_probs
            log_probs = log_probs.flatten(0, 1) if self.groups is not None else log_probs
            nll = -(target * log_probs).sum(-1)
        else:
            mean, var = (p.flatten(0, 1) if self.groups is not None else p for p in prediction)
            nll = 0.5 * ((target - mean).square() / var + var.log()).sum(-1)
        if weight is None:
            return nll.mean(1)
        return (nll * weight).sum(1) / weight.sum(1).clamp(min=1e-12)

    def _resampled(self, data: Transitions) -> Tensor | None:
        """[K, B]: each member's own weights, or None."""
        if self.bootstrap == "none":
            return None
        rows = data.target.shape[-2]
        drawn = []
        for group, source in enumerate(self._sources):
            own = torch.ones(rows) if data.weight is None else data.weight.view(-1, rows)[group].cpu()
            for _ in range(self.members):
                if self.bootstrap == "poisson":
                    counts = torch.poisson(torch.ones(rows), generator=source)
                else:
                    live = own.nonzero().flatten()
                    pick = torch.randint(len(live), (len(live),), generator=source)
                    counts = torch.bincount(live[pick], minlength=rows).float()
                # A member that drew nothing at all would have no loss.
                drawn.append(own * counts if bool((own * counts).any()) else own)
        return torch.stack(drawn).to(data.target)

    def _orders(self, rows: int, batch: int, steps: int, device: torch.device) -> Iterator[Tensor]:
        """`steps` times [K, batch]: every member walks through its own permutations; nothing is dropped."""

        def shuffled() -> Tensor:
            return torch.stack(
                [torch.randperm(rows, generator=g) for g in self._sources for _ in range(self.members)]
            )

        left = shuffled()
        for _ in range(steps):
            while left.shape[1] < batch:
                left = torch.cat((left, shuffled()), 1)
            yield left[:, :batch].to(device)
            left = left[:, batch:]

    def fit(
        self,
        data: Transitions,
        steps: int,
        lr: float = 1e-3,
        batch: int | None = None,
        clip: float | None = None,
        reset: bool = True,
    ) -> Float[Tensor, "members"]:
        """Fit all members by Adam, from scratch; returns each member's last loss, [K] (K = groups x members).

        Neither weights nor moments are kept from an earlier fit (unless `reset` is off: then the weights are).

        Args:
            data: rows of all groups.
            steps: of Adam.
            lr: its rate.
            batch: rows a step and member; None: all rows in every step.
            clip: largest gradient norm of a member.
            reset: begin with new weights.

        Raises:
            ValueError: no rows, no steps, or weights that leave a group without a row.
        """
        if steps < 1 or data.target.shape[-2] < 1:
            raise ValueError("fitting needs at least one row and one step")
        if data.weight is not None and bool((data.weight.sum(-1) <= 0).any()):
            raise ValueError("a group has no row of positive weight")
        if reset:
            self.reset()
        if self.likelihood == "gaussian":
            self.normalise_to(data)
        weight = self._resampled(data)
        rows = data.target.shape[-2]
        whole = batch is None or batch >= rows
        orders = None if whole else self._orders(rows, batch or rows, steps, data.target.device)
        parameters = list(self.net.parameters())
        optimizer = torch.optim.Adam(parameters, lr=lr, fused=True)
        losses = data.target.new_zeros(0)
        for _ in range(steps):
            losses = self.losses(data, None if orders is None else next(orders), weight)
            optimizer.zero_grad(set_to_none=True)
            # Members share no weight: the gradient of the sum is each member's own.
            losses.sum().backward()
            if clip is not None:
                _clip_members(parameters, clip)
            optimizer.step()
        return losses.detach()

    @torch.no_grad()
    def next_state(
        self,
        prediction: Prediction,
        state: Tensor,
        member: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """[*G, B, D]: a successor from predictions [*G, M, B, ...].

        Args:
            prediction: of `forward`.
            state: [*G, B, D], where the predictions were made.
            member: [*G, B] int64: whose prediction counts; None: the mean of all.
            noise: what is drawn by: normal [*G, B, D], or uniform [*G, B] for categorical ones. None: no draw, but
                the mean, or the likeliest state.
        """

        def choose(x: Tensor) -> Tensor:
            if member is None:
                return x.mean(-3)
            index = member[..., None, :, None].expand(*x.shape[:-3], 1, *x.shape[-2:])
            return x.gather(-3, index).squeeze(-3)

        if isinstance(prediction, CategoricalPrediction):
            probs = choose(prediction.probs)
            if noise is None:
                index = probs.argmax(-1)
            else:
                edges = probs.cumsum(-1)
                index = (noise[..., None] * edges[..., -1:] >= edges).sum(-1).clamp(max=self.obs_dim - 1)
            return nn.functional.one_hot(index, self.obs_dim).to(state.dtype)
        change = choose(prediction.mean)
        if noise is not None:
            change = change + choose(prediction.var).sqrt() * noise
        mean, std = self.delta_mean, self.delta_std
        if self.groups is None:
            mean, std = mean[0], std[0]
        return state + mean + std * change

    def sample(
        self,
        state: Tensor,
        action: Tensor,
        member: int | str = "random",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """[*G, B, D]: next states drawn from a member.

        Args:
            state, action: as in `forward`.
            member: a number, "random" (one for each row), or "mean" (of the mixture: no draw for Gaussians).
            generator: of the draws.
        """
        prediction = self(state, action)
        lead = prediction[0].shape[:-3] + prediction[0].shape[-2:-1]
        state = state.expand(*lead, self.obs_dim)

        def draw(fill: str, *shape: int) -> Tensor:
            return getattr(torch.empty((*lead, *shape), device=state.device), fill)(generator=generator)

        who = None
        if member == "random":
            who = (draw("uniform_") * self.members).long().clamp(max=self.members - 1)
        elif isinstance(member, int):
            if not 0 <= member < self.members:
                raise ValueError(f"members are 0..{self.members - 1}: got {member}")
            who = torch.full(lead, member, device=state.device)
        elif member != "mean":
            raise ValueError(f"member is a number, 'random' or 'mean': got {member!r}")
        if self.likelihood == "categorical":
            return self.next_state(prediction, state, who, draw("uniform_"))
        return self.next_state(prediction, state, who, None if who is None else draw("normal_", self.obs_dim))

    def disagreement(self, prediction: Prediction, decay: float | None = 0.1) -> Tensor:
        r"""[*G, B]: Jensen-Shannon (categorical) or Jensen-Renyi (Gaussian) divergence of the members.

        Args:
            prediction: of `forward`.
            decay: Gaussian variances are first pulled to the largest, $v \leftarrow v_{max} - decay (v_{max} - v)$
                (as the released code does): the divergence is then driven by the means. None: as predicted.
        """
        if isinstance(prediction, CategoricalPrediction):
            return jensen_shannon(prediction.probs.movedim(-3, 0))
        mean, var = (p.movedim(-3, -2) for p in prediction)
        if decay is not None:
            widest = float(torch.tensor(self.max_logvar).exp())
            var = widest - decay * (widest - var)
        return jensen_renyi_gaussian(mean, var)


def _clip_members(parameters: list[nn.Parameter], limit: float) -> None:
    """Scale the gradients [K, ...] of every member to a norm of at most `limit`."""
    grads = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack([g.flatten(1).square().sum(1) for g in grads]).sum(0).sqrt()
    scale = (limit / norms.clamp(min=1e-12)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(scale.view(-1, *(1,) * (grad.ndim - 1)))


class DirichletEnsemble(nn.Module):
    r"""The exact posterior over transition tables: $P(\cdot | s, a) \sim \mathrm{Dirichlet}(\alpha + counts)$.

    What `DynamicsEnsemble` approximates, for few states and without any training. Disagreement has a closed form
    (infinitely many members): with $c = \alpha + counts$, $C = \sum c$ and the digamma function $\psi$,

    $$I(S'; P) = H(c / C) - \psi(C + 1) + \sum_i \frac{c_i}{C} \psi(c_i + 1).$$

    Args:
        states, actions: S and A.
        alpha: prior count of every successor. Small: successors are believed to be few, so that one visit tells
            much.
        groups: None, or G independent posteriors.
        device: where the counts live.

    >>> posterior = DirichletEnsemble(3, 2)
    >>> posterior.observe(torch.tensor([0]), torch.tensor([1]), torch.tensor([2]))
    >>> bool((posterior.information_gain()[0, 1] < posterior.information_gain()[0, 0]).all())
    True
    """

    counts: Tensor

    def __init__(
        self,
        states: int,
        actions: int,
        alpha: float = 0.1,
        groups: int | None = None,
        device: str | torch.device = "cpu",
    ):
        super().__init__()
        if alpha <= 0:
            raise ValueError(f"a Dirichlet prior is positive: got alpha={alpha}")
        self.alpha, self.groups = alpha, groups
        lead = () if groups is None else (groups,)
        self.register_buffer(
            "counts", torch.zeros(*lead, states, actions, states, dtype=torch.float64, device=device)
        )

    def observe(
        self,
        state: Int64[Tensor, "*groups rows"],
        action: Int64[Tensor, "*groups rows"],
        following: Int64[Tensor, "*groups rows"],
    ) -> None:
        """Count transitions."""
        _, actions, states = self.counts.shape[-3:]
        index = (state * actions + action) * states + following
        flat = self.counts.view(*index.shape[:-1], -1)
        self.counts = flat.scatter_add(-1, index, torch.ones_like(index, dtype=flat.dtype)).view_as(
            self.counts
        )

    def mean(self) -> Float[Tensor, "*groups states actions following"]:
        """The expected table [*G, S, A, S] float64."""
        c = self.counts + self.alpha
        return c / c.sum(-1, keepdim=True)

    def information_gain(self) -> Float[Tensor, "*groups states actions"]:
        """Expected information about the table from one more transition, nats, [*G, S, A]."""
        c = self.counts + self.alpha
        total = c.sum(-1)
        mean = c / total[..., None]
        expected = torch.digamma(total + 1) - (mean * torch.digamma(c + 1)).sum(-1)
        return (torch.special.entr(mean).sum(-1) - expected).clamp(min=0.0)

    def sample(
        self, members: int, generators: Generators
    ) -> Float[Tensor, "members *groups states actions following"]:
        """M tables drawn from the posterior, float64: the members of a finite ensemble.

        Args:
            members: M.
            generators: one, or one for each group.
        """
        c = self.counts + self.alpha
        if self.groups is None:
            assert isinstance(generators, torch.Generator), "one generator for one posterior"
            weights = _gamma(c.expand(members, *c.shape), generators)
        else:
            each = [generators] * self.groups if isinstance(generators, torch.Generator) else list(generators)
            drawn = (_gamma(own.expand(members, *own.shape), g) for own, g in zip(c, each, strict=True))
            weights = torch.stack(list(drawn), 1)
        return weights / weights.sum(-1, keepdim=True)


def _gamma(shape: Tensor, generator: torch.Generator) -> Tensor:
    """Gamma draws with the given shape parameters, float64: Marsaglia and Tsang (2000), boosted below 1.

    (torch's own sampler takes a generator in a private function only.)
    """

    def fresh() -> Tensor:
        return torch.empty(shape.shape, dtype=torch.float64, device=shape.device)

    small = shape < 1
    d = torch.where(small, shape + 1, shape) - 1 / 3
    c = (9 * d).rsqrt()
    out, missing = torch.zeros_like(d), torch.ones_like(d, dtype=torch.bool)
    while bool(missing.any()):
        x, u = fresh().normal_(generator=generator), fresh().uniform_(generator=generator)
        v = (1 + c * x) ** 3
        accepted = (v > 0) & (u.log() < 0.5 * x**2 + d * (1 - v + v.clamp_min(1e-300).log()))
        out, missing = torch.where(missing & accepted, d * v, out), missing & ~accepted
    boost = fresh().uniform_(generator=generator).log() / shape
    # Tiny shapes underflow to zero; a row of nothing but zeros would have no direction.
    return torch.where(small, out * boost.exp(), out).clamp(min=1e-300)


class Imagination:
    """One imagined step: the ensemble as a function from states and actions to successors and rewards.

    Args:
        ensemble: with or without groups.
        utility: predictions [*G, M, B, ...] to rewards [*G, B]; None: `ensemble.disagreement`.
        reward: (state, action, next state) to rewards: a task, instead of the utility.
        num_actions: discrete actions [*G, B] int64, passed on one-hot; None: continuous ones [*G, B, A].
        bound: continuous actions are cut to [-bound, bound].
    """

    def __init__(
        self,
        ensemble: DynamicsEnsemble,
        utility: Utility | None = None,
        reward: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
        num_actions: int | None = None,
        bound: float = 1.0,
    ):
        if num_actions is not None and num_actions != ensemble.act_dim:
            raise ValueError(f"the ensemble takes {ensemble.act_dim} actions one-hot: got {num_actions}")
        self.ensemble, self.utility, self.reward = ensemble, utility or ensemble.disagreement, reward
        self.num_actions, self.bound = num_actions, bound

    @torch.no_grad()
    def step(
        self, state: Tensor, action: Tensor, member: Tensor | None, noise: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(successor [*G, B, D], reward [*G, B]); `member` and `noise` as in `DynamicsEnsemble.next_state`."""
        if self.num_actions is None:
            given = action.clamp(-self.bound, self.bound)
        else:
            given = nn.functional.one_hot(action, self.num_actions).to(state.dtype)
        prediction = self.ensemble(state, given)
        following = self.ensemble.next_state(prediction, state, member, noise)
        if self.reward is not None:
            return following, self.reward(state, action, following)
        return following, self.utility(prediction)

    def __call__(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """(successor, reward) without noise; column b is governed by member b mod M: what `CEM` plans with."""
        member = torch.arange(state.shape[-2], device=state.device) % self.ensemble.members
        return self.step(state, action, member.expand(state.shape[:-1]), None)


class ImaginationEnv(TensorEnv):
    """An ensemble as an environment: learn or plan in it as in any other.

    The state [N, D] is the observation. Nothing terminates; an imagined episode is truncated after `horizon` steps.

    Args:
        num_envs: N.
        ensemble: without groups.
        starts: [K, D]: imagined episodes begin in a random one of these states; assign `starts` to change them.
        utility: predictions [M, N, ...] to rewards [N]; None: `ensemble.disagreement`.
        reward: (state, action, next state) to rewards [N]: a task, instead of the utility.
        propagate: "member": one random member governs a copy for an episode; "random": another in every step;
            "mean": the mean of all.
        noise: also draw from the member's own distribution, else take its mean (categorical: likeliest) outcome.
        num_actions: discrete actions, passed to the ensemble one-hot; None: continuous ones [N, act_dim].
        action_bound: continuous actions lie in [-action_bound, action_bound].
        horizon: H.
        **options: see `TensorEnv`.

    >>> model = DynamicsEnsemble(4, 2, likelihood="gaussian")
    >>> dream = ImaginationEnv(16, model, starts=torch.randn(5, 4), num_actions=2, horizon=3)
    >>> dream.reset()[0].shape, dream.step(torch.zeros(16, dtype=torch.int64)).reward.shape
    (torch.Size([16, 4]), torch.Size([16]))
    """

    state_names = ("state", "member")

    def __init__(
        self,
        num_envs: int,
        ensemble: DynamicsEnsemble,
        starts: Float[Tensor, "starts dims"],
        *,
        utility: Utility | None = None,
        reward: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
        propagate: str = "member",
        noise: bool = True,
        num_actions: int | None = None,
        action_bound: float = 1.0,
        horizon: int = 50,
        **options: Any,
    ):
        super().__init__(num_envs, max_steps=horizon, **options)
        if ensemble.groups is not None:
            raise ValueError("imagination needs one ensemble: build it without groups")
        if propagate not in ("member", "random", "mean"):
            raise ValueError(f"propagate is 'member', 'random' or 'mean': got {propagate!r}")
        self.imagine = Imagination(ensemble, utility, reward, num_actions, action_bound)
        if len(starts) < 1 or starts.shape[1] != ensemble.obs_dim:
            raise ValueError(f"starts are states [K >= 1, {ensemble.obs_dim}]: got {tuple(starts.shape)}")
        self.ensemble, self.starts = ensemble, starts.to(self.device)
        self.propagate, self.noise = propagate, noise
        self.num_actions, self.obs_shape = num_actions, (ensemble.obs_dim,)
        self.state = torch.zeros(num_envs, ensemble.obs_dim, device=self.device)
        self.member = torch.zeros(num_envs, dtype=torch.int64, device=self.device)

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        model = self.ensemble
        if self.propagate == "random":
            self.member = self.integers(model.members)
        noise = None
        if self.noise:
            noise = self.uniform() if model.likelihood == "categorical" else self.normal(model.obs_dim)
        member = None if self.propagate == "mean" else self.member
        self.state, reward = self.imagine.step(self.state, action, member, noise)
        never = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        return reward.float(), never, {}

    def _reset_rows(self, mask: Tensor) -> None:
        begin = self.starts[self.integers(len(self.starts))]
        self.state = where_rows(mask, begin, self.state)
        self.member = torch.where(mask, self.integers(self.ensemble.members), self.member)

    def observe(self) -> Tensor:
        return self.state.clone()

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        import numpy as np

        observation = spaces.Box(-np.inf, np.inf, self.obs_shape, np.float32)
        if self.num_actions is not None:
            return observation, spaces.Discrete(self.num_actions)
        return observation, spaces.Box(
            -self.imagine.bound, self.imagine.bound, (self.ensemble.act_dim,), np.float32
        )
