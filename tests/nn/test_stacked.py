"""Stacked replicas are what they would be alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import clip_grad_norm_, parameters_to_vector

from assay.nn import Stacked, StackedLSTM, clip_replica_grad_norm_, stack_seeds


class Bag(nn.Module):
    """Token table, mean, logits."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(12, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.table(tokens).mean(1))


class Reader(nn.Module):
    """Two LSTM layers, batch first, the last state read out."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, num_layers=2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        states, (h, _) = self.lstm(x)
        return self.head(self.norm(states[:, -1] + h[0]))


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))


def _numbers(*shape: int) -> Callable[[torch.Generator], Tensor]:
    return lambda g: torch.randn(*shape, generator=g)


CASES = {
    "mlp": (_mlp, _numbers(10, 4)),
    "embedding": (Bag, lambda g: torch.randint(12, (10, 5), generator=g)),
    "lstm": (Reader, _numbers(10, 7, 4)),
}
OPTIMIZERS = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}


@pytest.mark.parametrize(
    # RMSProp begins with tiny denominators, which magnify the rounding of float32: compare it in float64.
    ("kind", "dtype", "atol"),
    [("adam", torch.float32, 1e-5), ("adam", torch.float64, 1e-10), ("rmsprop", torch.float64, 1e-10)],
)
@pytest.mark.parametrize("name", CASES)
def test_a_replica_learns_as_it_would_alone(name: str, kind: str, dtype: torch.dtype, atol: float) -> None:
    model_fn, draw = CASES[name]
    make = OPTIMIZERS[kind]
    seeds, steps, clip = (3, 0, 7), 50, 0.3
    stack = stack_seeds(model_fn, seeds).to(dtype)
    optimizer = make(stack.parameters(), lr=3e-3)
    generators = [torch.Generator().manual_seed(100 + s) for s in seeds]
    history = []
    for _ in range(steps):
        x = torch.stack([draw(g) for g in generators])
        x = x.to(dtype) if x.is_floating_point() else x
        y = torch.stack([torch.randn(10, 3, generator=g) * 10**s for s, g in enumerate(generators)]).to(dtype)
        history.append((x, y))
        optimizer.zero_grad()
        (stack(x) - y).square().mean((1, 2)).sum().backward()
        norms = clip_replica_grad_norm_(stack.parameters(), clip)
        optimizer.step()
    assert norms[2] > 10 * norms[0]  # they differ, and each was clipped by its own
    for s, seed in enumerate(seeds):
        torch.manual_seed(seed)
        model = model_fn().to(dtype)
        alone = make(model.parameters(), lr=3e-3)
        for x, y in history:
            alone.zero_grad()
            (model(x[s]) - y[s]).square().mean().backward()
            norm = clip_grad_norm_(model.parameters(), clip)
            alone.step()
        torch.testing.assert_close(norms[s], norm, rtol=1e-3, atol=0)
        replica = stack.replica(s)
        assert type(replica) is type(model)
        for key, value in model.state_dict().items():
            torch.testing.assert_close(replica.state_dict()[key], value, rtol=0, atol=atol)


def test_a_replica_depends_on_its_seed_alone() -> None:
    state = torch.get_rng_state()
    few, many = stack_seeds(_mlp, [5]), stack_seeds(_mlp, 8)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(few.vectors()[0], many.vectors()[5])
    assert len({tuple(v.tolist()) for v in many.vectors().detach()}) == 8


def test_inputs_may_be_shared_and_arguments_need_not_be_tensors() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x: Tensor, factor: float, extra: Tensor | None = None) -> dict[str, Tensor]:
            y = self.linear(x) * factor
            return {"y": y if extra is None else y + extra}

    stack = stack_seeds(Scaled, 3)
    x, extra = torch.randn(5, 4), torch.randn(5, 2)
    shared = stack(x, 2.0, shared=True)["y"]
    assert shared.shape == (3, 5, 2)
    each = stack(x.expand(3, 5, 4), 2.0, extra=extra.expand(3, 5, 2))["y"]
    torch.testing.assert_close(each, shared + extra)


def test_vectors_are_torchs_and_go_both_ways() -> None:
    stack = stack_seeds(Reader, 3)
    vectors = stack.vectors()
    for s in range(3):
        assert torch.equal(vectors[s], parameters_to_vector(stack.replica(s).parameters()))
    other = torch.randn(vectors.shape)
    stack.load_vectors(other)
    assert torch.equal(stack.vectors(), other)
    x = torch.randn(2, 5, 4)
    by_hand = functional_call(stack.replica(0), stack.unflatten(other[1]), (x,))
    torch.testing.assert_close(by_hand, stack(x, shared=True)[1])
    stack.vectors().square().sum().backward()
    grads = [p.grad for p in stack.parameters()]
    assert all(torch.equal(g, 2 * p) for g, p in zip(grads, stack.parameters(), strict=True))
    with pytest.raises(ValueError, match="a replica has"):
        stack.load_vectors(other[:, 1:])


def test_the_lstm_is_torchs() -> None:
    stack = StackedLSTM(3, 5, 8)
    x = torch.randn(3, 6, 2, 5)
    state = (torch.randn(3, 2, 8), torch.randn(3, 2, 8))
    y, (h, c) = stack(x, state)
    for s in range(3):
        expected, (last_h, last_c) = stack.member(s)(x[s], (state[0][s][None], state[1][s][None]))
        torch.testing.assert_close(y[s], expected)
        torch.testing.assert_close(h[s], last_h[0])
        torch.testing.assert_close(c[s], last_c[0])


def test_an_lstm_begins_anew_before_the_step_that_begins_an_episode() -> None:
    stack = StackedLSTM(2, 3, 4)
    x = torch.randn(2, 6, 2, 3)
    first = torch.zeros(2, 6, 2, dtype=torch.bool)
    first[1, 4, 0] = True
    y, _ = stack(x, None, first)
    plain, _ = stack(x)
    fresh, _ = stack(x[:, 4:])
    torch.testing.assert_close(y[1, 4:, 0], fresh[1, :, 0])
    assert not torch.allclose(y[1, 4, 0], plain[1, 4, 0])
    torch.testing.assert_close(y[0], plain[0])
    torch.testing.assert_close(y[1, :, 1], plain[1, :, 1])


@pytest.mark.parametrize("batch_first", [False, True])
def test_lstms_inside_models_take_and_give_states(batch_first: bool) -> None:
    stack = stack_seeds(lambda: nn.LSTM(3, 4, num_layers=2, bias=False, batch_first=batch_first), 3)
    x = torch.randn(3, 5, 6, 3)
    batch = 5 if batch_first else 6
    state = (torch.randn(3, 2, batch, 4), torch.randn(3, 2, batch, 4))
    y, (h, c) = stack(x, state)
    for s in range(3):
        lstm = stack.replica(s)
        assert isinstance(lstm, nn.LSTM)
        expected, last = lstm(x[s], (state[0][s], state[1][s]))
        torch.testing.assert_close(y[s], expected)
        torch.testing.assert_close((h[s], c[s]), last)
    torch.testing.assert_close(stack(x[:, 0])[0][1], stack.replica(1)(x[1, 0])[0])


def test_shared_weights_stay_shared() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(7, 3)
            self.out = nn.Linear(3, 7, bias=False)
            self.out.weight = self.table.weight

        def forward(self, index: Tensor) -> Tensor:
            return self.out(self.table(index))

    stack = stack_seeds(Tied, 2)
    assert len(list(stack.parameters())) == 1
    index = torch.arange(4).expand(2, 4)
    torch.testing.assert_close(stack(index)[1], stack.replica(1)(index[1]))


def test_saving() -> None:
    stack, other = stack_seeds(Reader, 2), stack_seeds(Reader, [8, 9])
    other.load_state_dict(stack.state_dict())
    assert torch.equal(other.vectors(), stack.vectors())


def test_one_exploding_replica_does_not_stop_the_others() -> None:
    p = nn.Parameter(torch.zeros(2, 3))
    p.grad = torch.tensor([[1e6, 0.0, 0.0], [0.3, 0.0, 0.4]])
    norms = clip_replica_grad_norm_([p], 1.0)
    torch.testing.assert_close(norms, torch.tensor([1e6, 0.5]))
    torch.testing.assert_close(p.grad, torch.tensor([[1.0, 0.0, 0.0], [0.3, 0.0, 0.4]]))
    clip_replica_grad_norm_([p], torch.tensor([2.0, 0.25]))
    torch.testing.assert_close(p.grad[1], torch.tensor([0.15, 0.0, 0.2]))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="no models"):
        stack_seeds(_mlp, 0)
    with pytest.raises(ValueError, match=r"replica 1 differs from the first in \['weight'\]"):
        Stacked([nn.Linear(2, 3, bias=False), nn.Linear(3, 3, bias=False)])
    for module in (nn.GRU(2, 3), nn.BatchNorm1d(3)):
        with pytest.raises(ValueError, match="cannot be stacked here"):
            Stacked([nn.Sequential(module)])
    with pytest.raises(ValueError, match="no second direction"):
        Stacked([nn.LSTM(2, 3, bidirectional=True)])
    with pytest.raises(ValueError, match="call backward first"):
        clip_replica_grad_norm_(stack_seeds(_mlp, 2).parameters(), 1.0)
    with pytest.raises(ValueError, match="at least one member"):
        StackedLSTM(0, 2, 3)
