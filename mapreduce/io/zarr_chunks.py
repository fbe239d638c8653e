"""Chunks of zarr stores, looked at before they are decoded."""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from typing import Any

from ..optional import require

__all__ = ["checked", "require_zarr"]

_FRAME = struct.Struct("<BBBBIII")  # versions, flags, item size; bytes raw, in a block, packed
_SLACK = 2**20  # bytes that other codecs may add to a chunk before Blosc has it
_CHECKSUM = 4  # bytes of crc32c after a chunk


def require_zarr() -> Any:
    """Return the package."""
    return require("zarr", "zarr stores need zarr 3: pip install 'skyfold[zarr]'")


def checked(array: Any, *, complete: bool) -> Any:
    """Return an array whose chunks are checked when they are read.

    The C code of Blosc believes what a frame says of its own length, and of how much comes out.

    Parameters
    ----------
    array : zarr.Array
    complete : bool
        Whether all chunks must be there.
    """
    facts = array.metadata.to_dict()
    if facts.get("zarr_format") != 3:
        return array
    *others, last = [codec["name"] for codec in facts["codecs"]]
    tail = 0
    if last == "crc32c" and others:
        last, tail = others[-1], _CHECKSUM
    size = math.prod(array.chunks) * array.dtype.itemsize if last == "blosc" else None
    if size is None and not complete:
        return array
    store = _checked_store()(array.store)
    store.complete, store.size, store.tail = complete, size, tail
    return require_zarr().open_array(store, path=array.path, mode="r", zarr_format=3)


@lru_cache(maxsize=1)
def _checked_store() -> Any:
    class CheckedStore(require_zarr().storage.WrapperStore):  # type: ignore[misc]  # of no known type
        complete: bool
        size: int | None
        tail: int

        async def get(self, key: str, *args: Any, **options: Any) -> Any:
            found = await super().get(key, *args, **options)
            if "c" in key.split("/"):
                if found is None and self.complete:
                    raise ValueError(f"chunk {key} is missing")
                if found is not None and self.size is not None:
                    head = found[: _FRAME.size].to_bytes()
                    _check_frame(head, len(found) - self.tail, self.size)
            return found

    return CheckedStore


def _check_frame(head: bytes, length: int, size: int) -> None:
    """Check the header of a Blosc frame of some length that should become ``size`` bytes.

    >>> _check_frame(bytes(16), 100, 50)
    Traceback (most recent call last):
    ValueError: a Blosc frame of 100 bytes for 50 says that it has 0 for 0, in blocks of 0
    """
    if len(head) < _FRAME.size:
        raise ValueError(f"a Blosc frame has {_FRAME.size} bytes or more, got {len(head)}")
    _, _, _, _, raw, block, packed = _FRAME.unpack(head)
    if packed != length or raw > 2 * size + _SLACK or not 0 < block <= max(raw, 1):
        raise ValueError(
            f"a Blosc frame of {length} bytes for {size} says that it has {packed} "
            f"for {raw}, in blocks of {block}"
        )
