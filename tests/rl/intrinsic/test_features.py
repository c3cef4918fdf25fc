"""Feature spaces: what learns, what does not, and what the losses are."""

import pytest
import torch

from assay.envs import PointBox
from assay.rl.intrinsic import (
    ActionCode,
    InverseDynamicsFeatures,
    PixelFeatures,
    RandomFeatures,
    VAEFeatures,
    make_features,
)
from assay.rl.nets import mlp
from assay.rl.normalize import RunningMeanStd
from assay.rl.rollout import Batch, Rollout, random_rollout
from tests.rl.worlds import Line, NextStepReset

KINDS = ("pixels", "random", "inverse", "vae")


def _g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _space(kind: str, shape: tuple[int, ...] = (3,), **options):
    return make_features(
        kind, shape, 4, 16, ActionCode(num_actions=3), generator=_g(), **{"normalize": False, **options}
    )


def _batch(obs: torch.Tensor, action: torch.Tensor, next_obs: torch.Tensor) -> Batch:
    """One step of many copies."""
    rollout = Rollout(1, len(obs))
    rollout.obs, rollout.action = torch.stack((obs, next_obs)), action[None]
    rollout.reward = torch.zeros(1, len(obs), 1)
    rollout.valid = torch.ones(1, len(obs), dtype=torch.bool)
    return Batch(rollout, torch.arange(len(obs)))


@pytest.mark.parametrize("kind", KINDS)
def test_leading_dimensions_and_sizes(kind: str) -> None:
    space, x = _space(kind), torch.randn(7, 5, 3, generator=_g(1))
    out = space.features(x)
    assert out.shape == (7, 5, space.size)
    torch.testing.assert_close(space.features(x[2]), out[2])
    torch.testing.assert_close(space.features(x[2, 3]), out[2, 3])
    pictures = _space(kind, (2, 8, 8)).features(torch.rand(4, 2, 8, 8))
    assert pictures.shape[0] == 4
    assert space.stationary == (kind in ("pixels", "random"))


def test_random_features_have_nothing_to_train() -> None:
    space = _space("random")
    assert isinstance(space, RandomFeatures)
    assert not list(space.parameters())
    assert space.state_dict(), "but they are saved"
    x = torch.randn(6, 3, requires_grad=True)
    assert not space.features(x).requires_grad
    assert space.loss(_batch(x.detach(), torch.zeros(6, dtype=torch.int64), x.detach())) == {}


def test_pixels_are_the_whitened_observation() -> None:
    norm = RunningMeanStd((2,))
    norm.update(torch.tensor([[0.0, 0.0], [2.0, 20.0]]))
    space = PixelFeatures((2,), obs_norm=norm, clip=None)
    torch.testing.assert_close(space.features(torch.tensor([[3.0, 30.0]])), torch.tensor([[2.0, 2.0]]))
    # One standard deviation for all: the mean of 1 and 10 (Burda et al.'s code).
    one = PixelFeatures((2,), obs_norm=norm, scalar_std=True, clip=None)
    torch.testing.assert_close(one.features(torch.tensor([[3.0, 30.0]])), torch.tensor([[2.0, 20.0]]) / 5.5)
    clipped = PixelFeatures((2,), obs_norm=norm, scalar_std=True, clip=1.0)
    assert clipped.features(torch.tensor([[3.0, 300.0]])).max() == 1


def test_inverse_features_forget_what_cannot_be_influenced() -> None:
    # x = (place, 4 random bits); the action moves the place. One linear feature has no use for the bits: they would
    # only blur it. (Two could carry the noise in a direction that the inverse model ignores.)
    g = _g()
    code = ActionCode(num_actions=2)
    net = torch.nn.Linear(5, 1, bias=False)
    torch.nn.init.normal_(net.weight, generator=_g(3))
    space = InverseDynamicsFeatures(net, 1, code, hidden=16, generator=g)
    optimizer = torch.optim.Adam(space.parameters(), 3e-3, weight_decay=1e-3)
    for _ in range(800):
        place = torch.randn(256, 1, generator=g)
        action = torch.randint(2, (256,), generator=g)
        bits = (torch.rand(2, 256, 4, generator=g) < 0.5).float()
        obs = torch.cat((place, bits[0]), 1)
        after = torch.cat((place + action[:, None] - 0.5, bits[1]), 1)
        optimizer.zero_grad()
        space.loss(_batch(obs, action, after))["inverse"].backward()
        optimizer.step()
    assert space.accuracy(obs, action, after) > 0.99
    weight = net.weight.detach()
    assert weight[:, 1:].norm(dim=0).max() / weight[:, 0].norm() < 0.1


def test_continuous_actions_are_regressed() -> None:
    code = ActionCode(act_dim=2)
    space = make_features("inverse", (2,), 2, 32, code, normalize=False, generator=_g())
    g, optimizer = _g(1), torch.optim.Adam(space.parameters(), 1e-2)
    losses = []
    for _ in range(200):
        obs, action = torch.randn(128, 2, generator=g), torch.randn(128, 2, generator=g)
        optimizer.zero_grad()
        loss = space.loss(_batch(obs, action, obs + action))["inverse"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]
    assert ActionCode.of(PointBox(2, continuous=True)).size == 2
    assert ActionCode.of(Line(2)).discrete


def test_the_evidence_bound_of_a_linear_gaussian_by_hand() -> None:
    # Encoder N(a x, s), decoder N(b z, 1), one dimension: everything is known.
    a, b, s = 0.7, -1.3, 0.5
    encoder, decoder = torch.nn.Linear(1, 2), torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        encoder.weight.copy_(torch.tensor([[a], [0.0]]))
        encoder.bias.copy_(torch.tensor([0.0, torch.tensor(s).expm1().log()]))
        decoder.weight.fill_(b)
    vae = VAEFeatures(encoder, decoder, 1, (1,), generator=_g())
    x, noise = torch.tensor([[2.0], [-1.0]]), torch.tensor([[0.3], [-1.1]])
    kl, nll = vae.negative_elbo(x, noise)
    q = torch.distributions.Normal(a * x, torch.full_like(x, s))
    expected_kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).squeeze(1)
    torch.testing.assert_close(kl, expected_kl)
    assert (kl >= 0).all()
    shown = torch.distributions.Normal(b * (a * x + s * noise), 1.0)
    torch.testing.assert_close(nll, -shown.log_prob(x).squeeze(1))
    torch.testing.assert_close(vae.features(x), a * x)
    # In expectation: half of log 2 pi + (x - b a x)^2 + b^2 s^2.
    drawn = torch.stack([vae.negative_elbo(x)[1] for _ in range(4000)]).mean(0)
    exact = 0.5 * (torch.log(torch.tensor(2 * torch.pi)) + (x - b * a * x).square() + (b * s) ** 2)
    torch.testing.assert_close(drawn, exact.squeeze(1), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("scale", ["shared", "pixel"])
def test_the_autoencoder_sums_over_pixels_and_learns(scale: str) -> None:
    shape = (1, 4, 4)
    encoder = torch.nn.Sequential(torch.nn.Flatten(), mlp((16, 32, 4), "relu", 1.0, _g()))
    vae = VAEFeatures(encoder, mlp((2, 32, 16), "relu", 1.0, _g(1)), 2, shape, scale, generator=_g(2))
    assert vae.log_scale.numel() == (1 if scale == "shared" else 16)
    x = torch.zeros(3, *shape)
    with torch.no_grad():
        vae.decoder[-1].weight.zero_()
        vae.decoder[-1].bias.zero_()
    _, nll = vae.negative_elbo(x)
    torch.testing.assert_close(nll, torch.full((3,), 16 * 0.5 * torch.log(torch.tensor(2 * torch.pi)).item()))
    g, optimizer = _g(3), torch.optim.Adam(vae.parameters(), 1e-2)
    first = last = 0.0
    for step in range(150):
        pictures = torch.rand(64, 1, 1, 1, generator=g).expand(64, *shape).contiguous()
        loss = vae.loss(_batch(pictures, torch.zeros(64, dtype=torch.int64), pictures))["vae"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = (loss.item() if step == 0 else first), loss.item()
    assert last < first - 0.3


def test_bytes_are_dequantised_and_need_statistics() -> None:
    shape = (1, 4, 4)
    picture = torch.randint(0, 255, (8, *shape), dtype=torch.uint8, generator=_g())
    with pytest.raises(ValueError, match="uint8 images need obs_norm"):
        _space("random", shape).features(picture)
    space = make_features("vae", shape, 2, 16, generator=_g())
    with pytest.raises(ValueError, match="no statistics yet"):
        space.features(picture)
    rollout = _batch(picture, torch.zeros(8, dtype=torch.int64), picture)
    space.observe(rollout.rollout)
    one, two = space.loss(rollout)["vae"], space.loss(rollout)["vae"]
    assert one != two, "noise of the code and of the bytes"
    assert space.features(picture).shape == (8, 2)


def test_statistics_leave_dummy_rows_out_and_can_be_frozen() -> None:
    rollout = random_rollout(NextStepReset(8, length=3, max_steps=6), 40, _g())
    space = make_features("random", (1,), 4, 8, generator=_g())
    space.observe(rollout)
    assert int(space.obs_norm.count) == int(rollout.valid.sum()) < rollout.valid.numel()
    space.obs_norm.freeze()
    space.observe(rollout)
    assert int(space.obs_norm.count) == int(rollout.valid.sum())
    fresh = make_features("random", (1,), 4, 8, generator=_g(), scalar_std=True)
    with pytest.raises(ValueError, match="no statistics yet"):
        fresh.features(torch.zeros(3, 1))
    fresh.init_stats(Line(4), 20, _g())
    assert fresh.features(torch.zeros(3, 1)).shape == (3, 4)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        _space("random").features(torch.tensor([[float("nan"), 0.0, 0.0]]))
    with pytest.raises(ValueError, match="feature spaces are"):
        _space("vision")
    with pytest.raises(ValueError, match="at least one feature"):
        make_features("random", (3,), 0)
    with pytest.raises(ValueError, match="needs to know the actions"):
        make_features("inverse", (3,))
    with pytest.raises(ValueError, match="choose it from a dictionary"):
        _space("random").features({"a": torch.zeros(1, 3)})
    with pytest.raises(ValueError, match="how many discrete actions"):
        ActionCode()
    with pytest.raises(ValueError, match="how many discrete actions"):
        ActionCode(2, 3)
    with pytest.raises(ValueError, match="whole numbers"):
        ActionCode(2)(torch.zeros(3))
    with pytest.raises(ValueError, match=r"floats \[B, 2\]"):
        ActionCode(act_dim=2)(torch.zeros(3, 1))
    with pytest.raises(ValueError, match="'shared' or 'pixel'"):
        VAEFeatures(torch.nn.Linear(1, 2), torch.nn.Linear(1, 1), 1, (1,), "both")
