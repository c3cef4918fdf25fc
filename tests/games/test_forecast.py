"""Opponent models recover the policies that they watched."""

import pytest
import torch
from torch import nn

from assay.games.forecast import ActionForecaster, TabularOpponentModel, fit_opponent
from assay.games.matrix import ipd, play


def watched(replicas: int, rollouts: int, steps: int = 100):
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(2, replicas, 5, generator=generator, dtype=torch.float64)
    noise = torch.rand(steps, 2, replicas, rollouts, generator=generator, dtype=torch.float64)
    return theta[1], play(ipd(), theta[0], theta[1], noise)


def test_counting_recovers_the_policy():
    truth, seen = watched(replicas=3, rollouts=1_000)  # 1e5 steps each
    model = TabularOpponentModel((3,), dtype=torch.float64)
    visits = model.count(seen.states2, seen.actions2)
    assert visits.sum(-1).tolist() == [100_000.0] * 3
    often = visits >= 1_000
    assert often.sum() >= 12
    # The standard error of a logit is 1 / sqrt(n p (1 - p)).
    p = torch.sigmoid(truth)
    error = 1 / (visits * p * (1 - p)).sqrt()
    assert ((model.logits - truth).abs()[often] < torch.maximum(4 * error, torch.tensor(0.1))[often]).all()
    assert ((model.logits - truth).abs()[visits >= 5_000] < 0.1).all()


def test_an_unseen_state_is_even_and_counts_are_smoothed():
    model = TabularOpponentModel()
    visits = model.count(torch.tensor([[0], [0], [0]]), torch.tensor([[0], [0], [1]]))
    assert visits.tolist() == [3, 0, 0, 0, 0]
    assert float(torch.sigmoid(model.logits.detach()[0])) == pytest.approx(3 / 5)
    assert model.logits[1:].tolist() == [0, 0, 0, 0]


def test_gradient_fit_reaches_the_maximum_of_the_likelihood():
    _, seen = watched(replicas=1, rollouts=200)
    states, actions = seen.states2[:, 0], seen.actions2[:, 0]
    model = TabularOpponentModel(dtype=torch.float64)
    losses = fit_opponent(model, states, actions, steps=400, lr=5.0)
    assert losses.shape == (400,)
    assert losses[-1] < losses[0]
    counted = TabularOpponentModel(dtype=torch.float64)
    visits = counted.count(states, actions)
    fitted, known = (m.logits.detach()[visits > 500] for m in (model, counted))
    torch.testing.assert_close(fitted, known, atol=0.05, rtol=0)
    assert isinstance(model, ActionForecaster)


def test_a_network_can_be_fitted():
    torch.manual_seed(0)
    x = torch.randn(256, 3)
    actions = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    net = nn.Linear(3, 3)
    losses = fit_opponent(net, x, actions, steps=50, lr=0.5)
    assert losses[-1] < 0.8 * losses[0]
    assert fit_opponent(lambda o: o @ net.weight.T, x, actions, steps=1, params=[net.weight]).shape == (1,)


def test_forecasts():
    model = TabularOpponentModel()
    model.logits.data = torch.tensor([2.0, -1.0, 0.0, 0.0, 0.0])
    logits, state = model(torch.tensor([[0, 1]]))
    assert logits.shape == (1, 2, 1, 2)
    torch.testing.assert_close(logits.softmax(-1)[0, :, 0, 0], torch.sigmoid(torch.tensor([2.0, -1.0])))
    assert state is None


def test_bad_input_is_told():
    with pytest.raises(ValueError, match="at least 1"):
        fit_opponent(nn.Linear(1, 2), torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64), steps=0)
    with pytest.raises(ValueError, match="do not match"):
        fit_opponent(nn.Linear(1, 2), torch.zeros(3, 1), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="params"):
        fit_opponent(lambda o: o, torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="single model"):
        TabularOpponentModel((2,))(torch.tensor([0]))
    with pytest.raises(ValueError, match="does not fit"):
        TabularOpponentModel((2,)).count(*[torch.zeros(3, 1, 4, dtype=torch.int64)] * 2)
