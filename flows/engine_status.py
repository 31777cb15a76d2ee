"""The engine at a glance, for `gigamask status`: rounds, people, jobs, the promoted model, what waits for whom.

Everything is read from the dataset and the workspace, so that it is true whether or not a scheduler runs.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from flows.engine_state import count_accepted_masks, masks_at_last_retraining
from flows.words import moment, place_options
from stages.simulated.accounts import is_account_lease
from storage.dataset import Dataset
from storage.protocol.promotions import moved_by
from storage.workspace.firings import Firing, FiringState
from storage.workspace.records import Round, RoundProgress, RoundState
from storage.workspace.workspace import Workspace

MAX_CLOSED_ROUNDS = 5
"""Largest number of closed and cancelled rounds that are listed, the newest ones."""


@dataclass(frozen=True, kw_only=True)
class RoundGlance:
    """One round."""

    round_id: str
    name: str
    stage: str
    state: str
    answers: int
    """Number of answers that the round wants."""
    done: int
    held: int
    """Number of answers that annotators are at work on."""
    free: int
    claimable: int
    """Number of free answers that somebody can still give: who neither skipped nor answered the image."""
    late_work: int
    """Number of lines of late work that nobody has merged or dismissed."""


@dataclass(frozen=True, kw_only=True)
class PersonGlance:
    """One account that is not closed."""

    name: str
    role: str
    paused: bool
    held: int
    """Number of tasks that the person holds."""
    submitted: int
    """Number of submissions of open and paused rounds that count."""
    sent_back: int
    """Number of submissions that wait for the person to correct them."""


@dataclass(frozen=True, kw_only=True)
class JobGlance:
    """Newest firing of one job of `gigamask serve`."""

    job: str
    key: str
    state: str
    attempts: int
    taken_at: datetime
    ended_at: datetime | None
    outcome: str
    """Decision or error in words; empty for none."""


@dataclass(frozen=True, kw_only=True)
class PromotedGlance:
    """The promoted model, and the newest decision about any model."""

    model_id: str
    """Id of the promoted model; empty where nothing was decided yet, and the shipped one is in use."""
    generation: int
    """Generation that promoted it; 0 before the first decision."""
    decision: str
    about: str
    """Id of the model that the newest decision is about."""
    made_by: str
    made_at: datetime | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class EngineStatus:
    """State of the whole engine."""

    dataset: str
    images: int
    masks: int
    accepted_masks: int
    """Number of masks that people made or kept in closed rounds so far, those withdrawn since included."""
    masks_since_retraining: int
    """Number of accepted masks since the last retraining that a schedule started."""
    rounds: tuple[RoundGlance, ...]
    people: tuple[PersonGlance, ...]
    reviews_waiting: int
    """Number of submissions that a reviewer may accept, fix or send back."""
    jobs: tuple[JobGlance, ...]
    promoted: PromotedGlance
    waits: tuple[str, ...]
    """What waits for whom, one line each."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def read_engine_status(dataset: Dataset, workspace: Workspace | None) -> EngineStatus:
    """Read the state of the engine; nothing is written. Without a workspace there are no rounds and no people yet."""
    accepted = count_accepted_masks(dataset)
    (counts,) = dataset.query(
        "SELECT (SELECT count(*) FROM images) AS images, (SELECT count(*) FROM masks) AS masks"
    ).to_pylist()
    rounds = _read_rounds(workspace) if workspace else ()
    people = _read_people(workspace) if workspace else ()
    reviews = len(workspace.submissions.read_waiting()) if workspace else 0
    jobs = _read_jobs(workspace.firings.read_all()) if workspace else ()
    return EngineStatus(
        dataset=dataset.uri,
        images=counts["images"],
        masks=counts["masks"],
        accepted_masks=accepted,
        masks_since_retraining=accepted - (masks_at_last_retraining(workspace) if workspace else 0),
        rounds=rounds,
        people=people,
        reviews_waiting=reviews,
        jobs=jobs,
        promoted=_read_promoted(dataset),
        waits=tuple(_list_waits(rounds, people, reviews, jobs, _place_options(dataset, workspace))),
    )


def _place_options(dataset: Dataset, workspace: Workspace | None) -> str:
    """Write the options that name the dataset, and the workspace where it is not the dataset's own."""
    place = workspace.database.place if workspace else ""
    return place_options(dataset.uri, None if place in ("", f"{dataset.uri}/workspace.sqlite") else place)


def render_engine_status(status: EngineStatus) -> str:
    """Render the state of the engine as text."""
    promoted = status.promoted
    lines = [
        f"dataset    {status.dataset}: {status.images:,} images, {status.masks:,} masks, "
        f"{status.accepted_masks:,} accepted in rounds so far "
        f"({status.masks_since_retraining:,} since the last retraining)",
        f"promoted   {promoted.model_id or 'seed, nothing was promoted yet'}"
        + (f" since generation {promoted.generation}" if promoted.model_id else ""),
    ]
    if promoted.made_at is not None:
        lines.append(
            f"decision   {promoted.decision} of {promoted.about} by {promoted.made_by}, {moment(promoted.made_at)}: "
            f"{promoted.reason}"
        )
    for name, rows in (
        ("rounds", [_round_line(each) for each in status.rounds]),
        ("people", [_person_line(each) for each in status.people]),
        ("jobs", [_job_line(each) for each in status.jobs]),
        ("waiting", list(status.waits)),
    ):
        lines += [f"{name if not number else '':<10} {row}" for number, row in enumerate(rows or ["none"])]
    return "\n".join(lines)


def _read_rounds(workspace: Workspace) -> tuple[RoundGlance, ...]:
    every = workspace.rounds.read_all()
    ended = [each for each in every if each.state in (RoundState.CLOSED, RoundState.CANCELLED)]
    shown = [each for each in every if each not in ended[:-MAX_CLOSED_ROUNDS]]
    return tuple(_glance(each, workspace.rounds.progress(each.round_id)) for each in shown)


def _glance(found: Round, progress: RoundProgress) -> RoundGlance:
    return RoundGlance(
        round_id=found.round_id,
        name=found.name,
        stage="audit" if "audit" in found.settings else found.stage,
        state=found.state,
        answers=progress.slots,
        done=progress.done,
        held=progress.leased,
        free=progress.free,
        claimable=progress.claimable,
        late_work=progress.open_branches,
    )


def _read_people(workspace: Workspace) -> tuple[PersonGlance, ...]:
    unfinished = (RoundState.OPEN, RoundState.PAUSED)
    rounds = [each.round_id for each in workspace.rounds.read_all() if each.state in unfinished]
    work = [each for round_id in rounds for each in workspace.submissions.read(round_id=round_id)]
    counted = Counter(each.annotator for each in work if each.state in ("submitted", "accepted"))
    newest = {(each.task_id, each.annotator): each for each in work}
    held = workspace.leases.count_held()
    sent_back = Counter(each.annotator for each in newest.values() if each.state == "sent_back")
    return tuple(
        PersonGlance(
            name=user.name,
            role=user.role,
            paused=user.paused,
            held=held.get(user.name, 0),
            submitted=counted[user.name],
            sent_back=sent_back[user.name],
        )
        for user in workspace.users.read_all()
        if not user.disabled
    )


def _read_jobs(firings: list[Firing]) -> tuple[JobGlance, ...]:
    newest = {each.job: each for each in firings if not is_account_lease(each.job)}
    return tuple(
        JobGlance(
            job=each.job,
            key=each.key,
            state=each.state,
            attempts=each.attempts,
            taken_at=each.taken_at,
            ended_at=each.ended_at,
            outcome=str(each.result.get("error") or each.result.get("decision") or ""),
        )
        for _, each in sorted(newest.items())
    )


def _read_promoted(dataset: Dataset) -> PromotedGlance:
    chain = dataset.promotions.history()
    if not chain:
        return PromotedGlance(
            model_id="", generation=0, decision="", about="", made_by="", made_at=None, reason="nothing was decided yet"
        )
    newest = chain[-1]
    return PromotedGlance(
        model_id=newest.promoted,
        generation=moved_by(chain).number,
        decision=newest.decision,
        about=newest.model_id,
        made_by=newest.made_by,
        made_at=newest.made_at,
        reason=newest.reason,
    )


def _list_waits(
    rounds: tuple[RoundGlance, ...],
    people: tuple[PersonGlance, ...],
    reviews: int,
    jobs: tuple[JobGlance, ...],
    here: str,
) -> list[str]:
    """List what waits for whom, in the order in which work passes; `here` are the options of commands."""
    waits = []
    for each in rounds:
        named = f"{each.round_id}{f' ({each.name})' if each.name else ''}"
        if each.state == RoundState.OPEN and each.claimable:
            waits.append(f"{_many(each.claimable, 'task')} of {named} for annotators: gigamask annotate {here}")
        if each.state == RoundState.PAUSED:
            waits.append(f"{named}, which is paused, for a lead: gigamask round reopen {each.round_id} {here}")
        if each.state == RoundState.CLOSING:
            waits.append(f"{named}, whose closing was cut off, for a lead: gigamask round close {each.round_id} {here}")
        if each.state in (RoundState.OPEN, RoundState.PAUSED) and not each.held + each.claimable:
            waits.append(f"{named}, {_why_complete(each)}, for a lead: gigamask round close {each.round_id} {here}")
        if each.state in (RoundState.OPEN, RoundState.PAUSED) and each.late_work:
            waits.append(f"{_many(each.late_work, 'line')} of late work of {named} for the authors or a lead")
    waits += [f"{_many(each.sent_back, 'task')} sent back for {each.name}" for each in people if each.sent_back]
    if reviews:
        waits.append(f"{_many(reviews, 'submission')} for reviewers")
    waits += [f"{each.job}, which failed, for you: {each.outcome}" for each in jobs if each.state == FiringState.FAILED]
    waits += [
        f"{each.job}, which was killed, for a scheduler: gigamask serve {here}"
        for each in jobs
        if each.state == FiringState.LOST
    ]
    return waits


def _why_complete(each: RoundGlance) -> str:
    if not each.free:
        return "whose answers are all in"
    return f"whose last {_many(each.free, 'answer')} nobody can give, as everybody skipped or answered the image"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _round_line(each: RoundGlance) -> str:
    parts = f"{each.done}/{each.answers} answers, {each.held} held, {each.free} free"
    if each.claimable < each.free and each.state in (RoundState.OPEN, RoundState.PAUSED):
        parts += f" ({each.free - each.claimable} of them for nobody)"
    return f"{each.round_id} {each.stage} {each.state}: {parts}{f', {each.name}' if each.name else ''}"


def _person_line(each: PersonGlance) -> str:
    paused = " paused" if each.paused else ""
    return f"{each.name} ({each.role}{paused}): {each.held} held, {each.submitted} submitted"


def _job_line(each: JobGlance) -> str:
    end = f" until {moment(each.ended_at)}" if each.ended_at else ""
    attempts = f", attempt {each.attempts}" if each.attempts > 1 else ""
    outcome = f": {each.outcome}" if each.outcome else ""
    return f"{each.job} {each.state} [{each.key}] from {moment(each.taken_at)}{end}{attempts}{outcome}"
