"""Header of the report: totals, the result in a sentence, and facts about the masks committed last."""

import shlex

from flows.pages.markup import card, note, table, text, tile
from flows.report.contents import MaskSet, ReportContents
from flows.report.sections.beside_sa1b import SA1B_MASKS_PER_IMAGE
from flows.report.sections.filters import explain_losses
from flows.words import duration, moment, sentence

FEW_MASKS = 10
"""Number of masks per image below which the page advises what to change; SA-1B has about 100."""
SCORES = {"predicted_iou": "predicted IoU", "stability": "stability"}


def render(contents: ReportContents, title: str) -> str:
    """Render the section as HTML."""
    words, attention = verdict(contents)
    return (
        f'<p class="kicker">gigamask report</p><h1>{text(title)}</h1><p class="path">{text(contents.uri)}</p>'
        f'<div class="tiles">{_tiles(contents)}</div>'
        f'<p class="verdict{" warn" if attention else ""}">{text(words)}</p>'
        f'<div class="stack">{card(_facts(contents))}{_other_masks(contents)}</div>'
    )


def verdict(contents: ReportContents) -> tuple[str, bool]:
    """State the result of the dataset in a sentence or two, and return whether the result needs attention."""
    # Nothing to judge
    newest = contents.newest
    if not contents.images:
        rejects = contents.rejects
        reason = f"all {rejects:,} inputs were rejected, see below" if rejects else "nothing was ingested"
        return f"The dataset holds no image: {reason}.", True
    if newest is None:
        return f"No masks yet: gigamask masks --dataset {shlex.quote(contents.uri)} makes them.", True

    # Shards that are not done
    unfinished = newest.shards_planned - newest.shards_done
    left = (
        f" {unfinished:,} of {newest.shards_planned:,} shards are not done: run the command again."
        if unfinished
        else ""
    )

    # Masks and where the candidates went
    counts = contents.stats.diagnostics
    if counts is None or not counts.candidates:
        return f"{newest.masks:,} masks on {newest.images:,} images.{left}", bool(unfinished)
    if not counts.kept:
        return sentence(counts.explain()) + left, True
    bare = contents.images_by_count.get(0, 0)
    if 2 * bare >= newest.images:
        losses = explain_losses(counts, advise=True)
        return f"{bare:,} of {newest.images:,} images have no mask. {losses}{left}", True
    return explain_losses(counts, advise=newest.masks_per_image < FEW_MASKS) + left, bool(unfinished)


def _tiles(contents: ReportContents) -> str:
    newest = contents.newest
    tiles = tile("images", f"{contents.images:,}", "Images") + tile("masks", f"{contents.masks:,}", "Masks")
    if newest:
        about = f"SA-1B: about {SA1B_MASKS_PER_IMAGE}"
        tiles += tile("masks-per-image", f"{newest.masks_per_image:.1f}", "Masks per image", about)
    tiles += tile("rejects", f"{contents.rejects:,}", "Rejected inputs")
    if newest and newest.images_per_s:
        tiles += tile("images-per-s", f"{newest.images_per_s:.3g}", "Images/s of one worker")
    return tiles


def _facts(contents: ReportContents) -> str:
    facts = []
    newest = contents.newest
    if newest:
        facts += [("Model", f"<code>{text(newest.model_id)}</code>")] if newest.model_id else []
        facts += [("Preset", _preset(newest))] if newest.preset else []
        facts += [("Thresholds", _thresholds(newest))] if newest.thresholds else []
        done = f"{newest.shards_done:,} of {newest.shards_planned:,} shards done"
        facts += [("Plans", f"{_plan_ids(newest)}; {done}")]
        facts += [("Finished", f"{moment(newest.finished_at)}, after {duration(newest.seconds)} of work")]
    facts += [("Written", moment(contents.written_at))]
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    return f'<dl class="facts">{rows}</dl>'


def _preset(masks: MaskSet) -> str:
    changed = ", ".join(f"{name} = {value}" for name, value in masks.changed_settings.items())
    return f"<code>{text(masks.preset)}</code>" + (f" with {text(changed)}" if changed else "")


def _thresholds(masks: MaskSet) -> str:
    return ", ".join(f"{SCORES[name]} {value:.3g}" for name, value in masks.thresholds.items())


def _plan_ids(masks: MaskSet) -> str:
    shown = ", ".join(f"<code>{text(plan_id)}</code>" for plan_id in masks.plan_ids[:3])
    return shown + (f" and {len(masks.plan_ids) - 3:,} more" if len(masks.plan_ids) > 3 else "")


def _other_masks(contents: ReportContents) -> str:
    """Render the masks of other models or settings; "" where there are none."""
    if len(contents.mask_sets) < 2:
        return ""
    columns = ("Plans", "Model", "Preset", "Finished", "#Images", "#Masks")
    rows = [
        (
            _plan_ids(masks),
            text(masks.model_id or "annotators"),
            _preset(masks) if masks.preset else "",
            moment(masks.finished_at),
            f"{masks.images:,}",
            f"{masks.masks:,}",
        )
        for masks in reversed(contents.mask_sets[:-1])
    ]
    about = "Of other models or settings. This page is about the newest; the number of masks above counts all of them."
    return card(f"<h3>Other masks in this dataset</h3>{note(about)}{table(columns, rows)}")
