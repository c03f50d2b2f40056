"""The metrics of a stage's weights."""

from __future__ import annotations

from runtime.engines.torch.weights_cache import WeightsCache
from runtime.metrics.stage_definitions import LORA_HITS, LORA_MERGES, WEIGHTS_BYTES, WEIGHTS_EVICTIONS, WEIGHTS_LOADS
from runtime.metrics.stage_metrics import StageMetrics


def watch_weights(metrics: StageMetrics, weights: WeightsCache) -> None:
    """Publish what the cache holds and counts."""
    counts = weights.counts
    metrics.watch(WEIGHTS_BYTES, lambda: weights.nbytes)
    metrics.watch(WEIGHTS_LOADS, lambda: counts.loads)
    metrics.watch(WEIGHTS_EVICTIONS, lambda: counts.evictions)
    metrics.watch(LORA_MERGES, lambda: counts.merges)
    metrics.watch(LORA_HITS, lambda: counts.merged_hits)
