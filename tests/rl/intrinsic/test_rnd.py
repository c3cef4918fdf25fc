"""Random network distillation and the mixer that hands its reward to a learner."""

import pytest
import torch

from assay.rl.intrinsic import RND, IntrinsicMixer, IntrinsicReward, freeze, last_frame, make_rnd
from assay.rl.nets import mlp
from assay.rl.normalize import ReturnNormalizer, RunningMeanStd
from assay.rl.policies import actor_critic
from assay.rl.ppo import PPO
from assay.rl.rollout import Batch, Rollout, collect, random_rollout, start
from assay.rl.train import train
from tests.rl.worlds import Line, NextStepReset


def _g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _rnd(**options) -> RND:
    return make_rnd((3,), k=8, hidden=16, normalize=False, generator=_g(), **options)


def test_a_predictor_that_is_the_target_finds_nothing_new() -> None:
    target = mlp((3, 8), final_gain=1.0, generator=_g())
    rnd = RND(target, mlp((3, 8), final_gain=1.0, generator=_g()))
    assert (rnd.bonus(torch.randn(5, 7, 3)) == 0).all()


def test_the_bonus_is_the_mean_squared_error_over_features() -> None:
    rnd, x = _rnd(), torch.randn(5, 7, 3, generator=_g(1))
    expected = (rnd.predictor(x.view(-1, 3)) - rnd.target(x.view(-1, 3))).square().sum(-1) / 8
    torch.testing.assert_close(rnd.bonus(x), expected.view(5, 7))
    assert (rnd.bonus(x) >= 0).all()


def test_the_target_never_learns() -> None:
    rnd = _rnd()
    trained = list(rnd.parameters())
    assert all(p.requires_grad for p in trained)
    assert sum(p.numel() for p in trained) == sum(p.numel() for p in rnd.predictor.parameters())
    assert {k for k in rnd.state_dict() if k.startswith("target")}, "but it is saved"
    before = {k: v.clone() for k, v in rnd.state_dict().items() if k.startswith("target")}
    optimizer = torch.optim.Adam(rnd.parameters(), 1e-2, weight_decay=0.1)
    x = torch.randn(64, 3, generator=_g(1))
    first = float(rnd.bonus(x).mean())
    for _ in range(100):
        optimizer.zero_grad()
        rnd.prediction_loss(x).backward()
        optimizer.step()
    assert all(torch.equal(rnd.state_dict()[k], v) for k, v in before.items())
    assert rnd.bonus(x).mean() < 0.5 * first
    again = _rnd()
    again.load_state_dict(rnd.state_dict())
    torch.testing.assert_close(again.bonus(x), rnd.bonus(x))


def test_linear_distillation_forgets_novelty_at_the_rate_of_the_second_moments() -> None:
    # Full-batch gradient descent on the squared error: the error in eigen-direction u of X'X/n falls as
    # (1 - lr * 2 lambda_u)^t for the loss |.|^2 summed over the one feature.
    x = torch.randn(200, 4, dtype=torch.float64, generator=_g()) * torch.tensor([2.0, 1.0, 0.5, 0.1])
    goal = torch.nn.Linear(4, 1, bias=False, dtype=torch.float64)
    guess = torch.nn.Linear(4, 1, bias=False, dtype=torch.float64)
    rnd = RND(goal, guess, update_fraction=1.0)
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    start_error = (guess.weight.detach() - rnd.target.weight) @ vectors
    lr, steps = 0.05, 60
    optimizer = torch.optim.SGD(guess.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        rnd.prediction_loss(x).backward()
        optimizer.step()
    error = (guess.weight.detach() - rnd.target.weight) @ vectors
    torch.testing.assert_close(error, start_error * (1 - 2 * lr * values) ** steps, rtol=1e-5, atol=1e-12)


def test_update_fraction_drops_rows_without_bias() -> None:
    rnd = _rnd(update_fraction=0.25)
    x = torch.randn(256, 3, generator=_g(1))
    errors = rnd.bonus(x)
    losses = torch.stack([rnd.prediction_loss(x).detach() for _ in range(400)])
    assert losses.mean().item() == pytest.approx(errors.mean().item(), rel=0.02)
    assert losses.std() > 0
    rnd.update_fraction = 0.0
    assert rnd.prediction_loss(x) == 0
    with pytest.raises(ValueError, match="a share between 0 and 1"):
        _rnd(update_fraction=1.5)


def test_the_reward_is_of_the_true_successor() -> None:
    env = Line(8, length=3, max_steps=5)
    rollout = random_rollout(env, 30, _g())
    rnd = make_rnd((1,), k=8, hidden=16, normalize=False, generator=_g())
    expected = rnd.bonus(rollout.next_obs())
    torch.testing.assert_close(rnd.reward(rollout), expected)
    ended = rollout.ended
    wrong = rnd.bonus(rollout.obs[1:])  # the reset observation: a constant novelty of the start
    assert not torch.allclose(wrong[ended], expected[ended])
    torch.testing.assert_close(wrong[~ended], expected[~ended])


def test_statistics_come_before_the_first_reward() -> None:
    env = Line(4, length=50, max_steps=60)
    rnd = make_rnd((1,), k=4, hidden=8, generator=_g())
    with pytest.raises((ValueError, RuntimeError)):
        rnd.bonus(torch.zeros(3, 1))
    rnd.init_stats(env, 200, _g())
    rollout = random_rollout(env, 200, _g())
    seen = rollout.next_obs().reshape(-1, 1)
    torch.testing.assert_close(rnd.obs_norm.mean.float(), seen.mean(0), rtol=1e-5, atol=1e-5)


def test_dummy_rows_enter_no_statistic_and_earn_nothing() -> None:
    rollout = random_rollout(NextStepReset(8, length=3, max_steps=6), 40, _g())
    rnd = make_rnd((1,), k=4, hidden=8, generator=_g())
    rnd.observe(rollout)
    assert int(rnd.obs_norm.count) == int(rollout.valid.sum()) < rollout.valid.numel()
    mixer = IntrinsicMixer([rnd], extrinsic=False)
    mixer.fill(rollout)
    assert (rollout.reward[~rollout.valid] == 0).all()


def test_bad_input_is_refused() -> None:
    rnd = _rnd()
    with pytest.raises(ValueError, match="not finite"):
        rnd.bonus(torch.tensor([[float("nan"), 0.0, 0.0]]))
    with pytest.raises(ValueError, match="8 and 6 features"):
        RND(mlp((3, 8)), mlp((3, 6))).bonus(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="uint8 images need obs_norm"):
        make_rnd((1, 36, 36), 8, 8, normalize=False).bonus(torch.zeros(2, 1, 36, 36, dtype=torch.uint8))
    with pytest.raises(ValueError, match="choose it from a dictionary"):
        rnd.bonus({"image": torch.zeros(2, 3)})


def test_frames_and_images() -> None:
    rnd = make_rnd((1, 84, 84), 16, 32, normalize=False, preprocess=last_frame)
    stack = torch.rand(2, 3, 4, 84, 84)
    bonus = rnd.bonus(stack)
    assert bonus.shape == (2, 3)
    stack[..., 0, :, :] = 0  # an older frame changes nothing
    torch.testing.assert_close(rnd.bonus(stack), bonus)


def test_paper_networks() -> None:
    rnd = make_rnd((1, 84, 84))
    linears = [m for m in rnd.predictor.modules() if isinstance(m, torch.nn.Linear)]
    assert [m.out_features for m in linears] == [512, 512, 512]  # two hidden layers more than the target
    assert [m.out_features for m in rnd.target.modules() if isinstance(m, torch.nn.Linear)] == [512]
    assert rnd.target(torch.rand(1, 1, 84, 84)).min() < 0, "the target ends linearly"


def test_freeze_leaves_nothing_to_train() -> None:
    net = freeze(mlp((3, 4, 2)))
    assert not list(net.parameters())
    assert len(net.state_dict()) == 4
    x = torch.randn(2, 3, requires_grad=True)
    net(x).sum().backward()
    assert x.grad is not None


class _Constant(IntrinsicReward):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value, self.observed = value, 0

    def reward(self, rollout: Rollout) -> torch.Tensor:
        return torch.full(rollout.reward.shape[:2], self.value)

    def observe(self, rollout: Rollout) -> None:
        self.observed += 1

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"a": torch.tensor(self.value), "b": torch.tensor(1.0)}


def test_the_mixer_fills_streams_beside_the_worlds_reward() -> None:
    env = Line(4, length=3, max_steps=5)
    model = actor_critic(env, streams=3, generator=_g())
    rollout = Rollout(10, 4, 3)
    collect(env, model, rollout, start(env, model), _g())
    world = rollout.reward[..., 0].clone()
    mixer = IntrinsicMixer([_Constant(2.0), _Constant(5.0)], normalizers=[None, ReturnNormalizer(0.9, 4)])
    raws = mixer.fill(rollout)
    assert torch.equal(rollout.reward[..., 0], world)
    assert (rollout.reward[..., 1] == 2).all()
    assert (raws[1] == 5).all()
    assert not (rollout.reward[..., 2] == 5).any()
    name, loss, weight = mixer.loss(Batch(rollout, torch.arange(4)))
    assert (name, float(loss), weight) == ("intrinsic", 9.0, 1.0)
    assert mixer.streams == 3
    assert mixer.modules[0].observed == 1
    with pytest.raises(ValueError, match="3 reward streams need"):
        mixer.fill(Rollout.stack([random_rollout(env, 3)]))
    with pytest.raises(ValueError, match="one normalizer"):
        IntrinsicMixer([_Constant(1.0)], normalizers=[])
    with pytest.raises(ValueError, match="not finite"):
        IntrinsicMixer([_Constant(float("inf"))], extrinsic=False).fill(random_rollout(env, 3))


def test_curiosity_alone_never_sees_the_worlds_reward() -> None:
    def run(scale: float) -> torch.Tensor:
        env = Line(8, length=3, max_steps=6, generator=_g())
        original = env._step
        env._step = lambda action: (lambda r, t, i: (r * scale, t, i))(*original(action))  # type: ignore[method-assign]
        model = actor_critic(env, hidden=(16,), generator=_g(1))
        rnd = make_rnd((1,), k=4, hidden=8, generator=_g(2))
        rnd.init_stats(env, 20, _g(3))
        mixer = IntrinsicMixer([rnd], extrinsic=False, normalizers=[ReturnNormalizer(0.99, 8)])
        optimizer = torch.optim.Adam([*model.parameters(), *mixer.parameters()], 1e-2)
        ppo = PPO(model, optimizer, aux_losses=[mixer.loss], episodic=False)
        for update in train(env, model, ppo, 4, 8, mixer, _g(4)):
            assert "intrinsic" in update.metrics
            assert "intrinsic_0" in update.metrics
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(run(1.0), run(1e6))


def test_running_statistics_are_saved_with_the_module() -> None:
    rnd = make_rnd((3,), k=4, hidden=8)
    assert isinstance(rnd.obs_norm, RunningMeanStd)
    rnd.obs_norm.update(torch.randn(50, 3))
    again = make_rnd((3,), k=4, hidden=8)
    again.load_state_dict(rnd.state_dict())
    x = torch.randn(5, 3)
    torch.testing.assert_close(again.bonus(x), rnd.bonus(x))
