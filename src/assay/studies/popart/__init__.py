r"""An agent that learns many tasks at once adds up their gradients, and a task whose rewards are a hundred times larger
pulls a hundred times harder. The usual remedy, clipping rewards to $[-1, 1]$, makes the pulls alike by changing what
is wanted: a clipped agent counts rewards and no longer weighs them. Hessel et al. normalise the *value targets* of each
task instead. On 57 Atari games, one agent with one set of weights, they report a median of 110 % of human scores
against 60 % with clipped rewards; without clipping 107 % against 0.3 %.

## The mechanism

Torso and policy serve all tasks; the value head has an output for each, $v_i = \sigma_i f_i + \mu_i$. An update
computes V-trace targets $G$ from $v$ with the old statistics, then

- **ART**, adaptively rescaling targets: running moments $\mu_i \leftarrow \mu_i + \beta(G - \mu_i)$ and
  $\nu_i \leftarrow \nu_i + \beta(G^2 - \nu_i)$, with $\sigma_i^2 = \nu_i - \mu_i^2$;
- **POP**, preserving outputs precisely: the last layer is rewritten,

$$W_i \leftarrow \frac{\sigma_i}{\sigma_i'} W_i, \qquad
b_i \leftarrow \frac{\sigma_i b_i + \mu_i - \mu_i'}{\sigma_i'},$$

so that $v_i(x)$ is the same as before for every $x$;
- losses with the new statistics and the new head: $\frac12\big((G-\mu_i)/\sigma_i - f_i\big)^2$ for the critic, and the
advantage divided by $\sigma_i$ for the policy.

What that amounts to can be stated exactly. Under plain SGD the un-normalised last layer moves as if nothing were
normalised, and the gradient that enters the layers *below* is divided by $\sigma_i^2$ (by $\sigma_i$ for the policy's).
PopArt is a per-task step size for the shared layers that follows the task's own returns. A test checks both halves of
this sentence to ten digits; another multiplies all rewards by powers of two and finds every action of 100 updates
unchanged, and the losses equal to six digits.

## How we test it

`TaskSuite` shows four tasks on one 7x7 board, without saying which it is: *catch* (a ball, $\pm 1$ at the end), *goal*
(1 at the goal), *snack* (0.05 a pellet) and *jackpot* (a corridor: its left end pays 1 again and again, its right end
pays 100 once). 32 copies of each, unrolls of 10 steps, two hidden layers of 64, Adam. Scores are normalised: 0 for
failure, 1 for perfect.

1. **Scales** (`suite/*`): rewards are multiplied by 1, 10, 100 and 1000, moved on by one task from seed to seed, so
   that scale and task are not confounded. PopArt against raw and clipped rewards; ART alone; a single normaliser for
   all; rewards divided by the running std of each task's returns; and PopArt on data four updates old.
2. **Objectives** (`jackpot/*`): the corridor alone. Going left 18 times pays 18 in 40 steps, going right pays 100;
   clipped to 1, left is better. And `density/*`: two tasks of one optimal policy and equal returns, paid every step or
   once an episode.
3. **Who pulls** (`suite/*`): the norm of each task's gradient (policy and value) into the shared layers, as a share of
   their sum, every 20 updates; *evenness* is the entropy of the shares over its maximum.
4. **Invariance** (`sweep/*`): three tasks whose scales are first balanced by hand; then one task's rewards are
   multiplied by 0.01 to 10,000.
5. **Does preserving matter?** (`beta/*`): PopArt against ART alone for slow and fast statistics.

## What differs from the paper

- Tasks are toys, runs are short (576,000 steps), the network is small and has no memory. Neither on the laptop nor in
  the paper profile does the network see its last action and reward.
- $\beta$ is 0.1 a batch rather than 0.0003 a sample, and statistics start from the first targets instead of shift 0 and
  scale 1: otherwise the first targets of a large task reach the shared layers un-normalised, and untrained outputs are
  "preserved" at the cost of normalised errors of $1/\sigma$ for a small one. A batch of $n$ samples with a rate a
  sample moves the moments by $1-(1-\beta)^n$ towards its mean, as $n$ updates in turn would. (Adding up $\beta(G-\mu)$
  over a batch moves them by $n\beta$, which diverges for large $n$.)
- The rate (0.002 or 0.004) was chosen on seeds from 100 on; 0.004 was the better for PopArt and for ART alone, and no
  worse for raw and clipped rewards.
- The claim about evenness asks for 0.8 on a measure of our own. The last claim averages the effect over the three rates
  of its sweep.
- The paper profile trains on Atari-57 with `ale-py`: processes of one game each, one unroll of every actor in each
  update. Set `suite.world=minigrid` and `suite.tasks=()` for twelve levels of MiniGrid; DMLab-30 has to be built by its
  user. Pixel control, the auxiliary task of the DMLab runs, is `suite.agent.pixel_control=0.01`.

## How to read it

With raw rewards the agent keeps less than a third of the score, with PopArt 0.84 of it, and with clipping it solves
another corridor: these claims stand, and a sweep over six orders of magnitude leaves PopArt's curves where they were.
The claim about equal pulls does not stand. PopArt makes the *targets* of each task equally spread; it does not make
their gradients equal, which is what evenness
measures. Take the corridor: once it is solved, every target lies between $0.95$ and $1$ times the jackpot, so $\sigma$
is a hundredth of $\mu$ (see the figure of the statistics), and what errors remain are magnified by $1/\sigma$. The
task that needs nothing more then pulls hardest. Rewards over the std of returns do not do this: their scale is that of
the discounted sums since an episode began, which stay spread. Clipping, on the other hand, can look even for a wrong
reason: the corridor has become another task.

That preserving outputs matters came out the other way round: at every rate ART alone learns a little faster (area under
the curve higher by 0.05), as users of value normalisation in multi-agent learning report. There is a plain
reason. Its values jump when the statistics move, but they jump towards the new targets: a head that says "average"
before says "average" afterwards, and returns that grow are followed at once. POP keeps the old values, which are then
too low, and leaves it to the gradient to catch up. POP protects a head that is already right from statistics that move
for reasons of their own, such as a rare and huge target; our tasks have few of those.

M. Hessel, H. Soyer, L. Espeholt, W. Czarnecki, S. Schmitt, H. van Hasselt: Multi-task Deep Reinforcement Learning with
PopArt. AAAI 2019, arXiv 1809.04474. Also used: van Hasselt et al. 2016 (the normaliser, 1602.07714); Espeholt et al.
2018 (IMPALA, 1802.01561); Jaderberg et al. 2017 (pixel control, 1611.05397).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from assay._extras import require
from assay.lab import All, Arm, Claim, Difference, Effect, Level, Paper, Question, Study
from assay.rl.scores import human_normalised_scores
from assay.studies.popart import figures, learn
from assay.studies.popart.learn import RunConfig, SweepConfig
from assay.studies.popart.worlds import WORLDS

FACTORS = ("0.01", "0.1", "1", "10", "100", "1000", "10000")
BETAS = ("0.003", "0.03", "0.3")


@dataclass(frozen=True)
class Config:
    """One part an experiment; the values are the laptop's."""

    suite: RunConfig = field(default_factory=lambda: RunConfig(rotate=True))
    jackpot: RunConfig = field(
        default_factory=lambda: RunConfig(
            tasks=("jackpot",), scales=(1.0,), copies=64, updates=200, points=20, shares_every=0
        )
    )
    density: RunConfig = field(
        default_factory=lambda: RunConfig(
            world="density", tasks=("dense", "sparse"), scales=(20.0,), updates=250, shares_every=10
        )
    )
    sweep: SweepConfig = field(default_factory=SweepConfig)
    beta: RunConfig = field(default_factory=lambda: RunConfig(rotate=True, updates=250, shares_every=0))


TINY: dict[str, Any] = {"copies": 4, "updates": 5, "points": 1}


def part(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of one part of the config under their full names."""
    return {f"{name}.{key}": value for key, value in values.items()}


PROFILES: dict[str, dict[str, Any]] = {
    "smoke": {
        "seeds": 1,
        **part("suite", {**TINY, "tasks": ("catch", "snack"), "scales": (1.0, 1000.0), "shares_every": 2}),
        **part("jackpot", TINY),
        **part("density", {**TINY, "shares_every": 2}),
        **part("sweep.learn", {**TINY, "tasks": ("catch", "goal"), "scales": (1.0, 1.0)}),
        **part("beta", {**TINY, "tasks": ("catch", "snack"), "scales": (1.0, 1000.0)}),
    },
    # Clipped rewards against PopArt, on the corridor and on the suite.
    "demo": {
        "seeds": 2,
        "arms": ("suite/raw", "suite/clip", "suite/popart", "jackpot/*"),
        **part("suite", {"updates": 250, "points": 10}),
        **part("jackpot", {"updates": 120, "points": 10}),
    },
    "paper": {
        "arms": ("suite/raw", "suite/clip", "suite/popart", "suite/popart-clip", "suite/expert"),
        "seeds": 3,
        **part(
            "suite",
            {
                "world": "atari",
                "tasks": tuple(
                    human_normalised_scores("atari57")
                ),  # or --set suite.tasks=() for eight of them
                "scales": (1.0,),
                "rotate": False,
                "copies": 1,
                "unroll": 20,
                "updates": 1_250_000,  # 200M frames a game: 50M steps, 40 an update
                "points": 200,
                "shares_every": 5_000,
                "backend": "process",
                "actors_per_task": 2,
            },
        ),
        **part(
            "suite.agent",
            {
                "network": "impala",
                "lstm": 256,
                "optimizer": "rmsprop-tf",
                "rate": 6e-4,
                "epsilon": 0.1,
                "anneal": True,
                "reduction": "sum",
                "beta": 3e-4,
                "per": "sample",
                "debias": False,
                "start": "prior",
            },
        ),
    },
}

Cell = Mapping[str, Mapping[str, float]]


def largest_change(cell: Cell, name: str) -> float:
    """Largest distance of an area under the curve from that of the unchanged rewards."""
    unchanged = cell[f"sweep/{name}-1"]["auc"]
    return max(abs(cell[f"sweep/{name}-{factor}"]["auc"] - unchanged) for factor in FACTORS)


def popart_change(cell: Cell) -> float:
    """Of PopArt."""
    return largest_change(cell, "popart")


def raw_change(cell: Cell) -> float:
    """Of raw rewards."""
    return largest_change(cell, "raw")


def gain_of_preserving(cell: Cell) -> float:
    """Area under the curve with POP minus without, mean over the rates of the statistics."""
    gains = [cell[f"beta/popart-{beta}"]["auc"] - cell[f"beta/art-{beta}"]["auc"] for beta in BETAS]
    return sum(gains) / len(gains)


study = Study(
    number=49,
    id="popart",
    domain="exploration",
    title="PopArt: one agent for tasks whose rewards differ in size",
    paper=Paper(
        title="Multi-task Deep Reinforcement Learning with PopArt",
        authors="Matteo Hessel, Hubert Soyer, Lasse Espeholt, Wojciech Czarnecki, Simon Schmitt, Hado van Hasselt",
        year=2019,
        venue="AAAI 2019",
        arxiv="1809.04474",
    ),
    arms=(
        Arm("suite/raw", about="no normalisation, rewards as they are", seeds=8),
        Arm("suite/clip", about="rewards clipped to [-1, 1]", seeds=8),
        Arm("suite/popart", about="PopArt", seeds=8),
        Arm("suite/art", about="targets rescaled, outputs not preserved"),
        Arm("suite/single", about="one shift and scale for all tasks"),
        Arm("suite/return-std", about="rewards over the running std of each task's returns"),
        Arm("suite/popart-lag4", about="PopArt, behaviour four updates old"),
        *(Arm(f"jackpot/{name}", about=f"the corridor alone, {name}") for name in ("raw", "clip", "popart")),
        *(Arm(f"density/{name}", about=f"a dense and a sparse task, {name}") for name in ("clip", "popart")),
        *(
            Arm(f"sweep/{name}-{factor}", about=f"one task's rewards times {factor}, {name}")
            for name in ("popart", "raw")
            for factor in FACTORS
        ),
        *(
            Arm(f"beta/{name}-{beta}", about=f"statistics that move by {beta} a batch, {name}")
            for beta in BETAS
            for name in ("popart", "art")
        ),
        # what the contract wants to exist, and the open questions need
        Arm("suite/expert", about="an agent for each task alone", extra=True),
        Arm("suite/popart-clip", about="PopArt on clipped rewards", extra=True),
        Arm("suite/fixed", about="PopArt whose statistics stop after ten updates", extra=True),
        Arm("suite/critic", about="only the critic's loss normalised", extra=True),
        Arm("suite/actor", about="only the policy's advantage normalised", extra=True),
        Arm("suite/rescale", about="PopArt, the optimiser's moments follow the head", extra=True),
    ),
    config=Config(),
    profiles=PROFILES,
    seeds=5,
    time_limit=30 * 24 * 3600.0,
    mechanisms={
        "ART: per-task running moments of the value targets": "assay.rl.popart.PopArtHead",
        "POP: the last layer keeps its un-normalised outputs": (
            "assay.rl.popart.popart_update",
            "assay.rl.popart.PopArtHead.update",
        ),
        "shared torso and policy, one value a task, only the active one trained": (
            "assay.rl.multitask.MultiTaskActorCritic",
            "assay.rl.multitask.active",
        ),
        "policy gradient with the normalised advantage": "assay.rl.multitask.PopArtLearner",
        "V-trace actor-learner: targets un-normalised, then normalised": (
            "assay.rl.multitask.PopArtLearner",
            "assay.rl.actorlearner.ActorLearner",
            "arm:suite/popart-lag4",
        ),
        "tasks sampled equally": (
            "assay.rl.multitask.TaskBalancedSampler",
            "assay.rl.multitask.tasks_of_actors",
        ),
        "baseline: clipped rewards": "arm:suite/clip",
        "baseline: unclipped rewards": "arm:suite/raw",
        "PopArt on clipped and unclipped rewards": ("arm:suite/popart-clip", "arm:suite/popart"),
        "single-task experts": "arm:suite/expert",
        "one normaliser for all tasks": "arm:suite/single",
        "ablation: ART without POP": "arm:suite/art",
        "ablation: fixed statistics": "arm:suite/fixed",
        "ablation: actor and critic normalised separately": ("arm:suite/actor", "arm:suite/critic"),
        "rival: running std of returns": ("assay.rl.popart.ReturnScale", "arm:suite/return-std"),
        "clipping changes the objective": ("assay.envs.suite.Jackpot", "arm:jackpot/clip"),
        "dense tasks dominate under clipping": ("assay.envs.suite.DensityGrid", "arm:density/clip"),
        "non-stationary targets": "assay.studies.popart.figures.statistics_over_time",
        "gradient contribution of each task": (
            "assay.rl.popart.gradient_share",
            "assay.studies.popart.figures.gradient_shares",
        ),
        "median and mean capped human-normalised score": (
            "assay.rl.evaluate.human_normalised",
            "assay.rl.evaluate.mean_capped_normalised",
            "assay.studies.popart.learn.aggregate",
        ),
        "pixel control": ("assay.rl.multitask.PixelControl", "assay.rl.multitask.PixelControlHead"),
    },
    claims=(
        Claim(
            id="popart-survives-reward-scales",
            statement="Where the rewards of four tasks differ by factors up to 1000, one agent learns them with "
            "PopArt, and does not on the raw rewards.",
            paper="Atari-57, unclipped: 107.0 % of human scores (median) against 0.3 % (table 1)",
            test=Difference("score", arm="suite/popart", versus="suite/raw", at_least=0.4, refuted_below=0.1),
        ),
        Claim(
            id="clipping-changes-the-objective",
            statement="An agent that sees clipped rewards collects many small ones where one large one is worth "
            "more; with PopArt it takes the large one.",
            paper="clipping changes the objective (section 1); games whose scores rise without it (figures 2 and 3)",
            test=Difference(
                "score", arm="jackpot/popart", versus="jackpot/clip", at_least=0.3, refuted_below=0.05
            ),
        ),
        Claim(
            id="equal-gradient-contribution",
            statement="With PopArt all tasks pull on the shared layers about alike, more so than with clipped rewards.",
            paper="all tasks are to have a similar impact on the learning dynamics (abstract)",
            test=All(
                Difference("evenness", arm="suite/popart", versus="suite/clip", at_least=0.15),
                Level("evenness", arm="suite/popart", at_least=0.8),
            ),
        ),
        Claim(
            id="scale-invariance",
            statement="Multiplying the rewards of one task by anything from 0.01 to 10,000 hardly changes how PopArt "
            "learns; without it learning breaks down.",
            paper="the update is invariant to the scale of each task's rewards (section 4)",
            test=All(
                Effect(
                    popart_change,
                    arms=tuple(f"sweep/popart-{factor}" for factor in FACTORS),
                    at_most=0.1,
                    beyond=0.1,
                    name="largest change of the area under the curve with PopArt",
                ),
                Effect(
                    raw_change,
                    arms=tuple(f"sweep/raw-{factor}" for factor in FACTORS),
                    at_least=0.3,
                    beyond=0.3,
                    name="the same with raw rewards",
                ),
            ),
        ),
        Claim(
            id="preserving-outputs-matters",
            statement="Rescaling targets without preserving the outputs of the value head learns worse.",
            paper="POP is what makes adaptive targets safe (van Hasselt et al. 2016, section 2.2; contested by users "
            "of value normalisation in multi-agent learning)",
            test=Effect(
                gain_of_preserving,
                arms=tuple(f"beta/{name}-{beta}" for beta in BETAS for name in ("popart", "art")),
                at_least=0.05,
                name="area under the curve with POP minus without, mean over rates",
            ),
        ),
    ),
    questions=(
        Question(
            id="reward-scaling",
            ask="Is PopArt more than adaptive reward scaling?",
            arms=("suite/popart", "suite/return-std"),
            answer="Compare the two arms above: dividing each task's rewards by the running std of its returns is "
            "the cheap rival. It rescales future rewards only, so old targets and the critic drift where the std "
            "does; once that settles, the two are the same up to a constant a task.",
        ),
        Question(
            id="actor-or-critic",
            ask="Does the policy need PopArt, or only the critic?",
            arms=("suite/popart", "suite/actor", "suite/critic"),
            answer="Run the two extra arms: suite/critic leaves the advantage in units of return, so that large tasks "
            "still own the policy gradient; suite/actor leaves the critic's loss, whose gradient into the shared "
            "layers grows with the square of the scale.",
        ),
        Question(
            id="experts",
            ask="How far is multi-task from single-task learning?",
            arms=("suite/popart", "suite/expert"),
            answer="Run suite/expert: an agent of its own for every task, with as many frames of it.",
        ),
    ),
    usage="""
import torch
from assay.envs import TaskSuite
from assay.rl.multitask import PopArtLearner, multitask_actor_critic
from assay.rl.rollout import Rollout, collect, start

env = TaskSuite(8, reward_scales=(1, 10, 100, 1000))
model = multitask_actor_critic(env, env.num_tasks, beta=0.1, per="batch", debias=True)
learner = PopArtLearner(model, torch.optim.Adam(model.parameters(), 4e-3), start="data")
rollout, carry = Rollout(10, env.num_envs), start(env, model)
for _ in range(3):
    carry = collect(env, model, rollout, carry, values=False)
    print(learner.update(rollout)["loss"], model.value_head.sigma)
""",
)

study.trial("suite/*", config="suite")(learn.compared)
study.trial("jackpot/*", config="jackpot")(learn.compared)
study.trial("density/*", config="density")(learn.compared)
study.trial("sweep/*", config="sweep")(learn.swept)
study.trial("beta/*", config="beta")(learn.rated)


@study.check
def worlds_exist(config: Config) -> None:
    """The worlds that the config names are known, and their packages installed."""
    for one in (config.suite, config.jackpot, config.density, config.sweep.learn, config.beta):
        if one.world not in WORLDS:
            raise ValueError(f"no world {one.world!r}: choose from {', '.join(WORLDS)}")
        if one.world == "atari":
            for module in ("gymnasium", "ale_py", "cv2"):
                require(module, "atari")
        if one.world == "minigrid":
            require("minigrid", "minigrid")


study.figure("Four tasks, four scales of reward")(figures.curves_by_task)
study.figure("Normalisers compared")(figures.scores_by_arm)
study.figure("Targets move, statistics follow")(figures.statistics_over_time)
study.figure("Who pulls on the shared layers")(figures.gradient_shares)
study.figure("One task's rewards, multiplied")(figures.scale_sweep)
study.figure("What clipping changes")(figures.two_objectives)
study.figure("With and without preserving outputs")(figures.preservation)
