"""Sections of the report. Each file holds one section's query, figures and HTML; `flows.report.page` lists all."""
