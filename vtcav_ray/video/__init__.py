"""Videos: which there are, their frames, and how a clip is stored."""
