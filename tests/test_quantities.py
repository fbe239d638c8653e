"""Every public function that takes numbers takes them in their unit, converts them, or refuses.

`DOORS` has each argument of both packages that is a number with a unit, or that must have none; a
new one has to be listed here, or among those that are no such numbers.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
import pytest
from astropy.table import Column, MaskedColumn, Table
from astropy.utils.masked import Masked
from astropy.wcs import WCS

import calibration as cal
import mapreduce as mr
from calibration.run.columns import STARS
from calibration.stars.tracts import TractStars
from calibration.tables.catalog import Catalog
from mapreduce.mappers import gaussian_filter, median_filter, subtract_background
from mapreduce.units import DOBSON

ONE, MBAR = u.dimensionless_unscaled, u.Unit("mbar")
OTHER = {  # a unit in which the same can be said
    u.deg: u.rad,
    u.rad: u.arcsec,
    u.arcsec: u.deg,
    u.pix: u.kpix,
    u.mm: u.cm,
    u.m: u.km,
    u.AA: u.nm,
    MBAR: u.Pa,
    DOBSON: u.cm**-2,
    u.s: u.min,
    u.mag: u.mmag,
    u.ABmag: u.mag(u.nJy),
    u.adu: u.kadu,
    u.nJy: u.uJy,
    ONE: u.percent,
    u.arcsec / u.mm: u.deg / u.m,
}


class Door(NamedTuple):
    """An argument: where it belongs, its unit, plain numbers, and a function of the argument."""

    of: str
    unit: u.UnitBase
    values: Any
    call: Callable[[Any], Any]


DOORS: list[Door] = []


def doors(of, function, /, **arguments):
    """List each of some arguments, which are (unit, plain numbers), of a function of them all."""
    usual = {name: values for name, (_, values) in arguments.items()}

    def called(values, name):
        return function(**usual | {name: values})

    for name, (unit, values) in arguments.items():
        DOORS.append(Door(f"{of}.{name}", unit, values, partial(called, name=name)))


def kept(kind, *names, **fixed):
    """Return a function that makes something, and returns some of what it keeps."""

    def made(**changed):
        result = kind(**fixed | changed)
        return [getattr(result, name) for name in names]

    return made


BOX = mr.Box(0, 0, 100, 80)
XY = {"x": (u.pix, [10.0, 20.0]), "y": (u.pix, [5.0, 6.0])}
PLACE = {"ra": (u.deg, [10.0, 10.2]), "dec": (u.deg, [20.0, 20.1])}
ANGLES = {"tx": (u.rad, [0.001, 0.002]), "ty": (u.rad, [0.0, 0.001])}

# The sky

doors("SkyMap.tract", cal.RingsSkyMap(9).tract, **PLACE)
doors("SkyMap.tract", cal.HealpixSkyMap(8).tract, **PLACE)
doors("RingsSkyMap", kept(cal.RingsSkyMap, "ra_start", num_rings=9), ra_start=(u.deg, 20.0))
others = {"other_ra": (u.deg, [10.1, 10.3]), "other_dec": (u.deg, [20.1, 20.0])}
doors("match_sky", cal.match_sky, **PLACE, **others, radius=(u.deg, 1.0))

# Atmospheres and curves

clear, gray = np.ones((3, 3, 3)).tolist(), np.repeat([[0.9], [0.8], [0.7]], 3, axis=1).tolist()
parts = {"wavelengths": (u.AA, [4000.0, 6000.0, 8000.0]), "sec_zenith": (ONE, [1.0, 2.0, 3.0])}
parts |= {"ln_pwv": (ONE, [0.0, 1.0, 2.0]), "o3": (DOBSON, [200.0, 300.0, 400.0])}
parts |= {"oxygen": (ONE, clear[0]), "rayleigh": (ONE, gray), "ozone": (ONE, clear)}
parts |= {"water": (ONE, clear), "pmb_elevation": (MBAR, 750.0), "lambda_norm": (u.AA, 7750.0)}
parts |= {"elevation": (u.m, 2000.0)}
doors("AtmosphereTable", kept(cal.AtmosphereTable, *parts), **parts)
AIR = cal.AtmosphereTable(**{name: values for name, (_, values) in parts.items()})


def standard(pmb):
    return cal.AtmosphereTable(*AIR.__reduce__()[1][:11], standard={"pmb": pmb}).standard["pmb"]


doors("AtmosphereTable.standard", standard, pmb=(MBAR, 740.0))
parameters = {"pmb": (MBAR, [750.0]), "pwv": (u.mm, [2.0]), "o3": (DOBSON, [250.0])}
parameters |= {"tau": (ONE, [0.1]), "alpha": (ONE, [1.0]), "secZenith": (ONE, [1.5])}
parameters |= {"cTrans": (ONE, [0.1]), "lamStd": (u.AA, [5000.0])}
doors("AtmosphereTable.interpolate.parameters", lambda **p: AIR.interpolate(p), **parameters)
doors("AtmosphereTable.curve.parameters", lambda **p: AIR.curve(p), **parameters)

CURVE = cal.TransmissionCurve([4000, 5000, 7000], [0.5, 0.7, 0.6], 1.2)
waves, values = (
    (u.AA, np.linspace(4e3, 5e3, 11).tolist()),
    (ONE, np.linspace(0.1, 0.9, 11).tolist()),
)
curve = {"wavelengths": waves, "throughput": values, "airmass": (ONE, 1.5)}
doors("TransmissionCurve", cal.TransmissionCurve, **curve)
table = {"wavelength": waves, "throughput": values}
doors(
    "TransmissionCurve.from_table", lambda **p: cal.TransmissionCurve.from_table(Table(p)), **table
)
doors("TransmissionCurve.sample", CURVE.sample, wavelengths=(u.AA, [1e3, 5e3]), outside=(ONE, 0.2))
doors("TransmissionCurve.times", partial(CURVE.times, CURVE), wavelengths=waves)
doors("TransmissionCurve.at_airmass", CURVE.at_airmass, airmass=(ONE, 2.0))
doors("TransmissionCurve.band_integrals", CURVE.band_integrals, reference=(u.AA, 5e3))
integrals = {"wavelengths": waves, "throughput": values, "reference": (u.AA, 4500.0)}
doors("band_integrals", cal.band_integrals, **integrals)

# Cameras

CAMERA = cal.simulate_camera(2, 1, width=100, height=80)
SKY = cal.Boresight(10.0, 20.0)
TRANSFORM = cal.RadialTransform(1e-4, (0.0, 1.0))
WCS_OF = WCS(naxis=2)
WCS_OF.wcs.ctype, WCS_OF.wcs.crval, WCS_OF.wcs.cdelt = (
    ["RA---TAN", "DEC--TAN"],
    (10, 20),
    (-0.01, 0.01),
)
DETECTORS = {"Detector": CAMERA[1], "WcsDetector": cal.WcsDetector(0, "", "", BOX, WCS_OF, SKY)}


def simulated_camera(**changed):
    one = cal.simulate_camera(2, 1, **changed)[1]
    return *one.box, *one.offset, *one.pixel_size, one.transform.plate_scale, *one.transform.coeffs


size = {
    "width": (u.pix, 100),
    "height": (u.pix, 80),
    "pixel_size": (u.mm, 0.01),
    "gap": (u.mm, 0.5),
}
size |= {"plate_scale": (u.arcsec / u.mm, 20.0), "distortion": (ONE, 0.01)}
doors("simulate_camera", simulated_camera, **size)
scale = {"pixel_scale": (u.arcsec, 0.2)}
doors("Camera", kept(cal.Camera, "pixel_scale", detectors=[*CAMERA.values()]), **scale)
doors("Camera.to_field_angle", partial(CAMERA.to_field_angle, [0, 1]), **XY)
doors("Camera.to_sky", partial(CAMERA.to_sky, [0, 1], boresight=SKY), **XY)
doors("Camera.locate", CAMERA.locate, **ANGLES)
place = {"refpos": (u.pix, [9.0, 4.0]), "offset": (u.mm, [-20.0, 10.0]), "yaw": (u.deg, 90.0)}
place |= {"pixel_size": (u.mm, [0.01, 0.02])}
named = {"id": 3, "name": "", "type": "", "box": BOX, "transform": TRANSFORM}
doors("Detector", kept(cal.Detector, *place, **named), **place)
for kind, detector in DETECTORS.items():
    doors(f"{kind}.to_field_angle", detector.to_field_angle, **XY)
    doors(f"{kind}.from_field_angle", detector.from_field_angle, **ANGLES)
    doors(f"{kind}.to_sky", partial(detector.to_sky, boresight=SKY), **XY)
    doors(f"{kind}.from_sky", partial(detector.from_sky, boresight=SKY), **PLACE)
    doors(f"{kind}.pixel_area", detector.pixel_area, **XY)
MM = {"x": (u.mm, [10.0, 20.0]), "y": (u.mm, [5.0, 6.0])}
doors("Detector.to_focal_plane", CAMERA[1].to_focal_plane, **XY)
doors("Detector.from_focal_plane", CAMERA[1].from_focal_plane, **MM)
point = {"ra": (u.deg, 10.0), "dec": (u.deg, 20.0), "rotation": (u.deg, 30.0)}
doors("Boresight", kept(cal.Boresight, *point), **point)
doors("Boresight.to_sky", SKY.to_sky, **ANGLES)
doors("Boresight.from_sky", SKY.from_sky, **PLACE)
radial = {"plate_scale": (u.rad / u.mm, 1e-4), "coeffs": (ONE, [0.0, 1.0, 0.0, 1e-6])}
doors("RadialTransform", kept(cal.RadialTransform, *radial), **radial)
doors("RadialTransform.to_field_angle", TRANSFORM.to_field_angle, **MM)
doors("RadialTransform.from_field_angle", TRANSFORM.from_field_angle, **ANGLES)

# Fields and calibrations

FIELD = cal.ChebyshevField(BOX, [[2.0, 0.5], [0.2, 0.1]])
PHOTO = cal.PhotoCalib(FIELD, err=0.1)
VISIT = cal.VisitPhotoCalib(42, [7], [BOX], [FIELD.coefficients], [2.0], [0.1])
numbers = {"coefficients": (ONE, [[2.0, 0.5]])}
doors("ChebyshevField", kept(cal.ChebyshevField, "coefficients", box=BOX), **numbers)
doors("ChebyshevField.__call__", FIELD, **XY)
y, x = np.mgrid[:80:30, :100:40].reshape(2, -1).astype(float).tolist()
fit = {"x": (u.pix, x), "y": (u.pix, y), "values": (ONE, np.add(x, y).tolist())}
doors("ChebyshevField.fit", lambda **p: cal.ChebyshevField.fit(BOX, **p, order=(2, 2))(7, 8), **fit)
mean = {"mean": (u.nJy, 2.0), "err": (u.nJy / u.adu, 0.1)}
doors("PhotoCalib", kept(cal.PhotoCalib, *mean, field=FIELD), **mean)
stack = {"boxes": (u.pix, [[0, 0, 100, 80]]), "coefficients": (u.nJy, [[[2.0, 0.5]]])}
stack |= {"mean": (u.nJy, [2.0]), "err": (u.nJy, [0.1])}
doors("VisitPhotoCalib", kept(cal.VisitPhotoCalib, *stack, visit=42, detectors=[7]), **stack)
edge = {"x": (u.pix, [102.0, 20.0]), "y": (u.pix, [5.0, 6.0]), "margin": (u.pix, 3.0)}
flux = {"inst_flux": (u.adu, [100.0, 200.0]), "inst_flux_err": (u.adu, [3.0, 4.0])}
for kind, made, fixed in (("PhotoCalib", PHOTO, {}), ("VisitPhotoCalib", VISIT, {"detector": 7})):
    doors(f"{kind}.calibration", partial(made.calibration, **fixed), **edge)
    doors(f"{kind}.to_nanojansky", partial(made.to_nanojansky, **fixed), **flux, **edge)
    doors(f"{kind}.to_magnitude", partial(made.to_magnitude, **fixed), **flux, **edge)
EXPOSURE = mr.Exposure(np.arange(1200.0).reshape(30, 40), np.ones((30, 40)))
doors("PhotoCalib.calibrate", partial(PHOTO.calibrate, EXPOSURE), tile=(u.pix, [20, 40]))


def visit(scaling=(1.5,), offset=0.0, area_boxes=((0, 0, 100, 50),), area=((((1.1,),),)), **rows):
    rows |= {"detector": [3], "fgcmFlag": [1], "fgcmfZptSstarCheb": [[1.0]]}
    options = {"offset": offset, "area": ([3], area_boxes, area)}
    made = cal.visit_photo_calib(42, rows, ([3], scaling), **options)
    return made.coefficients, made.mean, made.err


zeropoint = {"fgcmZpt": (u.mag, [31.4]), "fgcmZptVar": (u.mag**2, [1e-6])}
zeropoint |= {"fgcmfZptChebXyMax": (u.pix, [[99, 49]]), "fgcmfZptCheb": (ONE, [[1e-12]])}
zeropoint |= {"fgcmDeltaChrom": (u.mag, [0.01])}
rows = {name: values for name, (_, values) in zeropoint.items()}
doors("visit_photo_calib.rows", visit, **zeropoint)
doors("visit_photo_calib", partial(visit, **rows), scaling=(ONE, [1.5]), offset=(u.mag, 0.1))
area = {"area_boxes": (u.pix, [[0, 0, 100, 50]]), "area": (ONE, [[[1.1]]])}
doors("visit_photo_calib.area", partial(visit, **rows), **area)


def sources(margin=5.0, **columns):
    table = {"visit": [42, 42], "detector": [7, 7]} | columns
    (made,) = cal.calibrate_sources(table, {42: VISIT}, margin=margin)
    return [*map(np.asarray, made.compute(scheduler="sync")["flux", "mag"].itercols())]


counts = {"instFlux": (u.adu, [500.0, 100.0]), "instFluxErr": (u.adu, [5.0, 2.0])}
fluxes = {name: values for name, (_, values) in counts.items()}
doors("calibrate_sources", partial(sources, **fluxes), margin=(u.pix, 7.0), x=XY["x"], y=XY["y"])

# Magnitudes

term = {"c0": (u.mag, 0.1), "c1": (ONE, 0.2), "c2": (1 / u.mag, 0.3)}
doors("ColorTerm", kept(cal.ColorTerm, *term, primary="g", secondary="r"), **term)
stars = {"primary": (u.ABmag, [20.0, 21.0]), "secondary": (u.ABmag, [19.0, 20.5])}
doors("ColorTerm.apply", cal.ColorTerm(primary="g", secondary="r", c1=0.1).apply, **stars)
config = {"reference_match_radius": (u.arcsec, 0.5), "magnitude_error_floor": (u.mag, 0.01)}
config |= {"sky_map_ra_start": (u.deg, 20.0)}
doors("ProductsConfig", kept(cal.ProductsConfig, *config), **config)


def near(**place):
    table = {"ra": [10.0, 10.1], "dec": [20.0, 20.1], "g_flux": [3e4, 5e4], "g_fluxErr": [3e2, 4e2]}
    found = cal.ReferenceCatalog.open(table).read(["g"], **place)
    return found.vectors, found.magnitudes["g"], found.near(**place).vectors


doors("ReferenceCatalog.read", near, **PLACE, radius=(u.deg, 0.01))


def offsets(**changed):
    parts = {name: {"g": value} for name, value in changed.items()}
    made = cal.ReferenceOffsets(**parts, n_pixels={}, pixels=Table(), residuals={})
    return [getattr(made, name)["g"] for name in changed]


level = {"offsets": (u.mag, 0.1), "scatter": (u.mag, 0.2), "errors": (u.mag, 0.3)}
doors("ReferenceOffsets", offsets, **level)


def shifted(offset):
    stars = {"id": [5], "coord_ra": [0.1], "coord_dec": [0.0], "ngood": [[2]]}
    stars |= {"mag_std_noabs": [[18.5]], "magErr_std": [[0.01]]}
    catalog, _ = Catalog.of(stars, STARS)
    return TractStars(catalog, "r", cal.RingsSkyMap(3), {"r": offset}).offsets["r"]


doors("tract_stars.offsets", shifted, offset=(u.mag, 0.1))

# Pixels

PSF = mr.GaussianPsf(2.0)
CELLS = mr.CellPsf([mr.PsfComponent(0, BOX, PSF)])
WHOLE = (u.pix, 7)
doors("Box", mr.Box, x0=WHOLE, y0=WHOLE, width=WHOLE, height=WHOLE)
doors("Box.grow", BOX.grow, dx=WHOLE, dy=WHOLE)
doors("Box.covers", BOX.covers, x=(u.pix, 99.4), y=(u.pix, 3.0))
doors("Box.from_edges", mr.Box.from_edges, x0=(u.pix, 1), y0=(u.pix, 2), x1=WHOLE, y1=WHOLE)
corner, image = {"origin": (u.pix, [5, 6])}, np.ones((3, 4))
doors("Exposure", lambda **p: mr.Exposure(image, **p).bbox, **corner)
doors("Exposure.chunk", lambda size: EXPOSURE.chunk(size).image.chunksize, size=(u.pix, [10, 20]))
doors("GaussianPsf", kept(mr.GaussianPsf, "_sigma", "size"), sigma=(u.pix, 1.5), size=WHOLE)
two = {"sigma1": (u.pix, 1.5), "sigma2": (u.pix, 3.0), "ratio": (ONE, 0.1), "size": WHOLE}
doors("DoubleGaussianPsf", kept(mr.DoubleGaussianPsf, *two), **two)
doors("KernelPsf", kept(mr.KernelPsf, "array"), array=(ONE, [[0.0, 1.0, 0.0]]))
psfex = {"planes": (ONE, np.ones((1, 3, 3)).tolist()), "sampling": (u.pix, 0.5)}
pairs = ("offset", "scale", "origin", "average_position")
psfex |= dict.fromkeys(pairs, (u.pix, [2.0, 3.0]))
doors("PsfexPsf", kept(mr.PsfexPsf, *psfex, degree=0), **psfex)
PIXEL = {"x": (u.pix, 3.25), "y": (u.pix, 4.0)}
for method in ("compute_image", "compute_kernel_image", "sigma", "fwhm"):
    doors(f"Psf.{method}", getattr(PSF, method), **PIXEL)
    doors(f"CellPsf.{method}", getattr(CELLS, method), **PIXEL)
doors("GaussianPsf.sigma", PSF.sigma, **PIXEL)
doors("CellPsf.components_at", lambda **p: len(CELLS.components_at(**p)), **PIXEL)
weight = {"weight": (ONE, 0.5)}
doors("PsfComponent", kept(mr.PsfComponent, "weight", index=0, box=BOX, psf=PSF), **weight)

grid = {"cell_size": (u.pix, [20, 10]), "step": (u.pix, 20), "border": (u.pix, 3.0)}
grid |= {"centroids": (u.pix, [[5.0, 6.0]])}
doors("GridConfig", kept(mr.GridConfig, *grid, adjust="none"), **grid)
in_fwhm = partial(mr.GridConfig, step=None, scale_by_fwhm=True)
sizes = {"cell_size": (ONE, 5.0), "border": (ONE, 1.0)}
doors("GridConfig(scale_by_fwhm=True)", kept(in_fwhm, *sizes), **sizes)
config = in_fwhm(5, border=1)
doors("GridConfig.build", lambda **p: [*config.build(BOX, **p).table.tolist()], fwhm=(u.pix, 2.0))
lsst = partial(mr.GridConfig.lsst, scaleByFwhm=False)
doors("GridConfig.lsst", lambda cell_size: lsst(cellSizeX=cell_size).cell_size, cell_size=WHOLE)


def unchanged(sub, expanded, full_bbox):
    return sub


run = partial(mr.map_reduce, EXPOSURE, unchanged, grid=mr.GridConfig(20, border=2))
doors("map_reduce", run, tile=(u.pix, [20, 40]), reach=(u.pix, 3))
filtered = {gaussian_filter: {"sigma": (u.pix, 1.5)}, median_filter: {"size": (u.pix, 3)}}
for mapper, options in (filtered | {subtract_background: {"sigma": (ONE, 2.0)}}).items():
    call = partial(mapper, EXPOSURE, EXPOSURE, EXPOSURE.bbox)
    doors(mapper.__name__, call, **options)
doors("array_mapper", lambda reach: mr.array_mapper(np.flipud, reach=reach).reach, reach=(u.pix, 3))
doors(
    "array_mapper", lambda fill: float(mr.array_mapper(np.flipud, fill=fill).fill), fill=(ONE, 0.5)
)


def simulated(**options):
    exposure, _ = mr.simulate_exposure(**options)
    return exposure.bbox, exposure, exposure.wcs.wcs.crval, exposure.wcs.wcs.cd


made = {"size": (u.pix, [40, 30]), "origin": (u.pix, [5, 6]), "density": (ONE, 2e4)}
made |= {"star_fraction": (ONE, 0.5), "background": (u.adu, 300.0), "gradient": (ONE, 0.2)}
made |= {"gain": (u.electron / u.adu, 2.0), "read_noise": (u.electron, 5.0)}
made |= {"saturation": (u.adu, 5e4), "cosmic_rays": (ONE, 20.0), "bad_columns": (ONE, 3.0)}
made |= {"sky": (u.deg, [10.0, 20.0]), "pixel_scale": (u.arcsec, 0.3), "rotation": (u.deg, 5.0)}
doors("simulate_exposure", simulated, **made, exposure_time=(u.s, 60.0))


def forms(values, unit):
    """Yield the ways to say the same, by name."""
    array = np.asarray(values)
    same = array * unit
    other = same.to(OTHER.get(unit, unit))
    yield "array", array if array.ndim else values
    yield "Quantity", same
    yield "another unit", other
    if array.ndim:
        yield "Column", Column(array)
        yield "Column with a unit", Column(other.value, unit=other.unit)
        yield "MaskedColumn", MaskedColumn(other.value, unit=other.unit, mask=np.isnan(other.value))
        if not isinstance(unit, u.FunctionUnitBase):
            yield "masked Quantity", Masked(other, np.isnan(other.value))


def flat(result):
    """Yield the numbers of a result, and see that they are plain."""
    if isinstance(result, cal.TransmissionCurve):
        result = result.wavelengths, result.throughput, result.airmass
    if isinstance(result, mr.Exposure):
        result = result.compute(scheduler="sync").image
    if isinstance(result, tuple | list):
        for part in result:
            yield from flat(part)
    elif result is not None:
        plain = type(result) in (np.ndarray, int, float, bool) or isinstance(result, np.generic)
        assert plain, f"{result!r} is not plain"
        yield np.asarray(result, float).ravel()


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.of)
def test_numbers_are_taken_in_their_unit_or_refused(door):
    expected = [*flat(door.call(door.values))]
    for kind, given in forms(door.values, door.unit):
        found = [*flat(door.call(given))]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, err_msg=kind)
    name = door.of.rpartition(".")[2].removeprefix("area_")
    with pytest.raises(ValueError, match=rf"\b{name}\b.* in K"):
        door.call(np.asarray(door.values) * u.K)


# That none is left out

_NUMBERS = re.compile(r"ArrayLike|float|ndarray|\bint\b")

# Arguments that are ids, counts and choices wherever they stand.
_NO_UNIT = {
    *(
        "choose",
        "cycle",
        "degree",
        "detector",
        "detector_id",
        "detectors",
        "id",
        "index",
        "n_stars",
    ),
    *("n_visits", "nside", "num_rings", "order", "partition", "rows", "columns", "seed", "skip"),
    *("tract", "tracts", "visit", "visits", "progress", "avoid", "examples", "n_pixels"),
}
# What we make, or are called by the engine with, and not what users call; tables.
_OTHERS = re.compile(
    r"(BandIntegrals|CalibratedSources|Cell|CellFailure|Grid|MaskPlanes|Patch|Report|Repeatability"
    r"|SourcesReport|WriteReport)(\..*)?|\w+\.(begin|draw|fold|finish|weight|put)"
)
_ELSEWHERE = {
    "Camera.from_wcs.boxes",
    "Camera.from_wcs.headers",
    "Exposure.mask_planes",  # bits
    "FgcmProducts.offsets",  # they are handed on to tract_stars and visit_photo_calib
    "FgcmProducts.with_offsets.offsets",
    "ReferenceOffsets.residuals",  # counts
    "TractStars.offsets",  # tract_stars
    "read_exposure.chunks",  # Exposure.chunk
    "VisitPhotoCalib.from_photo_calibs.photo_calibs",
}


def public():
    """Yield the public callables of both packages by name: functions, constructors, methods."""
    for package in (cal, mr):
        for name in package.__all__:
            found = getattr(package, name)
            if not inspect.isclass(found):
                yield from [(name, found)] * callable(found)
            elif not issubclass(found, Exception):
                yield name, found
                yield from methods(name, found, {*cal.__all__, *mr.__all__})


def methods(name, kind, others):
    """Yield the public methods of a class that are its own, or of a base that is not public."""
    for each in dir(kind):
        owner = next((b for b in kind.__mro__ if each in vars(b)), object)
        ours = owner.__module__.partition(".")[0] in ("calibration", "mapreduce")
        if (each.startswith("_") and each != "__call__") or not ours:
            continue
        if owner is kind or owner.__name__ not in others:
            found = vars(owner)[each]
            found = getattr(found, "__func__", found)
            yield from [(f"{name}.{each}", found)] * inspect.isfunction(found)


def test_every_public_number_has_its_door():
    doors = {door.of for door in DOORS}
    numbers = {
        f"{name}.{argument.name}"
        for name, function in public()
        if not _OTHERS.fullmatch(name)
        for argument in inspect.signature(function).parameters.values()
        if _NUMBERS.search(str(argument.annotation)) and argument.name not in _NO_UNIT
    }
    assert (
        sorted(
            n for n in numbers - _ELSEWHERE if not any(f"{d}.".startswith(f"{n}.") for d in doors)
        )
        == []
    )
    assert sorted(_ELSEWHERE - numbers) == []
