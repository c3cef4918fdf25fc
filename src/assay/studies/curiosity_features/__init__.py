r"""Take every reward away. What is left of an agent that is paid only for being surprised? Burda and colleagues let
such agents loose on 54 environments. The score, which the agents never saw, went up in most of them. And the features
in which surprise was measured mattered less than one would think: a network with random weights was hard to beat.

## The mechanism

A forward model $f$ predicts the features of what an action leads to. Its error is the reward, and there is no other:

$$r_t = \tfrac1d \lVert f(\phi(x_t), a_t) - \phi(x_{t+1}) \rVert^2 .$$

Where the world is known the model is right and nothing is paid; so the agent goes where it is not. In which space
should the error be measured? The paper wants features that are *compact* (few numbers), *sufficient* (what matters is
in them) and *stationary* (they stay while the model learns), and compares four.

- **Pixels**: the observation itself. Sufficient and stationary, not compact.
- **Random features** (`rf`): a network that keeps its first weights. Compact and stationary, perhaps sufficient.
- **Inverse dynamics** (`idf`): trained to tell the action from two successive observations. What the agent cannot
  influence need not be in them. They move while they are trained.
- **Autoencoder** (`vae`): means of the code. Compact and sufficient in principle; they move.

The forward loss never trains $\phi$: otherwise features would become trivial, and so predictable. Rewards are
computed before their rollout is learnt from.

**Death is not the end.** If returns stop where an episode does, then dying costs all future rewards, and the agent
has been told what it must not do. So the learner sees one endless stream, in which dying is a step to the start, which
is familiar, and therefore dull.

## How we test it

- **Four games** in which progress shows new things: a platform game of 120 columns (`scroller`, score: the furthest
  column), nine rooms (`rooms`, rooms visited in an episode), breakout by MinAtar's rules (`breakout`, bricks), pong of
  one policy against itself (`pong`, returns in a rally). **Two controls** in which it does not: four rooms in
  a plane (`maze`, goals) and the mountain car (`car`, greatest height). The score of an arm is the mean over all
  episodes of the run, good and bad times together.
- **Television** (`tv/*`): nine rooms for 245,000 steps, and a fifth action that redraws 16 random bits (`button`) or
  shows one of ten fixed pictures (`image`); `noise` changes by itself. Counted: actions spent at the button, and rooms
  that any copy found.
- **Survival** (`leak/*`): the platform game with a constant reward of 0.1 a step and nothing to be curious about. With
  the done signal a learner can only learn to stay alive. Without it every state is worth $c/(1-\gamma)$, but values
  that begin at zero must climb there, familiar states first; in `nodone-bias` they begin where they belong, and all
  advantages are zero.
- **Transfer** (`transfer/*`): two levels, then a third with everything carried over, against a beginner on the third.
- **Features** are examined by `FeatureDiagnostics` on transitions of a random policy: how much they moved, what a
  linear probe reads of the true state and of the action.

All arms share PPO (3 passes in 4 parts, clip 0.1, entropy 0.005, rate $10^{-3}$, rewards divided by the running
deviation of their discounted sum, advantages normalised), two layers of 64 units for the policy and for $\phi$, the
same copies (64), and their random streams.

## What differs from the paper

Worlds of a few hundred numbers instead of Atari, Mario and Unity; 80,000 to 250,000 steps instead of $10^8$ frames.
The games (ale-py), Doom's maze with a television, and two-player Pong are in the paper profile with the released
code's sizes: Nature convolutions, four residual blocks, a U-Net on pixels. The autoencoder runs in two games, and
breakout and pong are cut to 80,000 steps, to stay within the time of a laptop.

The level of the platform game was chosen by random actions alone: the one of sixteen on which they get about as far,
and live about as long, as in the trial run that came with the protocol (here 16 columns and 73 steps, there 17 and
79). On levels with pits near the start they get 9 columns far. The plane's maze is one in which chance finds the goal
now and then. Gradients are not clipped. `Thrifty` computes the rewards and losses of `ForwardDynamics` with fewer
repetitions; a test compares the two.

## What to keep in mind

**The score is not the aim**, and it does not stay where it was. When the level is known the surprise is gone, and
runners turn round; that is why the mean over the run is judged and the best tenth is only reported (`peak_score`).
A short training that stops at the right moment looks better than a long one.

**Games are made to be interesting.** Whoever gets further sees more. The controls and the extra arms without texture,
or with texture that fades, take that away. In the car's valley, speed and height are novel by themselves; in a
plane whose two coordinates are all there is, a forward model has nothing left to wonder about after a few thousand
steps.

**A good rally is not surprising.** Two players who never miss make pong predictable. Where both are the same curious
agent nothing speaks for long rallies, once the ball's flight is known: what surprises is the serve after a miss.

**A television is an endless supply of surprise** for every forward model, whatever its features, as long as they
contain the screen. Inverse-dynamics features may leave out noise that comes by itself, since it says nothing about the
action. They have every reason to keep a picture that the action has just changed.

**Survival is tested without normalisation**: scaling advantages to deviation 1 can turn a vanishing signal into a
full-size one. The extra arms `leak/*-normalised` have it.

## What came of it

**The score goes up** in three games of four: the runner gets 29 columns far against 16 by chance (47 in its best tenth
of the run), two rooms are visited against 1.45, 0.54 bricks fall against 0.41. Pong goes the other way, for the reason
given above. That it takes a game is not true either: the car, which nobody designed to be interesting, comes nearly to
the summit on average (0.90 of the height against 0.44), because what is new to it lies higher up.

**Random features** are ahead of the learned spaces in every game; these move while they are learnt, and the
autoencoder's code keeps least of the true state (a linear probe explains 0.47 of it, from random features 0.87). They
are not ahead of pixels, and could not well be: observations of a few hundred clean numbers are compact already. What
random features spare an agent is the 28,000 bytes of a stack of frames, and that is the paper profile's to show.

**Transfer** is reversed: what was learnt with random features is worth eight columns on the new level, with
inverse-dynamics features next to nothing. The latter are also the worse explorers on the levels that come before, so
there is less to carry over; in the budget of a laptop they never become what the paper's had become.

**The done signal** does what the paper says. Told of ends, an agent with nothing else to live for ends up never dying
(300 steps of 300); not told, it lives as long as chance, up to a passing rise while its values find their level (83
against 75 steps). And the two are opposed: the curious runner that is told of ends lives longest (162 steps against
106) and gets hardly further than chance (17 columns against 29).

**The television** takes 59 % of the actions where chance would take 20, and of 5.8 rooms 4.0 are left. The loss is 1.8
where the protocol asks for 2, so this claim stays undecided by a fifth of a room. Inverse-dynamics features do no
better before pictures that change at the press of a button (69 %).

**Citation.** Y. Burda, H. Edwards, D. Pathak, A. Storkey, T. Darrell, A. A. Efros: Large-Scale Study of
Curiosity-Driven Learning. ICLR 2019, arXiv 1808.04355. Also used: Pathak et al. 2017 (curiosity by self-supervised
prediction, 1705.05363); Taiga et al. 2020 (on bonuses, 2109.11052).
"""

from typing import Any

from assay.lab import All, AnyOf, Arm, Claim, Difference, Effect, Level, Paper, Question, Statistic, Study
from assay.studies.curiosity_features.config import Config
from assay.studies.curiosity_features.real import ATARI, QUICK

SPACES = {
    "pixels": "error on the observation itself",
    "rf": "error in random features",
    "idf": "error in inverse-dynamics features",
    "vae": "error in the code of an autoencoder",
}
KINDS = {"random": "random actions", **SPACES}
GAMES = {
    "scroller": ("random", "pixels", "rf", "idf", "vae"),
    "rooms": ("random", "pixels", "rf", "idf", "vae"),
    "breakout": ("random", "pixels", "rf", "idf"),
    "pong": ("random", "pixels", "rf", "idf"),
}
"""Games with designed novelty, and their arms."""
CONTROLS = ("maze", "car")
VARIANTS = {
    "image": "seen as a picture",
    "constant": "no texture",
    "fading": "ever less texture to the right",
    "scrambled": "texture drawn anew each episode",
    "novel-start": "only the first columns look new in each episode",
    "no-reward-norm": "rewards not normalised",
    "no-advantage-norm": "advantages not normalised",
    "no-obs-norm": "observations not normalised",
    "feature-norm": "features standardised by running statistics",
    "no-ppo": "one unclipped pass over each rollout",
    "few-actors": "an eighth of the copies, as many steps in all",
    "d8": "8 random features",
    "d32": "32 random features",
    "d512": "512 random features",
}
SCREENS = {
    "off": "nine rooms for longer, {}",
    "button": "the same with a button that redraws noise, {}",
    "image": "the same with a button that changes pictures, {}",
    "noise": "the same with noise that comes by itself, {}",
}
TV = ("rf-off", "rf-button", "pixels-button", "idf-image")
LEAKS = {
    "random": "random actions",
    "done-constant": "constant reward, the learner is told of ends",
    "nodone-constant": "constant reward, it is not",
    "nodone-bias": "the same, values begin at what every state is worth",
    "done-normalised": "told of ends, rewards and advantages normalised",
    "nodone-normalised": "not told, rewards and advantages normalised",
}
LAPTOP = (
    *(f"{game}/{kind}" for game, kinds in GAMES.items() for kind in kinds),
    *(f"{game}/{kind}" for game in CONTROLS for kind in ("random", "rf")),
    "scroller/rf-done",
    *(f"tv/{name}" for name in TV),
    "transfer/*",
    *(f"leak/{name}" for name in LEAKS if not name.endswith("normalised")),
)


def gain(game: str) -> Difference:
    """A curious agent's score minus chance."""
    return Difference("score", arm=f"{game}/rf", versus=f"{game}/random", at_least=0.0)


def most_of(others: tuple[str, ...]) -> AnyOf:
    """All of them but (at most) one."""
    return AnyOf(*(All(*(gain(g) for g in others if g != left)) for left in others))


def survival_leak(cell: Any) -> float:
    """How much longer a learner lives that is told of ends, in units of a random policy's life."""
    told, not_told = cell["leak/done-constant"], cell["leak/nodone-constant"]
    return (told["late_length"] - not_told["late_length"]) / cell["leak/random"]["length"]


def _mean_gap(metrics: Any, versus: tuple[str, ...]) -> float:
    """Mean over games of random features' lead, in units of the range from chance to the best space."""
    gaps = []
    for game, kinds in GAMES.items():
        mean = {kind: float(metrics[f"{game}/{kind}"]["score"].mean()) for kind in kinds}
        span = max(mean[kind] for kind in kinds if kind != "random") - mean["random"]
        rivals = [mean[kind] for kind in versus if kind in mean]
        if span > 0:  # where nobody beats chance there is no range to be good or bad in
            gaps.append((mean["rf"] - max(rivals)) / span)
    return sum(gaps) / len(gaps) if gaps else float("nan")


def lead_over_learned(metrics: Any) -> float:
    """Random features minus the better of the learned ones."""
    return _mean_gap(metrics, ("idf", "vae"))


def lead_over_pixels(metrics: Any) -> float:
    """Random features minus pixels."""
    return _mean_gap(metrics, ("pixels",))


TINY = {
    "updates": 2, "moments": 1, "agent.copies": 8, "agent.steps": 16, "agent.hidden": 16, "agent.features": 8,
    "agent.latent": 4, "agent.warmup": 10,
}  # fmt: skip
PARTS = (*GAMES, *CONTROLS, "tv", "transfer.game", "leak.game")
PROFILES: dict[str, dict[str, Any]] = {
    "laptop": {"arms": LAPTOP},
    "smoke": {
        "seeds": 1,
        "arms": LAPTOP,
        **{f"{part}.{name}": value for part in PARTS for name, value in TINY.items()},
        **{f"{part}.limit": 12 for part in PARTS},
        "transfer.updates": 2,
        "transfer.more": 2,
    },
    "demo": {
        "seeds": 2,
        "arms": ("scroller/random", "scroller/rf", "scroller/idf", "tv/rf-off", "tv/rf-button"),
        "scroller.updates": 30,
        "tv.updates": 20,
    },
    "paper": {
        "arms": (
            *(f"real/{game}-{kind}" for game in QUICK for kind in KINDS),
            *(f"real/maze{tv}-{kind}" for tv in ("", "_tv") for kind in ("rf", "idf")),
            "real/pong_duel-random",
            "real/pong_duel-rf",
        ),
        "real.enabled": True,
    },
}  # fmt: skip

_FOUR = tuple(f"{game}/{kind}" for game, kinds in GAMES.items() for kind in kinds)

study = Study(
    number=48,
    id="curiosity-features",
    domain="exploration",
    title="Curiosity without any reward, in four feature spaces",
    paper=Paper(
        title="Large-Scale Study of Curiosity-Driven Learning",
        authors="Burda, Edwards, Pathak, Storkey, Darrell, Efros",
        year=2019,
        arxiv="1808.04355",
        venue="ICLR 2019",
    ),
    arms=(
        *(
            Arm(f"scroller/{kind}", f"platform game, {about}", seeds=6 if kind in ("random", "rf") else 5)
            for kind, about in KINDS.items()
        ),
        Arm("scroller/rf-done", "platform game, random features, returns stop at death"),
        *(Arm(f"rooms/{kind}", f"nine rooms, {KINDS[kind]}") for kind in GAMES["rooms"]),
        *(Arm(f"breakout/{kind}", f"breakout, {KINDS[kind]}") for kind in GAMES["breakout"]),
        *(Arm(f"pong/{kind}", f"pong against itself, {KINDS[kind]}") for kind in GAMES["pong"]),
        *(Arm(f"maze/{kind}", f"control: four rooms in a plane, {KINDS[kind]}") for kind in ("random", "rf")),
        *(Arm(f"car/{kind}", f"control: mountain car, {KINDS[kind]}") for kind in ("random", "rf")),
        *(
            Arm(f"tv/{name}", SCREENS[name.partition("-")[2]].format(KINDS[name[: name.find("-")]]))
            for name in TV
        ),
        *(Arm(f"transfer/{kind}", f"two levels, then a third, {KINDS[kind]}") for kind in ("rf", "idf")),
        *(
            Arm(f"leak/{name}", f"platform game, {about}", extra=name.endswith("normalised"))
            for name, about in LEAKS.items()
        ),
        *(
            Arm(f"scroller/rf-{name}", f"platform game, random features, {about}", seeds=3, extra=True)
            for name, about in VARIANTS.items()
        ),
        Arm(
            "scroller/idf-image",
            "platform game seen as a picture, inverse-dynamics features",
            seeds=3,
            extra=True,
        ),
        *(
            Arm(f"tv/{kind}-{screen}", about.format(KINDS[kind]), seeds=3, extra=True)
            for kind in ("pixels", "rf", "idf")
            for screen, about in SCREENS.items()
            if f"{kind}-{screen}" not in TV
        ),
        *(
            Arm(f"{game}/{kind}", f"control: {game}, {KINDS[kind]}", seeds=3, extra=True)
            for game in CONTROLS
            for kind in ("pixels", "idf", "vae")
        ),
        *(
            Arm(f"real/{game}-{kind}", f"{game}, {KINDS[kind]} (paper profile)", seeds=3, extra=True)
            for game in ATARI
            for kind in (KINDS if game in QUICK else ("random", "rf", "idf"))
        ),
        *(
            Arm(f"real/{world}-{kind}", f"{about}, {KINDS[kind]} (paper profile)", seeds=3, extra=True)
            for world, about in (
                ("maze", "Doom's My Way Home"),
                ("maze_tv", "Doom's My Way Home with a television"),
                ("pong_duel", "two-player Pong"),
                ("mario_1-1", "Super Mario Bros. 1-1"),
                ("mario_1-3", "Super Mario Bros. 1-3"),
            )
            for kind in ("random", "rf", "idf")
        ),
    ),
    config=Config(),
    profiles=PROFILES,
    seeds=5,
    mechanisms={
        "forward dynamics in features; mean squared error as reward": (
            "assay.rl.intrinsic.ForwardDynamics",
            "assay.rl.intrinsic.ResidualDynamics",
            "assay.rl.intrinsic.unet.ActionUNet",
        ),
        "four feature spaces": (
            "assay.rl.intrinsic.PixelFeatures",
            "assay.rl.intrinsic.RandomFeatures",
            "assay.rl.intrinsic.InverseDynamicsFeatures",
            "assay.rl.intrinsic.VAEFeatures",
            "arm:scroller/pixels",
            "arm:scroller/rf",
            "arm:scroller/idf",
            "arm:scroller/vae",
        ),
        "the first module of its kind, with its weights": "assay.rl.intrinsic.ICM",
        "purely intrinsic training": (
            "assay.rl.intrinsic.IntrinsicMixer",
            "assay.studies.curiosity_features.agents.Learner",
        ),
        "death is not the end, and the ablation": (
            "assay.envs.NoDone",
            "arm:scroller/rf-done",
            "arm:leak/done-constant",
            "arm:leak/nodone-constant",
            "arm:leak/nodone-bias",
        ),
        "measures of stability as arms": (
            "arm:scroller/rf-no-ppo",
            "arm:scroller/rf-no-reward-norm",
            "arm:scroller/rf-no-advantage-norm",
            "arm:scroller/rf-no-obs-norm",
            "arm:scroller/rf-few-actors",
            "arm:scroller/rf-feature-norm",
        ),
        "compact, sufficient, stationary: measured": "assay.rl.intrinsic.diagnostics.FeatureDiagnostics",
        "controls without designed novelty": ("arm:maze/rf", "arm:car/rf", "arm:scroller/rf-constant"),
        "noisy television": (
            "assay.envs.NoisyTV",
            "arm:tv/rf-button",
            "arm:tv/idf-image",
            "arm:tv/idf-noise",
        ),
        "transfer to new levels": ("arm:transfer/rf", "arm:transfer/idf"),
        "two players without reward": ("assay.envs.TwoPlayerPong", "assay.envs.SelfPlay", "arm:pong/rf"),
        "the paper's worlds": (
            "arm:real/Breakout-rf",
            "arm:real/maze_tv-rf",
            "arm:real/pong_duel-rf",
            "arm:real/mario_1-1-rf",
        ),
        "for anybody's Gymnasium environment": (
            "assay.rl.intrinsic.curiosity_wrapper.CuriosityWrapper",
            "assay.rl.intrinsic.curiosity_wrapper.CuriosityVectorWrapper",
        ),
    },
    claims=(
        Claim(
            id="curiosity-raises-extrinsic-score",
            statement="An agent that is paid only for surprise scores higher than chance in games whose score it never"
            " sees.",
            paper="curiosity alone beats a random agent in about 70 % of Atari games with random features (Fig. 2)",
            test=All(
                Difference(
                    "score", arm="scroller/rf", versus="scroller/random", at_least=10.0, refuted_below=2.0
                ),
                # Three games of four: the one above must be among them, and two of the others.
                most_of(tuple(game for game in GAMES if game != "scroller")),
            ),
        ),
        Claim(
            id="random-features-suffice",
            statement="Random features are about as good as learned ones, and better than pixels.",
            paper="random features are surprisingly strong, learned ones are ahead in 55 % of games (Fig. 2);"
            " contested by arXiv 2109.11052 on how bonuses rank",
            test=All(
                Statistic(
                    lead_over_learned,
                    arms=_FOUR,
                    at_least=-0.2,
                    beyond=-0.2,
                    refuted_below=-0.2,
                    name="rf - best of (idf, vae), share of the range",
                ),
                Statistic(lead_over_pixels, arms=_FOUR, at_least=0.1, name="rf - pixels, share of the range"),
            ),
        ),
        Claim(
            id="learned-features-transfer",
            statement="What an agent learnt with inverse-dynamics features helps more on a new level than what it"
            " learnt with random ones.",
            paper="Mario, from level 1-1 to 1-3: inverse-dynamics features transfer, random ones hardly (Fig. 4)",
            test=Difference("gain", arm="transfer/idf", versus="transfer/rf", at_least=0.0),
        ),
        Claim(
            id="done-signal-leaks",
            statement="Stopping returns at death is itself a reward for survival; without it a curious agent lives"
            " longer than chance all the same, because death is boring.",
            paper="the done signal leaks information about the task (Section 2.2, infinite horizon)",
            test=All(
                Effect(
                    survival_leak,
                    arms=("leak/done-constant", "leak/nodone-constant", "leak/random"),
                    at_least=0.3,
                    name="length(done) - length(no done), share of chance's",
                ),
                Difference("length", arm="scroller/rf", versus="scroller/random", at_least=0.0),
            ),
        ),
        Claim(
            id="noisy-tv-stalls-curiosity",
            statement="A button that shows new noise holds an agent that is paid for surprise.",
            paper="with a television in the maze learning slows down or stops (Fig. 5)",
            test=All(
                Difference("rooms", arm="tv/rf-off", versus="tv/rf-button", at_least=2.0),
                Level("tv_share", arm="tv/rf-button", at_least=0.3),
            ),
        ),
    ),
    questions=(
        Question(
            id="design",
            ask="Is the success an artefact of how games are designed?",
            arms=("scroller/rf", "maze/rf", "car/rf", "scroller/rf-constant", "scroller/rf-fading"),
            answer="Levels show new things to whoever gets further. The controls do not, and the variants of the"
            " platform game take the texture away, or let it fade on the way.",
        ),
        Question(
            id="why-random",
            ask="Random features do not capture anything meaningful: why do they work?",
            arms=("scroller/rf", "scroller/idf", "scroller/vae", "scroller/rf-d8", "scroller/rf-d512"),
            answer="A wide random network keeps nearly everything: ridge regression reads the true state from it."
            " The figure of the diagnostics compares the spaces.",
        ),
    ),
    usage="""
import gymnasium
from assay.rl.intrinsic.curiosity_wrapper import CuriosityWrapper

env = CuriosityWrapper(gymnasium.make("CartPole-v1"), features="inverse", mode="replace", endless=True, warmup=100)
obs, info = env.reset(seed=0)
obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
print("paid", round(reward, 3), "for surprise; the score stays in info:", info["extrinsic_reward"])
""",
)


@study.check
def packages_are_there(config: Config) -> None:
    """The simulator of the paper profile is installed."""
    if config.real.enabled:
        real.check(config.real)


from assay.studies.curiosity_features import (  # noqa: E402
    figures,  # noqa: F401
    games,  # noqa: F401
    real,
)
