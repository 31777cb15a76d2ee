import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from skimage import data

from engine.images import decode
from stages.ingest.config import PrivacyConfig
from stages.ingest.ingest import ingest_photos
from stages.ingest.privacy import Concealer, Kind, conceal
from stages.ingest.privacy_detectors import open_concealer
from stages.release import jpeg
from storage.dataset import Dataset
from tests.stages.ingesting import SMALL_SHARDS, stored
from tests.stages.release.photos import SECRET, SRGB, with_metadata

CASCADE = replace(SMALL_SHARDS, privacy=PrivacyConfig(faces="cascade"))
FACE = (slice(31, 83), slice(85, 137))
"""Face of scikit-image's astronaut at 256 px, as rows and columns."""


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    whole = Image.fromarray(data.astronaut()).resize((256, 256), Image.Resampling.LANCZOS)
    return np.asarray(whole)[:200]  # below it the cascade finds a face that is none


@pytest.fixture
def people(tmp_path: Path, astronaut: np.ndarray) -> Path:
    """A folder with a face as PNG, as JPEG with metadata of every kind, in grey, and a picture without a face."""
    folder = tmp_path / "people"
    folder.mkdir()
    image = Image.fromarray(astronaut)
    image.save(folder / "face.png")
    plain = io.BytesIO()
    image.save(plain, "JPEG", quality=90, icc_profile=SRGB)
    (folder / "face.jpg").write_bytes(with_metadata(plain.getvalue()))
    image.convert("L").save(folder / "grey.png")
    Image.fromarray(astronaut[100:, :60]).save(folder / "none.png")
    return folder


def test_faces_are_unrecognisable_before_anything_is_stored(
    dataset: Dataset, people: Path, astronaut: np.ndarray
) -> None:
    assert ingest_photos([people], dataset, CASCADE).images == 4
    images = stored(dataset)
    for name in ("face.png", "face.jpg", "grey.png"):
        record, stored_bytes = images[f"people/{name}"]
        pixels = decode(stored_bytes).astype(float)
        assert pixels[FACE].std(axis=(0, 1)).max() < 0.6 * astronaut[FACE].std(axis=(0, 1)).max()
        assert np.abs(np.diff(pixels[FACE], axis=0)).max() < 40  # no edge of the face is left
        before = np.asarray(Image.open(people / name).convert("RGB")).astype(float)
        assert np.abs(pixels - before)[140:].mean() < 2  # the rest is as it was, within the loss of JPEG
        assert record.format == name[-3:] or name == "grey.png"
    metadata = jpeg.metadata_in(images["people/face.jpg"][1])
    assert metadata == ["a colour profile that was not built again"], "position, thumbnail, XMP, comment, previews"
    assert SECRET not in images["people/face.jpg"][1]
    assert jpeg.profile_of(jpeg.segments(images["people/face.jpg"][1])) == SRGB
    assert Image.open(io.BytesIO(images["people/grey.png"][1])).mode == "L"
    assert images["people/none.png"][1] == (people / "none.png").read_bytes()


def test_faces_of_photos_that_are_mended_first_are_unrecognisable_too(
    dataset: Dataset, tmp_path: Path, astronaut: np.ndarray
) -> None:
    """A JPEG gets its end marker, a PNG loses a note with a wrong checksum; the concealer sees both."""
    folder = tmp_path / "mended"
    folder.mkdir()
    jpg, png, notes = io.BytesIO(), io.BytesIO(), PngImagePlugin.PngInfo()
    Image.fromarray(astronaut).save(jpg, "JPEG", quality=90)
    (folder / "unended.jpg").write_bytes(jpg.getvalue()[:-2])
    notes.add_text("comment", "a")
    Image.fromarray(astronaut).save(png, "PNG", pnginfo=notes)
    wrong = png.getvalue().replace(b"comment\0a", b"comment\0b")
    assert wrong != png.getvalue()
    (folder / "notes.png").write_bytes(wrong)

    assert ingest_photos([folder], dataset, replace(CASCADE, takes_unended_jpegs=True)).images == 2
    for record, stored_bytes in stored(dataset).values():
        pixels = decode(stored_bytes).astype(float)
        assert pixels[FACE].std(axis=(0, 1)).max() < 0.6 * astronaut[FACE].std(axis=(0, 1)).max(), record.source
    dataset.fold()
    for view in ("privacy_searches", "privacy_regions"):
        assert dataset.query(f"SELECT * FROM {view}").num_rows == 2


def test_searches_and_regions_are_tables_in_sql(dataset: Dataset, people: Path) -> None:
    ingest_photos([people], dataset, CASCADE)
    dataset.fold()
    sql = (
        "SELECT i.source, s.kind, s.detector, count(r.score) AS regions FROM images i "
        "JOIN privacy_searches s USING (image_id) LEFT JOIN privacy_regions r USING (image_id) "
        "GROUP BY 1, 2, 3 ORDER BY 1"
    )
    rows = dataset.query(sql).to_pylist()
    names = ["people/face.jpg", "people/face.png", "people/grey.png", "people/none.png"]
    assert [row["source"] for row in rows] == names
    assert [row["regions"] for row in rows] == [1, 1, 1, 0]
    assert {row["kind"] for row in rows} == {"faces"}
    assert all(row["detector"].startswith("cascade-") for row in rows)
    sql = "SELECT r.* FROM privacy_regions r JOIN images USING (image_id) WHERE source = 'people/face.png'"
    (box,) = dataset.query(sql).to_pylist()
    assert box["score"] == 1
    assert box["x0"] < 111 < box["x1"]
    assert box["y0"] < 57 < box["y1"]
    with pytest.raises(ValueError, match="expected"):
        dataset.query("INSERT INTO privacy_regions VALUES (1)")
    assert dataset.query("SELECT * FROM privacy_regions", dataset.snapshot().snapshot_id).num_rows == 3


def test_erased_images_are_in_no_view(dataset: Dataset, people: Path) -> None:
    ingest_photos([people], dataset, CASCADE)
    dataset.fold()
    (image_id, *_) = dataset.query("SELECT image_id FROM privacy_regions ORDER BY image_id").column(0).to_pylist()
    dataset.erase([image_id], "a wish")
    dataset.fold()
    for view in ("privacy_searches", "privacy_regions"):
        assert image_id not in dataset.query(f"SELECT image_id FROM {view}").column(0).to_pylist()
    assert dataset.query("SELECT * FROM privacy_regions").num_rows == 2


def test_images_stored_without_a_search_stay_and_are_counted(dataset: Dataset, people: Path) -> None:
    ingest_photos([people], dataset, SMALL_SHARDS)
    report = ingest_photos([people], dataset, CASCADE)
    assert (report.images, report.unchanged, report.stored_with_other_settings) == (0, 4, 4)
    dataset.fold()
    assert dataset.query("SELECT * FROM privacy_searches").num_rows == 0
    assert ingest_photos([people], dataset, CASCADE).new_shards == 0, "the same settings find their plan"


def test_a_dataset_without_a_search_has_empty_views_and_plans_as_before(dataset: Dataset, people: Path) -> None:
    ingest_photos([people], dataset, SMALL_SHARDS)
    (plan,) = dataset.plans()
    assert plan.settings == SMALL_SHARDS.settings()
    assert "privacy" not in plan.settings
    dataset.fold()
    assert dataset.query("SELECT * FROM privacy_regions").num_rows == 0


def test_a_redo_keeps_the_searches_of_the_images_that_it_keeps(dataset: Dataset, people: Path) -> None:
    (people / "later.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    config = replace(CASCADE, images_per_shard=9)
    ingest_photos([people], dataset, config)
    (plan,) = dataset.plans()
    dataset.maintenance.plan_redo(plan)
    ingest_photos([people], dataset, config)
    dataset.fold()
    assert dataset.query("SELECT * FROM shards WHERE generation = 1").num_rows == 1
    assert dataset.query("SELECT * FROM privacy_searches").num_rows == 4
    assert dataset.query("SELECT * FROM privacy_regions").num_rows == 3


class _Corners:
    """A detector that finds a box over the corner, an empty one, one outside, and one of a low score."""

    kind: Kind = "plates"
    name = "corners"
    min_score = 0.5

    def __call__(self, image_HW3: np.ndarray) -> np.ndarray:
        low = [10, 10, 20, 20, 0.4]
        return np.array([[-5, -5, 9.2, 8.5, 0.9], [5, 5, 5, 9, 0.9], [900, 0, 950, 9, 0.9], low], np.float32)


def test_boxes_are_cut_to_the_image_and_those_of_a_low_score_left() -> None:
    concealed = Concealer(detectors=[_Corners()])(Image.new("RGB", (64, 48)))
    assert [region.box_xyxy for region in concealed.regions] == [(0, 0, 10, 9)]
    assert concealed.regions[0].kind == "plates"


@pytest.mark.parametrize("side_px", [1, 2, 9, 40, 300])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_region_keeps_its_mean_and_at_most_six_cells_of_detail(side_px: int, channels: tuple[int, ...]) -> None:
    rng = np.random.default_rng(side_px)
    noise = rng.integers(0, 256, (480, 500, *channels), np.uint8)
    pixels = noise.copy()
    conceal(pixels, [(100, 90, 100 + side_px, 90 + side_px)])
    changed = np.argwhere(np.any((pixels != noise).reshape(480, 500, -1), axis=2))
    more = round(side_px / 4)
    if side_px > 4:
        assert changed.min(axis=0).tolist() == [90 - more, 100 - more], "the region is larger than the box"
        assert changed.max(axis=0).tolist() == [90 + side_px + more - 1, 100 + side_px + more - 1]
        inside = pixels[90 - more : 90 + side_px + more, 100 - more : 100 + side_px + more].astype(float)
        cell_px = len(inside) / 6
        assert np.abs(np.diff(inside, axis=0)).max() < 256 / cell_px + 2


def test_no_detector_is_no_concealer() -> None:
    assert open_concealer(PrivacyConfig()) is None
