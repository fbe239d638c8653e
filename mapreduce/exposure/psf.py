"""The point-spread function: a position on the image -> a small normalized picture.

`Psf` is the protocol: a model only says how to draw itself at a position, `Psf.draw`; everything
users ask for (images, widths, equality, pickling) follows from that. The models here are a
Gaussian, a double Gaussian, a fixed image and PSFEx's polynomial in position.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import Field, dataclass, fields
from functools import cached_property
from hashlib import blake2b
from typing import Any, ClassVar

import astropy.units as u
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..units import has_unit, in_unit, number_in, plain

__all__ = [
    "DoubleGaussianPsf",
    "GaussianPsf",
    "KernelPsf",
    "Psf",
    "PsfexPsf",
    "determinant_radius",
]

Image = NDArray[np.float64]

_ONE = u.dimensionless_unscaled

# Beyond these a model is damaged, and to draw it would take all memory.
_LARGEST = 4096  # pixels a side of an image
_FINEST = 0.001  # pixels between the samples of a PSFEx model


class Psf(ABC):
    """A point-spread function that may vary over the image.

    Positions are parent pixel coordinates, 0-based, whole numbers at pixel centers; leaving both
    out means `average_position`. Images are (ny, nx) float64, odd in both sizes, with sum 1.

    A model is a frozen dataclass (``eq=False``) that implements `draw`; equality, hash, pickling
    and the dask token then go by the values of its fields.

    Attributes
    ----------
    average_position : (float, float)
        (x, y) of a typical place, (0, 0) for models that are the same everywhere.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, eq=False)
    ... class Tophat(Psf):
    ...     def draw(self, x, y, dx, dy):
    ...         return np.ones((3, 3))
    >>> float(Tophat().compute_kernel_image(x=10, y=20)[1, 1])
    0.1111111111111111
    """

    average_position: tuple[float, float] = (0.0, 0.0)
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]  # as every model is a dataclass

    @abstractmethod
    def draw(self, x: float, y: float, dx: float, dy: float) -> Image:
        """Draw the PSF of position (x, y), displaced by (dx, dy) pixels from the middle pixel.

        The image is odd in both sizes and need not be normalized.
        """

    def compute_kernel_image(self, x: float | None = None, y: float | None = None) -> Image:
        """Return the PSF at a position, centered on the middle pixel."""
        return self._draw_normalized(*self._position(x, y), 0.0, 0.0)

    def compute_image(self, x: float | None = None, y: float | None = None) -> Image:
        """Return a star of flux 1 at a position: the middle pixel is (rint(x), rint(y))."""
        x, y = self._position(x, y)
        return self._draw_normalized(x, y, x - np.rint(x), y - np.rint(y))

    def sigma(self, x: float | None = None, y: float | None = None) -> float:
        """Return the `determinant_radius` at a position, in pixels."""
        return determinant_radius(self.compute_kernel_image(x, y))

    def fwhm(self, x: float | None = None, y: float | None = None) -> float:
        """Return the full width at half maximum of a Gaussian of this `sigma`, in pixels."""
        return self.sigma(x, y) * 2 * math.sqrt(2 * math.log(2))

    def _position(self, x: float | None, y: float | None) -> tuple[float, float]:
        if x is None and y is None:
            return self.average_position
        if x is None or y is None:
            raise ValueError(f"give both x and y or neither, got x={x}, y={y}")
        x, y = number_in(x, u.pix, "x"), number_in(y, u.pix, "y")
        if not (math.isfinite(x) and math.isfinite(y)):
            raise ValueError(f"position ({x}, {y}) is not finite")
        return x, y

    def _draw_normalized(self, x: float, y: float, dx: float, dy: float) -> Image:
        image = self.draw(x, y, dx, dy)
        total = image.sum()
        if not 0 < total < math.inf:
            raise ValueError(
                f"{self!r} has sum {total:g} at ({x:g}, {y:g}) and cannot be normalized"
            )
        return image / total

    @cached_property
    def _key(self) -> tuple[Any, ...]:
        return tuple(_hashable(getattr(self, field.name)) for field in fields(self))

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return self is other or self._key == other._key

    def __hash__(self) -> int:
        return hash((type(self).__name__, self._key))

    def __reduce__(self) -> tuple[Any, ...]:
        # Through the constructor, so that nothing cached travels and arrays stay read-only.
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return type(self).__module__, type(self).__qualname__, self._key


@dataclass(frozen=True, eq=False)
class GaussianPsf(Psf):
    """Round Gaussian, sampled at the pixel centers.

    Parameters
    ----------
    sigma : float
        Standard deviation in pixels; `Psf.sigma` gives back exactly this number.
    size : int, optional
        Odd size of the images; by default they reach out to 5 sigma.

    Examples
    --------
    >>> psf = GaussianPsf(2.0)
    >>> psf.compute_image(10.25, 20).shape, psf.sigma()
    ((21, 21), 2.0)
    >>> round(psf.fwhm(), 3)
    4.71
    """

    _sigma: float
    size: int

    def __init__(self, sigma: float, size: int | None = None) -> None:
        sigma = _positive("sigma", sigma)
        _set(self, _sigma=sigma, size=_odd_size(size, sigma))

    def draw(self, x: float, y: float, dx: float, dy: float) -> Image:
        """Draw the Gaussian, the same everywhere."""
        return _gaussian(self._sigma, self.size, dx, dy)

    def sigma(self, x: float | None = None, y: float | None = None) -> float:
        """Return the standard deviation in pixels, the same everywhere."""
        self._position(x, y)  # checked all the same
        return self._sigma

    def __repr__(self) -> str:
        return f"GaussianPsf(sigma={self._sigma}, size={self.size})"


@dataclass(frozen=True, eq=False)
class DoubleGaussianPsf(Psf):
    """Sum of two round Gaussians with one center, sampled at the pixel centers.

    The profile is ``exp(-r**2 / (2 sigma1**2)) + ratio * exp(-r**2 / (2 sigma2**2))``, normalized.

    Parameters
    ----------
    sigma1, sigma2 : float
        Standard deviations of the two in pixels.
    ratio : float
        Peak of the second in units of the peak of the first; zero or positive.
    size : int, optional
        Odd size of the images; by default they reach out to 5 times the larger sigma.

    Examples
    --------
    >>> psf = DoubleGaussianPsf(1.5, 3.0, ratio=0.1)
    >>> 1.5 < psf.sigma() < 3.0
    True
    """

    sigma1: float
    sigma2: float
    ratio: float
    size: int

    def __init__(self, sigma1: float, sigma2: float, ratio: float, size: int | None = None) -> None:
        ratio = number_in(ratio, _ONE, "ratio")
        if not (math.isfinite(ratio) and ratio >= 0):
            raise ValueError(f"ratio must be zero or positive, got {ratio}")
        sigma1, sigma2 = _positive("sigma1", sigma1), _positive("sigma2", sigma2)
        _set(
            self,
            sigma1=sigma1,
            sigma2=sigma2,
            ratio=ratio,
            size=_odd_size(size, max(sigma1, sigma2)),
        )

    def draw(self, x: float, y: float, dx: float, dy: float) -> Image:
        """Draw the two Gaussians, the same everywhere."""
        first = _gaussian(self.sigma1, self.size, dx, dy)
        return first + self.ratio * _gaussian(self.sigma2, self.size, dx, dy)


@dataclass(frozen=True, eq=False)
class KernelPsf(Psf):
    """A fixed image, the same everywhere.

    Sub-pixel shifts interpolate with a windowed sinc, so the image should be well sampled
    (FWHM of 2 pixels or more) and fall to about zero at its edges.

    Parameters
    ----------
    array : (ny, nx) array_like
        The PSF, centered on the middle pixel: odd in both sizes, finite, with a positive sum.
        It need not be normalized.

    Raises
    ------
    ValueError
        If the array is not such an image.

    Examples
    --------
    >>> KernelPsf([[0, 1, 0], [1, 4, 1], [0, 1, 0]]).compute_kernel_image()
    array([[0.   , 0.125, 0.   ],
           [0.125, 0.5  , 0.125],
           [0.   , 0.125, 0.   ]])
    """

    array: Image

    def __init__(self, array: ArrayLike) -> None:
        array = _read_only(in_unit(array, _ONE, "array"), "a PSF image", ndim=2)
        if not (array.shape[0] % 2 and array.shape[1] % 2):
            raise ValueError(
                f"a PSF image must be odd in both sizes, to have a middle pixel; "
                f"got {array.shape[0]} x {array.shape[1]}: pad or cut it by one row or column"
            )
        if not array.sum() > 0:
            raise ValueError(f"a PSF image must have a positive sum, got {array.sum():g}")
        _set(self, array=array)

    def draw(self, x: float, y: float, dx: float, dy: float) -> Image:
        """Draw the image, shifted by (dx, dy)."""
        ny, nx = self.array.shape
        return _resample(
            self.array, np.arange(ny, dtype=float) - dy, np.arange(nx, dtype=float) - dx
        )

    def __repr__(self) -> str:
        return f"KernelPsf(<{self.array.shape[0]} x {self.array.shape[1]} image>)"


@dataclass(frozen=True, eq=False)
class PsfexPsf(Psf):
    """PSFEx model: an image whose every sample is a polynomial in position.

    With ``u = (x - origin_x - offset_x) / scale_x`` and v likewise in y, the samples at (x, y)
    are the sum of `planes` times the terms 1, u, u**2, ..., v, u v, ..., v**2, ... of total degree
    up to `degree` (the power of u runs fastest). They lie on a grid of pitch `sampling`, centered
    on sample [ny // 2, nx // 2], and are resampled to pixels with a windowed sinc; pixels outside
    of that grid are not drawn. The model includes the response of a pixel already.
    Formula: PSFEx manual, section "Modelling PSF variations".

    Parameters
    ----------
    planes : (nterms, ny, nx) array_like
        One image per polynomial term.
    degree : int
        Degree of the polynomial; nterms is (degree + 1) (degree + 2) / 2.
    offset, scale : (float, float)
        Zero point and scale (x, y) of the positions, in pixels.
    sampling : float
        Pixels per sample.
    origin : (float, float)
        Parent coordinates (x, y) of the point (0, 0) of the system that `offset` is in: (-1, -1) if
        that counts from 1 and the image starts at parent pixel (0, 0).
    average_position : (float, float), optional
        In parent coordinates; by default where u = v = 0.

    Raises
    ------
    ValueError
        If the planes are not finite or do not fit the degree, or a scale or the sampling is not
        positive.

    Examples
    --------
    The central sample falls from 1 at x = 100 to 0.5 at x = 200:

    >>> planes = np.zeros((3, 3, 3))
    >>> planes[0] = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    >>> planes[1, 1, 1] = -0.5
    >>> psf = PsfexPsf(planes, degree=1, offset=(100, 100), scale=(100, 100))
    >>> psf.compute_kernel_image(200, 100).round(3)
    array([[0.   , 0.222, 0.   ],
           [0.222, 0.111, 0.222],
           [0.   , 0.222, 0.   ]])
    """

    planes: Image
    degree: int
    offset: tuple[float, float]
    scale: tuple[float, float]
    sampling: float
    origin: tuple[float, float]
    average_position: tuple[float, float]

    def __init__(
        self,
        planes: ArrayLike,
        degree: int,
        offset: Iterable[float] = (0.0, 0.0),
        scale: Iterable[float] = (1.0, 1.0),
        sampling: float = 1.0,
        origin: Iterable[float] = (0.0, 0.0),
        average_position: Iterable[float] | None = None,
    ) -> None:
        images = _read_only(planes, "PSFEx planes", ndim=3)
        nterms = (degree + 1) * (degree + 2) // 2
        if degree < 0 or images.shape[0] != nterms:
            raise ValueError(
                f"a polynomial of degree {degree} in x and y needs {nterms} planes, "
                f"got {images.shape[0]}"
            )
        sampling = _positive("sampling", sampling)
        if not sampling >= _FINEST:
            raise ValueError(f"sampling must be {_FINEST} pixels or more, got {sampling}")
        _check_size(2 * int(max(images.shape[1:]) // 2 * sampling) + 1)
        offset, origin = _pair("offset", offset), _pair("origin", origin)
        if average_position is None:
            average_position = offset[0] + origin[0], offset[1] + origin[1]
        _set(
            self,
            planes=images,
            degree=int(degree),
            offset=offset,
            scale=tuple(_positive("scale", value) for value in _pair("scale", scale)),
            sampling=sampling,
            origin=origin,
            average_position=_pair("average_position", average_position),
        )

    def draw(self, x: float, y: float, dx: float, dy: float) -> Image:
        """Draw the model of (x, y), resampled to pixels."""
        u = (x - self.origin[0] - self.offset[0]) / self.scale[0]
        v = (y - self.origin[1] - self.offset[1]) / self.scale[1]
        terms = [u**i * v**j for j in range(self.degree + 1) for i in range(self.degree + 1 - j)]
        samples = np.tensordot(terms, self.planes, axes=1)
        return _resample(samples, self._samples_at(0, dy), self._samples_at(1, dx))

    def _samples_at(self, axis: int, shift: float) -> Image:
        """Sample coordinates of the pixels along one axis."""
        middle = self.planes.shape[1 + axis] // 2
        half = int(middle * self.sampling)
        return (np.arange(-half, half + 1, dtype=float) - shift) / self.sampling + middle

    def __repr__(self) -> str:
        n, ny, nx = self.planes.shape
        return (
            f"PsfexPsf(<{n} planes of {ny} x {nx}>, degree={self.degree}, "
            f"sampling={self.sampling:.4g})"
        )


def determinant_radius(image: ArrayLike) -> float:
    """Width of a star: fourth root of the determinant of its second-moment matrix, in pixels.

    The moments are adaptive: weighted with the elliptical Gaussian that has the same center and
    shape as the star itself, found by iteration, and corrected for that weight as a Gaussian star
    needs it, so that noisy wings do no harm (Bernstein & Jarvis 2002, AJ 123, 583, section 3). The
    sigma of a Gaussian comes out to 1e-3 where it is at least 1 pixel.

    Parameters
    ----------
    image : (ny, nx) array_like
        Picture of one star, near the middle, on zero background; finite.

    Returns
    -------
    float
        Radius in pixels.

    Raises
    ------
    ValueError
        If the image is not such a picture, or the iteration does not converge.

    Examples
    --------
    >>> round(determinant_radius(GaussianPsf(2.0).compute_image(0.3, -0.4)), 4)
    2.0
    """
    image = _read_only(image, "an image to measure", ndim=2)
    if not image.max() > 0 or not image.sum() > 0:
        raise ValueError("an image to measure must have a positive peak and a positive sum")
    # Half-pixel steps: star times weight is half as wide as the star, too narrow for whole pixels.
    y, x = (np.arange(-4, 2 * n + 3) / 2 for n in image.shape)
    fine = _resample(image, y, x)
    center = (np.array(image.shape) - 1) / 2
    # A Gaussian of this flux and peak.
    moments = np.eye(2) * image.sum() / (2 * np.pi * image.max())
    for _ in range(100):
        shift, new = _adapt(fine, y - center[0], x - center[1], moments)
        if not (np.all(np.isfinite(new)) and new[0, 0] > 0 and np.linalg.det(new) > 0):
            break
        change = max(np.abs(new - moments).max() / np.trace(new), np.abs(shift).max() ** 2)
        center, moments = center + shift, new
        if change < 1e-8:
            return float(np.linalg.det(moments) ** 0.25)
    raise ValueError(
        f"the second moments of this {image.shape[0]} x {image.shape[1]} image did not converge: "
        f"it does not show one star above the noise"
    )


def _adapt(image: Image, y: Image, x: Image, moments: Image) -> tuple[Image, Image]:
    """One step of adaptive moments: shift of the center [y, x] and new moment matrix."""
    inverse = np.linalg.inv(moments)
    cross = np.multiply.outer(y, x)
    exponent = inverse[0, 0] * y[:, None] ** 2 + inverse[1, 1] * x**2 + 2 * inverse[0, 1] * cross
    weighted = image * np.exp(-exponent / 2)
    total = weighted.sum()
    if not total > 0:
        return np.zeros(2), np.full((2, 2), np.nan)
    py, px = weighted.sum(axis=1) / total, weighted.sum(axis=0) / total
    mean = np.array([py @ y, px @ x])
    yx = (weighted * cross).sum() / total
    seen = np.array([[py @ y**2, yx], [yx, px @ x**2]]) - np.multiply.outer(mean, mean)
    if not (seen[0, 0] > 0 and np.linalg.det(seen) > 0):
        return np.zeros(2), np.full((2, 2), np.nan)
    # A Gaussian times its weight has the sum of their inverse matrices. Where that makes no sense
    # (a flat image), the slower rule with the same end: the weight halves the moments.
    star = np.linalg.inv(seen) - inverse
    proper = star[0, 0] > 0 and np.linalg.det(star) > 0
    return 2 * mean, np.linalg.inv(star) if proper else 2 * seen


def _gaussian(sigma: float, size: int, dx: float, dy: float) -> Image:
    """Gaussian, not normalized; (dx, dy) from the middle pixel."""
    r2 = (np.arange(size) - size // 2 - np.array([[dy], [dx]])) ** 2
    y, x = np.exp(-r2 / (2 * sigma**2))
    return np.multiply.outer(y, x)


def _resample(image: Image, y: Image, x: Image) -> Image:
    """Interpolate an image, zero beyond its edges, on the grid of coordinates y and x."""
    return _sinc_weights(y, image.shape[0]) @ image @ _sinc_weights(x, image.shape[1]).T


def _sinc_weights(positions: Image, n: int, width: float = 2.5) -> Image:
    """Matrix that interpolates n samples at the positions, by a sinc with a Gaussian window.

    As compact as a Lanczos-5 kernel, but it keeps flux and center to 1e-9 (Lanczos-5: 0.01 pixel).
    """
    reach = int(4 * width)
    first = min(0, math.floor(positions.min())) - reach
    last = max(n - 1, math.ceil(positions.max())) + reach
    u = positions[:, None] - np.arange(first, last + 1)
    weights = np.sinc(u) * np.exp(-((u / width) ** 2) / 2)
    # Exact at the samples: np.sinc leaves 1e-17 there.
    weights = np.where(u == np.rint(u), u == 0, weights)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights[:, -first : n - first]


def _hashable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.shape, blake2b(value.tobytes(), digest_size=16).digest()
    return value


def _set(frozen: Any, **values: Any) -> None:
    """Set fields of a frozen dataclass while it is made."""
    for name, value in values.items():
        object.__setattr__(frozen, name, value)


def _read_only(array: ArrayLike, what: str, ndim: int) -> Image:
    """Return a private float64 copy, checked."""
    array = np.array(in_unit(array, _ONE, what))
    if array.ndim != ndim or not array.size:
        raise ValueError(f"{what} must have {ndim} dimensions, none empty; got shape {array.shape}")
    if not np.all(np.isfinite(array)):
        bad = np.argwhere(~np.isfinite(array))
        raise ValueError(
            f"{what} must be finite; {len(bad)} values are not, the first at {bad[0].tolist()}"
        )
    array.flags.writeable = False
    return array


def _pair(name: str, values: Iterable[float]) -> tuple[float, float]:
    values = values if has_unit(values) else tuple(values)  # which may be any iterable
    x, y = in_unit(values, u.pix, name).tolist()
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError(f"expected two finite numbers (x, y), got ({x}, {y})")
    return x, y


def _positive(name: str, value: float, unit: u.UnitBase = u.pix) -> float:
    value = number_in(value, unit, name)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return value


def _odd_size(size: int | None, sigma: float) -> int:
    if size is None:
        size = 2 * math.ceil(5 * sigma) + 1
    size = plain(size, u.pix, "size")
    if size != int(size) or size < 1 or size % 2 == 0:
        raise ValueError(f"size must be an odd number of pixels, got {size}")
    _check_size(int(size))
    return int(size)


def _check_size(size: int) -> None:
    if size > _LARGEST:
        raise ValueError(f"the PSF's image has {size} pixels a side, more than {_LARGEST}")
