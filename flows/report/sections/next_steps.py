"""The section of example queries to continue with, each as a whole command."""

from flows.pages.markup import command, note, text
from flows.report.contents import ReportContents

EXAMPLES = (
    (
        "Images with the most masks",
        "SELECT i.source, count(*) AS masks FROM masks m JOIN images i ON m.image_id = i.image_id "
        "GROUP BY i.source ORDER BY masks DESC LIMIT 10",
    ),
    (
        "Images without any mask",
        "SELECT source, width, height FROM images WHERE image_id NOT IN (SELECT image_id FROM masks) ORDER BY source",
    ),
    (
        "The masks the model is least sure of: what to look at first",
        "SELECT i.source, m.mask_id, m.predicted_iou, m.stability_score, m.area_px FROM masks m "
        "JOIN images i ON m.image_id = i.image_id ORDER BY m.predicted_iou LIMIT 20",
    ),
)
"""Example queries as pairs of title and SQL."""


def render(contents: ReportContents) -> str:
    """Render the section as HTML."""
    blocks = "".join(
        f"<div><h3>{text(title)}</h3>{command('query', '--dataset', contents.uri, sql)}</div>"
        for title, sql in EXAMPLES
    )
    about = "Any SQL over the tables images, masks, shards and rejects."
    return f'<h2>Ask the dataset</h2>{note(about)}<div class="stack">{blocks}</div>'
