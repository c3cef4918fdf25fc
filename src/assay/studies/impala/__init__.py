r"""An actor-critic that waits for its slowest simulator at every step wastes its machines. IMPALA lets *actors* run
ahead with an older copy of the policy and ship whole trajectories to a *learner*, which never waits for anybody in
particular. The price is **lag**: by the time the learner sees a trajectory, its policy has moved on by a few updates,
and the data are off-policy. The paper pays that price with a correction of the targets, V-trace.

## The mechanism

Actors follow $\mu$, the learner wants $\pi$. Both sides of the correction truncate the ratio $\pi/\mu$, each with a
bar of its own: $\rho_t = \min(\bar\rho, \pi/\mu)$ and $c_t = \lambda \min(\bar c, \pi/\mu)$. The target of the value
is

$$v_s = V(x_s) + \sum_{t=s}^{s+n-1} \gamma^{t-s} \Big(\prod_{i=s}^{t-1} c_i\Big)\, \rho_t
\big(r_t + \gamma V(x_{t+1}) - V(x_t)\big),$$

and the policy follows $\rho_s \nabla\log\pi(a_s|x_s)\,\big(r_s + \gamma v_{s+1} - V(x_s)\big)$, an entropy bonus
beside it. The two bars do different things (Theorem 1):

- $\bar\rho$ decides **what** is learnt: the value of a policy between $\mu$ (bar near 0) and $\pi$ (no bar), namely
  $\pi_{\bar\rho}(a|x) \propto \min(\bar\rho\,\mu(a|x), \pi(a|x))$;
- $\bar c$ decides **how fast and how noisily**, and does not enter the fixed point.

On fresh data with both bars at 1 or more, $v_s$ is the ordinary n-step Bellman target. Three popular misreadings: a
high $\bar\rho$ does not only remove bias, it adds variance; nothing is ever weighted *up* beyond $\bar c$; and the
correction sits in the targets and the loss, not in the network.

## How we test it

1. **Theory** (`theory/garnets`): random processes of 20 states and 4 actions with random $\pi$ and $\mu$. The
   operator is a matrix, so fixed point, bias $\lVert V^{\pi_{\bar\rho}} - V^\pi\rVert_\infty$ and iterations to
   $10^{-3}$ are exact; the variance is that of sampled 20-step targets from the same start, at $V = V^\mu$. One
   process a seed.
2. **Replay** (`replay/*`): Catch, half of every batch drawn from the last 400 unrolls, behaviour 8 updates old on
   top. Four corrections with one and the same agent: *V-trace*; *one-step* (the ratio weighs the policy gradient
   only); *epsilon* (gradient of $\log(\pi + 10^{-6})$, nothing else); *none*. `replay-low/*` repeats it at a lower
   learning rate, `rooms/*` in the four rooms (reported, no claim).
3. **Lag alone** (`lag0/*`, `lag10/*`, `lag30/*`): no replay; the behaviour is exactly 0, 10 or 30 updates old; final
   return averaged over three learning rates.
4. **Throughput** (`throughput/*`): 16 worlds that sleep a log-normal time with a mean of 5 ms before each step. All
   in lockstep (*sync-step*), all finish an unroll before the learner moves (*sync-trajectory*), or nobody waits
   (*impala*, as threads and as processes; *a3c*: actors send gradients). `steady/*` is the control in which every
   step takes the same time.
5. **Transfer** (`transfer/*`): six small worlds of rooms with one picture language, one agent for all against six
   experts, 100,000 steps a task. Score 0 is a random player, 1 reaching the goal always, capped at 1.
6. **Robustness** (`draws/*`, reported): learning rate and entropy cost drawn at random, IMPALA two updates behind
   against a synchronous advantage actor-critic on the same data.

Lag is not left to chance: the `inline` backend of `ActorLearner` calls its actors in turn and hands them parameters
of a chosen age. What a study of stale data needs to hold fixed, it can then hold fixed, and runs repeat to the bit.

## What differs from the paper

- Small networks, Catch and rooms instead of DMLab and Atari; Adam on mean losses. The paper's RMSProp with epsilon
  0.1 belongs to *summed* losses (`RMSPropTF` and `reduction="sum"` are there, and the paper profile uses them).
- A world of `sync-step` waits for the slowest of its 16 copies without any pool of threads: the baseline pays less
  than it would in practice. `impala-process` runs two seeds and carries no claim: starting 16 Python processes costs
  more time than the measurement.
- Threads share Python's interpreter lock. With worlds that sleep that is no matter; with worlds that compute the
  `process` backend is the right one.
- Of the paper's optimisations, time is folded into the batch for everything below the memory. Batching inference
  across actors (the paper's *dynamic batching*) is not kept: a world of N copies batches its own inference. Several
  synchronous learners are not kept either.
- Population-based training needs no hook of its own: `ActorLearner.run` yields after every update, and a caller may
  change the learner's rates or load another member's parameters between two of them.
- The last action and reward are not fed to the network.

## How to read the results

Catch pays 1 or -1 an episode; a run that ends below 0.9 counts as failed. Without correction, old actions
whose probability has since fallen go on being reinforced as if they were still being chosen, and the policy is pushed
to extremes that it cannot leave: `entropy` tells, and so does the effective sample share of the ratios. One-step
importance sampling has the right weight on the gradient and only its values are off, which hurts much less; in the
paper's own table it is ahead of V-trace on two of five tasks, and under lag alone we expect no better of V-trace.

Multi-task transfer is the contested claim. The paper reports it for DMLab-30, where levels share one visual language,
and the same agent on Atari stays far below its experts. Our six tasks are nearer to the former, and four of them are
so sparse that an expert seldom meets its goal within the budget, while the agent of all tasks brings the habit of
walking to the goal from the easy ones. With `transfer.tasks` one may name others, such as MiniGrid's
(`assay.studies.impala.transfer.MINIGRID`).

Lasse Espeholt, Hubert Soyer, Remi Munos, Karen Simonyan, Volodymyr Mnih, Tom Ward, Yotam Doron, Vlad Firoiu, Tim
Harley, Iain Dunning, Shane Legg, Koray Kavukcuoglu (2018). IMPALA: Scalable Distributed Deep-RL with Importance
Weighted Actor-Learner Architectures. ICML 2018, arXiv 1802.01561.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from assay._extras import MissingExtra, missing, pip_command
from assay.lab import All, Arm, Claim, Difference, Paper, Ratio, Statistic, Study
from assay.studies.impala import figures, learn, theory, throughput, transfer
from assay.studies.impala.learn import CORRECTIONS, DrawsConfig, LearnConfig
from assay.studies.impala.theory import TheoryConfig
from assay.studies.impala.throughput import ThroughputConfig
from assay.studies.impala.transfer import TransferConfig


@dataclass(frozen=True)
class Config:
    """One part an experiment; the values are the laptop's."""

    theory: TheoryConfig = field(default_factory=TheoryConfig)
    replay: LearnConfig = field(default_factory=LearnConfig)
    replay_low: LearnConfig = field(default_factory=lambda: LearnConfig(rates=(2e-3,)))
    rooms: LearnConfig = field(
        default_factory=lambda: LearnConfig(
            world="rooms", unroll=20, updates=200, evaluations=4, episodes=128
        )
    )
    lag: LearnConfig = field(
        default_factory=lambda: LearnConfig(updates=200, replay=0, rates=(1e-3, 2e-3, 5e-3), evaluations=8)
    )
    draws: DrawsConfig = field(default_factory=DrawsConfig)
    throughput: ThroughputConfig = field(default_factory=ThroughputConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)


ABOUT = {
    "vtrace": "V-trace",
    "onestep": "ratio on the policy gradient, values as if on-policy",
    "epsilon": "gradient of log(pi + 1e-6), no ratio",
    "none": "as if on-policy",
}
LAGS = (0, 10, 30)

ATARI = {
    "backend": "process",
    "actors": 48,
    "copies": 1,
    "unroll": 20,
    "fresh": 32,
    "agent.network": "deep",
    "agent.optimizer": "rmsprop-tf",
    "agent.epsilon": 0.01,
    "agent.anneal": True,
    "agent.reduction": "sum",
    "agent.reward": "clip",
}
"""The paper's agent for Atari (table G.1): no memory, four pictures, 6e-4, entropy 0.01."""
FRAMES = 200_000_000 // 4
"""Steps of four frames."""


def paper_profile() -> dict[str, object]:
    """Atari in place of Catch; the suite is all of Atari-57 with one set of actions."""
    from assay.rl.scores import atari_id, human_normalised_scores

    values: dict[str, object] = {
        "seeds": 5,
        "theory.states": 50,
        "theory.trajectories": 200,
        "throughput.actors": 48,
        "throughput.unroll": 100,
        "throughput.seconds": 60.0,
    }
    games = {"replay": "ALE/Breakout-v5", "replay_low": "ALE/Breakout-v5", "rooms": "ALE/SpaceInvaders-v5"}
    for part, game in {**games, "lag": "ALE/Breakout-v5"}.items():
        values |= {f"{part}.{name}": value for name, value in ATARI.items()}
        values |= {
            f"{part}.world": game,
            f"{part}.updates": FRAMES // (32 * 20),
            f"{part}.rates": (6e-4,) if part != "replay_low" else (3e-4,),
            f"{part}.replay": 0 if part == "lag" else 10_000,
            f"{part}.evaluations": 50,
            f"{part}.episodes": 30,
        }
    # A lag that one chooses needs the deterministic backend: 32 games in one batch.
    values |= {"lag.backend": "inline", "lag.actors": 1, "lag.copies": 32, "lag.fresh": 1}
    values |= {
        f"draws.learn.{name}": values[f"lag.{name}"] for name in (*ATARI, "world", "updates", "episodes")
    }
    agent = {name: value for name, value in ATARI.items() if name.startswith("agent.")}
    values |= {f"transfer.{name}": value for name, value in agent.items()}
    values |= {
        "transfer.tasks": tuple(atari_id(task) for task in human_normalised_scores("atari57")),
        "transfer.references": "atari57",
        "transfer.cap": float("inf"),
        "transfer.frames": FRAMES,
        "transfer.copies": 1,
        "transfer.backend": "process",
        "transfer.actors": 2,
        "transfer.rate": 6e-4,
        "transfer.agent.gamma": 0.99,
        "transfer.episodes": 30,
        "transfer.points": 200,
    }
    return values


def small(part: str, **more: object) -> dict[str, object]:
    """A learning experiment in a few updates."""
    values = {"copies": 4, "unroll": 5, "updates": 3, "lag": 1, "evaluations": 2, "episodes": 4} | more
    return {f"{part}.{name}": value for name, value in values.items()}


PROFILES: dict[str, dict[str, object]] = {
    "smoke": {
        "seeds": 1,  # processes take seconds to start
        "theory.states": 6,
        "theory.trajectories": 4,
        "theory.limit": 100,
        **small("replay"),
        **small("replay_low"),
        **small("rooms"),
        **small("lag", rates=(1e-3, 5e-3)),
        **small("draws.learn"),
        "throughput.actors": 2,
        "throughput.unroll": 3,
        "throughput.mean": 0.001,
        "throughput.seconds": 0.05,
        "throughput.warm_updates": 1,
        "transfer.tasks": ("suite-1", "suite-2"),
        "transfer.frames": 60,
        "transfer.copies": 2,
        "transfer.unroll": 5,
        "transfer.episodes": 4,
        "transfer.points": 2,
    },
    # What lag and replay do to an agent without correction, and who waits for whom.
    "demo": {
        "seeds": 2,
        "arms": ("theory/*", "replay/vtrace", "replay/none", "throughput/sync-*", "throughput/impala-thread"),
        "replay.updates": 150,
        "replay.evaluations": 6,
        "throughput.seconds": 1.5,
    },
    "paper": paper_profile(),
}


def median_of(metric: str) -> Callable[[Mapping[str, Mapping[str, np.ndarray]]], float]:
    """A statistic: the median over processes."""
    return lambda table: float(np.median(table["theory/garnets"][metric]))


def fewer_failures(table: Mapping[str, Mapping[str, np.ndarray]]) -> float:
    """Share of runs that end below 0.9 without correction, minus that under V-trace."""
    return float(table["replay/none"]["failed"].mean() - table["replay/vtrace"]["failed"].mean())


study = Study(
    number=50,
    id="impala",
    domain="exploration",
    title="IMPALA: actors that run ahead, and a learner that corrects for it",
    paper=Paper(
        title="IMPALA: Scalable Distributed Deep-RL with Importance Weighted Actor-Learner Architectures",
        authors="Espeholt et al.",
        year=2018,
        arxiv="1802.01561",
        venue="ICML 2018",
    ),
    arms=(
        Arm("theory/garnets", "random processes, exact operators", seeds=20),
        *(Arm(f"replay/{c}", f"Catch, half the batch replayed: {ABOUT[c]}", seeds=8) for c in CORRECTIONS),
        *(Arm(f"replay-low/{c}", f"the same at a lower learning rate: {ABOUT[c]}") for c in CORRECTIONS),
        *(
            Arm(f"rooms/{c}", f"four rooms, half the batch replayed: {ABOUT[c]}", seeds=3)
            for c in CORRECTIONS
        ),
        *(
            Arm(
                f"lag{lag}/{c}",
                f"Catch, behaviour {lag} updates old: {ABOUT[c]}",
                seeds=5 if lag == 30 else 2,
            )
            for lag in LAGS
            for c in CORRECTIONS
        ),
        Arm("throughput/sync-step", "16 worlds in lockstep, log-normal waits"),
        Arm("throughput/a3c", "every actor sends gradients", seeds=2),
        Arm("throughput/sync-trajectory", "all actors finish an unroll, then the learner moves"),
        Arm("throughput/impala-thread", "nobody waits for anybody, actors are threads"),
        Arm("throughput/impala-process", "the same, actors are processes", seeds=2),
        Arm("throughput/impala-ray", "the same, actors are Ray's", seeds=2, extra=True),
        Arm("steady/sync-step", "control: every step takes the same time", seeds=2),
        Arm("steady/sync-trajectory", "control: every step takes the same time"),
        Arm("steady/impala-thread", "control: every step takes the same time"),
        Arm("transfer/multi", "one agent on all tasks"),
        Arm("transfer/experts", "one agent for each task"),
        Arm("draws/impala", "V-trace, two updates behind, random hyper-parameters", seeds=12),
        Arm("draws/a2c", "synchronous advantage actor-critic, the same draws", seeds=12),
    ),
    config=Config(),
    profiles=PROFILES,
    seeds=5,
    time_limit=30 * 24 * 3600.0,
    mechanisms={
        "actors that ship trajectories through a bounded queue": (
            "assay.rl.actorlearner.ActorLearner",
            "arm:throughput/impala-thread",
        ),
        "a learner that batches trajectories and publishes parameters": "assay.rl.impala.VTraceLearner",
        "measured policy lag": (
            "assay.rl.actorlearner.Meter",
            "assay.studies.impala.figures.throughput_bars",
        ),
        "V-trace with two truncations": (
            "assay.rl.vtrace.vtrace",
            "assay.rl.vtrace.vtrace_operator",
            "assay.rl.vtrace.vtrace_fixed_point_policy",
            "arm:theory/garnets",
        ),
        "policy gradient with a truncated weight, entropy bonus, baseline loss": "assay.rl.impala.VTraceLearner",
        "ablations of the correction, with replay and without": (
            "assay.rl.vtrace.corrected_targets",
            "assay.rl.replay.TrajectoryReplay",
            *(f"arm:replay/{c}" for c in CORRECTIONS),
            *(f"arm:lag30/{c}" for c in CORRECTIONS),
        ),
        "A3C, synchronous per step, synchronous per trajectory, IMPALA": (
            "assay.studies.impala.throughput.SharedStep",
            "arm:throughput/a3c",
            "arm:throughput/sync-step",
            "arm:throughput/sync-trajectory",
            "arm:throughput/impala-process",
        ),
        "worlds that take their time": "assay.envs.slow.SlowEnv",
        "one agent on a suite against experts": ("arm:transfer/multi", "arm:transfer/experts"),
        "mean capped and median human-normalised score": (
            "assay.rl.evaluate.mean_capped_normalised",
            "assay.rl.scores.human_normalised_scores",
        ),
        "shallow and deep networks, with memory": (
            "assay.rl.nets.ImpalaResNet",
            "assay.studies.impala.worlds.ShallowConv",
            "assay.rl.nets.LSTMCore",
        ),
        "encoder of instructions in words": "assay.rl.instruction.InstructionEncoder",
        "soft asymmetric clipping of rewards": "assay.rl.popart.soft_asymmetric_clip",
        "robustness to hyper-parameters": ("arm:draws/impala", "arm:draws/a2c"),
        "TensorFlow's RMSProp": "assay.rl.impala.RMSPropTF",
    },
    claims=(
        Claim(
            id="rho-sets-fixed-point-c-sets-speed",
            statement="The bar on the temporal difference decides which value function V-trace learns; the bar on the "
            "trace leaves it alone and trades speed for variance.",
            paper="Theorem 1: the fixed point is the value of pi_rho, the contraction depends on c (section 4.1)",
            test=All(
                Statistic(
                    median_of("fixed_point_error"),
                    arms=("theory/garnets",),
                    at_most=1e-8,
                    beyond=1e-8,
                    name="median distance of the fixed point from the value of pi_rho, worst c_bar",
                ),
                *(
                    Statistic(median_of(metric), arms=("theory/garnets",), name=f"median {words}", **bounds)
                    for metric, words, bounds in (
                        (
                            "bias_with_rho",
                            "rank correlation of bias with rho_bar",
                            {"at_most": -0.8, "beyond": -0.4},
                        ),
                        (
                            "iterations_with_c",
                            "rank correlation of iterations with c_bar",
                            {"at_most": -0.9, "beyond": -0.45},
                        ),
                        (
                            "variance_with_c",
                            "rank correlation of the targets' variance with c_bar",
                            {"at_least": 0.9, "beyond": 0.45},
                        ),
                        (
                            "variance_with_rho",
                            "rank correlation of the targets' variance with rho_bar",
                            {"at_least": 0.9, "beyond": 0.45},
                        ),
                    )
                ),
            ),
        ),
        Claim(
            id="correction-needed-under-replay",
            statement="Where half of every batch is replayed, an actor-critic without correction becomes "
            "unreliable; with V-trace it does not.",
            paper="with replay V-trace gains on goal navigation (229 to 251), no correction loses (95 to 85) (table 2)",
            test=All(
                Difference("final_return", arm="replay/vtrace", versus="replay/none", at_least=0.1),
                Statistic(
                    fewer_failures,
                    arms=("replay/vtrace", "replay/none"),
                    at_least=0.25,
                    name="failures without correction minus failures under V-trace",
                ),
            ),
        ),
        Claim(
            id="correction-under-pure-lag",
            statement="Thirty updates of lag alone, without replay, already call for the correction.",
            paper="without replay V-trace leads no correction on all five tasks, and one-step importance sampling "
            "leads V-trace on two (table 2)",
            test=Difference("final_return", arm="lag30/vtrace", versus="lag30/none", at_least=0.05),
        ),
        Claim(
            id="decoupling-raises-throughput",
            statement="Where worlds take uneven times, actors that run ahead collect at least twice the steps of a "
            "lockstep and 1.3 times those of synchronous unrolls; where times are even, hardly more.",
            paper="9k steps/s in lockstep, 16k with synchronous trajectories, 17k to 24k decoupled on one machine; "
            "250k distributed (table 1)",
            test=All(
                Ratio(
                    "env_steps_per_s",
                    arm="throughput/impala-thread",
                    versus="throughput/sync-step",
                    at_least=2.0,
                ),
                Ratio(
                    "env_steps_per_s",
                    arm="throughput/impala-thread",
                    versus="throughput/sync-trajectory",
                    at_least=1.3,
                ),
                Ratio(
                    "env_steps_per_s",
                    arm="steady/impala-thread",
                    versus="steady/sync-trajectory",
                    at_most=1.2,
                    beyond=1.2,
                ),
            ),
        ),
        Claim(
            id="multi-task-transfer",
            statement="One agent for six related tasks scores higher than six experts with the same steps a task.",
            paper="49.4 % against 44.5 % of experts on DMLab-30, with population-based training (figure 5)",
            test=Difference("mean_capped", arm="transfer/multi", versus="transfer/experts", at_least=0.03),
        ),
    ),
    usage="""\
import torch
from assay.envs import Catch
from assay.rl.actorlearner import ActorLearner
from assay.rl.impala import VTraceLearner
from assay.rl.policies import actor_critic

make_env = lambda index: Catch(32, view="flat", generator=torch.Generator().manual_seed(index))
make_policy = lambda: actor_critic(make_env(0))
learner = VTraceLearner(model := make_policy(), torch.optim.Adam(model.parameters(), 5e-3))
with ActorLearner(make_env, make_policy, learner, num_actors=2, unroll=10, backend="thread") as system:
    for turn in system.run(updates=20):
        pass
print(turn.metrics["rho_max"], system.meter.summary()["mean_lag"])
""",
)

study.trial("theory/*", config="theory")(theory.garnets)
study.trial("replay/*", config="replay")(learn.replayed)
study.trial("replay-low/*", config="replay_low")(learn.replayed)
study.trial("rooms/*", config="rooms")(learn.replayed)
study.trial("lag*", config="lag")(learn.lagged)
study.trial("draws/*", config="draws")(learn.drawn)
study.trial("throughput/*", "steady/*", config="throughput")(throughput.measured)
study.trial("transfer/*", config="transfer")(transfer.transfer)


@study.check
def worlds_are_there(config: Config) -> None:
    """The simulators that the config names are installed."""
    worlds = {
        part.world
        for part in (config.replay, config.replay_low, config.rooms, config.lag, config.draws.learn)
    }
    for world in sorted(worlds | set(config.transfer.tasks)):
        extra = "atari" if world.startswith("ALE/") else "minigrid" if world.startswith("MiniGrid") else None
        if extra and missing(extra):
            raise MissingExtra(f"{world} needs {', '.join(missing(extra))}: {pip_command(extra)}")
        if world.startswith("dmlab:"):
            learn.make_world(world, 1, 0)  # says how DeepMind Lab is brought in


study.figure("Bias, iterations and variance over the two bars (medians over processes)")(
    figures.truncation_maps
)
study.figure("Four corrections, without replay (behaviour 30 updates old) and with")(
    figures.correction_curves
)
study.figure("Final returns against lag, means over learning rates")(figures.lag_panel)
study.figure("Steps a second, and how old unrolls were when they were learnt from")(figures.throughput_bars)
study.figure("One agent for six tasks against six experts")(figures.transfer_bars)
study.figure("Sorted final returns over random hyper-parameters, and mean curves")(figures.sorted_draws)
