"""Disagreement of a dynamics ensemble as a reward for what was met: the reactive use of what MAX plans for.

Shyam et al. (2019, arXiv 1810.12162) call it JDRX; with `utility="variance"` of the members' means it is the reward of
Pathak, Gandhi, Gupta (2019, arXiv 1906.04161).
"""

import torch
from torch import Tensor, nn

from assay.envs.base import Obs
from assay.rl.dynamics import DynamicsEnsemble, GaussianPrediction, Transitions
from assay.rl.information import mean_variance
from assay.rl.intrinsic.base import IntrinsicReward
from assay.rl.normalize import RunningMeanStd
from assay.rl.rollout import Batch, Rollout


class EnsembleDisagreement(IntrinsicReward):
    """How much the members of an ensemble disagree about the step that was made.

    The ensemble learns in the learner's minibatches, through `loss`; a Gaussian one takes its units from everything
    seen so far.

    Args:
        ensemble: without groups, of vector observations.
        utility: "jensen": Jensen-Shannon or Jensen-Renyi divergence; "variance": of the Gaussian members' means.
        num_actions: discrete actions are passed one-hot; None: continuous.

    >>> model = DynamicsEnsemble(4, 2, members=5, likelihood="gaussian")
    >>> bonus = EnsembleDisagreement(model, num_actions=2)
    >>> bonus.bonus(torch.randn(7, 5, 4), torch.zeros(7, 5, dtype=torch.int64)).shape
    torch.Size([7, 5])
    """

    def __init__(self, ensemble: DynamicsEnsemble, utility: str = "jensen", num_actions: int | None = None):
        super().__init__()
        if utility not in ("jensen", "variance"):
            raise ValueError(f"utility is 'jensen' or 'variance': got {utility!r}")
        if utility == "variance" and ensemble.likelihood != "gaussian":
            raise ValueError("the variance of means is for Gaussian ensembles")
        if ensemble.groups is not None or ensemble.members < 2:
            raise ValueError("disagreement needs one ensemble of at least two members, built without groups")
        self.ensemble, self.utility, self.num_actions = ensemble, utility, num_actions
        self.in_stats = RunningMeanStd((ensemble.obs_dim + ensemble.act_dim,))
        self.delta_stats = RunningMeanStd((ensemble.obs_dim,))

    def _inputs(self, obs: Obs, action: Tensor) -> tuple[Tensor, Tensor]:
        if not isinstance(obs, Tensor) or obs.shape[-1] != self.ensemble.obs_dim:
            raise ValueError(f"the ensemble predicts vectors of {self.ensemble.obs_dim} numbers")
        if self.num_actions is not None:
            action = nn.functional.one_hot(action, self.num_actions)
        return obs.float(), action.float()

    @torch.no_grad()
    def bonus(self, obs: Obs, action: Tensor) -> Tensor:
        """[...]: the disagreement about steps from observations [..., D]."""
        state, act = self._inputs(obs, action)
        lead = state.shape[:-1]
        prediction = self.ensemble(state.flatten(0, -2), act.flatten(0, -2))
        if self.utility == "variance":
            assert isinstance(prediction, GaussianPrediction)
            return mean_variance(prediction.mean.movedim(-3, -2)).view(lead)
        return self.ensemble.disagreement(prediction).view(lead)

    def reward(self, rollout: Rollout) -> Tensor:
        """[T, N]."""
        obs = rollout.obs
        return self.bonus(obs[:-1] if isinstance(obs, Tensor) else obs, rollout.action)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The members' mean negative log-likelihood of the batch's transitions."""
        state, action = self._inputs(batch.obs, batch.action)
        target = batch.next_obs
        assert isinstance(target, Tensor)
        data = Transitions(state, action, target.float())
        return {"ensemble": self.ensemble.losses(data).mean()}

    @torch.no_grad()
    def observe(self, rollout: Rollout) -> None:
        """Take the rollout into the units of a Gaussian ensemble."""
        if self.ensemble.likelihood != "gaussian":
            return
        assert isinstance(rollout.obs, Tensor)
        following = rollout.next_obs()
        assert isinstance(following, Tensor)
        state, action = self._inputs(rollout.obs[:-1], rollout.action)
        self.in_stats.update(torch.cat((state, action), -1), rollout.valid)
        self.delta_stats.update(following.float() - state, rollout.valid)
        model = self.ensemble
        for stats, mean, std in (
            (self.in_stats, model.in_mean, model.in_std),
            (self.delta_stats, model.delta_mean, model.delta_std),
        ):
            mean.copy_(stats.mean)
            std.copy_(torch.where(stats.var > 1e-16, stats.var.sqrt(), 1.0))
