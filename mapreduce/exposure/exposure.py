"""Exposure: image, variance and mask, with their box, WCS, PSF and header; a dask collection."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import astropy.units as u
import dask
import dask.array as da
import numpy as np
from astropy.io import fits
from astropy.utils.masked import Masked
from astropy.wcs import WCS
from dask.base import DaskMethodsMixin, is_dask_collection, tokenize
from dask.core import flatten
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph

from ..html import facts_table, thumbnail
from ..units import plain
from .box import Box, size_pair, whole_pixels
from .formats import converter, write
from .mask import MaskPlanes, as_int32, without_bits
from .plane import Array, Derived, Plane, cut, lazy, plane_token
from .psf import Psf
from .wcs import shift_wcs

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord

__all__ = ["Exposure"]

_PLANES = ("image", "variance", "mask")
_PARTS = frozenset({*_PLANES, "mask_planes", "wcs", "psf", "meta"})
_KINDS = {"image": "fiu", "variance": "f", "mask": "iub"}  # of dtypes that the planes can have


class Exposure(DaskMethodsMixin):
    """An image with its variance and mask planes, and what belongs to them.

    It is a dask collection wherever a plane is lazy: ``dask.compute``, ``persist``, ``visualize``
    and every scheduler work on it. All its coordinates are *parent* coordinates, x the column and
    y the row, whole numbers at pixel centers.

    Parameters
    ----------
    image : (ny, nx) array of float or int
        NumPy array, dask array, or a `PlaneSource`, such as a zarr array or an h5py dataset, which
        is read by block. NaN means no value. Of a masked array (NumPy's or astropy's) what is
        masked is BAD.
    variance : (ny, nx) array of float, optional
        Variance of each pixel, in the square of the image's unit. NaN means unknown.
    mask : (ny, nx) array of int or bool, optional
        Bit field, kept as int32; ``mask_planes`` names the bits. True in a boolean mask is BAD.
    origin : (int, int), optional
        Parent coordinates (x, y) of the first pixel.
    mask_planes : mapping of str to int, optional
        Bit number of each mask plane; default `MaskPlanes.lsst`.
    wcs : astropy.wcs.WCS, optional
        From **parent** pixel coordinates (0-based) to the sky; see `array_wcs` and `sky`.
    psf : Psf, optional
        Point-spread function, in parent coordinates.
    meta : mapping, optional
        Header cards: a `~astropy.io.fits.Header` or a dict.

    Attributes
    ----------
    report : Report, Delayed or None
        What happened in the `map_reduce` that the exposure, or what it was made of, is the result
        of; known when it is computed.

    Raises
    ------
    TypeError
        If a plane is not an array, or of a dtype that the plane cannot have, or has a mask or a
        unit of its own, or is a section of an open FITS file.
    ValueError
        If a plane is not two-dimensional or empty, or the planes differ in shape.

    Examples
    --------
    >>> import numpy as np
    >>> exposure = Exposure(np.ones((40, 30)), origin=(100, 200))
    >>> exposure.bbox
    Box(x0=100, y0=200, width=30, height=40)
    >>> (exposure * 2).cutout(Box(110, 210, 3, 2)).image
    array([[2., 2., 2.],
           [2., 2., 2.]])
    """

    __slots__ = (
        "_bbox",
        "_image",
        "_mask",
        "_mask_planes",
        "_meta",
        "_meta_is_lent",
        "_variance",
        "psf",
        "report",
        "wcs",
    )

    def __init__(
        self,
        image: Plane,
        variance: Plane | None = None,
        mask: Plane | None = None,
        *,
        origin: tuple[int, int] = (0, 0),
        mask_planes: Mapping[str, int] | None = None,
        wcs: WCS | None = None,
        psf: Psf | Delayed | None = None,
        meta: MutableMapping[str, Any] | None = None,
    ) -> None:
        image, bad = _unmasked(image)
        image = _checked("image", image)
        origin = whole_pixels("origin", origin)
        try:
            x0, y0 = origin
            self._bbox = Box(x0, y0, image.shape[1], image.shape[0])
        except (TypeError, ValueError):
            raise TypeError(f"origin must be two integers (x, y), got {origin!r}") from None
        if wcs is not None and not isinstance(wcs, WCS):
            raise TypeError(f"wcs must be an astropy.wcs.WCS, got {type(wcs).__name__}")
        if wcs is not None and wcs.naxis != 2:
            raise ValueError(f"wcs must have two axes, has {wcs.naxis}; take wcs.celestial")
        if not isinstance(meta, Mapping | fits.Header | None):
            raise TypeError(f"meta must be a header or a mapping, got {type(meta).__name__}")
        self._image = image
        self._variance: Plane | None = None
        self._mask: Plane | None = None
        self.mask_planes = MaskPlanes.lsst() if mask_planes is None else mask_planes
        self.variance = variance
        self.mask = mask
        self.wcs = wcs
        self.psf = psf
        self.meta = {} if meta is None else copy.copy(meta)
        self.report: Any = None  # a Report, whose module needs this one
        if bad is not None:
            self._flag_bad(bad)

    # Planes and facts

    @property
    def bbox(self) -> Box:
        """The box of pixels, in parent coordinates."""
        return self._bbox

    @property
    def origin(self) -> tuple[int, int]:
        """Parent coordinates (x, y) of the first pixel."""
        return self._bbox.x0, self._bbox.y0

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the planes, (ny, nx)."""
        return self._bbox.shape

    @property
    def image(self) -> Array:
        """The image plane; a dask array where it is not in memory."""
        return self._visible("image", self._image)

    @image.setter
    def image(self, plane: Plane) -> None:
        if plane is None:
            raise TypeError("an Exposure needs an image plane")
        self._image = self._fitting("image", plane)

    @property
    def variance(self) -> Array | None:
        """The variance plane; a dask array where it is not in memory."""
        return None if self._variance is None else self._visible("variance", self._variance)

    @variance.setter
    def variance(self, plane: Plane | None) -> None:
        self._variance = None if plane is None else self._fitting("variance", plane)

    @property
    def mask(self) -> Array | None:
        """The mask plane, int32; a dask array where it is not in memory."""
        return None if self._mask is None else self._visible("mask", self._mask)

    @mask.setter
    def mask(self, plane: Plane | None) -> None:
        plane = None if plane is None else self._fitting("mask", plane)
        if plane is not None and plane.dtype == bool:
            self.mask_planes = self.mask_planes.add("BAD")
            plane = self._visible("mask", plane) * np.int32(self.mask_planes.bitmask("BAD"))
        self._mask = plane

    @property
    def mask_planes(self) -> MaskPlanes:
        """Names and bits of the mask planes."""
        return self._mask_planes

    @mask_planes.setter
    def mask_planes(self, planes: Mapping[str, int]) -> None:
        self._mask_planes = planes if isinstance(planes, MaskPlanes) else MaskPlanes(planes)

    @property
    def meta(self) -> MutableMapping[str, Any]:
        """The header; every exposure's own."""
        if self._meta_is_lent:  # copied only here, as a large header takes its time
            self.meta = copy.copy(self._meta)
        return self._meta

    @meta.setter
    def meta(self, meta: MutableMapping[str, Any]) -> None:
        self._meta = meta
        self._meta_is_lent = False

    @property
    def planes(self) -> dict[str, Plane]:
        """The planes that exist, by name, as they are held: what is in files is not read."""
        planes = {"image": self._image}
        if self._variance is not None:
            planes["variance"] = self._variance
        if self._mask is not None:
            planes["mask"] = self._mask
        return planes

    @property
    def array_wcs(self) -> WCS | None:
        """The WCS of array indices, in which the first pixel is (0, 0): a copy; None without one.

        For code that knows nothing of parent coordinates. Of a cell, ``wcs`` at array indices would
        be off by the origin of its box.

        Examples
        --------
        >>> exposure = Exposure(np.zeros((40, 30)), origin=(100, 200), wcs=WCS(naxis=2))
        >>> exposure.array_wcs.wcs.crpix - exposure.wcs.wcs.crpix
        array([-100., -200.])
        """
        return None if self.wcs is None else shift_wcs(self.wcs, -self.bbox.x0, -self.bbox.y0)

    def sky(self, x: Any, y: Any) -> SkyCoord:
        """Return the sky coordinates of positions.

        Parameters
        ----------
        x, y : float or array, pix
            Parent coordinates, pixel centers on whole numbers; ``origin`` added to array indices.

        Raises
        ------
        ValueError
            If there is no WCS, or one of anything else than the sky; if positions are in another
            unit than pix.
        """
        if self.wcs is None or not self.wcs.has_celestial:
            what = "no WCS" if self.wcs is None else f"a WCS of {', '.join(self.wcs.wcs.ctype)}"
            raise ValueError(f"the exposure over {self.bbox} has {what}, and no place on the sky")
        return self.wcs.pixel_to_world(plain(x, u.pix, "x"), plain(y, u.pix, "y"))

    def _visible(self, name: str, plane: Plane) -> Array:
        return plane if isinstance(plane, Array) else lazy(plane, name)

    def _fitting(self, name: str, plane: Plane) -> Plane:
        plane = _checked(name, plane)
        if plane.shape != self._bbox.shape:
            raise ValueError(
                f"image is {_size(self.shape)} but {name} is {_size(plane.shape)} "
                "(rows x columns); cut both to one box"
            )
        return plane

    def _flag_bad(self, bad: np.ndarray) -> None:
        other = self.with_mask_planes("BAD")
        bits = np.where(bad, np.int32(other.mask_planes.bitmask("BAD")), np.int32(0))
        self.mask_planes = other.mask_planes
        self.mask = bits if other.mask is None else other.mask | bits

    # Parts and variations

    def _variation(
        self,
        bbox: Box,
        image: Plane | None = None,
        variance: Plane | None = None,
        mask: Plane | None = None,
    ) -> Exposure:
        """Build without checks an exposure over ``bbox`` with these planes and our other parts."""
        other = Exposure.__new__(Exposure)
        other._bbox = bbox
        other._image = cast(Plane, image)  # filled in where there is none yet
        other._variance = variance
        other._mask = mask
        other._mask_planes = self._mask_planes
        other.wcs = self.wcs
        other.psf = self.psf
        other._meta = self._meta
        other._meta_is_lent = self._meta_is_lent = True
        other.report = self.report
        return other

    def cutout(self, box: Box) -> Exposure:
        """Return the part over a box; its planes are views, or as lazy as ours.

        Parameters
        ----------
        box : Box
            In parent coordinates, inside of ``bbox`` and not empty.

        Raises
        ------
        ValueError
            If the box is empty or reaches outside of the exposure.
        """
        if not isinstance(box, Box):
            raise TypeError(f"cutout takes a Box, got {type(box).__name__}")
        if not (box[2] and box[3]):
            raise ValueError(f"{box} is empty")
        slices = box.slices(self._bbox)
        variance, mask = self._variance, self._mask
        return self._variation(
            box,
            cut(self._image, slices),
            variance if variance is None else cut(variance, slices),
            mask if mask is None else cut(mask, slices),
        )

    def copy(self) -> Exposure:
        """Return a copy whose in-memory planes, header and WCS are its own and writeable."""
        planes = {
            name: np.array(p) if isinstance(p, np.ndarray) else p for name, p in self.planes.items()
        }
        other = self._variation(self._bbox, **planes)
        other.meta = copy.deepcopy(self.meta)
        other.wcs = None if self.wcs is None else self.wcs.deepcopy()
        return other

    def replace(self, **parts: Any) -> Exposure:
        """Return an exposure over the same box with some parts replaced, the others shared.

        Parameters
        ----------
        **parts
            Any of image, variance, mask, mask_planes, wcs, psf, meta.

        Examples
        --------
        >>> import numpy as np
        >>> exposure = Exposure(np.ones((2, 2)))
        >>> exposure.replace(image=exposure.image + 1).image
        array([[2., 2.],
               [2., 2.]])
        """
        if not parts.keys() <= _PARTS:
            unknown = sorted(parts.keys() - _PARTS)
            raise TypeError(f"an Exposure has no {unknown}; choose from {sorted(_PARTS)}")
        other = self._variation(self._bbox, self._image, self._variance, self._mask)
        if "mask_planes" in parts:  # before the mask
            other.mask_planes = parts.pop("mask_planes")
        for name, part in parts.items():
            setattr(other, name, part)
        return other

    def with_mask_planes(self, *names: str) -> Exposure:
        """Return an exposure that has mask planes of these names too, set in no pixel.

        Bits that pixels have set without a name are not mistaken for a new plane: where the mask is
        in memory the plane gets another bit, as long as there are any; else those bits are cleared.

        Examples
        --------
        >>> import numpy as np
        >>> exposure = Exposure(np.ones((1, 2)), mask=np.array([[0, 3]]), mask_planes={"BAD": 0})
        >>> exposure.with_mask_planes("NO_DATA").mask_planes
        MaskPlanes({'BAD': 0, 'NO_DATA': 2})
        """
        new = [name for name in names if name not in self._mask_planes]
        if not new:
            return self
        mask = self._mask
        used = int(np.bitwise_or.reduce(mask, axis=None)) if isinstance(mask, np.ndarray) else 0
        planes = self._mask_planes.add(*new, avoid=used)
        bits = planes.bitmask(*new)
        if mask is not None and (used & bits or not isinstance(mask, np.ndarray)):
            mask = _mapped(partial(without_bits, bits=bits), mask)
        return self.replace(mask_planes=planes, mask=mask)

    def chunk(self, size: int | tuple[int, int] = 1024) -> Exposure:
        """Return the exposure with every plane a dask array in chunks of ``size``.

        Parameters
        ----------
        size : int or (int, int)
            Chunk size in pixels: a number or an (x, y) pair.
        """
        width, height = size_pair("chunk size", size)
        chunks = height, width
        planes = {name: lazy(plane, name, chunks) for name, plane in self.planes.items()}
        return self._variation(self._bbox, **planes)

    def astype(self, dtype: Any) -> Exposure:
        """Return the exposure with its image in another dtype."""
        return self.replace(image=self.image.astype(dtype))

    def write(self, path: str | os.PathLike[str], **options: Any) -> Any:
        """Write to a file; see `write_exposure` for the options, and for what is returned."""
        return write(self, path, **options)

    def to_zarr(self, path: str | os.PathLike[str], **options: Any) -> Any:
        """Write to a zarr store; see `mapreduce.io.zarr.write` for the options (``chunks=``, ...).

        If the exposure is lazy, it is written block by block as it is computed; the report of the
        run is returned.
        """
        return write(self, path, format="zarr", **options)

    def to_ccddata(self, **options: Any) -> Any:
        """Return the exposure as an `astropy.nddata.CCDData`; see `mapreduce.io.ccddata`."""
        return converter("ccddata", "write")(self, **options)

    @classmethod
    def from_ccddata(cls, ccd: Any, **options: Any) -> Exposure:
        """Make an exposure of an `astropy.nddata.CCDData`; see `mapreduce.io.ccddata`."""
        return converter("ccddata", "read")(ccd, **options)

    # Arithmetic with numbers and arrays, which have no variance of their own

    def _scaled(self, image: Plane, factor: Any) -> Exposure:
        if (variance := self.variance) is None:
            return self.replace(image=image)
        if not isinstance(factor, int | float) and factor.dtype.kind in "iu":
            factor = factor.astype(np.float64)  # whose square does not overflow
        return self.replace(image=image, variance=variance * factor**2)

    def __add__(self, other: Any) -> Exposure:
        return self.replace(image=self.image + other) if self._operand(other) else NotImplemented

    __radd__ = __add__

    def __sub__(self, other: Any) -> Exposure:
        return self.replace(image=self.image - other) if self._operand(other) else NotImplemented

    def __rsub__(self, other: Any) -> Exposure:
        return self.replace(image=other - self.image) if self._operand(other) else NotImplemented

    def __mul__(self, other: Any) -> Exposure:
        return self._scaled(self.image * other, other) if self._operand(other) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Exposure:
        if not self._operand(other):
            return NotImplemented
        return self._scaled(self.image / other, 1 / other)

    def __neg__(self) -> Exposure:
        return self.replace(image=-self.image)

    def _operand(self, other: Any) -> bool:
        if not isinstance(other, int | float | np.number | Array):
            return False
        if (unit := getattr(other, "unit", None)) is not None:
            raise u.UnitConversionError(
                "an exposure's pixels are plain numbers, in the unit of its header; got a "
                f"{type(other).__name__} in {unit}"
            )
        shape = getattr(other, "shape", ())
        if shape not in ((), self.shape):
            raise ValueError(f"exposure is {_size(self.shape)} but the array is {_size(shape)}")
        return True

    __array_ufunc__ = None  # so that array * exposure comes to __rmul__

    # The dask collection protocol

    def compute(self, **options: Any) -> Exposure:
        """Return the exposure with everything in memory; the options are `dask.compute`'s."""
        return DaskMethodsMixin.compute(self, **options)

    def persist(self, **options: Any) -> Exposure:
        """Return the exposure with the blocks of its planes computed or on their way there."""
        return DaskMethodsMixin.persist(self, **options)

    def _lazy_parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {n: self._visible(n, plane) for n, plane in self.planes.items()}
        parts |= {"psf": self.psf, "report": self.report}
        return {name: part for name, part in parts.items() if is_dask_collection(part)}

    def __dask_graph__(self) -> HighLevelGraph | None:
        parts = self._lazy_parts().values()
        if not parts:
            return None
        return HighLevelGraph.merge(*(part.__dask_graph__() for part in parts))

    def __dask_keys__(self) -> list[Any]:
        return [part.__dask_keys__() for part in self._lazy_parts().values()]

    def __dask_layers__(self) -> tuple[str, ...]:
        return tuple(
            layer for part in self._lazy_parts().values() for layer in part.__dask_layers__()
        )

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        planes = [plane_token(plane) for plane in self.planes.values()]
        header = None if self.wcs is None else self.wcs.to_header_string(relax=True)
        meta = self._meta  # a card that astropy cannot parse has an image still
        cards = str(meta) if isinstance(meta, fits.Header) else [*map(str, meta.items())]
        parts = (self._bbox, self._mask_planes, header, tokenize(self.psf), cards)
        return "Exposure", planes, parts

    __dask_optimize__ = staticmethod(da.Array.__dask_optimize__)
    __dask_scheduler__ = staticmethod(dask.threaded.get)

    def __dask_postcompute__(self) -> tuple[Callable[..., Exposure], tuple[Any, ...]]:
        parts = self._lazy_parts()
        finish = {name: part.__dask_postcompute__() for name, part in parts.items()}
        return _computed, (self._without(parts), finish)

    def __dask_postpersist__(self) -> tuple[Callable[..., Exposure], tuple[Any, ...]]:
        parts = self._lazy_parts()
        rebuild = {
            name: (list(flatten([part.__dask_keys__()])), *part.__dask_postpersist__())
            for name, part in parts.items()
        }
        return _persisted, (self._without(parts), rebuild)

    def _without(self, parts: Mapping[str, Any]) -> Exposure:
        """Return ourselves with the lazy parts left out, to be filled in."""
        shell = self._variation(
            self._bbox, **{name: p for name, p in self.planes.items() if name not in parts}
        )
        for name in parts.keys() & {"psf", "report"}:
            setattr(shell, name, None)
        return shell

    # For people

    def _listed_planes(self) -> str:
        return ", ".join(
            f"{name} {plane.dtype}{'' if isinstance(plane, np.ndarray) else ' (lazy)'}"
            for name, plane in self.planes.items()
        )

    def __repr__(self) -> str:
        parts = [name for name in ("wcs", "psf") if getattr(self, name) is not None]
        return f"<Exposure {self._bbox}: {', '.join([self._listed_planes(), *parts])}>"

    def _repr_html_(self) -> str:
        box = self._bbox
        facts = {
            "box": f"{box.width} × {box.height} pixels from ({box.x0}, {box.y0})",
            "planes": self._listed_planes(),
            "mask planes": ", ".join(self._mask_planes),
            "WCS": "none" if self.wcs is None else ", ".join(self.wcs.wcs.ctype),
            "PSF": "none" if self.psf is None else repr(self.psf),
            "header": f"{len(self.meta)} cards",
        }
        picture = thumbnail(self._image) if isinstance(self._image, np.ndarray) else ""
        return facts_table("Exposure", facts.items(), picture)


def _computed(results: list[Any], shell: Exposure, finish: dict[str, tuple[Any, ...]]) -> Exposure:
    exposure = shell._variation(shell._bbox, shell._image, shell._variance, shell._mask)
    for result, (name, (function, args)) in zip(results, finish.items(), strict=True):
        setattr(exposure, name, function(result, *args))
    if "report" in finish:  # which is known only now
        exposure.meta["MRFAILED"] = len(exposure.report.failures)
    return exposure


def _persisted(
    graph: Mapping[Any, Any],
    shell: Exposure,
    rebuild: dict[str, tuple[Any, ...]],
    *,
    rename: Mapping[str, str] | None = None,
) -> Exposure:
    exposure = shell._variation(shell._bbox, shell._image, shell._variance, shell._mask)
    options = {} if rename is None else {"rename": rename}
    # Persisting gives the parts' keys alone, each its own; optimizing gives a graph, for all.
    only_keys = set(graph) == {key for keys, *_ in rebuild.values() for key in keys}
    for name, (keys, function, args) in rebuild.items():
        part = {key: graph[key] for key in keys} if only_keys else graph
        setattr(exposure, name, function(part, *args, **options))
    return exposure


def _checked(name: str, plane: Plane) -> Plane:
    """Return a plane that has two dimensions and a dtype that a plane of that name can have."""
    if type(plane) is np.ndarray and plane.ndim == 2 and plane.size:
        if plane.dtype.isnative and plane.dtype.kind in _KINDS[name] and name != "mask":
            return plane  # what most are, and mappers make many of them
    _check_plain(name, plane)
    if not isinstance(plane, Plane):
        plane = np.asarray(plane)
    shape, dtype = tuple(plane.shape), np.dtype(plane.dtype)
    if dtype.kind not in _KINDS[name]:
        wanted = {"image": "floats or integers", "variance": "floats", "mask": "integers"}[name]
        raise TypeError(f"{name} is {dtype}; it must be of {wanted}")
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"{name} must have two dimensions and pixels, got shape {shape}")
    if not all(n == n for n in shape):
        raise ValueError(f"{name} has chunks of unknown size; call its compute_chunk_sizes() first")
    if isinstance(plane, np.ndarray) and not dtype.isnative:
        plane = plane.astype(dtype.newbyteorder("="))
    return _int32(plane) if name == "mask" and dtype.kind != "b" else plane


def _unmasked(image: Any) -> tuple[Any, np.ndarray | None]:
    """Return an image without the mask that it has of its own, and that mask."""
    if isinstance(image, np.ma.MaskedArray):
        return np.ma.getdata(image), np.ma.getmaskarray(image)
    if isinstance(image, Masked) and not hasattr(image, "unit"):
        return image.unmasked, np.asarray(image.mask)
    return image, None


def _check_plain(name: str, plane: Any) -> None:
    """Refuse what has a mask, a unit or labels, and what threads cannot read at the same time."""
    parts = plane if isinstance(plane, list | tuple) else [plane]
    for part in (getattr(part, "_meta", part) for part in parts):  # what dask's blocks are
        masked = isinstance(part, np.ma.MaskedArray | Masked)
        if masked or hasattr(part, "unit") or hasattr(part, "coords"):
            raise TypeError(
                f"{name} is a {type(part).__name__}; pass plain numbers (the mask as mask=, "
                "the unit as meta['BUNIT'], of xarray the .data)"
            )
    if isinstance(plane, fits.Section | fits.CompImageSection):
        raise TypeError(
            f"{name} is a section of an open FITS file, which threads cannot share; read the file "
            f"with mapreduce.read_exposure(path, {name}=...), by block too, or pass hdu.data"
        )


def _int32(mask: Plane) -> Plane:
    """Return an integer mask as int32, bit by bit, as lazy as it is."""
    return mask if mask.dtype == np.int32 else _mapped(as_int32, mask)


def _mapped(function: Callable[[np.ndarray], np.ndarray], mask: Plane) -> Plane:
    """Return a mask to which a function of its blocks was applied, as lazy as it is."""
    if isinstance(mask, da.Array):
        return da.map_blocks(function, mask, dtype=np.int32, meta=np.empty((0, 0), np.int32))
    if not isinstance(mask, np.ndarray):
        return Derived(function, (mask,), np.dtype(np.int32))
    return function(mask)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
