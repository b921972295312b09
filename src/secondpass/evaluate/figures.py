"""The paper's figures, drawn by matplotlib: numbers in, pictures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from secondpass.errors import InputError
from secondpass.evaluate.curves import Curve
from secondpass.evaluate.paper import Comparison, Correlations, Distributions

_KINDS = ("png", "svg")
_MOST_INSIDE = 5
"""Curves whose names have room in their diagram, unless they are temperatures."""
_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)


def pyplot() -> Any:
    """The pyplot of matplotlib, drawing to files.

    Raises:
        InputError: it is not installed.
    """
    try:
        import_module("matplotlib").use("Agg")
    except ImportError as error:
        raise InputError("figures need matplotlib: pip install 'secondpass[evaluate]'") from error
    # Text stays text, and the same figure gives the same file.
    plt: Any = import_module("matplotlib.pyplot")
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "secondpass", "font.size": 9})
    return plt


def save(figure: Any, folder: Path, name: str) -> None:
    """Write a figure as PNG and SVG, and let go of it."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in _KINDS:
        figure.savefig(folder / f"{name}.{kind}", dpi=130, metadata={"Date": None} if kind == "svg" else None)
    pyplot().close(figure)


def correlation_map(found: Correlations) -> Any:
    """Figure 3."""
    size = 1.8 + 0.52 * len(found.names)
    figure, axes = pyplot().subplots(figsize=(size + 1.5, size), layout="constrained")
    image = axes.imshow(found.matrix, cmap="RdBu_r", vmin=-1, vmax=1)
    places = range(len(found.names))
    axes.set_xticks(places, found.names, rotation=45, ha="right")
    axes.set_yticks(places, found.names)
    for row in places:
        for column in places:
            value = found.matrix[row, column]
            if np.isfinite(value):
                color = "white" if abs(value) > 0.6 else "black"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=color)
    figure.colorbar(image, shrink=0.7)
    axes.set_title(f"Correlation over {found.functions:,} first answers")
    return figure


def distribution_plots(found: Distributions) -> Any:
    """Figure 4."""
    kinds = {"error of the source count": found.source_errors, "error of the target count": found.target_errors}
    if any(found.bleu):
        kinds["BLEU of the written IR"] = found.bleu
    figure, every = pyplot().subplots(
        1, len(kinds), figsize=(4.6 * len(kinds), 3.6), layout="constrained", squeeze=False
    )
    for axes, (title, groups) in zip(every[0], kinds.items()):
        bins = np.linspace(0, 1, 21)
        for name, values in zip(found.names, groups):
            if values:
                clipped = np.minimum(values, 1.0)
                weights = np.full(len(clipped), 1 / len(clipped))
                axes.hist(clipped, bins=bins, weights=weights, histtype="step", label=f"{name} ({len(values):,})")
        axes.set(title=title, xlabel="relative error; 1 and more in the last bar" if "error" in title else "BLEU")
        axes.set_ylabel("share of the answers")
        axes.legend(fontsize=7)
    return figure


def comparison_bars(found: Sequence[Comparison]) -> Any:
    """Figure 5."""
    rows = max((len(it.rows) for it in found), default=1)
    size = 2.0 + 3.2 * len(found), 2 * (1.0 + 0.3 * rows)
    figure, every = pyplot().subplots(2, len(found), figsize=size, layout="constrained", sharey=True, squeeze=False)
    for column, it in enumerate(found):
        names = [row.name for row in it.rows]
        for axes, values, kind in (
            (every[0][column], [row.gain for row in it.rows], "with -Oz as back-up"),
            (every[1][column], [row.gain_alone for row in it.rows], "without"),
        ):
            bars = axes.barh(range(len(names)), [100 * value for value in values], color=_colors(names))
            axes.bar_label(bars, fmt="%.2f", fontsize=7, padding=2)
            axes.axvline(0, color="black", linewidth=0.6)
            axes.margins(x=0.2)
            axes.set_yticks(range(len(names)), names, fontsize=7)
            axes.set_title(f"{it.name} ({it.functions:,})\n{kind}", fontsize=8)
            axes.set_xlabel("% fewer instructions than -Oz", fontsize=8)
    every[0][0].invert_yaxis()
    return figure


def curve_plots(found: Mapping[str, Sequence[Curve]], effort: str) -> Any:
    """Figures 6 and 7: a diagram for each group of curves."""
    wide = 6.6 if any(map(_named_beside, found.values())) else 4.4
    figure, every = pyplot().subplots(
        1, len(found), figsize=(wide * len(found), 4.0), layout="constrained", sharey=True, squeeze=False
    )
    for axes, (title, curves) in zip(every[0], found.items()):
        shades = pyplot().get_cmap("tab10").colors
        if _are_temperatures(curves):
            shades = pyplot().get_cmap("viridis")(np.linspace(0, 0.9, len(curves)))
        for curve, color in zip(curves, shades):
            axes.plot(curve.effort, [100 * it for it in curve.share], label=curve.name, color=color, marker=".")
        axes.axhline(100, color="black", linewidth=0.6, linestyle=":")
        axes.set(title=title, xlabel=effort, xscale="log")
        marks = [mark for mark in _TICKS if mark <= max((it for curve in curves for it in curve.effort), default=1)]
        axes.set_xticks(marks, [f"{mark:,}" for mark in marks], minor=False)
        axes.set_xticks([], minor=True)
        beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if _named_beside(curves) else {}
        axes.legend(fontsize=7, **beside)
    every[0][0].set_ylabel("% of the autotuner's gain over -Oz")
    return figure


def _are_temperatures(curves: Sequence[Curve]) -> bool:
    return all(curve.name.startswith("T = ") for curve in curves)


def _named_beside(curves: Sequence[Curve]) -> bool:
    return len(curves) > _MOST_INSIDE and not _are_temperatures(curves)


def _colors(names: Sequence[str]) -> list[str]:
    return ["tab:blue" if name.endswith("Optimize") else "tab:orange" for name in names]
