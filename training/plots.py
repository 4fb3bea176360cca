"""The report's figures, as PNG."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from training.calibrate import risk_coverage as risk_coverage_curve

DPI: Final = 110
TITLE_WIDTH: Final = 48
"""Characters of a title's line: what is longer would be cut off at the picture's edge."""


def _plain(name: str) -> str:
    """A name that is drawn as it is spelt: matplotlib typesets what lies between two dollars."""
    return name.replace("$", r"\$")


def _title(text: str) -> str:
    return _plain(textwrap.fill(text, TITLE_WIDTH))


def confusion(
    path: Path, matrix: Sequence[Sequence[int]], classes: Sequence[str], title: str
) -> None:
    """Counts, truth down, prediction across; the shade is the share of the row."""
    counts = np.asarray(matrix)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    figure, axes = plt.subplots(figsize=(5.2, 4.6), layout="constrained")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{count}", ha="center", va="center", color=colour)
    names = [_plain(name) for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="truth", title=_title(title))
    _save(figure, path)


def roc(
    path: Path,
    probabilities: NDArray[Any],
    truth: NDArray[np.intp],
    classes: Sequence[str],
    aucs: dict[str, float],
    title: str,
) -> None:
    """One curve for each class with an AUC against the rest, on a scale that shows the corner."""
    figure, axes = plt.subplots(figsize=(5.6, 4.8), layout="constrained")
    for index, name in enumerate(classes):
        if name not in aucs:
            continue
        false, true, _ = roc_curve(truth == index, probabilities[:, index])
        axes.plot(false, true, label=f"{_plain(name)}, AUC {aucs[name]:.4f}")
    axes.set_xscale("symlog", linthresh=0.01)
    axes.set(
        xlabel="false positive rate (linear to 0.01, then logarithmic)",
        ylabel="true positive rate",
        title=_title(title),
        xlim=(0, 1),
        ylim=(0, 1.02),
    )
    axes.grid(alpha=0.3)
    if axes.lines:
        # Named one by one: of those that it finds itself, it leaves out what begins with "_".
        names = [str(line.get_label()) for line in axes.lines]
        axes.legend(axes.lines, names, loc="lower right")
    _save(figure, path)


def reliability(
    path: Path, curves: Mapping[str, tuple[NDArray[Any], NDArray[np.bool_]]], bins: int = 15
) -> None:
    """Accuracy against confidence, in bins of equal width; and how many slices each bin holds.

    Args:
        path: the file to write.
        curves: name to confidences (N,) and whether the label was right (N,).
        bins: of confidence.
    """
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(5.2, 6), layout="constrained", height_ratios=(3, 1), sharex=True
    )
    edges = np.linspace(0, 1, bins + 1)
    above.plot([0, 1], [0, 1], color="grey", ls=":", label="as sure as right")
    for name, (confidence, correct) in curves.items():
        place = np.clip(np.digitize(confidence, edges) - 1, 0, bins - 1)
        filled = np.unique(place)
        sure = [confidence[place == b].mean() for b in filled]
        right = [correct[place == b].mean() for b in filled]
        above.plot(sure, right, "o-", ms=4, label=name)
        below.hist(confidence, edges, histtype="step", label=name)
    above.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
    below.set(xlabel="probability of the label", ylabel="slices", yscale="log")
    above.grid(alpha=0.3)
    above.legend(loc="upper left")
    _save(figure, path)


def risk_coverage(path: Path, confidence: NDArray[Any], correct: NDArray[np.bool_]) -> None:
    """Error rate among the slices that are answered, as the least sure are left to a person.

    By the probability of the label: the service refers by a band and by distance.
    """
    figure, axes = plt.subplots(figsize=(5.2, 3.8), layout="constrained")
    answered, risk = risk_coverage_curve(confidence, correct)
    axes.plot(answered, risk)
    axes.set(
        xlabel="share of the slices answered",
        ylabel="share of those that is wrong",
        title="The least probable classes left out first;\nthe service refers by band and distance",
    )
    axes.title.set_fontsize(9)
    axes.set(xlim=(0, 1), ylim=(0, None))
    axes.grid(alpha=0.3)
    _save(figure, path)


def robustness(path: Path, table: Mapping[str, Mapping[str, float]]) -> None:
    """What each change of the test slices does to accuracy, Dice, calibration and acceptance.

    Args:
        path: the file to write.
        table: change to its figures, ``in_distribution`` and perhaps ``accuracy``, ``dice`` and
            ``ece``; first of all the slices as they are, which a line shows.
    """
    panels = {
        "accuracy": "accuracy",
        "dice": "mean Dice",
        "ece": "calibration error",
        "in_distribution": "in distribution",
    }
    shown = {key: name for key, name in panels.items() if all(key in row for row in table.values())}
    figure, axes = plt.subplots(
        1, len(shown), figsize=(3.2 * len(shown) + 1.6, 4.2), layout="constrained", sharey=True
    )
    for panel, (key, name) in zip(np.atleast_1d(axes), shown.items(), strict=True):
        values = [row[key] for row in table.values()]
        panel.axvline(values[0], color="grey", ls=":")
        panel.plot(values, range(len(values)), "o")
        panel.set(xlabel=name)
        panel.grid(axis="x", alpha=0.3)
    first = np.atleast_1d(axes)[0]
    first.set_yticks(range(len(table)), list(table), fontsize=8)
    first.invert_yaxis()
    _save(figure, path)


def training_curves(path: Path, history: Sequence[dict[str, Any]], best_epoch: int) -> None:
    """Loss and accuracy by epoch; phases are shaded in turn, the best epoch is marked."""
    epochs = [row["epoch"] for row in history]
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    # Of a slice whose kind of tumour is not stated, every tumour class is right.
    names_of = {"loss": "loss", "accuracy": "accuracy (a class that may be right)"}
    for axes, name in zip(panels, names_of, strict=True):
        axes.plot(epochs, [row[name] for row in history], "o-", ms=3, label="training (augmented)")
        axes.plot(epochs, [row[f"val_{name}"] for row in history], "o-", ms=3, label="validation")
        axes.axvline(best_epoch, color="grey", ls=":", label=f"best epoch, {best_epoch}")
        names = list(dict.fromkeys(row["phase"] for row in history))
        for number, phase in enumerate(names):
            inside = [row["epoch"] for row in history if row["phase"] == phase]
            low, high = inside[0] - 0.5, inside[-1] + 0.5
            axes.axvspan(low, high, color="grey", alpha=0.12 if number % 2 else 0.03)
            above = axes.get_xaxis_transform()
            axes.text((low + high) / 2, 1.01, _plain(phase), ha="center", transform=above)
        axes.set(xlabel="epoch", ylabel=names_of[name])
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, path)


PROTOCOLS: Final = ("clean", "published", "grouped", "left out", "cross-validated")
"""How runs in :func:`accuracies` were tested; each has a colour."""


class Bar(NamedTuple):
    """One run in :func:`accuracies`.

    Attributes:
        recipe: its name.
        protocol: one of :data:`PROTOCOLS`.
        data: what it was trained and tested on.
        accuracy: of the int8 file, or of a cross-validation.
        limits: its 95 % interval, if it has one.
        strayed_from: accuracy of the float model, where the int8 file strays too far from it to be
            exported.
    """

    recipe: str
    protocol: str
    data: str
    accuracy: float
    limits: tuple[float, float] | None = None
    strayed_from: float | None = None


def accuracies(path: Path, bars: Sequence[Bar]) -> None:
    """A dot with its 95 % interval for each run; a ring is what an int8 file strayed from.

    Runs of one protocol have one colour, whatever data they are of.
    """
    figure, axes = plt.subplots(figsize=(7.6, 1.2 + 0.42 * len(bars)), layout="constrained")
    colours = {name: f"C{number}" for number, name in enumerate(PROTOCOLS)}
    for row, bar in enumerate(bars):
        colour = colours[bar.protocol]
        if bar.limits is not None:
            low, high = bar.limits
            axes.plot([100 * low, 100 * high], [row, row], color=colour, lw=2)
        strays = bar.strayed_from is not None
        axes.plot(100 * bar.accuracy, row, "x" if strays else "o", color=colour)
        if bar.strayed_from is not None:
            axes.plot(100 * bar.strayed_from, row, "o", color=colour, mfc="none")
    # In two lines, so that long names leave room for the dots.
    names = [_plain(f"{bar.recipe}\n{bar.protocol}, {bar.data}") for bar in bars]
    axes.set_yticks(range(len(bars)), names, fontsize=8)
    axes.invert_yaxis()
    note = (
        "\ncross: an int8 file that strays from its float model\n(the ring), and would not be exported"
        if any(bar.strayed_from is not None for bar in bars)
        else ""
    )
    axes.set_xlabel(f"accuracy in percent, with 95 % interval{note}", fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    shown = [name for name in PROTOCOLS if any(bar.protocol == name for bar in bars)]
    handles = [Line2D([], [], color=colours[name], marker="o", lw=2) for name in shown]
    figure.legend(handles, shown, loc="outside upper center", ncols=len(PROTOCOLS), fontsize=8)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
