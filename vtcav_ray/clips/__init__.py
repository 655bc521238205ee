"""Stage `clips`: choose and cut concept clips, class examples and random clips."""
