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
    """Return what an error says, on one line; its kind if it says nothing.

    A key alone, which is what a mapping says that lacks it, becomes a sentence.

    Examples
    --------
    >>> said_by(KeyError("no visit 3")), said_by(MemoryError())
    ('no visit 3', 'MemoryError')
    >>> said_by(KeyError("i2")), said_by(KeyError(7))
    ("there is no 'i2' (KeyError)", 'there is no 7 (KeyError)')
    """
    kind = type(error).__name__
    if isinstance(error, KeyError) and error.args:
        (key, *_), text = error.args, str(error.args[0])
        is_sentence = isinstance(key, str) and " " in text.strip()
        text = text if is_sentence else f"there is no {key!r} ({kind})"
    else:
        text = str(error)
    return " ".join(text.split()) or kind
