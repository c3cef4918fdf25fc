"""Episodic curiosity's bonus for all copies at once against a loop over copies that repeats each observation.

Bar of the contract: 10 times (64 copies, memories of 200, 32 features); cost linear in the memory.
"""

import torch
from _timing import interleaved

from assay.rl.intrinsic.episodic import EpisodicCuriosity, RNetwork, aggregate_similarity

COPIES, FEATURES = 64, 32


def main() -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    net = RNetwork.mlp(FEATURES, FEATURES).eval()
    obs, going = torch.randn(COPIES, FEATURES), torch.zeros(COPIES, dtype=torch.bool)

    def full(capacity: int) -> EpisodicCuriosity:
        curiosity = EpisodicCuriosity(net, COPIES, capacity, novelty_threshold=2.0)  # nothing is ever added
        curiosity.memory.entries.normal_()
        curiosity.memory.count.fill_(capacity)
        return curiosity

    batched, twice = full(200), full(400)
    memories = [torch.randn(200, FEATURES) for _ in range(COPIES)]

    @torch.no_grad()
    def loop() -> None:
        for one, memory in zip(obs, memories, strict=True):
            # As the released code: the observation repeated to the memory's length, both embedded halves compared.
            repeated = net.embed(one[None]).expand(len(memory), -1)
            similarity = net.compare(repeated, memory)
            aggregate_similarity(similarity[None], torch.ones(1, len(memory), dtype=torch.bool))

    times = interleaved(
        {"batched": lambda: batched.step(obs, going), "loop": loop, "twice": lambda: twice.step(obs, going)},
        30,
    )
    print(f"loop / batched: {times['loop'] / times['batched']:.1f} (bar 10)")
    print(f"memory 400 / 200: {times['twice'] / times['batched']:.2f} (linear: 2)")


if __name__ == "__main__":
    main()
