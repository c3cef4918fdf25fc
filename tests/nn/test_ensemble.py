"""A member of an ensemble computes what the same network computes alone."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from assay.nn import (
    EnsembleBatchNorm,
    EnsembleConv2d,
    EnsembleEmbedding,
    EnsembleGRU,
    EnsembleLinear,
    EnsembleMLP,
    ensemble_cross_entropy,
    ensemble_error,
)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("norm", [None, "batch", "batch-affine"])
@pytest.mark.parametrize("training", [True, False])
def test_a_member_is_the_plain_network(norm, training):
    torch.manual_seed(0)
    net = EnsembleMLP((6, 8, 7, 4), members=3, norm=norm).double()
    for layer in net.norms:
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
        if layer.weight is not None:
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    net.train(training)
    x = torch.randn(3, 5, 6, dtype=torch.float64)
    members = [net.member(k) for k in range(3)]
    out = net(x)
    for k, member in enumerate(members):
        torch.testing.assert_close(out[k], member(x[k]), rtol=1e-12, atol=1e-12)
        stats = [layer for layer in member if isinstance(layer, nn.BatchNorm1d)]
        for stacked, plain in zip(net.norms, stats, strict=True):
            torch.testing.assert_close(stacked.running_mean[k], plain.running_mean)
            torch.testing.assert_close(stacked.running_var[k], plain.running_var)


@pytest.mark.parametrize("norm", [None, "batch", "batch-affine"])
def test_of_is_the_inverse_of_member(norm):
    net = EnsembleMLP((6, 8, 4), members=3, norm=norm, generators=generators(1, 2, 3))
    again = EnsembleMLP.of([net.member(k) for k in range(3)])
    assert again.sizes == net.sizes
    for name, value in net.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_of_refuses_other_forms():
    with pytest.raises(ValueError, match="Linear"):
        EnsembleMLP.of([nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2))])
    with pytest.raises(ValueError, match="model 1"):
        EnsembleMLP.of([nn.Sequential(nn.Linear(3, 2)), nn.Sequential(nn.Linear(4, 2))])
    with pytest.raises(ValueError, match="at least one"):
        EnsembleMLP.of([])


def test_initial_weights_are_torchs_and_do_not_depend_on_companions():
    alone = EnsembleMLP((6, 8, 4), members=1, generators=generators(7))
    company = EnsembleMLP((6, 8, 4), members=3, generators=generators(1, 7, 2))
    for name, value in alone.state_dict().items():
        assert torch.equal(value[0], company.state_dict()[name][1]), name
    many = EnsembleLinear(200, 100, 50)
    solo = torch.cat([nn.Linear(100, 50).weight.flatten() for _ in range(20)])
    assert many.weight.abs().max() <= 0.1
    assert many.bias.abs().max() <= 0.1
    assert many.weight.std().item() == pytest.approx(solo.std().item(), rel=0.01)


def test_shared_inputs_are_the_same_inputs_for_all():
    net = EnsembleMLP((6, 8, 4), members=3)
    x = torch.randn(5, 6)
    torch.testing.assert_close(net(x), net(x.expand(3, 5, 6)))
    conv = EnsembleConv2d(3, 2, 4, 3, padding=1)
    images = torch.randn(5, 2, 6, 6)
    torch.testing.assert_close(conv(images), conv(images.expand(3, 5, 2, 6, 6)))


def test_hidden_is_what_forward_reads():
    net = EnsembleMLP((6, 8, 7, 4), members=3, norm="batch").eval()
    x = torch.randn(3, 5, 6)
    hidden = net.hidden(x)
    assert [tuple(h.shape) for h in hidden] == [(3, 5, 8), (3, 5, 7)]
    assert min(h.min().item() for h in hidden) >= 0
    torch.testing.assert_close(net.linears[-1](hidden[-1]), net(x))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_is_torchs(bias, stride):
    conv = EnsembleConv2d(3, 2, 4, 3, stride=stride, padding=1, bias=bias).double()
    x = torch.randn(3, 5, 2, 7, 6, dtype=torch.float64)
    out = conv(x)
    for k in range(3):
        expected = F.conv2d(x[k], conv.weight[k], conv.bias[k] if bias else None, stride, 1)
        torch.testing.assert_close(out[k], expected, rtol=1e-12, atol=1e-12)


def test_batch_norm_of_images_is_torchs():
    norm, plain = EnsembleBatchNorm(2, 3, affine=True).double(), nn.BatchNorm2d(3).double()
    x = torch.randn(2, 4, 3, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(norm(x)[1], plain(x[1]))
    torch.testing.assert_close(norm.running_var[1], plain.running_var)


def test_batch_norm_refuses_a_batch_of_one():
    with pytest.raises(ValueError, match="more than one value"):
        EnsembleBatchNorm(2, 3)(torch.randn(2, 1, 3))


def test_recalibrated_statistics_are_those_of_the_data():
    net = EnsembleMLP((6, 8, 4), members=2, norm="batch").double()
    x = torch.randn(50, 6, dtype=torch.float64)
    net.train()
    trained = net(x)
    net.recalibrate(x)
    assert net.training
    assert net.norms[0].momentum == 0.1
    net.eval()
    # Evaluation uses the unbiased variance: 50/49 of the batch's.
    torch.testing.assert_close(net.norms[0].running_mean, net.linears[0](x).mean(1))
    torch.testing.assert_close(net.norms[0].running_var, net.linears[0](x).var(1))
    assert (net(x) - trained).abs().max() < 0.05


def test_gru_is_torchs():
    gru = EnsembleGRU(3, 4, 6).double()
    x, state = torch.randn(3, 2, 7, 4, dtype=torch.float64), torch.randn(3, 2, 6, dtype=torch.float64)
    states, last = gru(x, state)
    for k in range(3):
        expected, expected_last = gru.member(k)(x[k], state[k][None])
        torch.testing.assert_close(states[k], expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(last[k], expected_last[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gru(x)[0][0], gru.member(0)(x[0])[0])


def test_embedding_reads_each_members_own_table():
    table = EnsembleEmbedding(3, 5, 2, generators=generators(1, 2, 3))
    index = torch.randint(5, (3, 4, 2))
    out = table(index)
    for k in range(3):
        assert torch.equal(out[k], table.weight[k][index[k]])


def test_loss_and_error_are_those_of_each_member():
    logits, labels = torch.randn(3, 6, 4), torch.randint(4, (3, 6))
    losses = ensemble_cross_entropy(logits, labels, label_smoothing=0.1)
    for k in range(3):
        torch.testing.assert_close(losses[k], F.cross_entropy(logits[k], labels[k], label_smoothing=0.1))
    torch.testing.assert_close(
        ensemble_cross_entropy(logits, labels[0])[1], F.cross_entropy(logits[1], labels[0])
    )
    logits[2, 0, 0] = torch.nan
    errors = ensemble_error(logits, labels)
    assert errors[2] == 1
    assert errors[0] == (logits[0].argmax(-1) != labels[0]).float().mean()


def test_bad_sizes_end_in_one_clear_error():
    with pytest.raises(ValueError, match="at least one member"):
        EnsembleMLP((3, 2), members=0)
    with pytest.raises(ValueError, match="at least inputs and outputs"):
        EnsembleMLP((3,), members=2)
    with pytest.raises(ValueError, match="norm is None"):
        EnsembleMLP((3, 2), members=2, norm="layer")
    with pytest.raises(ValueError, match="one for each of the 2 members"):
        EnsembleMLP((3, 2), members=2, generators=generators(1, 2, 3))
