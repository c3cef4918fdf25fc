r"""In repeated games, learners that ignore each other's learning end badly: in the prisoner's dilemma both
defect. LOLA (learning with opponent-learning awareness) lets each learner differentiate through the other's
*next learning step*, and tit-for-tat is found without being programmed.

## Mechanism

Players are memory-one: five logits each, the probability of cooperating after CC, CD, DC, DD and at the
start. The joint play is a Markov chain with transition matrix $P$, so the discounted values are closed
forms, $V_i=s_0^\top(I-\gamma P)^{-1}R_i$. A naive learner climbs $\nabla_1V_1$. LOLA supposes that the
opponent is about to step by $\Delta\theta_2=\eta\,\nabla_2V_2(\theta_1,\theta_2)$ and expands
$V_1(\theta_1,\theta_2+\Delta\theta_2)$ to first order. The published update keeps one of the two resulting
terms:

$$\theta_1\leftarrow\theta_1+\delta\left[\nabla_1V_1+\eta\,(\nabla_2V_1)^\top\,\nabla_1\nabla_2V_2\right]$$

with $\nabla_2V_1$ held constant. Holding the other factor constant instead gives LookAhead; keeping both
terms gives the full Taylor gradient; stable opponent shaping (SOS) takes LookAhead and as much of LOLA's
term as does not turn against it. All are one Hessian-vector product each.

Why tit-for-tat? At two even policies ($\theta=0$) in the dilemma with $\gamma=0.96$ the closed form gives,
for the states CC, CD, DC, DD, start:

| | CC | CD | DC | DD | start |
| --- | --- | --- | --- | --- | --- |
| $\nabla_1V_1$, the naive gradient | -1.5 | -1.5 | -1.5 | -1.5 | -0.25 |
| $\nabla_2V_1$, what the opponent's cooperation is worth | 3 | 3 | 3 | 3 | 0.5 |
| LOLA's term | 4.35 | -4.35 | 4.35 | -4.35 | 0 |

The naive gradient says: defect everywhere. LOLA's term outweighs it and says: do what the other did. Where
the other cooperated (CC, DC) cooperate, else defect; for then the other's own gradient points to
cooperation.

From rollouts, first-order terms are REINFORCE with a baseline, and the mixed derivative of the opponent's value
is, with $g_{i,t}=\sum_{l\le t}\nabla_i\log\pi_{i,l}$,

$$\nabla_1\nabla_2V_2=\mathbb E\Big[\sum_t\gamma^t\,r_{2,t}\;g_{1,t}\,g_{2,t}^\top\Big].$$

With opponent modelling, the opponent's logits are counted from
its actions in the same batch.

## How it is tested here

The games are the paper's own (matrices, closed forms), so nothing is scaled down in the exact experiments:
256 pairs an arm, N(0, 1) first logits, $\delta=\eta=1$, 200 steps. From rollouts: 10 pairs, 256 rollouts of
150 steps for each of 150 updates (the paper: 4,000 rollouts). All pairs of an arm are one tensor program.
Returns are $(1-\gamma)V$, so -1 is mutual cooperation and -2 mutual defection. The paper does not say how
its share of tit-for-tat is counted; three readings are reported: share of states, share of players with all
four states right, mean probability.

What differs from the paper: fewer rollouts, exact evaluation of sampled learners, and the tournament, the
coin game and a GAN as exploratory arms without verdict. The authors' released exact trainer takes player
2's payoffs as the transpose of player 1's, which turns matching pennies into a coordination game; here each
player has its own matrix.

## What we found

Four claims hold, with effects close to the paper's: LOLA pairs earn about -1.04, naive pairs -1.99; nine
pairs of ten are at the equilibrium of pennies; sampling and fitted opponents cost little; a LOLA player is
not exploited by a naive one.

Two remarks on numbers. Nearly all naive pairs defect, yet half of their states agree with tit-for-tat,
since a defector agrees with it after CD and DD; so a share of states (0.51 against 0.90) says less than it
seems. And a tenth of LOLA's logits lie beyond 10: the end points are saturated and would not move again.

*Why the last claim is refuted.* LOLA's term scales with the step that the opponent is believed to take, and
a step in other parameters is another step in policies. With logits 0.3 times the parameters both $\delta$
and $\eta$ shrink to 0.09 times, and by the sweep of look-aheads below 0.3 hardly anything is left; with logits 3
times the parameters little is lost. A network of ten units in place of the table loses nearly half of the gain.
This is what Zhao et al. (2022, POLA) and Willi et al. (2022, COLA) showed, and it bounds the paper's
result: what is learnt depends on how policies are written down.

The summary one often reads, that LOLA "maximises return given the opponent's update", is loose: it does so
to first order and with one of two terms dropped. Letcher et al. (2019) show that it may leave the game's
own fixed points: in the tandem game (figure) naive learning, LookAhead and SOS stop at $x+y=1$, LOLA at
$1/(1-2\eta)=1.25$.

**Citation.** J. Foerster, R. Chen, M. Al-Shedivat, S. Whiteson, P. Abbeel, I. Mordatch: Learning with
Opponent-Learning Awareness. AAMAS 2018, arXiv 1709.04326. Also used: Foerster et al. 2018 (DiCE,
1802.05098); Letcher et al. 2019 (SOS, 1811.08469); Metz et al. 2016 (unrolled GANs, 1611.02163); Zhang &
Lesser 2010 (LookAhead); Bowling & Veloso 2002 (WoLF-PHC); Zhao et al. 2022 (POLA, 2210.10125); Willi et al.
2022 (COLA, 2203.04098).
"""

from assay.lab import All, Arm, Claim, Difference, Effect, Equivalence, Level, Paper, Question, Study
from assay.studies.lola.config import Config

EXACT_SEEDS, SIDE_SEEDS, SAMPLED_SEEDS = 256, 64, 10
MODES_SHOWN = ("nl", "lola", "lookahead", "full", "sos")
WORLDS = ("chicken", "stag", "ipd-0.8", "ipd-0.9")
RING = ("naive", "lola", "lookahead", "unrolled")
PLAYERS = ("nl", "lola", "lookahead", "sos", "q", "jal", "phc", "wolf", "tft", "always-d")

ABOUT = {
    "nl": "both naive",
    "lola": "both LOLA",
    "lookahead": "both LookAhead",
    "full": "both with the full Taylor gradient",
    "sos": "both with stable opponent shaping",
    "lola2": "both second-order LOLA",
    "lola2-vs-lola": "second-order LOLA against LOLA",
}
GAMES = {
    "ipd": "prisoner's dilemma",
    "imp": "matching pennies",
    "chicken": "chicken",
    "stag": "stag hunt",
    "ipd-0.8": "dilemma, discount 0.8",
    "ipd-0.9": "dilemma, discount 0.9",
}


def side(name: str, about: str = "", seeds: int = SIDE_SEEDS, extra: bool = True) -> Arm:
    return Arm(name, about=about, seeds=seeds, extra=extra)


study = Study(
    number=61,
    id="lola",
    domain="games",
    title="LOLA: learners that shape each other's learning find reciprocity",
    paper=Paper(
        title="Learning with Opponent-Learning Awareness",
        authors="Foerster, Chen, Al-Shedivat, Whiteson, Abbeel, Mordatch",
        year=2018,
        arxiv="1709.04326",
        venue="AAMAS 2018",
    ),
    arms=(
        Arm("ipd/nl", about="prisoner's dilemma, both naive", seeds=EXACT_SEEDS),
        Arm("ipd/lola", about="prisoner's dilemma, both LOLA", seeds=EXACT_SEEDS),
        Arm("imp/nl", about="matching pennies, both naive", seeds=EXACT_SEEDS),
        Arm("imp/lola", about="matching pennies, both LOLA", seeds=EXACT_SEEDS),
        Arm("mixed/lola-vs-nl", about="dilemma: LOLA in seat 1, naive in seat 2", seeds=EXACT_SEEDS),
        Arm("reparam/scaled-0.3", about="LOLA, logits are 0.3 times the parameters", seeds=EXACT_SEEDS),
        Arm("reparam/scaled-3", about="LOLA, logits are 3 times the parameters", seeds=EXACT_SEEDS),
        Arm("reparam/mlp-10", about="LOLA, logits from a network of 10 tanh units", seeds=EXACT_SEEDS),
        Arm("pg/nl", about="dilemma from rollouts, naive", seeds=SAMPLED_SEEDS),
        Arm("pg/lola", about="dilemma from rollouts, LOLA", seeds=SAMPLED_SEEDS),
        Arm("pg/lola-om", about="dilemma from rollouts, LOLA on fitted opponents", seeds=SAMPLED_SEEDS),
        *(
            side(f"{world}/{mode}", about=f"{GAMES[world]}, {ABOUT[mode]}", extra=False)
            for world in ("ipd", "imp")
            for mode in ("lookahead", "full", "sos", "lola2", "lola2-vs-lola")
        ),
        *(
            side(f"toy/{m}", about=f"two games of two numbers, {ABOUT[m]}", seeds=8, extra=False)
            for m in MODES_SHOWN
        ),
        *(
            side(f"eta/{eta}", about="LOLA with another look-ahead")
            for eta in ("0", "0.03", "0.1", "0.3", "3")
        ),
        *(side(f"know/rate-{rate}", about="a naive learner of another rate") for rate in ("0", "0.1", "1")),
        side("know/own-rewards", about="takes the opponent's payoffs for its own"),
        side("know/noisy-rewards", about="opponent's payoffs known up to noise"),
        *(
            side(f"know/episodes-{n}", about="opponent counted from episodes", seeds=32)
            for n in (1, 4, 16, 64)
        ),
        side("know/vs-tft", about="against fixed tit-for-tat"),
        side("know/vs-always-d", about="against fixed defection"),
        side("know/vs-q", about="against a Q-learner", seeds=32),
        *(side(f"games/{w}:{m}", about=f"{GAMES[w]}, {ABOUT[m]}") for w in WORLDS for m in MODES_SHOWN),
        side("basin/lola-from-naive", about="LOLA from where naive learners end"),
        side("basin/lola-from-defection", about="LOLA from firm defection"),
        side("basin/lola-from-tft", about="LOLA from tit-for-tat"),
        side("basin/nl-from-tft", about="naive learners from tit-for-tat"),
        *(
            side(f"pg-imp/{mode}", about="pennies from rollouts", seeds=SAMPLED_SEEDS)
            for mode in ("nl", "lola")
        ),
        *(
            side(f"dice/lookahead-{k}", about=f"DiCE, {k} simulated steps", seeds=SAMPLED_SEEDS)
            for k in (1, 2)
        ),
        side("dice/own-baseline-1", about="DiCE with its own baseline term", seeds=SAMPLED_SEEDS),
        *(side(f"tournament/{p}", about=f"dilemma, {p} against everybody", seeds=16) for p in PLAYERS),
        *(side(f"tournament-imp/{p}", about=f"pennies, {p} against everybody", seeds=16) for p in PLAYERS),
        *(side(f"coin/{p}", about="coin game", seeds=1) for p in ("nl", "lola", "lola-om")),
        *(side(f"ring/{m}", about="GAN on eight Gaussians", seeds=5) for m in RING),
    ),
    config=Config(),
    profiles={
        "smoke": {
            "seeds": 8,
            "exact.steps": 5,
            "exact.log_every": 5,
            "toy.bilinear_steps": 5,
            "toy.tandem_steps": 5,
            "rollout.updates": 3,
            "rollout.rollouts": 16,
            "rollout.horizon": 10,
            "dice.updates": 1,
            "dice.rollouts": 8,
            "dice.horizon": 5,
            "tournament.rounds": 2,
            "tournament.plays": 2,
            "coin.updates": 2,
            "coin.copies": 8,
            "coin.horizon": 4,
            "coin.fit_first": 2,
            "ring.steps": 3,
            "ring.batch": 8,
            "ring.samples": 32,
            "exact.plays": 2,
            "exact.episode": 5,
        },
        "demo": {"seeds": 64, "rollout.updates": 100, "rollout.horizon": 100},
        "paper": {
            "seeds": 50,
            "rollout.updates": 200,
            "rollout.rollouts": 4_000,
            "dice.updates": 200,
            "dice.rollouts": 4_000,
            "dice.horizon": 150,
            "tournament.rounds": 1_000,
            "tournament.plays": 100,
            "coin.policy": "conv-lstm",
            "coin.updates": 100_000,
            "coin.copies": 4_000,
            "coin.horizon": 150,
            "coin.rate": 0.005,
            "coin.look_ahead": 0.005,
            "coin.adam": False,
            "ring.steps": 25_000,
            "ring.batch": 512,
            "ring.hidden": 128,
            "ring.noise": 256,
        },
    },
    seeds=10,
    mechanisms={
        "iterated prisoner's dilemma and matching pennies with memory one": "assay.games.matrix.MemoryOneGame",
        "batched environment of repeated games": "assay.games.matrix.IteratedMatrixGame",
        "PettingZoo adapter": "assay.games.matrix.as_parallel_env",
        "coin game": ("assay.envs.coin.CoinGame", "arm:coin/lola"),
        "naive learner": ("arm:ipd/nl", "arm:pg/nl"),
        "LOLA with exact values": ("assay.optim.opponent.opponent_shaping_grad", "arm:ipd/lola"),
        "LOLA with policy gradients": ("assay.optim.opponent.lola_policy_gradient", "arm:pg/lola"),
        "estimator of the second-order term": "assay.optim.opponent.lola_cross_term",
        "opponent modelling": (
            "assay.games.forecast.TabularOpponentModel",
            "assay.games.forecast.fit_opponent",
            "arm:pg/lola-om",
        ),
        "shares of tit-for-tat and of the equilibrium": "assay.games.reciprocity.reciprocity_stats",
        "mixed pairing, LOLA against naive": "arm:mixed/lola-vs-nl",
        "any differentiable two-player game; parallel to unrolled GANs": (
            "assay.optim.opponent.opponent_shaping_grad",
            "assay.optim.opponent.unrolled_grad",
            "arm:toy/lola",
            "arm:ring/unrolled",
        ),
        "optimiser for two players": "assay.optim.opponent.LOLAOptimizer",
        "degraded knowledge of the opponent": (
            "arm:know/rate-0.1",
            "arm:know/own-rewards",
            "arm:know/episodes-1",
        ),
        "tournament with PHC, WoLF-PHC, JAL-AM and naive Q": (
            "assay.games.tabular_learners.PolicyHillClimber",
            "assay.games.tabular_learners.JointActionLearner",
            "assay.games.tabular_learners.QLearner",
            "arm:tournament/lola",
            "arm:tournament-imp/wolf",
        ),
        "second-order LOLA": ("arm:ipd/lola2", "arm:ipd/lola2-vs-lola"),
        "opponent modelling in the coin game": "arm:coin/lola-om",
        "LookAhead": "arm:ipd/lookahead",
        "full Taylor gradient": "arm:ipd/full",
        "stable opponent shaping": ("assay.optim.opponent.sos_fraction", "arm:ipd/sos"),
        "DiCE": ("assay.optim.opponent.dice_objective", "arm:dice/lookahead-1", "arm:dice/lookahead-2"),
    },
    claims=(
        Claim(
            id="lola-finds-reciprocity",
            statement="LOLA pairs cooperate by reciprocity in the repeated dilemma; naive pairs defect.",
            paper="return -1.06 (0.19) against -1.98 (0.14); 81.0 % against 20.8 % tit-for-tat (table, exact values)",
            test=All(
                Level("return", arm="ipd/lola", at_least=-1.25, refuted_below=-1.7),
                Level("return", arm="ipd/nl", at_most=-1.90),
                Difference("tft_state", arm="ipd/lola", versus="ipd/nl", at_least=0.25),
            ),
        ),
        Claim(
            id="lola-reaches-nash-in-pennies",
            statement="LOLA pairs reach the mixed equilibrium of matching pennies; naive pairs circle around it.",
            paper="98.8 % of pairs at the equilibrium against 0.0 % (table, exact values)",
            test=All(
                Level("nash", arm="imp/lola", at_least=0.80, refuted_below=0.5),
                Level("nash", arm="imp/nl", at_most=0.20),
            ),
        ),
        Claim(
            id="lola-from-rollouts-and-models",
            statement="Cooperation survives when gradients are sampled and when opponents are only fitted models.",
            paper="return -1.17 (0.34) with policy gradients against -1.98 (0.00) for naive learners (table)",
            test=All(
                Level("return", arm="pg/lola", at_least=-1.45, refuted_below=-1.8),
                Level("return", arm="pg/nl", at_most=-1.9),
                Equivalence("return", arm="pg/lola-om", versus="pg/lola", within=0.15),
            ),
        ),
        Claim(
            id="lola-is-not-exploited",
            statement="A LOLA player facing a naive learner does at least as well as it.",
            paper="returns of a LOLA player and its naive opponent: -1.28 / -1.54 (second-order table)",
            test=All(
                Effect(
                    lambda cell: cell["mixed/lola-vs-nl"]["return_1"] - cell["mixed/lola-vs-nl"]["return_2"],
                    arms=("mixed/lola-vs-nl",),
                    at_least=0.0,
                    beyond=-0.05,
                    refuted_below=-0.1,
                    name="return of LOLA - return of the naive learner",
                ),
                Level("return_1", arm="mixed/lola-vs-nl", at_least=-1.8),
                Level("return_2", arm="mixed/lola-vs-nl", at_least=-1.8),
            ),
        ),
        Claim(
            id="lola-survives-reparametrisation",
            statement="The outcome does not depend on how the same policies are parametrised.",
            paper="not tested in the paper; contradicted by Zhao et al. 2022 (POLA) and Willi et al. 2022 (COLA)",
            test=All(
                *(
                    Difference("return", arm, "ipd/lola", at_least=-0.2, beyond=-0.2, refuted_below=-0.4)
                    for arm in ("reparam/scaled-0.3", "reparam/mlp-10", "reparam/scaled-3")
                )
            ),
        ),
    ),
    questions=(
        Question(
            id="look-ahead",
            ask="How much look-ahead is needed?",
            arms=tuple(f"eta/{eta}" for eta in ("0", "0.03", "0.1", "0.3", "3")),
            answer=(
                "A large one. With look-ahead 0, 0.03, 0.1, 0.3, 1 and 3 pairs earn -2.00, -1.98, "
                "-1.91, -1.56, -1.04 and -1.01: below 0.3 hardly anything happens. An opponent that "
                "really steps by 1 is an extreme learner on values of size 25 to 50; LOLA works by a "
                "belief that the other learns fast, whether it does or not."
            ),
        ),
        Question(
            id="knowledge",
            ask="How much must a LOLA player know about its opponent?",
            arms=(
                *(f"know/rate-{rate}" for rate in ("0", "0.1", "1")),
                "know/own-rewards",
                "know/noisy-rewards",
                *(f"know/episodes-{n}" for n in (1, 4, 16, 64)),
                "know/vs-tft",
                "know/vs-always-d",
                "know/vs-q",
            ),
            answer=(
                "Little, except its rewards. Against a naive learner ten times slower than believed "
                "LOLA does not suffer but extorts: it earns -0.81 and its opponent -1.58. Pairs that "
                "see one episode of the other a step still reach -1.13, four episodes are as good as "
                "knowing the policy, and noise of 0.3 on every payoff costs nothing (-1.04). But "
                "players who take the other's payoffs for their own end at -1.99: the shaping then "
                "points the wrong way. Against fixed tit-for-tat LOLA cooperates, against fixed "
                "defection it defects, and it leads a Q-learner more than half of the way (-1.31 and "
                "-1.43)."
            ),
        ),
        Question(
            id="other-games",
            ask="Is it good beyond the dilemma, or does mutual arrogance hurt?",
            arms=tuple(f"games/{world}:{mode}" for world in WORLDS for mode in MODES_SHOWN),
            answer=(
                "No. In chicken naive pairs settle for an average of -0.01, while two LOLA learners "
                "both insist and crash: -3.5 (full Taylor and SOS -5.3), the mutual arrogance that "
                "Letcher et al. predict. In the stag hunt LOLA finds the stag (3.9 of 4, naive 2.6). "
                "In the dilemma everything hangs on the discount: at 0.9 LOLA still earns -1.24, at "
                "0.8 only -1.83."
            ),
        ),
        Question(
            id="basin",
            ask="Is it reciprocity, or only a better basin of attraction?",
            arms=(
                "basin/lola-from-naive",
                "basin/lola-from-defection",
                "basin/lola-from-tft",
                "basin/nl-from-tft",
            ),
            answer=(
                "A better basin, from where it starts. From random policies nearly all LOLA pairs end "
                "in cooperation and from tit-for-tat all do, where naive pairs lose it in three of "
                "ten cases. But from where naive learners end nobody comes back, nor from firm "
                "defection: at saturated logits the term vanishes with the gradient."
            ),
        ),
        Question(
            id="tournament",
            ask="Who earns most in a round robin with other learners?",
            arms=tuple(f"{t}/{p}" for t in ("tournament", "tournament-imp") for p in PLAYERS),
            answer=(
                "In the dilemma fixed tit-for-tat earns most (-1.14), then SOS (-1.27) and LOLA "
                "(-1.29); all learners without shaping stay below -1.6. LOLA also brings PHC and "
                "WoLF-PHC to cooperate (-1.08 each), although it takes them for gradient learners. In "
                "pennies the shaping players earn the most on average (0.25), LOLA loses only to the "
                "joint-action learner, and the fixed policies lose to all who learn. The gradient "
                "players are told the policy of the tabular learners here."
            ),
        ),
        Question(
            id="dice",
            ask="Does the DiCE estimator do as well as LOLA's own, and do more look-ahead steps help?",
            arms=("dice/lookahead-1", "dice/lookahead-2", "dice/own-baseline-1"),
            answer=(
                "Yes, if the variance is tamed. With the rewards centred at each step, one and two "
                "simulated steps reach -1.11 and -1.16 with half of the rollouts of the main "
                "experiment, so the second step adds nothing. With the baseline of the DiCE paper, "
                "which helps first derivatives only, the same 128 rollouts end at -1.56."
            ),
        ),
        Question(
            id="pennies-from-rollouts",
            ask="Is the equilibrium of pennies found from rollouts too?",
            arms=("pg-imp/nl", "pg-imp/lola"),
            answer=(
                "In returns yes, in policies half. LOLA pairs end within 0.07 of the even return on "
                "average, where naive pairs swing by 0.36. But with 256 rollouts an update the noise "
                "often keeps some state's probability more than 0.1 away from one half: five pairs of "
                "ten meet the strict criterion (the paper, with 4,000 rollouts, 93 %), no naive pair "
                "does."
            ),
        ),
        Question(
            id="coin-game",
            ask="Does it work on a grid?",
            arms=("coin/nl", "coin/lola", "coin/lola-om"),
            answer=(
                "The machinery runs (spatial game, networks, opponent models), but a minute of "
                "training shows no cooperation: all three learners pick coins of their own colour in "
                "51 to 63 % of the cases, with one run each. Nothing should be concluded."
            ),
        ),
        Question(
            id="gan",
            ask="Does the same correction help a GAN?",
            arms=("ring/naive", "ring/lola", "ring/lookahead", "ring/unrolled"),
            answer=(
                "A little. With a look-ahead of 0.1 LOLA and LookAhead find all 8 modes in every "
                "seed, against 7.4 for the naive steps and 7.8 for three unrolled steps. The price is "
                "precision: 51 % (LOLA), 59 % (LookAhead) and 50 % (unrolled) of the samples lie on a "
                "mode, against 66 % for naive steps."
            ),
        ),
    ),
    usage="""
import torch
from assay.games import ipd
from assay.optim.opponent import LOLAOptimizer

game = ipd()
theta1, theta2 = (torch.nn.Parameter(torch.randn(5)) for _ in range(2))
players = LOLAOptimizer([theta1], [theta2], lr=1.0, eta=1.0, mode="lola")
for _ in range(200):
    players.step(lambda: game.losses(theta1, theta2))
print(game.average_return(theta1, theta2))   # about -1: mutual cooperation
""",
)

# Experiments and figures register themselves with the study above.
from assay.studies.lola import coin, exact, figures, ring, rollouts, tournament  # noqa: E402, F401
