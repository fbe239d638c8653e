"""What a mapper is, and how to make one of a plain array function.

A mapper is any callable

    mapper(sub, expanded, full_bbox, **mapper_kwargs) -> Exposure or anything

that is called once per cell. ``sub`` and ``expanded`` are read-only `Exposure` objects over the
core box and the expanded box of the cell, ``full_bbox`` is the `Box` of the whole exposure, all in
parent coordinates. A mapper looks at the expanded box, so that its answer is right up to the edge
of the core, and for a pixel reducer returns an exposure: ``sub.replace(image=...)``, or one over
any other box inside the expanded one. It must not write into what it is given, and returns arrays
of its own or views of its input: a buffer used again for the next cell would change its result.

A mapper that names ``cell`` or ``rng`` among its parameters, after the first three, is also given
the `Cell`, or a `numpy.random.Generator` that depends on the seed of the run and the index of the
cell alone.

A mapper that has an attribute ``reach``, a number of pixels or a function of its keyword arguments
that returns one, says how far around a pixel it looks: a border that is narrower is refused before
the run.

So that it can travel to other processes, a mapper is an importable function or a picklable object.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import index
from typing import Any, Concatenate, TypeVar

import astropy.units as u
import numpy as np

from ..exposure.box import Box, whole_pixels
from ..exposure.exposure import Exposure
from ..units import number_in

__all__ = [
    "ArrayMapper",
    "Mapper",
    "WrappingMapper",
    "array_mapper",
    "check_arguments",
    "declared",
    "extras",
    "masked_pixels",
    "name_of",
    "reach_of",
    "reaching",
    "require_border",
]

Mapper = (
    Callable[[Exposure, Exposure, Box], Any]  # without which mypy infers no lambda
    | Callable[Concatenate[Exposure, Exposure, Box, ...], Any]
)

_EXTRAS = ("cell", "rng")
_Function = TypeVar("_Function", bound=Callable[..., Any])


def extras(mapper: Mapper) -> frozenset[str]:
    """Return which of ``cell`` and ``rng`` a mapper names, and so has to be given.

    Parameters
    ----------
    mapper : callable
        A function, method, partial, callable object or class. What a `functools.partial` or
        `array_mapper` already fixes does not count, nor do ``**kwargs``; callables that hide
        their signature, as some built-in ones do, name nothing.

    Raises
    ------
    TypeError
        If the mapper is not callable.

    Examples
    --------
    >>> def add_noise(sub, expanded, full_bbox, *, sigma=1.0, rng):
    ...     return sub + rng.normal(0, sigma, sub.shape)
    >>> sorted(extras(add_noise))
    ['rng']
    """
    if not callable(mapper):
        raise TypeError(
            f"a mapper is a callable (sub, expanded, full_bbox, **kwargs), got {mapper!r}"
        )
    if isinstance(mapper, WrappingMapper):
        return _named(mapper.function, positional=1) - mapper.arguments.keys()
    return _named(mapper, positional=3)


class WrappingMapper:
    """A mapper made of a function, which is called with what is to be worked on and keywords."""

    function: Callable[..., Any]
    arguments: Mapping[str, Any]


def declared(mapper: Mapper, name: str) -> Any:
    """Return what a mapper says of itself by an attribute; None if nothing.

    Of a `functools.partial`, what the function in it says.

    Examples
    --------
    >>> declared(functools.partial(ArrayMapper(np.flipud), cell=1), "plane")
    'image'
    """
    while isinstance(mapper, functools.partial) and not hasattr(mapper, name):
        mapper = mapper.func
    return getattr(mapper, name, None)


def reach_of(mapper: Mapper, options: Mapping[str, Any]) -> int | None:
    """Return how far around a pixel a mapper looks with some options; None if it does not say.

    Examples
    --------
    >>> reach_of(array_mapper(np.flipud, reach=3), {})
    3
    """
    reach = declared(mapper, "reach")
    if callable(reach):
        fixed = mapper.keywords if isinstance(mapper, functools.partial) else {}
        reach = reach({**fixed, **options})
    return None if reach is None else _pixels(f"the reach of {name_of(mapper)}", reach)


def reaching(reach: Callable[[Mapping[str, Any]], int]) -> Callable[[_Function], _Function]:
    """Give a mapper its attribute ``reach``, a function of its keyword arguments."""

    def decorated(function: _Function) -> _Function:
        vars(function)["reach"] = reach
        return function

    return decorated


def _pixels(name: str, value: Any) -> int:
    try:
        pixels = index(whole_pixels(name, value))
    except TypeError:
        raise TypeError(f"{name} must be a whole number of pixels, got {value!r}") from None
    if pixels < 0:
        raise ValueError(f"{name} must be zero or more pixels, got {pixels}")
    return pixels


def check_arguments(mapper: Mapper, keywords: Iterable[str]) -> None:
    """Refuse keyword arguments that a mapper does not take, or too few of them.

    Raises
    ------
    TypeError
        If a call with three positional arguments and these keywords would fail; callables that
        hide their signature, or pass on what they get, are not checked.

    Examples
    --------
    >>> def brighten(sub, expanded, full_bbox, by):
    ...     return sub + by
    >>> check_arguments(brighten, ["to"])
    Traceback (most recent call last):
    ...
    TypeError: mapper brighten cannot be called with (sub, expanded, full_bbox, to): missing a ...
    """
    try:
        signature = inspect.signature(mapper)
    except (TypeError, ValueError):
        return
    keywords = list(keywords)
    try:
        signature.bind(None, None, None, **dict.fromkeys(keywords))
    except TypeError as error:
        arguments = ", ".join(["sub", "expanded", "full_bbox", *keywords])
        raise TypeError(
            f"mapper {name_of(mapper)} cannot be called with ({arguments}): {error}"
        ) from None


def _named(function: Callable[..., Any], positional: int) -> frozenset[str]:
    """Return the extras among the parameters after those that are passed by position."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return frozenset()
    by_keyword = {
        name
        for i, (name, p) in enumerate(parameters.items())
        if p.kind is p.KEYWORD_ONLY or (p.kind is p.POSITIONAL_OR_KEYWORD and i >= positional)
    }
    fixed = function.keywords if isinstance(function, functools.partial) else ()
    return frozenset(by_keyword.intersection(_EXTRAS).difference(fixed))


@dataclass(frozen=True)
class ArrayMapper(WrappingMapper):
    """A mapper made of an array function; see `array_mapper`, which makes it.

    Parameters
    ----------
    function, plane, mask, fill, trim, reach
        As for `array_mapper`.
    arguments : mapping
        Keyword arguments of the function.

    Examples
    --------
    >>> ArrayMapper(np.flipud).plane
    'image'
    """

    function: Callable[..., Any]
    plane: str = "image"
    mask: tuple[str, ...] = ()
    fill: float | None = None
    trim: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    reach: int | None = None

    def __post_init__(self) -> None:
        if self.reach is not None:
            object.__setattr__(self, "reach", _pixels("reach", self.reach))
        if not callable(self.function):
            raise TypeError(f"array_mapper takes a function of an array, got {self.function!r}")
        if self.plane not in ("image", "variance", "mask"):
            raise ValueError(f"plane must be image, variance or mask, got {self.plane!r}")
        if self.fill is not None:
            number_in(self.fill, u.dimensionless_unscaled, "fill")

    def __call__(
        self, sub: Exposure, expanded: Exposure, full_bbox: Box, **keywords: Any
    ) -> Exposure:
        """Apply the function to as much of the expanded box as it reaches; cut out the core."""
        if self.reach is not None:
            require_border(sub, expanded, full_bbox, self.reach)
            if self.trim:
                expanded = expanded.cutout(sub.bbox.grow(self.reach).clip(expanded.bbox))
        pixels = self._pixels(expanded)
        result = np.asarray(self.function(pixels, **{**self.arguments, **keywords}))
        if result.shape != pixels.shape:
            raise ValueError(
                f"{name_of(self.function)} was given an array of shape {pixels.shape} and returned "
                f"one of shape {result.shape}; a pixel-by-pixel result must keep the shape"
            )
        if not self.trim:
            return expanded.replace(**{self.plane: result})
        return sub.replace(**{self.plane: result[sub.bbox.slices(expanded.bbox)]})

    def _pixels(self, exposure: Exposure) -> np.ndarray:
        """Return the plane, with the fill value put in where it has to be."""
        pixels = getattr(exposure, self.plane)
        if pixels is None:
            raise ValueError(
                f"{name_of(self.function)} works on the {self.plane}, and there is none"
            )
        bad = masked_pixels(exposure, self.mask)
        if self.fill is not None:
            bad |= np.isnan(pixels)
        if not bad.any():
            return pixels
        return np.where(bad, np.nan if self.fill is None else self.fill, pixels)


def array_mapper(
    function: Callable[..., Any],
    *,
    plane: str = "image",
    mask: str | Iterable[str] = (),
    fill: float | None = None,
    trim: bool = True,
    reach: int | None = None,
    **arguments: Any,
) -> ArrayMapper:
    """Make a mapper of a function that takes an image as an array and returns one of equal shape.

    The function sees the expanded box of each cell; its result is trimmed to the core. So seams
    are absent if the border of the grid is at least the reach of the function: 2 pixels for a
    median over 5 x 5. Say that with ``reach``, and a narrower border is refused.

    Only the chosen plane is replaced. The others are passed on as they are: the variance of the
    result is **not** that of the filtered image, whose noise is smaller and correlated between
    pixels, and a pixel into which a masked one was mixed is not flagged.

    Parameters
    ----------
    function : callable
        Called as ``function(array, **arguments)`` with a read-only (ny, nx) array in the dtype of
        the plane; importable, if it is to run in other processes. Further keyword arguments of
        the mapper go to it too and win over ``arguments``; it may also name ``cell`` or ``rng``.
    plane : {"image", "variance", "mask"}
        What it works on.
    mask : str or iterable of str
        Mask planes whose pixels it is to see as ``fill``.
    fill : float, optional
        What it sees in place of masked pixels and of NaN pixels; by default NaN for both, for
        which an integer plane becomes float64. What the function makes of filled pixels is in the
        result as any other value.
    trim : bool
        Whether to trim the result to the core; if not, it is over the expanded box.
    reach : int, optional
        How far around a pixel the function looks, in pixels: SciPy's ``gaussian_filter`` 4 sigma.
        A grid with a narrower border is then refused before the run, and of a wider one only this
        margin is worked on.
    **arguments
        Fixed keyword arguments of the function. For arguments with the names of the parameters
        above use `functools.partial`.

    Returns
    -------
    ArrayMapper
        Picklable where the function is.

    Raises
    ------
    TypeError
        If the function is not callable.
    ValueError
        If there is no such plane; from every call, if the result has another shape, or the border
        is narrower than the reach.
    KeyError
        From every call, if the exposure has no such mask plane.

    Examples
    --------
    >>> from scipy import ndimage
    >>> mapper = array_mapper(ndimage.maximum_filter, size=3)
    >>> expanded = Exposure(np.eye(5), origin=(10, 10))
    >>> mapper(expanded.cutout(Box(11, 11, 2, 2)), expanded, expanded.bbox).image
    array([[1., 1.],
           [1., 1.]])
    """
    return ArrayMapper(function, plane, _names(mask), fill, trim, arguments, reach)


def masked_pixels(exposure: Exposure, planes: str | Iterable[str]) -> np.ndarray:
    """Return where any of these mask planes is set: bool (ny, nx), all False without a mask.

    Raises
    ------
    KeyError
        If the exposure has no such mask plane.

    Examples
    --------
    >>> exposure = Exposure(np.zeros((1, 3)), mask=np.array([[1, 2, 4]]))
    >>> masked_pixels(exposure, ["BAD", "SAT"])
    array([[ True,  True, False]])
    """
    bits = exposure.mask_planes.bitmask(*_names(planes))
    if exposure.mask is None or not bits:
        return np.zeros(exposure.shape, bool)
    return (exposure.mask & bits) != 0


def require_border(sub: Exposure, expanded: Exposure, full_bbox: Box, pixels: int) -> None:
    """Refuse a cell whose border is too narrow for a mapper that looks ``pixels`` around.

    A narrow border would leave seams between cells. At the edges of the whole exposure no border
    is needed.

    Raises
    ------
    ValueError
        If the expanded box does not reach far enough beyond the core.

    Examples
    --------
    >>> whole = Exposure(np.zeros((9, 9)))
    >>> core = whole.cutout(Box(0, 0, 9, 4))
    >>> require_border(core, whole.cutout(Box(0, 0, 9, 5)), whole.bbox, 1)
    >>> require_border(core, whole.cutout(Box(0, 0, 9, 5)), whole.bbox, 2)
    Traceback (most recent call last):
    ...
    ValueError: Box(x0=0, y0=0, width=9, height=4) needs a border of 2 pixels ...
    """
    if not expanded.bbox.contains(sub.bbox.grow(pixels).clip(full_bbox)):
        raise ValueError(
            f"{sub.bbox} needs a border of {pixels} pixels on every side inside of the exposure, "
            f"but its expanded box is {expanded.bbox}; make the border of the grid wider"
        )


def _names(planes: str | Iterable[str]) -> tuple[str, ...]:
    return (planes,) if isinstance(planes, str) else tuple(planes)


def name_of(function: Callable[..., Any]) -> str:
    """Return what messages call a function."""
    return getattr(function, "__qualname__", None) or repr(function)
