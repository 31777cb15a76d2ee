"""A server over a few photos for all journeys, and people at browsers."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser

from tests.paths import PHOTOS
from tests.stages.annotator.web.page_site import PageSite, Person, make_site
from tests.stages.annotator.web.places import HEIGHT, WIDTH, flat_regions


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageSite]:
    """A team's server over three photos, one of them large, and the pictures of `places`."""
    folder = tmp_path_factory.mktemp("page")
    photos = folder / "photos"
    photos.mkdir()
    for name in ("coco/coco_000000458756.jpg", "nuts/nuts_0.jpg"):
        shutil.copy(PHOTOS / name, photos / Path(name).name.replace("coco_000000458756", "desk"))
    large = cv2.resize(cv2.imread(str(PHOTOS / "nuts/nuts_1.jpg")), (2400, 1700), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(photos / "large.jpg"), large, [cv2.IMWRITE_JPEG_QUALITY, 85])
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    places_BGR = np.stack([(rows + columns) % 2 * 255, rows, columns], axis=-1).astype(np.uint8)
    cv2.imwrite(str(photos / "places.png"), places_BGR)
    cv2.imwrite(str(photos / "flats.png"), flat_regions())
    made = make_site(folder, photos)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def person(site: PageSite, browser: Browser) -> Iterator[Callable[..., Person]]:
    """Makes people; at the end of the test none of their browsers may have reported an error."""
    people: list[Person] = []

    def make(name: str, role: str = "annotator", **options: object) -> Person:
        people.append(site.person(browser, name, role, **options))
        return people[-1]

    yield make
    for each in people:
        each.close()
        assert each.problems == []
