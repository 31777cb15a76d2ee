"""The flow of an audit: draw images, freeze their masks in a round, or find the audit again; compare.

draw -> (annotators improve every mask) -> compare
"""

from dataclasses import dataclass

from flows.orchestration import flow, task
from stages.rounds.agreement import Estimate
from stages.rounds.audit import AuditRequest, open_audit
from stages.rounds.quality import RoundReport, report_round
from storage.dataset import Dataset
from storage.workspace.workspace import Workspace

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """Result of `gigamask audit`: the state of the audit, and how much masks changed so far."""

    round_id: str
    is_new: bool
    """Whether this call drew the sample."""
    state: str
    images: int
    """Number of images in the sample."""
    images_done: int
    """Number of images whose masks were improved."""
    masks: int
    """Number of masks of these images."""
    unchanged: int
    rejected: int
    """Number of masks that annotators rejected; each counts with an IoU of 0."""
    added: int
    """Number of masks that annotators made anew; they are not compared."""
    above_90: float | None
    """Fraction of the masks with an IoU above 0.9 before and after; None before the first answer."""
    above_90_interval: Interval | None
    """95 % interval by bootstrap over images."""
    above_75: float | None
    above_75_interval: Interval | None
    mean_iou: float | None
    mean_iou_interval: Interval | None
    simulated: bool
    """Whether any of the annotators is a simulated one."""


@flow("audit")
def audit(dataset: str, workspace: str, request: AuditRequest) -> AuditResult:
    """Open an audit, or compare the masks of the one that was opened for the same request.

    Raises:
        ValueError: The request is malformed, or no image has such masks.
    """
    round_id, is_new = draw(dataset, workspace, request)
    return _result(compare(workspace, round_id), is_new=is_new)


@task("draw")
def draw(dataset: str, workspace: str, request: AuditRequest) -> tuple[str, bool]:
    """Draw the sample and freeze it in a round, unless that was done before; return the round and whether it is new."""
    with Workspace.open(workspace) as opened:
        found, is_new = open_audit(Dataset.open(dataset), opened, request)
    return found.round_id, is_new


@task("compare")
def compare(workspace: str, round_id: str) -> RoundReport:
    """Compare the masks before and after, over the images that were answered."""
    with Workspace.open(workspace) as opened:
        return report_round(opened, round_id)


def _result(report: RoundReport, *, is_new: bool) -> AuditResult:
    figures = report.audit
    assert figures is not None, "the round is an audit"
    return AuditResult(
        round_id=report.round_id,
        is_new=is_new,
        state=report.state,
        images=report.progress.tasks,
        images_done=figures.images,
        masks=figures.masks,
        unchanged=figures.unchanged,
        rejected=figures.rejected,
        added=figures.added,
        above_90=_mean(figures.above_90),
        above_90_interval=_interval(figures.above_90),
        above_75=_mean(figures.above_75),
        above_75_interval=_interval(figures.above_75),
        mean_iou=_mean(figures.mean_iou),
        mean_iou_interval=_interval(figures.mean_iou),
        simulated=report.total.simulated,
    )


def _mean(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.mean


def _interval(estimate: Estimate | None) -> Interval | None:
    return None if estimate is None else (estimate.low, estimate.high)
