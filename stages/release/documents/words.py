"""Sentences that several documents of a release have in common."""

from collections.abc import Mapping
from typing import Any

NOT_DEIDENTIFIED = (
    "Faces and licence plates were neither searched for nor blurred. People and vehicles may be recognisable in the "
    "images, unless they were made unrecognisable before gigamask took them in."
)
"""What a release says of which no image was searched."""
STAGES = {
    "assisted_manual": "were made by annotators who clicked, with a model that answers clicks",
    "semi_automatic": "were made by annotators who corrected and completed masks that a model had prefilled",
    "fully_automatic": "were made by a model from a grid of points, without a person",
    "imported": "were made with another tool and imported",
}
"""How the masks of each stage are made."""


def stages(manifest: Mapping[str, Any]) -> str:
    """Say how many masks each stage made, and how."""
    counts = manifest["counts"]["stages"]
    unknown = "were made in an unknown way"
    made = (f"{count:,} {STAGES.get(stage, unknown)} ({stage})" for stage, count in counts.items())
    return f"Of {manifest['masks']:,} masks {'; '.join(made)}."


def people(manifest: Mapping[str, Any]) -> str:
    """Say who annotated, without a name."""
    facts = manifest["facts"]
    if not facts["annotators"]:
        return "No annotator worked on the masks of the snapshot."
    text = f"Annotators: {facts['annotators']:,}, whose names do not leave. Rounds: {facts['rounds']:,}."
    if facts["simulated_masks"]:
        text += (
            f" The work of simulated annotators, programs that click by known masks: {facts['simulated_masks']:,} "
            "masks of the snapshot."
        )
    if facts["people_masks"]:
        text += f" The work of people in rounds: {facts['people_masks']:,} masks of the snapshot."
    if facts["mean_active_s"]:
        text += f" Mean time of people on a mask: {facts['mean_active_s']} s."
    return text


def agreement(manifest: Mapping[str, Any]) -> str:
    """Say how much annotators agreed."""
    facts = manifest["facts"]
    if not facts["agreed_tasks"]:
        return "No image of a round was answered by several annotators, so that their agreement is unknown."
    return (
        f"On {facts['agreed_tasks']:,} images of rounds that several annotators answered, a mean fraction of "
        f"{facts['agreement']} of the masks has a partner of IoU 0.5 in the other answers. That is agreement, not "
        "accuracy."
    )


def models(manifest: Mapping[str, Any]) -> str:
    """Name the model versions that made masks."""
    counts = manifest["counts"]["models"]
    named = [f"{name} ({count:,} masks)" for name, count in counts.items() if name]
    return ", ".join(named) or "none"


def countries(manifest: Mapping[str, Any]) -> str:
    """Say from which countries the images are; the unknown ones are counted."""
    counts = manifest["counts"]["countries"]
    known = ", ".join(f"{name} {count:,}" for name, count in counts.items() if name)
    unknown = counts.get("", 0)
    return (f"{known}; " if known else "") + f"unknown {unknown:,}"


def deidentification(manifest: Mapping[str, Any]) -> str:
    """Say what was searched for, by which detectors, and what was blurred."""
    done, images = manifest["deidentification"], manifest["images"]
    if all(count == images for count in done["unsearched"].values()) and not manifest["settings"]["plates_reviewed"]:
        return NOT_DEIDENTIFIED
    sentences = [
        _searched(name, kind, done, images) for kind, name in (("faces", "faces"), ("plates", "licence plates"))
    ]
    unsearched = done["unsearched"]["plates"]
    if unsearched and manifest["settings"]["plates_reviewed"]:
        others = f"the {unsearched:,} {'image' if unsearched == 1 else 'images'} that no detector searched for them"
        sentences.append(f"The maker of the release says that people looked for licence plates in {others}.")
    sentences.append("Detectors and people miss some: people and vehicles may still be recognisable.")
    return " ".join(sentences)


def _searched(name: str, kind: str, done: Mapping[str, Any], images: int) -> str:
    """Say what was done about one kind."""
    searched = images - done["unsearched"][kind]
    if not searched:
        return f"No image was searched for {name} by a detector."
    by = ", ".join(f"{detector} ({count:,})" for detector, count in done["detectors"][kind].items())
    return (
        f"{searched:,} of {images:,} images were searched for {name} by {by}; {done['regions'][kind]:,} were blurred."
    )


def left_out(manifest: Mapping[str, Any]) -> list[str]:
    """Say in one line each what of the snapshot does not leave, and why; zeros included."""
    return [
        f"{what}, {reason}: {n:,}" for what in ("images", "masks") for reason, n in manifest["left_out"][what].items()
    ]


def contact(manifest: Mapping[str, Any]) -> str:
    """Say where to ask for an image to be taken down."""
    address = manifest["settings"]["contact"]
    return f"Write to {address}." if address else "The maker of the release gave no address."
