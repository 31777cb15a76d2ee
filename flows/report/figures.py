"""The report's part beside SA-1B: what the paper states, next to what this run has."""

from flows.pages import svg as plots
from flows.pages.markup import card, note, percent, table
from flows.report.data import Histograms, ReportData, RunFacts


def figures(data: ReportData) -> str:
    """HTML of the section; "" where no mask was made."""
    if data.run is None or data.histograms is None:
        return ""
    about = "What the paper states of SA-1B, next to this run. Its curves are not redrawn here."
    return (
        f"<h2>Beside SA-1B</h2>{note(about)}{card(_comparison(data.run, data.histograms))}"
        f'<div class="plots">{_plots(data.run, data.histograms)}</div>'
    )


def _comparison(run: RunFacts, histograms: Histograms) -> str:
    bare = histograms.images_by_count.get(0, 0)
    audit = "94 % of masks above 90 % IoU with their correction, 97 % above 75 % (500 images, section 5)"
    rows = (
        ("Images", f"{run.images:,}", "11 million, shortest side 1500 px (section 5)"),
        ("Masks", f"{run.masks:,}", "1.1 billion, all made automatically (section 5)"),
        ("Masks per image", f"{run.masks_per_image:.1f}", "about 100 on average (section 1)"),
        ("Images without a mask", f"{bare:,} ({percent(bare, run.images)})", "not stated"),
        ("Median √(mask area / image area)", f"{histograms.median_relative_size:.3f}", "drawn in figure 6, not stated"),
        ("Quality, judged by people", "not measured", audit),
    )
    return table(("", "#This run", "SA-1B"), rows)


def _plots(run: RunFacts, histograms: Histograms) -> str:
    sizes = plots.plot_relative_size(histograms.relative_size_B, histograms.median_relative_size)
    drawn = [
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
        drawn.append(_figure("Predicted IoU", svg, "The model's own estimate. SA-1B's threshold: appendix B."))
    if histograms.stability_B.any():
        svg = plots.plot_score(
            histograms.stability_B,
            name="stability score",
            threshold=run.thresholds.get("stability"),
            paper_threshold=plots.PAPER_STABILITY,
        )
        about = "IoU of a slightly tighter and a slightly looser cut. SA-1B's threshold: appendix B."
        drawn.append(_figure("Stability", svg, about))
    if histograms.scored_B.any():
        svg = plots.plot_iou_by_size(histograms.iou_sum_B, histograms.scored_B)
        about = "Mean over the kept masks, and below it how many they are. Crops (--preset paper) look for small ones."
        drawn.append(_figure("Predicted IoU by mask size", svg, about))
    return "".join(drawn)


def _figure(name: str, svg: str, caption: str) -> str:
    return f'<div class="card"><h3>{name}</h3>{svg}<p>{caption}</p></div>'
