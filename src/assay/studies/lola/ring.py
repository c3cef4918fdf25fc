"""A small GAN as a two-player game: eight Gaussians on a ring (Metz et al. 2016). All seeds are stacked."""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from assay.lab import Batch
from assay.optim.opponent import opponent_shaping_grad, unrolled_grad
from assay.studies.lola import study
from assay.studies.lola.config import RingConfig
from assay.studies.lola.exact import Pairs

Network = list[Tensor]  # weight, bias, weight, bias, ... with a leading axis of pairs
SPREAD = 0.05


def network(sizes: tuple[int, ...], generators: list[torch.Generator]) -> Network:
    params: Network = []
    for fan_in, fan_out in pairwise(sizes):
        weight = torch.stack([draw_noise(fan_in, fan_out, g) for g in generators]) * math.sqrt(2 / fan_in)
        params += [weight, weight.new_zeros(len(generators), 1, fan_out)]
    return params


def forward(params: Network, x: Tensor) -> Tensor:
    """``[pairs, batch, in] -> [pairs, batch, out]``."""
    for i in range(0, len(params), 2):
        x = torch.baddbmm(params[i + 1], x, params[i])
        if i + 2 < len(params):
            x = torch.tanh(x)  # smooth: the corrections differentiate twice
    return x


def centres() -> Tensor:
    angle = torch.arange(8) * (2 * math.pi / 8)
    return torch.stack([angle.cos(), angle.sin()], -1)


@study.batch("ring/*", config="ring")
def ring(run: Batch, pairs: Pairs, config: RingConfig) -> Iterator[dict[str, float]]:
    """Generator and discriminator as the two players; the outer step is Adam for every arm."""
    kind = pairs[0][0].partition("/")[2]
    generators = [run.generator("ring", seed) for _, seed in pairs]
    gen = network((config.noise, config.hidden, config.hidden, 2), generators)
    dis = network((2, config.hidden, config.hidden, 1), generators)
    players = [torch.nn.Parameter(p) for p in (*gen, *dis)]
    gen, dis = players[: len(gen)], players[len(gen) :]
    optimizer = torch.optim.Adam(players, lr=config.rate, betas=(0.5, 0.999))
    places = centres().to(run.device)
    for step in run.steps(config.steps):
        z = torch.stack([draw_noise(config.batch, config.noise, g) for g in generators])
        real = torch.stack([draw_real(places, config.batch, g) for g in generators])

        def losses(g: Network, d: Network, z: Tensor = z, real: Tensor = real) -> tuple[Tensor, Tensor]:
            fake, true = forward(d, forward(g, z)), forward(d, real)
            cheat = functional.softplus(-fake).mean((1, 2))
            catch = functional.softplus(fake).mean((1, 2)) + functional.softplus(-true).mean((1, 2))
            return cheat, catch

        if kind.startswith("unrolled"):
            # Metz et al.: only the generator looks ahead.
            grads = unrolled_grad(losses, gen, dis, config.look_ahead, (config.unrolled, 0))
        else:
            grads = opponent_shaping_grad(losses, gen, dis, config.look_ahead, kind)
        for p, g in zip(players, (*grads[0], *grads[1]), strict=True):
            p.grad = g
        optimizer.step()
        if step % 50 == 0 or step == config.steps - 1:
            with torch.no_grad():
                found, _ = covered(forward(gen, z), places)
            for (arm, seed), value in zip(pairs, found.tolist(), strict=True):
                run.log(step, arm=arm, seed=seed, modes=value)
    with torch.no_grad():
        z = torch.stack([draw_noise(config.samples, config.noise, g) for g in generators])
        fake = forward(gen, z)
        found, good = covered(fake, places)
    for k, (arm, seed) in enumerate(pairs):
        run.save("samples", {"points": fake[k, :400].half()}, arm=arm, seed=seed)
        yield {"modes": float(found[k]), "on_a_mode": round(float(good[k]), 5)}


def draw_real(places: Tensor, n: int, generator: torch.Generator) -> Tensor:
    which = torch.randint(8, (n,), generator=generator, device=generator.device)
    return places[which] + SPREAD * draw_noise(n, 2, generator)


def draw_noise(n: int, width: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, width, generator=generator, device=generator.device)


def covered(points: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Modes that hold at least 2 % of the samples within 4 standard deviations, and the share of such samples."""
    distance = torch.cdist(points, places.expand(points.shape[0], -1, -1))
    near, which = distance.min(-1)
    good = near < 4 * SPREAD
    share = (functional.one_hot(which, 8) * good.unsqueeze(-1)).float().mean(1)
    return (share >= 0.02).sum(-1).float(), good.float().mean(-1)
