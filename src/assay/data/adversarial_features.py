r"""Features that belong to one example only: data on which an optimiser's implicit bias decides what is learned.

Wilson et al. 2017 (arXiv 1705.08292, section 3.3) build a linearly separable problem with one true feature, two
constant ones and, for every example, features that no other example has: one for a positive example, five for a
negative one. Many weight vectors fit it; which one is found depends on the optimiser. The same features can be added
to any data set.
"""

import inspect
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


def add_unique_features(
    x: Float[Tensor, "n features"],
    y: Float[Tensor, " n"],
    strength: float,
    k_pos: int = 1,
    k_neg: int = 5,
    first: int = 0,
    total: int | None = None,
) -> Float[Tensor, "n more_features"]:
    """Give every example features of its own, as many as its label says.

    `total` blocks of `max(k_pos, k_neg)` columns are appended. Example i has the value `strength` in the first
    `k_pos` (label +1) or `k_neg` (label -1) columns of block `first + i`; all else is 0.

    Args:
        x: features.
        y: labels, +1 or -1.
        strength: value of a unique feature, >= 0.
        k_pos, k_neg: unique features of a positive and of a negative example.
        first: block of the first example. Training data: 0. Fresh data: the number of training examples, so that
            no block is shared.
        total: blocks appended; default `first + n`. For matrices with equal columns give both parts the same.

    Raises:
        ValueError: a label is not +1 or -1, strength or a count is negative, or the blocks do not suffice.

    >>> add_unique_features(torch.ones(2, 1), torch.tensor([1.0, -1.0]), 3.0, k_pos=1, k_neg=2)
    tensor([[1., 3., 0., 0., 0.],
            [1., 0., 0., 3., 3.]])
    """
    n = len(x)
    total = first + n if total is None else total
    _checked(strength, k_pos, k_neg)
    if y.shape != (n,) or not bool(((y == 1) | (y == -1)).all()):
        raise ValueError(f"y holds one label, +1 or -1, for each of the {n} examples")
    if first < 0 or first + n > total:
        raise ValueError(f"{n} examples from block {first} on need {first + n} blocks: got total = {total}")
    width = max(k_pos, k_neg)
    counts = torch.where(y > 0, k_pos, k_neg)
    own = (torch.arange(width, device=x.device) < counts[:, None]).to(x) * strength
    blocks = x.new_zeros(n, total, width)
    rows = torch.arange(n, device=x.device)
    blocks[rows, first + rows] = own
    return torch.cat([x, blocks.flatten(1)], 1)


def _checked(strength: float, k_pos: int, k_neg: int) -> None:
    if not strength >= 0:
        raise ValueError(f"strength must be >= 0: got {strength}")
    if min(k_pos, k_neg) < 0:
        raise ValueError(f"k_pos and k_neg must be >= 0: got {k_pos} and {k_neg}")


def _base(n_pos: int, n_neg: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """The true feature and the two constant ones, and the labels."""
    if n_pos < 1 or n_neg < 1:
        raise ValueError(f"both classes need examples: got n_pos = {n_pos}, n_neg = {n_neg}")
    y = torch.ones(n_pos + n_neg, dtype=torch.float64)
    y[n_pos:] = -1
    if generator is not None:
        y = y[torch.randperm(len(y), generator=generator)]
    return torch.stack([y, torch.ones_like(y), torch.ones_like(y)], 1), y


def wilson_dataset(
    n_pos: int, n_neg: int, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "n features"], Float[Tensor, " n"]]:
    """The adversarial training set of Wilson et al. 2017, section 3.3, in float64.

    Columns: the label, 1, 1, and five for each example (`add_unique_features` with strength 1): 3 + 5 n in all.
    With n_pos > n_neg, gradient descent from 0 finds a solution without test error, and diagonal adaptive methods
    one that calls every new point positive.

    Args:
        n_pos, n_neg: examples of each class, at least one.
        generator: shuffles the examples; None: positives first.

    >>> x, y = wilson_dataset(3, 2)
    >>> x.shape, (x @ (x.T @ y).sign() / y).tolist()
    (torch.Size([5, 28]), [4.0, 4.0, 4.0, 4.0, 4.0])
    """
    x, y = _base(n_pos, n_neg, generator)
    return add_unique_features(x, y, 1.0), y


def wilson_test_set(
    n_pos: int, n_neg: int, n_train: int, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "n features"], Float[Tensor, " n"]]:
    """Fresh points of the same kind, to any number: their unique features lie behind those of `n_train` training
    points, so there are 3 + 5 (n_train + n) columns. A trained weight vector is 0 there: pad it with 5 n zeros."""
    if n_train < 0:
        raise ValueError(f"n_train must be >= 0: got {n_train}")
    x, y = _base(n_pos, n_neg, generator)
    return add_unique_features(x, y, 1.0, first=n_train), y


class UniqueFeatureAugmenter:
    """`add_unique_features` as a scikit-learn transformer: what would such features do to *your* model?

    In a pipeline, `fit_transform` gives every training example its own features; `transform` gives fresh
    examples 0 in the training examples' columns. Their own columns are left out: no fitted model that starts
    from 0 weighs a feature that it never saw.

    Args:
        strength: value of a unique feature, >= 0.
        k_pos, k_neg: how many a positive and a negative example gets.

    >>> augmenter = UniqueFeatureAugmenter(strength=1.0, k_pos=1, k_neg=2)
    >>> augmenter.fit_transform([[0.5], [0.25]], [1, -1])
    array([[0.5 , 1.  , 0.  , 0.  , 0.  ],
           [0.25, 0.  , 0.  , 1.  , 1.  ]])
    >>> augmenter.transform([[0.75]])
    array([[0.75, 0.  , 0.  , 0.  , 0.  ]])
    """

    def __init__(self, strength: float = 1.0, k_pos: int = 1, k_neg: int = 5):
        self.strength, self.k_pos, self.k_neg = strength, k_pos, k_neg

    def fit(self, x: ArrayLike, y: ArrayLike) -> "UniqueFeatureAugmenter":
        """Remember how many columns there are."""
        self.fit_transform(x, y)
        return self

    def fit_transform(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """Training examples [n, features] with labels +1 or -1 [n], each with its own features."""
        tensor = torch.as_tensor(np.asarray(x, dtype=np.float64))
        if tensor.ndim != 2:
            raise ValueError(f"x must have two axes, examples and features: got {tensor.ndim}")
        labels = torch.as_tensor(np.asarray(y, dtype=np.float64))
        out = add_unique_features(tensor, labels, self.strength, self.k_pos, self.k_neg)
        self.n_features_in_ = tensor.shape[1]
        self.n_features_out_ = out.shape[1]
        return out.numpy()

    def transform(self, x: ArrayLike) -> NDArray[np.float64]:
        """Fresh examples [n, features]: 0 in every unique column of the training set."""
        if not hasattr(self, "n_features_in_"):
            raise ValueError("call fit or fit_transform first")
        array = np.asarray(x, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != self.n_features_in_:
            raise ValueError(f"x must be [n, {self.n_features_in_}] as in fit: got {array.shape}")
        return np.pad(array, ((0, 0), (0, self.n_features_out_ - self.n_features_in_)))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments (scikit-learn's protocol)."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> "UniqueFeatureAugmenter":
        """Set constructor arguments (scikit-learn's protocol)."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"parameters are {', '.join(known)}: got {name!r}")
            setattr(self, name, value)
        return self
