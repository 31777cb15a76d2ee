"""The sections of the report. One file holds a section's query, figures and HTML; `flows.report.page` lists them."""
