"""Responsible-AI properties of Croissant (RAI 1.0): what the dataset knows; the rest is named as unknown."""

from collections.abc import Mapping
from typing import Any

from stages.release.documents import words

UNKNOWN = "gigamask does not record this."


def properties(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Make the properties, by their names in Croissant."""
    facts = manifest["facts"]
    per_image = manifest["masks"] / manifest["images"]
    return {
        "rai:dataCollection": f"Photos that were given to gigamask as files. How they were taken: {UNKNOWN}",
        "rai:dataCollectionType": "Photos taken in from files",
        "rai:dataCollectionMissingData": "Left out of the release: " + "; ".join(words.left_out(manifest)) + ".",
        "rai:dataCollectionTimeframe": [day for day in (facts["images_from"], facts["images_to"]) if day],
        "rai:dataPreprocessingProtocol": [
            "At ingest photos were turned upright and scaled down to a shortest side of at most the dataset's setting.",
            "For the release EXIF, XMP, comments, previews and unknown colour profiles were removed; the column "
            "`change` of the images says what became of each.",
        ],
        "rai:dataManipulationProtocol": words.deidentification(manifest),
        "rai:dataAnnotationProtocol": f"{words.stages(manifest)} {words.people(manifest)}",
        "rai:dataAnnotationPlatform": f"gigamask {manifest['made_with']['gigamask']}",
        "rai:dataAnnotationAnalysis": words.agreement(manifest),
        "rai:annotationsPerItem": f"{per_image:.1f} masks an image on average",
        "rai:annotatorDemographics": UNKNOWN,
        "rai:machineAnnotationTools": [f"model versions: {words.models(manifest)}"],
        "rai:dataBiases": [
            f"Images by country: {words.countries(manifest)}. Where photos come from decides what is in them, and "
            "masks of a model are better on what it was trained on."
        ],
        "rai:dataLimitations": [
            "Masks have no class, an image may have objects without a mask, and masks may overlap.",
            "Masks of the fully automatic stage were not looked at by people, unless a round says so.",
        ],
        "rai:dataUseCases": ["Training and evaluation of segmentation models"],
        "rai:dataSocialImpact": UNKNOWN,
        "rai:personalSensitiveInformation": [words.deidentification(manifest)],
        "rai:dataReleaseMaintenancePlan": (
            "A release never changes; images that are taken down stay out of later releases. " + words.contact(manifest)
        ),
    }
