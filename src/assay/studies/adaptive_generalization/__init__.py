r"""Do AdaGrad, RMSProp and Adam find solutions that generalise worse?

A network with more weights than examples has many settings without training error, and the optimiser decides which of
them one gets. Wilson et al. built a problem on which that choice is everything: gradient descent has no test error,
adaptive methods call every new point positive. They then tuned five methods on four real tasks and found the same
order there: adaptive methods lead early, SGD and heavy ball end lower.

## The mechanism

Least squares, labels $y = \pm 1$, more features than points, start at $w = 0$. Every gradient is a combination of the
examples, so gradient descent, with or without momentum, ends at the solution of smallest norm. A diagonal adaptive
method divides each coordinate by the size of its past gradients, and that leads elsewhere. The first gradient is
$-X^\top y / n$: per feature, the sum over positive examples minus the sum over negative ones. That vector is all it
knows. If $X\,\mathrm{sign}(X^\top y) = c\,y$, then at weights $\tau\,\mathrm{sign}(X^\top y)$ all residuals are the
same multiple of their labels, all gradients are multiples of $X^\top y$, the accumulated root is proportional to
$|X^\top y|$, and dividing by it leaves the sign. So the method stays on that line, and ends at
$\mathrm{sign}(X^\top y)/c$: a feature that one example has weighs as much as a feature that all have. (The lemma is
about where a method ends, not how fast.)

The adversarial data: a true feature, two constant ones, and for each example features of its own, one for a positive,
five for a negative. With more positives than negatives $c = 4$, the three shared weights are all $1/4$, and a fresh
negative scores $-\frac14 + \frac14 + \frac14 > 0$. The solution of smallest norm scores it
$\frac{-8PN + 5P - 3N}{D} < 0$, with $P$ positives and $N$ negatives. With $P \le N$ the condition fails and nothing
is claimed.

## How we test it

*Adversarial data.* 20, 100 and 400 points, 60 % positive, 3,000 full-batch steps in float64, rates falling to 0. All
sizes and seeds of a method are one program. Seeds shuffle the examples and draw the test labels: the outcome is
theory, and five seeds show only that nothing else enters.

*Real digits* (MNIST, 14 x 14, 300 images, 0-4 against 5-9), linear least squares, plus the same unique features with
a strength from 0 to 10, and with other numbers of them for a negative. Every method has eight rates, a factor of four
apart, chosen on 1,000 validation images whose unique features are fresh; 3,700 test. `unique_share` is the part of
the training margins that rests on unique features.

*Two real tasks*, five methods. Images: a perceptron with two hidden layers of 100 on 2,000 MNIST digits, 800 steps.
Characters: one GRU layer of 64 units on the King James Bible, 300 steps. Every method gets the same effort: a grid of
rates, powers of two, which goes on while the best lies at its edge (three times at most), each rate with both of the
paper's decay schemes: *dev-decay* (halve after an epoch without a better validation metric; 20 epochs a run) and
*fixed-frequency* (times 0.1 after 40 % and 80 % of the steps). A diverged run keeps its place in the grid with the
worst score. On images every seed is tuned on its own validation images; on characters a seed that is never published
is tuned, and the five seeds run at the chosen rate and scheme. All rates, schemes and seeds of a method are one
ensemble. Initial weights and order of examples are the same for all methods.

In claims 3 and 4 a group's best method is compared with the other group's best: on images the one with the lowest
validation error, for the early lead the one with the lowest training loss at 5 % of the steps. There are three
adaptive methods and two others, which favours the adaptive side a little.

## Why it comes out as it does

On the seeds on which grids were placed (100 and up) the lemma held to rounding. With RMSProp the ratio of root and
$|X^\top y|$ is constant on the way to the limit only: around it, steps of nearly constant size flip signs and blow up
rounding errors. That changes nothing in the direction of the weights.

Unique features cost Adam 5.8 points more than heavy ball at strength 1 (25.4 against 19.6 %), where half of its
training margins rest on them and a sixth of heavy ball's. With stronger or more numerous features heavy ball suffers
too: they then hold most of $X^\top y$, and five of them outweigh the pixels by magnitude alone. There the adaptive
methods' best rate is often at one end of the grid, which spans four orders of magnitude: validation prefers a model
that hardly trained.

On images nothing separates the groups: every tuned method ends between 7.0 and 7.2 %, and the best adaptive one is 0.2
points *better* than the best of SGD and heavy ball, with an interval on both sides of zero. 2,000 digits and a
perceptron leave little room for the choice among solutions, and the sampling error of 2,000 test images is as large as
the threshold. On characters the adaptive methods lead early by a wide margin, and heavy ball catches up with the best
of them, which is Adam (1.66 nats both) rather than RMSProp (1.69); SGD without momentum stays behind (1.81). Adam's
tuned rates were 11 and 32 times its default, and the default was clearly worse on both tasks, as in the paper (9.0
against 7.1 %, 2.21 against 1.66 nats).

## What differs

The paper's tasks are CIFAR-10 with a VGG, War and Peace with a two-layer LSTM (both in the profile `paper`; the text
file is the user's), and two parsers on the Penn Treebank, which needs a licence and is left out. Ours are small, and
training is short. The paper's tuning grids are larger; its final runs use five seeds, as ours.

The comparison is contested. Choi et al. 2019 (arXiv 1910.05446) tune every parameter of Adam, $\epsilon$ too, and
find it never behind momentum: with a large $\epsilon$ Adam *is* gradient descent (a test of the component shows it on
the adversarial data). Agarwal et al. 2020 (arXiv 2002.11803) attribute the gap to the implied schedule of step sizes.

**Citation.** A. C. Wilson, R. Roelofs, M. Stern, N. Srebro, B. Recht, "The Marginal Value of Adaptive Gradient
Methods in Machine Learning", NeurIPS 2017, arXiv 1705.08292.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from assay.lab import All, AnyOf, Arm, Claim, Difference, Effect, Level, Paper, Statistic, Study
from assay.studies.adaptive_generalization import chars, figures, images, linear, paper
from assay.studies.adaptive_generalization.chars import CharConfig
from assay.studies.adaptive_generalization.images import ImageConfig
from assay.studies.adaptive_generalization.linear import LinearConfig, SpuriousConfig
from assay.studies.adaptive_generalization.paper import PaperConfig
from assay.studies.adaptive_generalization.tuning import ADAPTIVE

PLAIN = ("sgd", "hb")
METHODS = (*PLAIN, *ADAPTIVE)
NEVER = -1e9  # a part of a claim that cannot refute it
Cell = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Config:
    """Laptop values."""

    linear: LinearConfig = field(default_factory=LinearConfig)
    digits: SpuriousConfig = field(default_factory=SpuriousConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    chars: CharConfig = field(default_factory=CharConfig)
    paper: PaperConfig = field(default_factory=PaperConfig)


def gap(strength: str) -> Callable[[Cell], float]:
    """Test error of Adam minus that of heavy ball at a strength, points."""

    def effect(cell: Cell) -> float:
        return cell["digits/adam"][f"error_s{strength}"] - cell["digits/hb"][f"error_s{strength}"]

    return effect


def dose_response(cell: Cell) -> float:
    """Rank correlation of that gap and the strength."""
    from scipy.stats import spearmanr

    gaps = [gap(strength)(cell) for strength in ("0", "0.3", "1", "3")]
    return 0.0 if len(set(gaps)) == 1 else float(spearmanr(range(4), gaps).statistic)


def image_gap(cell: Cell) -> float:
    """Test error of the adaptive method with the best validation score minus that of the other group's best."""

    def best(methods: tuple[str, ...]) -> float:
        chosen = min(methods, key=lambda method: cell[f"image/{method}"]["score"])
        return cell[f"image/{chosen}"]["test_error"]

    return best(ADAPTIVE) - best(PLAIN)


def early_log_ratio(cell: Cell) -> float:
    """Log of the lowest training loss of adaptive methods over that of SGD and heavy ball at 5 % of the steps."""
    lowest = [min(cell[f"chars/{m}"]["early_train_loss"] for m in group) for group in (ADAPTIVE, PLAIN)]
    return float(np.log(lowest[0] / lowest[1]))


def early_share(columns: Mapping[str, Mapping[str, np.ndarray]]) -> float:
    """Share of seeds in which the adaptive side is lower."""
    lowest = [
        np.min([columns[f"chars/{m}"]["early_train_loss"] for m in group], axis=0)
        for group in (ADAPTIVE, PLAIN)
    ]
    return float((lowest[0] < lowest[1]).mean())


def sign_solution_test() -> All:
    """Limits and errors of all five methods; only the errors can refute."""
    parts: list = []
    for method in PLAIN:
        arm = f"linear/{method}"
        parts += [
            Level("cosine", arm=arm, at_least=0.999, refuted_below=NEVER),
            Level("test_error", arm=arm, at_most=0.0, beyond=0.01, refuted_above=0.01),
        ]
    for method in ADAPTIVE:
        arm = f"linear/{method}"
        parts += [
            Level("cosine", arm=arm, at_least=0.999, refuted_below=NEVER),
            Level("error_gap", arm=arm, at_most=0.01, refuted_above=1.0),
            Level("error_over_negatives", arm=arm, at_least=0.5),
        ]
    return All(*parts)


def rmsprop_test() -> All:
    """RMSProp ahead of both others on both tasks; refuted if one of them is ahead of it on both."""
    ahead = {
        other: [
            ("test_error", f"image/{other}", "image/rmsprop"),
            ("test_loss", f"chars/{other}", "chars/rmsprop"),
        ]
        for other in ("adagrad", "adam")
    }
    parts: list = [
        Difference(*one, at_least=0.0, beyond=0.0, refuted_below=NEVER)
        for two in ahead.values()
        for one in two
    ]
    parts += [AnyOf(*(Difference(*one, at_least=0.0, beyond=0.0) for one in two)) for two in ahead.values()]
    return All(*parts)


ABOUT = {
    "sgd": "SGD",
    "hb": "heavy-ball momentum 0.9",
    "adagrad": "AdaGrad",
    "rmsprop": "RMSProp",
    "adam": "Adam",
    "adam-default": "Adam at its default rate 0.001, decay tuned",
}

study = Study(
    number=27,
    id="adaptive-generalization",
    domain="optimization",
    title="Which of many solutions: adaptive methods follow signs, SGD the smallest norm",
    paper=Paper(
        title="The Marginal Value of Adaptive Gradient Methods in Machine Learning",
        authors="Wilson, Roelofs, Stern, Srebro, Recht",
        year=2017,
        arxiv="1705.08292",
        venue="NeurIPS 2017",
    ),
    arms=(
        *(Arm(f"linear/{m}", f"adversarial least squares, {ABOUT[m]}") for m in METHODS),
        *(Arm(f"digits/{m}", f"linear digits with unique features, {ABOUT[m]}") for m in METHODS),
        *(Arm(f"image/{m}", f"perceptron on MNIST, {ABOUT[m]}") for m in ABOUT),
        *(Arm(f"chars/{m}", f"GRU on characters, {ABOUT[m]}") for m in ABOUT),
        *(
            Arm(f"paper/{task}-{m}", f"{words}, {ABOUT[m]} (paper profile)", extra=True)
            for task, words in (("cifar", "VGG on CIFAR-10"), ("chars", "two-layer LSTM on a text"))
            for m in ABOUT
        ),
    ),
    config=Config(),
    profiles={
        "smoke": {
            "seeds": 1,
            "linear.sizes": (20,),
            "linear.steps": 300,
            "digits.steps": 10,
            "digits.valid": 200,
            "digits.test": 300,
            "digits.strengths": (0.0, 0.3, 1.0, 3.0),
            "digits.counts": (1,),
            "image.steps": 30,
            "image.epochs": 3,
            "image.train": 300,
            "image.valid": 100,
            "image.test": 100,
            "image.watched": 100,
            "image.grid.rates": 2,
            "image.grid.extensions": 1,
            "chars.train": 30_000,
            "chars.held_out": 3_000,
            "chars.hidden": 8,
            "chars.batch_size": 4,
            "chars.length": 8,
            "chars.steps": 4,
            "chars.epochs": 2,
            "chars.watched": 200,
            "chars.tested": 200,
            "chars.grid.rates": 2,
            "chars.grid.extensions": 1,
        },
        "demo": {
            "seeds": 2,
            "linear.steps": 1000,
            "digits.strengths": (0.0, 0.3, 1.0, 3.0),
            "image.steps": 300,
            "image.grid.extensions": 1,
            "chars.steps": 40,
            "chars.hidden": 32,
            "chars.watched": 2_000,
            "chars.tested": 10_000,
            "chars.grid.rates": 3,
            "chars.grid.extensions": 1,
        },
        "paper": {
            "arms": ("paper/*",),
            "paper.dev_factors": (0.5, 0.7, 0.8, 0.9, 0.95),
            "paper.fixed_factors": (0.5, 0.8, 0.9),
            "paper.fixed_every": (5, 10, 20, 25, 40),
        },
    },
    seeds=5,
    needs=("mnist", "bible"),
    time_limit=30 * 24 * 3600.0,
    mechanisms={
        "the theory as running code": (
            "assay.optim.adaptive.min_norm_solution",
            "assay.optim.adaptive.sign_solution",
            "assay.optim.adaptive.sign_condition",
            "assay.optim.adaptive.general_update",
            "arm:linear/sgd",
            "arm:linear/adam",
        ),
        "X'y as the informational unit": "assay.optim.adaptive.solution_diagnostics",
        "the adversarial data set": (
            "assay.data.adversarial_features.wilson_dataset",
            "assay.data.adversarial_features.wilson_test_set",
        ),
        "the edge case explained: root over |X'y| is constant": (
            "assay.studies.adaptive_generalization.linear.adversarial",
            "arm:linear/adagrad",
        ),
        "dependence on features per point and on strength": (
            "assay.data.adversarial_features.add_unique_features",
            "assay.data.adversarial_features.UniqueFeatureAugmenter",
            "arm:digits/adam",
        ),
        "real tasks, five methods": tuple(f"arm:{task}/{m}" for task in ("image", "chars") for m in METHODS),
        "tuning protocol: a grid extended at its edge": (
            "assay.analysis.search.tune_rate",
            "assay.studies.adaptive_generalization.tuning.tune_together",
        ),
        "dev-decay and fixed-frequency decay": (
            "assay.optim.adaptive.DevDecay",
            "assay.optim.adaptive.FixedFrequencyDecay",
        ),
        "crossing curves": (
            "assay.studies.adaptive_generalization.figures.crossings",
            "assay.studies.adaptive_generalization.tuning.crossing",
        ),
        "ranking of the adaptive methods": "assay.studies.adaptive_generalization.figures.table",
        "ease of tuning: what k random rates give": (
            "assay.analysis.search.expected_best",
            "assay.analysis.search.tuning_regret",
        ),
        "Adam at its default rate": ("arm:image/adam-default", "arm:chars/adam-default"),
    },
    claims=(
        Claim(
            id="sign-solution",
            statement="On the adversarial data adaptive methods converge to the sign solution and call every fresh "
            "point positive; SGD and heavy ball find the smallest norm and make no error.",
            paper="Lemma 3.1 and section 3.3: a theorem",
            test=sign_solution_test(),
        ),
        Claim(
            id="spurious-features-hurt-adaptive",
            statement="Unique features added to real digits cost Adam more than heavy ball, the more the stronger "
            "they are.",
            paper="shown for the constructed data only (section 3.3)",
            test=All(
                Effect(
                    gap("1"),
                    arms=("digits/adam", "digits/hb"),
                    at_least=3.0,
                    beyond=1.0,
                    refuted_below=NEVER,
                    name="error of Adam minus heavy ball at strength 1, points",
                ),
                Effect(
                    dose_response,
                    arms=("digits/adam", "digits/hb"),
                    at_least=0.8,
                    refuted_below=NEVER,
                    name="rank correlation of the gap and strengths 0, 0.3, 1, 3",
                ),
                Effect(
                    gap("3"),
                    arms=("digits/adam", "digits/hb"),
                    at_least=1.0,
                    refuted_below=1.0,
                    name="error of Adam minus heavy ball at strength 3, points",
                ),
            ),
        ),
        Claim(
            id="sgd-generalises-better-image",
            statement="On images, tuned with equal effort, SGD or heavy ball ends with a lower test error than the "
            "best adaptive method.",
            paper="CIFAR-10: 7.65 % (SGD), 7.74 % (heavy ball) against 9.60 % (RMSProp) at best (Fig. 1)",
            test=Effect(
                image_gap,
                arms=tuple(f"image/{m}" for m in METHODS),
                at_least=0.3,
                name="test error of the best adaptive method minus the best of SGD and heavy ball, points",
            ),
        ),
        Claim(
            id="adaptive-leads-early",
            statement="Early in training, the best adaptive method has the lower training loss.",
            paper="adaptive methods lead in the first epochs on all tasks (Fig. 1-2)",
            test=All(
                Effect(
                    early_log_ratio,
                    arms=tuple(f"chars/{m}" for m in METHODS),
                    at_most=0.0,
                    name="log ratio of training losses at 5 % of the steps, adaptive over SGD and heavy ball",
                ),
                Statistic(
                    early_share,
                    arms=tuple(f"chars/{m}" for m in METHODS),
                    at_least=0.8,
                    refuted_below=NEVER,
                    name="share of seeds with the lower loss",
                ),
            ),
        ),
        Claim(
            id="rmsprop-best-adaptive",
            statement="RMSProp is the best of the adaptive methods on both tasks.",
            paper="9.60 % against 9.78 % and 11.34 % on CIFAR-10; 1.214 against 1.229 and 1.233 on characters",
            test=rmsprop_test(),
        ),
    ),
    usage="""\
from assay.data import UniqueFeatureAugmenter, wilson_dataset
from assay.optim import min_norm_solution, sign_solution, solution_diagnostics

x, y = wilson_dataset(60, 40)
for w in (min_norm_solution(x, y), sign_solution(x, y)):
    print(w[:3], solution_diagnostics(w, x, y).cos_sign)  # the true feature and the two constant ones
mine = UniqueFeatureAugmenter(strength=1.0).fit_transform([[0.2], [0.7]], [1, -1])  # put it before your model
""",
)

study.batch("linear/*", config="linear", group="arm")(linear.adversarial)
study.batch("digits/*", config="digits", group="arm")(linear.spurious)
study.batch("image/*", config="image", group="arm")(images.search)
study.batch("chars/*", config="chars", group="arm")(chars.search)
study.trial("paper/*", config="paper")(paper.trial)


@study.check
def places_exist(config: Config) -> None:
    """Folders and files named in the config are there."""
    if config.paper.source != "hub" and not Path(config.paper.source).is_dir():
        raise FileNotFoundError(f"paper.source={config.paper.source!r} is neither 'hub' nor a folder")
    if config.paper.text:
        paper.read_text(config.paper)


study.figure("Weights on the adversarial data, 20 points")(figures.weights)
study.figure("Digits with unique features: test error by strength and by number")(figures.strengths)
study.figure("Training and held-out curves (dots: SGD or heavy ball passes for good)")(figures.crossings)
study.figure("Method by task")(figures.table)
study.figure("Ease of tuning: what one random rate of the grid loses")(figures.sensitivity)
