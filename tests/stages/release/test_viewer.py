"""The page of a release: what it shows is what the tars hold, and it needs nothing from outside."""

import dataclasses
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser
from pycocotools import mask as coco_mask

from stages.release import profiles
from stages.release.choose import choose
from stages.release.lists import image_rows
from stages.release.release import write_release
from stages.release.verification.verify import verify_release
from stages.release.viewer import viewer
from stages.release.viewer.viewer import VIEWER, make_viewer
from tests.stages.release.conftest import CONFIG, Released
from tests.stages.release.photos import HEIGHT, SECRET, WIDTH
from tests.stages.release.test_profiles import FOUND


def data_of(page: str) -> list[dict[str, Any]]:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def documents_of(out: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in out.glob("*.tar"):
        with tarfile.open(path) as tar:
            for name in tar.getnames():
                if name.endswith(".json"):
                    found[name.replace(".json", ".jpg")] = json.load(tar.extractfile(name))
    return found


def topmost(document: dict[str, Any]) -> np.ndarray:
    """Number each pixel by the smallest mask that covers it, from 1, as the page does."""
    labels_HW = np.zeros((HEIGHT, WIDTH), np.int64)
    annotations = document["annotations"]
    for place in sorted(range(len(annotations)), key=lambda place: -annotations[place]["area"]):
        labels_HW[coco_mask.decode(annotations[place]["segmentation"]).astype(bool)] = place + 1
    return labels_HW


def test_the_page_draws_the_masks_of_the_tars_and_loads_nothing(released: Released, browser: Browser) -> None:
    documents, faults, asked = documents_of(released.out), list[str](), list[str]()
    page = browser.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: asked.append(request.url.partition(":")[0]))
    page.goto((released.out / VIEWER).as_uri())
    drawn = page.evaluate("() => JSON.parse(document.getElementById('data').textContent).map((e) => [...labelsOf(e)])")
    names = page.locator("figcaption b").all_inner_texts()
    page.locator("button").first.click()
    assert page.locator("figure.large").count() == 1
    page.close()
    assert names == [f"sa_{number}.jpg" for number in range(1, 7)]
    for name, labels in zip(names, drawn, strict=True):
        np.testing.assert_array_equal(np.array(labels).reshape(HEIGHT, WIDTH), topmost(documents[name]))
    assert faults == []
    assert set(asked) <= {"file", "data"}


def test_images_are_spread_evenly_and_carry_their_licence_but_no_metadata(
    released: Released, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer, "NUM_IMAGES", 3)
    manifest = json.loads((released.out / "release.json").read_bytes())
    page = make_viewer(released.out, manifest)
    shown = data_of(page)
    assert [each["name"] for each in shown] == ["sa_1.jpg", "sa_3.jpg", "sa_6.jpg"]
    license_of = {row["file_name"]: row["license"] for row in image_rows(released.out)}
    assert [each["license"] for each in shown] == [license_of[each["name"]] for each in shown]
    assert "3 of 6 images" in page
    assert SECRET.decode() not in page


def test_a_grey_image_stays_grey_with_its_profile() -> None:
    buffer = io.BytesIO()
    profile = profiles.rebuild(FOUND["grey"])
    Image.new("L", (40, 30), 90).save(buffer, "JPEG", icc_profile=profile)
    data, size = viewer._display_copy(buffer.getvalue())
    shown = Image.open(io.BytesIO(data))
    assert (shown.mode, shown.info["icc_profile"], size) == ("L", profile, (40, 30))
    buffer = io.BytesIO()
    Image.new("CMYK", (40, 30)).save(buffer, "JPEG", icc_profile=b"a profile of four inks")
    shown = Image.open(io.BytesIO(viewer._display_copy(buffer.getvalue())[0]))
    assert (shown.mode, shown.info.get("icc_profile")) == ("RGB", None)


def test_a_title_cannot_leave_its_place_and_the_release_holds_the_page(released: Released, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, title="</script><b>Ada's</b>")
    write_release(released.dataset, choose(released.dataset, released.snapshot, config), tmp_path / "out", config)
    page = (tmp_path / "out" / VIEWER).read_text()
    assert "</script><b>" not in page
    assert "&lt;/script&gt;&lt;b&gt;" in page
    with (tmp_path / "out" / VIEWER).open("a") as file:
        file.write(" ")
    assert [fault.kind for fault in verify_release(tmp_path / "out").faults] == ["wrong size"]
