"""Prometheus' text format (version 0.0.4) of counters and gauges."""

from __future__ import annotations

from collections.abc import Mapping

from runtime.metrics.definition import Series

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def prometheus_text(values: Mapping[Series, float]) -> str:
    """The series of one metric follow each other in `values`. The labels of a `Definition` need no escapes."""
    lines, last = [], None
    for series, value in values.items():
        definition = series.definition
        if definition is not last:
            lines += [f"# HELP {definition.name} {definition.meaning}", f"# TYPE {definition.name} {definition.kind}"]
            last = definition
        labels = ",".join(f'{name}="{text}"' for name, text in series.labels)
        lines.append(f"{definition.name}{f'{{{labels}}}' if labels else ''} {float(value)}")
    return "\n".join(lines) + "\n"
