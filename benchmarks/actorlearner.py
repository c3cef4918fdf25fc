"""Actors and learners against the clock, as ratios measured in one run on one machine.

    python benchmarks/actorlearner.py

Bar: with 16 worlds that sleep a log-normal 5 ms a step, actors that run ahead collect at least twice the steps a second
of a lockstep. Also printed: the control with even waits, and the whole training loop of PPO on CartPole (environment,
roll-out, updates) against torchrl's collector and loss with the same network, batches and epochs.
"""

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from assay.envs import CartPole, as_torchrl
from assay.rl.policies import actor_critic
from assay.rl.ppo import PPO
from assay.rl.train import train
from assay.studies.impala.throughput import ThroughputConfig, decoupled, sync_step

ENVS, STEPS, EPOCHS, MINIBATCHES, WIDTH = 64, 64, 4, 4, 64


def waiting(rounds: int = 3) -> None:
    """Print the ratios on worlds that sleep."""
    for sigma, label, bar in ((1.0, "log-normal", " (bar: at least 2.0)"), (0.0, "even", "")):
        config = replace(ThroughputConfig(seconds=2.0), sigma=sigma)
        rates: dict[str, list[float]] = {"step": [], "trajectory": [], "impala": []}
        for seed in range(rounds):
            rates["step"].append(sync_step(config, seed)[0])
            rates["trajectory"].append(decoupled(config, seed, "thread", synchronous=True)[0])
            rates["impala"].append(decoupled(config, seed, "thread")[0])
        step, trajectory, impala = (statistics.median(rates[name]) for name in rates)
        print(f"{label} waits: IMPALA collects {impala / step:.2f} times the steps of a lockstep{bar}")
        print(
            f"{label} waits: {impala / trajectory:.2f} times those of synchronous unrolls ({impala:.0f} steps/s)"
        )


def ours() -> Callable[[], None]:
    """One turn of PPO by this library."""
    env = CartPole(ENVS)
    model = actor_critic(env, (WIDTH, WIDTH))
    ppo = PPO(model, torch.optim.Adam(model.parameters(), 3e-4), epochs=EPOCHS, minibatches=MINIBATCHES)
    turns = train(env, model, ppo, updates=1_000_000, steps=STEPS)
    return lambda: next(turns) and None


def torchrls() -> Callable[[], None]:
    """One turn of PPO by torchrl: its collector, advantage estimator and clipped loss, on the same world."""
    from tensordict.nn import TensorDictModule
    from torchrl.collectors import Collector
    from torchrl.modules import ProbabilisticActor, ValueOperator
    from torchrl.objectives import ClipPPOLoss
    from torchrl.objectives.value import GAE

    def body(outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(4, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, outputs)
        )

    env = as_torchrl(CartPole(ENVS))
    actor = ProbabilisticActor(
        TensorDictModule(body(2), in_keys=["observation"], out_keys=["logits"]),
        in_keys=["logits"],
        distribution_class=torch.distributions.Categorical,
        return_log_prob=True,
    )
    critic = ValueOperator(body(1), in_keys=["observation"])
    batch = ENVS * STEPS
    collector = iter(Collector(env, actor, frames_per_batch=batch, total_frames=-1))
    advantage = GAE(gamma=0.99, lmbda=0.95, value_network=critic, average_gae=True)
    loss_of = ClipPPOLoss(actor, critic, entropy_coeff=0.01)
    parameters = list(loss_of.parameters())
    optimizer = torch.optim.Adam(parameters, 3e-4)

    def turn() -> None:
        data = next(collector)
        for _ in range(EPOCHS):
            with torch.no_grad():
                advantage(data)  # as torchrl's own PPO example: anew in every epoch
            flat = data.reshape(-1)
            for part in torch.randperm(batch).chunk(MINIBATCHES):
                losses = loss_of(flat[part])
                loss = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, 0.5)
                optimizer.step()

    return turn


def against_torchrl(rounds: int = 12) -> float:
    """Environment steps a second of ours over torchrl's, the turns of both interleaved."""
    programs = {"ours": ours(), "torchrl": torchrls()}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for k in range(rounds + 2):
        for name, turn in programs.items():
            begun = time.perf_counter()
            turn()
            if k >= 2:
                seconds[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"  {name}: {ENVS * STEPS / median:.0f} environment steps a second")
    return medians["torchrl"] / medians["ours"]


def main() -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore")  # torchrl announces what it will rename
    waiting()
    print(f"PPO on {ENVS} x {STEPS} steps: {against_torchrl():.2f} times torchrl's steps a second")


if __name__ == "__main__":
    main()
