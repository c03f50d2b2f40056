"""Measurements: `python -m benchmarks` runs the cases, `results/` holds figures, `perf_analyzer/` its input."""
