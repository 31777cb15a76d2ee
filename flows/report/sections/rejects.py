"""The section on rejected inputs: their number by reason, and a list of the first ones."""

from flows.pages.markup import card, command, note, table, text
from flows.report.contents import ReportContents

NUM_ROWS = 40
"""Maximum number of rejects that the page lists one by one."""
QUERY = "SELECT source, stage, reason, detail FROM rejects ORDER BY stage, reason, source"
"""SQL query that lists all rejects; the page shows it as a command."""


def render(contents: ReportContents) -> str:
    """Render the section as HTML; "" where the dataset is empty."""
    if not contents.rejects:
        return f"<h2>Rejected inputs</h2>{note('None: every input could be used.')}" if contents.images else ""

    # By reason
    counted = "SELECT stage, reason, count(*) AS number FROM rejects GROUP BY stage, reason"
    groups = contents.rows(f"{counted} ORDER BY number DESC, stage, reason")
    by_reason = [(text(row["reason"]), text(row["stage"]), f"{row['number']:,}") for row in groups]

    # One by one
    columns = "stage, reason, source, detail"
    first = contents.rows(f"SELECT {columns} FROM rejects ORDER BY {columns} LIMIT {NUM_ROWS}")
    one_by_one = [
        (text(row["reason"]), f'<span class="path">{text(row["source"])}</span>', text(row["detail"])) for row in first
    ]

    # The rest
    more = contents.rejects - len(first)
    rest = f"<div>{note(f'and {more:,} more:')}{command('query', '--dataset', contents.uri, QUERY)}</div>"
    return (
        f'<h2>Rejected inputs</h2>{note("What could not be used, and why.")}<div class="stack">'
        f"{card(table(('Reason', 'Stage', '#Inputs'), by_reason, kind='narrow'))}"
        f"{card(table(('Reason', 'Input', 'Detail'), one_by_one))}{rest if more else ''}</div>"
    )
