"""The report's HTML: one page with everything inside it, no script, nothing loaded from anywhere.

Every function returns HTML; what comes from a dataset passes through `_text` on its way into it.
"""

import base64
import shlex
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from pathlib import Path, PurePath

from engine.generate import Diagnostics
from flows import plots
from flows.overlays import draw_overlay
from flows.report_data import THRESHOLDS, Histograms, Picture, ReportData, RunFacts

FILTERS = (
    ("failed_predicted_iou", "predicted IoU", "the model itself expects a poor mask"),
    ("failed_stability", "stability", "a slightly tighter and a slightly looser cut differ too much"),
    ("cut_by_crop_edge", "crop edge", "the mask touches the border of a crop inside the picture"),
    ("empty", "empty", "no pixel in it"),
    ("covers_image", "covers the picture", "nearly the whole picture"),
    ("too_small", "too small", "below the area asked for"),
    ("too_large", "too large", "above the area asked for"),
    ("duplicate_in_crop", "NMS in a crop", "a better mask with nearly the same box"),
    ("duplicate_across_crops", "NMS across crops", "a mask from a closer crop with nearly the same box"),
    ("dissolved", "clean-up", "nothing but specks"),
    ("duplicate_after_cleanup", "NMS after clean-up", "the same box as another once cleaned"),
)
"""Field of Diagnostics, its name on the page, and what it means; in the order of the pipeline."""
ALWAYS_SHOWN = ("failed_predicted_iou", "failed_stability", "cut_by_crop_edge", "duplicate_in_crop", "dissolved")
SCORES = {"predicted_iou": "predicted IoU", "stability": "stability"}

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
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    sections = (
        _header(data, title),
        _pictures(data),
        _figures(data),
        _funnel(data.diagnostics),
        _rejects(data),
        _next_steps(data),
        _footer(data),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{_text(title)} · gigamask report</title><style>{style}</style></head>\n"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


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
        return _sentence(counts.explain()) + left, True
    bare = data.histograms.images_by_count.get(0, 0) if data.histograms else 0
    if 2 * bare >= run.images:
        return (
            f"{bare:,} of {run.images:,} images have no mask. {_where_candidates_went(counts, advise=True)}{left}",
            True,
        )
    return _where_candidates_went(counts, advise=False) + left, bool(unfinished)


def _where_candidates_went(counts: Diagnostics, *, advise: bool) -> str:
    lost, taken = max(counts.losses().items(), key=lambda item: item[1])
    kept = f"{counts.kept:,} of {counts.candidates:,} candidate masks kept ({_percent(counts.kept, counts.candidates)})"
    if not taken:
        return f"{kept}."
    label = {name: label for name, label, _ in FILTERS}[lost]
    setting = THRESHOLDS.get(lost.removeprefix("failed_"), "")
    advice = f"; a lower generate.{setting} keeps more" if advise and setting else ""
    return f"{kept}; {label} took most, {_percent(taken, counts.candidates)}{advice}."


def _header(data: ReportData, title: str) -> str:
    sentence, attention = verdict(data)
    return (
        f'<p class="kicker">gigamask report</p><h1>{_text(title)}</h1><p class="path">{_text(data.uri)}</p>'
        f'<div class="tiles">{_tiles(data)}</div>'
        f'<p class="verdict{" warn" if attention else ""}">{_text(sentence)}</p>'
        f'<div class="stack">{_card(_facts(data))}{_earlier_runs(data)}</div>'
    )


def _tiles(data: ReportData) -> str:
    run = data.run
    tiles = _tile("images", f"{data.images:,}", "Images") + _tile("masks", f"{data.masks:,}", "Masks")
    if run:
        note = f"SA-1B: about {plots.SA1B_MASKS_PER_IMAGE}"
        tiles += _tile("masks-per-image", f"{run.masks_per_image:.1f}", "Masks per image", note)
    tiles += _tile("rejects", f"{data.rejects:,}", "Rejected inputs")
    if run and run.images_per_s:
        tiles += _tile("images-per-s", f"{run.images_per_s:.3g}", "Images/s of one worker")
    return tiles


def _tile(name: str, value: str, label: str, note: str = "") -> str:
    small = f"<small>{note}</small>" if note else ""
    return f'<div class="card tile"><b id="{name}">{value}</b><span>{label}</span>{small}</div>'


def _facts(data: ReportData) -> str:
    facts = []
    run = data.run
    if run:
        facts += [("Model", f"<code>{_text(run.model_id)}</code>")] if run.model_id else []
        facts += [("Preset", _preset(run))] if run.preset else []
        facts += [("Thresholds", _thresholds(run))] if run.thresholds else []
        facts += [("Plans", f"{_plan_ids(run)}; {run.shards_done:,} of {run.shards_planned:,} shards done")]
        facts += [("Finished", f"{_time(run.finished_at)}, after {_duration(run.seconds)} of work")]
    facts += [("Written", _time(data.written_at))]
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    return f'<dl class="facts">{rows}</dl>'


def _preset(run: RunFacts) -> str:
    changed = ", ".join(f"{name} = {value}" for name, value in run.changed_settings.items())
    return f"<code>{_text(run.preset)}</code>" + (f" with {_text(changed)}" if changed else "")


def _thresholds(run: RunFacts) -> str:
    return ", ".join(f"{SCORES[name]} {value:.3g}" for name, value in run.thresholds.items())


def _plan_ids(run: RunFacts) -> str:
    shown = ", ".join(f"<code>{_text(plan_id)}</code>" for plan_id in run.plan_ids[:3])
    return shown + (f" and {len(run.plan_ids) - 3:,} more" if len(run.plan_ids) > 3 else "")


def _earlier_runs(data: ReportData) -> str:
    """Only where there are any: the page is about the newest."""
    if not data.earlier_runs:
        return ""
    columns = ("Plans", "Model", "Preset", "Finished", "#Images", "#Masks")
    rows = [
        (
            _plan_ids(run),
            _text(run.model_id or "people"),
            _preset(run) if run.preset else "",
            _time(run.finished_at),
            f"{run.images:,}",
            f"{run.masks:,}",
        )
        for run in reversed(data.earlier_runs)
    ]
    about = "Of other models or settings. This page is about the newest; the number of masks above counts all of them."
    return _card(f"<h3>Other masks in this dataset</h3>{_note(about)}{_table(columns, rows)}")


def _pictures(data: ReportData) -> str:
    if not data.pictures:
        return ""
    figures = "".join(_picture(picture, masked=data.run is not None) for picture in data.pictures)
    shown, everything = len(data.pictures), data.run.images if data.run else data.images
    spread = "spread evenly from most masks to fewest" if data.run else "spread evenly over the dataset"
    rule = "Every photograph." if shown >= everything else f"{shown} of {everything:,} photographs, {spread}."
    return (
        f'<h2>Photographs</h2><div class="bar">{_note(f"{rule} Select one to enlarge it.")}'
        '<label class="switch"><input type="checkbox" id="show-masks" checked>Show masks</label></div>'
        f'<div class="pictures">{figures}</div>'
    )


def _picture(picture: Picture, *, masked: bool) -> str:
    overlay = draw_overlay(picture.data, picture.masks)
    name = _text(PurePath(picture.source).name or picture.source)
    count, ratio = len(picture.masks), overlay.width / overlay.height
    number = f"{count:,} mask{'' if count == 1 else 's'}" if masked else "not masked yet"
    why = f'<span class="why">{_text(_why_none(picture.diagnostics))}</span>' if masked and not count else ""
    size = f'width="{overlay.width}" height="{overlay.height}"'
    photo = f'<img alt="{name}" {size} src="{_data_uri(overlay.photo_jpeg, "image/jpeg")}">'
    masks = f'<img class="masks" alt="" {size} src="{_data_uri(overlay.masks_png, "image/png")}">'
    return (
        f'<figure style="--ratio:{ratio:.4f}"><label class="picture">'
        f'<input class="zoom" type="checkbox" aria-label="Enlarge {name}">'
        f'<span class="shelf"><span style="width:{min(100.0, 75 * ratio):.2f}%">{photo}{masks}</span></span></label>'
        f"<figcaption><b>{name}</b><br>{picture.width} × {picture.height} px · {number}{why}</figcaption></figure>"  # noqa: RUF001
    )


def _why_none(diagnostics: Diagnostics | None) -> str:
    if diagnostics is None or not diagnostics.candidates:
        return "No mask passed the filters."
    return _sentence(diagnostics.explain())


def _figures(data: ReportData) -> str:
    if data.run is None or data.histograms is None:
        return ""
    about = "What the paper states of SA-1B, next to this run. Its curves are not redrawn here."
    return (
        f"<h2>Beside SA-1B</h2>{_note(about)}{_card(_comparison(data.run, data.histograms))}"
        f'<div class="plots">{_plots(data.run, data.histograms)}</div>'
    )


def _comparison(run: RunFacts, histograms: Histograms) -> str:
    bare = histograms.images_by_count.get(0, 0)
    audit = "94 % of masks above 90 % IoU with their correction, 97 % above 75 % (500 images, section 5)"
    rows = (
        ("Images", f"{run.images:,}", "11 million, shortest side 1500 px (section 5)"),
        ("Masks", f"{run.masks:,}", "1.1 billion, all made automatically (section 5)"),
        ("Masks per image", f"{run.masks_per_image:.1f}", "about 100 on average (section 1)"),
        ("Images without a mask", f"{bare:,} ({_percent(bare, run.images)})", "not stated"),
        ("Median √(mask area / image area)", f"{histograms.median_relative_size:.3f}", "drawn in figure 6, not stated"),
        ("Quality, judged by people", "not measured", audit),
    )
    return _table(("", "#This run", "SA-1B"), rows)


def _plots(run: RunFacts, histograms: Histograms) -> str:
    sizes = plots.plot_relative_size(histograms.relative_size_B, histograms.median_relative_size)
    figures = [
        _figure(
            "Mask size",
            sizes,
            "The axis of the paper's figure 6 (middle). SA-1B “tends to include a greater percentage of small and "
            "medium relative-size masks” than earlier datasets.",
        ),
        _figure(
            "Masks per image",
            plots.plot_masks_per_image(histograms.images_by_count),
            "The paper's figure 6 (left); SA-1B's mean as stated in section 1.",
        ),
        _figure(
            "Where masks lie",
            plots.plot_centres(histograms.centre_HW),
            "Centres of the masks' boxes, as the paper's figure 5: every dataset leans to the middle of the picture; "
            "SA-1B covers the corners more than LVIS v1 and ADE20K.",
        ),
    ]
    if histograms.predicted_iou_B.any():
        svg = plots.plot_score(
            histograms.predicted_iou_B,
            name="predicted IoU",
            threshold=run.thresholds.get("predicted_iou"),
            paper_threshold=plots.PAPER_PREDICTED_IOU,
        )
        figures.append(_figure("Predicted IoU", svg, "The model's own estimate. SA-1B's threshold: appendix B."))
    if histograms.stability_B.any():
        svg = plots.plot_score(
            histograms.stability_B,
            name="stability score",
            threshold=run.thresholds.get("stability"),
            paper_threshold=plots.PAPER_STABILITY,
        )
        about = "IoU of a slightly tighter and a slightly looser cut. SA-1B's threshold: appendix B."
        figures.append(_figure("Stability", svg, about))
    if histograms.scored_B.any():
        svg = plots.plot_iou_by_size(histograms.iou_sum_B, histograms.scored_B)
        about = "Mean over the kept masks, and below it how many they are. Crops (--preset paper) look for small ones."
        figures.append(_figure("Predicted IoU by mask size", svg, about))
    return "".join(figures)


def _figure(name: str, svg: str, caption: str) -> str:
    return f'<div class="card"><h3>{name}</h3>{svg}<p>{caption}</p></div>'


def _funnel(counts: Diagnostics | None) -> str:
    """Every filter that took something, and those everybody looks for."""
    if counts is None or not counts.candidates:
        return ""
    left = counts.candidates
    rows = [_funnel_row("Candidates", "three masks for each point of the grid", 0, left, counts.candidates)]
    for field, label, meaning in FILTERS:
        taken = counts.losses()[field]
        left -= taken
        if taken or field in ALWAYS_SHOWN:
            rows.append(_funnel_row(_sentence(label), meaning, taken, left, counts.candidates))
    cleaned = f"{counts.cleaned:,} had specks or holes cleaned"
    rows.append(_funnel_row("Kept", cleaned, 0, counts.kept, counts.candidates))
    about = "Every candidate mask of this run, in the order of the filters. Percentages are of all candidates."
    table = _table(("Filter", "Takes", "#Taken", "#", "#Left", ""), rows, kind="funnel")
    return f"<h2>What the filters took</h2>{_note(about)}{_card(table)}"


def _funnel_row(label: str, meaning: str, taken: int, left: int, candidates: int) -> tuple[str, ...]:
    before = left + taken
    meter = f"--full:{100 * before / candidates:.2f}%;--left:{100 * left / before if before else 0:.2f}%"
    share = _percent(taken, candidates) if taken else ""
    return label, meaning, f"{taken:,}" if taken else "–", share, f"{left:,}", f'<i style="{meter}"></i>'  # noqa: RUF001


def _rejects(data: ReportData) -> str:
    if not data.reject_groups:
        return f"<h2>Rejected inputs</h2>{_note('None: every input could be used.')}" if data.images else ""
    groups = [(_text(group.reason), _text(group.stage), f"{group.count:,}") for group in data.reject_groups]
    rows = [
        (_text(row.reason), f'<span class="path">{_text(row.source)}</span>', _text(row.detail))
        for row in data.reject_rows
    ]
    more = data.rejects - len(rows)
    rest = f"<div>{_note(f'and {more:,} more:')}{_command(data.uri, REJECTS_QUERY)}</div>" if more else ""
    return (
        f'<h2>Rejected inputs</h2>{_note("What could not be used, and why.")}<div class="stack">'
        f"{_card(_table(('Reason', 'Stage', '#Inputs'), groups, kind='narrow'))}"
        f"{_card(_table(('Reason', 'Input', 'Detail'), rows))}{rest}</div>"
    )


def _next_steps(data: ReportData) -> str:
    blocks = "".join(f"<div><h3>{_text(name)}</h3>{_command(data.uri, sql)}</div>" for name, sql in EXAMPLES)
    about = "Any SQL over the tables images, masks, shards and rejects."
    return f'<h2>Ask the dataset</h2>{_note(about)}<div class="stack">{blocks}</div>'


def _footer(data: ReportData) -> str:
    source = "Kirillov et al., “Segment Anything”, 2023, arXiv:2304.02643"
    return f"<footer>What is said of SA-1B is from {source}. Written {_time(data.written_at)}.</footer>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "") -> str:
    """Cells are HTML; a column whose name begins with # holds numbers."""
    classes = [' class="number"' if column.startswith("#") else "" for column in columns]
    heads = "".join(f"<th{each}>{name.lstrip('#')}</th>" for each, name in zip(classes, columns, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{each}>{cell}</td>" for each, cell in zip(classes, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<table class="{kind}"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'


def _card(inside: str) -> str:
    return f'<div class="card scroll">{inside}</div>'


def _note(text: str) -> str:
    return f'<p class="note">{_text(text)}</p>'


def _command(uri: str, sql: str) -> str:
    return f"<pre>{_text(f'gigamask query --dataset {shlex.quote(uri)} {shlex.quote(sql)}')}</pre>"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _percent(part: int, whole: int) -> str:
    share = 100 * part / whole if whole else 0.0
    if share and share < 0.1:
        return "under 0.1 %"
    return f"{share:.0f} %" if share >= 10 or not share else f"{share:.1f} %"


def _time(moment: datetime) -> str:
    return f"{moment:%d %b %Y, %H:%M} UTC"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours:,} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
    )


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _text(value: str) -> str:
    """Safe between tags and inside quoted attributes."""
    return escape(value, quote=True)
