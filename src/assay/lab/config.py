"""Reading and changing frozen config dataclasses, by dotted key and by the text of a command line."""

import ast
import json
import types
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from assay.lab.errors import InputError, unknown

Config = Any
"""A frozen dataclass instance."""


def flat(config: Config, prefix: str = "") -> dict[str, Any]:
    """`{"gan.steps": 900, ...}`: every value of a config under its dotted key."""
    values: dict[str, Any] = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            values |= flat(value, f"{prefix}{f.name}.")
        else:
            values[prefix + f.name] = value
    return values


def with_values(config: Config, changes: Mapping[str, Any]) -> Config:
    """A copy of `config` with values replaced by dotted key; text is read as the field's type."""
    for key, value in changes.items():
        config = _with_value(config, key, key, value)
    return config


def _with_value(config: Config, key: str, whole: str, value: Any) -> Config:
    name, _, rest = key.partition(".")
    if name not in {f.name for f in fields(config)}:
        prefix = whole[: len(whole) - len(key)]
        raise unknown("config key", whole, [prefix + k for k in flat(config)])
    old = getattr(config, name)
    if is_dataclass(old):
        if not rest:
            raise InputError(
                f"{whole!r} is a group of settings: set one of {', '.join(flat(old, whole + '.'))}"
            )
        return replace(config, **{name: _with_value(old, rest, whole, value)})
    if rest:
        raise unknown("config key", whole, flat(config, whole[: len(whole) - len(key)]))
    return replace(config, **{name: convert(value, get_type_hints(type(config))[name], whole)})


def convert(value: Any, kind: Any, key: str) -> Any:
    """`value` as `kind`: text is parsed, an int may become a float, a list a tuple; else one clear error."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        # None first, or the text "none" would be taken as text where both are allowed.
        for option in sorted(arguments, key=lambda kind: kind is not type(None)):
            try:
                return convert(value, option, key)
            except InputError:
                continue
        raise _badly_typed(key, value, kind)
    if kind is type(None):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
            return None
        raise _badly_typed(key, value, kind)
    if origin is Literal:
        for option in arguments:
            if value == option or str(option) == value:
                return option
        raise InputError(f"{key} must be one of {', '.join(map(str, arguments))}, not {value!r}")
    if kind is bool:
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if isinstance(value, bool):
            return value
        raise _badly_typed(key, value, kind)
    if kind is str:
        if isinstance(value, str):
            return value
        raise _badly_typed(key, value, kind)
    if kind in (int, float):
        if isinstance(value, bool):
            raise _badly_typed(key, value, kind)
        try:
            number = kind(value.replace("_", "")) if isinstance(value, str) else value
        except ValueError:
            raise _badly_typed(key, value, kind) from None
        if kind is float and isinstance(number, int | float):
            return float(number)
        if kind is int and isinstance(number, int):
            return number
        raise _badly_typed(key, value, kind)
    if origin is tuple or kind is tuple:
        if isinstance(value, str):
            try:
                value = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                value = tuple(part.strip() for part in value.split(","))
            value = value if isinstance(value, list | tuple) else (value,)
        if not isinstance(value, list | tuple):
            raise _badly_typed(key, value, kind)
        if not arguments:
            return tuple(value)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(convert(item, arguments[0], key) for item in value)
        if len(value) != len(arguments):
            raise InputError(f"{key} needs {len(arguments)} values, not {len(value)}")
        return tuple(convert(item, k, key) for item, k in zip(value, arguments, strict=True))
    if isinstance(value, kind):
        return value
    raise _badly_typed(key, value, kind)


def _badly_typed(key: str, value: Any, kind: Any) -> InputError:
    name = kind.__name__ if isinstance(kind, type) else str(kind)
    return InputError(f"{key} must be {name}, not {value!r}")


def parse_assignments(texts: list[str]) -> dict[str, str]:
    """`["steps=5", "gan.rate=1e-3"]` as a dict."""
    values = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key.strip():
            raise InputError(f"--set needs key=value, not {text!r}")
        values[key.strip()] = value.strip()
    return values


def canonical(config: Config) -> str:
    """A config as text that is equal exactly when its values are."""
    return json.dumps(asdict(config), sort_keys=True, default=str)
