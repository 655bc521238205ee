"""A run: its stages, its record, its folders, and what is reused."""
