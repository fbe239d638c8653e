"""MaskPlanes: the names of the bits of a mask; and the one dtype that masks have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

__all__ = ["BITS", "MaskPlanes", "as_int32", "without_bits"]

_LSST = (
    "BAD SAT INTRP CR EDGE DETECTED DETECTED_NEGATIVE SUSPECT NO_DATA VIGNETTED STREAK"
).split()
BITS = 31  # of an int32 mask, the sign bit left alone


class MaskPlanes(Mapping[str, int]):
    """An immutable mapping from mask plane name to bit number.

    Parameters
    ----------
    planes : mapping of str to int
        Bit number (0 to 30) of each plane.

    Raises
    ------
    TypeError
        If a name is not a string or a bit not an integer.
    ValueError
        If a bit is out of range or used twice.

    Examples
    --------
    >>> planes = MaskPlanes({"BAD": 0, "SAT": 1}).add("STREAK")
    >>> planes["STREAK"], planes.bitmask("BAD", "STREAK")
    (2, 5)
    """

    __slots__ = ("_bits",)

    def __init__(self, planes: Mapping[str, int]) -> None:
        bits = dict(planes)
        for name, bit in bits.items():
            if not isinstance(name, str) or isinstance(bit, bool) or not isinstance(bit, int):
                raise TypeError(f"a mask plane is a name and a bit number, got {name!r}: {bit!r}")
            if not 0 <= bit < BITS:
                raise ValueError(f"mask plane {name}: bit {bit} is outside of 0 to {BITS - 1}")
        if len(set(bits.values())) != len(bits):
            raise ValueError(f"two mask planes share a bit: {bits}")
        self._bits = bits

    @classmethod
    def lsst(cls) -> MaskPlanes:
        """Return the planes that LSST masks start with: BAD 0, SAT 1, ... STREAK 10."""
        return cls({name: bit for bit, name in enumerate(_LSST)})

    def __getitem__(self, name: str) -> int:
        try:
            return self._bits[name]
        except KeyError:
            raise KeyError(f"no mask plane {name!r}; there are {', '.join(self._bits)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._bits)

    def __len__(self) -> int:
        return len(self._bits)

    def __hash__(self) -> int:
        return hash(frozenset(self._bits.items()))

    def __repr__(self) -> str:
        return f"MaskPlanes({self._bits})"

    def __dask_tokenize__(self) -> tuple[str, list[tuple[str, int]]]:
        return "MaskPlanes", list(self._bits.items())

    def bitmask(self, *names: str) -> int:
        """Return the value that has the bits of all these planes set."""
        value = 0
        for name in names:
            value |= 1 << self[name]
        return value

    def add(self, *names: str, avoid: int = 0) -> MaskPlanes:
        """Return planes with these names too, each new one at the lowest free bit.

        Parameters
        ----------
        *names : str
        avoid : int
            Bits that are in use without a name: taken last, the highest first.

        Raises
        ------
        ValueError
            If no bit is left.
        """
        bits = dict(self._bits)
        for name in names:
            if name not in bits:
                free = set(range(BITS)) - set(bits.values())
                if not free:
                    raise ValueError(
                        f"no bit is left for mask plane {name!r} among {BITS}; "
                        "read the mask with fewer: keep_planes=[...]"
                    )
                unused = [bit for bit in free if not avoid >> bit & 1]
                bits[name] = min(unused) if unused else max(free)
        return MaskPlanes(bits)


def as_int32(mask: np.ndarray) -> np.ndarray:
    """Return an integer mask as int32, bit by bit: a sign is a bit like the others.

    Raises
    ------
    ValueError
        If a 64-bit mask uses bits that int32 has not.

    Examples
    --------
    >>> import numpy as np
    >>> as_int32(np.array([1, -1], np.int16))
    array([    1, 65535], dtype=int32)
    """
    if mask.dtype == np.int32:
        return mask
    if mask.dtype.itemsize < 4:
        return mask.astype(f"u{mask.dtype.itemsize}", copy=False).astype(np.int32)
    if mask.dtype.itemsize > 4:
        if mask.size and (mask.min() < -(2**31) or mask.max() >= 2**32):
            raise ValueError(
                f"the {mask.dtype} mask uses bits above 31, which int32 cannot hold; "
                "shift those that are needed down"
            )
    return mask.astype(np.uint32, copy=False).view(np.int32)


def without_bits(mask: np.ndarray, bits: int) -> np.ndarray:
    """Return an int32 mask with some bits cleared.

    Examples
    --------
    >>> import numpy as np
    >>> without_bits(np.array([1, 7], np.int32), 4)
    array([1, 3], dtype=int32)
    """
    return mask & np.int32(~bits)
