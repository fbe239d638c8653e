"""What became of sources: how many are calibrated, and why others are not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..texts import listed, plural

__all__ = ["SourcesReport", "Tally", "left_out_text"]

_LISTED = 10  # visits or partitions that have a line each


@dataclass
class Tally:
    """Counts of sources.

    Attributes
    ----------
    rows : int
        All of them.
    visits : Counter of int
        By visit that has no calibration, its sources.
    detectors : Counter of (int, int)
        By visit and detector, where the visit has calibrations, but not of that detector.
    off : int
        Sources farther off their detector than is allowed.
    nowhere : int
        Sources whose x or y is not a finite number.
    unnamed : int
        Sources whose visit or detector is missing.
    """

    rows: int = 0
    visits: Counter[int] = field(default_factory=Counter)
    detectors: Counter[tuple[int, int]] = field(default_factory=Counter)
    off: int = 0
    nowhere: int = 0
    unnamed: int = 0

    @property
    def calibrated(self) -> int:
        """How many have a calibration."""
        of_none = self.visits.total() + self.detectors.total() + self.unnamed
        return self.rows - of_none - self.off - self.nowhere

    def add(self, other: Tally) -> None:
        """Add the counts of other sources."""
        self.rows += other.rows
        self.visits.update(other.visits)
        self.detectors.update(other.detectors)
        self.off += other.off
        self.nowhere += other.nowhere
        self.unnamed += other.unnamed

    def add_missing(self, visit: np.ndarray, detector: np.ndarray, known: np.ndarray) -> None:
        """Count sources that have no calibration; ``known`` are the visits that have some."""
        here = np.isin(visit, known)
        for value, count in zip(*_counted(visit[~here]), strict=True):
            self.visits[value] += count
        pairs = np.stack([visit[here], detector[here]], axis=-1)
        for pair, count in zip(*_counted(pairs), strict=True):
            self.detectors[tuple(pair)] += count

    def to_json(self) -> str:
        """Return a text that says it."""
        detectors = [[*pair, count] for pair, count in sorted(self.detectors.items())]
        return json.dumps(
            {
                "rows": self.rows,
                "visits": sorted(self.visits.items()),
                "detectors": detectors,
                "off": self.off,
                "nowhere": self.nowhere,
                "unnamed": self.unnamed,
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> Tally:
        """Make one of such a text.

        Examples
        --------
        >>> tally = Tally(5, Counter({7: 2}), Counter({(8, 1): 1}))
        >>> Tally.from_json(tally.to_json()) == tally, tally.calibrated
        (True, 2)
        """
        counts = json.loads(text)
        visits = Counter(dict(counts["visits"]))
        detectors = Counter({(visit, number): n for visit, number, n in counts["detectors"]})
        rest = (counts[name] for name in ("off", "nowhere", "unnamed"))
        return cls(counts["rows"], visits, detectors, *rest)

    def reasons(self) -> Iterator[str]:
        """Yield why sources are not calibrated, with how many."""
        for reason, count in self._reasons():
            yield f"{reason}: {plural(count, 'source')}"

    def _reasons(self) -> Iterator[tuple[str, int]]:
        if self.visits:
            visits = listed(sorted(self.visits), noun="visit")
            yield f"no calibration of {visits}", self.visits.total()
        by_visit: dict[int, list[int]] = {}
        for visit, detector in sorted(self.detectors):
            by_visit.setdefault(visit, []).append(detector)
        for visit, detectors in list(by_visit.items())[:_LISTED]:
            count = sum(self.detectors[visit, detector] for detector in detectors)
            yield f"no calibration of visit {visit}, {listed(detectors, noun='detector')}", count
        if more := list(by_visit)[_LISTED:]:
            count = sum(n for (visit, _), n in self.detectors.items() if visit in more)
            yield f"no calibration of detectors of {len(more)} more visits", count
        if self.off:
            yield "off their detector", self.off
        if self.nowhere:
            yield "without a position", self.nowhere
        if self.unnamed:
            yield "without a visit or detector", self.unnamed


def left_out_text(left_out: Mapping[str, str]) -> str:
    """Return which columns are left out, and why.

    Examples
    --------
    >>> left_out_text({"when": "holds Time"})
    'columns left out: when (holds Time)'
    """
    return f"columns left out: {listed(f'{name} ({why})' for name, why in left_out.items())}"


def _counted(values: np.ndarray) -> tuple[list[Any], list[int]]:
    values, counts = np.unique(values, axis=0, return_counts=True)
    return values.tolist(), counts.tolist()


@dataclass
class SourcesReport:
    """What was written of tables of sources.

    Attributes
    ----------
    directory : Path
    states : Counter of str
        How many partitions were ``written``, ``kept``, as they were there before and complete, or
        ``failed``.
    tally : Tally
        Of the sources in those that were written or kept.
    failed : dict of str to str
        By name of a partition, why it could not be calibrated.
    left_out : dict of str to str
        Columns that are in the sources but not in what was written, and why.
    """

    directory: Path
    states: Counter[str] = field(default_factory=Counter)
    tally: Tally = field(default_factory=Tally)
    failed: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        n, tally = self.states, self.tally
        lines = [
            f"sources in {self.directory}",
            f"partitions: {n['written']} written, {n['kept']} there before, {n['failed']} failed",
            f"{plural(tally.rows, 'source')}, {tally.calibrated} calibrated",
            *tally.reasons(),
        ]
        if self.left_out:
            lines.append(left_out_text(self.left_out))
        for name, why in list(self.failed.items())[:_LISTED]:
            lines.append(f"failed: {name}: {why}")
        if len(self.failed) > _LISTED:
            lines.append(f"failed: {len(self.failed) - _LISTED} more")
        return "\n".join(lines)
