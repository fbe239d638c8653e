"""Units: numbers in the unit that is needed, whatever they come as.

Every public function that takes numbers with a unit hands them to `in_unit`. Plain numbers are in
the unit that its documentation names; a Quantity or a Column that says another is converted, and
one that cannot be is refused by the argument's name. Results are plain numbers.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Column
from astropy.utils.masked import Masked
from numpy.typing import NDArray

__all__ = [
    "CALIBRATION",
    "DOBSON",
    "INSTRUMENTAL",
    "TURN",
    "conversion",
    "has_unit",
    "in_unit",
    "known_unit",
    "number_in",
    "plain",
    "stated_unit",
]

Units = tuple[u.UnitBase, ...]

DOBSON = u.def_unit("DU", 2.6867e20 / u.m**2)
"""Of a column of ozone."""

TURN = 7.0
"""Angles beyond, of those that are said to be in rad, are in another unit."""

_NAMED = 3  # units, in an error
_PLAIN = (float, int)  # as most numbers are, some for every cell: to see that has to be quick

_COUNTED = (u.adu, u.ct, u.electron, u.ph, u.DN)

INSTRUMENTAL = (*_COUNTED, *(unit / u.s for unit in _COUNTED))
"""Units of instrumental fluxes, none of which is another's multiple."""

CALIBRATION = (u.nJy, *(u.nJy / unit for unit in INSTRUMENTAL))
"""Units of a calibration, which is nJy per unit of instrumental flux, whatever that is."""

# Names that astropy does not know, or takes for a product, in small letters, as files have them.
_SPELLINGS: dict[str, u.UnitBase] = {
    **dict.fromkeys(("adu", "adus"), u.adu),
    **dict.fromkeys(("counts", "cts"), u.ct),
    **dict.fromkeys(("electrons", "e-", "e"), u.electron),
    **dict.fromkeys(("e-/s", "e/s", "electrons/s"), u.electron / u.s),
    **dict.fromkeys(("adu/s", "adu/sec"), u.adu / u.s),
    **dict.fromkeys(("counts/s", "counts/sec"), u.ct / u.s),
    **dict.fromkeys(("photons",), u.ph),
    **dict.fromkeys(("njy", "njansky", "nanojanskys", "nanojanskies"), u.nJy),
    **dict.fromkeys(("jansky", "janskys", "janskies"), u.Jy),
    **dict.fromkeys(("abmag", "ab mag", "mag ab", "mag_ab"), u.ABmag),
    **dict.fromkeys(("stmag",), u.STmag),
    **dict.fromkeys(("mags", "magnitude", "magnitudes"), u.mag),
    **dict.fromkeys(("degree", "degrees"), u.deg),
    **dict.fromkeys(("radians",), u.rad),
    **dict.fromkeys(("arcsecs", "arcseconds"), u.arcsec),
    **dict.fromkeys(("pixels",), u.pix),
    **dict.fromkeys(("angstroms",), u.AA),
    **dict.fromkeys(("du", "dobson", "dobson units"), DOBSON),
}


@lru_cache(maxsize=1024)
def known_unit(text: str) -> u.UnitBase | None:
    """Return the unit that a text names, in any spelling; None if it is not known.

    Examples
    --------
    >>> known_unit("nJy"), known_unit("1e-9 Jy") == u.nJy, known_unit("COUNTS"), known_unit("hmm")
    (Unit("nJy"), True, Unit("ct"), None)
    """
    text = text.strip().strip("'\"")
    if (known := _SPELLINGS.get(text.lower())) is not None:
        return known
    with warnings.catch_warnings():  # of units that are spelled in an unusual way
        warnings.simplefilter("ignore", u.UnitsWarning)
        unit = u.Unit(text, parse_strict="silent")
    return None if isinstance(unit, u.UnrecognizedUnit) else unit


def stated_unit(values: Any, name: str = "the value") -> u.UnitBase | None:
    """Return the unit that a Quantity or Column says it is in; None if it says none.

    Raises
    ------
    astropy.units.UnitConversionError
        If it is not known.
    """
    unit = getattr(values, "unit", None)
    if unit is None or isinstance(unit, u.StructuredUnit):
        return None
    text = str(unit)
    # A unit that someone defined is known here by its name, or as it is.
    known = known_unit(text) if isinstance(unit, u.UnrecognizedUnit | str) else unit
    known = _SPELLINGS.get(text.lower(), known)
    if known is None:
        raise u.UnitConversionError(
            f"{name} is in {text!r}, a unit that is not known; set its .unit to one that astropy "
            "knows, or pass plain numbers"
        )
    return known


def has_unit(values: Any) -> bool:
    """Whether numbers, or one of several, say a unit."""
    if type(values) in _PLAIN:
        return False
    if isinstance(values, list | tuple):
        return any(map(has_unit, values))
    return getattr(values, "unit", None) is not None


def in_unit(values: Any, unit: u.UnitBase | Units, name: str = "the value") -> NDArray[np.float64]:
    """Return numbers in a unit: what every public function does with those that it is given.

    Parameters
    ----------
    values : array_like, Quantity, Column or a list of them
        Plain numbers are in ``unit`` already. What is masked (a MaskedColumn, a masked array or
        Quantity) becomes NaN.
    unit : Unit or tuple of Unit
        Of several, which are not each other's multiples, the one that goes with the values' own.
        Magnitudes without a system are AB.
    name : str, optional
        The argument, as errors name it.

    Returns
    -------
    float64 array
        Of the shape of the values.

    Raises
    ------
    astropy.units.UnitConversionError
        If they are in a unit that is not known, or cannot be converted; a ValueError.
    TypeError
        If they are not numbers.

    Examples
    --------
    >>> in_unit([1.0, 2.0] * u.rad, u.deg).round(2), in_unit(5, u.deg)
    (array([ 57.3 , 114.59]), array(5.))
    >>> in_unit(3 * u.m, u.pix, "x")
    Traceback (most recent call last):
    ...
    astropy.units.errors.UnitConversionError: x is in m, which is no pix; give pix or plain numbers
    """
    if isinstance(values, list | tuple) and has_unit(values):
        return np.array([in_unit(value, unit, name) for value in values])
    stated = stated_unit(values, name)
    numbers = _numbers(values, name)
    if stated is None:
        return numbers
    if stated == u.rad and isinstance(values, Column):
        _check_radians(numbers, name)
    return np.asarray(conversion(stated, unit, name)(numbers))


def number_in(value: Any, unit: u.UnitBase | Units, name: str) -> float:
    """Return one number in a unit; see `in_unit`."""
    if type(value) in _PLAIN:
        return float(value)
    number = in_unit(value, unit, name)
    if number.ndim:
        raise TypeError(f"{name} must be one number, got an array of shape {number.shape}")
    return float(number)


def plain(values: Any, unit: u.UnitBase | Units, name: str) -> Any:
    """Return what says no unit as it is, and else its numbers in a unit; see `in_unit`.

    For what need not be numbers: whatever takes it checks that.
    """
    return in_unit(values, unit, name) if has_unit(values) else values


def conversion(
    stated: u.UnitBase, unit: u.UnitBase | Units, name: str = "the value"
) -> Callable[[Any], Any]:
    """Return the function of numbers that converts them.

    Raises
    ------
    astropy.units.UnitConversionError
        If there is none.

    Examples
    --------
    >>> conversion(u.hour, u.s)(2.0), conversion(u.mag(u.nJy), u.ABmag)(0.0).round(4)
    (7200.0, np.float64(31.4))
    """
    units = unit if isinstance(unit, tuple) else (unit,)
    for wanted in units:
        own = stated
        if isinstance(own, u.MagUnit) and wanted == u.mag and own.physical_unit == u.AB:
            own = own.function_unit  # of an error, or a difference
        elif wanted == u.ABmag and own.physical_type == u.mag.physical_type:
            wanted = u.mag
        with contextlib.suppress(u.UnitsError):
            own.to(wanted)
            return partial(own.to, wanted)
    named = ", ".join(map(str, units[:_NAMED])) + " or the like" * (len(units) > _NAMED)
    what = f"in {stated}" if str(stated) else "dimensionless"
    rule = f", which is no {named}; give {units[0]} or plain numbers" if named else ""
    raise u.UnitConversionError(f"{name} is {what}{rule or '; it must have no unit'}")


def _check_radians(numbers: NDArray[np.float64], name: str) -> None:
    """Refuse a column in rad whose numbers are beyond a turn: they are in degrees."""
    if (most := np.nanmax(np.abs(numbers), initial=0)) > TURN:
        raise u.UnitConversionError(
            f"{name} is a Column that says rad, and has {most:g}; NumPy's functions, such as "
            "np.degrees, keep a Column's unit: pass the column as it was, or plain numbers"
        )


def _numbers(values: Any, name: str) -> NDArray[np.float64]:
    """Return plain numbers, NaN where they are masked."""
    mask = None
    if isinstance(values, Masked):
        values, mask = values.unmasked, values.mask
    elif isinstance(values, np.ma.MaskedArray):
        values, mask = np.ma.getdata(values), np.ma.getmaskarray(values)
    try:
        array = np.asarray(values)
        if values is None or array.dtype.kind not in "biufO":
            raise TypeError(f"it is {array.dtype}")
        numbers = np.asarray(array, np.float64)
    except (TypeError, ValueError) as error:
        kind = type(values).__name__
        raise TypeError(f"{name} must be numbers, got a {kind}: {error}") from None
    return numbers if mask is None or not np.any(mask) else np.where(mask, np.nan, numbers)
