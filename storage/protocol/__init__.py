"""Who makes what: plans, attempts, commit records, redo, and cleaning up."""
