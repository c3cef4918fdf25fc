r"""One agent for many tasks: a shared policy, a value for each task, and PopArt between the two.

Source: Hessel et al., arXiv 1809.04474. Torso and policy head serve all tasks; the value head has one output a task,
of which only the active task's is trained. Observations do not tell the task (but a policy may see it from them);
`Rollout.task` does.

One update of `PopArtLearner`, in the order that matters:

1. values of the active tasks with the OLD statistics, in units of return;
2. V-trace targets $G$ and advantages $\rho\,(r + \gamma v_{s+1} - V)$ from them;
3. ART: $\mu_i, \sigma_i$ of each task take in its targets;
4. POP: the value head is rewritten so that its un-normalised outputs stay;
5. normalised outputs $f_i$ of the NEW head;
6. losses with the NEW statistics: $\frac12\big((G - \mu_i)/\sigma_i - f_i\big)^2$ and
   $-\log\pi(a|x)\,\rho\,(r + \gamma v_{s+1} - V)/\sigma_i$.

Step 6 is the paper's advantage $(G^{pg} - \mu_i)/\sigma_i - f_i$: by POP, $f_i = (V - \mu_i)/\sigma_i$.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from assay.rl.impala import VTraceLearner
from assay.rl.losses import policy_gradient_loss, value_loss
from assay.rl.nets import CategoricalHead, LSTMCore, LSTMState, MLPTorso, PolicyHead
from assay.rl.policies import ActorCritic, PolicyOutput, make_torso
from assay.rl.popart import PopArtHead, ReturnScale, TargetSums, gradient_share
from assay.rl.replay import TrajectoryReplay
from assay.rl.returns import lambda_returns
from assay.rl.rollout import Rollout, true_next_value

AuxLoss = Callable[[Rollout, PolicyOutput], dict[str, Tensor]]
"""From a rollout and the model's outputs on it to named, weighted losses, which are added to the others."""


def active(
    values: Float[Tensor, "*lead envs tasks"], task: Int[Tensor, "envs"]
) -> Float[Tensor, "*lead envs"]:
    """Of each row's values the one of its own task.

    Args:
        values: [..., N, n].
        task: [N], in 0..n-1.

    Returns:
        [..., N].

    Example:
        >>> active(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1, 0]))
        tensor([2., 3.])
    """
    return values.gather(-1, task.expand(values.shape[:-1])[..., None])[..., 0]


class MultiTaskActorCritic(ActorCritic):
    """An actor-critic with one policy and n values, one a task.

    `value` and `PolicyOutput.value` are in units of return, [..., n]: pick with `active`. `PolicyOutput.aux` holds the
    `features` that the heads read, so that a learner can evaluate the value head again after it was rewritten.

    Args:
        torso: observations to features.
        policy_head: shared by all tasks.
        value_head: one output a task. Never updated (`PopArtLearner(normalise="none")`) it is a plain linear layer.
        core: memory between torso and heads.
        aux_heads: modules on the features, for auxiliary losses (`PixelControlHead`).

    Raises:
        TypeError: a value head other than `PopArtHead`.
    """

    value_head: PopArtHead

    def __init__(
        self,
        torso: nn.Module,
        policy_head: PolicyHead,
        value_head: PopArtHead,
        core: LSTMCore | None = None,
        aux_heads: dict[str, nn.Module] | None = None,
    ):
        if not isinstance(value_head, PopArtHead):
            raise TypeError(f"the values of many tasks need a PopArtHead: got {type(value_head).__name__}")
        super().__init__(torso, policy_head, value_head, core, aux_heads=aux_heads)

    @property
    def streams(self) -> int:
        """n: one value a task."""
        return self.value_head.num_outputs

    def value(self, obs: Any, state: LSTMState | None = None, first: Tensor | None = None) -> Tensor:
        """[..., n] in units of return."""
        return self.value_head.denormalize(self.value_head(self.features(obs, state, first)[0]))

    def forward(
        self,
        obs: Any,
        state: LSTMState | None = None,
        first: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> PolicyOutput:
        """Distribution, values in units of return, state, auxiliary outputs and `features`."""
        x, state = self.features(obs, state, first)
        aux = {name: head(x) for name, head in self.aux_heads.items()}
        values = self.value_head.denormalize(self.value_head(x))
        return PolicyOutput(self.policy_head(x, mask), values, state, {**aux, "features": x})

    def shared_parameters(self) -> list[nn.Parameter]:
        """Those of torso and core, on which all tasks pull."""
        return [*self.torso.parameters(), *(self.core.parameters() if self.core is not None else ())]


@runtime_checkable
class Shaped(Protocol):
    """What a network has to know of an environment."""

    obs_shape: Any
    """Of one observation (tuple of int)."""
    num_actions: Any
    """Discrete actions (int), or None."""


def multitask_actor_critic(
    env: Shaped,
    num_tasks: int,
    hidden: tuple[int, ...] = (64, 64),
    act: str = "relu",
    *,
    conv: bool = False,
    lstm: int | None = None,
    value_gain: float = 1.0,
    generator: torch.Generator | None = None,
    **popart: Any,
) -> MultiTaskActorCritic:
    """A small `MultiTaskActorCritic` for an environment with discrete actions.

    Args:
        env: tells the shapes.
        num_tasks: n.
        hidden: widths.
        act: activation.
        conv: read pictures with two convolutions (`SmallGridConv`) rather than flattened.
        lstm: hidden units of a core.
        value_gain: of the value head's first weights; 0: all values begin at 0.
        generator: of the initialisation.
        **popart: for `PopArtHead` (beta, scale_bounds, debias, per).

    Raises:
        ValueError: continuous actions.

    Example:
        >>> from assay.envs import TaskSuite
        >>> model = multitask_actor_critic(TaskSuite(2), 4, debias=True)
        >>> model(torch.zeros(8, 4, 7, 7)).value.shape
        torch.Size([8, 4])
    """
    if env.num_actions is None:
        raise ValueError(
            "multitask_actor_critic is for discrete actions: build MultiTaskActorCritic yourself"
        )
    shape = env.obs_shape
    if conv or len(shape) != 3:
        torso = make_torso(shape, hidden, act, generator)
    else:
        size = int(torch.tensor(shape).prod())
        torso = MLPTorso((size, *hidden), act, 3, generator)
    core = LSTMCore(torso.features, lstm) if lstm else None
    width = core.features if core else torso.features

    def init(weight: Tensor) -> None:
        nn.init.orthogonal_(weight, value_gain, generator=generator)

    head = PopArtHead(width, num_tasks, init=init, **popart)
    return MultiTaskActorCritic(
        torso, CategoricalHead(width, env.num_actions, generator=generator), head, core
    )


class PopArtLearner(VTraceLearner):
    """IMPALA's learner for many tasks, with PopArt or one of its ablations.

    With `normalise="none"` it is plain multi-task IMPALA, on raw rewards or, with `reward_transform`, on clipped ones.

    Args:
        model: one value a task.
        optimizer: over its parameters; no weight decay on the value head.
        normalise: "both" (PopArt); "critic": the policy gradient keeps the advantage in units of return; "actor": the
            critic regresses returns in their own units (its last layer still follows the statistics); "none".
        statistics: "task", or "pooled": one shift and scale for all tasks, from all their targets.
        preserve: POP. False: only the targets are rescaled, and values jump when the statistics move.
        freeze_after: the statistics stay as they are after so many updates; None: they always move.
        start: what a task's statistics are before its first update: "prior": as the head was made; "data": those of
            its first targets, computed as if all values were 0. Then rewards of any size give the same learning, bit
            for bit if the sizes differ by a power of two.
        rescale_optimizer: the optimiser's moments of the value head follow its rescaling (`rescale_optimizer`).
        return_scale: divide rewards by the running std of each task's returns first (the cheap rival). It keeps a sum
            for each copy: the copies of every batch have to be the same, in the same order (one actor).
        shares_every: every so many updates the metrics have `share_<task>`, each task's share in the gradient of
            policy and value into the shared layers (`gradient_share`: a backward pass a task). None: never.
        aux_losses: further losses.
        **options: of `VTraceLearner`.

    Raises:
        ValueError: an unknown choice, shares_every or freeze_after below 1.
        TypeError: a model that is no `MultiTaskActorCritic`.

    Example:
        >>> from assay.envs import TaskSuite
        >>> from assay.rl.rollout import Rollout, collect, start
        >>> env = TaskSuite(4, reward_scales=(1, 10, 100, 1000))
        >>> model = multitask_actor_critic(env, env.num_tasks, beta=0.1, per="batch", debias=True)
        >>> learner = PopArtLearner(model, torch.optim.Adam(model.parameters(), 2e-3), start="data")
        >>> rollout = Rollout(10, env.num_envs)
        >>> carry = collect(env, model, rollout, start(env, model), values=False)
        >>> metrics = learner.update(rollout)
    """

    model: MultiTaskActorCritic

    def __init__(
        self,
        model: MultiTaskActorCritic,
        optimizer: torch.optim.Optimizer,
        *,
        normalise: str = "both",
        statistics: str = "task",
        preserve: bool = True,
        freeze_after: int | None = None,
        start: str = "prior",
        rescale_optimizer: bool = False,
        return_scale: ReturnScale | None = None,
        shares_every: int | None = None,
        aux_losses: Sequence[AuxLoss] = (),
        **options: Any,
    ):
        for name, choice, known in (
            ("normalise", normalise, ("both", "critic", "actor", "none")),
            ("statistics", statistics, ("task", "pooled")),
            ("start", start, ("prior", "data")),
        ):
            if choice not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}: got {choice!r}")
        for name, number in (("freeze_after", freeze_after), ("shares_every", shares_every)):
            if number is not None and number < 1:
                raise ValueError(f"{name} is a number of updates, at least 1, or None: got {number}")
        if rescale_optimizer and (not preserve or normalise != "both"):
            raise ValueError(
                "rescale_optimizer follows POP with a normalised critic: normalise='both', preserve=True"
            )
        super().__init__(model, optimizer, **options)
        self.normalise, self.statistics, self.preserve = normalise, statistics, preserve
        self.freeze_after, self.start, self.rescale_optimizer = freeze_after, start, rescale_optimizer
        self.return_scale, self.shares_every, self.aux_losses = return_scale, shares_every, tuple(aux_losses)
        self.target_sums: TargetSums | None = None
        """Count, sum and sum of squares of each task's targets in the last update, in units of return."""

    def _check_model(self, model: ActorCritic) -> None:
        if not isinstance(model, MultiTaskActorCritic):
            raise TypeError(f"PopArtLearner trains a MultiTaskActorCritic: got {type(model).__name__}")

    def _losses(self, rollout: Rollout, out: PolicyOutput, reward: Tensor) -> dict[str, Tensor]:
        head = self.model.value_head
        task = self._tasks(rollout)
        index = task.expand(rollout.steps, -1)
        if self.return_scale is not None:
            reward = self.return_scale(reward, rollout.ended)
        moving = self.normalise != "none" and (self.freeze_after is None or self.version < self.freeze_after)
        every = out.value.detach()
        if moving and self.start == "data" and self._start(rollout, reward, index):
            with torch.no_grad():
                every = head.denormalize(head(out.aux["features"]))
        # 1, 2: old statistics, units of return.
        value = active(every, task)
        next_value = active(true_next_value(self.model, rollout, every), task)
        logp, entropy = self.action_terms(rollout, out)
        corrected = self.correct(rollout, logp, reward, value[:-1], next_value)
        # 3, 4: ART and POP.
        sums = self.target_sums = head.sums(corrected.targets, index, rollout.valid)
        if moving:
            head.update_from(self._shared(sums), preserve=self.preserve)
            if self.rescale_optimizer:
                head.rescale_optimizer(self.optimizer)
        # 5, 6: new head, new statistics. Before the first update they are 0 and 1.
        output = active(head(out.aux["features"][:-1]), task)
        advantage = corrected.pg_advantage
        if self.normalise in ("both", "actor"):
            advantage = (advantage / head.sigma[index]).to(advantage.dtype)
        if self.normalise in ("both", "critic"):
            wanted = head.normalize(corrected.targets, index)
        else:
            output, wanted = head.denormalize(output, index), corrected.targets
        critic = value_loss(output, wanted, mask=rollout.valid, reduction=self.reduction)
        terms = self.total(rollout, logp, entropy, advantage, critic, corrected)
        if self.shares_every is not None and self.version % self.shares_every == 0:
            losses = self._by_task(rollout, index, logp, advantage, output, wanted, corrected.epsilon)
            share = gradient_share(losses, self.model.shared_parameters())
            terms |= {f"share_{k}": part for k, part in enumerate(share)}
        for function in self.aux_losses:
            extra = function(rollout, out)
            if clash := terms.keys() & extra.keys():
                raise ValueError(f"auxiliary losses need names of their own: got {sorted(clash)}")
            terms |= extra
            terms["loss"] = terms["loss"] + sum(extra.values())
        return terms

    def _tasks(self, rollout: Rollout) -> Tensor:
        if rollout.task is None:
            raise ValueError(
                "the rollout does not tell its tasks: use MultiTask, or an environment whose steps' info has 'task'"
            )
        return rollout.task

    def _shared(self, sums: TargetSums) -> TargetSums:
        if self.statistics == "task":
            return sums
        return TargetSums(*(part.sum().expand_as(part) for part in sums))

    def _start(self, rollout: Rollout, reward: Tensor, index: Tensor) -> bool:
        """Set the statistics of tasks that have none, from discounted sums of the rewards seen; whether any was."""
        head = self.model.value_head
        new = head.weight_seen == 0
        if not bool(new.any()):
            return False
        ends = (rollout.terminated, rollout.truncated)
        returns = lambda_returns(reward, torch.zeros_like(reward), *ends, self.gamma, 1.0, rollout.valid)
        sums = self._shared(head.sums(returns, index, rollout.valid & new[index]))
        sums = TargetSums(*(torch.where(new, part, 0) for part in sums))
        head.start_from(sums)
        return bool((sums.count > 0).any())

    def _by_task(
        self,
        rollout: Rollout,
        index: Tensor,
        logp: Tensor,
        advantage: Tensor,
        output: Tensor,
        wanted: Tensor,
        epsilon: float,
    ) -> Tensor:
        """[n]: each task's part in the sum of policy and value losses."""
        parts = []
        for k in range(self.model.streams):
            mine = rollout.valid & (index == k)
            actor = policy_gradient_loss(logp, advantage, mask=mine, reduction="sum", epsilon=epsilon)
            parts.append(actor + self.vf_coef * value_loss(output, wanted, mask=mine, reduction="sum"))
        return torch.stack(parts)


class TaskReturns:
    """Returns of the episodes that end in consecutive rollouts, task by task.

    Rollouts may be of one set of copies, or stacked unrolls of several actors (`Rollout.origin` tells them apart), but
    not replayed ones.

    Args:
        num_tasks: n.

    Raises:
        ValueError: no tasks.

    Example:
        >>> returns = TaskReturns(num_tasks=2)
        >>> # for each rollout: sums, counts = returns.add(rollout, reward)
    """

    def __init__(self, num_tasks: int):
        if num_tasks < 1:
            raise ValueError(f"there is at least one task: got {num_tasks}")
        self.num_tasks = num_tasks
        self._open: dict[int, Tensor] = {}

    def add(
        self, rollout: Rollout, reward: Float[Tensor, "time envs"] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Sum of the returns that ended in this rollout and their number, [n] float64 each.

        Args:
            rollout: with `task`.
            reward: what is summed; default the rollout's.

        Raises:
            ValueError: a rollout without tasks, or an actor whose number of copies changed.
        """
        if rollout.task is None:
            raise ValueError("the rollout does not tell its tasks")
        reward = (rollout.reward[..., 0] if reward is None else reward).double() * rollout.valid
        sums, counts = reward.new_zeros(2, self.num_tasks)
        # Unrolls of one actor in the order in which it made them; nearly always there is one.
        for actor, made in rollout.origin.unique(dim=0).tolist():
            rows = (rollout.origin == torch.tensor([actor, made], device=rollout.origin.device)).all(1)
            finished = self._finish(actor, reward[:, rows], rollout.ended[:, rows])
            sums = sums.index_add(0, rollout.task[rows], finished)
            counts = counts.index_add(0, rollout.task[rows], rollout.ended[:, rows].sum(0).double())
        return sums, counts

    def _finish(self, actor: int, reward: Tensor, ended: Tensor) -> Tensor:
        """[rows]: sums of the returns that end here; the rest stays open."""
        before = self._open.setdefault(actor, torch.zeros_like(reward[0]))
        if before.shape != reward[0].shape:
            raise ValueError(f"actor {actor} had {len(before)} copies before: got {reward.shape[1]}")
        # Sums since the first step; the episode that is open at the start began with `before` in hand.
        total = torch.cat((-before[None], reward.cumsum(0)))
        step = torch.arange(1, len(reward) + 1, device=reward.device)[:, None]
        last = torch.where(ended, step, 0).cummax(0).values
        began = torch.cat((torch.zeros_like(last[:1]), last[:-1]))
        self._open[actor] = total[-1] - total.gather(0, last[-1:])[0]
        return torch.where(ended, total[1:] - total.gather(0, began), 0).sum(0)


class TaskBalancedSampler(TrajectoryReplay):
    """Equal numbers of unrolls of every task, however fast each task's actors are. A replay for `ActorLearner`.

    PopArt gives tasks equal weight a sample; equal weight in all needs equal numbers of samples.

    Args:
        capacity: unrolls kept of each task; the oldest goes.
        generator: of the draws.

    Raises:
        ValueError: capacity below 1.
    """

    def __init__(self, capacity: int, generator: torch.Generator | None = None):
        super().__init__(capacity, generator=generator)
        self._by_task: dict[int, list[Rollout]] = {}
        self.served: dict[int, int] = {}
        """Unrolls of each task that were handed out."""

    @property
    def tasks(self) -> list[int]:
        """Those seen so far."""
        return sorted(self._by_task)

    def __len__(self) -> int:
        """Unrolls held."""
        return sum(map(len, self._by_task.values()))

    def add(self, rollout: Rollout, priority: float = 0.0) -> None:
        """Keep an unroll of one task (`priority` is ignored).

        Raises:
            ValueError: an unroll without a task, or with several.
        """
        if rollout.task is None or len(kinds := rollout.task.unique()) != 1:
            raise ValueError("give unrolls of one task each: an actor for every task")
        kept = self._by_task.setdefault(int(kinds), [])
        self.served.setdefault(int(kinds), 0)
        kept.append(rollout)
        del kept[: -self.capacity]

    def sample(self, n: int) -> list[Rollout]:
        """`n` unrolls: their numbers a task differ by one at most; within a task uniform, with replacement.

        Tasks that had one less this time are the first the next time.

        Raises:
            ValueError: nothing to sample from.
        """
        if not self._by_task:
            raise ValueError("the sampler is empty: add unrolls before sampling")
        given = dict.fromkeys(self._by_task, 0)
        chosen = []
        for _ in range(n):
            task = min(given, key=lambda k: (given[k], self.served[k], k))
            given[task] += 1
            self.served[task] += 1
            kept = self._by_task[task]
            chosen.append(kept[int(torch.randint(len(kept), (), generator=self.generator))])
        return chosen


def tasks_of_actors(num_actors: int, num_tasks: int) -> list[int]:
    """Task of each actor, as equal in number as can be: 0, 1, ..., n - 1, 0, 1, ...

    Raises:
        ValueError: a task would have no actor.
    """
    if not 1 <= num_tasks <= num_actors:
        raise ValueError(f"{num_tasks} tasks need as many actors or more: got {num_actors}")
    return [k % num_tasks for k in range(num_actors)]


# Pixel control: the auxiliary task of the paper's DMLab experiments.


def pixel_changes(obs: Tensor, cell: int = 4) -> Tensor:
    """Mean absolute change of each cell of the picture from one step to the next: pixel control's rewards.

    Source: Jaderberg et al., arXiv 1611.05397, section 3.1.

    Args:
        obs: pictures [T + 1, N, C, H, W]; uint8 is scaled to 0..1.
        cell: pixels a side; what is left over at the right and at the bottom is dropped.

    Returns:
        [T, N, H // cell, W // cell].

    Raises:
        ValueError: no pictures, or cells larger than they are.
    """
    if obs.ndim != 5 or not 1 <= cell <= min(obs.shape[-2:]):
        raise ValueError(
            f"give pictures [T + 1, N, C, H, W] and a cell that fits: got {tuple(obs.shape)}, {cell}"
        )
    pictures = obs.float() / 255 if obs.dtype == torch.uint8 else obs
    change = (pictures[1:] - pictures[:-1]).abs().mean(2)
    return nn.functional.avg_pool2d(change, cell)


class PixelControlHead(nn.Module):
    """Features to action values of every cell's change, [..., A, h, w] (duelling).

    The paper's has a deconvolution; this one is a dense layer to `width` channels and two 1x1 convolutions.

    Args:
        features: F.
        actions: A.
        cells: (h, w), as `pixel_changes` gives them.
        width: channels.
    """

    def __init__(self, features: int, actions: int, cells: tuple[int, int], width: int = 32):
        super().__init__()
        self.cells, self.width = cells, width
        self.dense = nn.Linear(features, width * cells[0] * cells[1])
        self.value, self.advantage = nn.Conv2d(width, 1, 1), nn.Conv2d(width, actions, 1)

    def forward(
        self, features: Float[Tensor, "*lead features"]
    ) -> Float[Tensor, "*lead actions height width"]:
        """Q of each action, in each cell."""
        x = self.dense(features.flatten(0, -2)).relu().unflatten(1, (self.width, *self.cells))
        advantage = self.advantage(x)
        q = self.value(x) + advantage - advantage.mean(1, keepdim=True)
        return q.unflatten(0, features.shape[:-1])


class PixelControl:
    """Pixel control as an auxiliary loss: n-step action values of how much each cell changes.

    The model needs `aux_heads={"pixel_control": PixelControlHead(...)}`.

    Args:
        weight: of the loss.
        gamma: its own discount; 0.9 in the source.
        cell: see `pixel_changes`.
        picture: key of the picture in observations that are dictionaries.

    Example:
        >>> # PopArtLearner(model, optimizer, aux_losses=[PixelControl(weight=0.01)])
    """

    def __init__(self, weight: float = 0.01, gamma: float = 0.9, cell: int = 4, picture: str | None = None):
        if weight < 0 or not 0 <= gamma < 1:
            raise ValueError(f"weight >= 0 and gamma in [0, 1): got {weight} and {gamma}")
        self.weight, self.gamma, self.cell, self.picture = weight, gamma, cell, picture

    def __call__(self, rollout: Rollout, out: PolicyOutput) -> dict[str, Tensor]:
        """{"pixel_control": weighted loss}: half the squared error, mean over steps and sum over cells.

        The step into another episode shows no change of the agent's making: it pays 0 and ends the sum.
        """
        if "pixel_control" not in out.aux:
            raise ValueError(
                'pixel control needs a model with aux_heads={"pixel_control": PixelControlHead(...)}'
            )
        obs: Any = rollout.obs
        if self.picture is not None:
            obs = obs[self.picture]
        reward = pixel_changes(obs, self.cell)
        q = out.aux["pixel_control"]
        ended = rollout.ended
        reward = reward * ~ended[..., None, None]
        after = q[1:].detach().amax(2)  # of the last step's successor; n-step sums use it once
        targets = lambda_returns(
            reward.flatten(2),
            after.flatten(2),
            ended,
            torch.zeros_like(ended),
            gamma=self.gamma,
            lam=1.0,
            valid=rollout.valid,
        ).view_as(reward)
        choice = rollout.action[:, :, None, None, None].expand(-1, -1, 1, *q.shape[-2:])
        taken = q[:-1].gather(2, choice)[:, :, 0]
        error = 0.5 * (taken - targets.detach()).square().sum((-2, -1))
        return {
            "pixel_control": self.weight * torch.where(rollout.valid, error, 0).sum() / rollout.valid.sum()
        }


class ShareSummary(NamedTuple):
    """Who pulled on the shared layers."""

    shares: Tensor
    """[n]: mean shares over training."""
    evenness: float
    """Entropy of the shares over log n, averaged over training: 1 where all tasks always pull alike."""


def summarise_shares(shares: Float[Tensor, "updates tasks"]) -> ShareSummary:
    """Mean shares and their evenness.

    Args:
        shares: `gradient_share` of several updates, rows sum to 1.

    Raises:
        ValueError: fewer than two tasks.

    Example:
        >>> summarise_shares(torch.tensor([[0.5, 0.5], [0.5, 0.5]])).evenness
        1.0
    """
    if shares.shape[1] < 2:
        raise ValueError("evenness compares tasks: give at least two")
    entropy = -torch.special.xlogy(shares, shares).sum(1)
    evenness = entropy / torch.tensor(float(shares.shape[1])).log()
    return ShareSummary(shares.mean(0), float(evenness.mean()))
