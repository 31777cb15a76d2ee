"""The report's figures."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from flows.report.sections import beside_sa1b as plots


def bins(values: list[float], count: int) -> np.ndarray:
    return np.histogram(values, count, (0, 1))[0]


def centres() -> np.ndarray:
    density_HW = np.zeros((48, 48), np.int64)
    density_HW[10:20, 30:40] = 7
    return density_HW


FIGURES = {
    "size": lambda: plots.plot_relative_size(bins([0.05, 0.1, 0.4], 1000), 0.1),
    "count": lambda: plots.plot_masks_per_image({0: 2, 35: 5, 120: 1}),
    "centres": lambda: plots.plot_centres(centres()),
    "score": lambda: plots.plot_score(bins([0.9, 0.95], 100), name="stability", threshold=0.9, paper_threshold=0.95),
    "score by size": lambda: plots.plot_iou_by_size(0.9 * bins([0.01, 0.3], 1000), bins([0.01, 0.3], 1000)),
}


def words(svg: str) -> str:
    return " ".join(text.strip() for text in ElementTree.fromstring(svg).itertext() if text.strip())


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_bare_svg_in_the_colours_of_the_page(name: str) -> None:
    svg = FIGURES[name]()
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    assert root.get("aria-label")
    assert "width" not in root.attrib  # the page decides
    assert "var(--accent)" in svg
    assert not re.search(r"#0a0b0\d|font-family|<style|<metadata", svg)


def test_a_figure_drawn_twice_is_the_same() -> None:
    assert FIGURES["count"]() == FIGURES["count"]()


def test_no_two_figures_of_a_page_share_an_id() -> None:
    found = [set(re.findall(r'\bid="([^"]+)"', draw())) for draw in FIGURES.values()]  # type: ignore[no-untyped-call]
    assert len(set().union(*found)) == sum(len(ids) for ids in found)


def test_masks_per_image_states_this_mean_and_that_of_sa1b() -> None:
    text = words(plots.plot_masks_per_image({10: 1, 20: 1}))
    assert "mean 15.0" in text
    assert "SA-1B mean ≈ 100" in text
    assert "masks in an image" in text
    assert "images (%)" in text


def test_a_threshold_equal_to_the_papers_is_drawn_once() -> None:
    same = words(plots.plot_score(bins([0.97], 100), name="stability", threshold=0.95, paper_threshold=0.95))
    other = words(plots.plot_score(bins([0.97], 100), name="stability", threshold=0.90, paper_threshold=0.95))
    assert "threshold 0.95 (as SA-1B)" in same
    assert "SA-1B's threshold" not in same
    assert "threshold 0.90" in other
    assert "SA-1B's threshold 0.95" in other


def test_mean_score_by_size_is_stated_with_its_number_of_masks() -> None:
    scored_B = bins([0.01, 0.015, 0.3], 1000)
    iou_sum_B = np.where(np.arange(1000) < 20, 0.8, 0.6) * scored_B
    text = words(plots.plot_iou_by_size(iou_sum_B, scored_B))
    assert re.search(r"0\.80 2 none none none 0\.60 1 none", text)


def test_images_with_very_many_masks_leave_few_bars() -> None:
    svg = plots.plot_masks_per_image({3: 1, 20_000: 1})
    assert len(svg) < 60_000
