r"""Scores: undiscounted returns of the environment's own reward, never of a normalised or mixed one."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from assay.envs.base import TensorEnv
from assay.rl.policies import Policy


class Episodes(NamedTuple):
    """Whole episodes."""

    returns: Tensor
    """[E]: sums of the environment's reward."""
    lengths: Tensor
    """[E] steps."""
    terminated: Tensor
    """[E] bool: ended by the world, not by time."""
    copy: Tensor
    """[E]: which copy played it."""


@torch.no_grad()
def evaluate(
    model: Policy,
    env: TensorEnv,
    episodes: int,
    deterministic: bool = False,
    generator: torch.Generator | None = None,
    limit: int = 100_000,
) -> Episodes:
    """Play whole episodes in an environment of their own; the model's mode (train or eval) is left as it was.

    Every copy gives its first `ceil(episodes / N)` episodes: taking whichever end first would favour short ones.

    Args:
        model: acts.
        env: is reset; not the one that trains.
        episodes: at least so many (a multiple of the copies).
        deterministic: the likeliest action instead of a sample.
        generator: of the actions.
        limit: steps after which an episode that never ends is an error.

    Raises:
        RuntimeError: some copy did not finish within `limit` steps.
    """
    if episodes < 1:
        raise ValueError(f"evaluate at least one episode: got {episodes}")
    was_training = getattr(model, "training", False)
    if isinstance(model, nn.Module):
        model.eval()
    quota = -(-episodes // env.num_envs)
    obs, info = env.reset()
    mask = info.get("action_mask")
    first = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    state = model.initial_state(env.num_envs)
    total = torch.zeros(env.num_envs, device=env.device)
    length = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
    done = torch.zeros_like(length)
    found: list[tuple[Tensor, ...]] = []
    for _ in range(limit):
        dist, state = model.policy(obs, state, first, mask)
        step = env.step(dist.mode() if deterministic else dist.sample(generator))
        valid, ended = step.info.get("valid", torch.ones_like(first)), step.ended
        total, length = total + step.reward * valid, length + valid
        first = ended | ~valid
        if bool(ended.any()):
            counted = ended & (done < quota)
            played = counted.nonzero().flatten()
            found.append((total[played], length[played], step.terminated[played], played))
            done = done + ended
            total, length = total.masked_fill(ended, 0.0), length.masked_fill(ended, 0)
            if bool((done >= quota).all()):
                break
        obs, mask = step.obs, step.info.get("action_mask")
    else:
        raise RuntimeError(f"after {limit} steps some copy had not finished {quota} episodes: set max_steps")
    if isinstance(model, nn.Module):
        model.train(was_training)
    return Episodes(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def coverage(
    visits: Float[Tensor, "*batch states"], reachable: Tensor | None = None
) -> Float[Tensor, "*batch"]:
    """Share of (reachable) states visited at least once."""
    seen = (visits > 0).float()
    if reachable is None:
        return seen.mean(-1)
    return (seen * reachable).sum(-1) / reachable.sum(-1)


def visitation_entropy(visits: Float[Tensor, "*batch states"]) -> Float[Tensor, "*batch"]:
    """Entropy in nats of the visit frequencies; log S where all states are visited alike."""
    p = visits / visits.sum(-1, keepdim=True).clamp(min=1e-12)
    return -torch.special.xlogy(p, p).sum(-1)


def human_normalised(score: float, random: float, human: float) -> float:
    """0 for a random player, 1 for a human one (Mnih et al., 2015)."""
    if human == random:
        raise ValueError("a game where humans score like chance cannot be normalised")
    return (score - random) / (human - random)


def mean_capped_normalised(
    scores: Mapping[str, float], references: Mapping[str, tuple[float, float]], cap: float = 1.0
) -> float:
    """Mean over tasks of the human-normalised score, each capped (DMLab-30's metric; IMPALA, section 5.3).

    Args:
        scores: of every task.
        references: (random, human) score of every task.
        cap: largest score that counts.
    """
    if missing := scores.keys() - references.keys():
        raise ValueError(f"no reference scores for {', '.join(sorted(missing))}")
    normalised = [min(human_normalised(score, *references[task]), cap) for task, score in scores.items()]
    return sum(normalised) / len(normalised)


def auc(curve: Float[Tensor, "*batch points"]) -> Float[Tensor, "*batch"]:
    """Area under an evenly sampled learning curve, as its mean height (trapezoids)."""
    if curve.shape[-1] < 2:
        return curve.mean(-1)
    return (curve[..., 1:] + curve[..., :-1]).mean(-1) / 2


def iqm(scores: Float[Tensor, "*batch runs"]) -> Float[Tensor, "*batch"]:
    """Interquartile mean: of the middle half, ends weighted by their share (Agarwal et al., 2021)."""
    n = scores.shape[-1]
    ordered = scores.sort(-1).values
    position = torch.arange(n, device=scores.device, dtype=scores.dtype)
    weight = ((position + 1).clamp(max=0.75 * n) - position.clamp(min=0.25 * n)).clamp(min=0.0)
    return (ordered * weight).sum(-1) / weight.sum()
