"""The worlds of the study: rooms with five densities of reward, screens that show noise, textured walls."""

from dataclasses import dataclass
from functools import lru_cache

import torch

from assay.envs import NoisyTV, RoomsGrid, StickyActions, TensorEnv
from assay.envs.grid import all_distances
from assay.rl.intrinsic.episodic import RNetwork
from assay.rl.rollout import random_rollout

DENSITIES = ("dense", "collect", "sparse", "very_sparse", "doors", "none")
UNMARKED = ("dense", "sparse", "very_sparse", "none")
"""Worlds that look alike, and move alike."""
BEST = {"dense": 2.0, "collect": 1.8}
"""Highest return of an episode where it is not 1."""


@dataclass(frozen=True)
class WorldConfig:
    """Rooms in a serpentine; nine of 5 x 5 cells on the laptop. Or a real world, in the paper profile."""

    kind: str = "rooms"
    rooms: int = 3
    room_size: int = 5
    horizon: int = 150
    bits: int = 16


@dataclass(frozen=True)
class ReachConfig:
    """The reachability network and its data."""

    k: int = 2
    gap: int = 4  # negatives are more than k * gap steps apart
    copies: int = 64
    steps: int = 200  # of the random walks
    stickiness: float = 0.5
    fits: int = 3_000
    features: int = 32
    hidden: int = 64
    batch: int = 256


def make(
    world: str,
    config: WorldConfig,
    copies: int,
    generator: torch.Generator,
    start: str = "corner",
    max_steps: int | None = -1,
) -> TensorEnv:
    """`world` is a density of reward, "tv:" and a screen, or "walls:plain" or "walls:textured"."""
    family, _, name = world.partition(":")
    options: dict[str, object] = {
        "room_size": config.room_size,
        "start": start,
        "max_steps": config.horizon if max_steps == -1 else max_steps,
        "generator": generator,
        "device": generator.device,
        "validate": False,
    }
    if family == "tv":
        inner = RoomsGrid(copies, config.rooms, reward="none", **options)  # type: ignore[arg-type]
        if name.startswith("image"):
            return NoisyTV(inner, "image_action", bits=config.bits, pictures=int(name.partition("-")[2]))
        return NoisyTV(inner, name, bits=config.bits)  # type: ignore[arg-type]
    if family == "walls":
        return RoomsGrid(
            copies,
            config.rooms,
            reward="none",
            view="egocentric",
            textures=name == "textured",
            **options,  # type: ignore[arg-type]
        )
    if family == "doors":
        return RoomsGrid(copies, config.rooms, reward="sparse", doors=True, close_after=10, **options)  # type: ignore[arg-type]
    if family not in DENSITIES:
        raise ValueError(f"unknown world {world!r}")
    return RoomsGrid(copies, config.rooms, reward=family, **options)  # type: ignore[arg-type]


def random_walks(
    env: TensorEnv, config: ReachConfig, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """[T, copies, *obs]: what sticky random actions see; and where an episode begins [T, copies]."""
    rollout = random_rollout(StickyActions(env, config.stickiness), config.steps, generator)
    assert isinstance(rollout.obs, torch.Tensor)
    return rollout.obs[:-1], rollout.first[:-1]


def reachability(world: str, worlds: WorldConfig, config: ReachConfig, device: str) -> tuple[RNetwork, float]:
    """The network of a world and its accuracy on fresh walks.

    One for all seeds, as in the paper: it is trained before any policy. Its streams are its own, so it does not
    matter who asks first. Worlds that differ in nothing but their reward share it.
    """
    return _reachability("none" if world in UNMARKED else world, worlds, config, device)


@lru_cache(maxsize=32)
def _reachability(
    world: str, worlds: WorldConfig, config: ReachConfig, device: str
) -> tuple[RNetwork, float]:
    generator = torch.Generator(device).manual_seed(20_181_004)
    # Distances in steps mean something only within one episode: walks have no end.
    env = make(world, worlds, config.copies, generator, start="random", max_steps=None)
    seen, first = random_walks(env, config, generator)
    flat = seen[0, 0].numel()
    net = RNetwork.mlp(flat, config.features, config.hidden, torch.Generator().manual_seed(1)).to(device)
    # Some worlds end at a goal: no pair may cross that.
    net.fit_episodes(seen, first, config.k, config.gap, config.fits, config.batch, generator=generator)
    fresh, _ = random_walks(env, config, generator)
    return net.requires_grad_(False), net.accuracy(fresh, config.k, config.gap, generator=generator)


def held_out(
    worlds: WorldConfig, config: ReachConfig, generator: torch.Generator, train: int = 8, test: int = 4
) -> tuple[float, float, list[float], list[float]]:
    """Accuracy on walks in layouts never seen, rank correlation of C with true distance, and mean C by distance.

    Egocentric pictures: what is near looks alike in any layout.
    """

    def env(seeds: range) -> RoomsGrid:
        return RoomsGrid(
            config.copies,
            worlds.rooms,
            worlds.room_size,
            layouts=seeds,
            layout="random",
            reward="none",
            start="random",
            view="egocentric",
            textures=True,
            max_steps=None,
            generator=generator,
            device=generator.device,
            validate=False,
        )

    seen, _ = random_walks(env(range(train)), config, generator)
    init = torch.Generator().manual_seed(generator.initial_seed() % 2**31)
    net = RNetwork.mlp(seen[0, 0].numel(), config.features, config.hidden, init).to(generator.device)
    net.fit(seen, config.k, config.gap, config.fits, batch=config.batch, generator=generator)
    unseen = env(range(train, train + test))
    walks, _ = random_walks(unseen, config, generator)
    accuracy = net.accuracy(walks, config.k, config.gap, generator=generator)
    return accuracy, *against_distance(net, unseen, config, generator)


@torch.no_grad()
def against_distance(
    net: RNetwork, env: RoomsGrid, config: ReachConfig, generator: torch.Generator
) -> tuple[float, list[float], list[float]]:
    """C against the true number of steps, for pairs of cells of one layout."""
    from scipy.stats import spearmanr

    env.reset()
    rollout = random_rollout(env, config.steps, generator, info=("state",))
    obs, place = rollout.next_obs(), rollout.info["state"]
    assert isinstance(obs, torch.Tensor)
    copies = torch.arange(env.num_envs)
    t1, t2 = (torch.randint(config.steps, (40, env.num_envs), generator=generator) for _ in (1, 2))
    similarity = net.compare(
        net.embed(obs[t1, copies].flatten(0, 1)), net.embed(obs[t2, copies].flatten(0, 1))
    )
    layout = env.layout
    distances = torch.stack([all_distances(lay.walls).to(similarity.device) for lay in env.layouts])
    side = env.layouts[0].walls.shape[1]
    cell = place[..., 0] * side + place[..., 1]
    true = distances[layout.expand(40, -1), cell[t1, copies], cell[t2, copies]].flatten().float()
    means = [float(similarity[true == d].mean()) for d in range(16) if bool((true == d).any())]
    steps = [float(d) for d in range(16) if bool((true == d).any())]
    return float(spearmanr(similarity.cpu(), true.cpu())[0]), steps, means
