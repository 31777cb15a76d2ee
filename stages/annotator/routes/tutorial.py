"""The tutorial: its picture, what lies where, and the masks that it begins with. Nothing of it is stored."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field

from stages.annotator.access import Annotator
from stages.annotator.schemas import MaskView, View
from stages.annotator.server import TheClicks
from stages.annotator.tutorial import TUTORIAL_ID, tutorial

router = APIRouter(tags=["tutorial"])


class TutorialView(View):
    """A picture to learn on."""

    image_id: str
    """Id of the picture."""
    width: int
    """Width of the picture, in pixels."""
    height: int
    """Height of the picture, in pixels."""
    model_id: str
    """Model version that answers prompts."""
    things: dict[str, MaskView] = Field(description="Visible pixels of each thing in the picture, by name.")
    given: dict[str, MaskView] = Field(description="Masks that the tutorial begins with, by name.")


@router.get("/api/tutorial")
def read_tutorial(user: Annotator, server: TheClicks) -> TutorialView:
    """Read what the tutorial shows and checks; clicks on it are answered like those on any image."""
    found = tutorial()
    height, width = found.picture.image_hw
    return TutorialView(
        image_id=str(TUTORIAL_ID),
        width=width,
        height=height,
        model_id=server.sessions.models.get(None).model_id,
        things={name: MaskView.of(mask) for name, mask in found.things.items()},
        given={name: MaskView.of(mask) for name, mask in found.given.items()},
    )
