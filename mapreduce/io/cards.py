"""Header cards as they are in files: what of them can be read, and what has to be mended first.

Writers break the FITS standard in small ways (``AIRMASS = nan``, an unquoted ``12:34:56``), and
astropy refuses such a card whenever somebody looks at it. Here headers enter, and each card is
made one that can be read and written again: a value that is none is kept as text.
"""

from __future__ import annotations

import cmath
import contextlib
import math
import re
import warnings
from collections.abc import Iterator
from typing import Any

from astropy.io import fits

__all__ = ["CARD", "is_number", "mended", "value_of"]

CARD = 80  # bytes
_LISTED = 5  # of mended cards, in a warning

# FITS has no other characters than these; what else is there, such as a tab, is no text of a card.
_PRINTABLE = bytes(i if 32 <= i < 127 else 32 if i < 32 else ord("?") for i in range(256))
_PLAIN_VALUE = re.compile(rb" +(?:([+-]?\d+)|'([^']*)'|([TF])) *(?:/.*)?")
_PLAIN_CARD = re.compile(
    rb"(?:[A-Z0-9_-]{1,8} *(?<=.{8})= +|HIERARCH +[A-Z0-9_.$-]+(?: +[A-Z0-9_.$-]+)* *= +)"
    rb"(?:'[^']*'|[TF]|[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:E[+-]?\d{1,2})?|) *(?:/.*)?"
    rb"|(?:COMMENT |HISTORY |        ).*|END {77}"
)


def mended(raw: bytes, where: str) -> fits.Header:
    """Return the header in a file's bytes, every card of which can be read and written.

    A value that is no value of FITS becomes text, and a warning names the card. Characters that
    FITS does not have become "?", control characters spaces.

    Parameters
    ----------
    raw : bytes
        The cards, up to END or to their end.
    where : str
        How the warning names the header.

    Examples
    --------
    >>> raw = b"AIRMASS = nan / of the middle".ljust(80) + b"EXPTIME = 30.0".ljust(80)
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     header = mended(raw, "a.fits, HDU 0")
    >>> print(caught[0].message)
    a.fits, HDU 0: 1 card cannot be parsed, kept as text: AIRMASS = nan / of the middle
    >>> header["AIRMASS"], header["EXPTIME"]
    ('nan', 30.0)
    """
    texts, broken = [], []
    for card in _cards(raw.translate(_PRINTABLE)):
        text, is_whole = card.decode("ascii"), True
        if len(card) > CARD or not _PLAIN_CARD.fullmatch(card):
            text, is_whole = _readable(text)
        if not is_whole:
            broken.append(card[:CARD].decode("ascii").rstrip())
        texts.append(text)
    if broken:
        count = "1 card" if len(broken) == 1 else f"{len(broken)} cards"
        more = f"; and {len(broken) - _LISTED} more" if len(broken) > _LISTED else ""
        warnings.warn(
            f"{where}: {count} cannot be parsed, kept as text: "
            + "; ".join(broken[:_LISTED])
            + more,
            stacklevel=2,
        )
    return fits.Header.fromstring("".join(texts))


def _cards(raw: bytes) -> Iterator[bytes]:
    """Return the cards up to END, each with the CONTINUE cards that go on with its text."""
    card = b""
    for start in range(0, len(raw), CARD):
        piece = raw[start : start + CARD].ljust(CARD)
        if piece.startswith(b"END     "):
            break
        if piece.startswith(b"CONTINUE") and card:
            card += piece
            continue
        if card:
            yield card
        card = piece
    if card:
        yield card


def _readable(text: str) -> tuple[str, bool]:
    """Return a card with its CONTINUE cards as astropy reads it, and whether its value is whole."""
    if "=" not in text[: CARD if text.startswith("HIERARCH") else 9]:
        return f"COMMENT {text[:CARD].strip()}"[:CARD].ljust(CARD), False
    is_standard = text[8:10] == "= " or text.startswith("HIERARCH ")
    for candidate in [text, _standard(text)] if is_standard else [_standard(text)]:
        card = fits.Card.fromstring(candidate)
        with contextlib.suppress(fits.VerifyError, ValueError, OverflowError):
            if _is_finite(card.value):
                card.verify("silentfix+exception")
                fixed = str(card)
                _ = fits.Card.fromstring(fixed).value  # which may be broken by the fix
                return fixed, True
    return _as_text(text[:CARD]), False


def _standard(text: str) -> str:
    """Return a card with its keyword and the sign after it where FITS has them."""
    keyword, value = _parted(text)
    return f"{_keyword(keyword)}= {value}"[: len(text)].ljust(len(text))


def _as_text(text: str) -> str:
    """Return a card whose value is what stands there, as text."""
    keyword, value = _parted(text)
    value, _, comment = value.partition("/")
    with contextlib.suppress(ValueError):
        card = fits.Card(_keyword(keyword).strip(), value.strip().strip("'"), comment.strip())
        if len(card.image) == CARD:
            return card.image
    return f"COMMENT {text.strip()}"[:CARD].ljust(CARD)


def _parted(text: str) -> tuple[str, str]:
    keyword, _, value = text.partition("=")
    return keyword.upper().removeprefix("HIERARCH ").strip(), value.strip()


def _keyword(text: str) -> str:
    text = re.sub(r"[^A-Z0-9_. -]", "_", text)
    return f"{text:<8}" if re.fullmatch("[A-Z0-9_-]{1,8}", text) else f"HIERARCH {text} "


def value_of(raw: bytes) -> Any:
    """Return the value of a card of 80 bytes, text where it is none of FITS; text without end.

    Examples
    --------
    >>> value_of(b"EXTNAME = SCI / not quoted".ljust(80))
    'SCI'
    """
    plain = _PLAIN_VALUE.fullmatch(raw[9:]) if raw[8:10] == b"= " else None
    if plain is None:  # in ten times the time
        text, _ = _readable(raw.translate(_PRINTABLE).decode("ascii"))
        value = fits.Card.fromstring(text).value
        return value.rstrip() if isinstance(value, str) else value
    integer, quoted, logical = plain.groups()
    if integer is not None:
        return int(integer)
    return logical == b"T" if quoted is None else quoted.decode("latin-1").rstrip()


def is_number(value: Any) -> bool:
    """Whether the value of a card is a number: finite, and no truth.

    Examples
    --------
    >>> is_number(2), is_number(True), is_number("2"), is_number(float("inf"))
    (True, False, False, False)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float | complex) or cmath.isfinite(value)
