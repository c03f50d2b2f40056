"""Measurements: `python -m benchmarks` runs them, `results/` holds the figures, `perf_analyzer/` its inputs."""
