"""Numbers in the unit that is needed: what is converted or refused, and what a unit is called."""

import astropy.units as u
import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import Angle, SkyCoord
from astropy.table import Column, MaskedColumn
from astropy.utils.masked import Masked

import mapreduce as mr
from mapreduce.units import CALIBRATION, DOBSON, INSTRUMENTAL, in_unit, known_unit, number_in

NAN = np.nan


@pytest.mark.parametrize(
    ("values", "unit", "expected"),
    [
        (3, u.deg, 3.0),
        (np.float32(0.5), u.deg, 0.5),
        ([1, 2], u.deg, [1, 2]),
        ([60 * u.arcmin, np.pi * u.rad], u.deg, [1, 180]),
        (Angle("1d30m"), u.deg, 1.5),
        (Column([1, 2]), u.deg, [1, 2]),
        (Column([1, 2], unit="degrees"), u.arcmin, [60, 120]),
        (MaskedColumn([1, 2], unit="h", mask=[True, False]), u.s, [NAN, 7200]),
        (Masked([1.0, 2.0] * u.h, [True, False]), u.s, [NAN, 7200]),
        (np.ma.array([1, 2], mask=[False, True]), u.s, [1, NAN]),
        (np.ma.masked, u.s, NAN),
        (pd.Series([1.5, None]), u.s, [1.5, NAN]),
        (50 * u.percent, u.dimensionless_unscaled, 0.5),
        (Column([300.0], unit="DU"), DOBSON, [300]),
        (Column([300.0], unit=u.def_unit("Dobson")), DOBSON, [300]),
        (Column([7.0], unit=u.UnrecognizedUnit("mbar")), u.hPa, [7]),
        (Column([2.0], unit="kadu"), INSTRUMENTAL, [2000]),
        (Column([2.0], unit="COUNTS"), INSTRUMENTAL, [2]),
        (120 * u.electron / u.min, INSTRUMENTAL, 2),
        (2 * u.uJy / u.electron, CALIBRATION, 2000),
        (20 * u.mag, u.ABmag, 20),
        (20 * u.mmag, u.ABmag, 0.02),
        (20 * u.ABmag, u.mag, 20),
        (0 * u.mag(u.nJy), u.ABmag, 31.4),
        (3631 * u.Jy, u.ABmag, 0),
    ],
)
def test_what_is_converted(values, unit, expected):
    found = in_unit(values, unit, "it")
    assert type(found) is np.ndarray
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "unit", "message"),
    [
        (3 * u.m, u.deg, "it is in m, which is no deg; give deg or plain numbers"),
        (3 * u.dimensionless_unscaled, u.deg, "it is dimensionless, which is no deg"),
        (3 * u.pix, u.dimensionless_unscaled, "it is in pix; it must have no unit"),
        ([1 * u.deg, 2 * u.m], u.deg, "it is in m"),
        (
            np.degrees(Column([1.0], unit="rad")),
            u.deg,
            "it is a Column that says rad, and has 57.29",
        ),
        (Column([1.0], unit="furlong"), u.m, "it is in 'furlong', a unit that is not known"),
        (3 * u.nJy, INSTRUMENTAL, "it is in nJy, which is no adu, ct, electron or the like"),
        (20 * u.STmag, u.ABmag, r"it is in mag\(ST\), which is no mag\(AB\)"),
        (20 * u.mag(u.ct), u.mag, r"it is in mag\(ct\), which is no mag"),
    ],
)
def test_what_is_in_another_unit_is_refused(values, unit, message):
    with pytest.raises(u.UnitConversionError, match=f"^{message}"):
        in_unit(values, unit, "it")


@pytest.mark.parametrize("values", ["5", ["a"], None, 1j, SkyCoord(1 * u.deg, 2 * u.deg), object()])
def test_what_is_no_number_is_refused(values):
    with pytest.raises(TypeError, match="^it must be numbers, got"):
        in_unit(values, u.deg, "it")
    with pytest.raises(TypeError, match="^it must be one number, got an array of shape"):
        number_in([1.0, 2.0], u.deg, "it")


@pytest.mark.parametrize(
    ("unit", "texts"),
    [
        (
            u.nJy,
            ["nJy", " nJy ", "'nJy'", "nanojansky", "njy", "1e-9 Jy", "10**-9 Jy", "nanoJansky"],
        ),
        (u.adu, ["adu", "ADU"]),
        (u.electron, ["electron", "electrons", "e-", "ELECTRONS"]),
        (u.electron / u.s, ["electron/s", "e-/s", "electron s-1"]),
        (u.ct, ["ct", "count", "counts", "COUNTS"]),
        (u.deg, ["deg", "degree", "Degrees"]),
        (u.ABmag, ["mag(AB)", "ABmag", "AB mag"]),
        (u.pix, ["pix", "pixel", "pixels"]),
        (None, ["furlong", "per fortnight", "?"]),
    ],
)
def test_names_of_units(unit, texts):
    for text in texts:
        assert known_unit(text) == unit, text


@pytest.mark.parametrize("other", [2 * u.adu, np.ones((2, 3)) * u.adu, 2 * u.percent])
def test_an_exposure_is_not_combined_with_a_quantity(other):
    exposure = mr.Exposure(np.ones((2, 3)), np.ones((2, 3)))
    for combine in (
        lambda: exposure + other,
        lambda: exposure * other,
        lambda: other - exposure,
        lambda: exposure / other,
    ):
        with pytest.raises(u.UnitConversionError, match="plain numbers, .* got a Quantity in"):
            combine()


def test_cells_in_fwhms_are_not_in_pixels():
    with pytest.raises(u.UnitConversionError, match="cell_size is in pix; it must have no unit"):
        mr.GridConfig(20 * u.pix, scale_by_fwhm=True)
    with pytest.raises(TypeError, match="four integers"):
        mr.Box(0, 0, 2.5 * u.pix, 3)
