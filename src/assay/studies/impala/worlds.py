"""The worlds and networks that the profiles name: small tensor worlds on a laptop, simulators in the paper's."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from assay.envs import Catch, FourRooms, RoomsSuite, TensorEnv, real
from assay.rl.nets import CategoricalHead, ImpalaResNet, LSTMCore, MLPTorso, Torso, ValueHead
from assay.rl.policies import ActorCritic, actor_critic

SMALL: dict[str, Callable[..., TensorEnv]] = {
    "catch": partial(Catch, view="flat"),
    "rooms": partial(FourRooms, max_steps=60),
    **{f"suite-{k}": partial(RoomsSuite, tasks=(k,)) for k in range(6)},
}
"""Batched worlds by name; suite-0 to suite-5 are the related tasks of `RoomsSuite`."""


def make_world(name: str, copies: int, seed: int) -> TensorEnv:
    """A world by name: one of `SMALL`, an id of ale-py ("ALE/..."), one of minigrid, or "dmlab:level".

    Raises:
        MissingExtra: the simulator's package is not installed.
        ValueError: no such world.
    """
    if name in SMALL:
        return SMALL[name](copies, generator=torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed % 2**31)  # gymnasium's seeds have 32 bits
    if name.startswith("ALE/"):
        # All 18 actions: one agent plays every game. Sticky actions are later than the paper: it began with no-ops.
        return real.atari(
            name,
            copies,
            sticky=0.0,
            noop_max=30,
            full_action_space=True,
            max_frames=108_000,
            generator=generator,
        )
    if name.startswith("MiniGrid"):
        return real.minigrid(name, copies, generator=generator)
    if name.startswith("dmlab:"):
        return real.deepmind_lab(name.removeprefix("dmlab:"), copies)
    raise ValueError(f"no world {name!r}: choose from {', '.join(SMALL)}, ALE/..., MiniGrid-... or dmlab:...")


def actor_world(index: int, names: tuple[str, ...], copies: int, seed: int) -> TensorEnv:
    """The world of an actor: tasks in turn, every actor with its own seed."""
    return make_world(names[index % len(names)], copies, seed + 7919 * index)


class ShallowConv(Torso):
    """The paper's shallow network, which is A3C's: convolutions 16 of 8x8 and 32 of 4x4, then a dense layer of 256.

    Args:
        channels: of the picture.
        size: (height, width).
        features: of the dense layer.
    """

    obs_ndim = 3

    def __init__(self, channels: int, size: tuple[int, int], features: int = 256):
        super().__init__()
        height, width = (((side - 8) // 4 + 1 - 4) // 2 + 1 for side in size)
        if height < 1 or width < 1:
            raise ValueError(f"the shallow network needs pictures of at least 20 x 20 pixels: got {size}")
        self.net = nn.Sequential(
            nn.Conv2d(channels, 16, 8, 4),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * height * width, features),
            nn.ReLU(),
        )
        self.features = features

    def encode(self, obs: Tensor) -> Tensor:
        """[B, C, H, W] to [B, features]."""
        return self.net(obs.float() / 255 if obs.dtype == torch.uint8 else obs)


def make_model(
    env: TensorEnv, network: str = "mlp", hidden: tuple[int, ...] = (64, 64), lstm: int = 0, seed: int = 0
) -> ActorCritic:
    """An actor-critic, which may have a memory.

    Args:
        env: tells the shapes.
        network: "mlp" (two separate ones for vectors, a shared one on a flattened picture), "shallow" or "deep".
        hidden: widths of "mlp".
        lstm: units of a memory after the torso; 0: none.
        seed: of the initialisation.
    """
    g = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # torch's own layers draw from the global generator
        if network == "mlp" and len(env.obs_shape) == 1:
            return actor_critic(env, hidden, lstm=lstm or None, generator=g)
        torso = _picture_torso(env.obs_shape, network, hidden, g)
        core = LSTMCore(torso.features, lstm) if lstm else None
        width = core.features if core else torso.features
        assert env.num_actions is not None
        policy = CategoricalHead(width, env.num_actions, generator=g)
        return ActorCritic(torso, policy, ValueHead(width, generator=g), core)


def _picture_torso(
    shape: tuple[int, ...], network: str, hidden: tuple[int, ...], generator: torch.Generator
) -> Torso:
    channels, height, width = shape
    if network == "mlp":
        return MLPTorso((channels * height * width, *hidden), "relu", obs_ndim=3, generator=generator)
    if network == "shallow":
        return ShallowConv(channels, (height, width))
    if network == "deep":
        return ImpalaResNet(channels, (height, width))
    raise ValueError(f"network is mlp, shallow or deep: got {network!r}")
