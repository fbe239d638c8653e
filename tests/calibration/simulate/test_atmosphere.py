"""The approximate atmosphere: what it shares with the real one."""

from __future__ import annotations

import numpy as np
import pytest

from calibration import AtmosphereTable
from calibration.simulate.atmosphere import (
    approximate_atmosphere,
    oxygen_transmission,
    ozone_transmission,
    rayleigh_transmission,
    water_transmission,
)

AIR = {"pmb": 730.0, "pwv": 3.0, "o3": 280.0, "tau": 0.03, "alpha": 1.0, "secZenith": 1.2}


@pytest.fixture(scope="module")
def table():
    return approximate_atmosphere()


def depth(transmission):
    return -np.log(transmission)


def test_rayleigh_goes_with_pressure_airmass_and_wavelength():
    one = depth(rayleigh_transmission([4000.0, 8000.0], 1.0, 800.0))
    np.testing.assert_allclose(depth(rayleigh_transmission([4000.0, 8000.0], 2.0, 400.0)), one)
    assert 4.0 < np.log2(one[0] / one[1]) < 4.15
    # Bodhaine et al. (1999) have 0.0972 for 550 nm at sea level.
    assert depth(rayleigh_transmission(5500.0, 1.0, 1013.25)) == pytest.approx(0.0972, rel=0.01)


def test_ozone_is_deepest_in_the_chappuis_band_and_in_the_blue():
    wavelengths = np.arange(3000.0, 11000.0, 5.0)
    found = depth(ozone_transmission(wavelengths, 1.0, 300.0))
    visible = wavelengths > 4000
    assert 5800 < wavelengths[visible][found[visible].argmax()] < 6100
    assert 0.03 < found[visible].max() < 0.05
    assert (np.diff(found[wavelengths < 3400]) < 0).all()
    twice = depth(ozone_transmission(wavelengths, 2.0, 150.0))
    np.testing.assert_allclose(found, twice, atol=1e-15)


def test_oxygen_and_water_saturate():
    for once, twice in (
        (oxygen_transmission(7600.0, 1.0), oxygen_transmission(7600.0, 2.0)),
        (water_transmission(9400.0, 1.0, 2.0), water_transmission(9400.0, 1.0, 4.0)),
    ):
        assert 1.3 < depth(twice) / depth(once) < 1.7
    assert water_transmission(9400.0, 2.0, 2.0) == water_transmission(9400.0, 1.0, 4.0)


@pytest.mark.parametrize("band", [6280, 6870, 7600, 7200, 8200, 9400])
def test_bands_are_where_they_should_be(table, band):
    curve = table.curve({**AIR, "tau": 0.0})
    inside, beside = curve.sample(band), curve.sample([band - 200, band + 200])
    assert inside < beside.mean() - 0.015


def test_whole_atmosphere_is_of_the_usual_depth(table):
    clear = table.curve(AIR).sample([4000.0, 5000.0, 8800.0, 10400.0])
    np.testing.assert_allclose(clear, [0.66, 0.83, 0.95, 0.98], atol=0.03)


def test_table_is_near_the_formulas_between_its_nodes(table):
    parameters = {**AIR, "tau": 0.0, "pmb": table.pmb_elevation, "secZenith": 1.37, "pwv": 4.4}
    expected = rayleigh_transmission(table.wavelengths, 1.37, table.pmb_elevation)
    expected = expected * ozone_transmission(table.wavelengths, 1.37, 280.0)
    expected *= oxygen_transmission(table.wavelengths, 1.37)
    expected *= water_transmission(table.wavelengths, 1.37, 4.4)
    np.testing.assert_allclose(table.interpolate(parameters)[0], expected, atol=0.02)


def test_higher_sites_have_less_air():
    low, high = (approximate_atmosphere(elevation=elevation) for elevation in (0, 4000))
    assert low.pmb_elevation == pytest.approx(1013.25)
    assert (high.rayleigh > low.rayleigh).all()


def test_table_is_written_and_read_in_the_layout_of_fgcm(tmp_path, table):
    table.write(tmp_path / "air.fits")
    found = AtmosphereTable.open("air", tmp_path)
    np.testing.assert_array_equal(found.interpolate(AIR), table.interpolate(AIR))
    assert found.standard == table.standard


def test_other_wavelengths():
    assert approximate_atmosphere([4000, 5000, 6000]).rayleigh.shape == (7, 3)
