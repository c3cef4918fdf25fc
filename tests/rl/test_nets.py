"""Torsos, cores, heads and the actor-critic that holds them."""

import pytest
import torch

from assay.rl.nets import (
    CategoricalHead,
    DictTorso,
    GaussianHead,
    ImpalaResNet,
    MLPTorso,
    MultiCategoricalHead,
    NatureConv,
    SmallGridConv,
    TextEncoder,
    ValueHead,
    activation,
    mlp,
    orthogonal,
)
from assay.rl.policies import ActorCritic, actor_critic, make_torso
from tests.rl.worlds import Line

TORSOS = {
    "mlp": (lambda: MLPTorso((6, 8)), (6,)),
    "flat image": (lambda: MLPTorso((12, 8), obs_ndim=3), (3, 2, 2)),
    "nature": (lambda: NatureConv(2, 36, 8), (2, 36, 36)),
    "grid": (lambda: SmallGridConv((4, 7, 9), 8), (4, 7, 9)),
    "impala": (lambda: ImpalaResNet(3, (15, 20), (4, 8), 8), (3, 15, 20)),
}


@pytest.mark.parametrize("name", TORSOS)
def test_time_folds_into_the_batch(name: str) -> None:
    torch.manual_seed(0)
    make, shape = TORSOS[name]
    torso, obs = make(), torch.rand(3, 4, *shape)
    y = torso(obs)
    assert y.shape == (3, 4, torso.features)
    torch.testing.assert_close(y[1, 2], torso(obs[1, 2][None])[0], rtol=1e-4, atol=1e-5)


def test_uint8_images_are_scaled_once() -> None:
    torso, frames = NatureConv(1, 36, 4), torch.randint(256, (2, 1, 36, 36), dtype=torch.uint8)
    torch.testing.assert_close(torso(frames), torso(frames.float() / 255))


def test_paper_sizes() -> None:
    # Nature: 32x8s4, 64x4s2, 64x3s1, 512 on 4x84x84 (Mnih et al., 2015): 1,684,128 parameters.
    assert sum(p.numel() for p in NatureConv().parameters()) == 1_684_128
    impala = ImpalaResNet(3, (72, 96))
    assert impala.sections(torch.zeros(1, 3, 72, 96)).shape == (1, 32 * 9 * 12)


def test_orthogonal_weights() -> None:
    layer = orthogonal(torch.nn.Linear(8, 5), gain=2.0, bias=0.5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(layer.weight @ layer.weight.T, 4 * torch.eye(5), rtol=1e-4, atol=1e-5)
    assert (layer.bias == 0.5).all()
    again = orthogonal(torch.nn.Linear(8, 5), gain=2.0, generator=torch.Generator().manual_seed(1))
    assert torch.equal(layer.weight, again.weight)


def test_mlp_ends_as_asked() -> None:
    assert isinstance(mlp((3, 4, 2))[-1], torch.nn.ReLU)
    assert isinstance(mlp((3, 4, 2), final_gain=0.01)[-1], torch.nn.Linear)
    assert mlp((3, 4, 2), final_gain=0.01)[-1].weight.abs().max() < 0.02
    with pytest.raises(ValueError, match="at least inputs and outputs"):
        mlp((3,))
    with pytest.raises(ValueError, match="unknown activation 'swish'"):
        activation("swish")


@pytest.mark.parametrize("kind", ["bag", "gru"])
def test_padding_changes_no_text(kind: str) -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(10, 6, kind)
    words = torch.tensor([[3, 4, 0, 0], [5, 6, 7, 8], [0, 0, 0, 0]])
    out = encoder(words)
    torch.testing.assert_close(out[0], encoder(words[:1, :2])[0])
    assert (out[2] == 0).all()
    with pytest.raises(ValueError, match="'bag' or 'gru'"):
        TextEncoder(10, 6, "transformer")


def test_dictionaries() -> None:
    torso = DictTorso({"image": SmallGridConv((3, 7, 7), 8), "mission": TextEncoder(20, 4)})
    obs = {"image": torch.rand(2, 5, 3, 7, 7), "mission": torch.randint(1, 20, (2, 5, 3))}
    assert torso(obs).shape == (2, 5, 12)


def test_heads_begin_nearly_uniform() -> None:
    torch.manual_seed(0)
    features = torch.randn(50, 32)
    assert CategoricalHead(32, 5)(features).logp.std() < 0.02
    assert MultiCategoricalHead(32, (2, 3))(features).entropy().min() > torch.tensor(6.0).log() - 0.01
    gaussian = GaussianHead(32, 2, log_std=-1.0)(features)
    assert gaussian.mean.abs().max() < 0.1
    assert (gaussian.log_std == -1).all()
    own = GaussianHead(32, 2, squash="tanh", state_dependent_std=True, log_std=-1.0)(features)
    assert (own.log_std + 1).abs().max() < 0.1
    assert own.sample().abs().max() < 1
    with pytest.raises(ValueError, match="squash is"):
        GaussianHead(3, 2, squash="sigmoid")
    for head in (GaussianHead(32, 2), MultiCategoricalHead(32, (2,))):
        with pytest.raises(ValueError, match="discrete"):
            head(features, torch.ones(50, 2, dtype=torch.bool))


def test_one_step_and_a_sequence_agree() -> None:
    torch.manual_seed(0)
    model = ActorCritic(
        MLPTorso((3, 8)), CategoricalHead(8, 4), ValueHead(8, 2), aux_heads={"next": ValueHead(8, 3)}
    )
    obs = torch.randn(5, 6, 3)
    out = model(obs)
    assert out.value.shape == (5, 6, 2)
    assert out.aux["next"].shape == (5, 6, 3)
    assert out.state is None
    torch.testing.assert_close(out.value[2], model(obs[2]).value)
    torch.testing.assert_close(model.value(obs), out.value)
    torch.testing.assert_close(model.policy(obs)[0].params, out.dist.params)
    action = torch.randint(4, (5, 6))
    torch.testing.assert_close(model.log_prob(obs, action), out.dist.log_prob(action))
    assert model.streams == 2


def test_a_recurrent_policy_steps_as_it_reads() -> None:
    model = actor_critic(Line(3), hidden=(8,), lstm=5, generator=torch.Generator().manual_seed(0))
    obs, first = torch.rand(6, 3, 1), torch.rand(6, 3) < 0.3
    whole = model(obs, None, first)
    state = model.initial_state(3)
    for t in range(6):
        one = model(obs[t], state, first[t])
        torch.testing.assert_close(one.value, whole.value[t], rtol=1e-5, atol=1e-6)
        state = one.state
    with pytest.raises(ValueError, match="needs `first`"):
        model(obs)


def test_ready_made_actor_critics() -> None:
    model = actor_critic(Line(2), (16, 8), streams=3, value_gain=0.01)
    assert model.value_torso is not None
    assert model.streams == 3
    assert actor_critic(Line(2), shared=True).value_torso is None
    assert isinstance(make_torso((3, 7, 7)), SmallGridConv)
    assert make_torso((10, 5))(torch.rand(2, 4, 10, 5)).shape == (2, 4, 64)
    with pytest.raises(ValueError, match="1 to 3 dimensions"):
        make_torso((3, 7, 2, 2))
