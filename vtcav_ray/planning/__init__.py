"""Planning of a run: what it would do (`dry_run`), and what it would cost (`sample`, `counts`, `estimate`)."""
