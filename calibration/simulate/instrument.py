"""A simulated telescope and camera: passbands, flats, and what they make of the light.

The passbands are top hats with smooth edges, times a throughput that is tilted differently for
each detector. What the camera's flats leave is the superstar flat: a few per cent, 3 x 3 Chebyshev
terms per detector and filter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import astropy.units as u
import numpy as np

from mapreduce import Box
from mapreduce.exposure.box import whole_pixels
from mapreduce.units import number_in

from ..atmosphere.table import AtmosphereTable
from ..atmosphere.transmission import TransmissionCurve
from ..camera.camera import Camera
from ..camera.detector import Detector
from ..camera.focal_plane import RadialTransform

__all__ = ["BANDS", "FILTERS", "GAIN", "Instrument", "photon_rate", "simulate_camera"]

FILTERS = {"SIM-G": "g", "SIM-R": "r", "SIM-I": "i", "SIM-Z": "z"}
"""Band of each physical filter."""

BANDS = tuple(FILTERS.values())

GAIN = 1.5
"""Electrons per adu."""

_EDGES = {  # Angstrom to the blue and to the red, and throughput
    "SIM-G": (4050.0, 5450.0, 0.36),
    "SIM-R": (5550.0, 6900.0, 0.42),
    "SIM-I": (6950.0, 8150.0, 0.42),
    "SIM-Z": (8250.0, 9250.0, 0.38),
}
_EDGE = 40.0  # Angstrom, in which an edge rises
_TILT = 0.06  # of the throughput's logarithm per 1000 Angstrom, from detector to detector
_FLAT = 0.01  # size of the superstar's terms
_SCALING = 0.015  # by which flats change when they are made anew
_AREA = 1e5  # cm2, of the mirror
_PLANCK = 6.62607015e-27  # erg s
_AB_ZERO = 10 ** (-48.6 / 2.5)  # erg / (s cm2 Hz)


def simulate_camera(
    columns: int = 4,
    rows: int = 2,
    *,
    width: int = 2048,
    height: int = 4096,
    pixel_size: float = 0.01,
    gap: float = 0.5,
    plate_scale: float = 20.0,
    distortion: float = 0.01,
    name: str = "SimCam",
) -> Camera:
    """Make a camera of CCDs in columns and rows; those in the upper half stand on their heads.

    Parameters
    ----------
    columns, rows : int, optional
        Of detectors; 4 x 2 by default. 21 x 9 are as many as LSSTCam's, 189.
    width, height : int, optional
        Of a detector, pixels.
    pixel_size, gap : float, mm, optional
        Of a pixel; between detectors.
    plate_scale : float, arcsec/mm, optional
        At the center.
    distortion : float, optional
        Relative change of the scale from the center to the corner, radial and cubic.
    name : str, optional

    Raises
    ------
    ValueError
        If there is no detector, or a number is not positive.

    Examples
    --------
    >>> camera = simulate_camera(2, 2, width=500, height=400)
    >>> camera, round(camera.pixel_scale, 2), camera[3].yaw
    (Camera('SimCam', 4 detectors, ids from 0 to 3), 0.2, 180.0)
    """
    width, height = whole_pixels("width", width), whole_pixels("height", height)
    pixel_size = number_in(pixel_size, u.mm, "pixel_size")
    gap = number_in(gap, u.mm, "gap")
    plate_scale = number_in(plate_scale, u.arcsec / u.mm, "plate_scale")
    distortion = number_in(distortion, u.dimensionless_unscaled, "distortion")
    if min(columns, rows, width, height) < 1 or pixel_size <= 0 or gap < 0:
        raise ValueError(
            f"a camera needs detectors with pixels, got {columns} x {rows} of {width} x {height} "
            f"pixels of {pixel_size} mm, {gap} mm apart"
        )
    step_x, step_y = width * pixel_size + gap, height * pixel_size + gap
    corner = math.hypot(columns * step_x - gap, rows * step_y - gap) / 2
    coeffs = 0.0, 1.0, 0.0, distortion / corner**2
    transform = RadialTransform(math.radians(plate_scale / 3600), coeffs)
    detectors = []
    for number in range(columns * rows):
        row, column = divmod(number, columns)
        detector = Detector(
            number,
            f"R{row}C{column}",
            "SCIENCE",
            Box(0, 0, width, height),
            refpos=((width - 1) / 2, (height - 1) / 2),
            offset=((column - (columns - 1) / 2) * step_x, (row - (rows - 1) / 2) * step_y),
            yaw=180.0 if 2 * row >= rows > 1 else 0.0,
            pixel_size=(pixel_size, pixel_size),
            transform=transform,
        )
        detectors.append(detector)
    return Camera(detectors, name=name)


def photon_rate(i0: np.ndarray) -> np.ndarray:
    """Return adu per second of a source of AB magnitude 0, for integrals I0 of the passband."""
    return _AREA * _AB_ZERO / _PLANCK / GAIN * i0


@dataclass(frozen=True, eq=False)
class Instrument:
    """A camera with its passbands and flats, under an atmosphere.

    Parameters
    ----------
    camera : Camera
    atmosphere : AtmosphereTable
        Whose wavelengths are in equal steps, and an odd number of them.
    tilt : (n_filters, n_detectors) array
        Of the logarithm of the throughput, per 1000 Angstrom.
    superstar : (n_filters, n_detectors, 3, 3) array
        Chebyshev coefficients [y, x] of the fields that fluxes are to be multiplied with.
    scaling : (n_filters, n_detectors) array
        The same for the change of the flats on the last night.
    """

    camera: Camera
    atmosphere: AtmosphereTable
    tilt: np.ndarray
    superstar: np.ndarray
    scaling: np.ndarray

    @classmethod
    def draw(
        cls, camera: Camera, atmosphere: AtmosphereTable, rng: np.random.Generator
    ) -> Instrument:
        """Draw tilts, superstar flats and scalings."""
        shape = len(FILTERS), len(camera)
        superstar = rng.normal(0, _FLAT, (*shape, 3, 3)) / (1 + np.add.outer(range(3), range(3)))
        superstar[..., 0, 0] += 1
        tilt, scaling = rng.normal(0, _TILT, shape), np.exp(rng.normal(0, _SCALING, shape))
        return cls(camera, atmosphere, tilt, superstar, scaling)

    def passbands(self, filter_index: int) -> np.ndarray:
        """Return the throughput of a filter without atmosphere, (n_detectors, n_wavelengths)."""
        wavelengths = self.atmosphere.wavelengths
        blue, red, height = [*_EDGES.values()][filter_index]
        hat = np.tanh((wavelengths - blue) / _EDGE) + np.tanh((red - wavelengths) / _EDGE)
        from_middle = (wavelengths - (blue + red) / 2) / 1000
        return height / 2 * hat * np.exp(np.multiply.outer(self.tilt[filter_index], from_middle))

    @cached_property
    def filter_curves(self) -> list[TransmissionCurve]:
        """The passband of each filter without atmosphere, mean of the detectors."""
        wavelengths = self.atmosphere.wavelengths
        means = (self.passbands(i).mean(axis=0) for i in range(len(FILTERS)))
        return [TransmissionCurve(wavelengths, mean) for mean in means]

    @cached_property
    def standard_atmosphere(self) -> TransmissionCurve:
        """The transmission of the standard atmosphere."""
        return self.atmosphere.curve(self.atmosphere.standard)

    @cached_property
    def standard_curves(self) -> list[TransmissionCurve]:
        """The standard passbands: mean of the detectors, with the standard atmosphere."""
        return [curve * self.standard_atmosphere for curve in self.filter_curves]

    @cached_property
    def reference_wavelengths(self) -> np.ndarray:
        """Photon-weighted mean wavelength of each standard passband, Angstrom."""
        return np.array([curve.effective_wavelength() for curve in self.standard_curves])

    def band_integrals(
        self, filter_index: int, transmissions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return FGCM's I0 and I10 (Angstrom) of atmospheres through a filter.

        Parameters
        ----------
        filter_index : int
        transmissions : (n, n_wavelengths) array

        Returns
        -------
        i0, i10 : (n, n_detectors) arrays
            By Simpson's rule; I10 about the reference wavelength.
        """
        # Row by row: how BLAS rounds a product depends on the number of rows.
        i0, i1 = (
            np.array([row @ kernel for row in transmissions])
            for kernel in self._kernels[filter_index]
        )
        return i0, i1 / i0

    @cached_property
    def _kernels(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each filter, what to multiply transmissions with for I0 and I1."""
        wavelengths = self.atmosphere.wavelengths
        weights = np.full(len(wavelengths), 2.0)
        weights[1::2], weights[[0, -1]] = 4.0, 1.0
        weights *= (wavelengths[1] - wavelengths[0]) / 3 / wavelengths
        kernels = []
        for i, reference in enumerate(self.reference_wavelengths):
            zeroth = (weights * self.passbands(i)).T
            kernels.append((zeroth, zeroth * (wavelengths - reference)[:, np.newaxis]))
        return kernels
