"""Stage `tracks`: detect and track objects in every video."""
