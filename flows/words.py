"""Numbers and times as text for people, on pages and in progress lines."""

import shlex
from datetime import datetime


def sentence(words: str) -> str:
    """Return the text with its first letter capitalised."""
    return words[:1].upper() + words[1:]


def percent(part: int, whole: int) -> str:
    """Format a fraction in percent with about two digits; a fraction above 0 is never shown as 0."""
    value = 100 * part / whole if whole else 0.0
    if value and value < 0.1:
        return "under 0.1 %"
    return f"{value:.0f} %" if value >= 10 or not value else f"{value:.1f} %"


def moment(when: datetime) -> str:
    """Format a UTC time as day, month, year and time of day."""
    return f"{when:%d %b %Y, %H:%M} UTC"


def duration(seconds: float) -> str:
    """Format a duration: hours and minutes, or minutes and seconds, or seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def place_options(dataset: str, workspace: str | None = None) -> str:
    """Write the options that name a dataset and, where it was given, a workspace, for a command that people paste."""
    return f"--dataset {shlex.quote(dataset)}" + (f" --workspace {shlex.quote(workspace)}" if workspace else "")
