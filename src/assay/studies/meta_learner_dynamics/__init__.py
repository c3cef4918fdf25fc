r"""A network trained by gradient descent picks up the structure of a task in stages: large modes first. A
meta-trained network, which learns in its state while its weights stand still, picks up nearly all of it at once,
as Bayesian inference does. So it is not a faster learner of the same kind.

## Mechanism

**Two learners of one task.** A *learner* starts from fresh weights and descends the error. A *meta-learner* is an
LSTM that sees $[x_t; y_{t-1}]$ and predicts $y_t$; its weights come from outer training over many tasks and are then
frozen. Both are asked the same question from outside: what would you answer to these inputs now? A linear map (or a
Fourier series) is fitted to the answers and projected on the modes of the true function.

**Linear maps.** $y=Wx+\sigma\epsilon$, $W=USV^\top$; the strength of mode $i$ is $u_i^\top\hat W v_i/s_i$. In a
two-layer linear network with small first weights $s_0$ and rate $1/\tau$ it follows (Saxe et al. 2013)

$$\hat s(t)=\frac{s\,e^{2st/\tau}}{e^{2st/\tau}-1+s/s_0},\qquad t_{1/2}=\frac{\tau}{2s}\ln\Big(\frac{s}{s_0}-1\Big),$$

so half times go like $1/s$. One layer learns every mode at the same rate, $1-e^{-t/\tau}$: it is depth that staggers,
not descent. Bayes, with the prior of the tasks, is $\hat W_t=Y^\top X(X^\top X+\sigma^2I)^{-1}$, and for a prior
without preferred directions the expected strength is the same for all modes.

**Fourier series.** $f(\theta)=\sum_{k\le K}a_k\cos k\theta+b_k\sin k\theta$; strength
$\mathrm{Re}(\hat F_k\overline{F_k})/|F_k|^2$. ReLU networks learn low frequencies first (Rahaman et al. 2018).

**Contextual bandits.** One rewarded action in each context. A learner's policy is $\mathrm{softmax}(W_c+b)$ and the
contexts share $b$: what one context learns moves all others. Bayes wins at the $n$-th visit of a context with chance
$n/A$, at most 1.

The *stagger index* is $\log_2$ of the half time of the last mode over that of the first: 0 is together, 1 is twice as
late. Learners' time is counted in steps and meta-learners' in examples, so indices are compared and never times.

## How it is tested here

Tasks are generated, as in the paper; its exact sizes are not known to us, so ours are chosen to train in half a minute
a seed on one core. Linear maps: 3x3, $\sigma=0.1$, 20 pairs an episode, evaluated at singular values 3, 1.5, 0.75
(each within the central 95 % of its distribution under the prior). Fourier: $K=3$, 24 points. Bandits: 3 contexts and
actions, 30 steps. The LSTM has 64 units (48 for bandits); outer training is Adam with warm-up and cosine decay, for
bandits advantage actor-critic. Every seed trains its own network and is evaluated on 300 tasks it has never seen; half
times are read off the mean curve over tasks, for the mean of half times of noisy curves is biased.

Learners are as cheap as their theory: 32 two-layer linear networks a seed with $s_0=0.001$, 16 ReLU networks, 256
bandits, each experiment one tensor program. To compare with Bayes *in examples*, the two-layer network also learns from
one example a step, at six rates at once, and the best rate in hindsight counts.

Evaluation functions have the prior's mean power in each frequency and a random phase, as evaluation maps have a fixed
spectrum; a strength would else be divided by numbers near zero.

**Controls.** The one-layer map; momentum, Adam and RMSProp; policies without the shared bias, off policy, and sampled;
and the same networks at 2, 5, 10, 30 and 100 % of outer training, because an *under-trained* meta-learner looks
staggered: the Fourier claim is judged only if every frequency ends above 0.9.

## What to make of it

*Linear maps.* The learner's index is the closed form's, 1.7 for singular values 3 and 0.75, and one layer has
none. With momentum it is 1.6, with RMSProp 2.0, with Adam 1.3. The meta-learner's is slightly
*negative*: small modes are a little ahead (the paper, too, finds them first in the outer training of its linear
case). It is no copy of Bayes but near: strengths differ by 0.05 on average, and a tenth of the first error
takes five pairs instead of three. The two-layer network, with the best rate in hindsight, needs sixty-five;
a single layer needs eleven.

*Outer training staggers instead.* At 5 % of it the Fourier meta-learner knows the first frequency at most, at
10 % two, at 30 % all three: stopped early, it would have passed for a staggered learner. What gradient descent
does to a network it does to the outer loop too; the inner one is free of it.

*Limits of the prior.* On targets four times larger the error after an episode is two fifths of the
target's power, fifty times its own distribution's. The pre-registered comparison, with a Bayesian learner who
knows the larger prior, is a weak one: noise is then so small beside the target that Bayes' error is nearly
zero, and *any* network passes. So the claim is judged only if the meta-learner has learned its own tasks.

*Bandits.* The shared bias staggers contexts (index about 1.2, without it 0.05), but mostly not by interference.
Off policy, where the losing context is not starved of reward, 0.9 is left. If the rewarded actions of all
contexts differ nothing is left. The stagger is made by contexts that happen to share their rewarded action and
help each other: the first context is learned in half of the time, the last one only a sixth later. With five
contexts and actions the last one loses a fifth against no sharing, on policy. In the run of five contexts that
the figure shows, late contexts first fall below chance: that is interference.

*Does the measure matter?* Yes. Counted as share of the error that a mode explains, everything staggers, the
one-layer map and Bayes-like learners too, for large modes carry more error (`share_index`). Strength relative
to the mode's own size is what tells the systems apart.

**Citation.** N. C. Rabinowitz: Meta-learners' learning dynamics are unlike learners'. arXiv 1905.01320, 2019. Also
used: Saxe et al. 2013 (1312.6120); Rahaman et al. 2018 (1806.08734); Duan et al. 2016 (RL$^2$, 1611.02779); Wang et al.
2016 (1611.05763); Schaul et al. 2019 (ray interference, 1904.11455).
"""

from assay.lab import All, Arm, Claim, Difference, Effect, Level, Paper, Ratio, Study
from assay.studies.meta_learner_dynamics.config import Config

study = Study(
    number=21,
    id="meta-learner-dynamics",
    domain="optimization",
    title="Learners pick up a task in stages, meta-learners all at once",
    paper=Paper(
        title="Meta-learners' learning dynamics are unlike learners'",
        authors="Rabinowitz",
        year=2019,
        arxiv="1905.01320",
        venue="arXiv 2019",
    ),
    arms=(
        Arm("linear/meta", about="LSTM that learns 3x3 maps in its state"),
        Arm("linear/meta-2x2", about="LSTM that learns 2x2 maps in its state"),
        Arm("linear/learner", about="two-layer linear network, SGD"),
        Arm("linear/shallow", about="control: one layer, SGD"),
        Arm("linear/momentum", about="two-layer linear network, momentum"),
        Arm("linear/adam", about="two-layer linear network, Adam"),
        Arm("linear/rmsprop", about="two-layer linear network, RMSProp"),
        Arm("fourier/meta", about="LSTM that learns Fourier series in its state"),
        Arm("fourier/learner", about="ReLU network, SGD"),
        Arm("fourier/adam", about="ReLU network, Adam"),
        Arm("bandit/meta", about="LSTM that learns bandits in its state"),
        Arm("bandit/coupled", about="exact policy gradient, contexts share a bias"),
        Arm("bandit/decoupled", about="control: no shared bias"),
        Arm("bandit/offpolicy", about="control: shared bias, actions drawn uniformly"),
        Arm("bandit/reinforce", about="shared bias, sampled policy gradient"),
    ),
    config=Config(),
    profiles={
        "smoke": {
            "seeds": 1,
            "linear.size": 2,
            "linear.spectrum": (2.0, 0.4),
            "linear.steps": 60,
            "linear.small_steps": 30,
            "linear.tasks": 40,
            "linear.stage_tasks": 20,
            "learner.steps": 400,
            "learner.tasks": 8,
            "learner.aligned_tasks": 16,
            "learner.aligned_steps": 40,
            "fourier.steps": 40,
            "fourier.tasks": 40,
            "fourier.stage_tasks": 20,
            "network.steps": 200,
            "network.functions": 4,
            "bandit.updates": 20,
            "bandit.copies": 32,
            "bandit.tasks": 200,
            "bandit.stage_tasks": 50,
            "policy.tasks": 32,
            "policy.steps": 200,
        },
        "demo": {
            "seeds": 2,
            "linear.steps": 600,
            "linear.small_steps": 300,
            "fourier.steps": 500,
            "bandit.updates": 150,
            "bandit.copies": 64,
            "network.steps": 1_000,
        },
        "paper": {
            "linear.size": 5,
            "linear.spectrum": (3.6, 2.6, 1.8, 1.1, 0.5),
            "linear.steps": 100_000,
            "linear.small_steps": 50_000,
            "linear.hidden": 256,
            "linear.batch": 256,
            "linear.rate": 3e-3,
            "linear.horizon": 40,
            "linear.probes": 48,
            "learner.size": 5,
            "learner.spectrum": (3.6, 2.6, 1.8, 1.1, 0.5),
            "learner.horizon": 40,
            "learner.steps": 3_200,
            "fourier.k": 5,
            "fourier.horizon": 40,
            "fourier.hidden": 256,
            "fourier.readout": 128,
            "fourier.batch": 256,
            "fourier.rate": 3e-3,
            "fourier.steps": 100_000,
            "network.k": 5,
            "network.hidden": (256, 256, 256),
            "network.steps": 20_000,
            "bandit.contexts": 5,
            "bandit.actions": 5,
            "bandit.horizon": 100,
            "bandit.hidden": 256,
            "bandit.copies": 512,
            "bandit.rate": 3e-3,
            "bandit.updates": 50_000,
            "policy.contexts": 5,
            "policy.actions": 5,
            "policy.steps": 1_200,
        },
    },
    seeds=5,
    mechanisms={
        "two systems on the same tasks": (
            "assay.meta.sequence.SequenceMetaLearner",
            "assay.meta.sequence.meta_train",
            "arm:linear/meta",
            "arm:linear/learner",
        ),
        "linear regression tasks and per-mode curves": (
            "assay.meta.tasks.LinearTasks",
            "assay.analysis.modes.mode_strength",
            "assay.analysis.modes.saxe_curve",
        ),
        "reading the learned function from outside": (
            "assay.analysis.modes.probe_linear",
            "assay.analysis.modes.probe_fourier",
            "assay.meta.sequence.SequenceMetaLearner.state_after",
            "assay.meta.sequence.SequenceMetaLearner.predict_from",
        ),
        "nonlinear regression tasks and per-frequency curves": (
            "assay.meta.tasks.FourierTasks",
            "assay.analysis.modes.fourier_strength",
            "arm:fourier/meta",
            "arm:fourier/learner",
        ),
        "contextual bandits": (
            "assay.meta.tasks.ContextBandit",
            "assay.meta.tasks.as_gymnasium",
            "assay.meta.sequence.RecurrentPolicy",
            "assay.meta.sequence.train_policy",
            "arm:bandit/meta",
            "arm:bandit/coupled",
            "arm:bandit/decoupled",
            "arm:bandit/offpolicy",
            "arm:bandit/reinforce",
        ),
        "Bayes-optimal references": (
            "assay.meta.bayes.BayesLinear",
            "assay.meta.bayes.BayesFourier",
            "assay.meta.bayes.BayesBandit",
        ),
        "prior equal to the task distribution, and beyond it": (
            "assay.studies.meta_learner_dynamics.linear.final_errors",
            "assay.studies.meta_learner_dynamics.fourier.strengths",
        ),
        "faster as well as different": (
            "assay.studies.meta_learner_dynamics.linear.first_below",
            "assay.studies.meta_learner_dynamics.linear.aligned",
        ),
        "outer-loop dynamics": "assay.studies.meta_learner_dynamics.figures.outer_training",
        "independence of the learner's optimiser": (
            "arm:linear/momentum",
            "arm:linear/adam",
            "arm:linear/rmsprop",
            "arm:fourier/adam",
        ),
        "alternative progress metrics": (
            "assay.analysis.modes.explained_share",
            "assay.analysis.modes.subspace_overlap",
        ),
        "half times and the stagger index": (
            "assay.analysis.modes.half_time",
            "assay.analysis.modes.stagger_index",
        ),
    },
    claims=(
        Claim(
            id="learner-staggers",
            statement="A two-layer linear network learns larger modes first; a single layer does not.",
            paper="learner's strengths rise one after the other (Fig. 2); the closed form gives 1.73 at s0 = 0.001",
            test=All(
                Level("index", "linear/learner", at_least=1.0, beyond=0.5, refuted_below=0.5),
                Effect(
                    lambda cell: abs(cell["linear/shallow"]["index"]),
                    arms=("linear/shallow",),
                    at_most=0.3,
                    beyond=0.3,
                    name="|index of one layer|",
                ),
            ),
        ),
        Claim(
            id="meta-concurrent",
            statement="The meta-learner learns all modes together, unlike the learner.",
            paper="meta-learner's strengths rise together (Fig. 3)",
            test=All(
                Level("index", "linear/meta", at_most=0.5, refuted_above=1.0),
                Difference("index", "linear/learner", "linear/meta", at_least=0.8),
            ),
        ),
        Claim(
            id="matches-bayes",
            statement="The meta-learner's curves are those of Bayesian inference, far closer than the learner's.",
            paper="meta-learner and Bayes-optimal curves nearly coincide (Fig. 3)",
            test=All(
                Level("gap", "linear/meta", at_most=0.10, refuted_above=0.20),
                Ratio("gap", "linear/meta", "linear/learner", at_most=1 / 3),
            ),
        ),
        Claim(
            id="fourier-concurrent",
            statement="The same holds for frequencies: a network learns low ones first, the meta-learner all together.",
            paper="staggered learner, concurrent meta-learner (Fig. 4-5)",
            test=All(
                Level("index", "fourier/learner", at_least=0.8),
                Level("index", "fourier/meta", at_most=0.5, refuted_above=1.0),
            ),
            requires=Level("weakest", "fourier/meta", at_least=0.9),
        ),
        Claim(
            id="prior-limits",
            # An untrained network errs by this much too: it must have learned its own tasks.
            requires=Level("own_error", "linear/meta", at_most=0.05),
            statement="The meta-learner has its tasks' prior: it fails on larger targets and unseen frequencies.",
            paper="targets beyond the prior are fitted badly, frequencies outside the band suppressed (Fig. 3, 5)",
            test=All(
                Level("scaled_ratio", "linear/meta", at_least=5.0, refuted_below=2.0),
                Level("out_of_band", "fourier/meta", at_most=0.3),
            ),
        ),
        Claim(
            id="bandit-no-plateau",
            statement="Learners with shared parameters stagger over contexts, the meta-learner follows Bayes.",
            paper="plateaus in the learner, none in the meta-learner (Fig. 7)",
            test=All(
                Level("index", "bandit/coupled", at_least=1.0),
                Level("index", "bandit/decoupled", at_most=0.3),
                Level("gap", "bandit/meta", at_most=0.10, refuted_above=0.25),
            ),
        ),
    ),
    usage="""
import torch
from assay.analysis import mode_strength, probe_linear, stagger_index
from assay.meta import LinearTasks, SequenceMetaLearner, meta_train

tasks, model = LinearTasks(2, 2), SequenceMetaLearner(2, hidden=32, out_dim=2)
meta_train(model, tasks, steps=200, horizon=20)
batch = LinearTasks(2, 2, spectrum=(2.0, 0.4)).sample(100, 20)
states = [model.state_after(batch.x, batch.y, t) for t in range(21)]
maps = [probe_linear(lambda x: model.predict_from(s, x), nx=2).weight for s in states]
print(stagger_index(torch.stack([mode_strength(w, batch.weight).strength.mean(0) for w in maps], -1)))
""",
)

# Experiments and figures register themselves with the study above.
from assay.studies.meta_learner_dynamics import bandit, figures, fourier, linear  # noqa: E402, F401
