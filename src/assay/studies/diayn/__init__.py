r"""Diversity is all you need: skills learnt without any reward.

**What the paper says.** An agent can learn a repertoire of behaviours before it is given a task. A skill $z$ is drawn
when an episode begins; the policy $\pi(a \mid s, z)$ is paid for reaching states that give the skill away, and acts as
randomly as it can otherwise. On simulated robots this gave running, flipping and hopping without a reward; the skills
then served as primitives for sparse tasks, as starting points for fine-tuning, and for imitation.

**The objective** is $\mathcal F(\theta) = I(S; Z) + H[A \mid S] - I(A; Z \mid S)$. Rewritten,

$$\mathcal F(\theta) = H[Z] - H[Z \mid S] + H[A \mid S, Z]
\ge H[A \mid S, Z] + \mathbb E\big[\log q_\phi(z \mid s) - \log p(z)\big],$$

where $q_\phi$ is a discriminator trained on the same states. The pseudo-reward is $r = \log q_\phi(z \mid s') - \log
p(z)$ on the **next** state (the released code scores the present one), the prior $p(z)$ is fixed and uniform, and an
entropy bonus keeps each skill random inside. The mutual information is one **per state**: $q$ sees single states.

**How we test it.**

1. `skills/*`: a point in a box, 16 skills. Since the discriminator that paid the policy is no judge of it, a **fresh**
   one is trained afterwards on half of the trajectories and tested on the others: $\log K$ minus its cross-entropy
   bounds $I(S; Z)$ from below. Untrained skills and a policy paid nothing but entropy are the controls. `open/diayn`
   is the same without walls: do skills explore? (a panel, no claim).
2. `skills/vic`, `skills/official`: the prior is learnt instead, by exponentiated gradient on the skills' own rewards,
   or as the released code's option does it. The *effective number of skills* $e^{H[p(z)]}$ is $K$ for the uniform prior
   by definition, so the claim is tested on how many skills a fresh discriminator still recognises.
3. `corner/*`: three corners in order, one point each. A meta-controller over frozen skills, chosen anew every ten
   steps, against flat learning, against random skills, against skills that go on learning (`joint`), and against a
   control without any learning of skills: **repeating one move ten times**.
4. `car/*`: the mountain car. Some skill should climb it unrewarded. The control is a constant reward of -1: what makes
   skills climb may be that ending the episode stops the costs, not that they want to differ.
5. `subset/*`: what the discriminator sees of the state (x, y, both) decides along which axis skills differ.
6. `tune/*`: the best of the skills, trained on for one corner, against training from scratch.

**What differs from the paper.** PPO on batched worlds instead of soft actor-critic (the method does not depend on it),
small worlds, 8 or 16 skills instead of 50. The paper profile trains 50 skills of MuJoCo's half-cheetah, by PPO and, as
the paper did, by soft actor-critic (`sac/diayn`, an extra arm here; it needs `assay[torchrl]`).

**What came out, and why.** Skills become distinguishable beyond doubt: the fresh discriminator finds 2.3 of at most 2.8
nats, where untrained skills and a policy paid for entropy alone give none. Which numbers the discriminator sees does
decide where skills differ. In the box and in the open plane the skills together visit more than random actions do;
whether that is exploration is doubtful, since they stop moving apart once they can be told apart (Campos et al. 2020,
Laskin et al. 2021, Eysenbach et al. 2022).

Two readings do not survive their controls. *Frozen skills* solve most of the sparse task that flat learning does not,
but a meta-controller that merely repeats one move ten times solves all of it, in every seed: what helps is that a
decision lasts, and the skills are, if anything, in the way. And *a skill climbs the mountain unrewarded* where the
reward is $\log q$ alone: it is never positive, so ending the episode stops the costs, and a constant -1 without any
discriminator climbs as well. The skills that do so cannot be told apart at all. With $-\log p(z)$ added, skills
differ a little, and mostly stay in the valley.

*Learned priors* do sample unevenly: their effective number falls to about 9 of 16. But the skills that are drawn
seldom do not die; a fresh discriminator recognises all 16. At this scale the paper's argument for a fixed prior is a
matter of definition. Fine-tuning from the best of 16 skills starts at full success, because one of them happens to
end in the right corner.
"""

from assay.lab import All, Arm, Claim, Difference, Level, Paper, Study
from assay.studies.diayn.config import Config

PROFILES = {
    "smoke": {
        "seeds": 2,
        "skills.skills": 4,
        "skills.copies": 32,
        "skills.updates": 3,
        "skills.steps": 10,
        "skills.hidden": (16,),
        "skills.fresh_copies": 32,
        "skills.fresh_steps": 10,
        "skills.evaluations": 1,
        "subset.skills.skills": 4,
        "subset.skills.copies": 32,
        "subset.skills.updates": 2,
        "subset.skills.steps": 10,
        "subset.skills.fresh_copies": 32,
        "subset.skills.fresh_steps": 10,
        "corner.skills.skills": 4,
        "corner.skills.copies": 32,
        "corner.skills.updates": 2,
        "corner.skills.steps": 10,
        "corner.copies": 32,
        "corner.horizon": 20,
        "corner.env_steps": 1_300,
        "corner.tune_steps": 700,
        "corner.tune_horizon": 10,
        "car.skills.skills": 4,
        "car.skills.copies": 16,
        "car.skills.updates": 2,
        "car.skills.steps": 10,
        "car.skills.fresh_copies": 16,
        "car.skills.fresh_steps": 10,
        "soft.skills": 4,
        "soft.env_steps": 640,
        "soft.warmup": 160,
        "soft.hidden": (16,),
        "soft.fresh_copies": 32,
        "soft.fresh_steps": 10,
        "soft.evaluations": 1,
    },
    "demo": {
        "seeds": 2,
        "arms": ("skills/diayn", "skills/random", "subset/x", "subset/y"),
        "skills.updates": 40,
        "subset.skills.updates": 20,
    },
    "paper": {
        "arms": ("sac/diayn", "skills/diayn", "skills/entropy", "skills/vic", "skills/official"),
        "skills.world": "HalfCheetah-v5",
        "skills.skills": 50,
        "skills.copies": 16,
        "skills.steps": 1000,
        "skills.updates": 10_000,
        "skills.hidden": (300, 300),
        "skills.act": "relu",
        "skills.rate": 3e-4,
        "skills.entropy": 0.1,
        "skills.fresh_copies": 200,
        "skills.fresh_steps": 2_000,
        "skills.evaluations": 20,
        "soft.world": "HalfCheetah-v5",
        "soft.skills": 50,
        "soft.steps": 1000,
        "soft.env_steps": 10_000_000,
        "soft.warmup": 10_000,
        "soft.updates_per_step": 1.0,
        "soft.hidden": (300, 300),
        "soft.rate": 3e-4,
        "soft.capacity": 10_000_000,
        "soft.fresh_copies": 200,
        "soft.fresh_steps": 2_000,
        "soft.evaluations": 20,
    },
}

study = Study(
    number=28,
    id="diayn",
    domain="exploration",
    title="Diversity Is All You Need",
    paper=Paper(
        title="Diversity is All You Need: Learning Skills without a Reward Function",
        authors="Eysenbach et al.",
        year=2019,
        arxiv="1802.06070",
    ),
    arms=(
        Arm("skills/diayn", "uniform prior, reward log q(z | s') - log p(z)"),
        Arm("skills/random", "the same policy as initialised"),
        Arm("skills/entropy", "reward 0: the entropy bonus alone"),
        Arm("skills/vic", "prior learnt by exponentiated gradient on each skill's reward"),
        Arm("skills/official", "prior proportional to exp(mean log q), the released code's option"),
        Arm("open/diayn", "the plane without walls"),
        Arm("corner/meta", "meta-controller over frozen skills, ten steps a choice"),
        Arm("corner/flat", "PPO on single moves"),
        Arm("corner/random-skills", "meta-controller over skills as initialised"),
        Arm("corner/repeat", "meta-controller that repeats one move ten times: no skills at all"),
        Arm("corner/joint", "meta-controller and skills both trained on the task"),
        Arm("tune/skill", "the skill that does best, trained on for one corner"),
        Arm("tune/scratch", "the same from random weights"),
        Arm("car/with-logp", "reward log q + log K, never negative on average"),
        Arm("car/no-logp", "reward log q alone, as the released mountain-car configuration"),
        Arm("car/constant", "reward -1 a step, no discriminator"),
        Arm("car/init", "the policy as initialised"),
        Arm("subset/x", "the discriminator sees x"),
        Arm("subset/y", "the discriminator sees y"),
        Arm("subset/xy", "the discriminator sees both"),
        Arm("sac/diayn", "soft actor-critic, as in the paper, instead of PPO", seeds=3, extra=True),
    ),
    config=Config(),
    profiles=PROFILES,
    seeds=6,
    mechanisms={
        "skill drawn at the start of an episode from a fixed uniform prior and held": "assay.envs.wrappers.AppendSkill",
        "discriminator and pseudo-reward": ("assay.rl.intrinsic.skills.DIAYNReward", "arm:skills/diayn"),
        "entropy-regularised policy": "arm:skills/entropy",
        "what the discriminator sees": "arm:subset/x",
        "learned prior, two kinds": (
            "assay.rl.intrinsic.skills.SkillPrior",
            "arm:skills/vic",
            "arm:skills/official",
        ),
        "meta-controller over frozen skills": ("assay.rl.intrinsic.skills.MetaController", "arm:corner/meta"),
        "joint training of sub-policies and their choice": "arm:corner/joint",
        "control: repeating a move": ("assay.rl.intrinsic.skills.primitive_skills", "arm:corner/repeat"),
        "fine-tuning from the best skill": ("assay.rl.intrinsic.skills.SkillPolicy", "arm:tune/skill"),
        "imitation: the skill that a state sequence looks like": "arm:skills/diayn",
        "skills that solve a task without its reward": "arm:car/no-logp",
        "fresh-discriminator measures": "assay.rl.intrinsic.skills.measure_skills",
        "skills around somebody's Gymnasium environment": "assay.rl.intrinsic.skills.skill_wrapper",
    },
    claims=(
        Claim(
            id="skills-become-distinguishable",
            statement="Trained without reward, skills visit states from which the skill can be inferred.",
            paper="skills cluster in the plane; discriminability rises during training (Fig. 2)",
            test=Difference(
                "mi", arm="skills/diayn", versus="skills/random", at_least=1.0, refuted_below=0.5
            ),
        ),
        Claim(
            id="uniform-prior-keeps-skills-alive",
            statement="A fixed uniform prior does not abandon skills; one learnt from their rewards does.",
            paper="learned priors sample only a handful of skills (Fig. 4, section 4.2)",
            test=Difference("alive", arm="skills/diayn", versus="skills/vic", at_least=2.0),
        ),
        Claim(
            id="frozen-skills-speed-up-sparse-task",
            statement="A meta-controller over frozen skills solves a sparse task that flat learning does not.",
            paper="hierarchical DIAYN alone solves cheetah-hurdle and ant-navigation (Fig. 8)",
            test=Difference("return", arm="corner/meta", versus="corner/flat", at_least=1.0),
        ),
        Claim(
            id="skills-beat-action-repeat",
            statement="The gain comes from the skills, not merely from decisions that last ten steps.",
            paper="not tested in the paper (our control for Fig. 8)",
            test=Difference("return", arm="corner/meta", versus="corner/repeat", at_least=0.2),
        ),
        Claim(
            id="solves-task-without-reward",
            statement="Some skill climbs the mountain car's hill although nothing rewards it, because skills differ.",
            paper="some skills solve mountain car and inverted pendulum (Fig. 3)",
            test=All(
                Difference("best_success", arm="car/no-logp", versus="car/constant", at_least=0.1),
                Level("mi", arm="car/no-logp", at_least=0.5),
            ),
        ),
        Claim(
            id="discriminator-subset-shapes-skills",
            statement="What the discriminator sees decides along which axis skills differ.",
            paper="a centre-of-mass prior makes the ant move in different directions (Fig. 6)",
            test=Difference("x_share", arm="subset/x", versus="subset/y", at_least=0.4, refuted_below=0.1),
        ),
    ),
    usage="""\
import torch
from assay.envs import AppendSkill, PointBox
from assay.rl.intrinsic.skills import DIAYNReward
from assay.rl.rollout import random_rollout
rollout = random_rollout(AppendSkill(PointBox(32), 8), 30, info=("skill",))
print(DIAYNReward(obs_dim=2, num_skills=8).reward(rollout).shape)  # log q(z | s') - log p(z), [30, 32]""",
)

from assay.studies.diayn import car, corner, figures, skills, soft  # noqa: E402

__all__ = ["Config", "car", "corner", "figures", "skills", "soft", "study"]
