"""Parts of `tools/train_recogniser.py`: clips and their groups, MMAction2 configs, measures on held-out clips."""
