"""The report's pictures: nothing is cut off, and none fails on data of one kind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

plt = pytest.importorskip("matplotlib.pyplot")

from training import plots  # noqa: E402

LONG = "efficientnet_lite0_masked int8, grouped, 1165 test images with a class"
CLASSES = ("glioma", "meningioma", "notumor", "pituitary")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Those that were drawn, instead of their files."""
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "_save", lambda figure, _: drawn.append(figure))
    yield drawn
    for figure in drawn:
        plt.close(figure)


def _inside(figure: Any) -> bool:
    figure.canvas.draw()
    texts = [axes.title for axes in figure.axes] + [axes.xaxis.label for axes in figure.axes]
    boxes = [text.get_window_extent() for text in texts]
    return all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)


def test_long_titles_are_not_cut_off(figures: list[Any]) -> None:
    plots.confusion(Path("a.png"), np.eye(4, dtype=int).tolist(), CLASSES, LONG)
    truth = np.arange(8) % 4
    plots.roc(Path("a.png"), np.eye(4)[truth], truth, CLASSES, dict.fromkeys(CLASSES, 1.0), LONG)
    plots.risk_coverage(Path("a.png"), np.linspace(0, 1, 9), np.ones(9, np.bool_))
    strays = plots.Bar("efficientnetb4_scratch", "clean", "nickparvar", 0.44, (0.4, 0.5), 0.7)
    named = "navoneel + nickparvar (precision mixed_bfloat16)"
    plots.accuracies(Path("a.png"), [strays, plots.Bar("other", "cross-validated", named, 0.9)])
    assert all(map(_inside, figures))


def test_long_names_of_classes_do_not_run_into_each_other(figures: list[Any]) -> None:
    names = ("pituitary adenoma", "glioblastoma multiforme", "meningioma atypical", "no tumour")
    plots.confusion(Path("a.png"), np.eye(4, dtype=int).tolist(), names, LONG)
    figures[0].canvas.draw()
    axes = figures[0].axes[0]
    columns = axes.transData.transform([(place, 0) for place in range(4)])[:, 0]
    labels = axes.get_xticklabels()
    assert [label.get_text() for label in labels] == [*names]
    # Slanted lines that end at their columns are as far apart as these, seen from the side.
    apart = np.diff(columns).min() * np.sin(np.radians(labels[0].get_rotation()))
    assert apart > labels[0].get_fontsize() * figures[0].dpi / 72
    for label, column in zip(labels, columns, strict=True):
        assert label.get_window_extent().x1 == pytest.approx(column, abs=10)


def test_an_int8_file_that_strays_is_drawn_as_such(figures: list[Any]) -> None:
    plots.accuracies(Path("a.png"), [plots.Bar("a", "clean", "b", 0.44, (0.4, 0.5), 0.7)])
    plots.accuracies(Path("a.png"), [plots.Bar("a", "clean", "b", 0.44, (0.4, 0.5))])
    (strays,), (plain,) = (figure.axes for figure in figures)
    assert {line.get_marker() for line in strays.lines} == {"None", "x", "o"}
    assert "would not be exported" in strays.get_xlabel()
    assert {line.get_marker() for line in plain.lines} == {"None", "o"}
    assert "exported" not in plain.get_xlabel()


def test_runs_of_one_protocol_have_one_colour_and_a_legend_says_which(figures: list[Any]) -> None:
    """More data sets than matplotlib has colours for."""
    names = ["published", *plots.PROTOCOLS, *["clean"] * 11]
    bars = [plots.Bar("a", name, f"data {row}", 0.9) for row, name in enumerate(names)]
    plots.accuracies(Path("a.png"), bars)
    plots.accuracies(Path("a.png"), bars[:2])
    shown = [line.get_color() for line in figures[0].axes[0].lines]
    assert len(set(zip(names, shown, strict=True))) == len(set(shown)) == len(plots.PROTOCOLS)
    for figure, expected in zip(figures, (plots.PROTOCOLS, ("clean", "published")), strict=True):
        (legend,) = figure.legends
        texts = [text.get_text() for text in legend.get_texts()]
        colours = {handle.get_color() for handle in legend.legend_handles}
        assert (texts, len(colours)) == ([*expected], len(expected))


def test_data_of_one_kind_have_curves_of_what_they_can_show(figures: list[Any]) -> None:
    plots.roc(Path("a.png"), np.eye(4)[[2, 2]], np.array([2, 2]), CLASSES, {}, "none")
    plots.robustness(Path("a.png"), {"none": {"in_distribution": 0.9}})
    assert [len(figure.axes) for figure in figures] == [1, 1]


def test_names_are_not_typeset_as_formulas(figures: list[Any]) -> None:
    names = ("a$b$c_{", "pi$tu$itary_{", "$", r"\$x$")
    plots.confusion(Path("a.png"), np.eye(4, dtype=int).tolist(), names, names[0])
    truth = np.arange(8) % 4
    plots.roc(Path("a.png"), np.eye(4)[truth], truth, names, dict.fromkeys(names, 1.0), names[0])
    plots.accuracies(Path("a.png"), [plots.Bar("ours", "clean", names[1], 0.9)])
    row = dict.fromkeys(("loss", "val_loss", "accuracy", "val_accuracy"), 0.5)
    plots.training_curves(Path("a.png"), [{"epoch": 1, "phase": names[1], **row}], 1)
    for figure, shown in zip(figures, (names, names, names[1:2], names[1:2]), strict=True):
        # A formula that is none fails to be drawn.
        figure.canvas.draw()
        texts = [text.get_text() for text in figure.findobj(plt.Text)]
        assert not [text for text in texts if "$" in text.replace(r"\$", "") and "math" not in text]
        assert all(any(name.replace("$", r"\$") in text for text in texts) for name in shown)


def test_names_that_begin_with_a_line_are_in_the_legend(figures: list[Any]) -> None:
    """matplotlib takes a label that begins so for one that is not to be shown."""
    truth = np.arange(8) % 4
    names = ("_private", "__", "b", "c")
    plots.roc(Path("a.png"), np.eye(4)[truth], truth, names, dict.fromkeys(names, 1.0), "t")
    legend = figures[0].axes[0].get_legend()
    shown = [text.get_text().partition(",")[0] for text in legend.get_texts()]
    assert shown == [*names]


def test_a_title_is_as_wide_as_it_is_drawn(figures: list[Any]) -> None:
    title = "x" * (plots.TITLE_WIDTH - 4) + "$ab$"
    plots.confusion(Path("a.png"), np.eye(4, dtype=int).tolist(), CLASSES, title)
    assert figures[0].axes[0].get_title() == title.replace("$", r"\$")
