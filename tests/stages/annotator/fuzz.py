"""Fuzz the HTTP interface from its OpenAPI document: no request may make the server fail.

    python -m tests.stages.annotator.fuzz --requests 10000

prints one JSON line a route and one for all; exit status 1 if there was a server error. Every role's cookie is used in
turn, and ids of real images, tasks and rounds are mixed in, so that requests get past the first check.
"""

import argparse
import contextlib
import json
import math
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import schemathesis
from fastapi.testclient import TestClient
from schemathesis.generation import GenerationMode

from stages.annotator.access import Access, AccessConfig
from stages.annotator.app import make_app
from stages.annotator.config import SessionsConfig
from stages.annotator.server import Server
from stages.annotator.sessions import Sessions
from stages.ingest.ingest import ingest_photos
from storage import rle
from storage.dataset import Dataset
from storage.workspace.masks import mask_to_json
from storage.workspace.workspace import Workspace
from tests.stages.annotator.in_process import Site
from tests.stages.conftest import encoded, picture
from tests.tiny_network import save_tiny_model

ACCOUNTS = (("ann", "annotator"), ("rita", "reviewer"), ("lea", "lead"))
SKIPPED = ("/api/logout", "/api/rounds/{round_id}/close")
"""Routes left out: one ends the session that fuzzes, the other freezes what the others work on."""


@dataclass(kw_only=True)
class Tally:
    """What came back."""

    seed: int
    by_route: dict[str, Counter[int]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """Number of requests."""
        return sum(sum(counts.values()) for counts in self.by_route.values())


def fuzz(site: Site, requests: int, *, seed: int = 0) -> Tally:
    """Send about `requests` requests, spread over all routes, half of them well-formed and half not."""
    document = site.anyone().get("/api/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    operations = [each.ok() for each in schema.get_all_operations() if each.ok().path not in SKIPPED]
    clients = [site.logged_in(name) for name, _ in ACCOUNTS]
    tally, real = Tally(seed=seed), real_values(site)
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            count = math.ceil(requests / (2 * len(operations)))
            fuzz_route(operation, mode, count, clients, real, tally)
    return tally


def fuzz_route(
    operation: Any, mode: GenerationMode, count: int, clients: list[TestClient], real: dict[str, Any], tally: Tally
) -> None:
    """Send generated requests to one route."""
    rng = random.Random(f"{operation.label} {mode} {tally.seed}")
    route = tally.by_route.setdefault(operation.label, Counter())

    def send(case: Any) -> None:
        for name in ("path_parameters", "query", "body"):
            setattr(case, name, mixed(getattr(case, name), real, rng))
        client, parts = rng.choice(clients), parts_of(case)
        answer = client.request(**parts)
        route[answer.status_code] += 1
        is_failure = answer.status_code >= 500 and answer.json().get("error") != "busy"
        if is_failure or (answer.status_code >= 400 and set(answer.json()) != {"error", "message", "details"}):
            tally.failures.append(f"{operation.label}: {answer.status_code} {answer.text[:300]} for {str(parts)[:600]}")

    settings = hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # where every input is well-formed, none is not
        settings(hypothesis.given(case=operation.as_strategy(generation_mode=mode))(send))()


def parts_of(case: Any) -> dict[str, Any]:
    """The parts of a generated request; the client adds its cookie and its CSRF token."""
    options = case.as_transport_kwargs(base_url="http://127.0.0.1")
    parts = {name: options[name] for name in ("method", "url", "params", "json") if options.get(name) is not None}
    headers = {name: value for name, value in dict(options.get("headers") or {}).items() if "csrf" not in name.lower()}
    data = options.get("data")
    if data is not None:
        parts["content"] = data if isinstance(data, bytes) else str(data).encode()
    return {**parts, "headers": headers}


def mixed(value: Any, real: dict[str, Any], rng: random.Random) -> Any:
    """Replace generated ids, tokens, masks and places by real ones, most of the time."""
    if isinstance(value, list):
        return [mixed(each, real, rng) for each in value]
    if not isinstance(value, dict):
        return value
    is_kept = rng.random() < 0.3
    return {
        name: each if is_kept or name not in real else rng.choice(real[name])
        for name, each in ((name, mixed(each, real, rng)) for name, each in value.items())
    }


def real_values(site: Site) -> dict[str, Any]:
    """Ids and tokens that exist."""
    site.open_round()
    workspace = site.server.workspace
    leases = [lease for name, _ in ACCOUNTS for lease in workspace.leases.claim(name, 2)]
    tasks = workspace.rounds.tasks(workspace.rounds.read_all()[0].round_id)
    mask_HW = np.zeros((64, 96), dtype=bool)
    mask_HW[10:30, 20:50] = True
    mask = mask_to_json(rle.encode(mask_HW))
    return {
        "image_id": [str(task.image_id) for task in tasks],
        "task_id": [task.task_id for task in tasks],
        "round_id": [each.round_id for each in workspace.rounds.read_all()],
        "token": [lease.token for lease in leases],
        "mask": [mask],
        "other": [mask, mask_to_json(rle.encode(~mask_HW))],
        "masks": [[mask, mask]],
        "rings": [[[[1, 1], [50, 5], [20, 40]]]],
        "box": [[10, 10, 40, 50]],
        "x": [3.5, 40, 95.9],
        "y": [0, 12.5, 63.9],
        "continued": [None, {"prediction_id": "gone", "candidate": 0}],
        "name": [name for name, _ in ACCOUNTS],
        "model": [None, site.server.sessions.models.ids()[0]],
        "annotator": [None, "ann"],
    }


@contextmanager
def site_in(folder: Path) -> Iterator[Site]:
    """A server over six small images, with an account of each role."""
    (folder / "photos").mkdir()
    for number in range(6):
        (folder / "photos" / f"{number}.png").write_bytes(encoded(picture(number, height=64, width=96), "PNG"))
    dataset = Dataset.create(folder / "data")
    ingest_photos([folder / "photos"], dataset)
    dataset.fold()
    sessions = Sessions(dataset, [str(save_tiny_model(folder))], folder / "cache", SessionsConfig())
    with Workspace.open(folder / "workspace.sqlite") as workspace:
        for name, role in ACCOUNTS:
            workspace.users.add(name, role)
        limits = AccessConfig(mode="team", predictions_per_s=1e6, logins_per_minute=1e6)
        server = Server(
            dataset=dataset,
            workspace=workspace,
            sessions=sessions,
            access=Access(workspace=workspace, config=limits),
        )
        yield Site(server=server, app=make_app(server))
    sessions.close()


def main() -> None:
    """Fuzz, and print what came back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, site_in(Path(folder)) as site:
        tally = fuzz(site, arguments.requests, seed=arguments.seed)
    for route, counts in tally.by_route.items():
        print(json.dumps({"route": route, "answers": {str(code): n for code, n in sorted(counts.items())}}))
    for failure in tally.failures[:20]:
        print(failure, file=sys.stderr)
    print(json.dumps({"requests": tally.requests, "server_errors": len(tally.failures)}))
    sys.exit(1 if tally.failures else 0)


if __name__ == "__main__":
    main()
