"""What messages and summaries have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["listed", "plural", "said_by"]


def listed(values: Iterable[Any], most: int = 10, *, noun: str = "") -> str:
    """Return values as messages name them, after a noun for one of them if it is given.

    Examples
    --------
    >>> listed([1, 2, 3, 4, 5, 6, 7], most=5)
    '1, 2, 3, 4, 5 and 2 more'
    >>> listed([4], noun="detector"), listed([4, 5], noun="detector")
    ('detector 4', 'detectors 4, 5')
    """
    texts = [str(value) for value in values]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    what = f"{noun}{'s'[: len(texts) != 1]} " if noun else ""
    return what + ", ".join(texts[:most]) + more


def plural(count: int, noun: str) -> str:
    """Return a number of things.

    Examples
    --------
    >>> plural(1, "star"), plural(2, "star")
    ('1 star', '2 stars')
    """
    return f"{count} {noun}{'s'[: count != 1]}"


def said_by(error: Exception) -> str:
    """Return what an error says, on one line; its kind if it says nothing, or but a key.

    Examples
    --------
    >>> said_by(KeyError("there is no visit 3")), said_by(KeyError("i2")), said_by(MemoryError())
    ('there is no visit 3', "KeyError: 'i2'", 'MemoryError')
    """
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = " ".join(text.split())
    if not text or (isinstance(error, KeyError) and " " not in text):
        return f"{type(error).__name__}: {error}".removesuffix(": ")
    return text
