"""Reading and changing configs."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from assay.lab import InputError
from assay.lab.config import canonical, flat, parse_assignments, with_values


@dataclass(frozen=True)
class Part:
    rate: float = 0.1
    sizes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Config:
    steps: int = 1
    on: bool = False
    name: str = "x"
    folder: str | None = None
    kind: Literal["a", "b"] = "a"
    pair: tuple[float, float] = (0.0, 1.0)
    part: Part = field(default_factory=Part)


def test_text_is_read_as_the_type_of_the_field() -> None:
    changed = with_values(
        Config(),
        {"steps": "1_000", "on": "true", "folder": "/data", "kind": "b", "pair": "0.5,2", "part.rate": "1e-3",
         "part.sizes": "(3, 4, 5)"},
    )  # fmt: skip
    assert changed == Config(1000, True, "x", "/data", "b", (0.5, 2.0), Part(0.001, (3, 4, 5)))
    assert with_values(changed, {"folder": "none"}).folder is None
    assert with_values(Config(), {"part.rate": 1, "part.sizes": [7]}).part == Part(1.0, (7,))
    assert with_values(Config(), {"part.sizes": "7"}).part.sizes == (7,)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("stepz", "1", "did you mean 'steps'"),
        ("part.rats", "1", "did you mean 'part.rate'"),
        ("steps", "1.5", "steps must be int"),
        ("steps", True, "steps must be int"),
        ("on", "yes", "on must be bool"),
        ("kind", "c", "one of a, b"),
        ("part", "1", "group of settings"),
        ("steps.more", "1", "unknown config key"),
        ("part.rate", "fast", "part.rate must be float"),
        ("pair", "1", "needs 2 values"),
        ("part.sizes", "1,x", "must be int"),
        ("name", 3, "name must be str"),
    ],
)
def test_bad_values(key: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        with_values(Config(), {key: value})


def test_flat_and_canonical() -> None:
    assert flat(Config())["part.rate"] == 0.1
    assert canonical(Config()) == canonical(Config())
    assert canonical(Config()) != canonical(Config(part=Part(rate=0.2)))
    assert parse_assignments(["a=1", "b.c = x=y"]) == {"a": "1", "b.c": "x=y"}
    with pytest.raises(InputError, match="key=value"):
        parse_assignments(["a"])
