"""Charts of the report as inline SVG: every subset of the modalities, and the training curves.

Drawn with matplotlib (extra `report`, imported only here and only when a chart is drawn). Colours are
CSS variables of the page, so one drawing serves light and dark mode. Equal inputs give equal text.
`ConfigError` if matplotlib is not installed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#000001", "#000002", "#000003", "#000004"
"""Stand-ins that matplotlib draws with; `_as_page_svg` turns them into the page's variables."""
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", PAPER: "--paper"}
_MARKERS = "DsovP^X"
MARKER_SIGNS = "\u25c6\u25a0\u25cf\u25bc\u271a\u25b2\u2716"
"""The same marks as characters, for keys in the page."""
NUM_ROW_COLOURS = 6
"""Row colours that the page defines (`--row-0` is the main run); further rows start again at 1."""
_POINTS = 160
"""Maximum number of points of a drawn curve."""


@dataclass(frozen=True, slots=True)
class SubsetScores:
    """One run's mIoU (fraction) by subset; a subset is a tuple of modalities in the config's order."""

    row: str
    scores: Mapping[tuple[str, ...], float | None]


@dataclass(frozen=True, slots=True)
class Curve:
    """One run's values of one metric, one point a step."""

    row: str
    index: int
    """Index of the run in the report; 0 is the main run."""
    steps: NDArray[np.float64]
    values: NDArray[np.float64]


def row_colour(index: int) -> str:
    """Name of the CSS variable that colours a run everywhere in the page."""
    return f"--row-{index if index == 0 else 1 + (index - 1) % (NUM_ROW_COLOURS - 1)}"


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty transparent figure. `ConfigError` with the command to run if matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(
            "report: the charts need matplotlib, which is not installed. "
            "Run `pip install 'any2seg[report]'`, then `any2seg report CONFIG`."
        ) from None
    return Figure(figsize=(width_in, height_in), facecolor="none")


def colour_map(name: str, values: NDArray[Any]) -> NDArray[np.uint8]:
    """Values in [0, 1], (H, W), as (H, W, 3) colours of a matplotlib map. `ConfigError` as above."""
    new_figure(1, 1)
    from matplotlib import colormaps

    colours: NDArray[np.uint8] = (255 * colormaps[name](values)[..., :3]).astype(np.uint8)
    return colours


def subset_order(
    subsets: Sequence[tuple[str, ...]], main: Mapping[tuple[str, ...], float | None]
) -> list[tuple[str, ...]]:
    """Fewest modalities first; among equals the best of the main run first."""
    return sorted(subsets, key=lambda s: (len(s), -(main.get(s) or 0.0), s))


def subset_chart(
    modalities: Sequence[str], rows: Sequence[SubsetScores], chance: float | None
) -> str:
    """Bars of the main run, marks of the other rows, one line a subset, and the chance line.

    `rows[0]` is the main run; scores are fractions and drawn in per cent.
    """
    order = subset_order(list(rows[0].scores), rows[0].scores)
    dots_in, line_in = 0.3 * len(modalities) + 0.1, 0.235
    head_in = 0.35 + (0.055 * max(map(len, modalities)) if len(modalities) > 1 else 0.0)
    width, height = 9.2, head_in + line_in * len(order) + 0.55
    figure = new_figure(width, height)
    bottom, tall = 0.55 / height, line_in * len(order) / height
    left = figure.add_axes((0.1 / width, bottom, dots_in / width, tall))
    right = figure.add_axes(
        ((dots_in + 0.2) / width, bottom, 1 - (dots_in + 0.75) / width, tall), sharey=left
    )
    left.set_ylim(len(order) - 0.5, -0.5)
    _membership_dots(left, modalities, order)
    _score_bars(right, order, rows, chance)
    return _as_page_svg(figure, "subsets", _describe(order, rows, chance))


def curve_chart(metric: str, title: str, curves: Sequence[Curve], *, smooth: bool = True) -> str:
    """One metric of each run: moving means over the main run's 10th to 90th percentile band.

    `smooth=False` draws the values themselves (for a schedule, which has no noise).
    """
    figure = new_figure(3.7, 2.2)
    axes = figure.add_axes((0.135, 0.15, 0.84, 0.71))
    _plain_axes(axes)
    axes.grid(True, axis="y", color=GRID, linewidth=0.6)
    bands = [moving_band(curve.steps, curve.values, smooth) for curve in curves]
    for curve, (steps, mean, low, high) in reversed(list(zip(curves, bands, strict=True))):
        colour = _stand_in(curve.index)
        if curve.index == 0:
            axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(
            steps,
            mean,
            color=colour,
            linewidth=1.7 if curve.index == 0 else 1.2,
            marker="o" if len(steps) == 1 else "",
            linestyle="-" if curve.index == 0 else (0, (4, 1.6)),
        )
    axes.yaxis.set_major_formatter("{x:.4g}")
    axes.locator_params(axis="x", integer=True)
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    ends = [f"{c.row} ends at {band[1][-1]:.3g}" for c, band in zip(curves, bands, strict=True)]
    return _as_page_svg(figure, metric, f"{title} over training steps: {', '.join(ends)}.")


def moving_band(
    steps: NDArray[np.float64], values: NDArray[np.float64], smooth: bool = True
) -> tuple[NDArray[np.float64], ...]:
    """(steps, mean, 10th, 90th percentile) over the last 4 % of the run (at least 5 steps).

    Values that are not finite are dropped; at most `_POINTS` points are returned.
    """
    keep = np.isfinite(values)
    steps, values = steps[keep], values[keep]
    window = max(5, len(values) // 25) if smooth else 1
    ends = np.unique(np.linspace(0, len(values) - 1, min(_POINTS, len(values))).astype(int))
    spans = [values[max(0, end - window + 1) : end + 1] for end in ends]
    low, high = np.array([np.percentile(span, (10, 90)) for span in spans]).T
    return steps[ends], np.array([span.mean() for span in spans]), low, high


def _membership_dots(
    axes: Axes, modalities: Sequence[str], order: Sequence[tuple[str, ...]]
) -> None:
    """One column a modality: a full dot where the subset has it, joined by a line."""
    for line, subset in enumerate(order):
        inside = [x for x, name in enumerate(modalities) if name in subset]
        outside = [x for x, name in enumerate(modalities) if name not in subset]
        axes.plot(inside, [line] * len(inside), color=INK, linewidth=1.4, marker="o", markersize=5)
        axes.plot(outside, [line] * len(outside), color=GRID, linewidth=0, marker="o", markersize=5)
    axes.set_xlim(-0.5, len(modalities) - 0.5)
    axes.xaxis.tick_top()
    slanted = len(modalities) > 1
    axes.set_xticks(
        range(len(modalities)),
        modalities,
        rotation=55 if slanted else 0,
        ha="left" if slanted else "center",
        rotation_mode="anchor",
    )
    _bare(axes)
    axes.tick_params(axis="x", labelsize=9, labelcolor=INK, length=0, pad=3)
    axes.tick_params(axis="y", left=False, labelleft=False)


def _score_bars(
    axes: Axes,
    order: Sequence[tuple[str, ...]],
    rows: Sequence[SubsetScores],
    chance: float | None,
) -> None:
    """The bars, the marks of the other rows, the chance line and the numbers at the right edge."""
    _plain_axes(axes)
    axes.spines["left"].set_visible(False)
    axes.grid(True, axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    lines = np.arange(len(order))
    main = _percents(rows[0], order)
    axes.barh(lines, np.nan_to_num(main), height=0.62, color=_stand_in(0))
    for index, row in enumerate(rows[1:], start=1):
        marker = _MARKERS[(index - 1) % len(_MARKERS)]
        axes.plot(
            _percents(row, order),
            lines,
            linewidth=0,
            marker=marker,
            markersize=6,
            color=_stand_in(index),
            markeredgecolor=PAPER,
            markeredgewidth=0.9,
        )
    tops = [np.nan_to_num(_percents(row, order)).max() for row in rows]
    limit = max([*tops, 100 * (chance or 0.0), 1.0]) * 1.04
    axes.set_xlim(0, limit)
    _line_numbers(axes, main)
    if chance is not None:
        _chance_line(axes, 100 * chance)
    for line in lines[1:]:
        if len(order[line]) != len(order[line - 1]):
            axes.axhline(line - 0.5, color=MUTED, linewidth=0.6)
    axes.set_xlabel("mIoU, per cent", fontsize=9, color=MUTED)
    axes.tick_params(axis="y", left=False, labelleft=False)


def _line_numbers(axes: Axes, percents: NDArray[np.float64]) -> None:
    """The main run's score of each line, right of the bars."""
    for line, value in enumerate(percents):
        axes.annotate(
            "-" if np.isnan(value) else f"{value:.1f}",
            (1.0, line),
            xycoords=("axes fraction", "data"),
            xytext=(32, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=9,
            color=INK,
        )


def _chance_line(axes: Axes, percent: float) -> None:
    axes.axvline(percent, color=INK, linewidth=1.1, linestyle=(0, (3, 2)))
    axes.annotate(
        f"chance {percent:.1f}",
        (percent, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(-2, 3),
        textcoords="offset points",
        fontsize=8,
        color=INK,
    )


def _percents(row: SubsetScores, order: Sequence[tuple[str, ...]]) -> NDArray[np.float64]:
    scores = [row.scores.get(subset) for subset in order]
    return np.array([np.nan if score is None else 100 * score for score in scores])


def _describe(
    order: Sequence[tuple[str, ...]], rows: Sequence[SubsetScores], chance: float | None
) -> str:
    """The chart as text, for screen readers."""
    scores = dict(zip(order, _percents(rows[0], order), strict=True))
    text = "; ".join(f"{' + '.join(subset)} {score:.1f}" for subset, score in scores.items())
    others = f" Other rows: {', '.join(row.row for row in rows[1:])}." if rows[1:] else ""
    floor = "" if chance is None else f" Chance {100 * chance:.1f}."
    return f"mIoU in per cent of every subset of the modalities, main run: {text}.{floor}{others}"


def _stand_in(index: int) -> str:
    return f"#0000a{row_colour(index)[-1]}"


def _bare(axes: Axes) -> None:
    axes.set_facecolor("none")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _plain_axes(axes: Axes) -> None:
    """No box, a thin base line, small muted tick labels."""
    _bare(axes)
    axes.spines["bottom"].set_visible(True)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(labelsize=8.5, labelcolor=MUTED, color=MUTED, length=2.5)
    axes.margins(x=0.01)


def _as_page_svg(figure: Figure, name: str, words: str) -> str:
    """The figure as an `<svg>` element that uses the page's colours and font."""
    from html import escape

    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    # These ids repeat in every chart of the page, and nothing refers to them.
    text = re.sub(r' id="[\w.]+_\d+"', "", text)
    text = re.sub(r"font(-family)?: ?([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font\1: \2inherit", text)
    text = re.sub(r"#0000a(\d)", r"var(--row-\1)", text)
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(words)}" ', 1)
