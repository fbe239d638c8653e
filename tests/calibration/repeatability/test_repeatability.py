"""Repeatability: against a plain loop, the truth of a simulated run, and that of a real fit."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
from astropy.table import Table, join, vstack
from click.testing import CliRunner

from calibration.atmosphere.table import AtmosphereTable
from calibration.cli import main
from calibration.config.config import ProductsConfig
from calibration.fields.chebyshev import ChebyshevField, product
from calibration.fields.series import evaluate
from calibration.photocalib.flux import AB_FLUX
from calibration.photocalib.photocalib import VisitPhotoCalib
from calibration.photocalib.stack import PhotoCalibStack
from calibration.products.build import build_products
from calibration.reference.catalog import ReferenceWarning
from calibration.repeatability.magnitudes import Magnitudes, StarMagnitudes
from calibration.repeatability.report import (
    Repeatability,
    measure_magnitudes,
    measure_repeatability,
)
from calibration.repeatability.scatter import Means, Scatter
from calibration.run.observations import StarObservations
from calibration.run.problems import RunWarning
from calibration.run.run import FgcmRun
from calibration.search import find
from calibration.simulate.run import simulate_run
from calibration.tables.files import read_table

pytestmark = pytest.mark.slow

FILTERS = {"SIM-G": "g", "SIM-R": "r", "SIM-I": "i", "SIM-I2": "i", "SIM-Z": "z"}
CONFIG = ProductsConfig(physical_filter_map=FILTERS, atmosphere_output=False, tract_stars=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a simulated run and its products; not to be changed."""
    folder = tmp_path_factory.mktemp("repeatability")
    run = simulate_run(folder / "run", n_visits=40, n_stars=1500, seed=3)
    build_products(run, CONFIG).write(folder / "out")
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return measure_repeatability(folder / "out")


@pytest.fixture(scope="module")
def observations(folder):
    return Table.read(folder / "run" / "fgcmStarObservations.fits")


def photometric_only(table):
    return table[table["visits"] == "photometric"]


def assert_same(one, other):
    for name in ("bands", "bins"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.colnames == b.colnames
        for column in a.colnames:
            if a[column].dtype.kind == "f":
                np.testing.assert_allclose(a[column], b[column], rtol=1e-4, err_msg=column)
            else:
                np.testing.assert_array_equal(a[column], b[column], err_msg=column)


# What a perfect fit of the real run would give


def true_magnitudes(folder, run):
    """Return magnitudes with the true zeropoints, as photoCalibs, in place of the fitted ones.

    The truth has them at the centers of detectors. How they vary over a detector, for a filter, is
    what is left of the differences from the stars' true magnitudes, a polynomial of second order.
    """
    observations = StarObservations.open(folder)
    flat = StarMagnitudes(run, CONFIG, true_stack(folder, run), observations)
    stars = Table.read(folder / "truth_stars.fits")
    seen = read_table(folder / "fgcmStarObservations.parquet")
    group, _, error, _, after = (np.concatenate(p) for p in zip(*flat.blocks(), strict=True))
    residual = after - np.asarray(stars["mag"]).reshape(-1)[group]
    visits = run.visit_rows(columns=["visit", "physicalFilter"])
    of_visit = visits["physicalFilter"][np.searchsorted(visits["visit"], seen["visit"])]
    shapes = {}
    for name in FILTERS:
        for place, detector in enumerate(run.camera.values()):
            mine = (of_visit == name) & (seen["detector"] == detector.id) & (error < 0.01)
            x, y = (np.asarray(seen[axis][mine]) for axis in "xy")
            ratio = 10 ** (0.4 * residual[mine])
            field = ChebyshevField.fit(detector.box, x, y, ratio)
            shapes[name, place] = field.coefficients / field.center
    return StarMagnitudes(run, CONFIG, true_stack(folder, run, shapes), observations)


def true_stack(folder, run, shapes=None):
    zeropoints = Table.read(folder / "truth_zeropoints.fits")
    boxes = [detector.box for detector in run.camera.values()]
    areas = run.camera.area_coefficients()
    rows = run.visit_rows(columns=["visit", "physicalFilter", "scaling"])
    corrections = mean_star(folder, rows["physicalFilter"])
    levels = levels_of_bands(run, zeropoints)
    clouds = cloud_gradients(folder, run.camera)
    parts = []
    for visit, name, scaling, correction in zip(*rows.values(), corrections, strict=True):
        mine = zeropoints[zeropoints["visit"] == visit]
        assert np.array_equal(mine["detector"], run.camera.ids)
        level = np.asarray(mine["zpt"]) + levels[FILTERS[name]] - correction
        factor = AB_FLUX * 10 ** (-0.4 * level) * scaling
        fields = product(factor[:, None, None] * areas, clouds[visit])
        if shapes is not None:
            fields = product(fields, np.stack([shapes[name, i] for i in range(len(boxes))]))
        means = evaluate(fields, np.zeros(len(boxes)), np.zeros(len(boxes)))
        parts.append(VisitPhotoCalib(visit, run.camera.ids, boxes, fields, means, 0 * means))
    return PhotoCalibStack(parts)


def levels_of_bands(run, truth):
    """Return what is arbitrary: how far the magnitudes of the fit are from true ones."""
    fitted = run.zeropoints.read(["visit", "detector", "filtername", "fgcmFlag", "fgcmZpt"])
    assert np.array_equal(fitted["visit"], truth["visit"])
    assert np.array_equal(fitted["detector"], truth["detector"])
    away = fitted["fgcmZpt"] - np.asarray(truth["zpt"])
    away[fitted["fgcmFlag"] != 1] = np.nan
    band = np.array([FILTERS[name] for name in fitted["filtername"].tolist()])
    return {name: np.nanmedian(away[band == name]) for name in "griz"}


def cloud_gradients(folder, camera):
    """Return fields by visit, (n_detectors, 2, 2): how clouds vary over the detectors."""
    truth = Table.read(folder / "truth_atmosphere.fits", unit_parse_strict="silent")
    widths = np.array([np.multiply(d.box[2:], d.pixel_size) for d in camera.values()]) / 2  # mm
    widths *= np.cos(np.radians([[d.yaw] for d in camera.values()])) / 95
    fields = {}
    for row in truth:
        field = np.zeros((len(camera), 2, 2))
        field[:, 0, 0] = 1
        field[:, 0, 1] = 0.4 * np.log(10) * row["grayDx"] * widths[:, 0]
        field[:, 1, 0] = 0.4 * np.log(10) * row["grayDy"] * widths[:, 1]
        fields[row["visit"]] = field
    return fields


def mean_star(folder, filters):
    """Return how much fainter the mean star, a black body, looks than in the standard band.

    By visit and detector; the true zeropoints are of sources of flat f_nu.
    """
    truth = Table.read(folder / "truth_atmosphere.fits", unit_parse_strict="silent")
    parameters = {name: np.asarray(truth[name]) for name in ("pmb", "pwv", "tau", "alpha", "o3")}
    parameters |= {"secZenith": np.asarray(truth["secZenith"])}
    parameters |= {"cTrans": np.zeros(len(truth)), "lamStd": np.full(len(truth), 7750.0)}
    table = AtmosphereTable.open(folder / "fgcm_atm_lsst2_test.fits")
    passbands = Table.read(folder / "fgcmStandardPassbands.fits.gz")
    wave = np.asarray(passbands["wavelength"])
    kelvin = np.median(Table.read(folder / "truth_stars.fits")["teff"])
    star = wave**-3.0 / np.expm1(1.43877735e8 / wave / kelvin)  # f_nu

    def color(band):
        return -2.5 * np.log10((star / wave * band).sum(-1) / (band / wave).sum(-1))

    standard = {**{name: name for name in FILTERS}, "SIM-I2": "SIM-I"}
    curves = table.interpolate(parameters)
    return [
        color(np.asarray(passbands[f"{name}_DET"]).T * np.interp(wave, table.wavelengths, curve))
        - color(np.asarray(passbands[standard[name]]))
        for name, curve in zip(filters, curves, strict=True)
    ]


# Numbers


@pytest.mark.slow
def test_a_plain_loop_says_the_same(folder, found):
    magnitudes = StarMagnitudes.of_products(build_products(FgcmRun.open(folder / "run"), CONFIG))
    parts = [np.concatenate(parts) for parts in zip(*magnitudes.blocks(), strict=True)]
    group, photometric, error, before, after = parts
    n_bands = len(magnitudes.bands)
    residuals, errors = {"before": [], "after": []}, []
    for star in np.unique(group[group % n_bands == 1]):
        mine = group == star
        if not 18.5 <= np.average(after[mine], weights=1 / (error[mine] ** 2 + 9e-6)) < 19:
            continue
        mine &= photometric
        if mine.sum() < 2:
            continue
        weight = 1 / (error[mine] ** 2 + 0.003**2)
        for kind, values in (("before", before[mine]), ("after", after[mine])):
            residual = values - np.average(values, weights=weight)
            residuals[kind] += list(residual / np.sqrt(1 - weight / weight.sum()))
        errors.append(error[mine])
    rows = photometric_only(found.bins)
    (row,) = rows[(rows["band"] == "r") & (rows["mag_min"] == 18.5)]
    assert row["n_stars"] == len(errors) > 30
    assert row["n_observations"] == len(residuals["after"])
    for kind, values in residuals.items():
        assert row[kind] == pytest.approx(1.4826 * np.median(np.abs(values)), rel=0.03)
        assert row[f"{kind}_rms"] == pytest.approx(np.sqrt(np.mean(np.square(values))), rel=1e-9)
    drawn = np.random.default_rng(0).normal(0, np.concatenate(errors), (400, len(values)))
    expected = 1.4826 * np.median(np.abs(drawn), axis=1).mean()
    assert row["expected"] == pytest.approx(expected, rel=0.01)


def test_after_is_the_scatter_about_the_true_magnitudes(folder, found, observations):
    truth = Table.read(folder / "run" / "truth_stars.fits")
    magnitudes = StarMagnitudes.of_products(build_products(FgcmRun.open(folder / "run"), CONFIG))
    ids = np.unique(observations["fgcm_id"])
    star, known = find(np.asarray(truth["fgcm_id"]), ids)
    assert known.all()
    rows = photometric_only(found.bands)
    assert rows["band"].tolist() == ["g", "r", "i", "z"]
    blocks = [np.concatenate(parts) for parts in zip(*magnitudes.blocks(), strict=True)]
    group, photometric, _, before, after = blocks
    of_star, band = np.divmod(group, 4)
    for number, row in enumerate(rows):
        mine = photometric & (band == number)
        true = truth["mag"][star[of_star[mine]], number]
        bright = after[mine] < row["mag_max"]
        for kind, values, rel in (("after", after, 0.10), ("before", before, 0.25)):
            residual = (values[mine] - true)[bright]
            scatter = 1.4826 * np.median(np.abs(residual - np.median(residual)))
            assert row[kind] == pytest.approx(scatter, rel=rel)
        assert row["after"] == pytest.approx(row["expected"], rel=0.10)
        assert row["before"] > 5 * row["after"]
        assert row["floor"] < 0.5 * row["after"]


def test_clouds_make_it_worse_before_and_not_after(found):
    for band in "griz":
        few, every = found.bands[found.bands["band"] == band]
        assert (few["visits"], every["visits"]) == ("photometric", "all")
        assert every["n_observations"] >= few["n_observations"]
        assert every["after"] == pytest.approx(every["expected"], rel=0.15)
    few, every = (found.bands[found.bands["visits"] == v] for v in ("photometric", "all"))
    assert every["before_rms"].max() > 2 * few["before_rms"].max()


@pytest.mark.slow
def test_a_real_fit_is_as_good_as_its_truth(shared):
    pytest.importorskip("pyarrow")
    folder = shared / "data" / "fgcm_run"
    run = FgcmRun.open(folder)
    found = measure_repeatability(build_products(run, CONFIG))
    true = measure_magnitudes(true_magnitudes(folder, run))
    assert found.bands["band", "visits", "mag_max"].as_array().tolist() == [
        (band, visits, limit)
        for band, limit in {"g": 19.0, "r": 19.5, "i": 19.0, "z": 18.5}.items()
        for visits in ("photometric", "all")
    ]
    for one, other, least, within in (
        (found.bands, true.bands, 8, 0.10),
        (found.bins, true.bins, 70, 0.15),
    ):
        names = [n for n in ("band", "visits", "mag_min", "mag_max") if n in one.colnames]
        both = join(one, other, keys=names, table_names=["fit", "true"])
        both = both[both["n_observations_fit"] > 500]
        assert len(both) >= least
        for name, rtol in (("n_observations", 0.1), ("after", within), ("after_rms", within)):
            np.testing.assert_allclose(both[f"{name}_fit"], both[f"{name}_true"], rtol=rtol)
    assert np.all(found.bands["before"] > 7 * found.bands["after"])


# Where magnitudes come from


def test_products_in_memory_and_on_disk_say_the_same(folder, found):
    products = build_products(FgcmRun.open(folder / "run"), CONFIG)
    assert_same(measure_repeatability(products), found)


@pytest.mark.slow
def test_parquet_products(folder, found, tmp_path):
    pytest.importorskip("pyarrow")
    config = CONFIG.replace(output_format="parquet")
    build_products(FgcmRun.open(folder / "run"), config).write(tmp_path / "out")
    again = measure_repeatability(tmp_path / "out")
    assert_same(again, found)
    assert [path.name for path in again.write(tmp_path / "out")] == [
        "repeatability.parquet",
        "repeatability_bins.parquet",
    ]


def as_fgcm_is_given_them(run, observations, jacobian):
    """Return observations as magnitudes, star by star, and the table of stars."""
    table = observations[np.argsort(observations["fgcm_id"], kind="stable")]
    rows = run.visit_rows(columns=["visit", "exptime", "scaling"])
    visit = np.searchsorted(rows["visit"], table["visit"])
    place = np.searchsorted(run.detector_ids, table["detector"])
    factor = rows["scaling"][visit, place] / rows["exptime"][visit]
    if jacobian:
        table["jacobian"] = 1 + 0.1 * np.random.default_rng(1).random(len(table))
        factor = factor * table["jacobian"]
    with np.errstate(invalid="ignore", divide="ignore"):
        table["inst_mag"] = -2.5 * np.log10(table["instFlux"] * factor)
        table["inst_mag_err"] = 2.5 / np.log(10) * table["instFluxErr"] / table["instFlux"]
    _, starts, counts = np.unique(table["fgcm_id"], return_index=True, return_counts=True)
    ids = Table({"fgcm_id": starts + 7, "obs_arr_index": starts, "n_obs": counts})
    table["inst_mag"].unit = table["inst_mag_err"].unit = None
    table.remove_columns(["fgcm_id", "instFlux", "instFluxErr"])
    return table, ids


@pytest.mark.parametrize("jacobian", [True, False])
def test_magnitudes_of_which_much_was_taken_out(folder, found, observations, jacobian):
    products = build_products(FgcmRun.open(folder / "run"), CONFIG)
    table, ids = as_fgcm_is_given_them(products.run, observations, jacobian)
    stars = StarObservations(table, ids[::-1])
    assert stars.normalized
    assert_same(measure_repeatability(products, observations=stars), found)


def test_areas_stay_taken_out_where_photo_calibs_have_none(folder, observations):
    """Without the Jacobian in the photoCalibs, it is that of the magnitudes which counts."""
    run = FgcmRun.open(folder / "run")
    stars = StarObservations(*as_fgcm_is_given_them(run, observations, True))
    scatter = {}
    for composed in (True, False):
        with nullcontext() if composed else pytest.warns(RunWarning, match="will not include it"):
            products = build_products(run, CONFIG.replace(compose_wcs_jacobian=composed))
        scatter[composed] = measure_repeatability(products, observations=stars).bands["after"]
    assert np.all(scatter[False] > 5 * scatter[True])  # the areas were made up


def test_the_order_of_observations_does_not_matter(folder, found, observations):
    products = build_products(FgcmRun.open(folder / "run"), CONFIG)
    order = np.random.default_rng(2).permutation(len(observations))
    stars = StarObservations(observations[order])
    assert_same(measure_repeatability(products, observations=stars), found)


def test_what_cannot_be_used_is_left_out_and_counted(folder, found, observations):
    table = observations.copy()
    table["instFlux"][:3] = [-5.0, 0.0, np.nan]
    table["instFluxErr"][3] = 0.0
    table["detector"][4], table["visit"][5] = 99, 1
    products = build_products(FgcmRun.open(folder / "run"), CONFIG)
    result = measure_repeatability(products, observations=StarObservations(table))
    assert result.left_out == found.left_out + 6
    assert f"left out: {result.left_out} observations" in str(result)
    for name in ("before", "after_rms"):
        np.testing.assert_allclose(result.bands[name], found.bands[name], rtol=0.02)


def test_what_magnitudes_lack_is_left_out_and_counted(folder, found, observations):
    run = FgcmRun.open(folder / "run")
    table, ids = as_fgcm_is_given_them(run, observations, True)
    first = measure_repeatability(
        build_products(run, CONFIG), observations=StarObservations(table, ids)
    )
    table["jacobian"][:4] = [np.nan, 0.0, -1.0, np.inf]
    table["inst_mag"][4:6], table["inst_mag_err"][6] = [99.0, -9999.0], 99.0
    visits = Table.read(folder / "run" / "fgcmVisitCatalog.fits", unit_parse_strict="silent")
    visits["exptime"][visits["visit"] == table["visit"][7]] = 0
    lost = np.count_nonzero(table["visit"][7:] == table["visit"][7])
    run = FgcmRun.open(folder / "run", visits=visits)
    products = build_products(run, CONFIG)
    result = measure_repeatability(products, observations=StarObservations(table, ids))
    assert first.left_out + 7 < result.left_out <= first.left_out + 7 + lost
    np.testing.assert_allclose(result.bands["after"], found.bands["after"], rtol=0.1)
    np.testing.assert_allclose(result.bands["before"], found.bands["before"], rtol=0.5)


def test_a_filter_without_a_band_is_one_of_its_own(folder):
    run = FgcmRun.open(folder / "run")
    products = build_products(run, CONFIG.replace(physical_filter_map={"SIM-R": "r"}))
    bands = list(dict.fromkeys(measure_repeatability(products).bands["band"]))
    assert bands[:3] == ["r", "SIM-G", "SIM-I"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.remove_column("instFluxErr"), "needs columns instFlux and instFluxErr, or"),
        (lambda t: t.remove_column("fgcm_id"), "needs a column fgcm_id, or fgcmStarIds beside it"),
        (lambda t: t.remove_column("x"), "there is no column x"),
        (
            lambda t: t.remove_rows(slice(None)),
            "no star has two observations in a band: of 0 observations",
        ),
    ],
)
def test_observations_that_say_too_little(folder, observations, change, message):
    table = observations.copy()
    change(table)
    products = build_products(FgcmRun.open(folder / "run"), CONFIG)
    with pytest.raises(ValueError, match=message):
        measure_repeatability(products, observations=StarObservations(table))


def test_star_ids_of_other_observations(folder, observations):
    table, ids = as_fgcm_is_given_them(FgcmRun.open(folder / "run"), observations, True)
    ids["n_obs"][4] += 1
    with pytest.raises(ValueError, match="observations that are not the .* one star after the"):
        StarObservations(table, ids).n_stars  # noqa: B018


@pytest.mark.slow
def test_a_visit_catalog_without_exposure_times(folder):
    visits = Table.read(folder / "run" / "fgcmVisitCatalog.fits", unit_parse_strict="silent")
    visits.remove_column("exptime")
    products = build_products(FgcmRun.open(folder / "run", visits=visits), CONFIG)
    stars = StarObservations.open(folder / "run")
    with pytest.raises(ValueError, match="no column exptime"):
        measure_repeatability(products, observations=stars)
    with pytest.raises(ValueError, match="in memory; say where its star observations are"):
        measure_repeatability(products)


@pytest.mark.slow
def test_a_run_without_a_camera(folder):
    run = FgcmRun.open(folder / "run", camera=None)
    with pytest.raises(ValueError, match="whose scaling it has; it needs a camera"):
        measure_repeatability(folder / "out", run=run)


# The parts


def test_the_scatter_of_gaussian_errors_is_as_expected():
    rng = np.random.default_rng(4)
    star = np.repeat(np.arange(4000), rng.integers(1, 6, 4000))
    error = rng.choice([0.004, 0.02], len(star))
    after = 18.2 + rng.normal(0, error)
    before = 18.2 + rng.standard_t(2, len(star))
    block = Magnitudes(star, np.ones(len(star), bool), error, before, after)
    found = _scatter(block, 4000).summary(0, np.array([0]))
    count = np.bincount(star)
    assert found["n_stars"] == np.sum(count > 1)
    assert found["n_observations"] == count[count > 1].sum()
    assert found["after"] == pytest.approx(found["expected"], rel=0.03)
    assert found["after_rms"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=0.03)
    assert found["before_rms"] > 1.5 * found["before"]


def test_a_pair_of_observations():
    """Of n = 2 with equal errors, the variance is that of a pair: half its squared difference."""
    star = np.zeros(2, int)
    values = np.array([18.0, 18.06])
    block = Magnitudes(star, np.array([True, False]), np.full(2, 0.01), values, values)
    scatter = _scatter(block, 1)
    found = scatter.summary(1, np.array([0]))
    assert found["after_rms"] == pytest.approx(0.06 / np.sqrt(2))
    assert found["after"] == pytest.approx(1.4826 * 0.06 / np.sqrt(2), rel=0.02)
    assert scatter.edges.tolist() == [18.0, 18.5]
    alone = scatter.summary(0, np.array([0]))
    assert (alone["n_stars"], alone["n_observations"]) == (0, 0)
    assert np.isnan([alone[name] for name in ("before", "after_rms", "expected")]).all()


def _scatter(block, n_groups):
    means = Means(n_groups)
    means.add(block)
    scatter = Scatter(means, 1, 0.5)
    scatter.add(block)
    return scatter


def visit_photo_calib(visit, values):
    """Return calibrations of detectors 7 and 3 that vary in y, with any number of coefficients."""
    fields = np.zeros((2, len(values), 1))
    fields[:, :, 0] = values
    fields[1] *= 2
    boxes = [(0, 0, 100, 50), (0, 0, 60, 40)]
    return VisitPhotoCalib(visit, [7, 3], boxes, fields, fields[:, 0, 0], [0.1, 0.1])


def test_a_stack_is_its_visits():
    visits = [visit_photo_calib(9, [3.0, 0.5, 0.2]), visit_photo_calib(4, [2.0])]
    stack = PhotoCalibStack(visits)
    assert (stack.visits.tolist(), stack.detectors.tolist()) == ([4, 4, 9, 9], [3, 7, 3, 7])
    rng = np.random.default_rng(0)
    visit, detector = rng.choice([4, 9], 300), rng.choice([3, 7], 300)
    x, y = rng.uniform(0, 60, 300), rng.uniform(0, 40, 300)
    rows, found = stack.rows(visit, detector)
    assert found.all()
    result = stack.calibration(rows, x, y)
    for part in visits:
        mine = visit == part.visit
        expected = part.calibration(detector[mine], x[mine], y[mine])
        np.testing.assert_allclose(result[mine], expected, rtol=1e-14)
    np.testing.assert_allclose(stack.relative_err[rows], 0.1 / stack.mean[rows])
    assert stack.rows([5, 9, 9], [7, 8, 3])[1].tolist() == [False, False, True]


def test_stacks_of_nothing_and_of_the_same():
    with pytest.raises(ValueError, match="there are no photoCalibs"):
        PhotoCalibStack([])
    with pytest.raises(ValueError, match="several photoCalibs of visit 4"):
        PhotoCalibStack([visit_photo_calib(4, [1.0]), visit_photo_calib(4, [2.0])])


# The command


def skyfold(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def copied(folder, tmp_path):
    """A copy of the folder, whose products do not know that the run is beside them."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "out" / "provenance.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "run": str(tmp_path / "elsewhere")}))
    return tmp_path


@pytest.mark.slow
def test_the_command_prints_and_writes_what_was_found(copied, found):
    out = copied / "out"
    result = skyfold("report", out, "--run", copied / "run")
    assert result.exit_code == 0, result.output
    text, written = result.stdout.split("\nwrote ", 1)
    assert text == str(found)
    assert written.splitlines()[-1] == f"wrote {out / 'repeatability.png'}"
    token = json.loads((out / "provenance.json").read_text())["token"]
    for name, table in (("repeatability", found.bands), ("repeatability_bins", found.bins)):
        there = read_table(out / f"{name}.fits")
        there.convert_bytestring_to_unicode()
        assert there.meta["PROVENAN"] == token
        assert there["after"].unit == "mag"
        for column in table.colnames:
            np.testing.assert_array_equal(there[column], table[column])
    assert (out / "repeatability.png").read_bytes().startswith(b"\x89PNG")
    assert not list(out.glob(".*"))


def test_replaced_products_take_their_report_with_them(copied, found):
    out = copied / "out"
    found.write(out)
    (out / "repeatability.png").touch()
    assert len(list(out.glob("repeatability*"))) == 3
    words = ("--set", "atmosphere_output=no", "--set", "tract_stars=no", "--visit", 60600001)
    result = skyfold("products", copied / "run", out, *words, "--overwrite")
    assert result.exit_code == 0, result.output
    assert not list(out.glob("repeatability*"))
    result = skyfold("report", out)  # where the run lies was noted
    assert result.exit_code == 1
    assert "no star has two observations in a band: of " in result.output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("report nope", "nope holds no products: there is no provenance.json"),
        ("report out", "elsewhere; say where it is: run=... (--run)"),
        ("report out --run other", "were not made of <FgcmRun of 40 visits"),
        ("report out --run run --observations run/nope.fits", "nope.fits"),
        ("report out --run bare", "has no star observations: there is no fgcmStarObservations"),
        ("report empty --run run", "empty holds no photo_calibs"),
        ("report damaged --run run", "provenance.json is damaged"),
    ],
)
def test_mistakes_are_told_in_one_line(copied, monkeypatch, words, message):
    monkeypatch.chdir(copied)
    shutil.copytree("run", "other")
    zeropoints = Table.read("run/fgcmZeropoints.fits")
    zeropoints["fgcmZpt"][0] += 1
    zeropoints.write("other/fgcmZeropoints.fits", overwrite=True)
    shutil.copytree("run", "bare")
    (copied / "bare" / "fgcmStarObservations.fits").unlink()
    for name, text in (("empty", (copied / "out/provenance.json").read_text()), ("damaged", "{")):
        (copied / name).mkdir()
        (copied / name / "provenance.json").write_text(text)
    result = skyfold(*words.split())
    assert result.exit_code == 1
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not list(copied.glob("*/repeatability*"))


@pytest.mark.slow
def test_the_offsets_are_drawn_of_what_is_stored(folder, tmp_path):
    fields = {
        "physical_filter_map": "{SIM-G: g, SIM-R: r, SIM-I: i, SIM-I2: i, SIM-Z: z}",
        "reference_calibration": "yes",
        "reference_pixelization_min_stars": "50",
        "reference_min_match": "20",
        "tract_stars": "no",
        "atmosphere_output": "no",
    }
    words = [word for name, value in fields.items() for word in ("--set", f"{name}={value}")]
    visits = FgcmRun.open(folder / "run").visit_rows(columns=["visit", "physicalFilter"])
    for visit in visits["visit"][visits["physicalFilter"] == "SIM-G"][:2]:
        words += ["--visit", visit]
    words += ["--pictures", tmp_path / "pictures"]
    with pytest.warns(ReferenceWarning):
        result = skyfold("products", folder / "run", tmp_path / "out", *words)
    assert result.exit_code == 0, result.output
    assert f"wrote {tmp_path / 'pictures' / 'offsets.png'}" in result.stdout
    result = skyfold("report", tmp_path / "out")
    assert result.exit_code == 0, result.output
    drawn = (tmp_path / "pictures" / "offsets.png").read_bytes()
    assert (tmp_path / "out" / "offsets.png").read_bytes() == drawn


# The picture


@pytest.mark.slow
def test_the_picture_has_a_panel_for_each_band(found, tmp_path):
    figure = found.plot(tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert len(figure.axes) == 4
    row = found.bands[0]
    assert figure.axes[0].get_title().startswith(f"g, brighter than {row['mag_max']:.1f}:")
    assert f"{1e3 * row['after']:.1f} after" in figure.axes[0].get_title()
    lines = {line.get_label(): line.get_xydata() for line in figure.axes[1].lines}
    rows = photometric_only(found.bins[found.bins["band"] == "r"])
    rows = rows[rows["n_observations"] >= 20]
    for kind in ("before", "after", "expected"):
        np.testing.assert_allclose(lines[kind][:, 1], 1e3 * rows[kind])
    np.testing.assert_allclose(lines["after"][:, 0], rows["mag_min"] + 0.25)


def test_a_picture_that_cannot_be_written_leaves_nothing(found, tmp_path):
    with pytest.raises(ValueError, match="not supported"):
        found.plot(tmp_path / "a.xyz")
    assert not list(tmp_path.iterdir())


def test_a_picture_of_many_bands_without_bright_stars(found):
    bands = found.bands.copy()
    bands["after"] = np.nan
    parts = [(bands, found.bins)]
    for name in "uvwxy":
        more = [table[table["band"] == "g"] for table in (bands, found.bins)]
        for table in more:
            table["band"] = name
        parts.append(more)
    many = Repeatability(*(vstack([part[i] for part in parts]) for i in range(2)), 0)
    figure = many.plot()
    assert [ax.get_title() for ax in figure.axes] == [*"grizuvwxy"]
