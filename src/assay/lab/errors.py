"""The errors that end with one line instead of a traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """The user asked for something that cannot be done as asked; the message says what to do. Exit code 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """`InputError` for a name that does not exist, with the nearest one that does."""
    known = list(known)
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from: {', '.join(known) or '(none)'}"
    return InputError(f"unknown {kind} {name!r}: {hint}")
