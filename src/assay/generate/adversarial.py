r"""Generative adversarial training: the losses, and a step of two optimisers that keeps their gradients
apart.

Two networks share one graph, and two mistakes are common: the discriminator's step sends gradients into the
generator (costly, and wrong where they are not zeroed), and the generator's step leaves gradients on the
discriminator that its next step then uses. `discriminator_step` detaches the fakes; `generator_step` freezes
the discriminator while it differentiates through it. `AdversarialTrainer` puts the two together.

With logits $r = D(x)$ of real and $f = D(G(z))$ of generated samples, and $s$ the softplus:

| name | discriminator | generator |
| --- | --- | --- |
| nonsaturating | $s(-r) + s(f)$ | $s(-f)$ |
| minimax | $s(-r) + s(f)$ | $-s(f)$ |
| hinge | $\max(0, 1-r) + \max(0, 1+f)$ | $-f$ |
| wasserstein | $f - r$ | $-f$ |
| least_squares | $(r-1)^2/2 + f^2/2$ | $(f-1)^2/2$ |

(means over the batch). Sources: Goodfellow et al. 2014 (arXiv 1406.2661; the first two), Lim and Ye 2017
(1705.02894), Arjovsky et al. 2017 (1701.07875), Mao et al. 2017 (1611.04076).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

Loss = Literal["nonsaturating", "minimax", "hinge", "wasserstein", "least_squares"]

_DISCRIMINATOR: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "nonsaturating": lambda r, f: softplus(-r).mean() + softplus(f).mean(),
    "minimax": lambda r, f: softplus(-r).mean() + softplus(f).mean(),
    "hinge": lambda r, f: relu(1 - r).mean() + relu(1 + f).mean(),
    "wasserstein": lambda r, f: f.mean() - r.mean(),
    "least_squares": lambda r, f: 0.5 * ((r - 1).square().mean() + f.square().mean()),
}
_GENERATOR: dict[str, Callable[[Tensor], Tensor]] = {
    "nonsaturating": lambda f: softplus(-f).mean(),
    "minimax": lambda f: -softplus(f).mean(),
    "hinge": lambda f: -f.mean(),
    "wasserstein": lambda f: -f.mean(),
    "least_squares": lambda f: 0.5 * (f - 1).square().mean(),
}


def _known(loss: str) -> str:
    if loss not in _GENERATOR:
        raise ValueError(f"unknown loss {loss!r}: choose from {', '.join(_GENERATOR)}")
    return loss


def discriminator_loss(
    real: Float[Tensor, "..."], fake: Float[Tensor, "..."], loss: Loss = "nonsaturating"
) -> Float[Tensor, ""]:
    """What the discriminator minimises, from its logits of real and of generated samples (any shapes; means).

    >>> discriminator_loss(torch.tensor([2.0]), torch.tensor([-3.0]), "hinge")
    tensor(0.)
    """
    return _DISCRIMINATOR[_known(loss)](real, fake)


def generator_loss(fake: Float[Tensor, "..."], loss: Loss = "nonsaturating") -> Float[Tensor, ""]:
    """What the generator minimises, from the discriminator's logits of generated samples (any shape;
    mean)."""
    return _GENERATOR[_known(loss)](fake)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Inside, the modules' parameters take no gradient (gradients still pass through to the inputs).

    >>> net = nn.Linear(2, 1)
    >>> x = torch.ones(1, 2, requires_grad=True)
    >>> with frozen(net):
    ...     net(x).sum().backward()
    >>> net.weight.grad is None, x.grad is not None
    (True, True)
    """
    held = [p for module in modules for p in module.parameters() if p.requires_grad]
    for p in held:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in held:
            p.requires_grad_(True)


def discriminator_step(
    optimizer: torch.optim.Optimizer,
    logits: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    loss: Loss = "nonsaturating",
    penalty: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, "..."], Float[Tensor, "..."]]:
    """One step of the discriminator on detached fakes: nothing reaches the generator.

    Args:
        optimizer: of the discriminator.
        logits: the discriminator; close over a condition where there is one.
        real, fake: samples; `fake` may carry a graph, which is cut here.
        loss: see the table above.
        penalty: a further term from (real, detached fake), for instance a gradient penalty.

    Returns:
        The loss and the logits of real and fake, all detached.
    """
    fake = fake.detach()
    optimizer.zero_grad(set_to_none=True)
    r, f = logits(real), logits(fake)
    value = discriminator_loss(r, f, loss)
    if penalty is not None:
        value = value + penalty(real, fake)
    value.backward()
    optimizer.step()
    return value.detach(), r.detach(), f.detach()


def generator_step(
    optimizer: torch.optim.Optimizer,
    discriminator: nn.Module,
    logits: Callable[[Tensor], Tensor],
    fake: Tensor,
    loss: Loss = "nonsaturating",
    extra: Tensor | None = None,
) -> Float[Tensor, ""]:
    """One step of the generator through a frozen discriminator: no gradient is left on the latter.

    Args:
        optimizer: of the generator (and whatever else minimises this loss).
        discriminator: the module to freeze.
        logits: usually the same module; close over a condition where there is one.
        fake: samples with their graph.
        loss: see the table above.
        extra: further terms to add (reconstruction, information, matching).
    """
    optimizer.zero_grad(set_to_none=True)
    with frozen(discriminator):
        value = generator_loss(logits(fake), loss)
    if extra is not None:
        value = value + extra
    value.backward()
    optimizer.step()
    return value.detach()


class AdversarialLosses(NamedTuple):
    """What one step reports: scalars, detached, not synchronised."""

    discriminator: Tensor
    generator: Tensor
    real_logit: Tensor
    """Mean logit of real samples."""
    fake_logit: Tensor
    """Mean logit of generated samples, before the step."""


@dataclass
class AdversarialTrainer:
    """Alternating steps of an unconditional GAN; for anything else, compose the two step functions yourself.

    Each step draws fresh fakes for every discriminator step and for the generator step.

    Args:
        generator: latents to samples.
        discriminator: samples to logits.
        generator_optimizer, discriminator_optimizer: one each, over the parameters of their own network only.
        loss: see the table above.
        discriminator_steps: for each generator step.
        penalty: added to the discriminator's loss, from (real, fake).

    >>> g, d = nn.Linear(2, 3), nn.Linear(3, 1)
    >>> adam = torch.optim.Adam
    >>> trainer = AdversarialTrainer(g, d, adam(g.parameters()), adam(d.parameters()))
    >>> trainer.step(torch.randn(8, 3), lambda: torch.randn(8, 2)).generator.shape
    torch.Size([])
    """

    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer
    loss: Loss = "nonsaturating"
    discriminator_steps: int = 1
    penalty: Callable[[Tensor, Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        _known(self.loss)
        if self.discriminator_steps < 1:
            raise ValueError(f"discriminator_steps must be at least 1: got {self.discriminator_steps}")
        mine, other = ({id(p) for p in m.parameters()} for m in (self.generator, self.discriminator))
        for name, optimizer, wrong in (
            ("generator_optimizer", self.generator_optimizer, other - mine),
            ("discriminator_optimizer", self.discriminator_optimizer, mine - other),
        ):
            if any(id(p) in wrong for group in optimizer.param_groups for p in group["params"]):
                raise ValueError(f"{name} holds parameters of the other network: give each optimiser its own")

    def step(self, real: Tensor | Callable[[], Tensor], latent: Callable[[], Tensor]) -> AdversarialLosses:
        """Discriminator step(s), then a generator step.

        Args:
            real: a batch, or a function that draws one (needed where `discriminator_steps > 1` should see
                several).
            latent: draws a batch of latents.
        """
        for _ in range(self.discriminator_steps):
            with torch.no_grad():
                fake = self.generator(latent())
            batch = real() if callable(real) else real
            d_loss, r, f = discriminator_step(
                self.discriminator_optimizer, self.discriminator, batch, fake, self.loss, self.penalty
            )
        g_loss = generator_step(
            self.generator_optimizer,
            self.discriminator,
            self.discriminator,
            self.generator(latent()),
            self.loss,
        )
        return AdversarialLosses(d_loss, g_loss, r.mean(), f.mean())
