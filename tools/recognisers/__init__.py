"""The parts of `tools/train_recogniser.py`: clips and their groups, MMAction2 configs, and measures on held-out clips."""
