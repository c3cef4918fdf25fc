"""Six tasks of different kinds: does the bonus help where the reward is not sparse?"""

from collections.abc import Callable
from typing import Any

from assay.envs import Catch, MountainCar, PointMaze, RoomsGrid, SideScroller, TensorEnv, Wrapper
from assay.envs.base import Obs, Step
from assay.lab import Trial
from assay.rl.evaluate import evaluate
from assay.rl.rollout import RandomPolicy
from assay.studies.random_network_distillation import study
from assay.studies.random_network_distillation.agents import explore
from assay.studies.random_network_distillation.config import SuiteConfig


class SparseCar(Wrapper):
    """The mountain car paid 1 at the summit and nothing else; position and velocity shown on one scale, -1 to 1.

    (As it comes the velocity is at most 0.07: a small network that starts from unit weights hardly sees it.)
    """

    changes_world = True

    def __init__(self, num_envs: int, **options: Any):
        super().__init__(MountainCar(num_envs, action_repeat=4, max_steps=100, **options))

    def _advance(self, step: Step) -> Step:
        return step._replace(reward=step.info["success"].float())

    def _see(self, obs: Obs) -> Obs:
        return (obs - obs.new_tensor([-0.3, 0.0])) / obs.new_tensor([0.9, 0.07])


TASKS: dict[str, tuple[Callable[..., TensorEnv], float]] = {
    "sparse-rooms": (lambda n, **o: RoomsGrid(n, 3, reward="sparse", **o), 1.0),
    "dense-rooms": (lambda n, **o: RoomsGrid(n, 3, reward="dense", **o), 2.0),
    "catch": (lambda n, **o: Catch(n, view="flat", **o), 1.0),
    "scroller": (lambda n, **o: SideScroller(n, **o), 119.0),
    "car": (SparseCar, 1.0),
    "maze": (lambda n, **o: PointMaze(n, layout="barrier-left", **o), 1.0),
}
"""How each task is made, and the largest return that it has."""


def make_task(name: str, num_envs: int, **options: Any) -> TensorEnv:
    return TASKS[name][0](num_envs, **options)


@study.trial("suite/*", config="suite")
def suite(run: Trial, arm: str, config: SuiteConfig) -> dict[str, float]:
    """One task; the score is 0 for random actions and 1 for the largest return there is."""
    task, _, kind = arm.partition("/")[2].rpartition("-")
    n = config.agent.copies
    env = make_task(task, n, generator=run.generator("world"), device=run.device, validate=False)
    other = make_task(task, n, generator=run.generator("evaluation"), device=run.device, validate=False)
    random = float(
        evaluate(
            RandomPolicy(other), other, config.episodes, generator=run.generator("random")
        ).returns.mean()
    )
    model = None
    earned, ended = 0.0, 0
    for update, trained, _ in explore(run, env, kind, config.agent, config.updates):
        model = trained
        earned += float(update.rollout.reward[..., 0].sum())
        ended += int(update.rollout.ended.sum())
    assert model is not None
    played = evaluate(model, other, config.episodes, generator=run.generator("play"))
    best = TASKS[task][1]
    final = float(played.returns.mean())
    return {
        "score": (final - random) / (best - random),
        "final_return": final,
        "random_return": random,
        "training_return": earned / max(ended, 1),
    }
