"""Datasheet of a release, by the questions of "Datasheets for Datasets" (Gebru et al. 2021)."""

from collections.abc import Mapping
from typing import Any

from stages.release.documents import words
from stages.release.documents.rai import UNKNOWN


def make_datasheet(manifest: Mapping[str, Any]) -> str:
    """Make the datasheet."""
    settings, facts = manifest["settings"], manifest["facts"]
    splits = manifest["counts"]["splits"]
    return f"""# Datasheet: {settings["title"]}

By the questions of "Datasheets for Datasets" (Gebru et al. 2021). What gigamask does not record is named as such; the
maker of the release is asked to answer it on the page where the release is published.

## Motivation

- Who made it: {settings["creator"] or "not given"}
- Why, and who paid for it: {UNKNOWN}

## Composition

- Instances: {manifest["images"]:,} images and {manifest["masks"]:,} masks of things and parts in them, without classes
- Masks by stage: {words.stages(manifest)}
- Model versions: {words.models(manifest)}
- Splits: {splits.get("train", 0):,} images to train on, {splits.get("holdout", 0):,} held out, by the image's id in
  the dataset that it was released from, not by its number here
- Images by country: {words.countries(manifest)}
- Left out of the snapshot: {"; ".join(words.left_out(manifest))}
- Is anything missing: an image may have objects without a mask
- Personal data: {words.deidentification(manifest)}

## Collection process

- Images were taken in {_between(facts["images_from"], facts["images_to"])}
- How and by whom the photos were taken: {UNKNOWN}
- Masks were made {_between(facts["masks_from"], facts["masks_to"])}
- Annotators: {words.people(manifest)}
- Agreement: {words.agreement(manifest)}
- Consent of people in the images, and review by an ethics board: {UNKNOWN}

## Preprocessing

- Photos were turned upright and scaled at ingest; for the release metadata was removed. What became of the stored
  images: {_counts(manifest["counts"]["changes"])}
- The photos themselves are not part of the release.

## Uses

- Training and evaluation of segmentation models. Masks of a model repeat its mistakes: compare with masks of people.
- Not for finding out who is in an image, or where it was taken.

## Distribution

- Address: {settings["url"] or "not given"}
- Licences: LICENSES.md and ATTRIBUTIONS.csv

## Maintenance

- A release never changes; images that are taken down stay out of later releases.
- Contact: {words.contact(manifest)}
"""


def _between(first: str, last: str) -> str:
    if not first:
        return "at an unknown time"
    return f"on {first}" if first == last else f"from {first} to {last}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
