"""From the mask of a file to that of an exposure: int32, every plane with a bit of its own.

The bits of a file are its own: 8 to 64, signed or not, with names or without. Those that are kept
are gathered into the 31 that a mask of ours has, at the same place where they can; a plane that we
add gets a bit that the file does not use.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from ..exposure.mask import BITS, MaskPlanes
from ..exposure.plane import Derived, PlaneSource
from ..reducers.base import PixelReducer

__all__ = ["MaskBit", "named", "nonzero", "read_mask", "used_bits"]

_OURS = PixelReducer.bad  # which mapping adds, reading one of them
_ALL = 2**32 - 1
_BAND = 2**22  # pixels that are looked at at a time


class MaskBit(NamedTuple):
    """Where a mask plane is: in which of the masks, by number, and at which bit."""

    mask: int
    bit: int


def named(planes: Mapping[str, int]) -> dict[str, MaskBit]:
    """Return where the planes of a single mask are."""
    return {name: MaskBit(0, bit) for name, bit in planes.items()}


def read_mask(
    masks: Sequence[PlaneSource],
    names: Mapping[str, MaskBit] | None,
    where: str,
    *,
    mask_planes: Mapping[str, int] | None = None,
    keep_planes: Iterable[str] | None = None,
    add: Sequence[str] = (),
) -> tuple[PlaneSource, MaskPlanes]:
    """Return a mask as an int32 plane, and its planes.

    A mask without names is read through once, to learn which of its bits are in use: those are
    called BIT0, BIT1, ... With 8 bits or less, or of floats, it is a map of bad pixels: BAD
    wherever it is not zero.

    Parameters
    ----------
    masks : sequence of PlaneSource
        Of integers, booleans or floats; a mask of more planes than one has bits may take several.
    names : mapping of str to MaskBit, optional
        The planes that the file names.
    where : str
        How messages name the mask.
    mask_planes : mapping of str to int, optional
        The bits, 0 to 63, that the caller names instead. Either way bits without a name stay where
        they are, unless their place is needed.
    keep_planes : iterable of str, optional
        The planes that the caller keeps. All other bits are left out.
    add : sequence of str
        Planes to add, of which no bit is set yet.

    Raises
    ------
    KeyError
        If ``keep_planes`` names one that is not there.
    ValueError
        If the caller names a bit that the mask does not have, or more planes than int32 holds.

    Warns
    -----
    UserWarning
        If there are more planes than int32 holds beside ours; it lists those that are left out.

    Examples
    --------
    >>> flags = np.array([[0, 1, 2**31]], np.uint32)
    >>> mask, planes = read_mask([flags], None, "an array", add=["BAD"])
    >>> planes
    MaskPlanes({'BIT0': 0, 'BIT31': 1, 'BAD': 2})
    >>> mask[:, :]
    array([[0, 1, 2]], dtype=int32)
    """
    first = masks[0]
    if isinstance(keep_planes, str):
        raise TypeError(f"keep_planes is a list of names, got {keep_planes!r}")
    keep = None if keep_planes is None else list(keep_planes)
    if mask_planes is not None:
        names = _checked(mask_planes)
    if names is None and _is_bad_pixel_map(first) and keep in (None, ["BAD"]):
        planes = MaskPlanes.lsst().add(*add)
        return _derived(partial(nonzero, value=planes.bitmask("BAD")), [first]), planes
    only_named = names is None or keep is not None
    if names is None:
        bits = used_bits(first) if keep is None else range(_width(first))
        names = named({f"BIT{bit}": bit for bit in bits})
    if keep is not None:
        if missing := [name for name in keep if name not in names]:
            raise KeyError(f"{where} has no mask plane {missing[0]!r}; there are {_listed(names)}")
        names = {name: names[name] for name in keep}
    is_asked = mask_planes is not None or keep is not None
    names = _existing(names, masks, where, is_asked)
    names = _fitting(names, where, add, is_asked)
    may_have_others = not only_named and len(masks) == 1
    planes = _placed(names, add, 2 ** min(32, _width(first)) - 1 if may_have_others else 0)
    stay = [name for name, at in names.items() if at == MaskBit(0, planes[name])]
    moves = tuple((*at, planes[name]) for name, at in names.items() if name not in stay)
    others = 0 if only_named else _ALL & ~planes.bitmask(*planes)
    kept = planes.bitmask(*stay) | others
    return _derived(partial(_gathered, kept=kept, moves=moves), masks), planes


def _checked(planes: Mapping[str, int]) -> dict[str, MaskBit]:
    bits = planes.values() if isinstance(planes, Mapping) else [None]
    if any(isinstance(bit, bool) or not isinstance(bit, int) for bit in bits):
        raise TypeError(f'mask_planes is a mapping of names to bits, {{"BAD": 0}}, got {planes!r}')
    return named(planes)


def _is_bad_pixel_map(mask: PlaneSource) -> bool:
    return mask.dtype.itemsize == 1 or mask.dtype.kind in "fb"


def _width(mask: PlaneSource) -> int:
    """Return how many bits a mask has; whole numbers in floats have those of an int64."""
    return 64 if mask.dtype.kind == "f" else 8 * mask.dtype.itemsize


def used_bits(mask: PlaneSource) -> tuple[int, ...]:
    """Return the bits that are set in any pixel of a mask, which is read through.

    All of them, with a warning, where it cannot be read: whoever reads those pixels will be told.
    """
    rows, columns = mask.shape
    band = max(1, _BAND // columns)
    found = 0
    try:
        for start in range(0, rows, band):
            block = _unsigned(mask[start : start + band, 0:columns])
            found |= int(np.bitwise_or.reduce(block, axis=None))
    except OSError as error:
        warnings.warn(f"all bits of a mask are taken for used: {error}", stacklevel=4)
        found = 2 ** _width(mask) - 1
    return tuple(bit for bit in range(_width(mask)) if found >> bit & 1)


def _existing(
    names: Mapping[str, MaskBit], masks: Sequence[PlaneSource], where: str, is_asked: bool
) -> dict[str, MaskBit]:
    """Return the planes whose bit the mask has; others are an error only if asked for."""
    found = {name: at for name, at in names.items() if 0 <= at.bit < _width(masks[at.mask])}
    for name, at in names.items():
        if name not in found:
            text = f"{where}: mask plane {name} is bit {at.bit}, of {_width(masks[at.mask])} from 0"
            if is_asked:
                raise ValueError(text)
            warnings.warn(f"{text}; it is left out", stacklevel=4)
    return found


def _fitting(
    names: Mapping[str, MaskBit], where: str, add: Sequence[str], is_asked: bool
) -> dict[str, MaskBit]:
    """Return the planes that there is room for beside ours."""
    ours = {*add} if is_asked else {*add, *_OURS}
    room = BITS - len(ours - names.keys())
    if len(names) <= room:
        return dict(names)
    order = sorted(names, key=lambda name: (*names[name], name))
    if is_asked:
        raise ValueError(f"{where}: of {len(names)} mask planes int32 holds {room}; choose fewer")
    warnings.warn(
        f"{where}: int32 holds {room} mask planes beside ours; left out are "
        f"{', '.join(order[room:])}; choose others with keep_planes= or mask_planes=",
        stacklevel=4,
    )
    return {name: names[name] for name in order[:room]}


def _placed(names: Mapping[str, MaskBit], add: Sequence[str], avoid: int) -> MaskPlanes:
    """Return the bit of each plane in our mask: the file's where it can be."""
    stay = {at.bit: name for name, at in names.items() if at.mask == 0 and at.bit < BITS}
    planes = MaskPlanes({name: bit for bit, name in stay.items()}).add(*names, *add, avoid=avoid)
    return MaskPlanes({name: planes[name] for name in dict.fromkeys([*names, *add])})


def _gathered(*masks: np.ndarray, kept: int, moves: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Gather bits; each move is (number of the mask, its bit, new bit)."""
    bits = [_unsigned(mask) for mask in masks]
    if kept == _ALL and not moves:
        return bits[0].astype(np.uint32, copy=False).view(np.int32)
    result = bits[0].astype(np.uint32) & np.uint32(kept)
    for number, bit, new in moves:
        one = bits[number].dtype.type(1)
        result |= ((bits[number] >> bits[number].dtype.type(bit)) & one).astype(
            np.uint32
        ) << np.uint32(new)
    return result.view(np.int32)


def _unsigned(mask: np.ndarray) -> np.ndarray:
    """Return the bits of a mask; of floats those of the whole number, none where there is none."""
    if mask.dtype.kind == "b":
        return mask.view(np.uint8)
    if mask.dtype.kind == "f":
        whole = np.isfinite(mask) & (np.abs(mask) < 2.0**63)
        mask = np.where(whole, mask, 0).astype(np.int64)
    native = mask.astype(mask.dtype.newbyteorder("="), copy=False)
    return native.view(f"u{mask.dtype.itemsize}")


def nonzero(mask: np.ndarray, *, value: int) -> np.ndarray:
    """Mask with the bits of ``value`` wherever a mask is not zero.

    Examples
    --------
    >>> nonzero(np.array([0, 1, 7], np.uint8), value=1)
    array([0, 1, 1], dtype=int32)
    """
    return np.where(mask != 0, np.int32(value), np.int32(0))


def _derived(function: partial[np.ndarray], masks: Sequence[PlaneSource]) -> Derived:
    return Derived(function, tuple(masks), np.dtype("i4"))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
