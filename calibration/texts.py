"""What messages and summaries have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["listed", "said_by"]


def listed(values: Iterable[Any], most: int = 5) -> str:
    """Return values as messages name them.

    Examples
    --------
    >>> listed([1, 2, 3, 4, 5, 6, 7])
    '1, 2, 3, 4, 5 and 2 more'
    """
    texts = [str(value) for value in values]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def said_by(error: Exception) -> str:
    """Return what an error says, on one line; its kind if it says nothing.

    Examples
    --------
    >>> said_by(KeyError("no visit 3")), said_by(MemoryError())
    ('no visit 3', 'MemoryError')
    """
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__
