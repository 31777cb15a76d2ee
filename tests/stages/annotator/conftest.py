"""What the tests of the annotation server share: a dataset of small photos, and the clicks-to-masks part over it."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient

from stages.annotator.access import Access, AccessConfig
from stages.annotator.app import make_app
from stages.annotator.config import SessionsConfig
from stages.annotator.server import Server
from stages.annotator.sessions import Sessions
from stages.ingest.ingest import ingest_photos
from storage.dataset import Dataset
from storage.workspace.workspace import Workspace
from tests.stages.annotator.in_process import Site


@pytest.fixture(scope="session")
def annotated(tmp_path_factory: pytest.TempPathFactory, pictures: SimpleNamespace) -> Dataset:
    """A dataset of six images of 64 x 96 px; tests only read it."""
    folder = tmp_path_factory.mktemp("annotated")
    (folder / "photos").mkdir()
    for number in range(6):
        picture = pictures.draw(number, height=64, width=96)
        (folder / "photos" / f"{number}.png").write_bytes(pictures.encode(picture, "PNG"))
    dataset = Dataset.create(folder / "dataset")
    ingest_photos([folder / "photos"], dataset)
    dataset.fold()
    return dataset


@pytest.fixture(scope="session")
def image_ids(annotated: Dataset) -> list[int]:
    return annotated.query("SELECT image_id FROM images ORDER BY image_id").column("image_id").to_pylist()


@pytest.fixture(scope="session")
def sessions(annotated: Dataset, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    opened = Sessions(annotated, [str(tiny_model)], tmp_path_factory.mktemp("cache"), SessionsConfig())
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def seed_sessions(annotated: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    """The seed model, whose masks depend on what is asked; the tiny network's hardly do."""
    opened = Sessions(annotated, ["seed"], tmp_path_factory.mktemp("seed-cache"), SessionsConfig())
    yield opened
    opened.close()


@pytest.fixture
def site(annotated: Dataset, sessions: Sessions, tmp_path: Path) -> Iterator[Site]:
    """A team: ann and bob annotate, rita reviews, lea leads."""
    with Workspace.open(tmp_path / "workspace.sqlite") as workspace:
        for name, role in (("ann", "annotator"), ("bob", "annotator"), ("rita", "reviewer"), ("lea", "lead")):
            workspace.users.add(name, role)
        access = Access(workspace=workspace, config=AccessConfig(mode="team"))
        server = Server(dataset=annotated, workspace=workspace, sessions=sessions, access=access)
        yield Site(server=server, app=make_app(server))


@pytest.fixture
def ann(site: Site) -> TestClient:
    return site.logged_in("ann")


@pytest.fixture
def bob(site: Site) -> TestClient:
    return site.logged_in("bob")


@pytest.fixture
def rita(site: Site) -> TestClient:
    return site.logged_in("rita")


@pytest.fixture
def lea(site: Site) -> TestClient:
    return site.logged_in("lea")
