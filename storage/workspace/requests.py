"""Requests that act once, however often a client sends them because a reply was lost.

The row of a request is stored in the transaction of what it asks for, and its key is the client's id. So of two that
arrive at the same moment one acts, and the other finds what the first one did.
"""

import json
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from storage.errors import Conflict
from storage.workspace.columns import now
from storage.workspace.records import ClientRequest
from storage.workspace.schema import REQUESTS


class RequestReused(Conflict):
    """Refusal of a request under an id that another request has.

    Args:
        message: What was got, and what to do.
        round_id: Round that the other request opened or extended.
    """

    def __init__(self, message: str, round_id: str) -> None:
        super().__init__(message)
        self.round_id = round_id


def find_request(
    connection: Connection, request: ClientRequest | None, action: str, round_id: str | None = None
) -> Row[Any] | None:
    """Find the row of a request that was answered before; None for a new request, or without a request.

    Args:
        connection: The transaction.
        request: The request; None for a caller that does not send it twice.
        action: What the request asks for.
        round_id: Round that the request is about; None where it asks for a new one.

    Raises:
        RequestReused: Another request has the id.
    """
    if request is None:
        return None
    query = select(REQUESTS).where(REQUESTS.c.request_id == request.request_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    defaults = dict(request.defaults)
    content, before = defaults | json.loads(json.dumps(dict(request.content))), defaults | row.content
    other = sorted(name for name in {*content, *before} if content.get(name) != before.get(name))
    if row.action != action or (round_id is not None and row.round_id != round_id):
        other = [f"{action} {round_id or ''}".strip()]
    if other:
        raise RequestReused(
            f"request {request.request_id} was sent before, to {row.action} {row.round_id}, and now with another "
            f"content ({', '.join(other)}); repeat a request as it was, or give a new one a new id",
            row.round_id,
        )
    return row


def store_request(
    connection: Connection, request: ClientRequest | None, action: str, round_id: str, *, tasks: int
) -> None:
    """Store a request with what it did: the round, and the number of images that the round got."""
    if request is not None:
        row = {"request_id": request.request_id, "action": action, "round_id": round_id, "tasks": tasks}
        connection.execute(insert(REQUESTS).values(created_at=now(), content=dict(request.content), **row))
