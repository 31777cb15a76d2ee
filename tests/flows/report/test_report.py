"""The report of a real dataset: what it says is what the dataset holds, and it stands alone."""

import hashlib
import json
import re
import shlex
import shutil
from collections import Counter
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser

from engine.automatic.config import PRESETS
from engine.automatic.diagnostics import Diagnostics
from engine.automatic.filters import Filter
from flows.report.contents import ReportContents
from flows.report.sections import rejects as rejects_section
from flows.report.sections.beside_sa1b import Histograms, read_histograms
from flows.report.sections.header import verdict
from flows.report.sections.images import NUM_IMAGES, _read, read_shown_images
from flows.report.sections.next_steps import EXAMPLES
from flows.report.write import write_report
from storage.dataset import Dataset
from storage.errors import Corrupt
from storage.formats.sa1b import parse_sa1b
from storage.protocol.inputs import ImageRange, ImageSet, MaskKey, ShardAddress
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, MaskRecord, Provenance, Reject, image_id_of, image_key, mask_id_of
from tests.paths import PHOTOS
from tests.small_dataset import small_dataset

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
HOSTILE = "/photos/<script>alert('1') & \"more\".jpg"
MODEL_ID = "seed-0123456789ab"
VOID = {"meta", "link", "img", "input", "br"}


def stored_photos() -> list[tuple[ImageRecord, bytes, list[MaskRecord]]]:
    """The tests' nine photographs with people's masks; the second one has a hostile name, the third lost its masks."""
    found: list[Any] = []
    for file in sorted(each for each in PHOTOS.rglob("*") if each.suffix in (".jpg", ".png")):
        image, masks = parse_sa1b(json.loads(file.with_suffix(".json").read_text()))
        data = file.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        facts = {
            "image_id": image_id_of(digest),
            "key": image_key(image_id_of(digest)),
            "format": file.suffix[1:],
            "nbytes": len(data),
            "source": HOSTILE if len(found) == 1 else f"/photos/{file.name}",
            "source_sha256": digest,
            "stored_sha256": digest,
        }
        found.append((replace(image, **facts), data, [] if len(found) == 2 else masks))
    return found


def rejects_of(number: int) -> list[Reject]:
    reasons = ["truncated", "not_an_image", "truncated"]
    return [
        Reject(
            source=f"/photos/bad <{i}>.jpg", source_sha256="", reason=reasons[i % 3], detail="cut <off>", stage="ingest"
        )
        for i in range(number)
    ]


def add_images(dataset: Dataset, photos: list[Any], rejects: list[Reject]) -> ShardAddress:
    """Commits one image shard; returns its address."""
    plan = dataset.new_plan("images", [PlannedShard(name="000000")], {"stage": "ingest", "photos": len(photos)})
    return dataset.write_images(plan, plan.shards[0], [(image, data) for image, data, _ in photos], rejects).address


def generator_settings(**changed: object) -> dict[str, object]:
    generate = asdict(PRESETS["grid"]) | {"predicted_iou_threshold": 0.7, "stability_threshold": 0.9} | changed
    return {"stage": "fully_automatic", "model_id": MODEL_ID, "generate": generate}


def machine_made(mask: MaskRecord, image: ImageRecord, plan: Plan, shard: str, ordinal: int) -> MaskRecord:
    return replace(
        mask,
        mask_id=mask_id_of(plan.plan_id, shard, 0, image.image_id, ordinal),
        image_id=image.image_id,
        predicted_iou=0.7 + 0.3 * (ordinal % 10) / 10,
        stability_score=0.9 + 0.1 * (ordinal % 7) / 7,
        provenance=Provenance(stage="fully_automatic", model_id=MODEL_ID, plan_id=plan.plan_id),
    )


def diagnostics_of(kept: int) -> Diagnostics:
    return Diagnostics(
        candidates=3072,
        taken={
            Filter.FAILED_PREDICTED_IOU: 3072 - 2 * kept - 3,
            Filter.FAILED_STABILITY: 3,
            Filter.DUPLICATE_IN_CROP: kept,
        },
        kept=kept,
    )


NONE_KEPT = Diagnostics(candidates=3072, taken={Filter.FAILED_PREDICTED_IOU: 3072}, best_predicted_iou=0.612)


def add_masks(dataset: Dataset, photos: list[Any], address: str, settings: dict[str, Any], *, shards: int = 2) -> Plan:
    """Commits the photographs' masks in several shards, with diagnostics as the fully automatic stage writes them."""
    bounds = [len(photos) * i // shards for i in range(shards + 1)]
    runs = [photos[start:stop] for start, stop in pairwise(bounds)]
    planned = [
        PlannedShard(name=f"{i:06d}", inputs=(ImageRange(shard=address, start=bounds[i], stop=bounds[i + 1]),))
        for i in range(shards)
    ]
    plan = dataset.new_plan("masks", planned, settings)
    for shard, run in zip(plan.shards, runs, strict=True):
        masked = [
            (image, [machine_made(mask, image, plan, shard.name, i) for i, mask in enumerate(masks)])
            for image, _, masks in run
        ]
        counts = {image.key: diagnostics_of(len(masks)) if masks else NONE_KEPT for image, masks in masked}
        stats = {
            "diagnostics": sum(counts.values(), Diagnostics()).to_json(),
            "without_masks": {key: count.to_json() for key, count in counts.items() if not count.kept},
        }
        dataset.write_masks(plan, shard, masked, (), stats, model_id=MODEL_ID, seconds=len(run) * 2.0)
    return plan


@pytest.fixture(scope="module")
def full_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Nine photographs, masks on eight of them, 50 rejects; the folder's name needs quoting."""
    dataset = Dataset.create(tmp_path_factory.mktemp("report") / "my photos")
    photos = stored_photos()
    add_masks(dataset, photos, add_images(dataset, photos, rejects_of(50)), generator_settings(points_per_side=24))
    dataset.fold()
    return dataset


@pytest.fixture(scope="module")
def full_report(full_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(full_dataset, tmp_path_factory.mktemp("page") / "deep" / "report.html", now=NOW)


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    text: str = ""


class Page(HTMLParser):
    """All elements of a page with the text directly and indirectly in them; an unbalanced tag is an error."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {[each.tag for each in self._open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(self.elements[-1])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, tag: str, kind: str = "") -> list[Element]:
        return [
            each
            for each in self.elements
            if each.tag == tag and (not kind or kind in (each.attributes.get("class") or "").split())
        ]

    def by_id(self, name: str) -> Element:
        (found,) = [each for each in self.elements if each.attributes.get("id") == name]
        return found

    @property
    def body(self) -> str:
        return self.all("main")[0].text


def newest_histograms(contents: ReportContents) -> Histograms:
    assert contents.newest is not None
    return read_histograms(contents, contents.newest)


def page_of(dataset: Dataset, folder: Path) -> Page:
    dataset.fold()
    return Page(write_report(dataset, folder / "report.html", now=NOW).read_text(encoding="utf-8"))


def test_every_number_of_the_header_equals_the_datasets(full_dataset: Dataset, full_report: Path) -> None:
    page = Page(full_report.read_text(encoding="utf-8"))
    count = {
        table: full_dataset.query(f"SELECT count(*) AS n FROM {table}").column("n")[0].as_py()
        for table in ("images", "masks", "rejects")
    }
    assert count["images"] == 9
    assert page.by_id("images").text == f"{count['images']:,}"
    assert page.by_id("masks").text == f"{count['masks']:,}"
    assert page.by_id("rejects").text == f"{count['rejects']:,}"
    assert page.by_id("masks-per-image").text == f"{count['masks'] / count['images']:.1f}"
    assert page.by_id("images-per-s").text == "0.5"  # two seconds a photograph
    facts = page.all("dl")[0].text
    assert MODEL_ID in facts
    assert "grid with points_per_side = 24" in facts
    assert "predicted IoU 0.7, stability 0.9" in facts
    assert "2 of 2 shards done" in facts


def test_the_page_stands_alone(full_report: Path) -> None:
    html = full_report.read_text(encoding="utf-8")
    assert full_report.stat().st_size < 5_000_000
    page = Page(html)
    assert not page.all("script")
    for element in page.elements:
        for name, value in element.attributes.items():
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                assert (value or "").startswith(("data:", "#")), f"<{element.tag} {name}={value!r:.60}>"
            assert not name.startswith("on")
    assert all(target.startswith(("#", "data:")) for target in re.findall(r"url\(([^)]*)\)", html))
    assert "@import" not in html


def test_what_comes_from_the_dataset_is_escaped(full_report: Path) -> None:
    page = Page(full_report.read_text(encoding="utf-8"))
    assert Path(HOSTILE).name in page.body  # as text: the parser saw no such element
    assert Path(HOSTILE).name in [each.attributes.get("alt") for each in page.all("img")]
    assert "cut <off>" in page.body
    assert not page.all("off")


def test_photographs_are_shown_from_most_masks_to_none(full_dataset: Dataset, full_report: Path) -> None:
    page = Page(full_report.read_text(encoding="utf-8"))
    captions = [each.text for each in page.all("figcaption")]
    numbers = [int(re.search(r"(\d+) masks?", caption)[1]) for caption in captions]
    expected = sorted((len(masks) for _, _, masks in stored_photos()), reverse=True)
    assert numbers == expected
    assert len(page.all("img")) == 2 * len(captions) == 18
    assert "3072 predicted IoU too low" in captions[-1]  # which filter took them
    assert not any("predicted IoU" in caption for caption in captions[:-1])


def test_histograms_count_every_mask(full_dataset: Dataset) -> None:
    contents = ReportContents(full_dataset, now=NOW)
    histograms = newest_histograms(contents)
    photos = stored_photos()
    sizes = [np.sqrt(mask.area_px / (image.height * image.width)) for image, _, masks in photos for mask in masks]
    assert np.array_equal(histograms.relative_size_B, np.histogram(sizes, 1000, (0, 1))[0])
    assert histograms.median_relative_size == pytest.approx(float(np.median(sizes)), abs=2e-3)
    scores = [0.7 + 0.3 * (i % 10) / 10 for _, _, masks in photos for i in range(len(masks))]
    assert np.array_equal(histograms.predicted_iou_B, np.histogram(np.add(scores, 1e-6), 100, (0, 1))[0])
    assert histograms.iou_sum_B.sum() == pytest.approx(sum(scores), rel=1e-6)
    boxes = [(*mask.box_xyxy, image.width, image.height) for image, _, masks in photos for mask in masks]
    centres = [((y0 + y1) / 2 / height, (x0 + x1) / 2 / width) for x0, y0, x1, y1, width, height in boxes]
    rows_and_columns = (np.array(centres) * 48 + 1e-5).astype(int)
    assert {tuple(cell) for cell in np.argwhere(histograms.centre_HW)} == {tuple(cell) for cell in rows_and_columns}
    assert histograms.centre_HW.sum() == histograms.stability_B.sum() == histograms.scored_B.sum() == len(sizes)
    assert contents.images_by_count == dict(Counter(len(masks) for _, _, masks in photos))


def test_the_funnel_ends_with_the_kept_masks(full_dataset: Dataset, full_report: Path) -> None:
    html = full_report.read_text(encoding="utf-8")
    start = html.index('<table class="funnel"')
    table = Page(html[start : html.index("</table>", start) + len("</table>")])
    cells = [each.text for each in table.all("td")]
    rows = {cells[i]: cells[i + 1 : i + 6] for i in range(0, len(cells), 6)}
    masks = full_dataset.query("SELECT count(*) AS n FROM masks").column("n")[0].as_py()
    assert rows["Candidates"][3] == f"{9 * 3072:,}"
    assert rows["NMS in a crop"][1] == f"{masks:,}"
    assert rows["Clean-up"][3] == rows["Kept"][3] == f"{masks:,}"


def test_rejects_are_counted_and_the_rows_are_capped(full_report: Path) -> None:
    page = Page(full_report.read_text(encoding="utf-8"))
    assert "truncatedingest33" in page.all("table", "narrow")[0].text
    assert "not_an_imageingest17" in page.all("table", "narrow")[0].text
    assert len([each for each in page.all("span", "path") if "bad <" in each.text]) == rejects_section.NUM_ROWS
    assert f"and {50 - rejects_section.NUM_ROWS} more:" in page.body


def test_every_command_on_the_page_can_be_run(full_dataset: Dataset, full_report: Path) -> None:
    page = Page(full_report.read_text(encoding="utf-8"))
    commands = [shlex.split(each.text) for each in page.all("pre")]
    assert [command[-1] for command in commands] == [rejects_section.QUERY, *(sql for _, sql in EXAMPLES)]
    for gigamask, query, option, uri, sql in commands:
        assert (gigamask, query, option) == ("gigamask", "query", "--dataset")
        assert Dataset.open(uri).query(sql).num_rows > 0
    most, bare, least_sure = (full_dataset.query(sql).to_pylist() for _, sql in EXAMPLES)
    assert most[0]["masks"] == max(len(masks) for _, _, masks in stored_photos())
    assert len(bare) == 1
    assert least_sure[0]["predicted_iou"] == pytest.approx(0.7)


def test_the_same_dataset_gives_the_same_page_and_replaces_the_old_one(full_dataset: Dataset, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("old")
    first = write_report(full_dataset, page, now=NOW).read_bytes()
    assert write_report(full_dataset, page, now=NOW).read_bytes() == first
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


def test_the_page_is_about_the_newest_settings_and_names_the_others(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "data")
    photos = stored_photos()[:4]
    address = add_images(dataset, photos, [])
    add_masks(dataset, photos, address, generator_settings())
    half = [(image, data, masks[::2]) for image, data, masks in photos]
    newer = add_masks(dataset, half, address, generator_settings(crop_layers=2, crop_points_downscale=2))
    page = page_of(dataset, tmp_path)
    run = ReportContents(dataset).newest
    assert run is not None
    assert run.plan_ids == (newer.plan_id,)
    assert run.preset == "paper"
    assert run.changed_settings == {}
    kept = sum(len(masks) for _, _, masks in half)
    assert run.masks == kept
    assert page.by_id("masks").text == f"{kept + sum(len(masks) for _, _, masks in photos):,}"
    assert page.by_id("masks-per-image").text == f"{kept / 4:.1f}"
    assert "Other masks in this dataset" in page.body
    shown = [int(re.search(r"(\d+) masks?", each.text)[1]) for each in page.all("figcaption")]
    assert sorted(shown) == sorted(len(masks) for _, _, masks in half)


def test_photographs_added_later_continue_the_same_run(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "data")
    photos = stored_photos()
    for part in (photos[:3], photos[3:5]):
        add_masks(dataset, part, add_images(dataset, part, []), generator_settings(), shards=1)
    dataset.fold()
    contents = ReportContents(dataset)
    (masks,) = contents.mask_sets
    assert len(masks.plan_ids) == 2
    assert (masks.images, contents.images, len(read_shown_images(contents))) == (5, 5, 5)


def test_withdrawn_masks_are_counted_nowhere(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "data")
    photos = stored_photos()
    add_masks(dataset, photos, add_images(dataset, photos, []), generator_settings())
    dataset.fold()
    before = ReportContents(dataset).masks
    gone = dataset.query("SELECT image_id, mask_id FROM masks LIMIT 3").to_pylist()
    dataset.withdraw([(row["image_id"], row["mask_id"]) for row in gone], "a test")
    contents = ReportContents(dataset)
    assert contents.newest is not None
    assert contents.masks == contents.newest.masks == before - 3
    assert newest_histograms(contents).relative_size_B.sum() == before - 3


def test_amended_masks_are_a_set_of_their_own(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    dataset.fold()
    shard = dataset.image_shards()[0]
    (image, _), *_ = dataset.read_images(shard)
    old, *_ = dataset.masks_of_image(image.image_id).to_pylist()
    gone = MaskKey(image_id=image.image_id, mask_id=old["mask_id"])
    inputs = (ImageSet(shard=shard.address, places=(0,)), gone)
    plan = dataset.new_plan("amendments", [PlannedShard.from_inputs(*inputs)], {"reason": "bitten edge"})
    mask = replace(dataset.read_mask(image.image_id, old["mask_id"]), mask_id=1)
    dataset.write_masks(plan, plan.shards[0], [(image, [mask])])
    dataset.fold()
    contents = ReportContents(dataset)
    assert contents.masks == sum(each.masks for each in contents.mask_sets)
    assert contents.newest is not None
    assert (contents.newest.plan_ids, contents.newest.masks) == ((plan.plan_id,), 1)


def test_an_unfinished_run_says_what_is_left(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "data")
    photos = stored_photos()[:2]
    address = add_images(dataset, photos, [])
    planned = [
        PlannedShard(name=name, inputs=(ImageRange(shard=address, start=0, stop=1),))
        for name in ("000000", "000001", "000002")
    ]
    plan = dataset.new_plan("masks", planned, generator_settings())
    stats = {"diagnostics": diagnostics_of(5).to_json()}
    dataset.write_masks(plan, plan.shards[0], [(photos[0][0], [])], (), stats, model_id=MODEL_ID, seconds=1.0)
    dataset.fold()
    sentence, attention = verdict(ReportContents(dataset))
    assert "2 of 3 shards are not done" in sentence
    assert attention


def test_an_empty_dataset_has_a_page(tmp_path: Path) -> None:
    page = page_of(Dataset.create(tmp_path / "data"), tmp_path)
    assert page.by_id("images").text == page.by_id("masks").text == "0"
    assert "nothing was ingested" in page.body
    assert not page.all("img")


def test_only_rejects_have_a_page(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "data")
    add_images(dataset, [], rejects_of(3))
    page = page_of(dataset, tmp_path)
    assert "all 3 inputs were rejected" in page.body
    assert "truncatedingest2" in page.body


def test_photographs_without_a_run_are_shown_plain(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "data")
    add_images(dataset, stored_photos()[:3], [])
    page = page_of(dataset, tmp_path)
    assert "gigamask masks --dataset" in page.body
    assert [("not masked yet" in each.text) for each in page.all("figcaption")] == [True] * 3


def test_a_run_without_any_mask_names_the_filter_and_the_setting(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "data")
    photos: list[Any] = [(image, data, []) for image, data, _ in stored_photos()[:2]]
    add_masks(dataset, photos, add_images(dataset, photos, []), generator_settings(), shards=1)
    page = page_of(dataset, tmp_path)
    (sentence,) = page.all("p", "verdict")
    assert "warn" in sentence.attributes["class"]
    assert "0.612" in sentence.text
    assert "generate.predicted_iou_threshold" in sentence.text
    assert len(page.all("figcaption")) == 2


def test_a_run_that_left_most_photographs_bare_needs_attention(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "data")
    photos = [(image, data, masks if i == 0 else []) for i, (image, data, masks) in enumerate(stored_photos()[:3])]
    add_masks(dataset, photos, add_images(dataset, photos, []), generator_settings(), shards=1)
    dataset.fold()
    sentence, attention = verdict(ReportContents(dataset))
    assert sentence.startswith("2 of 3 images have no mask.")
    assert "a lower generate.predicted_iou_threshold keeps more" in sentence
    assert attention


def test_masks_of_people_have_a_page_without_filters_and_scores(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "data")
    photos = stored_photos()[:2]
    address = add_images(dataset, photos, [])
    plan = dataset.new_plan("masks", [PlannedShard(name="000000", inputs=(address,))], {"stage": "assisted_manual"})
    drawn = [
        (image, [replace(mask, mask_id=i, image_id=image.image_id) for i, mask in enumerate(masks)])
        for image, _, masks in photos
    ]
    dataset.write_masks(plan, plan.shards[0], drawn)
    page = page_of(dataset, tmp_path)
    assert page.by_id("masks").text == str(sum(len(masks) for _, _, masks in photos))
    assert not page.all("table", "funnel")
    assert "Mask size" in page.body
    assert "The model's own estimate" not in page.body


def test_at_most_a_dozen_photographs_are_shown_and_both_ends_are_among_them(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "data")
    photos = []
    for number in range(30):
        image, data, masks = stored_photos()[0]
        digest = hashlib.sha256(data + bytes([number])).hexdigest()
        facts = {"image_id": image_id_of(digest), "key": image_key(image_id_of(digest)), "source_sha256": digest}
        photos.append((replace(image, **facts), data, masks[:number]))
    most = max(len(masks) for _, _, masks in photos)
    add_masks(dataset, photos, add_images(dataset, photos, []), generator_settings(), shards=3)
    dataset.fold()
    shown = [len(each.masks) for each in read_shown_images(ReportContents(dataset))]
    assert len(shown) == NUM_IMAGES
    assert shown == sorted(shown, reverse=True)
    assert (shown[0], shown[-2], shown[-1]) == (most, 1, 0)


def test_a_damaged_photograph_is_an_error_and_no_picture(full_dataset: Dataset, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(full_dataset.uri, copy)
    (tar,) = (copy / "data").glob("images-*/*/*.tar")
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 0xFF
    tar.write_bytes(data)
    with pytest.raises(Corrupt, match="gigamask verify"):
        write_report(Dataset.open(copy), tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_browser_shows_the_whole_page_without_a_request_or_an_error(browser: Browser, full_report: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="dark")
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(full_report.as_uri())
    shown = page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth > 0)")
    assert shown == [True] * 18
    assert errors == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 18, 21)"
    page.close()


def test_masks_can_be_hidden_and_a_photograph_enlarged(browser: Browser, full_report: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(full_report.as_uri())
    masks = page.locator(".masks").first
    assert masks.is_visible()
    page.get_by_label("Show masks").uncheck()
    assert not masks.is_visible()
    photo = page.locator(".image img").first
    before = photo.bounding_box()["width"]
    page.locator(".image").first.click()
    assert photo.bounding_box()["width"] > 1.5 * before
    layers = [page.locator(".image img").nth(i).bounding_box() for i in range(2)]
    assert layers[0] == pytest.approx(layers[1], abs=0.5)
    page.close()


def test_nothing_is_wider_than_a_phone(browser: Browser, full_report: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(full_report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_an_erased_image_is_neither_shown_nor_counted(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "data")
    photos = stored_photos()
    add_masks(dataset, photos, add_images(dataset, photos, []), generator_settings())
    dataset.fold()
    images = [image for image, _, _ in photos]
    early = ReportContents(dataset, now=NOW)
    rows = early.rows("SELECT * FROM images")
    dataset.erase([images[0].image_id, images[2].image_id], "a person's wish")  # the second of them has no masks
    contents = ReportContents(dataset, now=NOW)
    assert {shown.image.key for shown in read_shown_images(contents)} == {
        image.key for number, image in enumerate(images) if number not in (0, 2)
    }
    assert sum(contents.images_by_count.values()) == contents.images == 7
    assert 0 not in contents.images_by_count
    assert [row["key"] for row in rows if _read(early, row, [], None) is None] == sorted(
        [images[0].key, images[2].key], key=[row["key"] for row in rows].index
    )
    write_report(dataset, tmp_path / "report.html", now=NOW)
