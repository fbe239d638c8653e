"""build_products(): the graph, the numbers, and what becomes of visits that cannot be used."""

from __future__ import annotations

import pickle
import shutil
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import dask
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import vstack
from dask.callbacks import Callback
from dask.delayed import Delayed

from calibration import AtmosphereTable, VisitPhotoCalib
from calibration.camera.detector import BaseDetector
from calibration.config.config import ProductsConfig
from calibration.photocalib.zeropoints import CalibrationWarning
from calibration.products.build import (
    Setup,
    build_products,
    check_jacobian,
    make_photo_calib,
)
from calibration.products.store import Store
from calibration.products.write import WriteReport, write_visits
from calibration.run.problems import RunWarning
from calibration.run.run import FgcmRun
from calibration.tables.catalog import Catalog
from tests.calibration.fgcm_cases import RUN, tables, write
from tests.calibration.products_cases import (
    CONFIG,
    NO_ZEROPOINT,
    TABLE,
    VISIT,
    VISITS,
    assert_same_table,
    count,
    files,
    make_products,
    make_run,
    read,
    states,
)

GOOD = [visit for visit in VISITS if visit != NO_ZEROPOINT]


@pytest.fixture(scope="module")
def products():
    return make_products()


@pytest.fixture(scope="module")
def written(products, tmp_path_factory):
    """The products of the whole run, as files."""
    folder = tmp_path_factory.mktemp("products") / "out"
    products.write(folder)
    return folder


# The graph


def tasks(*collections):
    return set().union(*(collection.__dask_graph__() for collection in collections))


def test_visits_are_a_task_each_and_share_the_rest(products):
    photo_calib, atmosphere = (p[VISIT] for p in (products.photo_calibs, products.atmospheres))
    assert len(tasks(photo_calib)) == 4  # the run, its offsets, areas, and the visit
    assert len(tasks(atmosphere)) == 3
    everything = [*products.photo_calibs.values(), *products.atmospheres.values()]
    shared = len(tasks(photo_calib, atmosphere)) - 2
    assert shared == 4
    assert len(tasks(*everything)) == 2 * len(VISITS) + shared <= 4 * len(VISITS)
    assert len(tasks(photo_calib, products.offsets)) == 4


class Done(Callback):
    """Notes the tasks that are run."""

    def __init__(self):
        super().__init__(posttask=lambda key, *_: self.keys.append(key))
        self.keys = []


@pytest.mark.parametrize("product", ["photo_calibs", "atmospheres"])
def test_one_visit_alone_reads_no_rows_of_others(product, monkeypatch):
    visits, original = [], Catalog.read

    def spy(self, columns=None, rows=None):
        found = original(self, columns, rows)
        if self.schema.name != "lookup_table":
            assert "visit" in found
            visits.extend(found["visit"].tolist())
        return found

    run = FgcmRun.open(RUN)
    monkeypatch.setattr(Catalog, "read", spy)
    products = make_products(run)
    lazy = getattr(products, product)[VISIT]
    assert visits == []
    with Done() as done:
        dask.compute(lazy, scheduler="synchronous")
    assert visits == [VISIT] * (9 if product == "photo_calibs" else 1)  # a zeropoint per detector
    assert len(done.keys) == (3 if product == "photo_calibs" else 2)  # the run is there already
    assert sum(str(VISIT) in key for key in done.keys) == 1
    assert not any(str(visit) in key for visit in VISITS if visit != VISIT for key in done.keys)


def test_what_visits_share_is_computed_once(monkeypatch):
    run, tables, areas = FgcmRun.open(RUN), count(monkeypatch, "open_atmosphere"), []
    pixel_area = BaseDetector.pixel_area
    monkeypatch.setattr(
        BaseDetector, "pixel_area", lambda self, *at: areas.append(self) or pixel_area(self, *at)
    )
    products = make_products(run)
    lazy = [(products.photo_calibs[visit], products.atmospheres[visit]) for visit in GOOD]
    assert (tables, areas) == ([], [])
    dask.compute(lazy, scheduler="threads")
    assert (len(tables), len(areas)) == (1, 8)


def many_visits(number):
    numbers = 60600000 + np.arange(number)
    visits = {"visit": numbers, "physicalFilter": np.full(number, "SIM-R")}
    visits["scaling"] = np.ones((number, 8))
    names = "pmb pwv o3 tau alpha secZenith cTrans lamStd".split()
    atmosphere = {"visit": numbers} | {name: np.ones(number) for name in names}
    rows = np.repeat(numbers, 8)
    zeropoints = {"visit": rows, "detector": np.tile(np.arange(8), number)}
    zeropoints |= {"fgcmFlag": np.ones(len(rows), int), "filtername": np.full(len(rows), "SIM-R")}
    for name in ("fgcmZpt", "fgcmZptVar", "fgcmDeltaChrom"):
        zeropoints[name] = np.ones(len(rows))
    for name, length in (("Cheb", 4), ("SstarCheb", 9)):
        zeropoints[f"fgcmfZpt{name}"] = np.ones((len(rows), length))
    zeropoints["fgcmfZptChebXyMax"] = np.tile([2047.0, 4095.0], (len(rows), 1))
    return {"visits": visits, "zeropoints": zeropoints, "atmosphere_parameters": atmosphere}


def test_ten_thousand_visits_are_made_when_they_are_asked_for(monkeypatch):
    made = []

    class CountedDelayed(Delayed):
        __slots__ = ()

        def __init__(self, *args, **options):
            made.append(args[0])
            super().__init__(*args, **options)

    monkeypatch.setattr("calibration.products.per_visit.Delayed", CountedDelayed)
    make_products()
    few = len(made)
    run = FgcmRun(**many_visits(10_000), camera=RUN / "camera.ecsv")
    made.clear()
    monkeypatch.setattr(Catalog, "read", None)
    products = make_products(run)
    assert len(list(products.photo_calibs)) == len(products.atmospheres) == 10_000
    assert 60609999 in products.photo_calibs
    assert len(made) == few < 10
    one = products.photo_calibs[60609999]
    assert made[few:] == [one.key]
    assert len(pickle.dumps(one.__dask_graph__()[one.key])) < 1000  # and nothing of the run


def test_mappings(products):
    assert list(products.photo_calibs) == list(products.atmospheres) == VISITS
    assert len(products.photo_calibs) == 5
    assert VISIT in products.photo_calibs
    assert np.int64(VISIT) in products.photo_calibs
    for other in (5, VISITS[-1] + 1, "60600004", None, 60600004.5):
        assert other not in products.photo_calibs
        with pytest.raises(KeyError, match=f"there is no visit {other} among the 5 of the run"):
            products.photo_calibs[other]
    assert products.photo_calibs.get(5) is None
    assert repr(products) == "<FgcmProducts of 5 visits: 5 photo_calibs, 5 atmospheres>"
    assert repr(products.atmospheres) == "<5 lazy visits>"
    none = make_products(atmosphere_output=False).atmospheres
    assert (len(none), list(none), VISIT in none) == (0, [], False)
    with pytest.raises(KeyError, match="there is no visit 60600004 as none was asked for"):
        none[VISIT]


def test_keys_are_those_of_run_and_configuration(products):
    def keys(products):
        every = products.photo_calibs[VISIT], products.atmospheres[VISIT], products.offsets
        return [collection.key for collection in every]

    assert keys(products) == keys(make_products()) == keys(pickle.loads(pickle.dumps(products)))
    assert len({*keys(products)}) == 3
    assert VISIT == int(products.photo_calibs[VISIT].key.split("-")[-1])
    assert products.photo_calibs[np.int64(VISIT)].key == products.photo_calibs[VISIT].key
    others = [make_products(seed=1), make_products(make_run()), make_products(make_run(tract=3))]
    for other in others:
        assert not {*keys(other)} & {*keys(products)}


def test_visits_can_be_computed_in_any_mix(products):
    mixed = {"a": products.photo_calibs[VISIT], "b": [products.atmospheres[v] for v in VISITS]}
    (found,) = dask.compute(mixed)
    assert found["a"] == products.photo_calibs[VISIT].compute()
    assert found["b"][1] == products.atmospheres[VISIT].compute(scheduler="synchronous")
    (kept,) = dask.persist(products.photo_calibs[VISIT])
    assert kept.compute() == found["a"]


@pytest.mark.slow
def test_products_on_a_cluster(products, client):
    lazy = [products.photo_calibs[VISIT], products.atmospheres[VISIT], products.offsets]
    expected = dask.compute(*lazy, scheduler="synchronous")
    assert dask.compute(*lazy) == expected
    assert dask.compute(*dask.persist(*lazy)) == expected


def test_offsets_are_zero_without_a_reference_catalog(products):
    assert products.offsets.compute() == dict.fromkeys("griz", 0.0)


# What cannot be built


def test_wrong_arguments():
    with pytest.raises(TypeError, match="products are built of an FgcmRun, got PosixPath"):
        build_products(RUN)
    with pytest.raises(TypeError, match="config must be a ProductsConfig, got dict"):
        build_products(FgcmRun.open(RUN), {})


def test_everything_that_the_run_lacks_is_named():
    run = FgcmRun.open(RUN, atmosphere_parameters=None, camera=None, lookup_table=None)
    with pytest.raises(
        ValueError,
        match=r"lacks what is asked for: zeropoint_output needs camera; "
        r"atmosphere_output needs atmosphere_parameters and lookup_table$",
    ):
        build_products(run, ProductsConfig(tract_stars=False))
    run = FgcmRun.open(RUN, lookup_table=None, zeropoints=None)
    table_alone = make_products(run, zeropoint_output=False).atmospheres
    assert table_alone[VISIT].compute().airmass > 1


def test_filters_without_a_band_for_reference_calibration():
    few = {"SIM-R": "r", "SIM-Z": "z"}
    with pytest.raises(ValueError, match=r"physical_filter_map lacks SIM-G, SIM-I2$"):
        make_products(reference_calibration=True, physical_filter_map=few)
    make_products(physical_filter_map=few)
    make_products(reference_calibration=True, zeropoint_output=False)


def test_a_band_that_no_star_has_is_said_before_the_work(tmp_path):
    bands = {"SIM-G": "g", "SIM-R": "r", "SIM-I": "i", "SIM-I2": "i2", "SIM-Z": "z"}
    given = {"reference_calibration": True, "physical_filter_map": bands}
    run = make_run(reference_catalog=RUN / "refcat.fits")
    message = (
        r"names bands that no star has: SIM-I2 \(i2, 2 visits\); the stars have g, r, i, z\. The"
    )
    with pytest.warns(RunWarning, match=message):
        products = make_products(run, atmosphere_output=False, **given)
    products = products.with_offsets(dict.fromkeys("griz", 0.0))
    late = next(v for v in VISITS if run.visit_row(v)["physicalFilter"] == "SIM-I2")
    report = WriteReport(tmp_path)
    store = Store.open(tmp_path / "out", products.config, {"visits": "sha256:1"})
    write_visits({"photo_calibs": products.photo_calibs}, [late], store, report)
    (failed,) = report.failed
    assert failed.remark.endswith(
        f"visit {late}: no star has the band 'i2' of its physical filter 'SIM-I2'; there are "
        "offsets of g, r, i, z"
    )
    nowhere = given | {"physical_filter_map": {name: band * 2 for name, band in bands.items()}}
    with pytest.raises(ValueError, match=r"SIM-Z \(zz, 1 visit\).* no visit can be calibrated"):
        make_products(run, **nowhere)


def test_a_strange_filter_is_no_reason_to_refuse_the_others():
    run = make_run(broken("visits", physicalFilter="NOPE"), reference_catalog=RUN / "refcat.fits")
    bands = {"SIM-G": "g", "SIM-R": "r", "SIM-I": "i", "SIM-I2": "i", "SIM-Z": "z"}
    products = make_products(run, reference_calibration=True, physical_filter_map=bands)
    with pytest.raises(ValueError, match=r"visit 60600004 .* physical filter 'NOPE' is not known"):
        make_photo_calib(Setup(run, products.config, None), {}, VISIT)


@pytest.mark.slow
@pytest.mark.parametrize(("tract", "stars"), [(None, "the run"), (9813, "tract 9813")])
def test_the_jacobian_of_one_tract_alone(tract, stars):
    without = FgcmRun.open(RUN, tract=tract, jacobian_applied=False)
    with pytest.raises(
        ValueError, match=f"the stars of {stars} were built without the WCS Jacobian"
    ):
        make_products(without)
    alone = make_products(without, compose_wcs_jacobian=False)
    with_it = FgcmRun.open(RUN, tract=tract, jacobian_applied=True)
    with pytest.warns(RunWarning, match=f"the stars of {stars} were built with the WCS Jacobian"):
        other = make_products(with_it, compose_wcs_jacobian=False)
    assert alone.photo_calibs[VISIT].compute() == other.photo_calibs[VISIT].compute()
    assert make_products(with_it).photo_calibs[VISIT].compute()[3].field.order == (6, 6)


def test_the_jacobian_is_composed_if_the_stars_were_built_with_it():
    check_jacobian(make_run(), ProductsConfig())  # nobody says
    built_without = FgcmRun.open(RUN, tract=9813, jacobian_applied=False)
    with pytest.raises(ValueError, match="tract 9813 were built without the WCS Jacobian"):
        check_jacobian(built_without, ProductsConfig())
    check_jacobian(built_without, ProductsConfig(compose_wcs_jacobian=False))
    built_with = FgcmRun.open(RUN, tract=5, jacobian_applied=True)
    check_jacobian(built_with, ProductsConfig())
    with pytest.warns(RunWarning, match="tract 5 were built with the WCS Jacobian, but"):
        check_jacobian(built_with, ProductsConfig(compose_wcs_jacobian=False))


# Numbers


@pytest.fixture(scope="module")
def real(shared):
    return FgcmRun.open(shared / "data" / "fgcm_run")


def test_golden_photo_calibs(real, shared):
    with fits.open(shared / "data" / "fgcm_run" / "golden_photocalib.fits") as hdus:
        golden, header = hdus[1].data, hdus[1].header
        offsets = {band: header[f"OFF_{band}"] for band in real.bands}
    config = ProductsConfig(tract_stars=False, compose_wcs_jacobian=False)
    plain = build_products(real, config)
    bare = build_products(real, config.replace(apply_mean_chromatic_correction=False))
    bands = {"SIM-G": "g", "SIM-R": "r", "SIM-I": "i", "SIM-I2": "i", "SIM-Z": "z"}
    config = config.replace(reference_calibration=True, physical_filter_map=bands)
    visits = np.unique(golden["visit"]).tolist()
    assert len(visits) > 80
    lazy = ([p.photo_calibs[visit] for visit in visits] for p in (plain, bare))
    for visit, found, without in zip(visits, *dask.compute(*lazy), strict=True):
        rows = golden[golden["visit"] == visit]
        assert list(found) == np.unique(rows["detector"]).tolist()
        at = rows["detector"].astype(int), rows["x"], rows["y"]
        shifted, _ = make_photo_calib(Setup(real, config, None), offsets, visit)
        for photo_calib, name in ((found, ""), (without, "_nochrom"), (shifted, "_off")):
            np.testing.assert_allclose(
                photo_calib.calibration(*at), rows[f"value{name}"], rtol=1e-9
            )
        place = np.searchsorted(found.detectors, at[0])
        np.testing.assert_allclose(found.mean[place], rows["mean"], rtol=1e-9)
        np.testing.assert_allclose(found.err[place], rows["err"], rtol=1e-9)


def test_golden_atmospheres(real, shared):
    with fits.open(shared / "data" / "fgcm_run" / "golden_atmospheres.fits") as hdus:
        golden, wavelength = hdus["ATMOSPHERES"].data, hdus["WAVELENGTH"].data["wavelength"]
    curves = build_products(real, ProductsConfig(tract_stars=False)).atmospheres
    found = dask.compute([curves[visit] for visit in golden["visit"].tolist()])[0]
    assert len(found) > 80
    for curve, transmission in zip(found, golden["transmission"], strict=True):
        np.testing.assert_array_equal(curve.wavelengths, wavelength)
        np.testing.assert_allclose(curve.throughput, transmission, rtol=1e-6)


def test_the_jacobian_is_the_area_of_the_pixels(products):
    composed = products.photo_calibs[VISIT].compute()
    bare = make_products(compose_wcs_jacobian=False).photo_calibs[VISIT].compute()
    x, y = np.array([0, 100.25, 511]), np.array([[0], [30], [255.5]])
    for detector, photo_calib in composed.items():
        area = products.run.camera.pixel_area_field(detector)
        ratio = photo_calib.calibration(x, y) / bare[detector].calibration(x, y)
        np.testing.assert_allclose(ratio, area(x, y), rtol=1e-12)
        assert np.ptp(area(x, y)) > 1e-5
        np.testing.assert_allclose(photo_calib.mean / bare[detector].mean, area.center, rtol=1e-12)


def test_the_atmosphere_is_that_of_the_visit(products):
    table = AtmosphereTable.open(TABLE)
    rows = products.run.atmosphere_rows(VISITS)
    expected = table.interpolate(rows)
    for visit, transmission, airmass in zip(VISITS, expected, rows["secZenith"], strict=True):
        curve = products.atmospheres[visit].compute()
        np.testing.assert_array_equal(curve.throughput, transmission)
        assert curve.airmass == airmass


# Visits that cannot be used: the others are unharmed


def broken(catalog, rows=slice(None), **values):
    """Return a change of a visit's rows."""

    def change(parts):
        table = parts[catalog]
        for name, value in values.items():
            where = np.flatnonzero(table["visit"] == VISIT)[rows]
            column = np.array(table[name])
            column = column.astype("U10") if isinstance(value, str) else column
            column[where] = value
            table.replace_column(name, column)

    return change


def repeated(catalog):
    def change(parts):
        table = parts[catalog]
        again = table[table["visit"] == VISIT][:1]
        parts[catalog] = vstack([again, table], metadata_conflicts="silent")

    return change


def removed(catalog):
    def change(parts):
        parts[catalog] = parts[catalog][parts[catalog]["visit"] != VISIT]

    return change


BOTH = ("photo_calibs", "atmospheres")
FAULTS = {
    "all zeropoints NaN": (
        broken("zeropoints", fgcmZpt=np.nan),
        ("photo_calibs",),
        "visit 60600004: none of its detectors can be calibrated: detectors .* not finite",
    ),
    "coefficients NaN": (
        broken("zeropoints", fgcmfZptSstarCheb=np.nan),
        ("photo_calibs",),
        "detectors 0, 1, 2, 3, 4, 5, 6, 7 .fgcmfZptSstarCheb is not finite",
    ),
    "no scaling": (
        broken("visits", scaling=np.nan),
        ("photo_calibs",),
        "a scaling that is not positive",
    ),
    "detector twice": (
        repeated("zeropoints"),
        ("photo_calibs",),
        "visit 60600004 of the zeropoints can't be used: several rows of a detector",
    ),
    "other box": (
        broken("zeropoints", 3, fgcmfZptChebXyMax=77),
        ("photo_calibs",),
        "pixel area of detector 3 is of another box",
    ),
    "unknown filter": (
        broken("visits", physicalFilter="NOPE"),
        ("photo_calibs",),
        "physical filter 'NOPE' is not known",
    ),
    "visit twice": (repeated("visits"), BOTH, "visit 60600004 .* can't be used: several rows"),
    "no atmosphere": (
        removed("atmosphere_parameters"),
        ("atmospheres",),
        "the atmosphere parameters has no rows of visit 60600004",
    ),
    "atmosphere twice": (repeated("atmosphere_parameters"), ("atmospheres",), "several rows"),
    "atmosphere NaN": (
        broken("atmosphere_parameters", pwv=np.nan),
        ("atmospheres",),
        r"pwv is nan in row 0 \(visit 60600004\), it must be a positive amount of water",
    ),
    "atmosphere absurd": (
        broken("atmosphere_parameters", secZenith=-1.3),
        ("atmospheres",),
        r"secZenith is -1.3 in row 0 \(visit 60600004\), it must be 1 or more",
    ),
}


def test_a_detector_that_is_not_known_costs_itself():
    photo_calibs = make_products(make_run(broken("zeropoints", 2, detector=99))).photo_calibs
    with pytest.warns(
        CalibrationWarning, match=r"of detector 99 \(no scaling\); detector 99 \(no p"
    ):
        assert len(photo_calibs[VISIT].compute()) == 7


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_visit_fails_alone(fault, tmp_path, written):
    change, where, text = FAULTS[fault]
    products = make_products(make_run(change))
    report = products.write(tmp_path / "out")
    assert [(o.product, o.number) for o in report.failed] == [(name, VISIT) for name in where]
    assert report.counts["photo_calibs"]["skipped"] == 1
    for name in BOTH:
        for visit in GOOD:
            path = tmp_path / "out" / name / f"{visit}.fits"
            assert path.exists() != (visit == VISIT and name in where)
            if path.exists():
                assert_same_table(read(tmp_path / "out", name, visit), read(written, name, visit))
    for outcome in report.failed:
        with pytest.raises(ValueError, match=text) as caught:
            getattr(products, outcome.product)[VISIT].compute()
        assert outcome.remark == " ".join(str(caught.value).split())
        line = next(line for line in str(report).splitlines() if outcome.product in line)
        assert line.endswith("1 failed")
        assert f"failed: {outcome.product} 60600004: {outcome.remark}" in str(report).splitlines()


def test_a_bad_detector_is_left_out_and_named(tmp_path, written):
    products = make_products(make_run(broken("zeropoints", 2, fgcmZptVar=np.nan)))
    report = products.write(tmp_path / "out")
    assert report.failed == []
    text = "visit 60600004: no calibration of detector 2 (fgcmZptVar is not finite)"
    assert f"written: photo_calibs 60600004: {text}" in str(report).splitlines()
    table = read(tmp_path / "out", "photo_calibs", VISIT)
    whole = read(written, "photo_calibs", VISIT)
    assert_same_table(table, whole[whole["detector"] != 2])
    with pytest.warns(CalibrationWarning, match=r"visit 60600004: no calibration of detector 2 "):
        assert 2 not in products.photo_calibs[VISIT].compute()


def test_a_visit_without_a_zeropoint_is_skipped(tmp_path, written):
    report = make_products(make_run(removed("zeropoints"))).write(tmp_path / "out")
    assert states(report) == {
        "photo_calibs": {"skipped": 2, "written": 3},
        "atmospheres": {"written": 5},
    }
    assert report.failed == []
    lines = str(report).splitlines()
    assert lines[1] == "photo_calibs: 3 written, 0 there before, 2 skipped, 0 failed"
    text = "the zeropoints has no rows of visit 60600004"
    assert f"skipped: photo_calibs 60600004: {text}" in lines
    assert any(line.startswith("skipped: photo_calibs 60601017: visit 60601017") for line in lines)
    assert_same_table(
        read(tmp_path / "out", "photo_calibs", GOOD[0]), read(written, "photo_calibs", GOOD[0])
    )


def test_visits_with_the_same_fault_are_one_line(tmp_path):
    run = FgcmRun(**many_visits(30), camera=RUN / "camera.ecsv")
    report = make_products(run, zeropoint_output=False).write(tmp_path / "out")
    assert states(report) == {"atmospheres": {"failed": 30}}
    assert len(str(report).splitlines()) == 3
    assert f"{', '.join(str(60600000 + i) for i in range(10))} and 20 more: cTrans" in str(report)


# What concerns all visits: an error before anything is written


def test_a_missing_atmosphere_table():
    with pytest.raises(
        FileNotFoundError, match="no atmosphere table 'nope'; looked .*; set atmosph"
    ):
        make_products(atmosphere_table="nope")
    without = make_products(atmosphere_table="nope", atmosphere_output=False)
    assert len(without.photo_calibs[VISIT].compute()) == 8


def test_a_damaged_atmosphere_table(tmp_path):
    (tmp_path / "table.fits").write_bytes(TABLE.read_bytes()[:3000])
    products = make_products(atmosphere_table=str(tmp_path / "table.fits"))
    with pytest.raises(ValueError, match=r"table.fits") as caught:
        products.write(tmp_path / "out")
    assert "atmosphere_output=False" in caught.value.__notes__[0]
    assert not (tmp_path / "out").exists()


def test_an_atmosphere_table_without_a_name():
    def nameless(parts):
        parts["lookup_table"].remove_column("tablename")

    with pytest.raises(ValueError, match="names no atmosphere table; set atmosphere_table"):
        make_products(make_run(nameless), atmosphere_table=None)


def test_a_relative_path_is_that_of_whoever_builds(tmp_path, monkeypatch):
    (tmp_path / "table.fits.gz").write_bytes(TABLE.read_bytes())
    monkeypatch.chdir(tmp_path)
    products = make_products(atmosphere_table="table.fits.gz")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    curve = products.atmospheres[VISIT].compute()
    assert curve == make_products().atmospheres[VISIT].compute()


@pytest.mark.parametrize("scheduler", ["threads", "cluster"])
def test_the_atmosphere_table_is_the_one_beside_the_run(scheduler, tmp_path, request, monkeypatch):
    """A file of that name where the user is, or a worker, is another; so is one changed since."""
    for name in ("user", "run"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "user")
    folder = write(tmp_path / "run", tables())
    name = FgcmRun.open(folder).lookup["tablename"]
    shutil.copy(TABLE, folder / f"{name}.fits.gz")
    with fits.open(TABLE) as hdus:
        hdus["O3ATM"].data = hdus["O3ATM"].data * 0.9
        hdus.writeto(f"{name}.fits")
    products = build_products(FgcmRun.open(folder), CONFIG.replace(atmosphere_table=None))
    right = make_products()
    assert products.inputs()["atmosphere_table"] == right.inputs()["atmosphere_table"]
    if scheduler == "cluster":
        request.getfixturevalue("client")
    with dask.config.set(scheduler=None if scheduler == "cluster" else scheduler):
        assert products.atmospheres[VISIT].compute() == right.atmospheres[VISIT].compute()
        shutil.copy(f"{name}.fits", folder / f"{name}.fits.gz")
        with pytest.raises(OSError, match=r"fits.gz has changed since it was opened"):
            products.atmospheres[VISIT].compute()


def test_a_camera_without_areas(tmp_path, monkeypatch):
    run = FgcmRun.open(RUN)
    monkeypatch.setattr(BaseDetector, "pixel_area", lambda self, x, y: np.zeros((100, 100)))
    with pytest.raises(ValueError, match="detector 0 has pixels without an area"):
        make_products(run).write(tmp_path / "out")
    assert list(files(tmp_path)) == ["out/provenance.json"]


@pytest.mark.slow
def test_a_run_that_was_changed_since(tmp_path):
    run = FgcmRun.open(write(tmp_path, tables()))
    products = make_products(run)
    with open(tmp_path / "fgcmZeropoints.fits", "ab") as file:
        file.write(bytes(2880))
    with pytest.raises(OSError, match=r"fgcmZeropoints.fits has changed since"):
        products.write(tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Schedulers


@pytest.mark.slow
@pytest.mark.parametrize("form", ["files", "tables"])
@pytest.mark.parametrize("output_format", ["fits", "parquet"])
def test_all_schedulers_write_the_same_bytes(form, output_format, tmp_path, client):
    run = FgcmRun.open(RUN) if form == "files" else make_run()
    products = make_products(run, output_format=output_format)
    every = {}
    for scheduler in ("synchronous", "threads", "cluster"):
        with dask.config.set(scheduler=None if scheduler == "cluster" else scheduler):
            report = products.write(tmp_path / scheduler)
        assert states(report)["photo_calibs"] == {"skipped": 1, "written": 4}
        every[scheduler] = files(tmp_path / scheduler)
    assert len(every["threads"]) == 10
    assert every["synchronous"] == every["threads"] == every["cluster"]


@pytest.mark.slow
def test_processes_write_the_same_bytes(products, tmp_path, written):
    with (
        ProcessPoolExecutor(1, get_context("spawn")) as pool,  # or dask starts one for each step
        dask.config.set(scheduler="processes", pool=pool),
    ):
        report = products.write(tmp_path / "out", visits=[VISIT, NO_ZEROPOINT])
    assert states(report)["photo_calibs"] == {"skipped": 1, "written": 1}
    expected = files(written)
    found = files(tmp_path / "out")
    assert len(found) == 4
    assert found == {name: expected[name] for name in found}


def test_no_warnings_in_worker_threads(tmp_path):
    products = make_products(make_run(broken("zeropoints", 2, fgcmZptVar=np.nan)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        products.write(tmp_path / "out")


def test_photo_calibs_are_of_the_public_kind(products):
    photo_calib = products.photo_calibs[VISIT].compute()
    assert isinstance(photo_calib, VisitPhotoCalib)
    assert photo_calib.visit == VISIT
    assert CONFIG.compose_wcs_jacobian


def test_names_depend_on_the_offsets():
    products = make_products()
    first, second = (products.with_offsets({"r": shift}) for shift in (0.0, 1.0))
    assert first.photo_calibs[VISIT].key != second.photo_calibs[VISIT].key
