"""The commit protocol: plans, attempts, commit records, redo, and cleaning up."""
