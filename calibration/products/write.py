"""Products to files: some hundred visits at a time, whatever fails and wherever it stops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
from astropy.table import Column
from dask.base import compute
from dask.delayed import Delayed, delayed

from ..photocalib.zeropoints import BadZeropointsError, NoZeropointError
from ..stars.tracts import TractStars
from ..tables.files import read_table
from ..texts import listed, said_by
from .per_visit import Make, PerVisit
from .store import Store

__all__ = [
    "BATCH",
    "Outcome",
    "WriteReport",
    "chosen_visits",
    "save",
    "write_offsets",
    "write_stars",
    "write_visits",
]

BATCH = 256  # visits that a scheduler gets at once
_LISTED = 10  # visits of one reason that are named in a summary


class Outcome(NamedTuple):
    """What became of a product.

    Attributes
    ----------
    product : str
    number : int or None
        The visit or tract; None of what there is one for the run.
    state : {"written", "kept", "skipped", "failed"}
        Kept is what was complete already; skipped is a visit for which the fit has no zeropoint.
    remark : str
        Why it was skipped or failed, or what is to be said of it.
    """

    product: str
    number: int | None
    state: str
    remark: str = ""


@dataclass
class WriteReport:
    """What was written.

    Attributes
    ----------
    directory : path
    counts : dict of str to Counter
        By product, how many there are of each state.
    remarked : list of Outcome
        Those of which something is to be said: that were skipped or failed, and others.
    examples : dict of str to int or None
        A number that there is of each product; None where there is only one.
    """

    directory: Any
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    remarked: list[Outcome] = field(default_factory=list)
    examples: dict[str, int | None] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self.counts.setdefault(outcome.product, Counter())[outcome.state] += 1
        if outcome.state in ("written", "kept"):
            self.examples.setdefault(outcome.product, outcome.number)
        if outcome.remark:
            self.remarked.append(outcome)

    @property
    def failed(self) -> list[Outcome]:
        """The products that could not be made."""
        return [outcome for outcome in self.remarked if outcome.state == "failed"]

    def __str__(self) -> str:
        lines = [
            f"{product}: {n['written']} written, {n['kept']} there before, "
            f"{n['skipped']} skipped, {n['failed']} failed"
            for product, n in self.counts.items()
        ]
        return "\n".join([f"products in {self.directory}", *lines, *_by_reason(self.remarked)])


def _by_reason(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Yield a line for each remark, with the products that have it."""
    members: dict[tuple[str, ...], list[Outcome]] = {}
    for outcome in outcomes:
        kind = outcome.remark.replace(str(outcome.number), "...")
        members.setdefault((outcome.state, outcome.product, kind), []).append(outcome)
    for (state, product, _), alike in members.items():
        numbers = listed((o.number for o in alike if o.number is not None), _LISTED)
        named = " ".join(filter(None, (product, numbers)))
        yield f"{state}: {named}: {alike[0].remark}"


def write_visits(
    products: Mapping[str, PerVisit],
    visits: Sequence[int],
    store: Store,
    report: WriteReport,
    progress: Callable[[int], Any] | None = None,
) -> None:
    """Make the products of visits and write them, as many at a time as a scheduler takes well.

    Parameters
    ----------
    products : mapping of str to PerVisit
        By name; those without visits are passed over.
    visits : sequence of int
    store : Store
    report : WriteReport
        Gets what became of each.
    progress : callable, optional
        Called with the number of visits that were done since the last call.
    """
    products = {name: product.persisted() for name, product in products.items() if len(product)}
    call = uuid4().hex  # of another directory's files the keys are others, too
    for first in range(0, len(visits), BATCH):
        batch = visits[first : first + BATCH]
        tasks = [
            product.put_to(f"save-{product.name}-{visit}-{call}", visit, save, store, name)
            for visit in batch
            for name, product in products.items()
        ]
        for outcome in compute(*tasks):
            report.add(outcome)
        if progress is not None:
            progress(len(batch))


def write_offsets(lazy: Delayed, store: Store, report: WriteReport) -> dict[str, float]:
    """Return the reference offsets: those that are there, or else measured now and written."""
    if store.is_complete("offsets") and store.is_complete("offset_pixels"):
        table = read_table(store.path("offsets"))
        report.add(Outcome("offsets", None, "kept"))
        return dict(zip(map(str, table["band"]), map(float, table["offset"]), strict=True))
    (offsets,) = compute(lazy)
    store.write(offsets.pixels, "offset_pixels")
    store.write(offsets.to_table(), "offsets")
    report.add(Outcome("offsets", None, "written", "; ".join(offsets.warnings)))
    return dict(offsets)


def write_stars(stars: TractStars, store: Store, report: WriteReport) -> None:
    """Write the stars of the tracts that are not there yet."""
    check = delayed(store.is_complete, pure=False)
    tracts = list(stars)
    complete = compute(*(check("tract_stars", tract) for tract in tracts))
    missing = [tract for tract, done in zip(tracts, complete, strict=True) if not done]
    if missing:
        store.path("tract_stars", 0).parent.mkdir(exist_ok=True)
        stars.put({tract: store.path("tract_stars", tract) for tract in missing}, store.meta)
    for tract, done in zip(tracts, complete, strict=True):
        report.add(Outcome("tract_stars", tract, "kept" if done else "written"))


def chosen_visits(known: list[int], wanted: Iterable[int] | None) -> list[int]:
    """Return the visits that are wanted, each once; all for None."""
    if wanted is None:
        return known
    wanted = list(dict.fromkeys(int(visit) for visit in wanted))
    if unknown := sorted(set(wanted) - set(known)):
        raise KeyError(f"there are no visits {unknown} among the {len(known)} of the run")
    return wanted


def save(store: Store, name: str, make: Make, *args: Any) -> Outcome:
    """Make a product and write it, unless it is there already or cannot be made.

    What cannot be made is no error here, as the others can; what cannot be written is.
    """
    number = args[-1]
    if store.is_complete(name, number):
        return Outcome(name, number, "kept")
    try:
        product, remark = make(*args)
        table = product.to_table()
    except MemoryError:
        raise
    except Exception as error:
        store.path(name, number).unlink(missing_ok=True)  # it is damaged
        none = isinstance(error, NoZeropointError) and not isinstance(error, BadZeropointsError)
        return Outcome(name, number, "skipped" if none else "failed", said_by(error))
    table.meta["VISIT"] = number
    if "visit" not in table.colnames:  # a reader of columns alone wants to know, too
        visit = Column(np.full(len(table), number), name="visit", description="visit number")
        table.add_column(visit, index=0)
    store.write(table, name, number)
    return Outcome(name, number, "written", remark)
