"""What reviewers said and did in a round: verdicts, and submissions accepted, fixed and sent back."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from stages.rounds.answers import Answer
from storage.workspace.records import SHOW_NOTES
from storage.workspace.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class ReviewFigures:
    """Numbers of the review of a round. Of several answers of a reviewer to one question, the newest counts."""

    __pydantic_config__ = SHOW_NOTES

    accepted: int
    """Number of submissions that were accepted as they are."""
    fixed: int
    """Number of submissions that a reviewer's fix took the place of."""
    sent_back: int
    """Number of submissions that were sent back."""
    good_masks: int
    """Number of verdicts that a mask is good."""
    bad_masks: int
    """Number of verdicts that a mask is not good."""
    complete_images: int
    """Number of verdicts that no object is missing."""
    incomplete_images: int
    """Number of verdicts that an object is missing."""
    unsure: int
    """Number of verdicts that say neither yes nor no."""
    fix_s: float
    """Active seconds of reviewers on the fixes that count."""


def count_review(workspace: Workspace, round_id: str, answers: Sequence[Answer]) -> ReviewFigures | None:
    """Count verdicts and what became of submissions; None for a round that nobody reviewed."""
    submissions = workspace.submissions.read(round_id=round_id)
    newest = {
        (verdict.submission_id, verdict.mask, verdict.reviewer, verdict.question): verdict.answer
        for verdict in workspace.submissions.verdicts(round_id=round_id)
    }
    given = Counter((question, answer) for (*_, question), answer in newest.items())
    fixes = [answer.fix for answer in answers if answer.fix is not None]
    states = Counter(each.state for each in submissions if each.fixes is None)
    if not given and not fixes and not states["accepted"] and not states["sent_back"]:
        return None
    fixed_after_accepting = sum(
        answer.fix is not None and answer.chosen.submission.state == "accepted" for answer in answers
    )
    return ReviewFigures(
        accepted=states["accepted"] - fixed_after_accepting,
        fixed=len(fixes),
        sent_back=states["sent_back"],
        good_masks=given["mask_good", "yes"],
        bad_masks=given["mask_good", "no"],
        complete_images=given["nothing_missing", "yes"],
        incomplete_images=given["nothing_missing", "no"],
        unsure=given["mask_good", "unsure"] + given["nothing_missing", "unsure"],
        fix_s=sum(fix.time.total_s for fix in fixes),
    )
