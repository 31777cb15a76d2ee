"""Annotation server: clicks in, masks out, and the HTTP interface to rounds and tasks; the only home of FastAPI."""
