"""Pictures: grids of images and histograms, drawn without a display and without global state.

Colours are those of Okabe and Ito, told apart by readers with any colour vision; right and
wrong are also marked by a sign, and groups of a histogram by their line style. The same input
gives the same file: nothing depends on the time of drawing.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from advpure.base.errors import BadInput
from advpure.base.storage import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

_BLUE, _ORANGE, _GREEN, _RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
_PURPLE, _SKY, _BLACK = "#CC79A7", "#56B4E9", "#000000"
PALETTE = (_BLUE, _RED, _GREEN, _PURPLE, _ORANGE, _SKY, _BLACK)
_STYLES = ("-", "--", "-.", ":")
_NO_DATE: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}
_MOST_COLUMNS = 32
_CAPTION = 84  # characters of a line of the caption
_FEWEST_BINS, _MOST_BINS = 8, 60
_FEWEST_VALUES = 12  # of the largest group, for heights that say more than the values
_INCHES = 0.95  # a column's width
_GAP = 0.12  # the space between images, as a share of an image


class Caption(NamedTuple):
    """A title over a column such as "7 -> 3"; `correct` colours and marks it, None does not."""

    text: str
    correct: bool | None = None


def image_grid(
    rows: Mapping[str, "Tensor"],
    path: str | Path,
    captions: Sequence[Caption | str] | None = None,
    borders: Mapping[str, Sequence[bool | None]] | None = None,
) -> Path:
    """Draw rows of images, such as clean, adversarial and purified, one column per sample.

    Pixels are enlarged as squares (nearest neighbour), so an 8x8 digit stays legible.

    Args:
        rows: Label of each row, top to bottom, to its images [n, C, H, W] in [0, 1], C 1 or 3;
            the same shape in every row. Values outside [0, 1] are drawn clipped.
        path: The file; .png, .svg or .pdf.
        captions: One per column.
        borders: Label of a row to whether each of its images is right: a solid green border for
            True, a dashed red one for False, none for None.

    Returns:
        The path written.

    Raises:
        BadInput: for unlike shapes, nothing to draw, more than 32 columns, borders that do not fit
            the rows, or another ending.
        StorageFull: when there is no room.
    """
    check_ending(path)
    pixels = {label: _pixels(images, label) for label, images in rows.items()}
    shapes = {images.shape for images in pixels.values()}
    if len(shapes) != 1:
        listed = ", ".join(f"{label} {list(images.shape)}" for label, images in rows.items())
        raise BadInput(f"rows ({listed or 'none'})", "have no common shape", "draw the same images")
    ((count, height, width, _),) = shapes
    if not 1 <= count <= _MOST_COLUMNS:
        rule = f"are not 1 to {_MOST_COLUMNS}"
        raise BadInput(f"{count} columns", rule, "choose some of the images")
    titles = [Caption(each) if isinstance(each, str) else each for each in captions or ()]
    if captions is not None and len(titles) != count:
        raise BadInput(f"{len(titles)} captions", f"do not match {count} columns", "give one each")
    for label, marks in (borders or {}).items():
        if label not in pixels or len(marks) != count:
            rule = f"do not fit rows ({', '.join(pixels)}) of {count} images"
            raise BadInput(f"{len(marks)} borders of row {label!r}", rule, "give one each")

    gap = _GAP * width
    step_x, step_y = width + gap, height + gap
    figure = new_figure(_INCHES * count * (1 + _GAP), _INCHES * height / width * len(rows) * 1.12)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    for line, (label, images) in enumerate(pixels.items()):
        bottom = (len(pixels) - 1 - line) * step_y
        for column, image in enumerate(images):
            left = column * step_x
            extent = (left, left + width, bottom, bottom + height)
            axes.imshow(image, extent=extent, interpolation="nearest", vmin=0.0, vmax=1.0)
            right = None if borders is None or label not in borders else borders[label][column]
            if right is not None:
                _frame(axes, left, bottom, width, height, right)
        axes.text(-gap, bottom + height / 2, label, ha="right", va="center", fontsize=9)
    top = len(pixels) * step_y - gap / 2
    for column, title in enumerate(titles):
        text, color = _marked(title)
        middle = column * step_x + width / 2
        axes.text(middle, top, text, ha="center", va="bottom", fontsize=8, color=color)
    axes.set_xlim(0.0, count * step_x - gap)
    axes.set_ylim(0.0, len(pixels) * step_y - gap)
    axes.set_axis_off()
    return save_figure(figure, path)


def histogram(
    groups: Mapping[str, Sequence[float] | npt.ArrayLike],
    path: str | Path,
    *,
    xlabel: str,
    title: str = "",
    caption: str = "",
) -> Path:
    """Draw the distribution of one or several groups of numbers over common bins.

    Heights are shares of each group, so that groups of unlike size compare; the legend gives
    each group's n and mean, and a vertical line marks the mean. Of fewer than 12 values each is
    drawn as a mark.

    Args:
        groups: Name of each group to its finite values, at least one; at most 7 groups.
        path: The file; .png, .svg or .pdf.
        xlabel: What the values are, with their unit.
        title: A line above.
        caption: A line below, such as the settings.

    Returns:
        The path written.

    Raises:
        BadInput: for no groups or too many, empty or non-finite values, or another ending.
        StorageFull: when there is no room.
    """
    check_ending(path)
    figure = new_figure(5.6, 3.6)
    axes = figure.add_subplot()
    draw_histogram(axes, groups, xlabel)
    if title:
        axes.set_title(title, fontsize=10)
    if caption:
        axes.annotate(
            textwrap.fill(caption, _CAPTION),
            xy=(0.5, 0.0),
            xycoords="axes fraction",
            xytext=(0, -50 - 12 * len(groups)),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=7,
            color="#444444",
        )
    return save_figure(figure, path)


def draw_histogram(
    axes: "Axes", groups: Mapping[str, Sequence[float] | npt.ArrayLike], xlabel: str
) -> None:
    """Draw the distributions of `histogram` into axes of a figure, with a legend below them.

    Raises:
        BadInput: for no groups or too many, or empty or non-finite values.
    """
    if not 1 <= len(groups) <= len(PALETTE):
        raise BadInput(f"{len(groups)} groups", f"are not 1 to {len(PALETTE)}", "draw fewer")
    data = {name: _finite(values, name) for name, values in groups.items()}
    if max(map(len, data.values())) < _FEWEST_VALUES:
        _draw_values(axes, data, xlabel)
        return
    edges = _edges(list(data.values()))
    for index, (name, values) in enumerate(data.items()):
        color, style = PALETTE[index], _STYLES[index % len(_STYLES)]
        shares = np.histogram(values, edges)[0] / len(values)
        label = f"{name} (n = {len(values)}, mean {values.mean():.4g})"
        axes.stairs(shares, edges, fill=True, color=color, alpha=0.2)
        axes.stairs(shares, edges, color=color, linestyle=style, linewidth=1.5, label=label)
        axes.axvline(float(values.mean()), color=color, linestyle=style, linewidth=0.9)
    axes.set_xlabel(xlabel)
    axes.set_ylabel("share of the group")
    axes.set_ylim(bottom=0.0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14))


def _draw_values(axes: "Axes", data: Mapping[str, npt.NDArray[np.float64]], xlabel: str) -> None:
    """Draw each of a few values as a mark, a row a group: they have no distribution to show."""
    for index, (name, values) in enumerate(data.items()):
        color, mean = PALETTE[index], float(values.mean())
        label = f"{name} (n = {len(values)}, mean {mean:.4g})"
        row = np.full(len(values), float(index))
        style: dict[str, Any] = {"color": color, "markerfacecolor": "none", "markersize": 7}
        axes.plot(values, row, "o", label=label, **style)
        axes.plot([mean, mean], [index - 0.3, index + 0.3], color=color, linewidth=1.5)
    axes.set_xlabel(xlabel)
    axes.set_ylabel("each value; bar: mean")
    axes.set_yticks([])
    axes.set_ylim(len(data) - 0.4, -0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14))


def new_figure(width: float, height: float) -> "Figure":
    """Make an empty figure, its sides in inches."""
    # Figure alone, without pyplot: no display, no list of open figures, safe in threads.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=200)


def save_figure(figure: "Figure", path: str | Path) -> Path:
    """Write a figure whole or not at all; the same figure gives the same file."""
    from matplotlib import rc_context

    target = Path(path)
    ending = target.suffix.lower()
    with rc_context({"svg.hashsalt": "advpure"}), atomic_path(target) as scratch:
        figure.savefig(scratch, bbox_inches="tight", pad_inches=0.08, metadata=_NO_DATE[ending])
    return target


def check_ending(path: str | Path) -> None:
    """Refuse a file that is no picture, before anything is computed for it.

    Raises:
        BadInput: naming the endings.
    """
    if Path(path).suffix.lower() not in _NO_DATE:
        known = ", ".join(_NO_DATE)
        raise BadInput(f"file {path}", "is no picture", f"end it in one of {known}")


def _pixels(images: "Tensor", label: str) -> npt.NDArray[np.float32]:
    """Turn [n, C, H, W] into [n, H, W, 3] in [0, 1]."""
    array = np.asarray(images.detach().cpu().float(), dtype=np.float32)
    if array.ndim != 4 or array.shape[1] not in (1, 3):
        subject = f"row {label!r} of shape {list(array.shape)}"
        raise BadInput(subject, "is not [n, 1 or 3, H, W]", "give a batch of images")
    if not np.isfinite(array).all():
        raise BadInput(f"row {label!r}", "has values that are not finite", "check the images")
    last = np.moveaxis(np.clip(array, 0.0, 1.0), 1, 3)
    return np.ascontiguousarray(np.broadcast_to(last, (*last.shape[:3], 3)))


def _frame(
    axes: "Axes", left: float, bottom: float, width: float, height: float, right: bool
) -> None:
    """Draw a border around an image, in the space between images."""
    from matplotlib.patches import Rectangle

    edge = _GAP * width / 4
    axes.add_patch(
        Rectangle(
            (left - edge, bottom - edge),
            width + 2 * edge,
            height + 2 * edge,
            fill=False,
            edgecolor=_GREEN if right else _RED,
            linewidth=2.2,
            linestyle="solid" if right else (0, (2.2, 1.1)),
            clip_on=False,
        )
    )


def _marked(title: Caption) -> tuple[str, str]:
    if title.correct is None:
        return title.text, _BLACK
    return (f"{title.text} ✓", _BLUE) if title.correct else (f"{title.text} ✗", _RED)


def _finite(values: Sequence[float] | npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        rule = "is no list of finite numbers"
        raise BadInput(f"group {name!r}", rule, "leave out what is absent")
    return array


def _edges(groups: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Return common bin edges, 8 to 60 bins: those of the group that asks for the narrowest.

    Freedman and Diaconis: 2 IQR / n^(1/3) wide. Of all values together it would be as wide as
    groups are apart.
    """
    values = np.concatenate(groups)
    widths = [
        2.0 * float(np.ptp(np.percentile(each, [25, 75]))) / len(each) ** (1 / 3) for each in groups
    ]
    width = min((width for width in widths if width > 0.0), default=0.0)
    wanted = float(np.ptp(values)) / width if width > 0.0 else 0.0
    bins = int(np.clip(np.ceil(wanted), _FEWEST_BINS, _MOST_BINS))
    return np.histogram_bin_edges(values, bins if np.ptp(values) > 0.0 else 1)
