"""What every request needs: the dataset, the workspace, the models and the logins, opened once for a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from stages.annotator.access import RANK, Access
from stages.annotator.errors import Refusal
from stages.annotator.sessions import Sessions
from storage.dataset import Dataset
from storage.workspace.records import Role, User
from storage.workspace.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Server:
    """Parts of one annotation server."""

    dataset: Dataset
    workspace: Workspace
    sessions: Sessions
    access: Access

    def check_lease(self, token: str, user: User) -> None:
        """Check that a lease, ended or not, is the user's.

        Raises:
            NotFound: The token is forged or of another workspace.
            Refusal: The lease is somebody else's.
        """
        holder = self.workspace.leases.owner(token)
        if holder != user.name:
            raise Refusal(403, "not_yours", "the lease belongs to somebody else; claim a task of your own")

    def check_author(self, annotator: str, user: User, *, others: Role) -> None:
        """Check that work is the user's own, or that the user's role may see the work of others.

        Raises:
            Refusal: It is somebody else's, and the user's role is below `others`.
        """
        if annotator != user.name and RANK[user.role] < RANK[others]:
            raise Refusal(403, "not_yours", f"this is the work of {annotator}; a {others} may see it")


def find_server(request: Request) -> Server:
    """Return the server of a request; a dependency."""
    server: Server = request.app.state.server
    return server


TheServer = Annotated[Server, Depends(find_server)]
