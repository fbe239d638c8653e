"""Zarr stores: an exposure as a group of arrays in chunks, which many tasks can write at once.

A store is a folder with a zarr (version 3) group in it:

``image``, ``variance``, ``mask``
    The planes that there are, (ny, nx) with the dimension names y and x; the mask is int32. The
    attribute ``units`` of image and variance says their unit, if the header does; ``mask_planes``
    of the mask gives the bit of each mask plane by name. Every chunk is there, with its checksum
    (the codec crc32c); the fill value is what no pixel has, NaN or all bits set.
``x``, ``y``
    Parent coordinates of the columns and rows.
attributes of the group
    ``origin`` is the parent coordinates [x, y] of the first pixel; ``header`` the exposure's FITS
    header and ``wcs`` the cards of its WCS in array pixels, each a list of lines of 80 characters.
``fits``
    Where there is more to keep, the bytes of a FITS file, uint8: the HDUs of the PSF (see
    `mapreduce.io.psf`) and the lookup tables of the WCS.

The group's own ``zarr.json`` is written last, with consolidated metadata: xarray, for one, opens
the store as it is. Stores are written to folders, and to what fsspec
writes to: see `mapreduce.io.stream.complete_store` for how they appear there.

Other stores are read, too: a group with two-dimensional arrays of any names, or a single array.
Needs the package zarr: ``pip install 'skyfold[zarr]'``.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from dask.base import is_dask_collection

from ..exposure.box import size_pair
from ..exposure.exposure import Exposure
from ..exposure.formats import naming
from ..exposure.plane import PlaneSource
from ..exposure.wcs import shift_wcs
from ..report import Report
from .cards import CARD, mended
from .hdu import open_data
from .header import as_header, bare, chosen_wcs, wcs_cards, wcs_or_warning
from .masks import named, read_mask
from .paths import Stamp, check_opens, inside, is_url, located, stamp_of
from .psf import psf_from_hdus, psf_or_warning
from .stream import check_free, complete_store, final_meta, is_replaceable, is_store, stream
from .write import hdus_to_bytes, psf_hdus, unit_of
from .zarr_chunks import checked, require_zarr

__all__ = ["ZarrPlane", "ZarrTarget", "read", "recognizes", "write"]

_PLANES = ("image", "variance", "mask")
_CHUNK = 512
# To find out whether there is anything to write takes as long as writing it.
_CONFIG = {"write_empty_chunks": True}
_COMPRESSORS = {"lz4": {"cname": "lz4", "clevel": 5}, "zstd": {"cname": "zstd", "clevel": 3}}


def recognizes(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a zarr store."""
    return is_store(located(path))


def read(
    path: str | os.PathLike[str],
    *,
    image: str = "image",
    variance: str | None = "variance",
    mask: str | None = "mask",
    mask_planes: Mapping[str, int] | None = None,
    keep_planes: Sequence[str] | None = None,
    wcs: WCS | str | None = "auto",
) -> Exposure:
    """Open a zarr store as an exposure; its pixels stay on disk until they are used.

    Parameters
    ----------
    path : path or URL
        The folder: a group that `write` made, any other group, or one array, which is the image.
    image, variance, mask : str
        Names of the arrays in the group; None for a variance or mask to do without. What is not
        there is done without, too, unless a store that `write` made has lost it.
    mask_planes, keep_planes, wcs : optional
        See `mapreduce.io.fits.read`.

    Returns
    -------
    Exposure
        With a `ZarrPlane` as every plane. A mask that does not name its planes is taken as in
        `mapreduce.io.fits.read`.

    Raises
    ------
    ImportError
        Without the package zarr.
    OSError
        If the store is missing (FileNotFoundError) or damaged. Damaged chunks are found when they
        are read: by their checksums, and in stores that `write` made a chunk or an array that is
        missing is damage, too; in others it has the fill value.
    TypeError
        If the arrays are not of numbers that the planes can have.
    ValueError
        If there is no such image, or the arrays differ in shape or are not two-dimensional.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write(Exposure(np.ones((2, 3)), origin=(100, 200)), f"{folder}/a.zarr")
    ...     read(f"{folder}/a.zarr").bbox
    Box(x0=100, y0=200, width=3, height=2)
    """
    path = located(path)
    arrays, attributes = _opened_store(path, *filter(None, (image, variance, mask)))
    if image not in arrays:
        names = ", ".join(arrays) or "no arrays"
        raise ValueError(f"{path} has no array {image!r}; there are {names}; choose with image=")
    ours = "header" in attributes
    asked = (image, variance, mask, "fits")
    if lost := [n for n in attributes.get("arrays", ()) if n in asked and n not in arrays]:
        raise OSError(
            f"{path} is damaged: it has lost its array {lost[0]!r}"
            + (f"; {lost[0]}=None does without" if lost[0] in (variance, mask) else "")
        )
    parts: dict[str, Any] = {"image": _plane(path, arrays[image], ours)}
    if variance is not None and variance in arrays:
        parts["variance"] = _plane(path, arrays[variance], ours)
    if mask is not None and mask in arrays:
        names = arrays[mask].attrs.get("mask_planes")
        parts["mask"], parts["mask_planes"] = read_mask(
            [_plane(path, arrays[mask], ours)],
            None if names is None else named(names),
            f"{path}, array {mask!r}",
            mask_planes=mask_planes,
            keep_planes=keep_planes,
        )
    if not ours and isinstance(unit := arrays[image].attrs.get("units"), str):
        parts["meta"] = {"BUNIT": unit}
    try:
        if ours:
            parts |= _described(path, attributes, arrays.get("fits"), wcs)
    except Exception as error:  # attributes may hold anything
        raise OSError(f"{path}: what the group says of the exposure is damaged: {error}") from error
    if wcs != "auto":
        parts["wcs"] = chosen_wcs(wcs)
    return Exposure(**parts)


def write(
    exposure: Exposure,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    chunks: int | tuple[int, int] | None = None,
    compression: str | None = "lz4",
) -> Report | None:
    """Write an exposure to a zarr store; the folder appears under its name when it is complete.

    Parameters
    ----------
    exposure : Exposure
        What to write. If it is lazy it is computed now, on threads or on the current Client; its
        blocks are written where they are computed, into a folder that all workers must see under
        the same path or URL, and it is never held whole.
    path : path or URL
        The folder.
    overwrite : bool
        Whether to replace a store of that name; also the one that the exposure is read from. At a
        URL the new store is made beside the old one and copied into its place by the server.
    chunks : int or (int, int), optional
        Size in pixels, a number or an (x, y) pair, of the pieces that are one file each, and are
        read as a whole. By default 512, or of that order where the exposure has blocks of another
        size. Blocks whose edges are not edges of chunks have to be put together before they are
        written.
    compression : {"lz4", "zstd"} or None
        Both are lossless. "lz4" takes a quarter off the noise of floats, nearly all off a mask, and
        little time; "zstd" takes off some more, at half the speed.

    Returns
    -------
    Report or None
        What happened in the run, where the exposure is the lazy result of a `map_reduce`.

    Raises
    ------
    FileExistsError
        If the store exists, unless ``overwrite``; or what exists is not a zarr store.
    FileNotFoundError
        If the folder it is to lie in does not exist.
    ImportError
        Without the package zarr.
    TypeError
        If ``chunks`` is not a size, or the PSF of a class that cannot be stored.
    ValueError
        If ``chunks`` is below 1, or the store cannot hold a plane, a card of the header, or the
        WCS.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write(Exposure(np.ones((20, 30), "f4")), f"{folder}/a.zarr", chunks=(30, 10))
    ...     read(f"{folder}/a.zarr").image.shape
    (20, 30)
    """
    zarr, path = require_zarr(), located(path)
    if compression not in (None, *_COMPRESSORS):
        raise ValueError(f'compression is "lz4", "zstd" or None, got {compression!r}')
    asked = None if chunks is None else size_pair("chunks", chunks)[::-1]
    check_free(path, overwrite, folder=is_replaceable)
    _check_dtypes(exposure)
    _description(exposure)
    hdus = None if is_dask_collection(exposure.psf) else psf_hdus(exposure.psf)
    with complete_store(path, overwrite) as place:
        targets = {
            name: _created(place, name, exposure, asked or _default_chunks(plane), compression)
            for name, plane in exposure.planes.items()
        }
        psf, report, _ = stream(exposure, targets)
        attributes, tables = _description(exposure, report)
        hdus = [*(psf_hdus(psf) if hdus is None else hdus), *tables]
        if hdus:
            _write_row(place, "fits", np.frombuffer(hdus_to_bytes(hdus), np.uint8), "byte")
        box = exposure.bbox
        _write_row(place, "x", np.arange(box.x0, box.x1), "x")
        _write_row(place, "y", np.arange(box.y0, box.y1), "y")
        attributes["arrays"] = [*targets, *(["fits"] if hdus else [])]
        zarr.create_group(place, attributes=attributes)
        with warnings.catch_warnings():
            # That the specification does not have it yet.
            warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
            zarr.consolidate_metadata(place)
    return report


@dataclass(frozen=True)
class ZarrPlane:
    """An array of a zarr store as a plane: a handle that opens it when a block is read.

    Attributes
    ----------
    path : str
        The array's folder or URL.
    stamp : tuple
        What changes when the array is written to.
    shape, dtype
        As every plane has them.
    complete : bool
        Whether a chunk that is missing is an error, and does not stand for the fill value.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write(Exposure(np.eye(40)), f"{folder}/a.zarr")
    ...     plane = read(f"{folder}/a.zarr").planes["image"]
    ...     plane[10:12, 10:13]
    array([[1., 0., 0.],
           [0., 1., 0.]])
    """

    path: str
    stamp: tuple[int | str, ...]
    shape: tuple[int, int]
    dtype: np.dtype
    complete: bool = False

    ndim = 2

    def __getitem__(self, slices: tuple[slice, slice]) -> np.ndarray:
        if _stamp(self.path) != self.stamp:
            raise OSError(f"{self.path} has changed since it was opened; open it again")
        y, x = (range(n)[s] for s, n in zip(slices, self.shape, strict=True))
        rows, columns = (f"{r.start} to {r.stop - 1}" for r in (y, x))
        with naming(self.path, f"{self.path}, rows {rows}, columns {columns}", keep=()):
            array = _opened_array(self.path, self.stamp, os.getpid(), self.complete)
            return np.asarray(array[slices], self.dtype)

    def __dask_tokenize__(self) -> tuple[str, str, tuple[int | str, ...]]:
        return "ZarrPlane", self.path, self.stamp


@dataclass(frozen=True)
class ZarrTarget:
    """An array of a zarr store that is being written, by block; see `mapreduce.io.stream.Target`.

    It holds no zarr object: a worker would import zarr while it unpickles one, in two threads at a
    time.

    Attributes
    ----------
    path : str
        The array's folder or URL. Where that is gone, because the run has failed, nothing is
        written.
    """

    path: str
    shape: tuple[int, int]
    dtype: np.dtype
    chunks: tuple[int, int]

    def write(self, slices: tuple[slice, slice], block: np.ndarray) -> int:
        """Write a block; each of its chunks has a checksum of its own, the plane has none."""
        zarr = require_zarr()
        failure: OSError
        try:
            array = zarr.open_array(self.path, mode="r+").with_config(_CONFIG)
            array[slices] = np.asarray(block, self.dtype)
            return 0
        except FileNotFoundError:
            what = "it has vanished, or is not to be seen from this worker"
            failure = FileNotFoundError(f"{self.path} is not there: {what}")
        except MemoryError:
            raise
        except Exception as error:  # as in ZarrPlane
            failure = OSError(f"{self.path} cannot be written: {type(error).__name__}: {error}")
        raise failure


# Reading


def _opened_store(path: str, image: str, *others: str) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Return a group's arrays by name, or the image if that is all there is, and its attributes.

    Web servers do not say what there is: arrays are asked for by name, and all of them only where
    there is no image.
    """
    zarr = require_zarr()
    check_opens(path)
    try:
        # As each array says of itself: others may have added some.
        node = zarr.open(path, mode="r", use_consolidated=False)
        if isinstance(node, zarr.Array):
            return {image: node}, {}
        found = {name: node.get(name) for name in (image, *others, "fits")}
        arrays = {name: part for name, part in found.items() if isinstance(part, zarr.Array)}
        return arrays if image in arrays else dict(node.arrays()), dict(node.attrs)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no zarr store {path}: {error}") from error
    except Exception as error:  # what is wrong with metadata comes as any of many
        raise OSError(f"{path} is not a zarr store that can be read: {error}") from error


def _plane(path: str, array: Any, ours: bool) -> PlaneSource:
    packed = [key for key in ("scale_factor", "add_offset") if key in array.attrs]
    names = getattr(array.metadata, "dimension_names", None)  # which format 2 does not have
    if packed or names == ("x", "y"):
        what = packed[0] if packed else "rows and columns exchanged"
        raise ValueError(
            f"{path}, array {array.path!r} has {what}, which is xarray's to apply: "
            "mr.Exposure(xarray.open_zarr(path)[name].data), transposed if need be"
        )
    folder = inside(path, array.path) if array.path else path
    dtype = np.dtype(array.dtype).newbyteorder("=")
    complete = ours and array.path in _PLANES
    return ZarrPlane(folder, _stamp(folder), tuple(array.shape), dtype, complete)


def _stamp(folder: str) -> tuple[int | str, ...]:
    """Return what changes when an array is written to: chunks are replaced by new files.

    At a URL, where to look at all chunks would take long, what changes when it is written anew.
    """
    if is_url(folder):
        return _stamp_at_url(folder)
    try:
        stamps = [_time(folder)]
        for name in ("zarr.json", ".zarray"):
            if os.path.exists(file := os.path.join(folder, name)):
                stamps.append(_time(file))
        if os.path.isdir(chunks := os.path.join(folder, "c")):
            with os.scandir(chunks) as rows:
                stamps += [_time(chunks), max((_time(row) for row in rows), default=0)]
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} has vanished since it was opened") from None
    return tuple(stamps)


def _stamp_at_url(url: str) -> Stamp:
    for name in ("zarr.json", ".zarray"):
        with contextlib.suppress(FileNotFoundError):
            return stamp_of(inside(url, name))
    raise FileNotFoundError(f"{url} has vanished since it was opened")


def _time(path: Any) -> int:
    return os.stat(path).st_mtime_ns


@lru_cache(maxsize=64)
def _opened_array(path: str, stamp: tuple[int | str, ...], process: int, complete: bool) -> Any:
    """Open an array, in every process anew: connections do not outlive a fork."""
    return checked(require_zarr().open_array(path, mode="r"), complete=complete)


def _described(
    path: str, attributes: Mapping[str, Any], tables: Any, wcs: WCS | str | None
) -> dict[str, Any]:
    """Return what a group says of an exposure beside its pixels."""
    x0, y0 = attributes["origin"]
    parts: dict[str, Any] = {"origin": (x0, y0), "meta": _header(attributes["header"], path)}
    hdus = fits.HDUList()
    if tables is not None:
        where = f"{path}, array 'fits'"
        with psf_or_warning(where):
            hdus = open_data(checked(tables, complete=True)[:].tobytes(), where)
            parts["psf"] = psf_from_hdus(hdus)
    if "wcs" in attributes and wcs == "auto":
        with wcs_or_warning(path), warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            parts["wcs"] = shift_wcs(WCS(_header(attributes["wcs"], path), hdus), x0, y0)
    return parts


def _header(lines: list[str], where: str) -> fits.Header:
    return mended("".join(line.ljust(CARD) for line in lines).encode("ascii", "replace"), where)


# Writing


def _default_chunks(plane: Any) -> tuple[int, int]:
    """Return chunks that blocks of one size are made of, if there are."""
    blocks = getattr(plane, "chunks", ((1,), (1,)))
    height, width = map(_default_chunk, blocks, plane.shape)
    return height, width


def _default_chunk(sizes: tuple[int, ...], length: int) -> int:
    """Return a divisor of the size of all blocks but the last, near to the usual size.

    >>> _default_chunk((1000, 1000, 600), 2600), _default_chunk((300, 200, 500), 1000)
    (500, 512)
    """
    size, *others = sizes[:-1] or sizes
    parts = max(1, round(size / _CHUNK))
    if len(sizes) > 1 and {size} == {size, *others} and size % parts == 0 and size >= _CHUNK // 2:
        return size // parts
    return min(_CHUNK, length)


def _check_dtypes(exposure: Exposure) -> None:
    for name, plane in exposure.planes.items():
        if (dtype := np.dtype(plane.dtype)).itemsize > 8:
            raise ValueError(f"{name} is {dtype}, which zarr cannot hold; convert it with astype")


def _description(
    exposure: Exposure, report: Report | None = None
) -> tuple[dict[str, Any], list[Any]]:
    """Return the attributes of the group, and the lookup tables of the WCS."""
    header = bare(as_header(final_meta(exposure, report)), exposure.wcs)
    tables: list[Any] = []
    attributes: dict[str, Any] = {"origin": list(exposure.origin), "header": _lines(header)}
    if exposure.wcs is not None:
        cards, tables = wcs_cards(exposure.wcs, exposure.origin)
        attributes["wcs"] = _lines(cards)
    return attributes, tables


def _lines(header: fits.Header) -> list[str]:
    text = header.tostring(sep="", endcard=False, padding=False)
    return [text[i : i + CARD] for i in range(0, len(text), CARD)]


def _created(
    place: str, name: str, exposure: Exposure, chunks: tuple[int, int], compression: str | None
) -> ZarrTarget:
    """Make an array for a plane."""
    plane = exposure.planes[name]
    dtype = np.dtype(plane.dtype).newbyteorder("=")
    chunks = tuple(map(min, chunks, plane.shape))
    attributes: dict[str, Any] = {}
    if name == "mask":
        attributes["mask_planes"] = dict(exposure.mask_planes)
    elif unit := unit_of(name, exposure.meta):
        attributes["units"] = unit
    path = inside(place, name)
    array = require_zarr().create_array(
        path,
        shape=plane.shape,
        dtype=dtype,
        chunks=chunks,
        compressors=_codecs(compression, dtype),
        fill_value=np.nan if dtype.kind == "f" else np.array(-1).astype(dtype)[()],
        dimension_names=("y", "x"),
        attributes=attributes,
    )
    return ZarrTarget(path, array.shape, array.dtype, array.chunks)


def _write_row(place: str, name: str, data: np.ndarray, dimension: str) -> None:
    """Write an array of one dimension and one chunk."""
    require_zarr().create_array(
        inside(place, name),
        data=data,
        chunks=data.shape,
        compressors=_codecs("zstd", data.dtype),
        dimension_names=(dimension,),
    )


def _codecs(compression: str | None, dtype: np.dtype) -> list[Any]:
    """Return what chunks are compressed with, and their checksum."""
    codecs = require_zarr().codecs
    checksum = codecs.Crc32cCodec()
    if compression is None:
        return [checksum]
    options = _COMPRESSORS[compression]
    return [codecs.BloscCodec(**options, shuffle="shuffle", typesize=dtype.itemsize), checksum]
