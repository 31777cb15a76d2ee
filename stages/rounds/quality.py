"""Time and quality of a round, computed from the workspace, so that it is known while the round is open.

Masks that were made, prefilled masks that were accepted, and prefilled masks that were edited are counted apart. The
seconds a mask of the paper are those of a person's whole time by the masks that the person made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations

import numpy as np

from stages.rounds.agreement import Estimate, estimate, match
from stages.rounds.answers import Answer, choose_submissions, read_answers
from stages.rounds.audit import AuditFigures, compare
from stages.rounds.review import ReviewFigures, count_review
from storage.workspace.records import SHOW_NOTES, Origin, Round, RoundProgress
from storage.workspace.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Numbers of a set of answers: those of an annotator, of a round, or of the images that began empty."""

    __pydantic_config__ = SHOW_NOTES

    answers: int
    """Number of submissions that count."""
    masks_made: int
    """Number of masks that annotators made anew."""
    prefill_accepted: int
    """Number of prefilled masks that were kept as they were."""
    prefill_edited: int
    """Number of prefilled masks that were changed."""
    prefill_rejected: int
    """Number of prefilled masks that were rejected."""
    active_s: float
    """Active seconds, gaps between inputs capped."""
    masks_per_hour: float | None
    """Masks made in an hour of active time; None without active time."""
    seconds_per_mask: float | None
    """Active seconds of all work by the number of masks made, as the paper counts; None where none was made."""
    mean_s: float | None
    """Mean active seconds of a made mask alone, without the search for it; None where none was made."""
    median_s: float | None
    """Median of the active seconds of a made mask alone; None where none was made."""
    p90_s: float | None
    """90th percentile of the active seconds of a made mask alone; None where none was made."""
    masks_per_image: float | None
    """Masks of an answer that were made or kept; None without answers."""
    seconds_per_image: float | None
    """Active seconds of an answer, whatever was done; with the masks per image, what prefilling saves or costs."""
    clicks_per_mask: float | None
    """Clicks of a made mask; None where none was made."""
    strokes_per_mask: float | None
    """Brush strokes of a made mask; None where none was made."""
    simulated: bool
    """Whether any of the seconds are those of a simulated annotator's time model."""


@dataclass(frozen=True, kw_only=True)
class AnnotatorFigures:
    """Numbers of one annotator in a round."""

    __pydantic_config__ = SHOW_NOTES

    annotator: str
    """Name of the annotator."""
    figures: Figures
    """Numbers of the annotator's answers."""
    skips: int
    """Number of tasks that the annotator skipped."""
    skip_rate: float
    """Fraction of the annotator's tasks that were skipped, in [0, 1]."""
    agreement: Estimate | None
    """Fraction of masks that have a partner among another annotator's; None without overlapped images."""
    gold_found: Estimate | None
    """Fraction of the known masks of gold images that the annotator has, too; None without gold images."""


@dataclass(frozen=True, kw_only=True)
class RoundReport:
    """All numbers of a round."""

    __pydantic_config__ = SHOW_NOTES

    round_id: str
    """Id of the round."""
    stage: str
    """Stage of the engine: assisted_manual or semi_automatic."""
    name: str
    """Name for people; empty for none."""
    state: str
    """State of the round: open, paused, closing, closed or cancelled."""
    progress: RoundProgress
    """Tasks and slots, by what became of them."""
    total: Figures
    """Numbers of all answers."""
    prefilled: Figures | None
    """Numbers of the images that began with masks; None where none did."""
    empty: Figures | None
    """Numbers of the images that began empty, in a round where others did not; None in other rounds."""
    annotators: tuple[AnnotatorFigures, ...]
    """Numbers of each annotator, by name."""
    agreement: Estimate | None
    """Fraction of masks that have a partner, over pairs of annotators; None without overlapped images."""
    matched_iou: Estimate | None
    """IoU of the masks that belong together; None without any."""
    gold_found: Estimate | None
    """Fraction of the known masks of gold images that annotators have, too; None without gold images."""
    ends_at: datetime | None
    """Time at which the round would be done at its pace so far; None for a round that is done, or just began."""
    audit: AuditFigures | None
    """Comparison of masks before and after people improved them; None for a round that is no audit."""
    review: ReviewFigures | None
    """What reviewers said and did; None for a round that nobody reviewed."""


def report_round(workspace: Workspace, round_id: str) -> RoundReport:
    """Compute all numbers of a round, open or closed.

    Raises:
        NotFound: There is no such round.
    """
    found, progress = workspace.rounds.get(round_id), workspace.rounds.progress(round_id)
    answers = list(read_answers(workspace, choose_submissions(workspace, round_id)))
    overlaps, gold = _overlaps(answers), _gold(workspace, answers)
    skips = workspace.submissions.skips(round_id)
    names = sorted({answer.annotator for answer in answers} | set(skips))
    is_compared = len({answer.prefilled for answer in answers}) == 2
    return RoundReport(
        round_id=round_id,
        stage=found.stage,
        name=found.name,
        state=found.state,
        progress=progress,
        total=_figures(answers),
        prefilled=_figures_of(answers, prefilled=True),
        empty=_figures_of(answers, prefilled=False) if is_compared else None,
        annotators=tuple(_annotator(name, answers, skips.get(name, 0), overlaps, gold) for name in names),
        agreement=estimate([[each.found for each in some] for some in overlaps]),
        matched_iou=estimate([[iou for each in some for iou in each.ious] for some in overlaps]),
        gold_found=estimate([[fraction for _, fraction in some] for some in gold]),
        ends_at=_forecast(found, progress, answers),
        audit=compare(answers) if "audit" in found.settings else None,
        review=count_review(workspace, round_id, answers),
    )


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Two annotators' answers about one image, compared."""

    annotators: tuple[str, str]
    found: float
    ious: tuple[float, ...]


def _overlaps(answers: Sequence[Answer]) -> list[list[_Pair]]:
    """Compare each pair of answers about the same image; one list for each image."""
    by_task: dict[int, list[Answer]] = {}
    for answer in answers:
        by_task.setdefault(answer.task.task_id, []).append(answer)
    return [[_pair(*pair) for pair in combinations(some, 2)] for some in by_task.values() if len(some) > 1]


def _pair(first: Answer, second: Answer) -> _Pair:
    matched = match([mask.rle for mask in first.state.masks], [mask.rle for mask in second.state.masks])
    names = (first.annotator, second.annotator)
    return _Pair(annotators=names, found=matched.found_fraction, ious=matched.ious)


def _gold(workspace: Workspace, answers: Sequence[Answer]) -> list[list[tuple[str, float]]]:
    """Compare answers about gold images with the known masks; for each image the annotators and the found fraction."""
    by_task: dict[int, list[tuple[str, float]]] = {}
    for answer in answers:
        if answer.task.gold:
            known = [given.rle for given in workspace.rounds.gold(answer.task.task_id)]
            matched = match(known, [mask.rle for mask in answer.state.masks])
            by_task.setdefault(answer.task.task_id, []).append((answer.annotator, len(matched.ious) / len(known)))
    return list(by_task.values())


def _annotator(
    name: str,
    answers: Sequence[Answer],
    skips: int,
    overlaps: Sequence[Sequence[_Pair]],
    gold: Sequence[Sequence[tuple[str, float]]],
) -> AnnotatorFigures:
    own = [answer for answer in answers if answer.annotator == name]
    return AnnotatorFigures(
        annotator=name,
        figures=_figures(own),
        skips=skips,
        skip_rate=skips / (skips + len(own)),
        agreement=estimate([[each.found for each in some if name in each.annotators] for some in overlaps]),
        gold_found=estimate([[fraction for who, fraction in some if who == name] for some in gold]),
    )


def _figures_of(answers: Sequence[Answer], *, prefilled: bool) -> Figures | None:
    own = [answer for answer in answers if answer.prefilled is prefilled]
    return _figures(own) if own else None


def _figures(answers: Sequence[Answer]) -> Figures:
    masks = [(answer, mask) for answer in answers for mask in answer.state.masks]
    made = [(answer, mask) for answer, mask in masks if mask.origin is Origin.MADE]
    seconds = np.array([answer.active_s(mask) for answer, mask in made])
    active_s = sum(answer.time.total_s for answer in answers)
    number = len(made)
    return Figures(
        answers=len(answers),
        masks_made=number,
        prefill_accepted=sum(mask.origin is Origin.PREFILL_ACCEPTED for _, mask in masks),
        prefill_edited=sum(mask.origin is Origin.PREFILL_EDITED for _, mask in masks),
        prefill_rejected=sum(len(answer.state.rejected) for answer in answers),
        active_s=active_s,
        masks_per_hour=3600 * number / active_s if active_s else None,
        seconds_per_mask=active_s / number if number else None,
        mean_s=float(seconds.mean()) if number else None,
        median_s=float(np.median(seconds)) if number else None,
        p90_s=float(np.quantile(seconds, 0.9)) if number else None,
        masks_per_image=len(masks) / len(answers) if answers else None,
        seconds_per_image=active_s / len(answers) if answers else None,
        clicks_per_mask=sum(mask.clicks for _, mask in made) / number if number else None,
        strokes_per_mask=sum(mask.strokes for _, mask in made) / number if number else None,
        simulated=any(answer.time.simulated for answer in answers),
    )


def _forecast(found: Round, progress: RoundProgress, answers: Sequence[Answer]) -> datetime | None:
    """Forecast the end of a round at its pace between its opening and its newest submission."""
    left = progress.slots - progress.done
    if not answers or not left or found.closed_at is not None:
        return None
    newest = max(answer.chosen.submission.submitted_at for answer in answers)
    pace_s = (newest - found.created_at).total_seconds() / len(answers)
    return newest + timedelta(seconds=left * pace_s)
