"""What curiosity costs inside PPO, as ratios measured in one run on one machine.

    python benchmarks/curiosity.py

Bar: a full curiosity step (features, forward model and PPO) in random features takes at most 2.0 times as long as
plain PPO, for the same steps of the side-scroller. Timed are `ForwardDynamics` as the library has it, in all feature
spaces, and the thrifty form that the study uses. (MiniBreakout's own bar is in arcade.py.)
"""

import torch
from _timing import interleaved

from assay.envs import NoDone, SideScroller
from assay.rl.intrinsic import ActionCode, ForwardDynamics, IntrinsicMixer, make_features
from assay.rl.normalize import ReturnNormalizer
from assay.rl.policies import actor_critic
from assay.rl.ppo import PPO
from assay.rl.train import train
from assay.studies.curiosity_features.agents import Thrifty

KINDS = {"pixels": "pixels", "rf": "random", "idf": "inverse", "vae": "vae"}


def learn(
    kind: str, model: type[ForwardDynamics] = ForwardDynamics, updates: int = 4, copies: int = 64
) -> None:
    """Some updates of PPO in the side-scroller, with curiosity in this space ("ppo": without)."""
    g = torch.Generator().manual_seed(0)
    env = NoDone(SideScroller(copies, max_steps=200, generator=g, validate=False))
    mixer = None
    if kind != "ppo":
        code = ActionCode.of(env)
        size = 16 if kind == "vae" else 64
        features = make_features(KINDS[kind], env.obs_shape, size, 64, code, generator=g, scalar_std=True)
        bonus = model(features, code, hidden=64, blocks=1, generator=g)
        bonus.init_stats(env, 2, g)
        assert features.obs_norm is not None
        features.obs_norm.freeze()
        mixer = IntrinsicMixer([bonus], extrinsic=False, normalizers=[ReturnNormalizer(0.99, copies)])
    policy = actor_critic(env, generator=g)
    parameters = [*policy.parameters(), *(mixer.parameters() if mixer else ())]
    ppo = PPO(
        policy,
        torch.optim.Adam(parameters, 1e-3, fused=True),
        epochs=3,
        aux_losses=[mixer.loss] if mixer else [],
        max_grad_norm=None,
    )
    for _ in train(env, policy, ppo, updates, 64, mixer, g):
        pass


def main() -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    programs = {"ppo": lambda: learn("ppo"), "thrifty": lambda: learn("rf", Thrifty)}
    programs |= {kind: (lambda kind=kind: learn(kind)) for kind in KINDS}
    interleaved(programs, 1)
    seconds = interleaved(programs, 7)
    rate = 4 * 64 * 64 / seconds["ppo"]
    print(f"PPO alone: {rate:,.0f} environment steps a second, learning included")
    print(
        f"curiosity in random features: {seconds['rf'] / seconds['ppo']:.2f} times as long (bar: at most 2.0)"
    )
    print(f"the study's thrifty form: {seconds['thrifty'] / seconds['ppo']:.2f} times")
    for kind in ("pixels", "idf", "vae"):
        print(f"in {KINDS[kind]} features: {seconds[kind] / seconds['ppo']:.2f} times")


if __name__ == "__main__":
    main()
