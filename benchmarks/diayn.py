"""The loop of skill learning on a batched world against the same loop on Gymnasium's, in environment steps a second.

Bar of the contract: 20 times or more (256 copies of PointBox; 16 of MountainCarContinuous-v0 in a sync vector).
"""

import time

import torch

from assay.envs import AppendSkill, PointBox, from_gymnasium
from assay.rl.intrinsic import IntrinsicMixer
from assay.rl.intrinsic.skills import DIAYNReward
from assay.rl.policies import actor_critic
from assay.rl.ppo import PPO
from assay.rl.train import train


def rate(env: AppendSkill, steps: int, updates: int) -> float:
    """Environment steps a second of the whole loop."""
    dim = env.env.obs_shape[0]
    model = actor_critic(env)
    mixer = IntrinsicMixer([DIAYNReward(dim, env.num_skills)], extrinsic=False)
    optimizer = torch.optim.Adam([*model.parameters(), *mixer.parameters()], 2e-3)
    ppo = PPO(model, optimizer, aux_losses=[mixer.loss])
    began = 0.0
    for update in train(env, model, ppo, updates + 1, steps, mixer, info=("skill",)):
        if update.index == 0:  # the first warms up
            began = time.perf_counter()
    return updates * steps * env.num_envs / (time.perf_counter() - began)


def main() -> None:
    """Print both rates and their ratio."""
    torch.set_num_threads(1)
    batched = rate(AppendSkill(PointBox(256, validate=False), 16), 30, 10)
    gymnasium = rate(AppendSkill(from_gymnasium("MountainCarContinuous-v0", 16), 16), 30, 10)
    print(
        f"batched {batched:,.0f} steps/s, Gymnasium {gymnasium:,.0f}: ratio {batched / gymnasium:.1f} (bar 20)"
    )


if __name__ == "__main__":
    main()
