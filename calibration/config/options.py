"""What the values of configuration fields may be.

Each check takes a field's name and its value, and returns the value as it is kept.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from functools import partial
from numbers import Integral, Real
from typing import Any

import astropy.units as u
import numpy as np

from mapreduce.units import has_unit, number_in

__all__ = [
    "Check",
    "at_least",
    "choice",
    "count",
    "flag",
    "known",
    "mapping",
    "nside",
    "number",
    "optional",
    "text",
]

Check = Callable[[str, Any], Any]


def known(names: Iterable[str], kind: type) -> None:
    """Refuse names that are not fields of a dataclass, and say which are close.

    Raises
    ------
    TypeError
        If there is one.
    """
    own = [field.name for field in fields(kind)]
    for name in names:
        if name not in own:
            close = get_close_matches(name, own, 3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"fields: {', '.join(own)}"
            raise TypeError(f"there is no field {name}; {hint}")


def flag(name: str, value: Any) -> bool:
    """Take true and false."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is true or false, got {value!r}")
    return bool(value)


def text(name: str, value: Any) -> str:
    """Take a text."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is a text, got {value!r}")
    return value


def number(
    name: str,
    value: Any,
    least: float = -math.inf,
    *,
    above: bool = False,
    unit: u.UnitBase = u.dimensionless_unscaled,
) -> float:
    """Take a finite number, not below ``least`` (or ``above`` it); a Quantity is converted.

    Examples
    --------
    >>> number("radius", "1e-3", 0)
    0.001
    """
    if isinstance(value, str):  # which is what YAML makes of 1e-3
        with contextlib.suppress(ValueError):
            value = float(value)
    if has_unit(value):
        value = number_in(value, unit, name)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} is a number, got {value!r}")
    try:
        finite = math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        finite = False
    if not finite:
        raise ValueError(f"{name} is a finite number, got {value!r:.40}")
    if value < least or (above and value == least):
        raise ValueError(f"{name} is {'above' if above else 'at least'} {least:g}, got {value!r}")
    return float(value)


def at_least(
    least: float, *, above: bool = False, unit: u.UnitBase = u.dimensionless_unscaled
) -> Check:
    """Make the check of a number that is not below ``least``."""
    return partial(number, least=least, above=above, unit=unit)


def choice(*choices: str) -> Check:
    """Make the check of a text that is one of several."""

    def check(name: str, value: Any) -> str:
        if value not in choices:
            raise ValueError(f"{name} is {' or '.join(choices)}, got {value!r}")
        return value

    return check


def count(least: int) -> Check:
    """Make the check of a whole number that is not below ``least``."""

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise TypeError(f"{name} is a whole number, got {value!r}")
        if value < least:
            raise ValueError(f"{name} is at least {least}, got {value}")
        return int(value)

    return check


def nside(name: str, value: Any) -> int:
    """Take a HEALPix resolution."""
    value = count(1)(name, value)
    if value & (value - 1):
        raise ValueError(f"{name} is a power of two (1, 2, 4, ...), got {value}")
    return value


def optional(check: Check) -> Check:
    """Make a check that also takes None."""
    return lambda name, value: None if value is None else check(name, value)


def mapping(check: Check) -> Check:
    """Make the check of a mapping from texts to values that pass a check."""

    def checked(name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise TypeError(f"{name} is a mapping, got {value!r}")
        return {text(f"{name}: {k!r}", k): check(f"{name}[{k!r}]", v) for k, v in value.items()}

    return checked
