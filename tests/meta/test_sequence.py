"""Meta-learners: no leakage, frozen states that probes do not move, outer training that learns."""

import copy

import pytest
import torch

from assay.analysis import probe_linear
from assay.meta import (
    BayesBandit,
    ContextBandit,
    FourierTasks,
    LinearTasks,
    MetaState,
    RecurrentPolicy,
    SequenceMetaLearner,
    meta_train,
    train_policy,
    visit_numbers,
)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=[0, 12], ids=["linear", "mlp"])
def model(request) -> SequenceMetaLearner:
    return SequenceMetaLearner(3, 16, 2, readout=request.param, generator=source())


def episode(n: int = 5, steps: int = 9):
    batch = LinearTasks(3, 2).sample(n, steps, source(1))
    return batch.x, batch.y


def test_a_prediction_sees_the_past_targets_only(model):
    x, y = episode()
    before = model(x, y)
    for t in range(9):
        changed = y.clone()
        changed[:, t] += 10.0
        after = model(x, changed)
        assert torch.equal(after[:, : t + 1], before[:, : t + 1]), "y_t reached the prediction of y_t"
        if t < 8:
            assert not torch.allclose(after[:, t + 1], before[:, t + 1])


def test_asking_a_state_gives_what_the_network_would_have_said(model):
    """The prediction at t + 1 is the state after t pairs, asked the next input: for all times and for one."""
    x, y = episode()
    expected = model(x, y)
    states = model.state_after(x, y, list(range(9)))
    answers = model.predict_from(states, x.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(answers, expected, atol=1e-5, rtol=1e-5)
    for t in (0, 4, 8):
        alone = model.predict_from(model.state_after(x, y, t), x[:, t : t + 1]).squeeze(1)
        torch.testing.assert_close(alone, expected[:, t], atol=1e-5, rtol=1e-5)


def test_probes_do_not_move_the_state_nor_meet_each_other(model):
    x, y = episode()
    state = model.state_after(x, y, 4)
    kept = MetaState(*(part.clone() for part in state))
    probes = torch.randn(24, 3, generator=source(2))
    first = model.predict_from(state, probes)
    again = model.predict_from(state, probes.flip(0)).flip(1)
    assert all(torch.equal(a, b) for a, b in zip(state, kept, strict=True))
    torch.testing.assert_close(first, again)
    torch.testing.assert_close(model.predict_from(state, probes[:1]), first[:, :1])
    assert probe_linear(lambda p: model.predict_from(state, p), 3).weight.shape == (5, 2, 3)


def test_the_state_ends_with_the_last_target(model):
    x, y = episode()
    state = model.state_after(x, y, [0, 3, 9])
    torch.testing.assert_close(state.last, torch.stack([torch.zeros(5, 2), y[:, 2], y[:, 8]], 1))
    assert float(state.hidden[:, 0].abs().max()) == 0.0
    # what comes later than t is not in the state after t
    later = y.clone()
    later[:, 4:] = 100.0
    early = model.state_after(x, later, 4)
    torch.testing.assert_close(early.hidden, model.state_after(x, y, 4).hidden)


def test_probing_has_no_gradient_and_the_same_values(model):
    x, y = episode()
    assert not model.state_after(x, y, 3).hidden.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(
            model.predict_from(model.state_after(x, y, 3), x[:, 3:4])[:, 0],
            model(x, y)[:, 3],
            atol=1e-5,
            rtol=1e-5,
        )


def test_first_weights_come_from_the_generator():
    torch.manual_seed(5)
    one = SequenceMetaLearner(3, 16, 2, generator=source(3))
    other = SequenceMetaLearner(3, 16, 2, generator=source(3))
    third = SequenceMetaLearner(3, 16, 2, generator=source(4))
    pairs = list(zip(one.parameters(), other.parameters(), third.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert any(not torch.equal(a, c) for a, _, c in pairs)
    bias = one.lstm.bias_ih_l0 + one.lstm.bias_hh_l0
    assert bias[16:32].tolist() == [1.0] * 16
    assert float(bias[:16].detach().abs().max()) <= 2 / 4


def test_outer_training_beats_not_learning():
    """A one-dimensional map: after 10 pairs the trained state predicts far better than knowing nothing."""
    tasks = LinearTasks(1, 1, 0.1)
    model = SequenceMetaLearner(1, 16, 1, generator=source())
    start = copy.deepcopy(model.state_dict())
    done = meta_train(
        model, tasks, 400, horizon=10, batch=32, warmup=20, snapshots=(0.5, 1.0), generator=source(1)
    )
    seen = tasks.sample(500, 10, source(2))
    error = (model(seen.x, seen.y) - seen.y).square().mean((0, 2)).detach()
    assert float(error[-1]) < 0.3 < 0.7 < float(error[0]), error
    assert done.losses.shape == (400,)
    assert set(done.snapshots) == {0.5, 1.0}
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in done.snapshots[1.0].items())
    assert any(not torch.equal(v, model.state_dict()[k]) for k, v in done.snapshots[0.5].items())
    assert any(not torch.equal(v, start[k]) for k, v in done.snapshots[0.5].items())


def test_outer_training_repeats_and_calls_the_loop():
    calls = []

    def over(n):
        calls.append(n)
        return range(n)

    runs = []
    for _ in range(2):
        model = SequenceMetaLearner(2, 8, 1, readout=8, generator=source())
        runs.append(
            meta_train(model, FourierTasks(2), 5, horizon=6, batch=4, generator=source(1), over=over).losses
        )
    assert torch.equal(*runs)
    assert calls == [5, 5]


def test_a_policy_learns_the_bandit():
    """Two contexts, two actions: one failure tells all, so from the second visit on success is certain."""
    world = ContextBandit(2, 2)
    policy = RecurrentPolicy(world.obs_dim, 24, 2, generator=source())
    train_policy(policy, world, 600, horizon=10, copies=64, warmup=20, generator=source(1))
    tasks = world.sample(400, 10, source(2))
    _, _, reward = policy.play(world, tasks, source(3))
    visit = visit_numbers(tasks.contexts, 2)
    assert float(reward[visit == 1].mean()) == pytest.approx(0.5, abs=0.08)
    assert float(reward[visit >= 2].mean()) > 0.9
    assert BayesBandit.success(torch.tensor(2), 2) == 1.0


def test_playing_and_replaying_agree():
    world = ContextBandit(3, 3)
    policy = RecurrentPolicy(world.obs_dim, 8, 3, generator=source())
    tasks = world.sample(6, 7, source(1))
    obs, action, reward = policy.play(world, tasks, source(2))
    assert obs.shape == (6, 7, 7)
    assert action.shape == reward.shape == (6, 7)
    again = world.reset(tasks)
    state = None
    logits, _ = policy(obs)
    for t in range(7):
        assert torch.equal(again, obs[:, t])
        out, state = policy.lstm(again.unsqueeze(1), state)
        torch.testing.assert_close(policy.heads(out[:, 0])[:, :-1], logits[:, t], atol=1e-5, rtol=1e-5)
        again, _, _ = world.step(action[:, t])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x, y: m.state_after(x, y, 10), "length of the episode"),
        (lambda m, x, y: m.state_after(x, y, [-1]), "length of the episode"),
        (lambda m, x, y: m(x[..., :2], y), "features"),
        (lambda m, x, y: SequenceMetaLearner(0, 4, 1), "at least 1"),
        (lambda m, x, y: meta_train(m, LinearTasks(3, 2), 0, horizon=3), "at least one step"),
        (lambda m, x, y: meta_train(m, LinearTasks(3, 2), 3, horizon=3, snapshots=(0.0,)), "shares"),
        (lambda m, x, y: meta_train(m, LinearTasks(3, 2), 3, horizon=3, rate=-1.0), "positive"),
        (lambda m, x, y: RecurrentPolicy(3, 4, 1), "actions at least 2"),
    ],
)
def test_errors(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model, *episode())
