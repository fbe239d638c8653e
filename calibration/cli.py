"""The command `skyfold`, with the subcommands of this package beside those of `mapreduce`."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from dask.base import compute

from mapreduce.cli import INTERRUPTED, SOME_FAILED, computed_on, main, scheduler_option

from .config.config import ProductsConfig
from .display import draw_focal_plane, draw_transmissions, save_figure
from .photocalib.photocalib import VisitPhotoCalib
from .products.build import FgcmProducts, build_products
from .products.store import Store
from .reference.offsets import ReferenceOffsets
from .repeatability.report import measure_repeatability
from .run.run import FgcmRun
from .simulate.run import simulate_run
from .sources.calibrated import MARGIN, calibrate_sources

__all__ = ["main"]

_DRAWN = 8  # visits


@main.command("products")
@click.argument("source", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--config", "config_path", type=click.Path(path_type=Path), help="A .yaml or .toml file."
)
@click.option(
    "--set", "overrides", metavar="FIELD=VALUE", multiple=True,
    help="Set a field of the configuration, such as output_format=parquet; repeat for more.",
)  # fmt: skip
@click.option(
    "--reference", type=click.Path(path_type=Path),
    help="Reference catalog: FITS, Parquet, or a directory of shards [default: that in RUN].",
)  # fmt: skip
@click.option("--visit", "visits", type=int, multiple=True, help="Only this one; repeat for more.")
@scheduler_option
@click.option("--overwrite", is_flag=True, help="Replace products of another run in OUT.")
@click.option(
    "--pictures", type=click.Path(path_type=Path), help="Write pictures of some visits there."
)
@click.option("--progress/--no-progress", default=True, help="Show a progress bar.")
def products_command(
    source: Path,
    target: Path,
    config_path: Path | None,
    overrides: tuple[str, ...],
    reference: Path | None,
    visits: tuple[int, ...],
    scheduler: str,
    overwrite: bool,
    pictures: Path | None,
    progress: bool,
) -> None:
    """Write the products of the FGCM run in the directory RUN to the directory OUT.

    PhotoCalibs and transmission curves by visit, and standard stars by tract. What OUT holds
    already is kept if it is complete, so that the same command takes up a run that was broken off.

    \b
    Examples:
      skyfold products fgcm_run out
      skyfold products fgcm_run out --config products.yaml --visit 60600001
      skyfold products fgcm_run out --set output_format=parquet --scheduler tcp://head:8786
    """  # noqa: D301 - click's mark for a block that is not rewrapped
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        config = ProductsConfig() if config_path is None else ProductsConfig.open(config_path)
        config = config.with_overrides(overrides)
        given = {} if reference is None else {"reference_catalog": None}
        run = FgcmRun.open(source, cycle=config.cycle_number, needed=config, **given)
        products = build_products(run, config, reference=reference)
    for warning in caught:
        click.echo(f"warning: {warning.message}", err=True)
    chosen = list(dict.fromkeys(visits)) or run.visit_ids.tolist()
    with _written(target, scheduler, len(chosen), "visits" if progress else "") as update:
        report = products.write(target, visits=visits or None, overwrite=overwrite, progress=update)
    click.echo(report)
    if pictures is not None:
        without = {outcome.number for outcome in report.remarked if outcome.state != "written"}
        store = Store.reopen(target)
        _draw(products, store, [visit for visit in chosen if visit not in without], pictures)
        _draw_offsets(store, pictures)
    if report.failed:
        click.get_current_context().exit(SOME_FAILED)


@contextmanager
def _written(
    target: Path, scheduler: str, count: int, label: str
) -> Iterator[Callable[[int], None]]:
    """Compute on a scheduler; give what moves a progress bar, which is shown if it has a label."""
    file = sys.stderr if label else io.StringIO()
    try:
        with (
            computed_on(scheduler, progress=False),
            click.progressbar(length=count, label=label, file=file) as bar,
        ):
            yield bar.update
    except KeyboardInterrupt:
        click.echo(f"interrupted; what is complete stays in {target}", err=True)
        click.get_current_context().exit(INTERRUPTED)


def _draw(products: FgcmProducts, store: Store, visits: list[int], folder: Path) -> None:
    """Write pictures: curves of some visits, and the focal plane of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    if visits and products.atmospheres:
        lazy = {v: products.atmospheres[v] for v in visits[:: -(-len(visits) // _DRAWN)]}
        axes = draw_transmissions(compute(lazy)[0])
        save_figure(axes.figure, folder / "transmissions.png")
        click.echo(f"wrote {folder / 'transmissions.png'}")
    camera = products.run.camera
    if visits and products.photo_calibs and camera is not None:
        photo_calib = VisitPhotoCalib.from_table(store.read("photo_calibs", visits[0]))
        axes = draw_focal_plane(photo_calib, camera)
        save_figure(axes.figure, folder / "focal_plane.png")
        click.echo(f"wrote {folder / 'focal_plane.png'}")


def _draw_offsets(store: Store, folder: Path) -> None:
    """Write a picture of the reference offsets, if there are any."""
    if store.is_complete("offsets") and store.is_complete("offset_pixels"):
        tables = (store.read(name) for name in ("offsets", "offset_pixels"))
        ReferenceOffsets.from_tables(*tables).plot(folder / "offsets.png")
        click.echo(f"wrote {folder / 'offsets.png'}")


@main.command("report")
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--run", type=click.Path(path_type=Path),
    help="Directory of the run that OUT was made of [default: where it was then].",
)  # fmt: skip
@click.option(
    "--observations", type=click.Path(path_type=Path),
    help="Star observations, FITS or Parquet [default: fgcmStarObservations in RUN].",
)  # fmt: skip
@click.option(
    "--pictures", type=click.Path(path_type=Path), help="Write pictures there [default: OUT]."
)
def report_command(
    target: Path, run: Path | None, observations: Path | None, pictures: Path | None
) -> None:
    """Report how well magnitudes of a star agree, before and after the photoCalibs in OUT.

    Prints the scatter of the stars that the fit started from, by band and magnitude, and writes it
    to OUT as tables, repeatability and repeatability_bins, with a picture; and one of the reference
    offsets, if there are any.

    \b
    Examples:
      skyfold report out
      skyfold report out --run /data/fgcm_run --pictures figures
    """  # noqa: D301 - click's mark for a block that is not rewrapped
    found = measure_repeatability(target, run=run, observations=observations)
    click.echo(found)
    paths = found.write(target)
    folder = target if pictures is None else pictures
    folder.mkdir(parents=True, exist_ok=True)
    found.plot(folder / "repeatability.png")
    for path in (*paths, folder / "repeatability.png"):
        click.echo(f"wrote {path}")
    _draw_offsets(Store.reopen(target), folder)


class _Named(click.ParamType):  # type: ignore[type-arg]  # a generic in new versions only
    """NAME=COLUMN, or the column alone, whose name is then empty."""

    name = "NAME=COLUMN"

    def convert(self, value: Any, param: Any, context: Any) -> tuple[str, Any]:
        """Return the name and the column; several columns are a tuple."""
        before, equals, after = value.rpartition("=")
        if not after or bool(equals) != bool(before):
            self.fail(f"{value!r} is not NAME=COLUMN", param, context)
        columns = tuple(column or None for column in after.split(","))
        return before, columns if len(columns) > 1 else after


@main.command("calibrate")
@click.argument("sources", metavar="SOURCES...", nargs=-1, required=True)
@click.argument("products", metavar="PRODUCTS", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--flux", "fluxes", type=_Named(), metavar="[PREFIX=]COLUMN[,ERRORS]", multiple=True,
    help="Instrumental flux, and what new columns' names begin with; repeat for more "
    "[default: instFlux, with its errors in instFluxErr].",
)  # fmt: skip
@click.option(
    "--column", "columns", type=_Named(), metavar="NAME=COLUMN", multiple=True,
    help="Column of visit, detector, x or y, or the number of the visit or detector "
    "[default: so called].",
)  # fmt: skip
@click.option("--keep", multiple=True, help="Keep only this column; repeat [default: all].")
@click.option(
    "--margin", type=float, default=MARGIN, show_default=True,
    help="Pixels that a source may lie off its detector.",
)  # fmt: skip
@click.option("--rows", type=int, help="Cut files into partitions of so many rows.")
@click.option("--format", "format_", default="parquet", show_default=True, help="Or fits.")
@scheduler_option
@click.option("--overwrite", is_flag=True, help="Replace what was calibrated otherwise in OUT.")
@click.option("--progress/--no-progress", default=True, help="Show a progress bar.")
def calibrate_command(
    sources: tuple[str, ...],
    products: Path,
    target: Path,
    fluxes: tuple[tuple[str, Any], ...],
    columns: tuple[tuple[str, Any], ...],
    keep: tuple[str, ...],
    margin: float,
    rows: int | None,
    format_: str,
    scheduler: str,
    overwrite: bool,
    progress: bool,
) -> None:
    """Calibrate tables of sources with the photoCalibs that the directory PRODUCTS holds.

    SOURCES are FITS and Parquet files or directories of them. Each becomes a file in the directory
    OUT with nJy and AB magnitudes. What OUT holds already is kept if it is complete, so that the
    same command takes up a run that was broken off.

    \b
    Examples:
      skyfold calibrate sources products calibrated
      skyfold calibrate src-*.fits products calibrated --flux psf=base_PsfFlux_instFlux
      skyfold calibrate sources products calibrated --column visit=expnum --column detector=ccd
    """  # noqa: D301 - click's mark for a block that is not rewrapped
    names: dict[str, Any]
    names = {name: int(text) if str(text).isdecimal() else text for name, text in columns}
    if wrong := names.keys() - {"visit", "detector", "x", "y"}:
        raise ValueError(f"--column names visit, detector, x or y, got {sorted(wrong)[0]!r}")
    calibrated = calibrate_sources(
        sources,
        products,
        **names,
        fluxes=dict(fluxes) or "instFlux",
        keep=keep or None,
        margin=margin,
        rows=rows,
    )
    with _written(target, scheduler, len(calibrated), "partitions" if progress else "") as update:
        report = calibrated.write(target, format=format_, overwrite=overwrite, progress=update)
    click.echo(report)
    if report.failed:
        click.get_current_context().exit(SOME_FAILED)


@main.command("simulate-run")
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--visits", type=int, default=24, show_default=True, help="Number of visits.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same run.")
@click.option("--overwrite", is_flag=True, help="Replace a simulated run in OUT.")
def simulate_run_command(target: Path, visits: int, seed: int, overwrite: bool) -> None:
    """Write a small simulated FGCM run, with its truth, to the directory OUT."""
    simulate_run(target, n_visits=visits, seed=seed, overwrite=overwrite)
    click.echo(f"wrote {target}: {visits} visits")


if __name__ == "__main__":
    main()
