"""What random network distillation costs inside PPO, as ratios measured in one run on one machine.

    python benchmarks/rnd.py

Bar: training with RND takes at most 1.5 times as long as PPO alone, for the same steps in RoomsGrid.
"""

import torch
from _timing import interleaved

from assay.envs import RoomsGrid
from assay.rl.intrinsic import ActionCode, ForwardDynamics, IntrinsicMixer, make_features, make_rnd
from assay.rl.normalize import ReturnNormalizer
from assay.rl.policies import actor_critic
from assay.rl.ppo import PPO
from assay.rl.train import train


def learn(kind: str, updates: int = 4, copies: int = 64, steps: int = 64) -> None:
    """Some updates of PPO in sixteen rooms, with a bonus of this kind ("ppo": none)."""
    g = torch.Generator().manual_seed(0)
    env = RoomsGrid(copies, 4, max_steps=200, generator=g, validate=False)
    mixer = None
    if kind != "ppo":
        if kind == "rnd":
            bonus = make_rnd(env.obs_shape, 32, 64, 1, update_fraction=0.5, generator=g)
        else:
            features = make_features("random", env.obs_shape, 32, 64, generator=g)
            bonus = ForwardDynamics(features, ActionCode.of(env), hidden=64, blocks=1, generator=g)
        bonus.init_stats(env, 2, g)
        mixer = IntrinsicMixer([bonus], normalizers=[ReturnNormalizer(0.99, copies)])
    model = actor_critic(env, streams=2 if mixer else 1, generator=g)
    parameters = [*model.parameters(), *(mixer.parameters() if mixer else ())]
    ppo = PPO(model, torch.optim.Adam(parameters, 1e-3), aux_losses=[mixer.loss] if mixer else [])
    for _ in train(env, model, ppo, updates, steps, mixer, g):
        pass


def main() -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    programs = {kind: (lambda kind=kind: learn(kind)) for kind in ("ppo", "rnd", "dynamics")}
    interleaved(programs, 1)
    seconds = interleaved(programs, 9)
    rate = 4 * 64 * 64 / seconds["ppo"]
    print(f"PPO alone: {rate:,.0f} environment steps a second, learning included")
    print(f"PPO with RND takes {seconds['rnd'] / seconds['ppo']:.2f} times as long (bar: at most 1.5)")
    print(f"PPO with a forward model in random features: {seconds['dynamics'] / seconds['ppo']:.2f} times")


if __name__ == "__main__":
    main()
