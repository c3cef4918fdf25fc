"""In which order is a function learned? Mode by mode, read from outside the learner.

Any learner that answers inputs can be probed: ask it for its outputs at a moment frozen in time, fit a linear map or a
Fourier series to the answers, and project the result on the modes of the true function. The strength of a mode is 0
before it is learned and 1 when it is known. A learner that picks modes up one after the other *staggers*; one that
picks all up together does not. After Rabinowitz (2019), arXiv 1905.01320, and Saxe et al. (2013), arXiv 1312.6120.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

__all__ = [
    "LinearProbe",
    "ModeStrength",
    "explained_share",
    "fourier_strength",
    "half_time",
    "mode_strength",
    "probe_fourier",
    "probe_linear",
    "saxe_curve",
    "stagger_index",
    "subspace_overlap",
]


class LinearProbe(NamedTuple):
    """The linear map that fits a learner's answers best."""

    weight: Float[Tensor, "*batch ny nx"]
    intercept: Float[Tensor, "*batch ny"]
    r2: Float[Tensor, "*batch"]
    """Share of the answers' variance (all outputs together) that the map explains; 1 for constant answers."""


def probe_linear(
    predict_fn: Callable[[Float[Tensor, "probes nx"]], Tensor],
    nx: int,
    n_probe: int = 24,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> LinearProbe:
    """Ask a learner `n_probe` inputs drawn from N(0, I) and fit $y = \\hat W x + b$ by least squares.

    `predict_fn` takes the probes ``[probes, nx]`` and answers ``[*batch, probes, ny]``: many learners, or one learner
    at many moments, are probed with the same inputs by one pseudo-inverse. Raises ValueError for fewer than
    ``nx + 1`` probes, which leave the map open; 8 times `nx` are advisable for learners that are not linear.

    >>> W = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    >>> found = probe_linear(lambda x: x @ W.T + 3, nx=2)
    >>> bool(torch.allclose(found.weight, W, atol=1e-5)), round(float(found.r2), 5)
    (True, 1.0)
    """
    if n_probe < nx + 1:
        raise ValueError(
            f"a map with intercept from {nx} inputs needs at least {nx + 1} probes, got {n_probe}"
        )
    device = None if generator is None else generator.device
    x = torch.randn(n_probe, nx, generator=generator, device=device, dtype=dtype)
    answers = predict_fn(x)
    if answers.ndim < 2 or answers.shape[-2] != n_probe:
        raise ValueError(
            f"predict_fn must answer [..., {n_probe}, outputs] to {n_probe} probes, got {tuple(answers.shape)}"
        )
    y = answers.double()
    design = torch.cat([x.to(answers.device).double(), y.new_ones(n_probe, 1)], -1)
    fit = torch.linalg.pinv(design) @ y
    residual = (y - design @ fit).square().sum((-2, -1))
    total = (y - y.mean(-2, keepdim=True)).square().sum((-2, -1))
    # Constant answers have no variance; they are explained by the intercept up to rounding.
    r2 = torch.where(total > 1e-20, 1 - residual / total.clamp(min=1e-20), 1.0)
    fit = fit.to(answers.dtype)
    return LinearProbe(fit[..., :-1, :].mT, fit[..., -1, :], r2.to(answers.dtype))


def probe_fourier(
    predict_fn: Callable[[Float[Tensor, " points"]], Tensor],
    grid: int = 64,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Complex[Tensor, "*batch frequencies"]:
    """Fourier coefficients of a learned function on the circle: $a_k - i b_k$ for k = 0 .. grid / 2.

    `predict_fn` takes the angles ``[points]`` of an even grid and answers ``[*batch, points]``. A function
    $\\sum_k a_k\\cos k\\theta + b_k\\sin k\\theta$ with all k below ``grid / 2`` is returned exactly.

    >>> found = probe_fourier(lambda t: 2 * t.cos() + (3 * t).sin())
    >>> [round(v, 4) for v in (float(found[1].real), float(found[3].imag))]
    [2.0, -1.0]
    """
    if grid < 3:
        raise ValueError(f"a grid that resolves one frequency has at least 3 points, got {grid}")
    theta = 2 * torch.pi * torch.arange(grid, dtype=dtype, device=device) / grid
    answers = predict_fn(theta)
    if answers.shape[-1] != grid:
        raise ValueError(f"predict_fn must answer [..., {grid}] to {grid} angles, got {tuple(answers.shape)}")
    found = torch.fft.rfft(answers) * (2 / grid)
    scale = torch.ones(found.shape[-1], device=found.device, dtype=answers.dtype)
    scale[0] = 0.5  # the constant, and the highest frequency of an even grid, stand once in the spectrum
    if grid % 2 == 0:
        scale[-1] = 0.5
    return found * scale


class ModeStrength(NamedTuple):
    """A learned map in the modes of the true one."""

    strength: Float[Tensor, "*batch modes"]
    """$u_i^\\top\\hat W v_i / s_i$, the mode of the largest singular value first."""
    off_diagonal: Float[Tensor, "*batch"]
    """Norm of what lies between different modes, $u_i^\\top\\hat W v_j$, over the norm of the true map."""


def mode_strength(w_hat: Float[Tensor, "*batch ny nx"], w: Float[Tensor, "*tasks ny nx"]) -> ModeStrength:
    """How far each singular mode of `w` is learned (Rabinowitz 2019, section 3; Saxe et al. 2013).

    `w` broadcasts against the leading axes of `w_hat`: ``w.unsqueeze(1)`` for many moments of each task. Modes of
    nearly equal singular values are not well defined: use well-spaced spectra.

    >>> W = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    >>> mode_strength(torch.tensor([[1.5, 0.0], [0.0, 1.0]]), W).strength.tolist()
    [0.5, 1.0]
    """
    u, s, vt = torch.linalg.svd(w, full_matrices=False)
    if bool((s[..., -1] <= 1e-7 * s[..., 0].clamp(min=1e-30)).any()):
        raise ValueError(
            "the true map has a vanishing singular value: a mode without strength cannot be learned"
        )
    seen = u.mT @ w_hat @ vt.mT
    own = seen.diagonal(dim1=-2, dim2=-1)
    between = torch.linalg.matrix_norm(seen - own.diag_embed())
    return ModeStrength(own / s, between / s.norm(dim=-1))


def fourier_strength(
    f_hat: Complex[Tensor, "*batch frequencies"], f: Complex[Tensor, "*tasks frequencies"]
) -> Float[Tensor, "*batch frequencies"]:
    """$\\mathrm{Re}(\\hat F_k \\overline{F_k}) / |F_k|^2$: how far each frequency is learned, phase included.

    >>> fourier_strength(torch.tensor([2j, 0.5 + 0j]), torch.tensor([2j, 1j])).tolist()
    [1.0, 0.0]
    """
    power = f.abs().square()
    if bool((power == 0).any()):
        raise ValueError("a frequency that the true function does not contain has no strength")
    return (f_hat * f.conj()).real / power


def explained_share(
    w_hat: Float[Tensor, "*batch ny nx"], w: Float[Tensor, "*tasks ny nx"]
) -> Float[Tensor, "*batch modes"]:
    """Share of the first squared error $\\lVert W\\rVert^2$ that each true mode has removed so far.

    With whitened inputs, mode i removes $s_i^2 - \\lVert u_i^\\top(\\hat W - W)\\rVert^2$ of it; all modes together
    reach 1. Large modes carry more of the error, so under this measure they lead even where strengths move together.
    """
    u, s, _ = torch.linalg.svd(w, full_matrices=False)
    left = (u.mT @ (w_hat - w)).square().sum(-1)
    return (s.square() - left) / s.square().sum(-1, keepdim=True)


def subspace_overlap(
    w_hat: Float[Tensor, "*batch ny nx"], w: Float[Tensor, "*tasks ny nx"], rank: int
) -> Float[Tensor, "*batch"]:
    """Squared cosine of the largest principal angle between the leading `rank` right singular vectors of both maps.

    1: the same subspace; 0: a direction of one is missing in the other. Blind to how strongly a mode is learned.
    """
    if not 1 <= rank <= min(w.shape[-2:]):
        raise ValueError(f"rank lies in 1 .. {min(w.shape[-2:])}, got {rank}")
    true = torch.linalg.svd(w, full_matrices=False)[2][..., :rank, :]
    seen = torch.linalg.svd(w_hat, full_matrices=False)[2][..., :rank, :]
    return torch.linalg.svdvals(seen @ true.mT)[..., -1].square()


def half_time(
    curve: Float[Tensor, "*batch times"], level: float = 0.5, times: Float[Tensor, " times"] | None = None
) -> Float[Tensor, "*batch"]:
    """When a curve first reaches `level`, interpolated linearly.

    inf if it never does, the first time if it starts there.

    `times` are the points' positions (0, 1, 2, ... unless given). Interpolate the *mean* of noisy curves: the mean of
    half times of noisy curves is biased.

    >>> half_time(torch.tensor([[0.0, 0.4, 0.8], [0.0, 0.1, 0.2]])).tolist()
    [1.25, inf]
    """
    if curve.shape[-1] < 2:
        raise ValueError("a curve has at least two points")
    if times is None:
        times = torch.arange(curve.shape[-1], dtype=curve.dtype, device=curve.device)
    above = curve >= level
    index = above.to(torch.uint8).argmax(-1)
    after = index.clamp(min=1).unsqueeze(-1)
    low, high = curve.gather(-1, after - 1), curve.gather(-1, after)
    share = ((level - low) / (high - low)).squeeze(-1)
    start, end = times[after - 1].squeeze(-1), times[after].squeeze(-1)
    found = torch.where(index == 0, times[0], start + share * (end - start))
    return torch.where(above.any(-1), found, math.inf)


def stagger_index(
    curves: Float[Tensor, "*batch modes times"],
    level: float = 0.5,
    times: Float[Tensor, " times"] | None = None,
) -> Float[Tensor, "*batch"]:
    """$\\log_2$ of the last mode's half time over the first mode's: 0 together, 1 twice as late, negative earlier.

    The order is the modes' own (largest singular value, lowest frequency first), not that of time. Times count from
    learning's start. inf if the last mode is never learned, nan if neither is or the first starts at `level`.

    >>> t = torch.linspace(0, 10, 1001)
    >>> index = stagger_index(torch.stack([saxe_curve(s, t, 1e-3, 1.0) / s for s in (3.0, 0.75)]), times=t)
    >>> round(float(index), 1)
    1.7
    """
    found = half_time(curves, level, times)
    first, last = found[..., 0], found[..., -1]
    bad = first.isinf() & last.isinf() | (first <= 0)
    return torch.where(bad, math.nan, (last / first.clamp(min=1e-30)).log2())


def saxe_curve(
    s: float | Float[Tensor, "*modes"], t: Float[Tensor, "*times"], s0: float, tau: float
) -> Float[Tensor, "*out"]:
    """Strength over time of a mode of singular value `s` in a two-layer linear network, in closed form.

    $\\hat s(t) = s e^{2st/\\tau} / (e^{2st/\\tau} - 1 + s/s_0)$: gradient flow on whitened inputs from balanced
    weights of strength `s0`, with $\\tau$ the inverse learning rate (Saxe et al. 2013, arXiv 1312.6120, equation 6).
    Half of it is reached at $\\frac{\\tau}{2s}\\ln(s/s_0 - 1)$, so larger modes come first. `s` broadcasts against `t`.

    >>> [round(float(v), 6) for v in saxe_curve(3.0, torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64), 1e-3, 1.0)]
    [0.019959, 0.355712, 2.945721]
    """
    if not (s0 > 0 and tau > 0):
        raise ValueError(f"s0 and tau must be positive, got {s0} and {tau}")
    s = torch.as_tensor(s, dtype=t.dtype, device=t.device)
    if bool((s <= 0).any()):
        raise ValueError("singular values must be positive")
    # Divided through by e^{2 s t / tau}, which would overflow.
    decay = torch.exp(-2 * s * t / tau)
    return s / (1 + (s / s0 - 1) * decay)
