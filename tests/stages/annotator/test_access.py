"""Who may do what: the table of every route and every role, logins, CSRF, cookies, limits."""

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from stages.annotator.access import COOKIE, CSRF_HEADER, Access, AccessConfig
from stages.annotator.app import MAX_BODY_BYTES, make_app
from stages.annotator.decoding import Busy
from stages.annotator.limits import RateLimit
from stages.annotator.server import Server
from storage.workspace.database import WorkspaceUnavailable
from tests.stages.annotator.in_process import Site, error_of

NOBODY, ANNOTATOR, REVIEWER, LEAD = "nobody", "annotator", "reviewer", "lead"

ROLES = {
    "GET /api/health": NOBODY,
    "POST /api/login": NOBODY,
    "POST /api/login/link": NOBODY,
    "GET /link": NOBODY,
    "GET /metrics": NOBODY,
    "POST /api/logout": ANNOTATOR,
    "GET /api/me": ANNOTATOR,
    "GET /api/rounds": ANNOTATOR,
    "GET /api/rounds/{round_id}": ANNOTATOR,
    "POST /api/rounds": LEAD,
    "POST /api/rounds/{round_id}/extend": LEAD,
    "POST /api/rounds/{round_id}/pause": LEAD,
    "POST /api/rounds/{round_id}/reopen": LEAD,
    "POST /api/rounds/{round_id}/cancel": LEAD,
    "POST /api/rounds/{round_id}/close": LEAD,
    "GET /api/rounds/{round_id}/figures": LEAD,
    "POST /api/tasks/claim": ANNOTATOR,
    "GET /api/tasks/held": ANNOTATOR,
    "GET /api/tasks/submitted": ANNOTATOR,
    "POST /api/tasks/{task_id}/reopen": ANNOTATOR,
    "POST /api/tasks/heartbeat": ANNOTATOR,
    "POST /api/tasks/hand-back": ANNOTATOR,
    "POST /api/tasks/skip": ANNOTATOR,
    "POST /api/tasks/submit": ANNOTATOR,
    "POST /api/tasks/release": LEAD,
    "GET /api/tasks/{task_id}/state": ANNOTATOR,
    "GET /api/tasks/{task_id}/committed": ANNOTATOR,
    "GET /api/tasks/{task_id}/branches": ANNOTATOR,
    "GET /api/tasks/{task_id}/line": ANNOTATOR,
    "POST /api/operations": ANNOTATOR,
    "GET /api/rounds/{round_id}/branches": LEAD,
    "GET /api/branches/{branch}": ANNOTATOR,
    "POST /api/branches/{branch}/merge": ANNOTATOR,
    "POST /api/branches/{branch}/settle": ANNOTATOR,
    "POST /api/branches/{branch}/dismiss": ANNOTATOR,
    "GET /api/tutorial": ANNOTATOR,
    "GET /api/images/{image_id}": ANNOTATOR,
    "GET /api/images/{image_id}/facts": ANNOTATOR,
    "POST /api/images/{image_id}/prepare": ANNOTATOR,
    "GET /api/images/{image_id}/embedding": ANNOTATOR,
    "GET /api/decoder": ANNOTATOR,
    "GET /api/decoder/onnx": ANNOTATOR,
    "POST /api/images/{image_id}/predict": ANNOTATOR,
    "POST /api/images/{image_id}/refine": ANNOTATOR,
    "POST /api/images/{image_id}/wand": ANNOTATOR,
    "POST /api/images/{image_id}/masks/merge": ANNOTATOR,
    "POST /api/images/{image_id}/masks/subtract": ANNOTATOR,
    "POST /api/images/{image_id}/masks/split": ANNOTATOR,
    "POST /api/images/{image_id}/masks/fill-holes": ANNOTATOR,
    "POST /api/images/{image_id}/masks/remove-islands": ANNOTATOR,
    "POST /api/images/{image_id}/masks/polygon": ANNOTATOR,
    "POST /api/images/{image_id}/masks/check": ANNOTATOR,
    "GET /api/reviews/{question}": REVIEWER,
    "POST /api/reviews/verdicts": REVIEWER,
    "GET /api/submissions/{submission_id}": REVIEWER,
    "GET /api/submissions/{submission_id}/verdicts": REVIEWER,
    "POST /api/submissions/{submission_id}/accept": REVIEWER,
    "POST /api/submissions/{submission_id}/send-back": REVIEWER,
    "POST /api/submissions/{submission_id}/fix": REVIEWER,
    "GET /api/users": LEAD,
    "POST /api/users/{name}/pause": LEAD,
    "POST /api/users/{name}/resume": LEAD,
    "GET /api/users/{name}/leases": LEAD,
    "GET /api/audit": LEAD,
}
"""Lowest role that may use each route."""

ORDER = [NOBODY, ANNOTATOR, REVIEWER, LEAD]


def names_of_routes(site: Site) -> set[str]:
    return {f"{method} {route.path}" for route in site.routes() for method in route.methods}


def test_every_route_has_its_role_in_the_table(site: Site) -> None:
    assert names_of_routes(site) == set(ROLES)


@pytest.mark.parametrize("client", ORDER)
def test_a_role_may_use_its_routes_and_no_others(site: Site, client: str) -> None:
    accounts = {ANNOTATOR: "ann", REVIEWER: "rita", LEAD: "lea"}
    for route, needed in ROLES.items():
        caller = site.anyone() if client == NOBODY else site.logged_in(accounts[client])
        method, path = route.split()
        answer = caller.request(method, re.sub(r"\{[^}]*\}", "1", path), json=None if method == "GET" else {})
        if ORDER.index(client) >= ORDER.index(needed):
            assert '"login_required"' not in answer.text, route
            assert '"forbidden"' not in answer.text, route
        elif client == NOBODY:
            assert (answer.status_code, answer.json()["error"]) == (401, "login_required"), route
        else:
            assert (answer.status_code, answer.json()["error"]) == (403, "forbidden"), route


def test_a_write_without_the_csrf_token_is_refused_whatever_the_route(site: Site) -> None:
    ann = site.logged_in("ann")
    for wrong in ("", "0" * 64):
        ann.headers[CSRF_HEADER] = wrong
        for route, needed in ROLES.items():
            method, path = route.split()
            if method == "GET" or needed == NOBODY:
                continue
            answer = ann.request(method, re.sub(r"\{[^}]*\}", "1", path), json={})
            assert (answer.status_code, answer.json()["error"]) == (403, "csrf"), route


def test_logging_in_sets_a_cookie_that_scripts_and_other_sites_cannot_use(site: Site) -> None:
    site.server.workspace.users.set_password("ann", "correct horse battery")
    client = site.anyone()
    answer = client.post("/api/login", json={"name": "ann", "password": "correct horse battery"})
    assert answer.status_code == 200
    assert (answer.json()["name"], answer.json()["role"]) == ("ann", "annotator")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    client.headers[CSRF_HEADER] = answer.json()["csrf_token"]
    assert client.post("/api/logout").status_code == 200
    assert client.get("/api/me").status_code == 401


def test_logins_and_refused_ones_are_in_the_audit_log(site: Site) -> None:
    site.server.workspace.users.set_password("ann", "correct horse battery")
    for password in ("wrong password", "correct horse battery"):
        site.anyone().post("/api/login", json={"name": "ann", "password": password})
    log = site.server.workspace.audit_log()
    assert [(each.actor, each.action) for each in log[-2:]] == [("ann", "refused login"), ("ann", "log in")]


def test_a_wrong_password_and_an_unknown_name_get_the_same_answer(site: Site) -> None:
    site.server.workspace.users.set_password("ann", "correct horse battery")
    answers = [
        site.anyone().post("/api/login", json={"name": name, "password": "wrong password"})
        for name in ("ann", "nobody")
    ]
    assert answers[0].status_code == 401
    assert answers[0].json() == answers[1].json()


def test_attempts_to_log_in_are_limited_for_each_account(site: Site) -> None:
    site.server.access.login_limit = RateLimit(1e-6, burst=6)  # none comes back while a busy machine hashes
    codes = [
        site.anyone().post("/api/login", json={"name": "ann", "password": f"guess number {n}"}).status_code
        for n in range(8)
    ]
    assert codes == [401] * 6 + [429] * 2
    limited = site.anyone().post("/api/login", json={"name": "ann", "password": "guess number 9"})
    assert limited.json()["error"] == "too_many_requests"
    assert int(limited.headers["retry-after"]) >= 1
    assert site.anyone().post("/api/login", json={"name": "bob", "password": "guess number 1"}).status_code == 401


def test_an_expired_session_asks_to_log_in_and_goes_on_in_place(site: Site, image_ids: list[int]) -> None:
    site.open_round()
    ann = site.logged_in("ann")
    lease = ann.post("/api/tasks/claim", json={}).json()[0]
    site.server.workspace.users.set_password("ann", "correct horse battery")  # ends the session
    assert error_of(ann.post("/api/tasks/heartbeat", json={"token": lease["token"]}), 401) == "login_required"
    again = ann.post("/api/login", json={"name": "ann", "password": "correct horse battery"})
    ann.headers[CSRF_HEADER] = again.json()["csrf_token"]
    assert ann.post("/api/tasks/heartbeat", json={"token": lease["token"]}).status_code == 200


def test_a_disabled_account_is_logged_out(site: Site, ann: TestClient) -> None:
    site.server.workspace.users.disable("ann")
    assert ann.get("/api/me").status_code == 401


def laptop(site: Site) -> tuple[Access, Any]:
    site.server.workspace.users.add("me", "lead")
    access = Access(workspace=site.server.workspace, config=AccessConfig(mode="laptop"))
    parts = {name: getattr(site.server, name) for name in ("dataset", "workspace", "sessions")}
    return access, make_app(Server(access=access, **parts))


def test_a_laptops_link_works_once_and_leaves_no_token_in_the_address(site: Site) -> None:
    access, app = laptop(site)
    link = f"/link?token={access.link_token}"
    first, second = (TestClient(app, base_url="http://127.0.0.1", follow_redirects=False) for _ in range(2))
    opened = first.get(link)
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    assert first.get("/api/me").json()["role"] == "lead"
    refused = second.get(link)
    assert refused.status_code == 401
    assert "run `gigamask annotate` again" in refused.text
    assert "go on here" in refused.text
    assert COOKIE not in second.cookies
    again = first.get(link)
    assert (again.status_code, again.headers["location"]) == (303, "/")
    assert error_of(second.post("/api/login/link", json={"token": "guess"}), 401) == "wrong_link"


def test_a_laptop_answers_no_foreign_page_that_took_over_a_name(site: Site) -> None:
    _, app = laptop(site)
    foreign = TestClient(app, base_url="http://evil.example")
    assert error_of(foreign.get("/api/health"), 400) == "foreign_host"
    assert TestClient(app, base_url="http://[::1]:8765").get("/api/health").status_code == 200
    assert TestClient(app, base_url="http://localhost:8765").get("/api/health").status_code == 200


def test_every_answer_carries_the_security_headers(site: Site, ann: TestClient) -> None:
    for path in ("/", "/api/me", "/api/nowhere", "/api/health"):
        headers = ann.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe-inline" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-opener-policy"] == "same-origin"


def test_errors_have_one_form(site: Site, ann: TestClient) -> None:
    answers = {
        404: ann.get("/api/nowhere"),
        405: ann.put("/api/me"),
        413: ann.post("/api/tasks/claim", content=b" " * (MAX_BODY_BYTES + 1)),
        422: ann.post("/api/tasks/claim", json={"count": "many", "tokn": 1}),
    }
    for status, answer in answers.items():
        assert answer.status_code == status
        assert set(answer.json()) == {"error", "message", "details"}
    assert "body.count: got 'many'" in answers[422].json()["message"]
    assert ann.post("/api/tasks/claim", content=b"{", headers={"content-type": "application/json"}).status_code == 422


@pytest.mark.parametrize(
    ("error", "code"), [(Busy("busy"), "busy"), (WorkspaceUnavailable("no answer"), "workspace_unavailable")]
)
def test_what_may_work_a_little_later_says_when(
    site: Site, ann: TestClient, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(site.server.workspace.rounds, "read_all", fail)
    answer = ann.get("/api/rounds")
    assert error_of(answer, 503) == code
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, KeyError])
def test_a_mistake_of_the_program_is_no_fault_of_the_client_and_tells_nothing_of_the_inside(
    site: Site,
    ann: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type[Exception],
) -> None:
    def fail() -> None:
        raise kind("operands could not be broadcast together")

    monkeypatch.setattr(site.server.workspace.rounds, "read_all", fail)
    answer = ann.get("/api/rounds")
    assert error_of(answer, 500) == "internal"
    assert "broadcast" not in answer.text
    assert "the server failed in a way it should not" in answer.json()["message"]
    assert f"GET /api/rounds failed: {kind.__name__}: " in caplog.text


def test_the_openapi_document_names_every_operation_once(site: Site) -> None:
    paths = site.anyone().get("/api/openapi.json").json()["paths"]
    ids = [operation["operationId"] for path in paths.values() for operation in path.values()]
    assert len(ids) == len(set(ids)) == len([route for route in ROLES if " /api/" in route])
    assert all(re.fullmatch(r"[a-z_]+", name) for name in ids)
    for path in paths.values():
        for operation in path.values():
            reference = operation["responses"]["422"]["content"]["application/json"]["schema"]["$ref"]
            assert reference == "#/components/schemas/ErrorView"
