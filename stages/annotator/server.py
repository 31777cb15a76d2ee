"""What every request needs: the dataset, the workspace, the models and the logins, opened once for a server."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Protocol

from fastapi import Depends, Request

from stages.annotator.access import RANK, Access
from stages.annotator.decoding import Busy
from stages.annotator.doubts import Doubts
from stages.annotator.errors import Refusal
from stages.annotator.limits import RateLimit
from stages.annotator.schemas import LeaseView
from stages.annotator.sessions import Sessions
from storage.dataset import Dataset
from storage.errors import NotFound
from storage.workspace.records import Lease, Role, User
from storage.workspace.workspace import Workspace


class Clicks(Protocol):
    """What the routes of images, decoders and masks need; a server without a workspace has no more."""

    @property
    def sessions(self) -> Sessions:
        """Models and images."""
        ...

    @property
    def predict_limit(self) -> RateLimit:
        """Limit on the predictions of each user."""
        ...


@dataclass(frozen=True, kw_only=True)
class Server:
    """Parts of one annotation server."""

    dataset: Dataset
    workspace: Workspace
    sessions: Sessions
    access: Access

    @property
    def predict_limit(self) -> RateLimit:
        """Limit on the predictions of each user."""
        return self.access.predict_limit

    @cached_property
    def doubts(self) -> Doubts:
        """Order of review."""
        return Doubts(self.dataset, self.workspace, self.sessions)

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

    def view_lease(self, lease: Lease) -> LeaseView:
        """Write a lease, and have its image encoded if it is not.

        A round whose model the server does not have is given out all the same: its prompts are answered with an error
        that says which models there are, and masks can still be drawn.
        """
        wanted = str(self.workspace.rounds.get(lease.task.round_id).settings.get("model") or "") or None
        try:
            model_id = self.sessions.models.get(wanted).model_id
            is_ready = self.sessions.prepare(lease.task.image_id, model_id)
        except NotFound:
            return LeaseView.of(lease, str(wanted or ""), is_ready=False)
        except Busy:  # the first click will encode it
            is_ready = False
        return LeaseView.of(lease, model_id, is_ready=is_ready)


def find_server(request: Request) -> Server:
    """Return the server of a request; a dependency."""
    server: Server = request.app.state.server
    return server


def find_clicks(request: Request) -> Clicks:
    """Return the part of a request's server that turns clicks into masks; a dependency."""
    server: Clicks = request.app.state.server
    return server


TheServer = Annotated[Server, Depends(find_server)]
TheClicks = Annotated[Clicks, Depends(find_clicks)]
