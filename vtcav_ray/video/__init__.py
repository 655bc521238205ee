"""Video files: their storage, their frames, and how clips are stored."""
