import socket
from pathlib import Path

import pytest

from stages.annotator.serve import ServeConfig, check_exposure, listen, open_server
from storage.dataset import Dataset
from storage.workspace.workspace import Workspace


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_loopback_needs_nothing(host: str) -> None:
    check_exposure(ServeConfig(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_other_machines_reach_a_server_only_where_it_was_asked_for_in_so_many_words(host: str, tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.pem"
    with pytest.raises(ValueError, match="no such file; expected the TLS certificate"):
        check_exposure(ServeConfig(host=host, mode="team", tls_certificate=certificate))
    certificate.touch()
    with pytest.raises(ValueError, match="--allow-no-accounts"):
        check_exposure(ServeConfig(host=host))
    with pytest.raises(ValueError, match="--allow-plain-http"):
        check_exposure(ServeConfig(host=host, mode="team"))
    with pytest.raises(ValueError, match="--allow-plain-http"):
        check_exposure(ServeConfig(host=host, allow_no_accounts=True))
    check_exposure(ServeConfig(host=host, mode="team", tls_certificate=certificate))
    check_exposure(ServeConfig(host=host, mode="team", allow_plain_http=True))
    check_exposure(ServeConfig(host=host, allow_no_accounts=True, allow_plain_http=True))


def test_a_team_needs_an_account_with_a_password(annotated: Dataset, tiny_model: Path, tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "w.sqlite") as workspace:
        workspace.users.add("ann", "annotator")
        opening = open_server(annotated, workspace, [str(tiny_model)], tmp_path, ServeConfig(mode="team"))
        with pytest.raises(ValueError, match="gigamask users add"), opening:
            pass
        workspace.users.set_password("ann", "correct horse battery")
        with open_server(annotated, workspace, [str(tiny_model)], tmp_path, ServeConfig(mode="team")) as server:
            assert server.access.link_token == ""


def test_a_laptop_gets_its_one_account_once(annotated: Dataset, tiny_model: Path, tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "w.sqlite") as workspace:
        for _ in range(2):
            with open_server(annotated, workspace, [str(tiny_model)], tmp_path, ServeConfig()) as server:
                assert len(server.access.link_token) >= 32
        assert [(user.name, user.role, user.has_password) for user in workspace.users.read_all()] == [
            ("me", "lead", False)
        ]


def test_a_port_that_is_taken_is_said() -> None:
    with listen(ServeConfig(port=0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port} .*--port chooses another"):
            listen(ServeConfig(port=port))


def test_small_answers_are_sent_at_once() -> None:
    with listen(ServeConfig(port=0)) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP  # else asyncio leaves a delay of 40 ms on
