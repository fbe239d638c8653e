"""What does it cost to open a file, and to read one block of a compressed one?

Opens exposures of several sizes and layouts with `read_exposure`, none of which it has seen before;
and reads a block of a tile-compressed image beside the whole of it, for every kind of compression,
with a look at how much of the file that took.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from astropy.io import fits

import mapreduce as mr

from .helpers import (
    Verdict,
    alone,
    conclude,
    count,
    environment,
    make_parser,
    make_planes,
    race,
    ratio,
    table,
)

__all__ = ["main"]

MINUTES = 1
SMOKE = ["--sizes", "64", "256", "--size", "256", "--tile", "32", "--repeat", "2"]

OPEN_LIMIT = 20  # ms
BYTES_LIMIT = 1.25  # of the bytes of the tiles that the block needs
TIME_LIMIT = 2.0  # of the same part of the time for the whole image
BLOCK = 4.5  # tiles along an axis, of which it cuts five

_DITHER = {"quantize_level": 16.0, "dither_seed": 1}
COMPRESSIONS = {
    "RICE_1, integers": ("i4", {"compression_type": "RICE_1"}),
    "RICE_1, dithered": ("f4", {"compression_type": "RICE_1", "quantize_method": 1, **_DITHER}),
    "RICE_1, dithered, zeros kept": (
        "f4",
        {"compression_type": "RICE_1", "quantize_method": 2, **_DITHER},
    ),
    "GZIP_1, lossless": ("f4", {"compression_type": "GZIP_1", "quantize_level": 0.0}),
    "GZIP_2, lossless": ("f4", {"compression_type": "GZIP_2", "quantize_level": 0.0}),
    "HCOMPRESS_1, integers": ("i4", {"compression_type": "HCOMPRESS_1"}),
}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = _options(argv)
    report: dict[str, Any] = {"environment": environment(), "options": vars(options)}
    with tempfile.TemporaryDirectory() as folder:
        report["open"] = time_opening(make_files(Path(folder), options), options.repeat)
        report["blocks"] = [
            time_block(name, make_compressed(Path(folder), name, options), options)
            for name in COMPRESSIONS
        ]
    report["verdicts"] = [
        Verdict(f"opening {name}", 1e3 * median(seconds), "<=", OPEN_LIMIT, "ms")
        for name, seconds in report["open"].items()
    ]
    report["verdicts"].append(
        Verdict(
            "time for a block / its part of that for the image",
            max(row["time"] for row in report["blocks"]),
            "<=",
            TIME_LIMIT,
        )
    )
    if all(row["read"] for row in report["blocks"]):
        worst = max(row["read"] for row in report["blocks"])
        what = "bytes read for a block / bytes of its tiles"
        report["verdicts"].append(Verdict(what, worst, "<=", BYTES_LIMIT))
    return conclude(report, options.json)


# Opening


def make_files(folder: Path, options: argparse.Namespace) -> dict[str, Path]:
    """Write the files to open."""
    files = {}
    for size in options.sizes:
        files[f"uncompressed, {size}²"] = sparse(folder / f"{size}.fits", size)
    pixels = make_planes(options.size // 4)
    small = mr.Exposure(*pixels)
    large = mr.Exposure(*(np.tile(plane, (4, 4)) for plane in pixels))
    for exposure in (small, large):
        path = folder / f"{exposure.bbox.width}.fits.fz"
        exposure.write(path, compression="rice")
        files[f"tile-compressed, {exposure.bbox.width}²"] = path
    files["with PSFEx model, 20 HDUs"] = with_archive(folder / "calexp.fits", small)
    return files | {path.name: path for path in options.file}


def sparse(path: Path, size: int) -> Path:
    """Write a file in LSST's layout whose pixels are a hole in the file."""
    fits.PrimaryHDU(header=fits.Header({"OBJECT": "nothing"})).writeto(path)
    for name, bits in (("IMAGE", -32), ("MASK", 32), ("VARIANCE", -32)):
        cards = {"XTENSION": "IMAGE", "BITPIX": bits, "NAXIS": 2, "NAXIS1": size, "NAXIS2": size}
        header = fits.Header(cards | {"PCOUNT": 0, "GCOUNT": 1, "EXTNAME": name})
        if name == "MASK":
            header["MP_BAD"] = 0
        with path.open("ab") as file:
            file.write(header.tostring().encode())
            file.truncate(file.tell() + -(-4 * size**2 // 2880) * 2880)
    return path


def with_archive(path: Path, exposure: mr.Exposure) -> Path:
    """Write a file as LSST's pipelines do: long headers, SIP, and an archive with the PSF."""
    planes = {"IMAGE": exposure.image, "MASK": exposure.mask, "VARIANCE": exposure.variance}
    tables = [_table(x=np.zeros(3)) for _ in range(13)]
    rows = [(n, n % 11 + 1, 0, 0, 1, "Other") for n in range(70)]
    rows += [(78, 14, 0, 0, 1, "PsfexPsf"), (78, 15, 1, 0, 1, "PsfexPsf")]
    names = ("id", "cat.archive", "cat.persistable", "row0", "nrows", "name")
    index = _table(
        **{name: np.array(v) for name, v in zip(names, zip(*rows, strict=True), strict=True)}
    )
    rng = np.random.default_rng(1)
    scalars = _table(averagePosition_x=[500.0], averagePosition_y=[500.0], _pixstep=[0.7])
    model = _table(
        _size=np.array([[35, 35, 6]]),
        _comp=rng.random((1, 6 * 35 * 35)),
        degree=[2],
        _context_first=np.array([[500.0, 500.0]]),
        _context_second=np.array([[500.0, 500.0]]),
    )
    facts = {f"FACT{n}": n + 0.5 for n in range(400)}
    primary = fits.PrimaryHDU(header=fits.Header(facts | {"AR_HDU": 5, "PSF_ID": 78}))
    images = [
        fits.CompImageHDU(plane, _sip_header(), name=name, compression_type="RICE_1")
        for name, plane in planes.items()
    ]
    images[1].header["MP_BAD"] = 0
    fits.HDUList([primary, *images, index, *tables, scalars, model]).writeto(path)
    if not isinstance(mr.read_exposure(path).psf, mr.PsfexPsf):
        raise RuntimeError(f"the PSF in {path} is not found")
    return path


def _table(**columns: Any) -> fits.BinTableHDU:
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    rows = np.empty(
        len(next(iter(arrays.values()))),
        [(name, array.dtype, array.shape[1:]) for name, array in arrays.items()],
    )
    for name, array in arrays.items():
        rows[name] = array
    return fits.BinTableHDU(rows)


def _sip_header() -> fits.Header:
    cards = {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CRVAL1": 30.0, "CRVAL2": 4.0}
    cards |= {"CRPIX1": 500.0, "CRPIX2": 500.0, "CD1_1": 5e-5, "CD2_2": 5e-5}
    for letter in "AB":
        cards[f"{letter}_ORDER"] = cards[f"{letter}P_ORDER"] = 3
        for i, j in itertools.product(range(4), range(4)):
            if i + j in (2, 3):
                cards[f"{letter}_{i}_{j}"] = cards[f"{letter}P_{i}_{j}"] = 1e-12
    return fits.Header(cards)


def time_opening(files: dict[str, Path], repeat: int | None) -> dict[str, list[float]]:
    """Time how long it takes to open files, and print a table."""
    functions = {name: opening(path) for name, path in files.items()}
    seconds = race(functions, repeat=repeat or 21)
    rows = [
        (name, f"{files[name].stat().st_size / 1e6:.1f} MB", len(t))
        + tuple(f"{1e3 * f(t):.1f} ms" for f in (median, min, max))
        for name, t in seconds.items()
    ]
    print(table(("opening", "size", "runs", "median", "min", "max"), rows), flush=True)
    return seconds


def opening(path: Path) -> Callable[[], mr.Exposure]:
    """Return a function that opens a file as if it had never been opened."""
    times = itertools.count()

    def open_it() -> mr.Exposure:
        if os.access(path, os.W_OK):
            os.utime(path, (0, next(times)))  # or the layout would be remembered
        return mr.read_exposure(path)

    return open_it


# Reading a block


def make_compressed(folder: Path, name: str, options: argparse.Namespace) -> Path:
    """Write an image in compressed tiles."""
    dtype, how = COMPRESSIONS[name]
    image = np.tile(make_planes(options.size // 4).image.astype(dtype), (4, 4))
    tile = (options.tile, options.tile)
    path = folder / f"{name}.fits.fz"
    hdu = fits.CompImageHDU(image, name="SCI", tile_shape=tile, **how)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    return path


def time_block(name: str, path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Check and time a block and the whole of an image, and print a line."""
    exposure = mr.read_exposure(path)
    width = int(BLOCK * options.tile)
    box = mr.Box(options.tile, options.tile, width, width)
    whole = exposure.bbox
    part = (-(-width // options.tile) / (whole.width // options.tile)) ** 2
    right = fits.getdata(path, 1)
    plane = exposure.planes["image"]
    if not np.array_equal(plane[box.slices(whole)], right[box.slices(whole)], equal_nan=True):
        raise RuntimeError(f"a block of {path} is not what astropy reads there")
    functions = {
        "block": lambda: plane[box.slices(whole)],
        "whole": lambda: plane[whole.slices(whole)],
    }
    amount = bytes_read(functions["block"])
    seconds = race(functions, repeat=options.repeat)
    row = {
        "compression": name,
        "seconds": seconds,
        "part": part,
        "bytes": amount,
        "time": ratio(seconds, "block", "whole") / part,
        "read": amount and amount / (part * path.stat().st_size),
    }
    times = [f"{key} {1e3 * median(seconds[key]):.1f} ms" for key in functions]
    read = f" and {row['read']:.2f} of their bytes" if amount else ""
    print(
        f"{name}: {', '.join(times)}; the block needs {part:.1%} of the tiles, "
        f"and takes {row['time']:.2f} of their time{read}",
        flush=True,
    )
    return row


def bytes_read(function: Callable[[], Any]) -> int | None:
    """Return how many bytes a call reads from files; None where the system does not count them."""
    counter = Path("/proc/self/io")
    if not counter.exists():
        return None

    def counted() -> int:
        return int(counter.read_text().split()[1])  # rchar

    before, again = counted(), counted()
    function()
    return counted() - again - (again - before)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("bench_reading", __doc__)
    parser.add_argument(
        "--sizes",
        type=count,
        nargs="+",
        default=[1024, 16384],
        help="pixels along an axis, of uncompressed files to open (%(default)s)",
    )
    parser.add_argument(
        "--size", type=count, default=4096, help="the same, of compressed images (%(default)s)"
    )
    parser.add_argument("--tile", type=count, default=256, help="of those (%(default)s)")
    parser.add_argument(
        "--file", type=Path, action="append", default=[], help="open this too; can be repeated"
    )
    parser.add_argument("--repeat", type=count, help="runs of each (21 and 9)")
    options = parser.parse_args(argv)
    if options.size % (8 * options.tile):
        parser.error(f"--size {options.size} is not a multiple of 8 tiles of {options.tile}")
    return options


if __name__ == "__main__":
    alone(main)
