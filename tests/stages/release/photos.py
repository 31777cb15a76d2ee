"""A dataset to release: images in every form that ingest stores, with masks of people and of a model."""

import io
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageCms

from stages.ingest.privacy import Concealer, Kind
from stages.ingest.stats import IngestStats, privacy_stats
from storage import rle
from storage.dataset import Dataset
from storage.protocol.inputs import ImageRange
from storage.protocol.plans import PlannedShard
from storage.records import ImageRecord, MaskRecord, Provenance, mask_id_of
from storage.tables.columns import ANNOTATIONS
from tests.image_records import image_record, photo_key

HEIGHT, WIDTH = 48, 64
SECRET = b"GPS 51.5 N, taken by Ada"
"""Text that every kind of metadata of `with_metadata` holds, and that must not leave."""
ANNOTATOR, ROUND = "a-person-who-annotates", "a-round-of-theirs"
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pixels(number: int) -> Image.Image:
    """Make a smooth picture that depends on `number` alone."""
    coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def jpeg(number: int, *, icc_profile: bytes | None = None, progressive: bool = False) -> bytes:
    """Encode a picture as a JPEG without metadata."""
    buffer = io.BytesIO()
    pixels(number).save(buffer, "JPEG", quality=90, icc_profile=icc_profile, progressive=progressive)
    return buffer.getvalue()


def png(number: int) -> bytes:
    """Encode a picture as a PNG with a comment."""
    buffer = io.BytesIO()
    pixels(number).save(buffer, "PNG")
    return buffer.getvalue()


def with_metadata(data: bytes) -> bytes:
    """Put EXIF with a position and a thumbnail, XMP, a comment, previews and a strange segment into a JPEG."""
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()  # image description
    exif.get_ifd(0x8825)[1] = "N"
    thumbnail = b"thumbnail " + SECRET
    segments = [
        (0xE1, b"Exif\0\0" + exif.tobytes()[6:] + thumbnail),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x>" + SECRET),
        (0xE2, b"MPF\0" + SECRET),
        (0xED, b"Photoshop 3.0\0" + SECRET),
        (0xE0, b"JFXX\0\x10" + SECRET),
        (0xFE, SECRET),
    ]
    extra = b"".join(
        bytes((0xFF, marker)) + (2 + len(content)).to_bytes(2, "big") + content for marker, content in segments
    )
    return data[:2] + extra + data[2:] + b"\xff\xd8 a preview behind the end " + SECRET + b"\xff\xd9"


def other_profile() -> bytes:
    """Make a profile that names a camera: sRGB's under a name of the same length that no colour space has."""
    name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(SRGB))).strip()
    strange = "Ada's X"[: len(name)].ljust(len(name), "x")
    found = SRGB.replace(name.encode("utf-16-be"), strange.encode("utf-16-be")).replace(name.encode(), strange.encode())
    assert found != SRGB
    return found


def stored_images() -> list[tuple[ImageRecord, bytes]]:
    """Make one image of every form; only the last has no licence."""
    contents = [
        (jpeg(0), "jpg"),
        (with_metadata(jpeg(1)), "jpg"),
        (png(2), "png"),
        (jpeg(3, icc_profile=SRGB), "jpg"),
        (jpeg(4, icc_profile=other_profile()), "jpg"),
        (jpeg(5, progressive=True), "jpg"),
        (jpeg(6), "jpg"),
    ]
    return [
        (
            image_record(
                data,
                (HEIGHT, WIDTH),
                f"photos/{number}.jpg",
                form,
                licence=("CC-BY-4.0", "CC0-1.0")[number % 2] if number < 6 else "",
                country="DE" if number == 2 else "",
            ),
            data,
        )
        for number, (data, form) in enumerate(contents)
    ]


def masks_of(image: ImageRecord, plan_id: str, stage: str) -> list[MaskRecord]:
    """Make two masks of an image, with a hole and two parts; a person's have no scores and no point."""
    seed = np.random.default_rng(image.image_id)
    made = []
    by_person = stage == "assisted_manual"
    for ordinal in range(2):
        mask_HW = np.zeros((HEIGHT, WIDTH), np.bool_)
        y, x = (int(side) for side in seed.integers(2, 20, 2))
        mask_HW[y : y + 20, x : x + 25] = True
        mask_HW[y + 5 : y + 9, x + 5 : x + 9] = False
        mask_HW[1, WIDTH - 4 :] = True
        made.append(
            MaskRecord(
                mask_id=mask_id_of(plan_id, "000000", 0, image.image_id, ordinal),
                image_id=image.image_id,
                rle=rle.encode(mask_HW),
                box_xyxy=rle.box_xyxy(rle.encode(mask_HW)),
                area_px=int(mask_HW.sum()),
                predicted_iou=math.nan if by_person else 0.875,
                stability_score=math.nan if by_person else 0.96875,
                point_xy=(math.nan, math.nan) if by_person else (float(x), float(y)),
                crop_xyxy=(0, 0, WIDTH, HEIGHT),
                provenance=Provenance(
                    stage=stage,
                    model_id="" if by_person else "one-1",
                    annotator_id=ANNOTATOR if by_person else "",
                    round_id=ROUND if by_person else "",
                    plan_id=plan_id,
                ),
            )
        )
    return made


class Detector:
    """Detector that found a box of a score in every image, for provenance."""

    min_score = 0.5

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.name = f"{kind}-finder-0123"

    def __call__(self, image_HW3: np.ndarray) -> np.ndarray:
        """Find a box."""
        return np.array([[1, 2, 3, 4, 0.75]], np.float32)


def make_dataset(place: str | Path, searched: Sequence[Kind] = (), images: slice = slice(None)) -> Dataset:
    """Create a dataset of the images, each with two masks of a model and two of a person.

    Args:
        place: Folder or address.
        searched: What `Detector` found in every image, by the statistics of the image shard.
        images: Images of `stored_images` to take.
    """
    dataset = Dataset.create(place)
    add_images(dataset, stored_images()[images], searched)
    return dataset


def add_images(dataset: Dataset, chosen: Sequence[tuple[ImageRecord, bytes]], searched: Sequence[Kind] = ()) -> None:
    """Add an image shard, with settings of its own for each choice of searches, and two mask shards of it."""
    settings = {"searched": list(searched)} if searched else {}
    plan = dataset.new_plan("images", [PlannedShard(name="000000", inputs=(photo_key("photos"),))], settings)
    concealer = Concealer(detectors=[Detector(kind) for kind in searched])
    regions = {image.image_id: concealer(Image.new("RGB", (9, 9))).regions for image, _ in chosen}
    stats = privacy_stats(IngestStats(), concealer, regions)
    commit = dataset.write_images(plan, plan.shards[0], chosen, stats=stats)
    for stage in ("fully_automatic", "assisted_manual"):
        shard = PlannedShard(name="000000", inputs=(ImageRange(shard=commit.address, start=0, stop=commit.images),))
        plan = dataset.new_plan("masks", [shard], {"stage": stage, **settings})
        content = [(image, masks_of(image, plan.plan_id, stage)) for image, _ in dataset.read_images(commit)]
        if stage == "assisted_manual":
            dataset.write_annotated_masks(plan, plan.shards[0], content, annotations_of(content, plan.home))
        else:
            dataset.write_masks(plan, plan.shards[0], content)


def annotations_of(content: list[tuple[ImageRecord, list[MaskRecord]]], plan: str) -> pa.Table:
    """Make rows of `annotations`: of each image the first mask is a simulated annotator's, the second a person's."""
    texts = dict.fromkeys(("origin", "model_id", "prompts", "verdict"), "")
    rows = [
        {
            **texts,
            **dict.fromkeys(("clicks", "strokes", "edits"), 1),
            **dict.fromkeys(("gold", "prefilled"), False),
            "image_id": image.image_id,
            "mask_id": mask.mask_id,
            "plan": plan,
            "shard": "000000",
            "stage": "assisted_manual",
            "round_id": ROUND,
            "task_id": task,
            "annotator_id": ANNOTATOR,
            "in_masks": True,
            "simulated": ordinal == 0,
            "active_s": 4.25 + task,
            "search_s": 1.0,
            "submitted_at": datetime(2026, 1, 2, tzinfo=UTC),
            "agreed_fraction": 0.75 if task == 0 else None,
        }
        for task, (image, masks) in enumerate(content)
        for ordinal, mask in enumerate(masks)
    ]
    return pa.Table.from_pylist(rows, schema=ANNOTATIONS)
