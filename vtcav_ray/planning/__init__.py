"""Before a run: what it would do (`dry_run`), and what it would take (`sample`, `estimate`)."""
