"""The parts of `benchmarks/gpu.py`, one file each: `run(part)` measures and notes each figure at once."""
