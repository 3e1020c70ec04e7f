"""The outcome of an evaluation: figures beside published ones, with all that they depend on. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

__all__ = ["PhotoFigures", "Row", "Table", "comparison", "shown"]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of the table. ``low`` and ``high``: its 95 % confidence interval, where one was estimated.

    ``floor`` and ``aim`` are what the project holds itself to; lower is better where ``smaller`` is set.
    """

    name: str
    value: float
    floor: float | None = None
    aim: float | None = None
    smaller: bool = False
    low: float | None = None
    high: float | None = None

    @property
    def passed(self) -> bool | None:
        """Whether the floor is met; None where there is none."""
        if self.floor is None:
            return None
        return self.value <= self.floor if self.smaller else self.value >= self.floor


@dataclass(frozen=True, slots=True)
class PhotoFigures:
    """One case by itself: the part of the protocol it belongs to, its id, its figures (the first of them ranks it)."""

    part: str
    key: str
    figures: Mapping[str, float]

    @property
    def score(self) -> float:
        """The figure that ranks it; NaN where nothing was to be measured."""
        return next(iter(self.figures.values()), math.nan)


@dataclass(frozen=True)
class Table(Sequence[Row]):
    """Rows in the protocol's order. ``published``: model -> row name -> value. ``constants``: what the figures depend on.

    ``classes``: column -> class -> value; ``photos``: every case by itself.
    """

    protocol: str
    model: str
    rows: tuple[Row, ...]
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    classes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    photos: tuple[PhotoFigures, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Row, ...]: ...
    def __getitem__(self, index: int | slice) -> Row | tuple[Row, ...]:
        return self.rows[index]

    def value(self, name: str) -> float:
        """The figure of a row by its name.

        Raises:
            KeyError: there is no such row.
        """
        return {row.name: row.value for row in self.rows}[name]

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Head and lines of the printed table: figure, ours, interval, floor and aim where there are any, published columns."""
        limits = any(row.floor is not None for row in self.rows)
        head = ["figure", self.model, "95 %", *(["floor", "aim", ""] if limits else []), *self.published]
        return head, [self._line(row, limits) for row in self.rows]

    def _line(self, row: Row, limits: bool) -> list[str]:
        sign = "<= " if row.smaller else ""
        wanted = ["" if limit is None else f"{sign}{limit:.2f}" for limit in (row.floor, row.aim)]
        passed = {None: "", True: "met", False: "missed"}[row.passed]
        published = ["" if row.name not in figures else shown(figures[row.name]) for figures in self.published.values()]
        return [row.name, shown(row.value), _interval(row), *([*wanted, passed] if limits else []), *published]

    def markdown(self) -> str:
        """The printed table, then the constants, in Markdown."""
        head, lines = self.cells()
        constants = "\n".join(f"- {name}: {value}" for name, value in self.constants.items())
        return f"# {self.protocol}\n\n{_markdown(head, lines)}\n\n{constants}\n"

    def markdown_row(self) -> str:
        """One line of a table over models: the model, then every figure."""
        return f"| {' | '.join([self.model, *(shown(row.value) for row in self.rows)])} |"

    def json(self) -> dict[str, Any]:
        """Everything but the single photos, as plain JSON; a figure that is not defined is null."""
        rows = [
            {name: _plain(getattr(row, name)) for name in ("name", "value", "low", "high", "floor", "aim", "passed")} for row in self.rows
        ]
        classes = {column: {name: _plain(value) for name, value in values.items()} for column, values in self.classes.items()}
        head = {"protocol": self.protocol, "model": self.model, "rows": rows, "published": self.published}
        return {**head, "constants": self.constants, "classes": classes, "photos": len(self.photos)}


def comparison(tables: Sequence[Table]) -> str:
    """Tables of one protocol as the papers print them, in Markdown: a line per model, published ones first."""
    first = tables[0]
    names = [row.name for row in first.rows]
    published = [
        [f"{model} (published)", *(shown(figures[name]) if name in figures else "" for name in names)]
        for model, figures in first.published.items()
    ]
    ours = [[table.model, *(shown(row.value) for row in table.rows)] for table in tables]
    return _markdown(["model", *names], [*published, *ours])


def shown(value: float) -> str:
    """A figure with three digits; a dash where it is not defined."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def _interval(row: Row) -> str:
    return "" if row.low is None or row.high is None else f"{shown(row.low)} to {shown(row.high)}"


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
