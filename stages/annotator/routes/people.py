"""Accounts and the audit log, for a lead."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel

from stages.annotator.access import Lead
from stages.annotator.schemas import Done, LeaseView, ShortText
from stages.annotator.server import TheServer

router = APIRouter(prefix="/api", tags=["people"])

UserName = Annotated[ShortText, Path(description="Name of an account.")]


class UserView(BaseModel):
    """An account."""

    name: str
    role: str
    has_password: bool
    disabled: bool
    paused: bool
    created_at: datetime


class AuditView(BaseModel):
    """An entry of the audit log."""

    number: int
    at: datetime
    actor: str
    action: str
    subject: str
    details: dict[str, Any]


@router.get("/users")
def list_users(user: Lead, server: TheServer) -> list[UserView]:
    """Read all accounts."""
    return [UserView(**vars(each)) for each in server.workspace.users.read_all()]


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
    user: Lead, server: TheServer, newest: Annotated[int, Query(ge=1, le=10_000)] = 100
) -> list[AuditView]:
    """Read the newest entries of the audit log, oldest first."""
    return [AuditView(**vars(each)) for each in server.workspace.audit_log(newest=newest)]
