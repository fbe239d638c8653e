"""The command `skyfold`, with the subcommands of this package beside those of `mapreduce`."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path

import click
import dask

from mapreduce.cli import INTERRUPTED, SOME_FAILED, computed_on, main, scheduler_option

from .catalogs.run import FgcmRun
from .config import ProductsConfig
from .display import draw_focal_plane, draw_transmissions
from .photocalib import VisitPhotoCalib
from .products import FgcmProducts, build_products
from .reference.offsets import ReferenceOffsets
from .repeatability import measure_repeatability
from .simulate.run import simulate_run
from .store import Store

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
    help="Reference catalog: FITS, Parquet or a HATS directory [default: that in RUN].",
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
    config = ProductsConfig() if config_path is None else ProductsConfig.open(config_path)
    config = config.with_overrides(overrides)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = FgcmRun.open(source, cycle=config.cycle_number)
        products = build_products(run, config, reference=reference)
    for warning in caught:
        click.echo(f"warning: {warning.message}", err=True)
    chosen = list(dict.fromkeys(visits)) or run.visit_ids.tolist()
    file = sys.stderr if progress else io.StringIO()
    try:
        with (
            computed_on(scheduler, progress=False),
            click.progressbar(length=len(chosen), label="visits", file=file) as bar,
        ):
            report = products.write(
                target, visits=visits or None, overwrite=overwrite, progress=bar.update
            )
    except KeyboardInterrupt:
        click.echo(f"interrupted; what is complete stays in {target}", err=True)
        click.get_current_context().exit(INTERRUPTED)
    click.echo(report)
    if pictures is not None:
        without = {outcome.number for outcome in report.remarked if outcome.state != "written"}
        store = Store.reopen(target)
        _draw(products, store, [visit for visit in chosen if visit not in without], pictures)
        _draw_offsets(store, pictures)
    if report.failed:
        click.get_current_context().exit(SOME_FAILED)


def _draw(products: FgcmProducts, store: Store, visits: list[int], folder: Path) -> None:
    """Write pictures: curves of some visits, and the focal plane of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    if visits and products.atmospheres:
        lazy = {v: products.atmospheres[v] for v in visits[:: -(-len(visits) // _DRAWN)]}
        axes = draw_transmissions(dask.compute(lazy)[0])
        axes.figure.savefig(folder / "transmissions.png", dpi=120)
        click.echo(f"wrote {folder / 'transmissions.png'}")
    if visits and products.photo_calibs:
        photo_calib = VisitPhotoCalib.from_table(store.read("photo_calibs", visits[0]))
        axes = draw_focal_plane(photo_calib, products.run.camera)
        axes.figure.savefig(folder / "focal_plane.png", dpi=120)
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
