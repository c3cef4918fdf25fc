r"""An agent that waits for a reward learns nothing where rewards are rare. So let it pay itself for news. But what is
news? If it is whatever a model of the world fails to predict, a television tuned to noise is news for ever. Burda and
colleagues give the predictor another task, one that has nothing to do with the world: imitate a network with random,
fixed weights, on the observations that were met. Where the agent was often the imitation is good; where it never was
it is bad. That error is cheap, needs no model, and made the first agent that found its way through most of
Montezuma's Revenge without demonstrations.

## The mechanism

A target $f$ with random weights that never change, and a predictor $\hat f$ trained by gradient descent on visited
observations. The bonus of a step is the error on the observation that it led to,

$$i_t = \tfrac1k \lVert \hat f(x_{t+1}) - f(x_{t+1}) \rVert^2 .$$

The paper names four reasons why a prediction fails: (1) there were too few data of the kind, (2) the target is
random, (3) the model cannot represent it, (4) training did not get there. Only the first is novelty. A forward model
suffers from all of them. RND does away with (2) and (3): $f$ is a deterministic function of the very observation that
the predictor is given, and of its own architecture. (The figure of the sources shows each one alone.) In the linear
case the error is, on average, the predictive variance of Bayesian regression (`bayesian_linear_variance`): regression
on zeros with a random function as the prior.

Three details carry the method, and most reimplementations lose one of them.

- **Whitening.** Observations are whitened by running statistics and cut to $[-5, 5]$, for the two networks only and
  with statistics gathered from random steps before the first bonus. Fixed random networks cannot adapt to the scale
  of their input.
- **Scale of the bonus.** It is divided by the running standard deviation of its discounted sum, a filter that runs
  forward in time within each copy of the world. (A well-known copy of the code filters across copies instead.)
- **Two kinds of return.** The world's rewards end with the episode; news does not, since what was seen stays seen. So
  there are two values, $V_E$ with $\gamma = 0.999$ and ends, $V_I$ with $\gamma = 0.99$ and without, and the
  advantage is $A = 2 A_E + A_I$.

## How we test it

- **Digits** (`digits/*`): networks are trained on 400 zeros and n digits of another class; what is the error on
  unseen ones of that class? Seven n, five seeds, one tensor program a class.
- **Sources** (`sources/*`): the four sources of error, one at a time, in a toy world of six dimensions: share of the
  target's variance that is left unexplained on fresh data.
- **Rooms** (`rooms/*`): 16 rooms in a snake, 200 steps an episode, one reward in the last room, out of reach for
  chance. Counted are the rooms that any of 64 copies has entered in 250,000 steps. The observation is the place,
  one-hot row and column. Beside RND: no bonus, a forward model in the same random features, and bonuses from true
  counts. The extra arms
  `pictures/*` show nine rooms as images of 19 x 19 to convolutions (does anything rest on coordinates?), `long/*` go
  on for a million steps.
- **Television** (`tv/*`): nine rooms, and a fifth action that redraws 16 random bits of the observation.
- **Death** (`traps/*`): two deadly cells in each room. The bonus is the only reward; its returns go on after death or
  stop there. Two more arms have a reward half way, and two value heads or one.
- **Six tasks** (`suite/*`): rooms with sparse and with dense reward, Catch, a side-scroller, the mountain car paid
  for the summit only (its two numbers shown on one scale), a maze of one wall. Score: 0 for random actions, 1 for the
  largest return there is.

All arms share PPO, its settings and their random streams. The forward model and RND have the same features, hidden
units and learning rate.

## What differs from the paper

Six Atari games and $2 \cdot 10^9$ frames became small worlds and $2.5 \cdot 10^5$ steps; the games with the settings
of the appendix are in the paper profile (`atari/*`; its recurrent policy has an LSTM in place of a GRU). The
predictor has one layer more than the target, in the paper two. Half of each batch trains it, the paper's rule
$\min(1, 32 / \text{copies})$. Gradients are clipped, the learning rate is $10^{-3}$. No hyperparameter was searched:
what the settings of the rooms are, they are everywhere. Car and maze were made solvable in pilot runs, without regard
to which arm solves them.

The bonus of a step that ended an episode belongs to the last observation of that episode, not to the first of the
next, and the first rewards are paid after statistics exist. For a learner of your own there is `RNDWrapper`, a
wrapper for any Gymnasium environment, and `two_stream_advantage`.

## What to keep in mind

"Deterministic" means deterministic given the observation. Random bits that were never shown in this combination ARE
new inputs, and a predictor with finite data cannot know that they mean nothing: a television with many pictures
distracts RND too, only less and for a shorter time (Mavor-Parker et al. 2021 make this point with larger
televisions). And in a quiet world a forward model's surprise is nearly as good a guide: what RND adds is robustness
more than range.

Taiga et al. (2020) found that bonuses shine in Montezuma's Revenge, the game on which they were developed, and help
little elsewhere. The last claim asks the same of six small tasks: a bonus can only help where chance does not find
the reward, and where the reward is dense it costs attention.

## What came of it

The mechanism holds: novelty falls monotonically with examples, and of the four sources of error only too few data and
too little training leave RND with an error; a forward model fails on noise and on what is too complex for it as well.

In the rooms RND finds 9.6 of 16, PPO alone 5.3. But the spread is wide (5 to 14 over eight seeds), and the forward
model (9.0) and the bonus from true counts (9.6) do no worse: in a world without distractions what matters is that
there is a bonus which wears off, not which. The television tells them apart. The forward model spends 60 % of its
actions on it, and the rooms that it finds go down from 8.0 to 4.8; RND spends 15 %, less than the fifth that chance
would. Whether RND loses a room by it cannot be said: six seeds give a difference between -2.5 and 1.2.

Returns that go on after death find three rooms more. (The arms with a reward half way hardly tell more than that: with
one head the reward was never found, and so that arm repeats the one without it step by step.)

The gain over the six tasks comes from four of them: rooms with sparse and with dense reward, the car, the maze. In
Catch and in the side-scroller the bonus changes nothing, for better or worse, which is Taiga's finding in small. The
score is of the final policy, and that is not kind to PPO alone: in one seed it found the goal of the maze early,
reached it for a while nearly always, and had unlearnt it in the end.

**Citation.** Y. Burda, H. Edwards, A. Storkey, O. Klimov: Exploration by Random Network Distillation. ICLR 2019,
arXiv 1810.12894. Also used: Burda et al. 2018 (large-scale curiosity, 1808.04355); Osband et al. 2018 (randomised
priors, 1806.03335); Mavor-Parker et al. 2021 (2102.04399); Taiga et al. 2020 (2109.11052); Bellemare et al. 2016
(counts, 1606.01868).
"""

import torch

from assay.lab import All, Arm, Claim, Difference, Effect, Paper, Question, Statistic, Study
from assay.studies.random_network_distillation.config import Config

CLASSES = (1, 7, 8)
TASKS = ("sparse-rooms", "dense-rooms", "catch", "scroller", "car", "maze")
GAMES = ("MontezumaRevenge", "Gravitar", "Venture", "PrivateEye", "Pitfall", "Solaris")
LAPTOP = ("digits/*", "sources/*", "rooms/*", "tv/*", "traps/*", "suite/*")


def worst_rho(cell) -> float:
    """Rank correlation of novelty and number of examples, in the class where it is least negative."""
    return max(cell[f"digits/{c}"]["rho"] for c in CLASSES)


def smallest_ratio(cell) -> float:
    """Novelty without examples over novelty with 300, in the class where it is smallest."""
    return min(cell[f"digits/{c}"]["ratio"] for c in CLASSES)


def interquartile_gain(metrics) -> float:
    """IQM over tasks and seeds of the score with RND, minus that without."""
    from assay.rl.evaluate import iqm

    def pooled(kind: str) -> float:
        rows = [torch.as_tensor(metrics[f"suite/{task}-{kind}"]["score"]) for task in TASKS]
        return float(iqm(torch.cat(rows)))

    return pooled("rnd") - pooled("ppo")


TINY = {
    "agent.copies": 8, "agent.steps": 16, "agent.warmup": 10, "agent.hidden": 16, "agent.features": 8, "updates": 2,
}  # fmt: skip
PROFILES = {
    "laptop": {"arms": LAPTOP},
    "smoke": {
        "seeds": 1,
        "arms": (
            "digits/1", "sources/*", "rooms/*", "tv/rnd-on", "tv/dynamics-on", "tv/rnd-off", "traps/*", "pictures/rnd",
            "suite/sparse-rooms-*", "suite/catch-*", "suite/car-rnd",
        ),
        "digits.examples": (0, 100),
        "digits.zeros": 200,
        "digits.steps": 30,
        "sources.data": 128,
        "sources.few": 16,
        "sources.steps": 20,
        "sources.short": 5,
        **{
            f"{part}.{name}": value
            for part in ("rooms", "tv", "traps", "pictures", "long", "suite")
            for name, value in TINY.items()
        },
        **{f"{part}.rooms": 2 for part in ("rooms", "tv", "traps", "pictures")},
        "suite.episodes": 8,
    },
    "demo": {
        "seeds": 2,
        "arms": ("rooms/ppo", "rooms/rnd", "rooms/count", "tv/rnd-on", "tv/dynamics-on", "sources/*"),
        "rooms.updates": 25,
        "tv.updates": 20,
    },
    "paper": {
        "arms": (*LAPTOP, "atari/*"),
        "digits.source": "hub",
        "digits.zeros": 5_000,
        "digits.examples": (0, 1, 10, 100, 500, 1_000, 2_000, 5_000),
        "digits.test": 900,
        "digits.target": (512, 512),
        "digits.predictor": (512, 512, 512),
        "digits.steps": 5_000,
        "rooms.updates": 245,
        "tv.updates": 245,
        "traps.updates": 245,
        "suite.updates": 245,
        "atari.enabled": True,
    },
}  # fmt: skip

study = Study(
    number=29,
    id="random-network-distillation",
    domain="exploration",
    title="RND: novelty as the error of distilling a random network",
    paper=Paper(
        title="Exploration by Random Network Distillation",
        authors="Burda, Edwards, Storkey, Klimov",
        year=2019,
        arxiv="1810.12894",
        venue="ICLR 2019",
    ),
    arms=(
        *(
            Arm(f"digits/{c}", f"novelty of the digit {c} after n examples, among 400 zeros", seeds=5)
            for c in CLASSES
        ),
        Arm("sources/rnd", "four sources of prediction error, target a random network", seeds=5),
        Arm("sources/dynamics", "the same, target the next state's features", seeds=5),
        Arm("rooms/ppo", "16 rooms, PPO without a bonus", seeds=8),
        Arm("rooms/rnd", "16 rooms, random network distillation", seeds=8),
        Arm("rooms/dynamics", "16 rooms, forward model in random features", seeds=5),
        Arm("rooms/count", "16 rooms, bonus from true counts (oracle)", seeds=5),
        Arm("tv/rnd-on", "9 rooms and a television, RND", seeds=6),
        Arm("tv/rnd-off", "9 rooms without it, RND", seeds=6),
        Arm("tv/dynamics-on", "9 rooms and a television, forward model", seeds=6),
        Arm("tv/dynamics-off", "9 rooms without it, forward model", seeds=6),
        Arm(
            "traps/non-episodic", "16 rooms with deadly cells, bonus only, returns go on after death", seeds=8
        ),
        Arm("traps/episodic", "the same, returns stop at death", seeds=8),
        Arm("traps/two-heads", "with a reward half way: two values, the bonus's non-episodic", seeds=3),
        Arm("traps/one-head", "with a reward half way: one value of the sum, episodic", seeds=3),
        Arm("pictures/ppo", "9 rooms seen as pictures, no bonus", seeds=3, extra=True),
        Arm("pictures/rnd", "9 rooms seen as pictures, RND", seeds=3, extra=True),
        *(
            Arm(f"suite/{task}-{kind}", f"{task.replace('-', ' ')}, {name}", seeds=5)
            for task in TASKS
            for kind, name in (("ppo", "PPO"), ("rnd", "PPO with RND"))
        ),
        Arm("long/ppo", "16 rooms for a million steps, no bonus", seeds=3, extra=True),
        Arm("long/rnd", "16 rooms for a million steps, RND", seeds=3, extra=True),
        *(
            Arm(f"atari/{game}-{kind}", f"{game}, {kind} (paper profile)", seeds=3, extra=True)
            for game in GAMES
            for kind in ("ppo", "rnd", "dynamics")
        ),
    ),
    config=Config(),
    profiles=PROFILES,
    seeds=5,
    needs=("mnist",),
    mechanisms={
        "fixed random target, trained predictor": ("assay.rl.intrinsic.RND", "assay.rl.intrinsic.make_rnd"),
        "reward from the next observation, last frame only": (
            "assay.rl.intrinsic.RND.reward",
            "assay.rl.intrinsic.last_frame",
        ),
        "forward-dynamics bonus in the same random features; plain PPO": (
            "assay.rl.intrinsic.ForwardDynamics",
            "assay.rl.intrinsic.RandomFeatures",
            "arm:rooms/dynamics",
            "arm:rooms/ppo",
        ),
        "noisy television": ("assay.envs.NoisyTV", "arm:tv/dynamics-on", "arm:tv/rnd-on"),
        "four sources of prediction error": (
            "arm:sources/rnd",
            "arm:sources/dynamics",
            "assay.rl.intrinsic.bayesian_linear_variance",
        ),
        "novelty detector on images": ("assay.rl.intrinsic.NoveltyDetector", "arm:digits/1"),
        "observation normalisation, for the bonus only, begun with random steps": (
            "assay.rl.normalize.RunningMeanStd",
            "assay.rl.intrinsic.RND.init_stats",
        ),
        "normalisation by the running std of the discounted intrinsic return": (
            "assay.rl.normalize.ReturnNormalizer"
        ),
        "two value heads, separate discounts, non-episodic and episodic returns; ablations": (
            "assay.rl.intrinsic.two_stream_advantage",
            "assay.rl.intrinsic.IntrinsicMixer",
            "arm:traps/non-episodic",
            "arm:traps/episodic",
            "arm:traps/two-heads",
            "arm:traps/one-head",
        ),
        "predictor trained on a fraction of the batch": "assay.rl.intrinsic.RND.prediction_loss",
        "rooms, coverage, best return, several environments": (
            "assay.studies.random_network_distillation.rooms.Tally",
            "arm:suite/catch-rnd",
            "arm:atari/MontezumaRevenge-rnd",
        ),
        "simpler measures of novelty": (
            "assay.rl.intrinsic.CountBonus",
            "assay.rl.intrinsic.SimHash",
            "assay.rl.intrinsic.KNNBonus",
            "assay.rl.intrinsic.DensityBonus",
            "arm:rooms/count",
        ),
        "for anybody's Gymnasium environment": (
            "assay.rl.intrinsic.wrapper.RNDWrapper",
            "assay.rl.intrinsic.wrapper.RNDVectorWrapper",
        ),
    },
    claims=(
        Claim(
            id="novelty-falls-with-examples",
            statement="The prediction error on a class of images falls as more of its examples are trained on.",
            paper="MNIST: error on the held-out class falls with its number of training examples (Fig. 2)",
            test=All(
                Effect(
                    worst_rho,
                    arms=tuple(f"digits/{c}" for c in CLASSES),
                    at_most=-0.9,
                    beyond=-0.7,
                    refuted_above=-0.7,
                    name="largest rank correlation of n and novelty over classes",
                ),
                Effect(
                    smallest_ratio,
                    arms=tuple(f"digits/{c}" for c in CLASSES),
                    at_least=2.0,
                    beyond=1.0,
                    name="smallest ratio of novelty at n = 0 and n = 300 over classes",
                ),
            ),
        ),
        Claim(
            id="rnd-finds-rooms-without-reward",
            statement="An agent that is paid for RND's error finds more rooms than one that waits for a reward.",
            paper="Montezuma's Revenge: 22 to 24 rooms against a few; 8,152 points against 2,497 (Figs. 4, 7; Table 1)",
            test=Difference("rooms", arm="rooms/rnd", versus="rooms/ppo", at_least=2.0, refuted_below=1.0),
        ),
        Claim(
            id="noisy-tv-hurts-dynamics-more",
            statement="A television whose channel the agent can change holds a forward model's curiosity more than"
            " RND's.",
            paper="the error of a forward model is drawn to randomness, RND's target is deterministic (Section 2.2)",
            test=Difference("tv_share", arm="tv/dynamics-on", versus="tv/rnd-on", at_least=0.2),
        ),
        Claim(
            id="noisy-tv-leaves-rnd-alone",
            statement="With a television in the world RND finds as many rooms as without, give or take one.",
            paper="RND does not suffer from stochastic transitions (Section 2.2.1); contested by arXiv 2102.04399",
            test=Difference(
                "rooms", arm="tv/rnd-on", versus="tv/rnd-off", at_least=-1.0, beyond=-1.0, refuted_below=-1.0
            ),
        ),
        Claim(
            id="non-episodic-intrinsic-explores-more",
            statement="Where death is possible, a bonus whose returns go on after it explores more than one whose"
            " returns stop.",
            paper="pure exploration of Montezuma's Revenge: more rooms with non-episodic returns (Fig. 3)",
            test=Difference(
                "rooms", arm="traps/non-episodic", versus="traps/episodic", at_least=0.5, refuted_below=0.0
            ),
        ),
        Claim(
            id="not-just-montezuma",
            statement="Over six tasks of different kinds PPO with RND scores higher than PPO.",
            paper="RND is ahead in four of six hard games (Table 1); contested by arXiv 2109.11052",
            test=Statistic(
                interquartile_gain,
                arms=tuple(f"suite/{task}-{kind}" for task in TASKS for kind in ("rnd", "ppo")),
                at_least=0.1,
                refuted_below=0.0,
                name="IQM(rnd) - IQM(ppo) of normalised scores",
            ),
        ),
    ),
    questions=(
        Question(
            id="similarity",
            ask="Is this not just similarity of observation vectors, or counting?",
            arms=("rooms/rnd", "rooms/count"),
            answer="The metric count_rank of `rooms/rnd` is the rank correlation, over all cells after training, of"
            " RND's bonus with what true visit counts would pay; `rooms/count` is the agent that is paid by them. The"
            " detectors of `NoveltyDetector` compare both with neighbours, kernels and components on any data.",
        ),
        Question(
            id="two-games",
            ask="The gains are consistent in two games only?",
            arms=tuple(f"suite/{task}-rnd" for task in TASKS),
            answer="The figure of the six tasks shows each with its interval.",
        ),
    ),
    usage="""
import gymnasium
from assay.rl.intrinsic.wrapper import RNDWrapper

env = RNDWrapper(gymnasium.make("CartPole-v1"), mode="add", weight=0.5, warmup=100)
obs, info = env.reset(seed=0)
obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
print(info["extrinsic_reward"], "+ 0.5 x", round(info["intrinsic_reward"], 3), "=", round(reward, 3))
""",
)


@study.check
def packages_are_there(config: Config) -> None:
    """The simulator of the paper profile is installed."""
    if config.atari.enabled:
        atari.check(config.atari)


from assay.studies.random_network_distillation import (  # noqa: E402
    atari,
    digits,  # noqa: F401
    figures,  # noqa: F401
    rooms,  # noqa: F401
    sources,  # noqa: F401
    suite,  # noqa: F401
)
