"""Stage `tracks`: detect and follow objects in every video."""
