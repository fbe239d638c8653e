"""A simulated exposure whose truth is known: for tests, examples and benchmarks.

Stars and galaxies behind one PSF on a sloping background, photon and read-out noise with the
variance that it was drawn from, and the blemishes of a real detector, each with its mask plane.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from scipy import fft

from .exposure.box import Box, size_pair, whole_pixels
from .exposure.exposure import Exposure
from .exposure.mask import MaskPlanes
from .exposure.psf import GaussianPsf, Psf
from .units import Units, in_unit, number_in

__all__ = [
    "PROFILES",
    "Profile",
    "SimulatedExposure",
    "Truth",
    "draw_galaxy",
    "simulate_exposure",
]

_UNITS: dict[str, u.UnitBase | Units] = {
    "background": u.adu,
    "gain": u.electron / u.adu,
    "read_noise": u.electron,
    "saturation": u.adu,
    "pixel_scale": (u.arcsec, u.arcsec / u.pix),
    "rotation": u.deg,
    "exposure_time": u.s,
}
_STRIP = 256  # rows of noise drawn at a time, in float64


class Profile(NamedTuple):
    """A galaxy profile of Spergel (2010).

    Attributes
    ----------
    nu : float
        Index.
    half_light : float
        Half-light radius in scale lengths.
    reach : float
        Half-light radii that are drawn: 98 to 99 % of the light.
    """

    nu: float
    half_light: float
    reach: float


# Index 1/2 is exactly an exponential disk; -0.6 is near de Vaucouleurs' r^(1/4) law.
PROFILES = {
    "exponential": Profile(0.5, 1.6783470, 5.0),
    "de_vaucouleurs": Profile(-0.6, 0.5477140, 8.0),
}


@dataclass(frozen=True, eq=False)
class Truth:
    """What a simulated exposure was made of.

    Attributes
    ----------
    sources : astropy.table.Table
        One row per source, the saturated stars first. ``x``, ``y``: parent pixel coordinates.
        ``ra``, ``dec``: degrees. ``flux``: total, in the image's unit. ``kind``: star, exponential
        or de_vaucouleurs. ``half_light_radius``: before the PSF, in pixels, of the circle of
        equal area. ``ellipticity``: 1 - b/a. ``angle``: of the major axis, degrees from +x
        towards +y. The last three are 0 for stars.
    noiseless : (ny, nx) float32
        Sources and background, without noise, blemishes and saturation; the image's unit.
    background : (ny, nx) float32
        The background alone.
    """

    sources: Table
    noiseless: np.ndarray
    background: np.ndarray


class SimulatedExposure(NamedTuple):
    """A simulated exposure and its truth; can be unpacked as such a pair."""

    exposure: Exposure
    truth: Truth


def simulate_exposure(
    size: int | tuple[int, int] = 1024,
    *,
    seed: int = 0,
    origin: tuple[int, int] = (0, 0),
    psf: Psf | None = None,
    density: float = 400.0,
    star_fraction: float = 0.4,
    background: float = 400.0,
    gradient: float = 0.1,
    gain: float = 1.5,
    read_noise: float = 6.0,
    saturation: float = 60_000.0,
    cosmic_rays: float = 15.0,
    bad_columns: float = 2.0,
    sky: tuple[float, float] = (150.0, 2.2),
    pixel_scale: float = 0.2,
    rotation: float = 3.0,
    exposure_time: float = 30.0,
    band: str = "r",
) -> SimulatedExposure:
    """Simulate an exposure of one detector.

    With m the noiseless image in adu, g the gain and r the read noise, a pixel is drawn as
    ``(Poisson(g m) + Normal(0, r)) / g`` and its variance is ``m / g + (r / g)**2``. So the chi2
    per pixel of ``image - truth.noiseless`` is 1 where ``mask`` is 0. The background is
    ``background * (1 + gradient * (0.5 u + 0.3 v - 0.1 (u**2 + v**2)))`` with u and v from -1 to 1
    across the columns and rows. Fluxes follow power laws from the detection limit up. Galaxies are
    the profiles of Spergel (2010, ApJS 191, 58), convolved with the PSF at their place.

    Parameters
    ----------
    size : int or (int, int)
        Columns and rows, (nx, ny); one number for a square.
    seed : int
        Everything random follows from it: the same arguments give the same bits. Sources, noise
        and blemishes each have a stream of their own, so leaving one out does not change the
        others, and the origin changes no pixel unless the PSF varies.
    origin : (int, int)
        Parent coordinates (x, y) of the first pixel.
    psf : Psf, optional
        Default ``GaussianPsf(1.7)``: a seeing of 0.8 arcsec on pixels of 0.2 arcsec.
    density : float
        Sources per million pixels. Of the stars one in a hundred, at least one, is saturated.
    star_fraction : float
        Stars among the sources, 0 to 1; the others are galaxies.
    background : float
        Sky level in adu.
    gradient : float
        Relative slope of the background, 0 to 1.
    gain : float
        Electrons per adu.
    read_noise : float
        Electrons.
    saturation : float
        Level in adu at which pixels are cut off and flagged SAT.
    cosmic_rays : float
        Tracks per million pixels, flagged CR.
    bad_columns : float
        Dead columns, or parts of columns, per thousand columns, flagged BAD: read noise alone.
    sky : (float, float)
        Right ascension and declination of the center, degrees.
    pixel_scale : float
        Arcsec per pixel.
    rotation : float
        Angle of north from +y towards -x, degrees; east is towards -x.
    exposure_time : float
        Seconds; for the header only, as is ``band``.
    band : str
        Name of the filter.

    Returns
    -------
    SimulatedExposure
        ``exposure`` with float32 image (adu) and variance (adu**2), int32 mask, TAN WCS in parent
        coordinates, PSF and a FITS header; and ``truth``.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> exposure, truth = simulate_exposure((200, 100), seed=1, origin=(1000, 0))
    >>> exposure.bbox
    Box(x0=1000, y0=0, width=200, height=100)
    >>> good = exposure.mask == 0
    >>> chi2 = (exposure.image - truth.noiseless) ** 2 / exposure.variance
    >>> round(float(chi2[good].mean()), 1)
    1.0
    """
    x0, y0 = whole_pixels("origin", origin)
    box = Box(x0, y0, *size_pair("size", size))
    given = {"density": density, "star_fraction": star_fraction, "background": background}
    given |= {"gradient": gradient, "gain": gain, "read_noise": read_noise}
    given |= {"saturation": saturation, "cosmic_rays": cosmic_rays, "bad_columns": bad_columns}
    given |= {"pixel_scale": pixel_scale, "rotation": rotation, "exposure_time": exposure_time}
    plain = {n: number_in(v, _UNITS.get(n, u.dimensionless_unscaled), n) for n, v in given.items()}
    density, star_fraction, background, gradient, gain, read_noise, *rest = plain.values()
    saturation, cosmic_rays, bad_columns, pixel_scale, rotation, exposure_time = rest
    ra, dec = in_unit(sky, u.deg, "sky").tolist()
    positive = {"gain": gain, "saturation": saturation, "pixel_scale": pixel_scale}
    rates = {"density": density, "cosmic_rays": cosmic_rays, "bad_columns": bad_columns}
    levels = {"background": background, "read_noise": read_noise, "exposure_time": exposure_time}
    _check("positive", lambda value: 0 < value < math.inf, **positive)
    _check("zero or positive", lambda value: 0 <= value < math.inf, **rates, **levels)
    _check(
        "from 0 to 1", lambda value: 0 <= value <= 1, star_fraction=star_fraction, gradient=gradient
    )

    psf = GaussianPsf(1.7) if psf is None else psf
    wcs = _tan_wcs(box, (ra, dec), pixel_scale, rotation)
    planes = MaskPlanes.lsst()
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(4)]
    read = read_noise / gain

    sky_noise = math.hypot(math.sqrt(background / gain), read)
    counts = _counts(density * box.area / 1e6, star_fraction)
    sources = _draw_sources(streams[0], box, counts, psf, sky_noise, saturation)
    sources["ra"], sources["dec"] = wcs.all_pix2world(sources["x"], sources["y"], 0)
    level = _background(box.shape, background, gradient)
    noiseless = level.copy()
    _add_sources(noiseless, box, sources, psf)

    image = _noisy(streams[1], noiseless, gain, read)
    variance = noiseless / np.float32(gain) + np.float32(read**2)
    mask = np.zeros(box.shape, np.int32)
    tracks = math.ceil(cosmic_rays * box.area / 1e6)
    _add_cosmic_rays(streams[2], image, mask, planes.bitmask("CR"), tracks)
    mask[image >= saturation] |= planes.bitmask("SAT")
    np.minimum(image, np.float32(saturation), out=image)
    dead = min(math.ceil(bad_columns * box.width / 1e3), box.width)
    _kill_columns(streams[3], image, mask, planes.bitmask("BAD"), dead, read)

    meta = _header(exposure_time, gain, read_noise, saturation, band, seed)
    meta["SEEING"] = (round(psf.fwhm(*box.center) * pixel_scale, 4), "FWHM of the PSF in arcsec")
    exposure = Exposure(
        image, variance, mask, origin=origin, mask_planes=planes, wcs=wcs, psf=psf, meta=meta
    )
    return SimulatedExposure(exposure, Truth(sources, noiseless, level))


def _check(rule: str, holds: Callable[[float], bool], **values: float) -> None:
    for name, value in values.items():
        if not holds(value):
            raise ValueError(f"{name} must be {rule}, got {value}")


def _tan_wcs(box: Box, sky: tuple[float, float], pixel_scale: float, rotation: float) -> WCS:
    """Tangential projection about the center of the box, in parent coordinates."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.cunit = "deg", "deg"
    wcs.wcs.crval = sky
    wcs.wcs.crpix = box.center[0] + 1, box.center[1] + 1  # FITS counts from 1
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    wcs.wcs.cd = pixel_scale / 3600 * np.array([[-cos, -sin], [-sin, cos]])
    wcs.wcs.set()
    return wcs


def _counts(total: float, star_fraction: float) -> dict[str, int]:
    """Return the number of sources of each kind; two galaxies in three are disks."""
    stars = round(total * star_fraction)
    galaxies = round(total) - stars
    spheroids = galaxies // 3
    return {"star": stars, "exponential": galaxies - spheroids, "de_vaucouleurs": spheroids}


def _draw_sources(
    rng: np.random.Generator,
    box: Box,
    counts: dict[str, int],
    psf: Psf,
    sky_noise: float,
    saturation: float,
) -> Table:
    """Draw a table of sources, stars first and the saturated ones first of all."""
    kinds = np.repeat(list(counts), list(counts.values()))
    n, stars = len(kinds), counts["star"]
    x = box.x0 - 0.5 + box.width * rng.random(n)
    y = box.y0 - 0.5 + box.height * rng.random(n)
    kernel = psf.compute_kernel_image(*box.center)
    # Five sigma for a star whose profile is known, and where its central pixel saturates.
    faintest = max(5 * sky_noise / math.sqrt((kernel**2).sum()), 1.0)
    brightest = saturation / kernel.max()
    flux = np.minimum(faintest * (1 - rng.random(n)) ** (-1 / 0.8), brightest / 2)
    saturated = math.ceil(stars / 100)
    flux[:saturated] = brightest * rng.uniform(1.5, 6.0, saturated)
    galaxy = kinds != "star"
    table = Table({"x": x, "y": y, "ra": np.zeros(n), "dec": np.zeros(n), "flux": flux})
    table["kind"] = kinds
    table["half_light_radius"] = galaxy * np.clip(rng.lognormal(math.log(3), 0.4, n), 1.0, 10.0)
    table["ellipticity"] = galaxy * rng.uniform(0.0, 0.6, n)
    table["angle"] = galaxy * rng.uniform(0.0, 180.0, n)
    units = {"x": "pix", "y": "pix", "ra": "deg", "dec": "deg", "flux": "adu"}
    for name, unit in {**units, "half_light_radius": "pix", "angle": "deg"}.items():
        table[name].unit = unit
    return table


def _background(shape: tuple[int, int], level: float, gradient: float) -> np.ndarray:
    """Plane and slow curvature; u, v run from -1 to 1 over the columns and rows."""
    v, u = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape)
    along_x = 1 + gradient * (0.5 * u - 0.1 * u**2)
    along_y = gradient * (0.3 * v - 0.1 * v**2)
    return np.add.outer((level * along_y).astype(np.float32), (level * along_x).astype(np.float32))


def _add_sources(image: np.ndarray, box: Box, sources: Table, psf: Psf) -> None:
    shapes = ("half_light_radius", "ellipticity", "angle")
    columns = [sources[name].tolist() for name in ("x", "y", "flux", "kind", *shapes)]
    for x, y, flux, kind, *shape in zip(*columns, strict=True):
        if kind == "star":
            stamp = psf.compute_image(x, y)
        else:
            stamp = draw_galaxy(psf, x, y, PROFILES[kind], *shape)
        ny, nx = stamp.shape
        place = Box(round(x) - nx // 2, round(y) - ny // 2, nx, ny)
        inside = place.clip(box)
        if inside.area:
            image[inside.slices(box)] += (flux * stamp)[inside.slices(place)]


def draw_galaxy(
    psf: Psf, x: float, y: float, profile: Profile, radius: float, ellipticity: float, angle: float
) -> np.ndarray:
    """Draw a galaxy of flux 1 behind the PSF of its place; the middle pixel is (rint x, rint y).

    The profiles have Fourier transforms in closed form, ``(1 + (2 pi k h)**2)**(-1 - nu)`` for
    scale length h (Spergel 2010, eq. 2), so the convolution is exact for any PSF.

    Parameters
    ----------
    psf : Psf
    x, y : float
        Place, in the coordinates of the PSF.
    profile : Profile
        One of `PROFILES`.
    radius, ellipticity, angle : float
        See `Truth`.

    Examples
    --------
    >>> draw_galaxy(GaussianPsf(1.0), 0, 0, PROFILES["exponential"], 2.0, 0.0, 0.0).shape
    (45, 45)
    """
    kernel = psf.compute_kernel_image(x, y)
    ratio = 1 - ellipticity
    n = 2 * math.ceil(profile.reach * radius / math.sqrt(ratio)) + max(kernel.shape)
    n += 1 - n % 2
    while fft.next_fast_len(n, real=True) != n:
        n += 2
    kx, ky = fft.rfftfreq(n), fft.fftfreq(n)[:, None]
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    k2 = (kx * cos + ky * sin) ** 2 / ratio + (ky * cos - kx * sin) ** 2 * ratio
    scale = 2 * math.pi * radius / profile.half_light
    dx = x - round(x) + n // 2 - kernel.shape[1] // 2
    dy = y - round(y) + n // 2 - kernel.shape[0] // 2
    phase = np.exp(-2j * math.pi * dx * kx) * np.exp(-2j * math.pi * dy * ky)
    spectrum = fft.rfft2(kernel, (n, n)) * phase * (1 + scale**2 * k2) ** (-1 - profile.nu)
    # Rounding leaves tiny negative values, which no photon count can have.
    return np.maximum(fft.irfft2(spectrum, (n, n)), 0)


def _noisy(rng: np.random.Generator, noiseless: np.ndarray, gain: float, read: float) -> np.ndarray:
    """Photon noise of the noiseless image in adu, and ``read`` adu of read noise."""
    image = np.empty_like(noiseless)
    for first in range(0, len(image), _STRIP):
        strip = slice(first, first + _STRIP)
        photons = rng.poisson(noiseless[strip] * float(gain)) / gain
        image[strip] = photons + rng.normal(0, read, photons.shape)
    return image


def _add_cosmic_rays(
    rng: np.random.Generator, image: np.ndarray, mask: np.ndarray, bit: int, n: int
) -> None:
    """Add straight tracks, one pixel wide, of constant charge."""
    ny, nx = image.shape
    x, y = nx * rng.random((n, 1)), ny * rng.random((n, 1))
    angle = rng.uniform(0, 2 * math.pi, (n, 1))
    length = 2 + rng.exponential(6, (n, 1))
    charge = rng.lognormal(math.log(1500), 0.6, (n, 1))
    step = np.arange(0, 40, 0.5)
    xs = np.floor(x + step * np.cos(angle)).astype(int)
    ys = np.floor(y + step * np.sin(angle)).astype(int)
    hit = (step < length) & (xs >= 0) & (xs < nx) & (ys >= 0) & (ys < ny)
    pixels, first = np.unique((ys * nx + xs)[hit], return_index=True)
    image.reshape(-1)[pixels] += np.broadcast_to(charge, hit.shape)[hit][first].astype(image.dtype)
    mask.reshape(-1)[pixels] |= bit


def _kill_columns(
    rng: np.random.Generator,
    image: np.ndarray,
    mask: np.ndarray,
    bit: int,
    n: int,
    read: float,
) -> None:
    """Leave nothing but read noise in n columns, in about half of them from some row up."""
    ny, nx = image.shape
    for x in rng.choice(nx, n, replace=False):
        first = rng.integers(ny) * rng.integers(2)
        image[first:, x] = rng.normal(0, read, ny - first)
        mask[first:, x] |= bit


def _header(
    exposure_time: float, gain: float, read_noise: float, saturation: float, band: str, seed: int
) -> fits.Header:
    return fits.Header(
        [
            ("OBJECT", "simulated field", "what was observed"),
            ("DATE-OBS", "2026-01-01T00:00:00", "start of the exposure"),
            ("EXPTIME", exposure_time, "exposure time in seconds"),
            ("FILTER", band, "filter"),
            ("BUNIT", "adu", "unit of the pixels"),
            ("GAIN", gain, "electrons per adu"),
            ("RDNOISE", read_noise, "read noise in electrons"),
            ("SATURATE", saturation, "saturation level in adu"),
            ("SEED", seed, "seed of the simulation"),
        ]
    )
