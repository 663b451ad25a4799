"""What every benchmark leaves in its output folder: report.json, rows.csv, report.md, cumulative.png."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from facefit.benchmarks.run import Row, plain, provenance, write_json

Curves = Mapping[str, Sequence[Float[np.ndarray, "n"]]]


@dataclass(frozen=True)
class Report:
    """Figures of one run. `headline` says the protocol and what the unit is; `columns` orders the table."""

    headline: str
    settings: Mapping[str, Any]
    rows: Sequence[Row]
    table: Sequence[Row]
    columns: Mapping[str, str]
    curves: Curves = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    # What the curves measure and what they count.
    axes: tuple[str, str] = ("Error [mm]", "Percentage")

    @property
    def failures(self) -> list[Row]:
        return [{"item": row["item"], "error": row["error"]} for row in self.rows if row.get("error")]

    @property
    def coverage(self) -> str:
        """How many of all items have a figure: one that covers fewer is a figure of something else."""
        return f"{len(self.rows) - len(self.failures)}/{len(self.rows)}"

    @property
    def text(self) -> str:
        lines = [f"{self.headline} Coverage {self.coverage}.", "", markdown(self.table, self.columns)]
        if self.failures:
            lines += ["The figures leave out what failed:", ""]
            lines += [f"- {failure['item']}: {failure['error']}" for failure in self.failures]
        return "\n".join(lines).rstrip() + "\n"

    def write(self, out: Path) -> None:
        value = {
            "headline": self.headline,
            "settings": self.settings,
            "provenance": provenance(),
            "coverage": self.coverage,
            "failures": self.failures,
            "columns": self.columns,
            "table": self.table,
            "extra": self.extra,
            "rows": self.rows,
        }
        write_json(out / "report.json", value)
        write_csv(out / "rows.csv", self.rows)
        (out / "report.md").write_text(self.text, encoding="utf-8")
        if self.curves:
            title = str(self.settings.get("benchmark", ""))
            plot_cumulative(out / "cumulative.png", self.curves, title, self.axes)


def curves_of(rows: Sequence[Row], names: Sequence[str]) -> Curves:
    """One value an item: the curves of benchmarks that score meshes or images, not vertices."""
    good = [row for row in rows if row.get("error") is None]
    return {
        name: [np.array([r[name] for r in good if r.get(name) is not None], np.float64)] for name in names
    }


def plot_cumulative(
    path: Path,
    curves: Mapping[str, Sequence[Float[np.ndarray, "n"]]],
    title: str = "",
    names: tuple[str, str] = ("Error [mm]", "Percentage"),
) -> None:
    """Percentage within an error, 0 to 8; the axes of the published NoW plots, where vertices are counted."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    grid = np.linspace(0, 8, 801)
    for name, distances in curves.items():
        if distances and sum(map(len, distances)):
            ordered = np.sort(np.concatenate(list(distances)))
            share = 100 * np.searchsorted(ordered, grid, side="right") / len(ordered)
            axes.plot(grid, share, label=f"{name} (median {np.median(ordered):.2f})")
    axes.set(xlim=(0, 8), ylim=(0, 100), xlabel=names[0], ylabel=names[1], title=title)
    axes.set_xticks(range(9))
    axes.set_yticks(range(0, 101, 20))
    axes.grid(alpha=0.4)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Scalar columns of the rows; a value of many numbers stays in the JSON."""
    scalar = [{k: plain(v) for k, v in row.items()} for row in rows]
    names = list(dict.fromkeys(k for row in scalar for k, v in row.items() if not isinstance(v, list | dict)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(scalar)


def markdown(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """A table; `columns` maps a key to its heading. Numbers with three decimals, nothing for None."""
    lines = ["| " + " | ".join(columns.values()) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join(_cell(row.get(key)) for key in columns) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
    if isinstance(value, tuple | list):
        return " – ".join(_cell(v) for v in value)
    return str(value)
