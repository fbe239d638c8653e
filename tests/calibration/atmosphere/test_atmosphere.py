"""Tables of atmospheres and transmission curves, against FGCM's own numbers and against scipy."""

import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Table
from astropy.utils.masked import Masked
from dask.base import tokenize
from scipy.interpolate import RegularGridInterpolator

from calibration import AtmosphereTable, TransmissionCurve
from calibration.atmosphere.file import ATMOSPHERES
from calibration.atmosphere.transmission import band_integrals
from tests.conftest import DATA

SMALL_TABLE = DATA / "atmosphere_table.fits.gz"
SMALL_GOLDEN = DATA / "golden_atmospheres.npz"
NAME = "fgcm_atm_lsst2_test"
GOOD = {"pmb": 780, "pwv": 2.0, "o3": 250, "tau": 0.03, "alpha": 1.2, "secZenith": 1.4}


@pytest.fixture(scope="module")
def run(shared):
    """Return the folder of a real FGCM run."""
    return shared / "data" / "fgcm_run"


@pytest.fixture(scope="module")
def table():
    """Return a table of noise, with unequal nodes."""
    return make_table()


def make_table(wavelengths=40, **changes):
    rng = np.random.default_rng(1)
    z, w, o = 5, 6, 4
    parts = {
        "wavelengths": np.linspace(3000, 11000, wavelengths),
        "sec_zenith": [1, 1.3, 1.9, 2.5, 3.1],
        "ln_pwv": [-2.0, -1.0, 0.5, 1.0, 2.0, 3.0],
        "o3": [200, 250, 320, 390],
        "oxygen": rng.uniform(0.5, 1, (z, wavelengths)),
        "rayleigh": rng.uniform(0.5, 1, (z, wavelengths)),
        "ozone": rng.uniform(0.5, 1, (o, z, wavelengths)),
        "water": rng.uniform(0.5, 1, (w, z, wavelengths)),
        "pmb_elevation": 731.5,
        "lambda_norm": 7750.0,
        "elevation": 2663.0,
        "standard": {**GOOD, "pmb": 778.0},
    }
    return AtmosphereTable(**parts | changes)


def make_visits(n=150):
    """Make parameters in and beyond the grid of `make_table`."""
    rng = np.random.default_rng(2)
    return {
        "visit": 1000 + np.arange(n),
        "pmb": rng.uniform(700, 800, n),
        "pwv": np.exp(rng.uniform(-3, 4, n)),
        "o3": rng.uniform(150, 450, n),
        "tau": rng.uniform(0, 0.3, n),
        "alpha": rng.uniform(-0.5, 2.5, n).round(1),
        "secZenith": rng.uniform(1, 3.5, n),
        "cTrans": np.where(rng.random(n) < 0.5, 0, rng.uniform(-0.05, 0.05, n)),
        "lamStd": rng.uniform(4500, 9000, n),
    }


def rows_of(visits, rows):
    return {name: column[rows] for name, column in visits.items()}


def one_by_one(table, visits):
    """Interpolate in the way of FGCM: four interpolators, called visit by visit."""
    lam = table.wavelengths
    interpolators = [
        (RegularGridInterpolator((*axes, lam), values), len(axes))
        for axes, values in [
            ((table.sec_zenith,), table.oxygen),
            ((table.sec_zenith,), table.rayleigh),
            ((table.ln_pwv, table.sec_zenith), table.water),
            ((table.o3, table.sec_zenith), table.ozone),
        ]
    ]
    result = []
    for row in range(len(visits["pmb"])):
        v = SimpleNamespace(**rows_of(visits, row))
        s = np.clip(v.secZenith, *table.sec_zenith[[0, -2]])
        points = [None, None, np.log(v.pwv), v.o3]
        axes = [None, None, table.ln_pwv, table.o3]
        scatter = np.exp(-(v.pmb - table.pmb_elevation) / table.pmb_elevation)
        total = scatter * scatter**0.6 * (1 + v.cTrans * (lam - v.lamStd) / v.lamStd)
        total = total * np.exp(-v.tau * s * (lam / table.lambda_norm) ** -v.alpha)
        for (interpolator, n), axis, point in zip(interpolators, axes, points, strict=True):
            at = (s, lam) if n == 1 else (np.clip(point, axis[0], axis[-2]), s, lam)
            total = total * interpolator(at)
        result.append(total)
    return np.array(result)


# Numbers


def test_small_golden():
    table = AtmosphereTable.open(SMALL_TABLE)
    with np.load(SMALL_GOLDEN) as golden:
        for kind in ("visits", "variants"):
            parameters = Table(golden[f"{kind}_parameters"])
            ours = table.interpolate(parameters)
            np.testing.assert_allclose(ours, golden[kind], rtol=1e-13)
            assert len(ours) >= 10
    assert len(table.wavelengths) == 81


@pytest.mark.parametrize("kind", ["ATMOSPHERES", "VARIANTS"])
def test_golden(run, kind):
    golden, parameters = golden_atmospheres(run)[kind]
    ours = AtmosphereTable.open(NAME, search=run).interpolate(parameters)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, golden, rtol=1e-13)


def golden_atmospheres(run):
    """Return what fgcm computed, and from which parameters."""
    catalog = fits.getdata(run / "fgcmAtmosphereParameters.fits")
    with fits.open(run / "golden_atmospheres.fits") as file:
        visits, variants = file["ATMOSPHERES"].data, Table(file["VARIANTS"].data)
        rows = np.searchsorted(catalog["visit"], visits["visit"])
        variants["secZenith"] = 1 / np.cos(np.radians(variants["zenith"]))
        return {
            "ATMOSPHERES": (np.array(visits["transmission"]), Table(catalog[rows])),
            "VARIANTS": (variants["transmission"].data.copy(), variants),
        }


def test_interpolation_is_scipys(table):
    visits = make_visits()
    expected = one_by_one(table, visits)
    np.testing.assert_allclose(table.interpolate(visits), expected, rtol=1e-13)


def test_nodes_give_the_table_itself(table):
    visits = {**GOOD, "pmb": 731.5, "tau": 0, "o3": table.o3[1], "secZenith": table.sec_zenith[:4]}
    product = table.oxygen * table.rayleigh * table.ozone[1] * table.water[4]
    ours = table.interpolate({**visits, "pwv": np.exp(table.ln_pwv[4])})
    np.testing.assert_allclose(ours, product[:4], rtol=1e-14)


@pytest.mark.parametrize("wavelengths", [2, 40, 1601])
def test_a_visit_does_not_depend_on_the_others(wavelengths):
    table, visits = make_table(wavelengths), make_visits()
    together = table.interpolate(visits)
    order = np.random.default_rng(3).permutation(len(together))
    np.testing.assert_array_equal(table.interpolate(rows_of(visits, order)), together[order])
    for row in range(len(together)):
        alone = table.interpolate(rows_of(visits, slice(row, row + 1)))
        np.testing.assert_array_equal(alone[0], together[row])
    for rows in (slice(1, 66), slice(3, 20)):
        np.testing.assert_array_equal(table.interpolate(rows_of(visits, rows)), together[rows])


# Parameters


def test_parameters_in_any_container(table):
    visits = make_visits(3)
    expected = table.interpolate(visits)
    plain = Table(visits)
    with_units = QTable(visits)
    units = {"pmb": u.hPa, "pwv": u.cm, "lamStd": u.nm}
    for name, factor in {"pmb": 1, "pwv": 0.1, "lamStd": 0.1}.items():
        with_units[name] = visits[name] * factor * units[name]
    for same in (plain, plain.as_array(), plain.as_array().view(np.recarray)):
        np.testing.assert_array_equal(table.interpolate(same), expected)
    np.testing.assert_allclose(table.interpolate(with_units), expected, rtol=1e-14)
    np.testing.assert_array_equal(table.interpolate(plain[1]), expected[1:2])


def test_numbers_are_for_all_visits(table):
    assert table.interpolate(GOOD).shape == (1, 40)
    mixed = table.interpolate({**GOOD, "secZenith": [1.0, 2.0], "visit": 7})
    alone = [table.interpolate({**GOOD, "secZenith": s})[0] for s in (1.0, 2.0)]
    np.testing.assert_array_equal(mixed, alone)
    assert table.interpolate({**GOOD, "pwv": []}).shape == (0, 40)


def test_without_a_mirror_term(table):
    expected = table.interpolate(GOOD)
    np.testing.assert_array_equal(table.interpolate({**GOOD, "cTrans": 0, "lamStd": 5e3}), expected)
    np.testing.assert_array_equal(table.interpolate({**GOOD, "lamStd": 5e3}), expected)
    with pytest.raises(KeyError, match="no atmosphere parameter lamStd"):
        table.interpolate({**GOOD, "cTrans": 0.01})


def test_a_rounded_zenith_is_the_zenith(table):
    above = table.interpolate({**GOOD, "secZenith": [np.float32(0.99999994), 1.0]})
    np.testing.assert_array_equal(above[0], above[1])


@pytest.mark.parametrize("name", ["pmb", "pwv", "o3", "tau", "alpha", "secZenith"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -9999.0])
def test_impossible_parameters(table, name, value):
    visits = make_visits(5)
    visits[name][3] = value
    message = rf"{name} is {value} in row 3 \(visit 1003\), it must be .+\w$"
    with pytest.raises(ValueError, match=message):
        table.interpolate(visits)
    visits[name][4] = value
    del visits["visit"]
    with pytest.raises(ValueError, match=rf"{name} is {value} in row 3, .+; 1 more rows are wrong"):
        table.interpolate(visits)


@pytest.mark.parametrize(
    ("name", "value"),
    [("pwv", 0), ("secZenith", 0.99), ("cTrans", np.nan), ("lamStd", 0), ("cTrans", 2), ("o3", 0)],
)
def test_parameters_just_outside(table, name, value):
    with pytest.raises(ValueError, match=f"{name} is .* in row 0, it must be"):
        table.interpolate({**GOOD, "cTrans": 0.01, "lamStd": 7e3, name: value})


def test_masked_parameters_are_missing(table):
    visits = Table(make_visits(3))
    visits["tau"] = MaskedColumn(visits["tau"], mask=[False, True, False])
    for same in (visits, QTable(visits), visits[1:2]):
        with pytest.raises(ValueError, match=r"tau is nan in row \d \(visit 1001\)"):
            table.interpolate(same)
    with pytest.raises(ValueError, match="tau is nan in row 0"):
        table.interpolate(visits[1])
    with_units = QTable(make_visits(3))
    with_units["pwv"] = Masked(with_units["pwv"] * u.mm, mask=[False, True, False])
    with pytest.raises(ValueError, match="pwv is nan in row 1"):
        table.interpolate(with_units)


@pytest.mark.parametrize("bad", [np.ones(3), np.ones((2, 2))])
def test_parameters_of_other_shapes(table, bad):
    with pytest.raises(ValueError, match=r"arrays of one length, they are: pmb \(2,\), pwv \("):
        table.interpolate({**GOOD, "pmb": [780, 780], "pwv": bad})


def test_missing_parameters(table):
    with pytest.raises(KeyError, match=r"parameter pmb, tau; there are \['alpha', 'o3', 'pwv'"):
        table.interpolate({n: v for n, v in GOOD.items() if n not in ("pmb", "tau")})


# Files


def test_a_table_is_read_back(table, tmp_path):
    path = tmp_path / "table.fits"
    table.write(path)
    again = AtmosphereTable.open(path)
    for name in ("wavelengths", "sec_zenith", "ln_pwv", "o3", "oxygen", "ozone", "water"):
        np.testing.assert_allclose(getattr(again, name), getattr(table, name), rtol=1e-15)
    assert again.standard == table.standard
    assert again.elevation == 2663
    assert again.where == str(path)
    visits = make_visits(5)
    np.testing.assert_allclose(again.interpolate(visits), table.interpolate(visits), rtol=1e-13)
    with pytest.raises(FileExistsError, match=r"overwrite=True"):
        table.write(path)
    table.write(path, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["table.fits"]


def rewrite(path, change):
    """Change the HDUs of a file, a dict by name."""
    with fits.open(path, memmap=False) as file:
        hdus = {hdu.name: hdu.copy() for hdu in file}
    hdus = change(hdus) or hdus
    fits.HDUList([*hdus.values()]).writeto(path, overwrite=True)


def change_pars(**changes):
    """Make a change of columns of PARS; None removes one."""

    def change(hdus):
        table = Table(hdus["PARS"].data)
        for name, value in changes.items():
            if value is None:
                del table[name]
            else:
                table[name] = [value]
        hdus["PARS"] = fits.BinTableHDU(table, name="PARS")

    return change


@pytest.fixture
def path(table, tmp_path):
    """Return the path of a table that can be damaged."""
    path = tmp_path / "table.fits"
    table.write(path)
    return path


def test_the_older_columns(table, path):
    pwv = np.exp(table.ln_pwv)
    new = {"PWV": pwv[:-1], "PWVDELTA": pwv[-1] - pwv[-2], "TAU": [0.01, 0.1], "TAUDELTA": 0.09}
    rewrite(path, change_pars(LNPWV=None, LNPWVDELTA=None, **new))
    visits = make_visits()
    older = AtmosphereTable.open(path).interpolate(visits)
    np.testing.assert_allclose(older, table.interpolate(visits), rtol=1e-12)


@pytest.mark.parametrize("size", [0, 2000, 5000, 9000, 30_000, -2880])
def test_truncated_files(path, size):
    content = path.read_bytes()
    path.write_bytes(content[:size])
    with pytest.raises(ValueError, match=str(path)):
        AtmosphereTable.open(path)


def test_truncated_gzip(path):
    content = SMALL_TABLE.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"{path} cannot be decompressed"):
        AtmosphereTable.open(path)


def short(name):
    return lambda hdus: hdus.update({name: fits.ImageHDU(hdus[name].data[..., 1:], name=name)})


def broken(hdus):
    hdus["RAYATM"].data[2, 3] = np.nan


def in_per_cent(hdus):
    hdus["O2ATM"].data *= 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.pop("O3ATM") and None, r"no extension O3ATM; there are 0 .* PWVATM"),
        (lambda h: {"PRIMARY": h["PRIMARY"]}, "no extension PARS, O2ATM, RAYATM, O3ATM, PWVATM"),
        (short("PWVATM"), r"water has the shape \(6, 5, 39\), not \(6, 5, 40\)"),
        (short("O2ATM"), r"oxygen has the shape \(5, 39\), not \(5, 40\)"),
        (broken, r"rayleigh must be finite; 1 values are not, one at \[2, 3\]"),
        (in_per_cent, "oxygen must be a transmission between 0 and 1, it is 5.* to 9"),
        (change_pars(ATMLAMBDA=None), "PARS.* has no column ATMLAMBDA; there are ELEVATION"),
        (change_pars(O3DELTA=None), "has no column O3DELTA"),
        (change_pars(O3=[320, 250, 200]), "o3 must be ascending"),
        (change_pars(O3=[200]), "o3 must be a list of at least 3"),
        (change_pars(O3=["a", "b", "c"]), "column O3 does not hold numbers"),
        (change_pars(O3DELTA=[1.0, 2.0]), "column O3DELTA must hold one number, not 2"),
        (change_pars(PMBELEVATION=0.0), "pmb_elevation must be positive, it is 0.0"),
        (change_pars(LNPWV=None, PWV=[-1.0, 1.0], PWVDELTA=1.0), "grid PWV must be positive"),
        (
            lambda h: h.update(PARS=fits.BinTableHDU(Table({"O3": [1, 2]}), name="PARS")),
            "must have one row, it has 2",
        ),
        (lambda h: h.update(PWVATM=fits.BinTableHDU(name="PWVATM")), "PWVATM.* must be an image"),
        (lambda h: h.update(PARS=fits.ImageHDU(np.ones((2, 2)), name="PARS")), "must be a table"),
    ],
)
def test_other_files_are_no_tables(path, change, message):
    rewrite(path, change)
    with pytest.raises(ValueError, match=message) as caught:
        AtmosphereTable.open(path)
    assert str(path) in str(caught.value)


def test_what_is_not_fits(path):
    path.write_text("pwv 1.0\n" * 1000)
    with pytest.raises(ValueError, match=f"{path} is not a FITS file"):
        AtmosphereTable.open(path)


def test_a_name_is_looked_for(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ATMOSPHERES, raising=False)
    folders = [tmp_path / name for name in ("here", "there", "package/fgcm/data/tables")]
    for folder in folders:
        folder.mkdir(parents=True)
    here, there, package = folders
    (tmp_path / "package" / "fgcm" / "__init__.py").write_text("raise RuntimeError('imported')")
    with pytest.raises(FileNotFoundError, match=rf"looked for {here}/atm, .*/atm .*{ATMOSPHERES}"):
        AtmosphereTable.open("atm", here)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "package"), *sys.path])
    monkeypatch.setenv(ATMOSPHERES, f"{tmp_path / 'none'}:{there}")
    with pytest.raises(FileNotFoundError, match=f"{here}/atm, .*{there}/atm, {package}/atm"):
        AtmosphereTable.open("atm", [here])
    for folder, ending in [(package, ".fits"), (there, "")]:
        table.write(folder / f"atm{ending}")
        assert AtmosphereTable.open("atm", [here]).where == str(folder / f"atm{ending}")
    table.write("atm.fits")
    assert AtmosphereTable.open("atm", [here]).where == "atm.fits"
    table.write(here / "atm.fits")
    assert AtmosphereTable.open("atm", [here]).where == str(here / "atm.fits")


def test_no_name():
    with pytest.raises(FileNotFoundError, match="no atmosphere table ''; looked for /"):
        AtmosphereTable.open("")


def test_a_path_is_not_looked_for_elsewhere(table, tmp_path):
    table.write(tmp_path / "atm.fits")
    with pytest.raises(FileNotFoundError, match="/no/such/atm.fits"):
        AtmosphereTable.open("/no/such/atm.fits", [tmp_path])


# Values


def test_a_table_cannot_be_changed(table):
    wavelengths = np.linspace(3000, 11000, 40)
    own = make_table(wavelengths=40)
    copied = AtmosphereTable(
        **{name: getattr(own, name) for name in own.__dataclass_fields__}
        | {"wavelengths": wavelengths}
    )
    wavelengths[0] = 0
    assert copied.wavelengths[0] == 3000
    for changed in (table, pickle.loads(pickle.dumps(table))):
        with pytest.raises(ValueError, match="read-only"):
            changed.water[0, 0, 0] = 2
        with pytest.raises(AttributeError):
            changed.water = None


def test_a_table_travels(table):
    visits = make_visits(5)
    table.interpolate(visits)
    again = pickle.loads(pickle.dumps(table))
    np.testing.assert_array_equal(again.interpolate(visits), table.interpolate(visits))
    assert tokenize(again) == tokenize(table) != tokenize(make_table(30))
    # What is computed from the arrays is computed again.
    assert len(pickle.dumps(table)) == len(pickle.dumps(make_table()))
    assert repr(table) == (
        "AtmosphereTable(<40 wavelengths 3000 to 11000 Angstrom>, where='atmosphere table')"
    )


def test_a_curve_of_a_visit(table):
    visit = {**GOOD, "secZenith": 2.8}
    curve = table.curve(visit)
    np.testing.assert_array_equal(curve.throughput, table.interpolate(visit)[0])
    assert curve.wavelengths is table.wavelengths
    assert curve.airmass == 2.5
    with pytest.raises(ValueError, match="of one visit, the parameters are of 2"):
        table.curve({**GOOD, "pwv": [1, 2]})


# Curves


def make_curve(airmass=1.2):
    return TransmissionCurve([4000, 5000, 7000], [0.5, 0.7, 0.6], airmass)


def test_a_curve_is_linear_and_keeps_its_ends():
    sampled = make_curve().sample([[3000, 4000, 4250], [6000, 7000, 1e5]])
    np.testing.assert_allclose(sampled, [[0.5, 0.5, 0.55], [0.65, 0.6, 0.6]])
    empty = make_curve().sample([300, 400, 800] * u.nm, outside=0)
    np.testing.assert_allclose(empty, [0, 0.5, 0])


@pytest.mark.parametrize(
    ("wavelengths", "throughput", "airmass", "message"),
    [
        ([4000, 4000], [1, 1], None, "wavelengths must be ascending"),
        ([4000, 3000], [1, 1], None, "wavelengths must be ascending"),
        ([-1, 3000], [1, 1], None, "wavelengths must be positive, the first is -1.0"),
        ([3000], [1], None, r"at least 2, it has shape \(1,\)"),
        ([[3000, 4000]], [[1, 1]], None, r"has shape \(1, 2\)"),
        ([3000, 4000], [1, 1, 1], None, r"shape \(3,\), wavelengths \(2,\)"),
        ([3000, 4000], [1, np.nan], None, r"throughput must be finite; 1 values .* \[1\]"),
        ([3000, np.inf], [1, 1], None, "wavelengths must be finite"),
        ([3000, 4000], [1, 1], 0, "an airmass must be a positive number, got 0.0"),
        ([3000, 4000], [1, 1], np.nan, "got nan"),
    ],
)
def test_what_is_no_curve(wavelengths, throughput, airmass, message):
    with pytest.raises(ValueError, match=message):
        TransmissionCurve(wavelengths, throughput, airmass)


def test_a_curve_with_units():
    curve = TransmissionCurve([400, 500] * u.nm, [10, 20] * u.percent)
    np.testing.assert_allclose(curve.wavelengths, [4000, 5000], rtol=1e-15)
    np.testing.assert_allclose(curve.throughput, [0.1, 0.2], rtol=1e-15)


def test_a_curve_cannot_be_changed():
    throughput = np.ones(3)
    curve = TransmissionCurve([4000, 5000, 7000], throughput)
    throughput[0] = 5
    assert curve.throughput[0] == 1
    for same in (curve, pickle.loads(pickle.dumps(curve))):
        with pytest.raises(ValueError, match="read-only"):
            same.throughput[0] = 2
        with pytest.raises(AttributeError):
            same.airmass = 2
        assert same == curve
        assert hash(same) == hash(curve)
    assert curve != make_curve() != make_curve(1.3) != 1
    column = Table({"a": [1.0, 2.0]})["a"]
    curve = TransmissionCurve([4000, 5000], column)
    column[0] = 7
    assert curve.throughput[0] == 1


def test_products():
    curve, passband = make_curve(), TransmissionCurve([4500, 5000, 5500], [0, 1, 0])
    product = curve * passband
    np.testing.assert_array_equal(product.wavelengths, [4000, 4500, 5000, 5500, 7000])
    np.testing.assert_allclose(product.throughput, [0, 0, 0.7, 0, 0])
    assert product.airmass is None
    np.testing.assert_array_equal((passband * curve).throughput, product.throughput)
    sampled = curve.times(passband, [4750, 5250])
    np.testing.assert_allclose(sampled.throughput, [0.65 * 0.5, 0.6875 * 0.5])
    squared = curve * make_curve()
    assert squared.wavelengths is curve.wavelengths
    np.testing.assert_allclose(squared.throughput, curve.throughput**2)
    for half in (curve * 0.5, np.float64(0.5) * curve):
        np.testing.assert_array_equal(half.throughput, curve.throughput / 2)
    with pytest.raises(TypeError):
        curve * "a"


def test_airmass():
    zenith = TransmissionCurve([4000, 5000], np.exp([-0.3, -0.1]), 1.0)
    low = zenith.at_airmass(2.0)
    np.testing.assert_allclose(low.throughput, np.exp([-0.6, -0.2]))
    assert low.airmass == 2
    np.testing.assert_allclose(low.at_airmass(1).throughput, zenith.throughput)
    for airmass in (0, -1, np.nan):
        with pytest.raises(ValueError, match="an airmass must be"):
            zenith.at_airmass(airmass)
    with pytest.raises(ValueError, match="without an airmass"):
        (zenith * low).at_airmass(2.0)
    with pytest.raises(ValueError, match="negative: at least -0.1"):
        TransmissionCurve([4000, 5000], [-0.1, 1], 1.0).at_airmass(2.0)


def test_beer_and_lambert_without_saturation():
    """Where all is proportional to the path the extrapolation is the interpolation."""
    sec_zenith = np.linspace(1, 3, 201)
    law = np.linspace(0.5, 0.02, 40)
    clear = np.ones((3, 201, 40))
    table = make_table(
        sec_zenith=sec_zenith,
        ln_pwv=[0, 1, 2],
        o3=[200, 300, 400],
        oxygen=clear[0],
        rayleigh=np.exp(-law * sec_zenith[:, np.newaxis]),
        ozone=clear,
        water=clear,
    )
    at_site = {**GOOD, "pmb": table.pmb_elevation}
    low = table.curve({**at_site, "secZenith": 2.5})
    extrapolated = table.curve({**at_site, "secZenith": 1.25}).at_airmass(2.5)
    np.testing.assert_allclose(extrapolated.throughput, low.throughput, rtol=1e-4)


def test_integrals_of_a_flat_band():
    flat = TransmissionCurve(np.linspace(4000, 5000, 101), np.full(101, 0.5))
    i0, i1, i10 = flat.band_integrals(reference=4500)
    log = np.log(5000 / 4000)
    np.testing.assert_allclose([i0, flat.band_integral()], 0.5 * log, rtol=1e-9)
    np.testing.assert_allclose(i1, 0.5 * (1000 - 4500 * log), rtol=1e-7)
    assert i10 == i1 / i0
    np.testing.assert_allclose(flat.effective_wavelength(), 1000 / log, rtol=1e-9)
    assert type(i0) is type(flat.effective_wavelength()) is float


def test_integrals_are_over_the_passband():
    gray = TransmissionCurve([3000, 11000], [0.5, 0.5])
    passband = TransmissionCurve([4000, 4500, 5000], np.ones(3))
    np.testing.assert_allclose(gray.band_integral(passband), 0.5 * np.log(5 / 4), rtol=1e-12)
    np.testing.assert_allclose(passband.band_integral(gray), 0.5 * np.log(11 / 3), rtol=1e-12)
    np.testing.assert_allclose(gray.effective_wavelength(passband), 1000 / np.log(5 / 4))


def test_integrals_see_narrow_features():
    fine = np.arange(4000, 5000.5)
    line = np.where(abs(fine - 4507) < 3, 0.0, 1.0)
    narrow = TransmissionCurve(fine, line)
    wide = TransmissionCurve([4000, 5000], [1, 1])
    expected = np.log(5 / 4) - np.log(4509.5 / 4504.5)
    for one, other in ((narrow, wide), (wide, narrow)):
        np.testing.assert_allclose(one.band_integral(other), expected, rtol=1e-3)


def test_integrals_of_nothing():
    dark = TransmissionCurve([4000, 5000], [0, 0])
    assert dark.band_integral() == 0
    assert np.isnan(dark.effective_wavelength())


def test_integrals_of_many_passbands():
    wavelengths = np.linspace(4000, 5000, 201)
    throughput = np.random.default_rng(1).random((3, 2, 201))
    many = band_integrals(wavelengths, throughput, 4500.0)
    for index in np.ndindex(3, 2):
        one = TransmissionCurve(wavelengths, throughput[index]).band_integrals(reference=4500.0)
        np.testing.assert_allclose([a[index] for a in many], one, rtol=1e-12)


def test_a_curve_is_read_back(tmp_path):
    curve = make_curve()
    table = curve.to_table()
    assert table["wavelength"].unit == u.AA
    table.write(tmp_path / "curve.fits")
    table.write(tmp_path / "curve.ecsv")
    for found in (table, Table.read(tmp_path / "curve.fits"), Table.read(tmp_path / "curve.ecsv")):
        again = TransmissionCurve.from_table(found)
        np.testing.assert_array_equal(again.wavelengths, curve.wavelengths)
        np.testing.assert_array_equal(again.throughput, curve.throughput)
        assert again.airmass == 1.2


def test_tables_with_and_without_units():
    table = Table({"wavelength": [400.0, 500.0], "throughput": [10.0, 20.0]})
    bare = TransmissionCurve.from_table(table)
    np.testing.assert_array_equal(bare.wavelengths, [400, 500])
    assert bare.airmass is None
    table["wavelength"].unit, table["throughput"].unit = u.nm, u.percent
    for same in (table, QTable(table)):
        curve = TransmissionCurve.from_table(same)
        np.testing.assert_allclose(curve.wavelengths, [4000, 5000])
        np.testing.assert_allclose(curve.throughput, [0.1, 0.2])
    with pytest.raises(KeyError, match="no column throughput; there are"):
        TransmissionCurve.from_table(table["wavelength",])


# Closing the loop with the fit


@pytest.fixture(scope="module")
def passbands(run):
    """Return the look-up table's first row, its cubes, and the passbands."""
    lut = fits.getdata(run / "fgcmLookUpTable.fits.gz")
    filters = lut[0]["physicalFilters"].split(",")
    shape = [lut[0][name].size for name in ("pwv", "o3", "tau", "alpha", "zenith")]
    shape = (len(filters), *shape, lut[0]["nCcd"] + 1)
    cubes = {row["luttype"]: row["lut"].reshape(shape) for row in lut[:2]}
    curves = Table(fits.getdata(run / "fgcmStandardPassbands.fits.gz"))
    return SimpleNamespace(lut=lut[0], filters=filters, cubes=cubes, curves=curves)


def test_standard_integrals_are_those_of_fgcm(passbands):
    lut = passbands.lut
    wavelengths = passbands.curves["wavelength"]
    for band, name in enumerate(passbands.filters):
        curve = TransmissionCurve(wavelengths, passbands.curves[name])
        bare = passbands.curves[f"{name}_DET"].mean(axis=1)
        atmosphere = TransmissionCurve(wavelengths, lut["atmStdTrans"], 1.2)
        passband = TransmissionCurve(wavelengths, bare)
        assert passband.effective_wavelength() == pytest.approx(lut["lambdaB"][band], abs=2e-6)
        for s, through in ((curve, None), (atmosphere, passband)):
            i0, i1, i10 = s.band_integrals(through, reference=lut["lambdaStd"][band])
            assert i0 == pytest.approx(lut["i0Std"][band], rel=1e-7)
            assert i1 == pytest.approx(lut["i1Std"][band], abs=1e-6)
            assert i10 == pytest.approx(lut["i10Std"][band], abs=2e-6)
            found = s.effective_wavelength(through)
            assert found == pytest.approx(lut["lambdaStdFilter"][band], abs=2e-6)


def slanted(tau, sec_zenith):
    """Return tau as the look-up table has it: along Hardie's airmass, not the secant."""
    x = sec_zenith - 1
    airmass = sec_zenith - 0.0018167 * x - 0.002875 * x**2 - 0.0008083 * x**3
    return tau * airmass / sec_zenith


@pytest.mark.slow
def test_integrals_at_the_nodes_of_the_look_up_table(run, passbands):
    """The table's integrals are float32; those of FGCM come from its own MODTRAN-derived air."""
    table = AtmosphereTable.open(NAME, run)
    lut, wavelengths = passbands.lut, table.wavelengths
    zenith = 1 / np.cos(np.radians(lut["zenith"]))
    grids = np.meshgrid(*(lut[n] for n in ("pwv", "o3", "tau", "alpha")), zenith, indexing="ij")
    pwv, o3, tau, alpha, sec_zenith = (grid.ravel() for grid in grids)
    visits = {"pmb": lut["pmbElevation"], "pwv": pwv, "o3": o3, "alpha": alpha}
    visits |= {"tau": slanted(tau, sec_zenith), "secZenith": sec_zenith}
    air = table.interpolate(visits)
    for band, name in enumerate(passbands.filters):
        for detector in (0, 5):
            passband = passbands.curves[f"{name}_DET"][:, detector]
            ours = band_integrals(wavelengths, air * passband, lut["lambdaStd"][band])
            i0, i1 = (passbands.cubes[kind][band, ..., detector].ravel() for kind in ("I0", "I1"))
            np.testing.assert_allclose(ours.i0, i0, rtol=1e-7)
            np.testing.assert_allclose(ours.i10, i1 / i0, rtol=0, atol=2e-5)


def compare_with_the_fit(run, passbands, parameters):
    """Return, filter by filter, how our integrals differ from those of the zeropoints."""
    table = AtmosphereTable.open(NAME, run)
    air = table.interpolate(parameters)
    rows = fits.getdata(run / "fgcmZeropoints.fits")
    for band, name in enumerate(passbands.filters):
        some = rows[(rows["filtername"] == name) & (rows["fgcmI0"] > 0)]
        assert len(some) >= 144
        visit = np.searchsorted(parameters["visit"], some["visit"])
        through = air[visit] * passbands.curves[f"{name}_DET"].T[some["detector"]]
        ours = band_integrals(table.wavelengths, through, passbands.lut["lambdaStd"][band])
        yield name, ours.i0 / some["fgcmI0"] - 1, ours.i10 - some["fgcmI10"]


def test_integrals_of_the_fit(run, passbands):
    """FGCM interpolates its integrals linearly, not the transmission: within 7 mmag in g."""
    limits = {
        "SIM-G": (2e-5, 2e-3, 7e-3, 0.7),
        "SIM-R": (2e-5, 8e-4, 3e-3, 0.5),
        "SIM-I": (3e-4, 3e-4, 2e-3, 0.2),
        "SIM-I2": (3e-4, 3e-4, 2e-3, 0.2),
        "SIM-Z": (6e-4, 5e-4, 3e-3, 0.3),
    }
    parameters = Table(fits.getdata(run / "fgcmAtmosphereParameters.fits"))
    for name, i0, i10 in compare_with_the_fit(run, passbands, parameters):
        offset, scatter, most, most_i10 = limits[name]
        assert abs(np.median(i0)) < offset
        assert i0.std() < scatter
        assert abs(i0).max() < most
        assert abs(i10).max() < most_i10


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), [("pmb", 731.66), ("tau", 0.0), ("secZenith", 1.2)])
def test_integrals_of_the_fit_need_every_factor(run, passbands, name, value):
    parameters = Table(fits.getdata(run / "fgcmAtmosphereParameters.fits"))
    parameters[name] = value
    for _, i0, _ in compare_with_the_fit(run, passbands, parameters):
        assert abs(i0).max() > 0.015


# The records in tests/data


def write_small(run: Path) -> None:
    """Write every 20th wavelength of the table, of 10 visits and of the made-up parameters."""
    step = slice(None, None, 20)
    with fits.open(run / f"{NAME}.fits", memmap=False) as file:
        hdus = [hdu.copy() for hdu in file]
    parameters = Table(hdus[1].data)
    for name in ("ATMLAMBDA", "ATMSTDTRANS"):
        parameters[name] = parameters[name][:, step]
    hdus[1] = fits.BinTableHDU(parameters, name="PARS")
    hdus[0].header["COMMENT"] = f"Every 20th wavelength of {NAME} of the fgcm package (Apache-2.0)"
    for hdu in hdus[2:]:
        hdu.data = hdu.data[..., step]
    fits.HDUList(hdus).writeto(SMALL_TABLE, overwrite=True)
    arrays = {}
    for kind, source, rows in (
        ("visits", "ATMOSPHERES", slice(None, None, 9)),
        ("variants", "VARIANTS", slice(None)),
    ):
        golden, table = golden_atmospheres(run)[source]
        arrays[kind] = golden[rows, step]
        names = ["pmb", "pwv", "o3", "tau", "alpha", "secZenith", "cTrans", "lamStd"]
        arrays[f"{kind}_parameters"] = table[names][rows].as_array()
    np.savez_compressed(SMALL_GOLDEN, **arrays)


if __name__ == "__main__":  # python tests/test_atmosphere.py folder
    write_small(Path(sys.argv[1]))
