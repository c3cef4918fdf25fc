"""Generation: do coordinates make a GAN (and a VAE) cover more of the places where an object can be?"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from assay.analysis.coverage import nearest_template, position_coverage
from assay.data.images import image_folder
from assay.data.shapes import NotSoClevr, sort_of_clevr
from assay.generate.adversarial import AdversarialTrainer
from assay.lab import Trial
from assay.nn.coords import AddCoords
from assay.nn.painters import CoordPainter, DeconvPainter
from assay.studies.coordconv.common import Stopwatch, batches, build, checkpoints, parameters


@dataclass(frozen=True)
class GanConfig:
    """The data are `square` (one square, every place known), `clevr` (scenes of two objects) or a folder of images."""

    data: str = "square"
    images: int = 50_000  # scenes or at most so many pictures; the squares are all there are
    canvas: int = 16
    radius: int = 2
    latent: int = 32
    widths: tuple[int, ...] = (64, 32, 32)  # 1x1 layers of the CoordConv generator
    refine: tuple[int, ...] = ()  # its 3x3 layers
    deconv_filter: int = 4
    deconv_multiplier: int = 1
    channels: int = 16  # of the discriminator's first layer
    coord_rates: tuple[float, float] = (3e-3, 3e-4)  # generator, discriminator
    deconv_rates: tuple[float, float] = (2e-3, 2e-4)
    beta1: float = 0.5
    batch: int = 32
    steps: int = 1_000
    samples: int = 2_000
    tolerance: float = 0.01  # mean squared difference to the nearest template
    evaluations: int = 10


class Discriminator(nn.Module):
    """Stride-2 convolutions down to 2x2, batch norm in all but the first, and a dense layer (DCGAN).

    With `coords` there are coordinate channels in front.
    """

    def __init__(self, canvas: int, in_channels: int, channels: int, coords: bool):
        super().__init__()
        layers: list[nn.Module] = [AddCoords()] if coords else []
        width = in_channels + (2 if coords else 0)
        stages = canvas.bit_length() - 2
        for stage in range(stages):
            out = channels * 2**stage
            layers.append(nn.Conv2d(width, out, 4, stride=2, padding=1))
            layers += [nn.BatchNorm2d(out), nn.LeakyReLU(0.2)] if stage else [nn.LeakyReLU(0.2)]
            width = out
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """One logit an image."""
        return self.layers(x)


class Squashed(nn.Module):
    """A painter whose canvas is between 0 and 1."""

    def __init__(self, painter: nn.Module):
        super().__init__()
        self.painter = painter

    def forward(self, z: Tensor) -> Tensor:
        """Latents to images."""
        return self.painter(z).sigmoid()


def generator(name: str, channels: int, config: GanConfig) -> nn.Module:
    """The all-1x1 CoordConv painter, or the transposed convolutions with or without coordinates at every stage."""
    if name in ("coordconv", "coordconv-g"):
        painter: nn.Module = CoordPainter(
            config.canvas, config.latent, config.widths, channels, config.refine, batch_norm=True
        )
    else:
        coords = name in ("deconv-g", "deconv-both")
        painter = DeconvPainter(
            config.canvas, config.deconv_filter, config.deconv_multiplier, config.latent, channels, coords
        )
    return Squashed(painter)


def data_of(run: Trial, config: GanConfig) -> tuple[Tensor, list[tuple[int, Tensor]]]:
    """Training images, and for each object (channel, all its possible pictures): empty where places are not known."""
    if config.data == "square":
        images = NotSoClevr(config.canvas, config.radius).image
        return images, [(0, images)]
    if config.data == "clevr":
        scenes = sort_of_clevr(
            config.images, 2, config.canvas, config.radius, run.generator("scenes", device="cpu")
        )
        squares = NotSoClevr(config.canvas, config.radius).image
        offset = torch.arange(config.canvas) - config.canvas // 2
        disc = (offset.square()[:, None] + offset.square() <= config.radius**2).float()
        centre = NotSoClevr(config.canvas, config.radius).xy.long() - config.canvas // 2
        discs = torch.stack([disc.roll((y, x), (0, 1)) for x, y in centre.tolist()])[:, None]
        shapes = torch.cat([squares, discs])
        return scenes.images, [(0, shapes), (2, shapes)]  # the first object is red, the second blue
    return image_folder(config.data, config.canvas, config.images).images, []


def coverage(samples: Tensor, objects: list[tuple[int, Tensor]], tolerance: float) -> dict[str, float]:
    """Coverage of the places of each object, averaged over objects."""
    found = [position_coverage(samples[:, c : c + 1], shapes, tolerance) for c, shapes in objects]
    return {name: sum(one[name] for one in found) / len(found) for name in found[0]} if found else {}


def adversarial(run: Trial, arm: str, config: GanConfig) -> dict[str, float]:
    """One GAN; the share of valid samples, the places they cover, and the entropy over places in nats."""
    name = arm.removeprefix("gan/")
    images, objects = data_of(run, config)
    images, objects = images.to(run.device), [(c, shapes.to(run.device)) for c, shapes in objects]
    channels = images.shape[1]
    g = build(run, lambda: generator(name, channels, config), "generator")
    seen = name in ("coordconv", "deconv-d", "deconv-both")
    d = build(run, lambda: Discriminator(config.canvas, channels, config.channels, seen), "discriminator")
    rates = config.coord_rates if name.startswith("coordconv") else config.deconv_rates
    g_adam, d_adam = (
        torch.optim.Adam(net.parameters(), rate, betas=(config.beta1, 0.999))
        for net, rate in zip((g, d), rates, strict=True)
    )
    trainer = AdversarialTrainer(g, d, g_adam, d_adam)
    noise = run.generator("noise")
    draw = batches(torch.arange(len(images)), config.batch, run.generator("batches", device="cpu"))
    fixed = torch.randn(config.samples, config.latent, generator=run.generator("samples"), device=run.device)

    def latent() -> Tensor:
        return torch.randn(config.batch, config.latent, generator=noise, device=run.device)

    def samples() -> Tensor:
        g.eval()
        with torch.no_grad():
            made = torch.cat([g(part) for part in fixed.split(250)])
        g.train()
        return made

    look, watch = checkpoints(config.steps, config.evaluations), Stopwatch()
    for step in run.steps(config.steps):
        with watch:
            losses = trainer.step(images[next(draw)], latent)
        if step in look:
            run.log(
                step + 1,
                seconds=watch.seconds,
                **losses._asdict(),
                **coverage(samples(), objects, config.tolerance),
            )
    return report(run, samples(), objects, config) | {"parameters": parameters(g)}


def report(
    run: Trial, made: Tensor, objects: list[tuple[int, Tensor]], config: GanConfig
) -> dict[str, float]:
    """Saves pictures and the counts of places; returns the coverage."""
    run.save("samples", made[:16].half())
    for k, (channel, shapes) in enumerate(objects):
        index, distance = nearest_template(made[:, channel : channel + 1], shapes)
        centres = NotSoClevr(config.canvas, config.radius)
        places = torch.bincount(index[distance <= config.tolerance] % len(centres), minlength=len(centres))
        side = math.isqrt(len(centres))
        run.save(f"places-{k}", places.reshape(side, side))
    return coverage(made, objects, config.tolerance)


@dataclass(frozen=True)
class VaeConfig:
    canvas: int = 16
    radius: int = 2
    latent: int = 8
    widths: tuple[int, ...] = (64, 64, 32)
    deconv_filter: int = 4
    rate: float = 3e-3
    batch: int = 64
    steps: int = 800
    samples: int = 2_000
    tolerance: float = 0.01
    evaluations: int = 10


class Encoder(nn.Module):
    """Stride-2 convolutions to the mean and log variance of a Gaussian; coordinates in front if asked for."""

    def __init__(self, canvas: int, latent: int, coords: bool):
        super().__init__()
        stages = canvas.bit_length() - 2
        widths = [3 if coords else 1, *(32 * 2**k for k in range(stages))]
        layers: list[nn.Module] = [AddCoords()] if coords else []
        for a, b in pairwise(widths):
            layers += [nn.Conv2d(a, b, 4, stride=2, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * widths[-1], 2 * latent))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance."""
        mean, log_variance = self.layers(x).chunk(2, 1)
        return mean, log_variance.clamp(-10, 5)


def variational(run: Trial, arm: str, config: VaeConfig) -> dict[str, float]:
    """A variational autoencoder of squares whose encoder and decoder see coordinates, or do not."""
    coords = arm.endswith("coordconv")
    images = NotSoClevr(config.canvas, config.radius).image.to(run.device)
    encoder = build(run, lambda: Encoder(config.canvas, config.latent, coords), "encoder")
    make = (
        (lambda: CoordPainter(config.canvas, config.latent, config.widths))
        if coords
        else (lambda: DeconvPainter(config.canvas, config.deconv_filter, inputs=config.latent))
    )
    decoder: nn.Module = build(run, make, "decoder")
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], config.rate)
    draw = batches(torch.arange(len(images)), config.batch, run.generator("batches", device="cpu"))
    noise = run.generator("noise")
    fixed = torch.randn(config.samples, config.latent, generator=run.generator("samples"), device=run.device)

    def samples() -> Tensor:
        decoder.eval()
        with torch.no_grad():
            made = torch.cat([decoder(part).sigmoid() for part in fixed.split(250)])
        decoder.train()
        # Pixels are Bernoulli: the most likely picture is the rounded one.
        return made.round()

    def bound(x: Tensor) -> Tensor:
        """Negative evidence lower bound, nats an image."""
        mean, log_variance = encoder(x)
        z = mean + torch.randn(mean.shape, generator=noise, device=run.device) * (0.5 * log_variance).exp()
        missing = binary_cross_entropy_with_logits(decoder(z), x, reduction="sum") / len(x)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return missing + divergence

    look = checkpoints(config.steps, config.evaluations)
    for step in run.steps(config.steps):
        loss = bound(images[next(draw)])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step in look:
            run.log(step + 1, bound=loss, **position_coverage(samples(), images, config.tolerance))
    with torch.no_grad():
        final = bound(images.repeat(10, 1, 1, 1)).item()
    run.save("samples", samples()[:16].half())
    return position_coverage(samples(), images, config.tolerance) | {
        "bound": final,
        "parameters": parameters(encoder) + parameters(decoder),
    }
