"""Settings of `gigamask serve`: what runs when. No torch is imported, so that an idle scheduler stays small."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.evaluation.config import GateConfig
from engine.selection.config import ChooseBy
from flows.config.load import build, read_given, to_tree, validated

HELD_OUT_EVERY = 5
"""Default of `retrain.held_out_every`, again, because its home imports torch."""
MIN_EVERY_S = 5.0
"""Shortest interval of a schedule, in seconds: the scheduler looks for due runs no more often."""


@dataclass(frozen=True, kw_only=True)
class RetrainingSchedule:
    """When to retrain the promoted model on the rounds that were closed since."""

    cron: str = "0 2 * * *"
    """Times as a cron line; empty for none."""
    every_s: float = 0.0
    """Interval in seconds; 0 for none."""
    after_masks: int = 500
    """Number of new accepted masks, of closed rounds, that starts a retraining; 0 for none."""
    check_every_s: float = 300.0
    """Interval in seconds at which the new masks are counted; `gigamask serve` counts after each closing, too."""
    data: str = ""
    """Folder of the frozen evaluation set; empty for the images of rounds that no training sees."""
    steps: int | None = None
    """Training steps; None for 60 to 300, by the number of new masks."""


@dataclass(frozen=True, kw_only=True)
class MasksSchedule:
    """When to make automatic masks on the images that were ingested since."""

    cron: str = ""
    """Times as a cron line; empty for none."""
    every_s: float = 900.0
    """Interval in seconds; 0 for none."""
    model: str = "promoted"
    """Name of a model, weights file, version of the dataset, or promoted. Images that a model masked already are not
    masked again by another one."""
    preset: Literal["grid", "paper"] = "grid"
    """Preset of the generator's settings."""


@dataclass(frozen=True, kw_only=True)
class PrefillSchedule:
    """When to open the next semi-automatic round, whose images begin with masks."""

    cron: str = ""
    """Times as a cron line; empty for none."""
    every_s: float = 0.0
    """Interval in seconds; 0 for none."""
    min_free: int = 20
    """Number of free tasks of open rounds below which the next round is opened."""
    images: int = 100
    """Number of images of that round."""
    prefill: str = "detector"
    """What images begin with: an SQL condition on `masks`, `detector` or `generator`."""


@dataclass(frozen=True, kw_only=True)
class VerifySchedule:
    """When to check every byte and count of the dataset."""

    cron: str = "30 3 * * *"
    """Times as a cron line; empty for none."""
    fast: bool = False
    """Whether to compare sizes and counts only."""


@dataclass(frozen=True, kw_only=True)
class AuditSchedule:
    """When to draw a random sample of masks for people to improve."""

    cron: str = "0 6 * * 1"
    """Times as a cron line; empty for none."""
    sample: int = 50
    """Number of images to draw."""
    masks: str = "stage = 'fully_automatic'"
    """SQL condition on `masks` for the masks to audit."""


@dataclass(frozen=True, kw_only=True)
class EnginePolicy:
    """What comes next in the engine, for `data-engine`; each number counts what the dataset or the workspace holds."""

    every_s: float = 0.0
    """Interval in seconds at which the next thing is done; 0 for never, so that the schedules above decide alone."""
    images_per_round: int = 50
    """Number of images of a round."""
    choose_by: ChooseBy = "random"
    """Which images a round asks about: random ones, or those that the promoted model ranks highest."""
    guidelines: str = ""
    """What annotators are told in the rounds that the engine opens; empty for the stage's own guidelines."""
    open_ahead: int = 0
    """Number of answers left in open rounds at which the next round is opened already, so that nobody waits for it."""
    semi_automatic_after: int = 1000
    """Number of accepted masks from which on rounds are semi-automatic."""
    fully_automatic_after: int = 5000
    """Number of accepted masks from which on the remaining images are masked automatically."""
    wait_for_review: bool = False
    """Whether a round is closed only once a reviewer accepted, fixed or sent back each of its submissions."""
    retrain_after: int = 500
    """Number of accepted masks since the last retraining that starts the next one."""
    max_person_hours: float = 0.0
    """Budget of people's active time in hours; 0 for none. Once it is spent, no round is opened."""


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Settings of `gigamask serve`."""

    dataset: str = "gigamask-dataset"
    """Folder or s3:// prefix of the dataset."""
    workspace: str = ""
    """SQLite file or postgresql:// URL of the annotation state; empty for workspace.sqlite in the dataset."""
    work_folder: str = ""
    """Folder of checkpoints and of the scheduler's own server; empty for ~/.cache/gigamask."""
    timezone: str = "UTC"
    """Time zone of all cron lines, such as Europe/Berlin."""
    retraining: RetrainingSchedule = field(default_factory=RetrainingSchedule)
    masks: MasksSchedule = field(default_factory=MasksSchedule)
    prefill: PrefillSchedule = field(default_factory=PrefillSchedule)
    verify: VerifySchedule = field(default_factory=VerifySchedule)
    audit: AuditSchedule = field(default_factory=AuditSchedule)
    engine: EnginePolicy = field(default_factory=EnginePolicy)
    retrain: dict[str, Any] = field(default_factory=dict)
    """Settings of `gigamask retrain` to change, such as `retrain.train.batch_size`."""

    @property
    def held_out_every(self) -> int:
        """Number of images of which trainings hold one out."""
        return int(self.retrain.get("retrain", {}).get("held_out_every", HELD_OUT_EVERY))

    @property
    def evaluation_images(self) -> int:
        """Number of held-out images with masks that a retraining waits for: those that the gate asks for.

        It is 0 where the evaluation set is a folder.
        """
        asked = self.retrain.get("gate", {}).get("gate", {}).get("min_images", GateConfig.min_images)
        return 0 if self.retraining.data else int(asked)

    def __post_init__(self) -> None:
        intervals = {
            "retraining.every_s": self.retraining.every_s,
            "retraining.check_every_s": self.retraining.check_every_s,
            "masks.every_s": self.masks.every_s,
            "prefill.every_s": self.prefill.every_s,
            "engine.every_s": self.engine.every_s,
        }
        for name, value in intervals.items():
            if value and value < MIN_EVERY_S:
                raise ValueError(f"{name}: got {value}, expected 0 for never, or at least {MIN_EVERY_S:g} seconds")
        counts = {
            "retraining.after_masks": (self.retraining.after_masks, 0),
            "prefill.min_free": (self.prefill.min_free, 1),
            "prefill.images": (self.prefill.images, 1),
            "audit.sample": (self.audit.sample, 1),
            "engine.images_per_round": (self.engine.images_per_round, 1),
            "engine.open_ahead": (self.engine.open_ahead, 0),
            "engine.semi_automatic_after": (self.engine.semi_automatic_after, 0),
            "engine.fully_automatic_after": (self.engine.fully_automatic_after, self.engine.semi_automatic_after),
            "engine.retrain_after": (self.engine.retrain_after, 1),
            "engine.max_person_hours": (self.engine.max_person_hours, 0),
        }
        for name, (count, least) in counts.items():
            if count < least:
                raise ValueError(f"{name}: got {count}, expected at least {least}")


def load_serve_settings(
    *, file: Path | None = None, assignments: Sequence[str] | None = None, **options: Any
) -> ServeSettings:
    """Load ServeSettings from the sources that `flows.config.load` lists.

    Raises:
        ValueError: A setting is wrong; the message names the key, what was got and what is allowed.
    """
    return build(ServeSettings, read_given(file, assignments, options), start=to_tree(ServeSettings()))


def parse_serve_settings(settings: object) -> object:
    """Build ServeSettings from a dictionary of plain values; return any other value unchanged, for pydantic to check.

    Raises:
        ValueError: A key is unknown, or values are wrong.
    """
    return validated(ServeSettings, settings) if isinstance(settings, dict) else settings
