"""Accounts and the audit log, for a lead."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from stages.annotator.access import Lead
from stages.annotator.schemas import Done, LeaseView, ShortText
from stages.annotator.server import TheServer
from storage.workspace.records import AuditEntry, User

router = APIRouter(prefix="/api", tags=["people"])

UserName = Annotated[ShortText, Path(description="Name of an account.")]


@router.get("/users")
def list_users(user: Lead, server: TheServer) -> list[User]:
    """Read all accounts."""
    return server.workspace.users.read_all()


@router.post("/users/{name}/pause")
def pause_user(name: UserName, user: Lead, server: TheServer) -> Done:
    """Give an annotator no new tasks for now."""
    server.workspace.users.pause(name, actor=user.name)
    return Done()


@router.post("/users/{name}/resume")
def resume_user(name: UserName, user: Lead, server: TheServer) -> Done:
    """Give an annotator tasks again."""
    server.workspace.users.pause(name, paused=False, actor=user.name)
    return Done()


@router.get("/users/{name}/leases")
def read_leases_of_user(name: UserName, user: Lead, server: TheServer) -> list[LeaseView]:
    """Read the leases that an annotator holds, to release one."""
    server.workspace.users.get(name)
    default = server.sessions.models.get(None).model_id
    return [LeaseView.of(lease, default, is_ready=False) for lease in server.workspace.leases.held(name)]


@router.get("/audit")
def read_audit_log(
    user: Lead,
    server: TheServer,
    newest: Annotated[int, Query(ge=1, le=10_000, description="Largest number of entries.")] = 100,
) -> list[AuditEntry]:
    """Read the newest entries of the audit log, oldest first."""
    return server.workspace.audit_log(newest=newest)
