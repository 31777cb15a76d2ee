"""The report's HTML: one page with everything inside it, no script, nothing loaded from anywhere.

Every function returns HTML; what comes from a dataset passes through `text` on its way into it.
"""

import shlex
from pathlib import PurePath

from engine.automatic.diagnostics import Diagnostics
from engine.automatic.filters import Filter
from flows.pages.markup import card, data_uri, document, duration, moment, note, percent, sentence, table, text, tile
from flows.pages.svg import SA1B_MASKS_PER_IMAGE
from flows.report.data import THRESHOLDS, Picture, ReportData, RunFacts
from flows.report.figures import figures
from flows.report.overlays import draw_overlay

ALWAYS_SHOWN = (
    Filter.FAILED_PREDICTED_IOU,
    Filter.FAILED_STABILITY,
    Filter.CUT_BY_CROP_EDGE,
    Filter.DUPLICATE_IN_CROP,
    Filter.DISSOLVED,
)
SCORES = {"predicted_iou": "predicted IoU", "stability": "stability"}

FEW_MASKS = 10
"""Masks per image below which the page says what to change; SA-1B has about 100."""
EXAMPLES = (
    (
        "Photographs with the most masks",
        "SELECT i.source, count(*) AS masks FROM masks m JOIN images i ON m.image_id = i.image_id "
        "GROUP BY i.source ORDER BY masks DESC LIMIT 10",
    ),
    (
        "Photographs without any mask",
        "SELECT source, width, height FROM images WHERE image_id NOT IN (SELECT image_id FROM masks) ORDER BY source",
    ),
    (
        "The masks the model is least sure of: what to look at first",
        "SELECT i.source, m.mask_id, m.predicted_iou, m.stability_score, m.area_px FROM masks m "
        "JOIN images i ON m.image_id = i.image_id ORDER BY m.predicted_iou LIMIT 20",
    ),
)
REJECTS_QUERY = "SELECT source, stage, reason, detail FROM rejects ORDER BY stage, reason, source"


def render(data: ReportData, *, title: str) -> str:
    """The whole page."""
    sections = (
        _header(data, title),
        _pictures(data),
        figures(data),
        _funnel(data.diagnostics),
        _rejects(data),
        _next_steps(data),
        _footer(data),
    )
    return document(f"{title} · gigamask report", "".join(sections))


def verdict(data: ReportData) -> tuple[str, bool]:
    """The result in a sentence or two, and whether it needs somebody's attention."""
    run = data.run
    if not data.images:
        reason = f"all {data.rejects:,} inputs were rejected, see below" if data.rejects else "nothing was ingested"
        return f"The dataset holds no image: {reason}.", True
    if run is None:
        return f"No masks yet: gigamask masks --dataset {shlex.quote(data.uri)} makes them.", True
    unfinished = run.shards_planned - run.shards_done
    left = (
        f" {unfinished:,} of {run.shards_planned:,} shards are not done: run the command again." if unfinished else ""
    )
    counts = data.diagnostics
    if counts is None or not counts.candidates:
        return f"{run.masks:,} masks on {run.images:,} images.{left}", bool(unfinished)
    if not counts.kept:
        return sentence(counts.explain()) + left, True
    bare = data.histograms.images_by_count.get(0, 0) if data.histograms else 0
    if 2 * bare >= run.images:
        return (
            f"{bare:,} of {run.images:,} images have no mask. {_where_candidates_went(counts, advise=True)}{left}",
            True,
        )
    return _where_candidates_went(counts, advise=run.masks_per_image < FEW_MASKS) + left, bool(unfinished)


def _where_candidates_went(counts: Diagnostics, *, advise: bool) -> str:
    lost, taken = max(counts.taken.items(), key=lambda item: item[1])
    kept = f"{counts.kept:,} of {counts.candidates:,} candidate masks kept ({percent(counts.kept, counts.candidates)})"
    if not taken:
        return f"{kept}."
    setting = THRESHOLDS.get(lost.removeprefix("failed_"), "")
    advice = f"; a lower generate.{setting} keeps more" if advise and setting else ""
    return f"{kept}; {lost.label} took most, {percent(taken, counts.candidates)}{advice}."


def _header(data: ReportData, title: str) -> str:
    words, attention = verdict(data)
    return (
        f'<p class="kicker">gigamask report</p><h1>{text(title)}</h1><p class="path">{text(data.uri)}</p>'
        f'<div class="tiles">{_tiles(data)}</div>'
        f'<p class="verdict{" warn" if attention else ""}">{text(words)}</p>'
        f'<div class="stack">{card(_facts(data))}{_earlier_runs(data)}</div>'
    )


def _tiles(data: ReportData) -> str:
    run = data.run
    tiles = tile("images", f"{data.images:,}", "Images") + tile("masks", f"{data.masks:,}", "Masks")
    if run:
        about = f"SA-1B: about {SA1B_MASKS_PER_IMAGE}"
        tiles += tile("masks-per-image", f"{run.masks_per_image:.1f}", "Masks per image", about)
    tiles += tile("rejects", f"{data.rejects:,}", "Rejected inputs")
    if run and run.images_per_s:
        tiles += tile("images-per-s", f"{run.images_per_s:.3g}", "Images/s of one worker")
    return tiles


def _facts(data: ReportData) -> str:
    facts = []
    run = data.run
    if run:
        facts += [("Model", f"<code>{text(run.model_id)}</code>")] if run.model_id else []
        facts += [("Preset", _preset(run))] if run.preset else []
        facts += [("Thresholds", _thresholds(run))] if run.thresholds else []
        facts += [("Plans", f"{_plan_ids(run)}; {run.shards_done:,} of {run.shards_planned:,} shards done")]
        facts += [("Finished", f"{moment(run.finished_at)}, after {duration(run.seconds)} of work")]
    facts += [("Written", moment(data.written_at))]
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    return f'<dl class="facts">{rows}</dl>'


def _preset(run: RunFacts) -> str:
    changed = ", ".join(f"{name} = {value}" for name, value in run.changed_settings.items())
    return f"<code>{text(run.preset)}</code>" + (f" with {text(changed)}" if changed else "")


def _thresholds(run: RunFacts) -> str:
    return ", ".join(f"{SCORES[name]} {value:.3g}" for name, value in run.thresholds.items())


def _plan_ids(run: RunFacts) -> str:
    shown = ", ".join(f"<code>{text(plan_id)}</code>" for plan_id in run.plan_ids[:3])
    return shown + (f" and {len(run.plan_ids) - 3:,} more" if len(run.plan_ids) > 3 else "")


def _earlier_runs(data: ReportData) -> str:
    """Only where there are any: the page is about the newest."""
    if not data.earlier_runs:
        return ""
    columns = ("Plans", "Model", "Preset", "Finished", "#Images", "#Masks")
    rows = [
        (
            _plan_ids(run),
            text(run.model_id or "people"),
            _preset(run) if run.preset else "",
            moment(run.finished_at),
            f"{run.images:,}",
            f"{run.masks:,}",
        )
        for run in reversed(data.earlier_runs)
    ]
    about = "Of other models or settings. This page is about the newest; the number of masks above counts all of them."
    return card(f"<h3>Other masks in this dataset</h3>{note(about)}{table(columns, rows)}")


def _pictures(data: ReportData) -> str:
    if not data.pictures:
        return ""
    shown = "".join(_picture(picture, masked=data.run is not None) for picture in data.pictures)
    number, everything = len(data.pictures), data.run.images if data.run else data.images
    spread = "spread evenly from most masks to fewest" if data.run else "spread evenly over the dataset"
    rule = "Every photograph." if number >= everything else f"{number} of {everything:,} photographs, {spread}."
    return (
        f'<h2>Photographs</h2><div class="bar">{note(f"{rule} Select one to enlarge it.")}'
        '<label class="switch"><input type="checkbox" id="show-masks" checked>Show masks</label></div>'
        f'<div class="pictures">{shown}</div>'
    )


def _picture(picture: Picture, *, masked: bool) -> str:
    overlay = draw_overlay(picture.data, picture.masks)
    name = text(PurePath(picture.source).name or picture.source)
    count, ratio = len(picture.masks), overlay.width / overlay.height
    number = f"{count:,} mask{'' if count == 1 else 's'}" if masked else "not masked yet"
    why = f'<span class="why">{text(_why_none(picture.diagnostics))}</span>' if masked and not count else ""
    size = f'width="{overlay.width}" height="{overlay.height}"'
    photo = f'<img alt="{name}" {size} src="{data_uri(overlay.photo_jpeg, "image/jpeg")}">'
    masks = f'<img class="masks" alt="" {size} src="{data_uri(overlay.masks_png, "image/png")}">'
    return (
        f'<figure style="--ratio:{ratio:.4f}"><label class="picture">'
        f'<input class="zoom" type="checkbox" aria-label="Enlarge {name}">'
        f'<span class="shelf"><span style="width:{min(100.0, 75 * ratio):.2f}%">{photo}{masks}</span></span></label>'
        f"<figcaption><b>{name}</b><br>{picture.width} × {picture.height} px · {number}{why}</figcaption></figure>"  # noqa: RUF001
    )


def _why_none(diagnostics: Diagnostics | None) -> str:
    if diagnostics is None or not diagnostics.candidates:
        return "No mask passed the filters."
    return sentence(diagnostics.explain())


def _funnel(counts: Diagnostics | None) -> str:
    """Every filter that took something, and those everybody looks for."""
    if counts is None or not counts.candidates:
        return ""
    left = counts.candidates
    rows = [_funnel_row("Candidates", "three masks for each point of the grid", 0, left, counts.candidates)]
    for each, taken in counts.taken.items():
        left -= taken
        if taken or each in ALWAYS_SHOWN:
            rows.append(_funnel_row(sentence(each.label), each.meaning, taken, left, counts.candidates))
    cleaned = f"{counts.cleaned:,} had specks or holes cleaned"
    rows.append(_funnel_row("Kept", cleaned, 0, counts.kept, counts.candidates))
    about = "Every candidate mask of this run, in the order of the filters. Percentages are of all candidates."
    filters = table(("Filter", "Takes", "#Taken", "#", "#Left", ""), rows, kind="funnel")
    return f"<h2>What the filters took</h2>{note(about)}{card(filters)}"


def _funnel_row(label: str, meaning: str, taken: int, left: int, candidates: int) -> tuple[str, ...]:
    before = left + taken
    meter = f"--full:{100 * before / candidates:.2f}%;--left:{100 * left / before if before else 0:.2f}%"
    share = percent(taken, candidates) if taken else ""
    return label, meaning, f"{taken:,}" if taken else "–", share, f"{left:,}", f'<i style="{meter}"></i>'  # noqa: RUF001


def _rejects(data: ReportData) -> str:
    if not data.reject_groups:
        return f"<h2>Rejected inputs</h2>{note('None: every input could be used.')}" if data.images else ""
    groups = [(text(group.reason), text(group.stage), f"{group.count:,}") for group in data.reject_groups]
    rows = [
        (text(row.reason), f'<span class="path">{text(row.source)}</span>', text(row.detail))
        for row in data.reject_rows
    ]
    more = data.rejects - len(rows)
    rest = f"<div>{note(f'and {more:,} more:')}{_command(data.uri, REJECTS_QUERY)}</div>" if more else ""
    return (
        f'<h2>Rejected inputs</h2>{note("What could not be used, and why.")}<div class="stack">'
        f"{card(table(('Reason', 'Stage', '#Inputs'), groups, kind='narrow'))}"
        f"{card(table(('Reason', 'Input', 'Detail'), rows))}{rest}</div>"
    )


def _next_steps(data: ReportData) -> str:
    blocks = "".join(f"<div><h3>{text(name)}</h3>{_command(data.uri, sql)}</div>" for name, sql in EXAMPLES)
    about = "Any SQL over the tables images, masks, shards and rejects."
    return f'<h2>Ask the dataset</h2>{note(about)}<div class="stack">{blocks}</div>'


def _footer(data: ReportData) -> str:
    source = "Kirillov et al., “Segment Anything”, 2023, arXiv:2304.02643"
    return f"<footer>What is said of SA-1B is from {source}. Written {moment(data.written_at)}.</footer>"


def _command(uri: str, sql: str) -> str:
    return f"<pre>{text(f'gigamask query --dataset {shlex.quote(uri)} {shlex.quote(sql)}')}</pre>"
