import time

import pytest

from storage.errors import Conflict, NotFound
from storage.workspace.records import Role
from storage.workspace.workspace import Workspace


def test_a_password_opens_its_own_account_only(workspace: Workspace) -> None:
    workspace.users.add("zoe", "lead", password="correct horse")
    assert workspace.users.check_password("zoe", "correct horse").role is Role.LEAD
    assert workspace.users.check_password("zoe", "wrong horse") is None
    assert workspace.users.check_password("ann", "") is None
    assert workspace.users.check_password("nobody", "correct horse") is None
    workspace.users.disable("zoe")
    assert workspace.users.check_password("zoe", "correct horse") is None


def test_passwords_are_stored_as_argon2_only(workspace: Workspace) -> None:
    workspace.users.add("zoe", "lead", password="correct horse")
    with workspace.database.read() as connection:
        stored = connection.exec_driver_sql("SELECT password_hash FROM users WHERE name = 'zoe'").scalar_one()
    assert stored.startswith("$argon2id$")
    assert "correct" not in stored


def test_a_login_ends_by_time_by_logging_out_and_with_a_new_password(workspace: Workspace) -> None:
    workspace.users.add("zoe", "lead", password="correct horse")
    short, long = workspace.users.log_in("zoe", seconds=0.2), workspace.users.log_in("zoe", seconds=60)
    assert workspace.users.logged_in(short).name == "zoe"
    time.sleep(0.3)
    assert workspace.users.logged_in(short) is None
    assert workspace.users.logged_in(long).name == "zoe"
    workspace.users.set_password("zoe", "other horse!")
    assert workspace.users.logged_in(long) is None
    again = workspace.users.log_in("zoe", seconds=60)
    workspace.users.log_out(again)
    assert workspace.users.logged_in(again) is None
    assert workspace.users.logged_in("forged") is None


def test_disabling_ends_the_logins(workspace: Workspace) -> None:
    token = workspace.users.log_in("ann", seconds=60)
    workspace.users.disable("ann", actor="lea")
    assert workspace.users.logged_in(token) is None
    assert workspace.users.get("ann").disabled
    entry = workspace.audit_log()[-1]
    assert (entry.actor, entry.action, entry.subject) == ("lea", "disable", "ann")


def test_malformed_users_are_refused(workspace: Workspace) -> None:
    for name in ("", "a b", "-a", "é", "a" * 65):
        with pytest.raises(ValueError, match="user name"):
            workspace.users.add(name, "annotator")
    with pytest.raises(ValueError, match="role 'boss'"):
        workspace.users.add("new", "boss")
    with pytest.raises(ValueError, match="at least 10"):
        workspace.users.add("new", "annotator", password="short")
    with pytest.raises(Conflict, match="of this name already"):
        workspace.users.add("ann", "annotator")
    with pytest.raises(NotFound, match="no such user"):
        workspace.users.disable("new")
