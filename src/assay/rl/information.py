r"""How much the members of an ensemble disagree: the information that an outcome would give about which is right.

Let members $m = 1..M$ predict distributions $p_m$ of the same outcome. The entropy of their mixture has two parts,

$$\underbrace{H\Big(\tfrac1M \sum_m p_m\Big)}_{\text{all that is uncertain}}
 = \underbrace{\mathrm{JSD}(p_1, .., p_M)}_{\text{members disagree: will be learnt}}
 + \underbrace{\tfrac1M \sum_m H(p_m)}_{\text{members agree that it is noise}},$$

and the first is the mutual information between outcome and member: the expected reduction of uncertainty about the
model. It is zero where everybody agrees, however broad the distribution that they agree upon. For active learning with
class probabilities the same formula is called BALD (Houlsby et al. 2011, arXiv 1112.5745):

    >>> probs = torch.tensor([[[0.9, 0.1], [0.5, 0.5]], [[0.1, 0.9], [0.5, 0.5]]])   # [members, examples, classes]
    >>> expected_information_gain(probs)    # label the first example: the second is noise
    tensor([0.3681, 0.0000])

Shyam, Jaskowski, Gomez (2019, arXiv 1810.12162), section 3 and appendix A.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

BASES = {"nat": 1.0, "bit": math.log(2.0)}


def _probabilities(probs: Tensor) -> None:
    if probs.ndim < 2 or probs.shape[0] < 2:
        raise ValueError(f"disagreement needs at least two members, [M, ..., S]: got {tuple(probs.shape)}")
    slack = 1e-4 if probs.dtype != torch.float64 else 1e-8
    if not bool((probs >= 0).all()) or not bool(((probs.sum(-1) - 1).abs() <= slack).all()):
        raise ValueError(
            "every member must give probabilities: not negative, summing to 1 over the last axis"
        )


def entropy(probs: Float[Tensor, "*batch outcomes"]) -> Float[Tensor, "*batch"]:
    """Shannon entropy in nats along the last axis; zero probabilities count nothing."""
    return torch.special.entr(probs).sum(-1)


def predictive_entropy(probs: Float[Tensor, "members *batch outcomes"]) -> Float[Tensor, "*batch"]:
    """Entropy of the members' mean in nats: it does not tell noise from ignorance (for comparison)."""
    _probabilities(probs)
    return entropy(probs.mean(0))


def jensen_shannon(
    probs: Float[Tensor, "members *batch outcomes"], base: str = "nat"
) -> Float[Tensor, "*batch"]:
    r"""Jensen-Shannon divergence $H(\bar p) - \overline{H(p_m)}$ of M distributions, between 0 and log M.

    Differentiable where all probabilities are positive.

    Args:
        probs: [M, ..., S] probabilities.
        base: "nat" or "bit".

    Raises:
        ValueError: M < 2, or rows that are no probabilities.
    """
    if base not in BASES:
        raise ValueError(f"base is 'nat' or 'bit': got {base!r}")
    _probabilities(probs)
    # Rounding can leave a difference of -1e-8 between equal members.
    gain = entropy(probs.mean(0)) - entropy(probs).mean(0)
    return gain.clamp(min=0.0) / BASES[base]


def expected_information_gain(
    probs: Float[Tensor, "members *batch outcomes"], base: str = "nat"
) -> Float[Tensor, "*batch"]:
    """The same number by its meaning: $E_{s'} KL(P(m | s') || P(m))$ under a uniform prior over members. See
    `jensen_shannon`."""
    return jensen_shannon(probs, base)


def jensen_renyi_gaussian(
    mean: Float[Tensor, "*batch members dims"],
    var: Float[Tensor, "*batch members dims"],
    chunk: int = 1 << 18,
) -> Float[Tensor, "*batch"]:
    r"""Jensen-Renyi divergence of order 2 between M diagonal normals, in closed form (nats).

    $$-\log \frac{1}{M^2} \sum_{i,j} D_{ij} - \frac1M \sum_i H_2(N_i), \quad
    D_{ij} = (2\pi)^{-d/2} |V_i + V_j|^{-1/2} e^{-\frac12 (\mu_i - \mu_j)^\top (V_i + V_j)^{-1} (\mu_i - \mu_j)},$$

    with $H_2(N_i) = \frac12 \log |V_i| + \frac d2 \log 4\pi$. Zero for equal members, log M for members far apart with
    equal variances. **It can be negative**: order-2 entropy is not concave, and two members of the same mean with
    variances 0.01 and 1 give -0.088. That is reported as it is, never clamped; `DynamicsEnsemble` pulls variances
    together first (as the released code does), which hides it.

    Args:
        mean: [..., M, d].
        var: [..., M, d], positive.
        chunk: so many numbers are held at once for the pairs (memory against the number of operations).

    Raises:
        ValueError: M < 2, shapes that differ, or variances that are not positive.
    """
    if mean.shape != var.shape or mean.ndim < 2:
        raise ValueError(f"mean and var are [..., M, d] alike: got {tuple(mean.shape)}, {tuple(var.shape)}")
    if not bool((var > 0).all()):
        raise ValueError("variances must be positive")
    members, dims = mean.shape[-2:]
    if members < 2:
        raise ValueError(f"disagreement needs at least two members: got {members}")
    # D is symmetric: pairs i < j count twice, and the diagonal is exp(-H_2).
    i, j = torch.triu_indices(members, members, 1, device=mean.device)
    flat_mean, flat_var = mean.reshape(-1, members, dims), var.reshape(-1, members, dims)
    rows = max(1, chunk // (len(i) * dims))
    own = 0.5 * flat_var.log().sum(-1) + 0.5 * dims * math.log(4 * math.pi)
    parts = [_pair_logs(m, v, i, j) for m, v in zip(flat_mean.split(rows), flat_var.split(rows), strict=True)]
    pairs = (torch.cat(parts) if len(parts) > 1 else parts[0]) - 0.5 * dims * math.log(2 * math.pi)
    total = torch.logsumexp(torch.cat((pairs + math.log(2.0), -own), -1), -1) - 2 * math.log(members)
    return (-total - own.mean(-1)).reshape(mean.shape[:-2])


def _pair_logs(mean: Tensor, var: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """[B, pairs]: log D_ij without its constant."""
    both = var[:, i] + var[:, j]
    apart = mean[:, i] - mean[:, j]
    return -0.5 * (apart.square().div(both) + both.log()).sum(-1)


def mean_variance(mean: Float[Tensor, "*batch members dims"]) -> Float[Tensor, "*batch"]:
    """Variance of the members' means (population), averaged over dimensions: what TVAX plans for. It ignores how
    sure each member is of itself."""
    return mean.var(-2, correction=0).mean(-1)
