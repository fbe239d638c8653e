"""The command `skyfold`: each subcommand parses, calls the package, and prints."""

from __future__ import annotations

import ast
import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import click
import cloudpickle
import dask
from dask.diagnostics.progress import ProgressBar
from distributed import Client
from distributed import progress as show_progress

from .display import before_after
from .grid.config import Adjust, GridConfig
from .io.catalogs import check_catalog_target, write_catalog
from .io.files import check_target, read_exposure, write_exposure
from .io.paths import is_url, name_of
from .io.stream import check_free
from .mappers.names import describe, resolve_mapper
from .reducers.base import PixelReducer
from .reducers.names import REDUCERS
from .run.engine import map_reduce
from .run.lazy import Collected
from .simulate import simulate_exposure
from .version import __version__

__all__ = ["INTERRUPTED", "SOME_FAILED", "computed_on", "main", "scheduler_option"]

_PIXEL_REDUCERS: dict[str, Callable[..., PixelReducer]] = {
    name: kind for name, kind in REDUCERS.items() if issubclass(kind, PixelReducer)
}
_LOCAL = ("threads", "synchronous", "processes")
CONNECT_TIMEOUT = "10s"
SOME_FAILED = 3
INTERRUPTED = 130


class _Size(click.ParamType):  # type: ignore[type-arg]  # click 8.2's takes none
    """A size as one number or as XxY."""

    name = "SIZE"

    def convert(self, value: Any, param: Any, context: Any) -> Any:
        """Return a number or a pair of numbers."""
        if not isinstance(value, str):
            return value
        try:
            numbers = [float(part) for part in value.lower().split("x")]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 2):
            self.fail(f"{value!r} is neither a number nor XxY", param, context)
        return numbers[0] if len(numbers) == 1 else tuple(numbers)


class _Place(click.Path):
    """A path, or a URL as it is."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: Any, context: Any) -> Any:
        """Return a Path or a URL."""
        return value if is_url(value) else super().convert(value, param, context)


class _Setting(click.ParamType):  # type: ignore[type-arg]  # as above
    """KEY=VALUE, the value a Python literal or else a string."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: Any, context: Any) -> tuple[str, Any]:
        """Return the key and the value."""
        key, equals, text = value.partition("=")
        if not (key.isidentifier() and equals):
            self.fail(f"{value!r} is not KEY=VALUE", param, context)
        try:
            return key, ast.literal_eval(text)
        except (SyntaxError, ValueError):
            return key, text


class _OneLineErrors(click.Group):
    """Says a user's mistake in one line; ``--traceback`` shows where it happened."""

    def invoke(self, context: click.Context) -> Any:
        """Run the subcommand."""
        try:
            return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("interrupted; nothing was written", err=True)
            context.exit(INTERRUPTED)
        except Exception as error:
            if context.params.get("traceback"):
                raise
            raise click.ClickException(_one_line(error)) from None


def _one_line(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    notes = getattr(error, "__notes__", ())
    message = "; ".join(" ".join(part.split()) for part in (text, *notes) if part)
    return f"{type(error).__name__}: {message}"


def _grid_options(command: Any) -> Any:
    for option in reversed(
        (
            click.option(
                "--cell", type=_Size(), default=256, show_default=True, help="Size of the core."
            ),
            click.option("--step", type=_Size(), help="Distance between cells; default as --cell."),
            click.option(
                "--border", type=_Size(), default=32, show_default=True, help="Margin on each side."
            ),
            click.option(
                "--adjust",
                type=click.Choice(["partition", "spacing", "size", "none"]),
                default="partition",
                show_default=True,
                help="How the cells are fitted to the image.",
            ),
            click.option("--fwhm", is_flag=True, help="Sizes are in FWHMs of the PSF, not pixels."),
            click.option("--even", is_flag=True, help="Grow odd boxes to even sizes."),
        )
    ):
        command = option(command)
    return command


def _read_options(command: Any) -> Any:
    for option in reversed(
        (
            click.option("--format", "format_", help="Format of IN [default: found out]."),
            click.option(
                "--option",
                "options",
                type=_Setting(),
                multiple=True,
                help="Option of the reader, such as ccd=N2, error=noise.fits; repeat for more.",
            ),
        )
    ):
        command = option(command)
    return command


scheduler_option = click.option(
    "--scheduler",
    default="threads",
    show_default=True,
    help=f"{', '.join(_LOCAL)}, or the address of a dask scheduler (tcp://host:port).",
)


@click.group(
    cls=_OneLineErrors,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 error, 2 wrong usage, 3 done but cells or visits failed, "
    "130 interrupted.",
)
@click.version_option(__version__)
@click.option("--traceback", is_flag=True, help="Show where an error happened.")
def main(traceback: bool) -> None:
    """Parallel map-reduce over astronomical exposures.

    \b
    A first try:
      skyfold simulate sky.fits
      skyfold grid sky.fits --cell 128 --plot grid.png
      skyfold map sky.fits flat.fits --mapper background --cell 128 --picture flat.png
    """  # noqa: D301 - click's mark for a block that is not rewrapped


def _list_mappers(context: click.Context, _: Any, value: bool) -> None:
    if value and not context.resilient_parsing:
        for name, line in describe().items():
            click.echo(f"{name:14}{line}")
        context.exit()


@main.command("map")
@click.argument("in_path", metavar="IN", type=_Place())
@click.argument("out_path", metavar="OUT", type=_Place())
@click.option(
    "--mapper",
    "mapper_name",
    required=True,
    help=f"{', '.join(describe())}, or your own as package.module:function.",
)
@click.option(
    "--mappers", is_flag=True, is_eager=True, expose_value=False, callback=_list_mappers,
    help="Say what the built-in mappers do.",
)  # fmt: skip
@click.option(
    "--set", "settings", type=_Setting(), multiple=True,
    help="Argument of the mapper, such as size=7; repeat for more.",
)  # fmt: skip
@_grid_options
@click.option(
    "--reducer", type=click.Choice([*_PIXEL_REDUCERS, "concatenate"]), default="average",
    show_default=True,
    help="How results are combined where they overlap; concatenate makes a catalog of tables.",
)  # fmt: skip
@click.option(
    "--variance", type=click.Choice(["mean", "correlated", "independent"]),
    help="Rule for the variance of overlaps; default the reducer's own.",
)  # fmt: skip
@click.option(
    "--aligned", type=_Setting(), multiple=True, metavar="NAME=FILE",
    help="Another exposure on the same pixels, for the mapper's argument NAME.",
)  # fmt: skip
@click.option("--tile", type=_Size(), help="Size of the blocks that are one task each.")
@click.option(
    "--on-error", type=click.Choice(["raise", "mask"]), default="raise", show_default=True,
    help="Stop at a failing cell, or mask it and go on.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="For mappers that draw.")
@scheduler_option
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@click.option("--picture", type=click.Path(path_type=Path), help="Write a before/after picture.")
@click.option("--progress/--no-progress", default=True, help="Show a progress bar.")
@_read_options
def map_command(
    in_path: Path | str,
    out_path: Path | str,
    mapper_name: str,
    settings: tuple[tuple[str, Any], ...],
    reducer: str,
    variance: str | None,
    aligned: tuple[tuple[str, Any], ...],
    tile: Any,
    on_error: Literal["raise", "mask"],
    seed: int,
    scheduler: str,
    overwrite: bool,
    picture: Path | None,
    progress: bool,
    format_: str | None,
    options: tuple[tuple[str, Any], ...],
    **grid: Any,
) -> None:
    """Run a mapper over the cells of IN and write the result to OUT.

    OUT is a .fits file, a compressed .fits.fz, or a .zarr store. FITS without compression and zarr
    are written block by block, so that exposures may be larger than the memory; workers of a
    cluster must see OUT under the same path. IN may be a URL (https://, s3://), and so may a .zarr
    store that is OUT (s3://). With --reducer concatenate, OUT is a table: .parquet, .fits, .ecsv or
    .csv. A SIZE is a number of pixels, or WIDTHxHEIGHT.

    \b
    Examples:
      skyfold map in.fits out.fits --mapper median --set size=7 --cell 512 --border 8
      skyfold map c4d_..._ooi_z_ls9.fits.fz out.fits --option ccd=N2 --mapper background
      skyfold map in.fits out.fits --mapper mycode.filters:denoise --scheduler tcp://head:8786
    """  # noqa: D301
    collects = reducer == "concatenate"
    if collects and (variance or picture):
        raise ValueError("a catalog has no --variance and no --picture")
    (check_catalog_target if collects else check_target)(out_path, overwrite=overwrite)
    mapper = _mapper(mapper_name)
    combine = "concatenate" if collects else _pixel_reducer(reducer, variance)
    exposure = read_exposure(in_path, format=format_, **dict(options))
    result = map_reduce(
        exposure,
        mapper,
        grid=_grid_config(**grid),
        reducer=combine,
        aligned={name: read_exposure(path) for name, path in aligned},
        mapper_kwargs=dict(settings),
        tile=_whole(tile),
        on_error=on_error,
        seed=seed,
    )
    if isinstance(result, Collected):
        with computed_on(scheduler, progress), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*cells failed")  # the report names them
            rows = write_catalog(result.compute(), out_path, overwrite=overwrite)
        click.echo(f"wrote {out_path}: {rows} rows\n{result.report}")
        if result.report.failures:
            click.get_current_context().exit(SOME_FAILED)
        return
    click.echo(f"about {result.predicted_bytes / 2**20:.0f} MiB a task", err=True)
    with computed_on(scheduler, progress):
        report = write_exposure(result, out_path, overwrite=overwrite)
    if picture is not None:
        titles = _short(name_of(in_path)), _short(mapper_name)
        before_after(exposure, read_exposure(out_path), picture, titles=titles)
    click.echo(f"wrote {out_path}\n{report}")
    if report is not None and report.failures:
        click.get_current_context().exit(SOME_FAILED)


@main.command("grid")
@click.argument("in_path", metavar="IN", type=_Place())
@_grid_options
@click.option("--plot", type=click.Path(path_type=Path), help="Write a picture of the boxes.")
@click.option("--skip", type=int, default=1, show_default=True, help="Draw every n-th cell.")
@_read_options
def grid_command(
    in_path: Path | str,
    plot: Path | None,
    skip: int,
    format_: str | None,
    options: tuple[tuple[str, Any], ...],
    **grid: Any,
) -> None:
    """Show how IN would be cut into cells.

    A SIZE is a number of pixels, or WIDTHxHEIGHT.
    """
    exposure = read_exposure(in_path, format=format_, **dict(options))
    cells = _grid_config(**grid).build(exposure)
    widths, heights = ([cell.core[n] for cell in cells] for n in (2, 3))
    click.echo(
        f"{in_path}: {exposure.bbox.width} x {exposure.bbox.height} pixels\n"
        f"{len(cells)} cells, {min(widths)} to {max(widths)} pixels wide "
        f"and {min(heights)} to {max(heights)} high"
    )
    if plot is not None:
        axes = cells.plot(skip=skip, image=exposure)
        axes.figure.savefig(plot, dpi=120)
        click.echo(f"wrote {plot}")


@main.command("simulate")
@click.argument("out_path", metavar="OUT", type=_Place())
@click.option("--size", type=_Size(), default=1024, show_default=True, help="Size in pixels.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same sky.")
@click.option("--truth", type=click.Path(path_type=Path), help="Write the sources (ECSV).")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def simulate_command(
    out_path: Path | str, size: Any, seed: int, truth: Path | None, overwrite: bool
) -> None:
    """Write a simulated exposure to OUT (FITS)."""
    check_target(out_path, overwrite=overwrite)
    if truth is not None:
        check_free(truth, overwrite)
    simulated = simulate_exposure(_whole(size), seed=seed)
    write_exposure(simulated.exposure, out_path, overwrite=overwrite)
    click.echo(f"wrote {out_path}: {len(simulated.truth.sources)} sources")
    if truth is not None:
        simulated.truth.sources.write(truth, format="ascii.ecsv", overwrite=overwrite)
        click.echo(f"wrote {truth}")


def _grid_config(
    *, cell: Any, step: Any, border: Any, adjust: Adjust, fwhm: bool, even: bool
) -> GridConfig:
    return GridConfig(
        cell_size=cell, step=step, border=border, adjust=adjust, scale_by_fwhm=fwhm, even_sized=even
    )


def _mapper(name: str) -> Any:
    """Find a mapper; one's own may lie in the current folder, which workers do not have."""
    sys.path.insert(0, os.getcwd())
    mapper = resolve_mapper(name)
    module = sys.modules.get(getattr(mapper, "__module__", ""), None)
    file = getattr(module, "__file__", None)
    if file is not None and Path(file).resolve().is_relative_to(Path.cwd()):
        cloudpickle.register_pickle_by_value(module)
    return mapper


def _pixel_reducer(name: str, variance: str | None) -> PixelReducer:
    kind = _PIXEL_REDUCERS[name]
    if variance is None:
        return kind()
    try:
        return kind(variance_rule=variance)
    except TypeError:
        raise ValueError(f"reducer {name!r} has no choice of variance rule") from None


def _short(name: str) -> str:
    """Return a name that fits over a panel."""
    return name if len(name) <= 44 else f"...{name[-41:]}"


def _whole(size: Any) -> Any:
    """Return a size in whole pixels."""
    if size is None:
        return None
    numbers = size if isinstance(size, tuple) else (size,)
    if any(number != int(number) for number in numbers):
        raise ValueError(f"a size in whole pixels is needed, got {size}")
    whole = tuple(map(int, numbers))
    return whole if len(whole) == 2 else whole[0]


@contextlib.contextmanager
def computed_on(scheduler: str, progress: bool) -> Iterator[None]:
    """Let everything be computed there, with a progress bar or without."""
    if scheduler in _LOCAL:
        bar = ProgressBar(out=sys.stderr) if progress else contextlib.nullcontext()
        with bar, dask.config.set(scheduler=scheduler):
            yield
        return
    if "://" not in scheduler:
        raise ValueError(
            f"scheduler is {scheduler!r}; choose from {', '.join(_LOCAL)}, or give an address "
            "like tcp://host:8786"
        )
    with _client(scheduler) as client:
        get = _shown(client) if progress else client.get
        with dask.config.set(scheduler=get):
            yield


def _shown(client: Client) -> Callable[..., Any]:
    """Return a dask scheduler that shows what the cluster does."""

    def get(graph: Any, keys: Any, **kwargs: Any) -> Any:
        results = client.get(graph, keys, sync=False, **kwargs)
        show_progress(results, notebook=False)
        click.echo(err=True)
        return client.gather(results)

    return get


@contextlib.contextmanager
def _client(address: str) -> Iterator[Client]:
    try:
        client = Client(address, timeout=CONNECT_TIMEOUT)
    except (OSError, TimeoutError) as error:
        raise OSError(f"no dask scheduler answers at {address}: {error}") from None
    with client:
        yield client


if __name__ == "__main__":
    main()
