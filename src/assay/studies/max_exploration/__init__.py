r"""Curiosity usually comes too late: the agent stumbles on something new, is paid for it, and learns to come back.
MAX asks where news *will* be. It learns several models of the world, looks for places where they contradict each
other, and plans a way there inside the models, before anything was ever found. On a chain of 50 states the paper
explores everything in about 15 episodes, where bootstrapped and bonus-driven Q-learning know 40 % after 60.

## The mechanism

An ensemble of M forward models $p_m(s' | s, a)$ stands for the posterior over worlds, given the data so far. What
would a transition teach? The expected information gain about the world is the Jensen-Shannon divergence of the
predictions,

$$u(s, a) = H\Big(\tfrac1M \sum_m p_m\Big) - \tfrac1M \sum_m H(p_m)
 = \mathbb E_{s'}\, \mathrm{KL}\big(P(m | s, a, s') \,\|\, P(m)\big).$$

The second term is the point. A fair coin is unpredictable for ever, but once all members know that it is fair they
agree, and $u = 0$: noise is subtracted, ignorance remains (figure "three pairs"). For continuous states the members
are diagonal normals, and the divergence of order 2 (Jensen-Renyi) has a closed form.

The exploration process has the world's states, the ensemble's dynamics and the reward $u$. Its optimal policy is
executed; after some steps the ensemble is fitted from scratch and policy and process are thrown away, since a plan for
yesterday's ignorance is worth nothing. In the chain the process is solved exactly, by finite-horizon value iteration
in the mean model; trees (`mcts`) and sampled sequences (`cem`, `shooting`) are there for comparison.

## How we test it

- **Chain** (`chain/*`, `long/*`, `horizon/*`): states in a row, two actions that are swapped at random in half of the
  states, start near the left end, L + 9 steps an episode, three random episodes first. L is 30; `long` has the
  paper's 50. Metric: the share of the pairs $(s, a)$ that were executed. Members are networks of two layers of 64,
  fitted for 40 steps on all pairs met so far, each pair with the same weight.
- **Who is compared.** Reactive use of the same utility as a bonus in Q-learning (`jdr-reactive`), bootstrapped DQN,
  DQN with count bonus, ICM's forward error, RND, random actions; and, as an upper reference, planned optimism about
  pairs never tried (`count-optimism`), which must be told what the states are. `dirichlet` replaces the networks by the
  exact posterior over tables.
- **Planning alone** (`horizon/*`): the same ensemble and utility, looking 1 or 5 steps ahead instead of to the
  episode's end.
- **Noise** (`noise/*`): state 0 is a trap (a move succeeds half the time), and a third action, a television, jumps to
  one of the first ten states from anywhere. Planners follow disagreement, the entropy of the mean prediction, or the
  expected surprise; PERX is paid for surprise. `trap/*` has the trap only (the paper's figure 1d). In `spread/*` the
  television jumps to ten states anywhere: there it is also the fastest way to explore, so even random actions see
  everything, and nothing is to be decided. In `utility/*` every certain pair was met once and a noisy one n times;
  here the networks are fitted for 150 steps, since after 40 their members still differ in how far they have learnt the
  noise: half-trained members disagree too.
- **A task afterwards** (`control/*`): the mountain car and a maze are explored for 800 steps without any task, by MAX,
  by trajectory variance (TVAX), by Q-learning on prediction error (PERX) or at random. Then a task is given, "reach
  the flag", "reach the corner", and solved by value iteration inside the learned models alone (a tenth of the actions
  stays random, lest a model that is wrong about one spot of a wall push against it for ever). Counted is how many of
  20 starts it solves in the world.
- **Length** (`length/*`): episodes until 90 % are explored, for chains of 10 to 40.

## What differs from the paper

The paper's chain experiments were not released; sizes, swaps and rewards follow its text. Exact planning replaces
tree search. Chains are 30 long, all seeds of an arm are one tensor program. In place of the half-cheetah the laptop has
two small worlds, and their tasks are solved on a grid over the two state variables; the robots are in the paper
profile (`robot/*`, `ant/*`: ensemble of 32 networks, policy by soft actor-critic in imagination). "Bootstrapped" in
the paper's words is in its released code a different initialisation and a different order of the same data; so it is
here by default.

Baselines were tuned on seeds 100 and 101 (rates 0.001 and 0.005, bonus 0.001 to 0.1, epsilon 0.05 and 0.2, bonus
scale 0.03 and 0.3); none of the settings came near planning within 25 episodes.

## What to keep in mind

Reactive learners fail here for a plain reason: with one transition a step and a few hundred updates, a Q-network has
hardly learnt that there is a bonus at the far end when the bonus is gone. The claim is about data, not about time: MAX
spends its effort between the steps. A chain is also the kindest world for planning, since its model is learned from one
visit a pair. And where a model generalises far beyond its data, as for the car, exploring well buys little: the car's
task is solved from random experience too, while a wall that nobody saw cannot be planned around.

An ensemble of plain networks can also agree and be wrong. Where a state was met with one action only, all members may
copy what they learnt to the other action; an unexplored pair is then worth nothing, and the planner never goes there.
That is how single seeds of `noise/jsd` get stuck half-way, for good; longer fits make it worse, not better. The exact
posterior (`noise/dirichlet`), which does not generalise, has no such blind spot. And networks of two layers of 32, wide
enough for 30 states, explored no more than random actions of 50: too few units look like agreement.

The order-2 divergence is not always positive: two members of the same mean and variances 0.01 and 1 give -0.088. The
released code pulls variances together before it is computed, which hides this; so does `disagreement` here.

**Citation.** P. Shyam, W. Jaskowski, F. Gomez: Model-Based Active Exploration. ICML 2019, arXiv 1810.12162. Also used:
Osband et al. 2016 (bootstrapped DQN, 1602.04621); Bellemare et al. 2016 (counts, 1606.01868); Pathak et al. 2017 (ICM,
1705.05363); Burda et al. 2019 (RND, 1810.12894); Houlsby et al. 2011 (BALD, 1112.5745).
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from assay.lab import All, Arm, Batch, Claim, Difference, Effect, Level, Paper, Question, Study, Trial
from assay.studies.max_exploration import chain, control, robots, utility
from assay.studies.max_exploration.config import (
    ChainConfig,
    Config,
    ControlConfig,
    RobotConfig,
    UtilityConfig,
)

BASELINES = ("boot-dqn", "eb-dqn", "icm", "rnd")
LENGTHS = (10, 20, 30, 40)
PLACES = ("car", "maze")
ROBOT_ARMS = ("robot/*", "ant/*")
LAPTOP = (
    "chain/*", "long/*", "horizon/*", "noise/*", "trap/*", "spread/*", "utility/*", "planner/*", "control/*",
    "length/*",
)  # fmt: skip


def lead_over_baselines(cell) -> float:
    """Share explored after 15 episodes: MAX minus the best of the four deep baselines."""
    return cell["chain/max"]["share15"] - max(cell[f"chain/{name}"]["share15"] for name in BASELINES)


def task_lead(cell) -> float:
    """Success in the task afterwards, mean of both worlds: MAX minus random exploration."""
    gaps = [cell[f"control/{p}-max"]["success"] - cell[f"control/{p}-random"]["success"] for p in PLACES]
    return sum(gaps) / len(gaps)


def length_slope(cell) -> float:
    """Slope of log episodes to 90 % over log length."""
    episodes = [cell[f"length/max-{length}"]["episodes90"] for length in LENGTHS]
    return float(np.polyfit(np.log(LENGTHS), np.log(episodes), 1)[0])


TINY_CHAIN = {
    "length": 8, "episodes": 3, "share_at": 3, "warmup": 1, "members": 3, "hidden": (8, 8), "fit_steps": 5,
    "simulations": 8, "heads": 3, "q_batch": 16,
}  # fmt: skip
PROFILES = {
    "laptop": {"arms": LAPTOP},
    "smoke": {
        "seeds": 1,
        "arms": LAPTOP,
        **{
            f"{part}.{name}": value
            for part in ("chain", "long", "horizon", "noise", "planners", "length")
            for name, value in TINY_CHAIN.items()
        },
        "utility.length": 8,
        "utility.visits": (0, 3),
        "utility.members": 3,
        "utility.fit_steps": 5,
        "control.steps": 20,
        "control.warmup": 10,
        "control.refit_every": 5,
        "control.fit_steps": 3,
        "control.final_steps": 5,
        "control.members": 2,
        "control.hidden": (16, 16),
        "control.candidates": 8,
        "control.horizon": 3,
        "control.iterations": 2,
        "control.grid": 8,
        "control.sweeps": 10,
        "control.tasks": 2,
        "control.car_limit": 10,
        "control.maze_limit": 10,
    },
    "demo": {
        "seeds": 4,
        "arms": (
            "chain/max", "chain/boot-dqn", "chain/rnd", "chain/random", "horizon/1", "noise/jsd", "noise/entropy",
            "noise/random", "length/*",
        ),
        "chain.length": 20,
        "chain.episodes": 25,
        "horizon.length": 20,
        "noise.length": 20,
        "length.episodes": 60,
    },
    "paper": {
        "seeds": 8,
        "arms": (*LAPTOP, *ROBOT_ARMS),
        **{
            f"{part}.{name}": value
            for part in ("chain", "long", "horizon", "noise", "length")
            for name, value in (
                ("length", 50), ("members", 30), ("hidden", (64, 64)), ("planner", "mcts"), ("simulations", 1_000),
            )
        },
        "utility.members": 30,
        "control.steps": 1_500,
        "control.members": 8,
        "control.candidates": 128,
        "control.replan_every": 1,
        "robot.enabled": True,
        "ant.enabled": True,
    },
}  # fmt: skip

study = Study(
    number=46,
    id="max-exploration",
    domain="exploration",
    title="MAX: exploring by planning to where models disagree",
    paper=Paper(
        title="Model-Based Active Exploration",
        authors="Shyam, Jaskowski, Gomez",
        year=2019,
        arxiv="1810.12162",
        venue="ICML 2019",
    ),
    arms=(
        Arm("chain/max", "plan for disagreement of ten networks, to the end of the episode"),
        Arm("chain/jdr-reactive", "the same disagreement as a bonus in Q-learning"),
        Arm("chain/boot-dqn", "bootstrapped DQN, ten heads"),
        Arm("chain/eb-dqn", "DQN with a count bonus"),
        Arm("chain/icm", "Q-learning on a forward model's error"),
        Arm("chain/rnd", "Q-learning on RND's error"),
        Arm("chain/random", "random actions"),
        Arm("chain/count-optimism", "plan for pairs never tried: upper reference"),
        Arm("chain/dirichlet", "MAX with the exact posterior over tables"),
        Arm("long/max", "MAX on 50 states", seeds=3),
        Arm("long/random", "random actions on 50 states", seeds=3),
        Arm("horizon/1", "MAX, looking one step ahead"),
        Arm("horizon/5", "MAX, looking five steps ahead"),
        Arm("noise/jsd", "trap and television: plan for disagreement"),
        Arm("noise/dirichlet", "plan for disagreement of the exact posterior"),
        Arm("noise/entropy", "plan for entropy of the mean prediction"),
        Arm("noise/error", "plan for expected surprise"),
        Arm("noise/error-reactive", "Q-learning on surprise (PERX)"),
        Arm("noise/random", "random actions"),
        Arm("trap/jsd", "trap only: plan for disagreement"),
        Arm("trap/error-reactive", "trap only: Q-learning on surprise"),
        Arm("spread/jsd", "television that jumps anywhere: plan for disagreement"),
        Arm("spread/entropy", "the same: plan for entropy"),
        Arm("spread/random", "the same: random actions"),
        Arm("utility/network", "utility of noisy pairs against visits, networks"),
        Arm("utility/dirichlet", "the same, exact posterior"),
        *(
            Arm(f"planner/{name}", f"10 states, exact posterior, planned by {name}", seeds=3)
            for name in ("exact", "mcts", "cem", "shooting")
        ),
        *(
            Arm(f"control/{place}-{kind}", about, seeds=5)
            for place in PLACES
            for kind, about in (
                ("max", "explore by planned disagreement, then solve a task in the model"),
                ("tvax", "explore by planned variance of trajectories"),
                ("perx", "explore by Q-learning on prediction error"),
                ("random", "explore at random"),
            )
        ),
        *(Arm(f"length/max-{n}", f"{n} states, exact posterior") for n in LENGTHS),
        *(Arm(f"length/random-{n}", f"{n} states, random actions") for n in LENGTHS),
        *(
            Arm(f"robot/{kind}", f"half-cheetah, {about} (paper profile)", extra=True)
            for kind, about in (
                ("max", "MAX"),
                ("tvax", "TVAX"),
                ("jdrx", "disagreement as a bonus"),
                ("perx", "prediction error as a bonus"),
                ("random", "random"),
            )
        ),
        Arm("ant/max", "ant maze, MAX (paper profile)", extra=True),
        Arm("ant/random", "ant maze, random (paper profile)", extra=True),
    ),
    config=Config(),
    profiles=PROFILES,
    seeds=8,
    mechanisms={
        "ensemble of forward models as a posterior": "assay.rl.dynamics.DynamicsEnsemble",
        "exact posterior for few states": ("assay.rl.dynamics.DirichletEnsemble", "arm:chain/dirichlet"),
        "utility on transitions, discrete": (
            "assay.rl.information.jensen_shannon",
            "assay.rl.information.expected_information_gain",
        ),
        "utility, continuous": "assay.rl.information.jensen_renyi_gaussian",
        "exploration process inside the model": (
            "assay.rl.dynamics.ImaginationEnv",
            "assay.rl.dynamics.Imagination",
            "arm:chain/max",
        ),
        "planners": (
            "assay.rl.planning.value_iteration_finite",
            "assay.rl.planning.MCTS",
            "assay.rl.planning.CEM",
            "assay.rl.planning.RandomShooting",
        ),
        "reactive use of the utility (JDRX)": (
            "assay.rl.intrinsic.disagreement.EnsembleDisagreement",
            "arm:chain/jdr-reactive",
        ),
        "prediction error as bonus (PERX)": ("arm:noise/error-reactive", "arm:control/car-perx"),
        "trajectory variance (TVAX)": "arm:control/maze-tvax",
        "random exploration": "arm:chain/random",
        "bootstrapped DQN": ("assay.rl.dqn.BootstrappedDQN", "arm:chain/boot-dqn"),
        "exploration-bonus DQN": ("assay.rl.dqn.ExplorationBonusDQN", "arm:chain/eb-dqn"),
        "ICM": "arm:chain/icm",
        "RND": "arm:chain/rnd",
        "count-based optimism": (
            "assay.rl.intrinsic.counts.CountBonus",
            "arm:chain/count-optimism",
        ),
        "stochastic trap": ("assay.envs.chain.Chain", "arm:noise/jsd", "arm:trap/jsd"),
        "explore first, then exploit": (
            "assay.studies.max_exploration.control.Task",
            "arm:control/maze-max",
            "arm:robot/max",
            "arm:ant/max",
        ),
        "share of transitions explored": "assay.envs.chain.explored_fraction",
        "scaling with length": "arm:length/max-40",
    },
    claims=(
        Claim(
            id="active-beats-reactive-on-chain",
            statement="Planned disagreement explores the chain long before any bonus-driven learner does.",
            paper="100 % of the transitions in about 15 episodes, baselines about 40 % after 60 (Fig. 1b)",
            test=Effect(
                lead_over_baselines,
                arms=("chain/max", *(f"chain/{name}" for name in BASELINES)),
                at_least=0.3,
                refuted_below=0.1,
                name="share15(max) - best baseline",
            ),
        ),
        Claim(
            id="disagreement-ignores-noise",
            statement="Disagreement is not drawn to noise that entropy and surprise cannot leave.",
            paper="exploration is hardly affected by a stochastic trap (Fig. 1d)",
            test=All(
                Difference(
                    "share15", arm="noise/jsd", versus="noise/entropy", at_least=0.3, refuted_below=0.1
                ),
                Difference("tv_share", arm="noise/entropy", versus="noise/jsd", at_least=0.3),
                Level("ratio", arm="utility/network", at_most=0.2),
            ),
        ),
        Claim(
            id="planning-matters-at-equal-utility",
            statement="With the same ensemble and utility, looking to the end of the episode beats looking one step"
            " ahead.",
            paper="MAX against JDRX (Figs. 3 and 4)",
            test=Difference("share15", arm="chain/max", versus="horizon/1", at_least=0.2),
        ),
        Claim(
            id="model-serves-downstream-task",
            statement="A model learned without a task serves a task given later, better than one from random actions.",
            paper="half-cheetah running and flipping planned in the explored model (Fig. 4)",
            test=Effect(
                task_lead,
                arms=tuple(f"control/{place}-{kind}" for place in PLACES for kind in ("max", "random")),
                at_least=0.3,
                refuted_below=0.05,
                name="success(max) - success(random), mean of both worlds",
            ),
        ),
        Claim(
            id="cost-linear-in-length",
            statement="The episodes that MAX needs grow at most about linearly with the length of the chain.",
            paper="MAX scales about linearly, the baselines fail on longer chains (Fig. 1c)",
            test=Effect(
                length_slope,
                arms=tuple(f"length/max-{length}" for length in LENGTHS),
                at_most=1.5,
                beyond=1.5,
                refuted_above=1.5,
                name="slope of log episodes over log length",
            ),
        ),
    ),
    questions=(
        Question(
            id="specification",
            ask="I do not fully follow the analytic specification: what does the utility measure?",
            arms=("utility/network",),
            answer="The disagreement that is left after the members' own average entropy is subtracted. The worked"
            " example shows all three terms for a known, a noisy and a contested pair.",
        ),
        Question(
            id="icm",
            ask="There is no comparison with ICM.",
            arms=("chain/icm", "chain/rnd", "noise/error"),
            answer="Here there is: on the chain ICM and RND behave like the other reactive learners; and planning for"
            " expected surprise (`noise/error`) shows that planning alone does not save a utility that rewards noise.",
        ),
    ),
    usage="""
import torch
from assay.rl.information import jensen_shannon
from assay.rl.planning import value_iteration_finite

members = torch.softmax(3 * torch.randn(10, 6, 2, 6), -1)      # your ensemble: [members, states, actions, next]
utility = jensen_shannon(members)                              # what each transition would teach, in nats
plan = value_iteration_finite(members.mean(0), utility, horizon=15)
print("first action in each state:", plan.policy[0].argmax(-1).tolist())
""",
)

Pairs = list[tuple[str, int]]


def kind_of(pairs: Pairs) -> str:
    return pairs[0][0].partition("/")[2]


@study.batch("chain/*", config="chain", size=4)
def on_chain(run: Batch, pairs: Pairs, config: ChainConfig) -> Iterator[dict[str, float]]:
    """The main comparison."""
    yield from chain.explore(run, pairs, config, kind_of(pairs))


@study.batch("long/*", config="long")
def on_long_chain(run: Batch, pairs: Pairs, config: ChainConfig) -> Iterator[dict[str, float]]:
    """The paper's length."""
    yield from chain.explore(run, pairs, config, kind_of(pairs))


@study.batch("horizon/*", config="horizon")
def short_sighted(run: Batch, pairs: Pairs, config: ChainConfig) -> Iterator[dict[str, float]]:
    """Plans of 1 or 5 steps."""
    yield from chain.explore(run, pairs, config, kind_of(pairs))


@study.batch("noise/*", "trap/*", "spread/*", config="noise", size=4)
def in_noise(run: Batch, pairs: Pairs, config: ChainConfig) -> Iterator[dict[str, float]]:
    """A trap, with or without a television."""
    world = pairs[0][0].partition("/")[0]
    television = {"noise": "near", "spread": "anywhere"}.get(world)
    yield from chain.explore(run, pairs, config, kind_of(pairs), trap=True, television=television)


@study.batch("utility/*", config="utility")
def of_noisy_pairs(run: Batch, pairs: Pairs, config: UtilityConfig) -> Iterator[dict[str, float]]:
    """Utility against visits."""
    yield from utility.noisy_pairs(run, pairs, config)


@study.batch("planner/*", config="planners")
def by_planner(run: Batch, pairs: Pairs, config: ChainConfig) -> Iterator[dict[str, float]]:
    """The same posterior, other planners."""
    yield from chain.explore(run, pairs, replace(config, planner=kind_of(pairs)), "dirichlet")


@study.batch("control/*", config="control")
def with_a_task(run: Batch, pairs: Pairs, config: ControlConfig) -> Iterator[dict[str, float]]:
    """Explore, then plan for a task."""
    yield from control.explore_then_plan(run, pairs, config)


@study.batch("length/*", config="length")
def at_length(run: Batch, pairs: Pairs, config: ChainConfig) -> Iterator[dict[str, float]]:
    """Episodes against length."""
    kind, _, length = kind_of(pairs).partition("-")
    explorer = "dirichlet" if kind == "max" else kind
    planned = replace(config, length=int(length), planner="exact")
    yield from chain.explore(run, pairs, planned, explorer)


@study.trial("robot/*", config="robot")
def on_cheetah(run: Trial, arm: str, config: RobotConfig) -> dict[str, float]:
    """Half-cheetah."""
    return robots.explore(run, arm, config)


@study.trial("ant/*", config="ant")
def on_ant(run: Trial, arm: str, config: RobotConfig) -> dict[str, float]:
    """Ant maze."""
    return robots.explore(run, arm, config)


@study.check
def packages_are_there(config: Config) -> None:
    """The simulators of the paper profile are installed."""
    for part in (config.robot, config.ant):
        if part.enabled:
            robots.check(part)


from assay.studies.max_exploration import figures  # noqa: E402, F401  (they register themselves)
