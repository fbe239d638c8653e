"""Exposures at URLs: of a server on this machine, and in memory; of other stores the names only."""

import gzip
import io
import pickle
import re
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from dask.base import tokenize

from mapreduce import Box, Exposure, GridConfig, map_reduce, read_exposure
from mapreduce.cli import main
from mapreduce.io import paths
from mapreduce.io.files import check_target
from mapreduce.io.fits_plane import FitsPlane
from mapreduce.io.hdu import scan
from mapreduce.io.psf import read_psfex
from tests.mapreduce.io.test_decam import triple
from tests.support import assert_read_back, identity, make_exposure, make_full, minus_mean

FORMATS = ("fits", "fits.fz", "fits.gz", "fits.bz2", "plain", "decam", "zarr")
GRID = GridConfig(24, border=4)


class Files(SimpleHTTPRequestHandler):
    """Serves a folder, parts of files too, and writes down what it was asked for."""

    protocol_version = "HTTP/1.1"  # which keeps connections

    def do_GET(self):
        self.respond(body=True)

    def do_HEAD(self):
        self.respond(body=False)

    def respond(self, body):
        server = self.server
        path = Path(self.translate_path(self.path))
        if server.refuses is not None or not path.is_file():
            self.send_response(server.refuses or 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = path.read_bytes()
        start, stop, size = 0, len(data), len(data)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and server.gives_parts:
            start = int(asked[1])
            stop = min(size, int(asked[2]) + 1 if asked[2] else size)
        self.send_response(206 if asked and server.gives_parts else 200)
        if asked and server.gives_parts:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        if server.says_length:
            self.send_header("Content-Length", str(stop - start))
        else:
            self.close_connection = True
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.end_headers()
        if body:
            server.asked.append((self.path, stop - start))
            self.wfile.write(data[start:stop])

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    gives_parts = says_length = True
    refuses = None

    def sent(self):
        """Return how many requests for content there were, and the bytes; and start again."""
        asked, self.asked = self.asked, []
        return len(asked), sum(count for _, count in asked)


@pytest.fixture
def server(tmp_path):
    server = Server(("127.0.0.1", 0), lambda *args: Files(*args, directory=tmp_path))
    server.asked = []
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def memory():
    """Return an empty place in memory."""
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture(params=["memory", "http"])
def at_url(request, tmp_path):
    """Return what makes a URL of a file or folder in the temporary folder."""
    if request.param == "http":
        server = request.getfixturevalue("server")
        return lambda path: f"{server.url}/{Path(path).relative_to(tmp_path)}"
    system = request.getfixturevalue("memory")

    def put(path):
        for file in tmp_path.rglob("*"):
            if file.is_file():
                system.pipe_file(f"/data/{file.relative_to(tmp_path)}", file.read_bytes())
        return f"memory://data/{Path(path).relative_to(tmp_path)}"

    return put


def written(folder, kind):
    """Write an exposure of many tiles in a format; return its path."""
    exposure = make_full()
    path = folder / f"a.{kind}"
    if kind == "decam":
        return triple(folder, quality=np.zeros((3, 4), "i2"))
    if kind == "plain":
        path = folder / "a.fit"
        hdus = [fits.PrimaryHDU(), fits.ImageHDU(exposure.image, name="SCI")]
        hdus += [fits.ImageHDU(exposure.mask.astype("u2"), name="DQ")]
        fits.HDUList(hdus).writeto(path)
        return path
    if kind in ("fits.gz", "fits.bz2"):
        exposure.write(folder / "b.fits")
        with fsspec.open(path, "wb", compression="infer") as file:
            file.write((folder / "b.fits").read_bytes())
        return path
    exposure.write(path, **({"chunks": 32} if kind == "zarr" else {}))
    return path


# Reading


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_reads_as_a_local_file(tmp_path, at_url, kind):
    path = written(tmp_path, kind)
    found, local = read_exposure(at_url(path)), read_exposure(path)
    assert_read_back(found, local.compute())
    assert dict(found.meta) == dict(local.meta)
    box = Box(local.bbox.x0 + 1, local.bbox.y0 + 1, 2, 2)
    np.testing.assert_array_equal(
        found.cutout(box).compute().image, local.cutout(box).compute().image
    )
    for plane in found.planes.values():
        assert len(pickle.dumps(plane)) < 5000
        assert tokenize(pickle.loads(pickle.dumps(plane))) == tokenize(plane)


@pytest.mark.parametrize("kind", ["fits", "fits.fz", "zarr"])
def test_runs_on_threads(tmp_path, at_url, kind):
    path = written(tmp_path, kind)
    found = map_reduce(read_exposure(at_url(path)), minus_mean, grid=GRID, tile=24).compute()
    assert_read_back(found, map_reduce(read_exposure(path), minus_mean, grid=GRID).compute())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fits", "fits.fz", "fits.gz", "zarr"])
def test_runs_on_worker_processes(tmp_path, server, client, kind):
    path = written(tmp_path, kind)
    exposure = read_exposure(f"{server.url}/{path.name}")
    found = map_reduce(exposure, minus_mean, grid=GRID, tile=24).compute()
    assert_read_back(found, map_reduce(read_exposure(path), minus_mean, grid=GRID).compute())


def test_a_query_stays_with_the_file(tmp_path, server):
    triple(tmp_path, quality=np.zeros((3, 4), "i2"))
    url = f"{server.url}/c4d_170316_ooi_z_v1.fits?token=a/b"
    exposure = read_exposure(url).compute()
    assert exposure.variance[0, 0] == 4
    assert {path.partition("?")[2] for path, _ in server.asked} == {"token=a/b"}


def test_other_files_by_url(tmp_path, at_url):
    image = np.arange(12, dtype="f4").reshape(3, 4)
    fits.PrimaryHDU(image).writeto(tmp_path / "a.fits")
    fits.PrimaryHDU(image + 1).writeto(tmp_path / "noise.fits")
    exposure = read_exposure(
        at_url(tmp_path / "a.fits"), variance=at_url(tmp_path / "noise.fits")
    ).compute()
    np.testing.assert_array_equal(exposure.variance, image + 1)


def test_a_psfex_model(tmp_path, at_url):
    plane = fits.Column("PSF_MASK", "9E", dim="(3,3,1)", array=np.ones((1, 1, 3, 3)))
    table = fits.BinTableHDU.from_columns([plane])
    table.header["PSF_SAMP"] = 1.0
    table.writeto(tmp_path / "a.psf")
    assert read_psfex(at_url(tmp_path / "a.psf")) == read_psfex(tmp_path / "a.psf")
    with pytest.raises(FileNotFoundError, match="other"):
        read_psfex(at_url(tmp_path / "a.psf").replace("a.psf", "other.psf"))


def test_local_files_by_url_and_below_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    exposure = make_full()
    (tmp_path / "a b").mkdir()
    for name in ("a.fits", "a.zarr"):
        path = tmp_path / "a b" / name
        exposure.write(path.as_uri())
        assert path.exists()
        exposure.write(f"~/{name}")
        for place in (path.as_uri(), f"~/{name}"):
            assert_read_back(read_exposure(place), exposure)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/folder/a.fits", True),
        ("S3://bucket/a.zarr", True),
        ("https://host/a.fits?x=1", True),
        ("memory://a.zarr", True),
        ("simplecache::https://host/a.fits.gz", True),
        ("a+b-c.d://x", True),
        ("file:///a.fits", False),
        ("/folder/a.fits", False),
        ("a.fits", False),
        ("~/a.fits", False),
        ("c4d:1.fits", False),
        ("a::b.fits", False),
        ("C://folder/a.fits", False),
        (Path("a.fits"), False),
    ],
)
def test_what_is_a_url(text, expected):
    assert paths.is_url(text) is expected
    if expected:
        assert paths.located(text) == text


# What is fetched


@pytest.fixture
def large(tmp_path, server):
    """Return the URL of an image of 4 MB, and its pixels."""
    image = np.random.default_rng(1).normal(100, 9, (1000, 1000)).astype("f4")
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(image, name="SCI")]
    hdus += [fits.ImageHDU(image, name="ERR"), fits.ImageHDU(image.astype("u2"), name="DQ")]
    fits.HDUList(hdus).writeto(tmp_path / "large.fits")
    return f"{server.url}/large.fits", image


def test_opening_fetches_little(server, large):
    # Of a mask that does not say what its bits mean all pixels are looked at.
    read_exposure(large[0], image="SCI", mask_planes={"BAD": 0})
    requests, amount = server.sent()
    assert requests <= 10
    assert amount < 700_000


def test_a_block_is_one_request(server, large):
    url, image = large
    plane = FitsPlane(scan(url)[1])
    plane[0:1, 0:1]
    server.sent()
    np.testing.assert_array_equal(plane[200:300, :], image[200:300])
    assert server.sent() == (1, 100 * 4000)
    np.testing.assert_array_equal(plane[200:300, 7:107], image[200:300, 7:107])
    assert server.sent() == (1, 99 * 4000 + 400)
    np.testing.assert_array_equal(plane[200:300:3, 7:107:5], image[200:300:3, 7:107:5])
    requests, _ = server.sent()
    assert requests == 1


def test_rows_far_apart_are_read_one_by_one(server, large, monkeypatch):
    url, image = large
    monkeypatch.setattr("mapreduce.io.fits_plane._GAP", 2000)
    monkeypatch.setattr("mapreduce.io.paths._AHEAD", (1024, 4096))
    plane = FitsPlane(scan(url)[1])
    plane[0:1, 0:1]
    server.sent()
    np.testing.assert_array_equal(plane[200:220, 7:107], image[200:220, 7:107])
    requests, amount = server.sent()
    assert requests == 20
    assert amount == 20 * 1024


def test_a_long_block_is_read_in_pieces(server, large, monkeypatch):
    url, image = large
    monkeypatch.setattr("mapreduce.io.fits_plane._SPAN", 100_000)
    monkeypatch.setattr("mapreduce.io.paths._AHEAD", (1024, 4096))
    plane = FitsPlane(scan(url)[1])
    plane[0:1, 0:1]
    server.sent()
    np.testing.assert_array_equal(plane[200:300, 7:107], image[200:300, 7:107])
    assert server.sent() == (4, 4 * (24 * 4000 + 400))


def test_scaled_pixels_are_read_in_few_requests(server, large):
    url, image = large
    plane = FitsPlane(scan(url)[3])
    plane[0:1, 0:1]
    server.sent()
    np.testing.assert_array_equal(plane[200:300, 7:107], image[200:300, 7:107].astype("u2"))
    requests, amount = server.sent()
    assert requests <= 5
    assert amount < 800_000


def test_of_a_compressed_image_only_the_tiles_are_fetched(tmp_path, server):
    image = np.random.default_rng(1).normal(100, 9, (1000, 1000)).astype("f4")
    hdu = fits.CompImageHDU(image, name="SCI", quantize_level=16, tile_shape=(1, 1000))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits.fz")
    local, remote = (
        FitsPlane(scan(p)[1]) for p in (tmp_path / "a.fits.fz", f"{server.url}/a.fits.fz")
    )
    server.sent()
    np.testing.assert_array_equal(remote[500:600, 20:40], local[500:600, 20:40])
    requests, amount = server.sent()
    assert requests <= 5
    assert amount < 600_000 < (tmp_path / "a.fits.fz").stat().st_size


def test_a_file_that_is_compressed_as_a_whole_is_fetched_in_large_pieces(tmp_path, server):
    image = np.random.default_rng(1).normal(100, 9, (2000, 1000)).astype("f4")
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(image)]).writeto(file)
    (tmp_path / "a.fits.gz").write_bytes(gzip.compress(file.getvalue(), 1))
    plane = FitsPlane(scan(f"{server.url}/a.fits.gz")[0])
    server.sent()
    np.testing.assert_array_equal(plane[1990:, :], image[1990:])
    requests, amount = server.sent()
    assert requests <= 9
    assert amount <= (tmp_path / "a.fits.gz").stat().st_size


def test_chunks_of_a_store_are_fetched_one_by_one(tmp_path, server):
    image = np.random.default_rng(1).normal(100, 9, (400, 400)).astype("f4")
    Exposure(image).write(tmp_path / "a.zarr", chunks=100)
    plane = read_exposure(f"{server.url}/a.zarr").planes["image"]
    server.sent()
    np.testing.assert_array_equal(plane[110:190, 110:290], image[110:190, 110:290])
    assert sorted(path for path, _ in server.asked if "/c/" in path) == [
        "/a.zarr/image/c/1/1",
        "/a.zarr/image/c/1/2",
    ]


def test_reading_in_any_order_gives_the_bytes(server, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "_AHEAD", (64, 1024))
    data = np.random.default_rng(2).bytes(10_000)
    (tmp_path / "a").write_bytes(data)
    file, local = paths.open_bytes(f"{server.url}/a"), io.BytesIO(data)
    rng = np.random.default_rng(3)
    for _ in range(100):
        place, size = rng.integers(-100, 200), int(rng.choice([0, 1, 50, 300, 2000, -1]))
        if rng.random() < 0.3:
            assert file.seek(max(0, local.tell() + place)) == local.seek(
                max(0, local.tell() + place)
            )
        assert file.read(size) == local.read(size)
        assert file.tell() == local.tell()
        if local.tell() == len(data):
            file.seek(17), local.seek(17)
    assert file.seek(-5, io.SEEK_END) == 9995
    assert file.seek(2, io.SEEK_CUR) == 9997
    assert file.read() == data[-3:]
    assert file.read(4) == b""


# What is wrong


@pytest.mark.parametrize("kind", ["fits", "fits.fz", "fits.gz", "zarr"])
def test_what_has_changed_is_refused(tmp_path, at_url, kind):
    path = written(tmp_path, kind)
    opened = read_exposure(at_url(path))
    make_full(image=np.zeros((70, 60), "f4")).write(tmp_path / "new.fits")
    if kind == "zarr":
        make_full().write(path, overwrite=True)
    else:
        path.write_bytes((tmp_path / "new.fits").read_bytes())
    url = at_url(path)
    with pytest.raises(OSError, match=f"{re.escape(url)}.* has changed since it was opened"):
        opened.compute()
    assert tokenize(opened.planes["image"]) != tokenize(read_exposure(url).planes["image"])


@pytest.mark.parametrize("kind", ["fits", "fits.fz", "zarr"])
def test_what_has_vanished_is_named(tmp_path, server, kind):
    path = written(tmp_path, kind)
    url = f"{server.url}/{path.name}"
    opened = read_exposure(url)
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=f"{re.escape(url)}.* has vanished"):
        opened.compute()


@pytest.mark.parametrize("name", ["a.fits", "a.fits.fz", "a.zarr", "c4d_ooi_.fits"])
def test_missing(tmp_path, at_url, name):
    url = at_url(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=f"no file: '{re.escape(url)}'"):
        read_exposure(url)
    with pytest.raises(FileNotFoundError, match=f"no zarr store {re.escape(url)}"):
        read_exposure(url, format="zarr")


def test_a_missing_sibling_is_named(tmp_path, at_url):
    path = triple(tmp_path, kinds="iw")
    with pytest.raises(FileNotFoundError, match="no quality file beside it: no .*://.*_ood_"):
        read_exposure(at_url(path))


@pytest.mark.parametrize(
    ("status", "error"), [(403, PermissionError), (401, PermissionError), (500, OSError)]
)
def test_a_server_that_refuses(tmp_path, server, status, error):
    make_exposure().write(tmp_path / "a.fits")
    url = f"{server.url}/a.fits"
    exposure = read_exposure(url)
    server.refuses = status
    for act in (exposure.compute, lambda: read_exposure(url)):
        with pytest.raises(error, match=re.escape(url)) as raised:
            act()
        assert not isinstance(raised.value, FileNotFoundError)


def test_a_server_that_is_not_there(server):
    url = server.url.rpartition(":")[0] + ":1/a.fits"
    with pytest.raises(OSError, match=f"{url} cannot be read: .*Cannot connect"):
        read_exposure(url)


def test_a_server_that_gives_whole_files_only(tmp_path, server):
    """Stores are whole files, and so are small images; of others it is said what to do."""
    server.gives_parts = False
    exposure = make_full()
    exposure.write(tmp_path / "a.zarr", chunks=32)
    assert_read_back(read_exposure(f"{server.url}/a.zarr"), exposure)
    make_exposure(300, 200).write(tmp_path / "a.fits")
    with pytest.raises(OSError, match="does not support Range requests.*simplecache::http"):
        read_exposure(f"{server.url}/a.fits").compute()
    found = read_exposure(f"simplecache::{server.url}/a.fits")
    assert_read_back(found, make_exposure(300, 200))


def test_a_server_that_does_not_say_how_long_a_file_is(tmp_path, server):
    server.says_length = False
    make_exposure().write(tmp_path / "a.fits")
    with pytest.raises(OSError, match="does not say how long the file is; download"):
        read_exposure(f"{server.url}/a.fits")


def test_a_folder_that_is_no_store(memory):
    memory.pipe_file("/data/a", b"a")
    with pytest.raises(IsADirectoryError, match="memory://data"):
        read_exposure("memory://data")


@pytest.mark.slow
def test_memory_is_not_seen_from_other_processes(memory, client):
    exposure = make_exposure()
    exposure.write("memory://a.zarr")
    opened = map_reduce(read_exposure("memory://a.zarr"), identity, grid=GRID)
    with pytest.raises(FileNotFoundError, match="memory://a.zarr/image"):
        opened.compute()
    with pytest.raises(FileNotFoundError, match="memory://b.zarr/.* not to be seen from this wor"):
        map_reduce(exposure, identity, grid=GRID).write("memory://b.zarr")
    assert not memory.exists("/b.zarr")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fits", "fits.fz", "zarr"])
def test_workers_say_what_is_wrong(tmp_path, server, client, kind):
    url = f"{server.url}/{written(tmp_path, kind).name}"
    exposure = read_exposure(url)
    for status, error in ((500, OSError), (403, PermissionError), (404, FileNotFoundError)):
        run = map_reduce(exposure, identity, grid=GRID, seed=status)
        server.refuses = status
        with pytest.raises(error, match=re.escape(url)):
            run.compute()


URLS = ("s3://bucket/a.zarr", "s3://bucket/a.fits")


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("package", ["s3fs", "fsspec.core"])
def test_without_a_package(monkeypatch, url, package):
    monkeypatch.setitem(sys.modules, package, None)
    how = r"pip install 'skyfold\[remote\]'"
    for format in (None, "zarr", "fits", "lsst", "decam"):
        with pytest.raises(ImportError, match=f"^{url} needs .*{how}"):
            read_exposure(url, format=format)
    with pytest.raises(ImportError, match=f"^{url} needs .*{how}"):
        check_target(url, format="zarr")
    with pytest.raises(ImportError, match=f"^{url} needs .*{how}"):
        make_exposure().to_zarr(url)


def test_what_fsspec_does_not_know():
    for format in (None, "zarr"):
        with pytest.raises(ValueError, match="^ss3://bucket/a is of no kind that fsspec knows"):
            read_exposure("ss3://bucket/a", format=format)


# Writing


def test_writing_a_store(memory):
    exposure = make_full()
    for url, act in {
        "memory://a.zarr": exposure.write,
        "memory://folder/b.zarr": exposure.to_zarr,
        "memory://c.zarr/": exposure.write,
    }.items():
        assert check_target(url) == "zarr"
        assert act(url, chunks=16) is None
        assert_read_back(read_exposure(url), exposure)
        with pytest.raises(FileExistsError, match=f"{url} exists; overwrite=True"):
            check_target(url)
        with pytest.raises(FileExistsError, match=f"{url} exists; overwrite=True"):
            act(url)


def test_a_run_writes_a_store(memory, tmp_path):
    make_full().write(tmp_path / "a.fits")
    exposure = read_exposure(tmp_path / "a.fits")
    report = map_reduce(exposure, minus_mean, grid=GRID, tile=24).write("memory://a.zarr")
    assert report.failures == ()
    expected = map_reduce(exposure, minus_mean, grid=GRID).compute()
    assert_read_back(read_exposure("memory://a.zarr"), expected)


def test_a_store_at_a_url_is_the_same_as_in_a_folder(memory, tmp_path):
    make_full().write(tmp_path / "a.zarr", chunks=16)
    make_full().write("memory://a.zarr", chunks=16)
    local = {str(p.relative_to(tmp_path)): p for p in tmp_path.rglob("*") if p.is_file()}
    assert memory.find("/") == sorted(f"/{name}" for name in local)
    for name, path in local.items():
        assert memory.cat_file(f"/{name}") == path.read_bytes()


def test_a_lost_chunk_of_a_store_of_ours(memory):
    make_full().write("memory://a.zarr", chunks=16)
    memory.rm_file("/a.zarr/mask/c/1/2")
    opened = read_exposure("memory://a.zarr")
    with pytest.raises(
        OSError, match="memory://a.zarr/mask, .* cannot be .* chunk c/1/2 is missing"
    ):
        opened.mask.compute()
    part = opened.cutout(Box(*opened.origin, 60, 16))
    np.testing.assert_array_equal(part.mask.compute(), make_full().mask[:16])


def test_a_store_is_none_until_it_is_complete(memory, monkeypatch):
    seen, real = [], memory.__class__.pipe_file

    def watched(self, path, *args, **options):
        real(self, path, *args, **options)
        seen.append(path)

    monkeypatch.setattr(memory.__class__, "pipe_file", watched)
    make_full().write("memory://a.zarr", chunks=16)
    assert seen[-1] == "/a.zarr/zarr.json"
    assert len(set(seen)) == len(memory.find("/"))


def failing(sub, expanded, full_bbox):
    if sub.bbox.x0 > 4020:
        raise ArithmeticError("no luck")
    return sub


@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_left_of_what_fails(memory, overwrite):
    exposure = make_full()
    if overwrite:
        exposure.write("memory://a.zarr")
    before = {path: memory.cat_file(path) for path in memory.find("/")}
    with pytest.raises(ArithmeticError, match="no luck"):
        map_reduce(exposure, failing, grid=GRID, tile=24).write(
            "memory://a.zarr", overwrite=overwrite
        )
    assert {path: memory.cat_file(path) for path in memory.find("/")} == before


def test_overwriting_what_is_read(memory):
    exposure = make_full()
    exposure.write("memory://a.zarr", chunks=16)
    read_exposure("memory://a.zarr").write("memory://a.zarr", overwrite=True, chunks=30)
    assert_read_back(read_exposure("memory://a.zarr"), exposure)
    fresh = make_full()
    fresh.write("memory://b.zarr", chunks=30)
    names = [path.removeprefix("/a.zarr") for path in memory.find("/a.zarr")]
    assert names == [path.removeprefix("/b.zarr") for path in memory.find("/b.zarr")]
    assert {path.split("/")[1] for path in memory.find("/")} == {"a.zarr", "b.zarr"}


def test_never_a_mix_of_old_and_new(memory, monkeypatch):
    """Whatever step is the last, there is the old store, the new one, or none."""
    steps, kind = [], memory.__class__
    for name in ("pipe_file", "cp_file", "_rm"):
        real = getattr(kind, name)

        def watched(self, *args, real=real, **options):
            real(self, *args, **options)
            steps.append({path: self.cat_file(path) for path in self.find("/")})

        monkeypatch.setattr(kind, name, watched)
    for value in (0, 1):
        plane = np.full((20, 20), value, "f4")
        Exposure(plane, plane + 2).write("memory://a.zarr", chunks=10, overwrite=True)
    monkeypatch.undo()
    states = []
    for files in steps:
        memory.store.clear()
        for path, content in files.items():
            memory.pipe_file(path, content)
        state = None
        if memory.exists("/a.zarr/zarr.json"):
            found = read_exposure("memory://a.zarr").compute()
            (state,) = {*np.unique(found.image), *np.unique(found.variance - 2)}
        states += [state] if state not in states[-1:] else []
    assert states == [None, 0, None, 1]


def test_what_a_killed_run_leaves_can_be_overwritten(memory):
    make_full().write("memory://a.zarr")
    memory.rm_file("/a.zarr/zarr.json")
    with pytest.raises(FileNotFoundError, match="no zarr store memory://a.zarr"):
        read_exposure("memory://a.zarr", format="zarr")
    with pytest.raises(FileExistsError, match="memory://a.zarr exists; overwrite=True"):
        make_full().write("memory://a.zarr")
    make_full().write("memory://a.zarr", overwrite=True)
    assert_read_back(read_exposure("memory://a.zarr"), make_full())


def test_a_copy_that_fails_leaves_the_new_store(memory, monkeypatch):
    make_exposure().write("memory://a.zarr")

    def fail(self, *args, **options):
        raise OSError("no copies today")

    monkeypatch.setattr(memory.__class__, "cp_file", fail)
    with pytest.raises(OSError, match="no copies today") as raised:
        make_full().write("memory://a.zarr", overwrite=True)
    (note,) = raised.value.__notes__
    assert_read_back(read_exposure(note.rpartition(" ")[2]), make_full())


def test_what_is_not_a_store_is_not_replaced(memory):
    memory.pipe_file("/a.zarr/notes.txt", b"mine")
    memory.pipe_file("/b.zarr", b"mine")
    for url in ("memory://a.zarr", "memory://b.zarr"):
        with pytest.raises(FileExistsError, match="is not of the kind"):
            make_exposure().write(url, overwrite=True)
    assert memory.find("/") == ["/a.zarr/notes.txt", "/b.zarr"]


@pytest.mark.parametrize(
    ("url", "way"),
    [
        ("memory://a.fits", r"ends with \.zarr, or write the file locally and upload"),
        ("s3://bucket/a.fits.fz", r"ends with \.zarr, or write the file locally and upload"),
        ("https://host/a.fits", r"ends with \.zarr, or write the file locally and upload"),
        ("https://host/a.zarr", r"write to a store \(s3://\), or write locally and upload"),
        ("HTTP://host/a.zarr", r"write to a store \(s3://\), or write locally and upload"),
    ],
)
def test_where_nothing_can_be_written(url, way):
    for act in (check_target, make_exposure().write):
        with pytest.raises(ValueError, match=f"^cannot write {url}: .*{way}"):
            act(url)


# The command


def skyfold(*words):
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


@pytest.mark.slow
def test_the_command_maps_a_url(tmp_path, server, memory):
    exposure = make_full(meta={"OBJECT": "M 1"})
    exposure.write(tmp_path / "a.fits")
    url = f"{server.url}/a.fits?x=1"
    words = "--mapper", "median", "--set", "size=3", "--cell", "32", "--no-progress"
    result = skyfold("map", url, "memory://out/b.zarr", *words, "--picture", tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    assert "wrote memory://out/b.zarr" in result.output
    skyfold("map", tmp_path / "a.fits", tmp_path / "b.fits", *words)
    found = read_exposure("memory://out/b.zarr").compute()
    np.testing.assert_array_equal(found.image, read_exposure(tmp_path / "b.fits").compute().image)


def test_the_command_shows_the_grid_of_a_url(tmp_path, server):
    make_full().write(tmp_path / "a.fits")
    result = skyfold("grid", f"{server.url}/a.fits", "--cell", 32)
    assert f"{server.url}/a.fits: 60 x 70 pixels" in result.output


def test_the_command_refuses_before_it_works():
    result = skyfold("map", "https://host/a.fits", "memory://a.fits", "--mapper", "median")
    assert result.exit_code == 1
    assert "cannot write memory://a.fits" in result.output
