r"""Adding $\frac{\lambda'}{2}\|\theta\|^2$ to the loss was long called weight decay. It is, for plain SGD. In Adam the
penalty's gradient is divided by $\sqrt{\hat v}$ like the rest, so that the weights with the largest gradients decay
least. Loshchilov and Hutter decay the weights directly; learning rate and decay then become two knobs.

## The mechanism

With gradient $g_t$, base rate $\alpha$, schedule $\eta_t$ and decay $\lambda$:

$$\text{SGDW:}\quad m_t=\beta_1m_{t-1}+\eta_t\alpha g_t,\qquad\theta_t=\theta_{t-1}-m_t-\eta_t\lambda\theta_{t-1}$$

$$\text{AdamW:}\quad
\theta_t=\theta_{t-1}-\eta_t\Big(\frac{\alpha\hat m_t}{\sqrt{\hat v_t}+\epsilon}+\lambda\theta_{t-1}\Big)$$

The decay enters neither $m$ nor $v$. *Proposition 1*: for SGD without momentum an L2 penalty with
$\lambda'=\lambda/\alpha$ does the same. *Proposition 2*: with a preconditioner that is not a multiple of the
identity no $\lambda'$ does. *Proposition 3*: with a fixed preconditioner $1/s$, decay is the penalty
$\frac{\lambda}{2\alpha}\|\theta\odot\sqrt s\|^2$: weights with large gradients are penalised *more*. All three are
tests of this library. (One can also read decay as the transition of a Bayesian filter, a prior that forgets: Aitchison
2018; nothing here rests on it.)

**Two parametrisations.** The paper's $\lambda$ is *not* multiplied by $\alpha$; that of `torch.optim.AdamW` is. Which
one is separable depends on the network, and one can say in advance which:

- With batch normalisation only the direction of a weight matters, and its effective step is
  $\alpha/\|w\|^2$. In equilibrium the product $\alpha\lambda'$ decides, which is the paper's $\lambda$: its best
  value should not depend on the rate.
- Without normalisation, trained to convergence, an L2 penalty defines one objective, whose minimum does not know
  $\alpha$. Now $\lambda'$ is separable, and the paper's $\lambda$ must grow with the rate.

So the paper's claim is tested for both, and expected to fail for the second.

## How we test it

1,000 of the real MNIST digits at 14 x 14, 20 % of their labels redrawn (so that regularisation matters); an MLP
196-64-64-10, plain or with batch normalisation (no gain, no offset), cosine annealing, batches of 50, 600 steps.
For each of five optimisers a grid of 5 rates (a factor 4 apart) and 8 decays (2.5 apart). All 40 cells of a seed
are one ensemble; where the best cell lies at the edge, the grid grows by a row or a column there, three times at
most. Biases never decay. Cells are chosen on one half of the other 4,000 images (clean) and reported on
the other half. `separability` is what rows plus columns explain.

The *contour slope* is the $s$ that lets a polynomial of degree four in $\log_2\lambda+s\log_2\alpha$ explain most
of the errors below twice the best: 0 is separable, 1 diagonal.

**Mechanism.** Two runs from the same start on the same batches, with and without decay. The shrink of a weight is the
log of its size without over its size with. We regress it, in 20 groups, on the log of $\sqrt v$ at the end of the run
without.

**Normalised decay.** $\lambda=\lambda_{norm}\sqrt{b/(BT)}$: the best $\lambda_{norm}$ should not depend on the length
of the run. Runs of 100, 400 and 1,600 steps, AdamW, eleven decays a factor 2 apart; the best is read from a
smoothed curve by a parabola.

**Schedules** (constant, drops, cosine, warm restarts after 100, 300 and 700 steps) and a **sequence task** (one GRU
layer on the characters of the King James New Testament) have no claim of their own in the paper's tables; they are
shown.

## What came out

*The mechanism is there, and large.* With an L2 penalty Adam shrinks the weights with the smallest gradients by orders
of magnitude and those with the largest hardly (slope -0.80 on log $\sqrt v$). Decoupled, all shrink alike (-0.02).

*But it does not decide the error here.* Best against best, AdamW and L2-Adam are equal within 7 % of the error in
either direction, on both networks; so are both and SGD. At this scale there is no gap between Adam and SGD to close
(12 to 13 % for all). The paper's 15 % are from image networks with augmentation and long training.

*Separability is not decided.* With batch norm the slopes have the signs that the argument above predicts, positive for
L2-SGD (0.30) and negative for SGDW (-0.57), but neither is near zero, and the second is the farther one: the paper's
$\lambda$ also has to grow with the rate, if more slowly. AdamW in torch's parametrisation comes nearest to the axes
(0.05). A function of one index explains only 60 to 82 % of these grids, less than the 80 % asked for on both: small
rates underfit the noisy labels, which regularises too, whatever the decay. Without normalisation all slopes are
strongly negative for the same reason.

*Normalised decay goes the wrong way.* With 20 % wrong labels, longer runs fit the noise and need *more* decay a step,
not less: the best raw $\lambda$ grows by two octaves from 100 to 1,600 steps, and multiplying by the root of the number
of steps makes it four. The rule balances a fixed total amount of decay against the length of the run; that is the wrong
balance where training longer overfits.

*Schedules.* The drops end best (19.5 and 19.8 %, at one rate and the best of three decays); restarts visit their best
point early and leave it. *Text:* L2-Adam and AdamW end within 0.03 bits a character.

## What differs

The paper trains shake-shake networks of 11.7 and 26 million weights for 100 to 1,800 epochs on CIFAR-10 and
ImageNet32x32; these are in the profile `paper`. Its sequence evidence is by citation. Here the momentum is torch's
with the schedule inside, as Algorithm 1 has it.

**Citation.** I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019, arXiv 1711.05101. Also: L.
Aitchison 2018, arXiv 1807.07540; J. Bjorck, K. Weinberger, C. Gomes 2021, arXiv 2012.13841.
"""

from collections.abc import Mapping
from pathlib import Path

from assay.lab import All, Arm, Claim, Difference, Effect, Level, Paper, Study
from assay.studies.decoupled_weight_decay import figures, grids, mechanism, paper, text
from assay.studies.decoupled_weight_decay.config import Config

Cell = Mapping[str, Mapping[str, float]]


def reduction(cell: Cell) -> float:
    """Relative reduction of the error of L2-Adam by AdamW, mean of the two networks."""
    each = [1 - cell[f"{net}/adamw"]["error"] / cell[f"{net}/l2-adam"]["error"] for net in ("plain", "norm")]
    return sum(each) / len(each)


def separates(net: str) -> All:
    """The decoupled contour is nearer to the axes by 0.2, and both grids have a contour at all."""

    def gain(cell: Cell) -> float:
        return cell[f"{net}/l2-sgd"]["steepness"] - cell[f"{net}/sgdw"]["steepness"]

    def worst_fit(cell: Cell) -> float:
        return min(cell[f"{net}/l2-sgd"]["r2"], cell[f"{net}/sgdw"]["r2"])

    arms = (f"{net}/l2-sgd", f"{net}/sgdw")
    return All(
        Effect(gain, arms=arms, at_least=0.2, name="|slope| of L2-SGD minus |slope| of SGDW"),
        Effect(worst_fit, arms=arms, at_least=0.8, beyond=0.0, name="smaller R2 of the two contours"),
    )


def spread_gain(cell: Cell) -> float:
    """By how many octaves the best raw decay spreads more than the normalised one."""
    return cell["budget/adamw"]["raw_spread"] - cell["budget/adamw"]["norm_spread"]


SMALL = {
    "grid.data.source": "digits",
    "grid.data.train": 300,
    "grid.steps": 60,
    "grid.norm_steps": 60,
    "grid.hidden": (16,),
    "grid.sgd_rates": (0.05, 0.2),
    "grid.adam_rates": (5e-3, 2e-2),
    "grid.norm_sgd_rates": (0.05, 0.2),
    "grid.norm_adam_rates": (5e-3, 2e-2),
    "grid.decays": 4,
    "grid.widenings": 1,
    "shrink.data.source": "digits",
    "shrink.data.train": 300,
    "shrink.steps": 60,
    "shrink.hidden": (16,),
    "shrink.groups": 5,
    "budget.data.source": "digits",
    "budget.data.train": 300,
    "budget.budgets": (10, 20, 40),
    "budget.hidden": (16,),
    "schedule.data.source": "digits",
    "schedule.data.train": 300,
    "schedule.steps": 50,
    "schedule.first_period": 10,
    "schedule.hidden": (16,),
    "text.books": "self",
    "text.steps": 4,
    "text.hidden": 8,
    "text.embedding": 4,
    "text.window": 16,
    "text.eval_windows": 8,
}

study = Study(
    number=20,
    id="decoupled-weight-decay",
    domain="optimization",
    title="Decoupled weight decay: AdamW and SGDW",
    paper=Paper(
        title="Decoupled Weight Decay Regularization",
        authors="Loshchilov, Hutter",
        year=2019,
        arxiv="1711.05101",
        venue="ICLR 2019",
    ),
    arms=(
        *(
            Arm(f"{net}/{optimiser}", f"{name}, {words}")
            for net, words in (("plain", "no normalisation"), ("norm", "batch normalisation"))
            for optimiser, name in (
                ("l2-sgd", "SGD with momentum and an L2 penalty"),
                ("sgdw", "SGDW, decay independent of the rate"),
                ("l2-adam", "Adam with an L2 penalty"),
                ("adamw", "AdamW, decay independent of the rate"),
                ("adamw-scaled", "AdamW, decay times the rate (torch's)"),
            )
        ),
        Arm("shrink/l2-adam", "Adam with and without an L2 penalty, weight by weight"),
        Arm("shrink/adamw", "AdamW with and without decay, weight by weight"),
        Arm("budget/adamw", "AdamW, runs of 100, 400 and 1,600 steps"),
        Arm("schedule/adamw", "AdamW under four schedules"),
        Arm("schedule/sgdw", "SGDW under four schedules"),
        Arm("text/l2-adam", "character model, Adam with an L2 penalty", seeds=3),
        Arm("text/adamw", "character model, AdamW", seeds=3),
        *(
            Arm(
                f"paper/{data}-{name}",
                f"shake-shake network on {words}, {name} (paper profile)",
                seeds=1,
                extra=True,
            )
            for data, words in (("cifar10", "CIFAR-10"), ("imagenet32", "32x32 ImageNet"))
            for name in paper.OPTIMISERS
        ),
    ),
    config=Config(),
    profiles={
        "smoke": {**SMALL, "seeds": 2},
        "demo": {"seeds": 2, "arms": ("norm/l2-adam", "norm/adamw", "shrink/*"), "grid.norm_steps": 300},
        "paper": {
            "arms": ("paper/*",),
            "paper.width": 96,
            "paper.epochs": 100,
            "paper.sgd_rates": tuple(0.1 / 2**k for k in range(0, 11, 2)),
            "paper.adam_rates": tuple(1e-3 / 2**k for k in range(-2, 6)),
            "paper.decays": (0.0, *(0.1 / 2**k for k in range(6))),
        },
    },
    seeds=5,
    needs=("mnist", "bible"),
    time_limit=30 * 24 * 3600.0,
    mechanisms={
        "L2-SGD, SGDW, L2-Adam, AdamW with a schedule multiplier": (
            "assay.optim.decay.SGDW",
            "assay.optim.decay.AdamW",
            "arm:plain/l2-sgd",
            "arm:plain/l2-adam",
        ),
        "proposition 1, equivalence for plain SGD": "assay.optim.decay.l2_equivalent",
        "propositions 2 and 3, inequivalence and the scaled penalty": "assay.optim.decay",
        "mechanism: weights with large gradients decay less": ("arm:shrink/l2-adam", "arm:shrink/adamw"),
        "generalisation of Adam, against SGD with momentum": (
            "arm:norm/adamw",
            "arm:norm/l2-adam",
            "arm:norm/l2-sgd",
        ),
        "separability: grids and contours": (
            "assay.analysis.grids.contour_slope",
            "assay.analysis.grids.separability",
        ),
        "schedules: constant, step, cosine, warm restarts": (
            "assay.optim.decay.CosineRestarts",
            "arm:schedule/adamw",
            "arm:schedule/sgdw",
        ),
        "normalised weight decay": ("assay.optim.decay.normalized_weight_decay", "arm:budget/adamw"),
        "sequence task": ("arm:text/l2-adam", "arm:text/adamw"),
        "both parametrisations, named and converted": "assay.optim.decay.convert_decay",
        "decay groups": "assay.optim.decay.decay_groups",
        "shake-shake networks of the paper": ("assay.nn.shakeshake.ShakeShake26", "arm:paper/cifar10-adamw"),
        "grids as one tensor program": "assay.optim.ensemble.EnsembleOptimizer",
    },
    claims=(
        Claim(
            id="adamw-beats-adam-l2",
            statement="AdamW reaches a lower test error than Adam with an L2 penalty, each at its best cell.",
            paper="about 15 % lower relative error on CIFAR-10 and ImageNet32x32 (Fig. 1-3)",
            test=Effect(
                reduction,
                arms=("plain/l2-adam", "plain/adamw", "norm/l2-adam", "norm/adamw"),
                at_least=0.05,
                name="relative reduction of the error",
            ),
        ),
        Claim(
            id="decoupling-separates-bn",
            statement="With batch norm the best decay depends less on the learning rate once it is decoupled.",
            paper="SGDW's and AdamW's contours run along the axes, those of L2 diagonally (Fig. 2)",
            test=separates("norm"),
        ),
        Claim(
            id="decoupling-separates-plain",
            statement="The same without normalisation.",
            paper="stated in general; its networks have batch norm (Fig. 2)",
            test=separates("plain"),
        ),
        Claim(
            id="l2-adam-protects-large-gradients",
            statement="In Adam an L2 penalty shrinks weights with large gradients less; decoupled decay does not.",
            paper="sections 2 and 3",
            test=All(
                Level("slope", arm="shrink/l2-adam", at_most=-0.1),
                Difference("slope", arm="shrink/l2-adam", versus="shrink/adamw", at_most=-0.1),
            ),
        ),
        Claim(
            id="normalised-decay-transfers",
            statement="The best normalised decay is the same for short and long runs, the best raw decay is not.",
            paper="Appendix B: hyperparameters of short runs carry over",
            test=All(
                Level("norm_spread", arm="budget/adamw", at_most=1.0, beyond=1e9, refuted_above=1e9),
                Effect(
                    spread_gain,
                    arms=("budget/adamw",),
                    at_least=1.0,
                    name="octaves by which raw spreads more",
                ),
            ),
        ),
    ),
    usage="""\
import torch
from assay.optim import AdamW, decay_groups

model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 2))
optimizer = AdamW(decay_groups(model, 1e-4), lr=1e-3)  # biases and norms do not decay
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)  # the decay follows it
for _ in range(100):
    loss = torch.nn.functional.cross_entropy(model(torch.randn(16, 4)), torch.randint(2, (16,)))
    optimizer.zero_grad(); loss.backward(); optimizer.step(); schedule.step()
""",
)

study.batch("plain/*", "norm/*", config="grid", group="arm", size=1)(grids.grid)
study.batch("shrink/*", config="shrink", group="arm")(mechanism.shrink)
study.batch("budget/*", config="budget", group="arm", size=3)(mechanism.budgets)
study.batch("schedule/*", config="schedule", group="arm")(mechanism.schedules)
study.batch("text/*", config="text", group="arm", size=1)(text.characters)
study.trial("paper/*", config="paper")(paper.trial)


@study.check
def places_exist(config: Config) -> None:
    """Folders named in the config are there."""
    if config.paper.source != "hub" and not Path(config.paper.source).is_dir():
        raise FileNotFoundError(f"paper.source={config.paper.source!r} is neither 'hub' nor a folder")
    if config.paper.imagenet32 and not Path(config.paper.imagenet32).is_dir():
        raise FileNotFoundError(f"paper.imagenet32={config.paper.imagenet32!r} is no folder")


study.figure("Error over learning rate and decay (white line: the fitted contour through the best cell)")(
    figures.heat_maps
)
study.figure("How much decay shrinks a weight, by the size of its gradients")(figures.shrinkage)
study.figure("Test error at the best cell, chosen on other images")(figures.best_of_grid)
study.figure("The best decay by length of the run")(figures.budgets)
study.figure("Test error during training under four schedules")(figures.anytime)
