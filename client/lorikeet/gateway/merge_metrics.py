"""Joins the metrics of several servers into one text of Prometheus' format 0.0.4."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_HEAD = re.compile(r"# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*)(?: .*)?")
# name, labels, value with a timestamp or without
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? +([^\s{}]+(?: +-?\d+)?)")
_OWN = "lorikeet_gateway_"  # names of the gateway, which no server may give a value


@dataclass
class _Family:
    """The lines of one metric. The format wants them together, with one HELP and one TYPE."""

    heads: dict[str, str] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)


def merge_metrics(texts: Iterable[tuple[str | None, str]]) -> str:
    """One text of pairs of a server's name and its metrics. With a name, each sample gets the label `server`.

    Lines that are neither samples nor HELP nor TYPE are left out.
    """
    families: dict[str, _Family] = {}
    for server, text in texts:
        current = ""
        for line in text.splitlines():
            if head := _HEAD.fullmatch(line):
                current = head[2]
                families.setdefault(current, _Family()).heads.setdefault(head[1], line)
            elif sample := _SAMPLE.fullmatch(line):
                # A histogram's samples have the family's name and a suffix.
                name = current if current and sample[1].startswith(current) else sample[1]
                families.setdefault(name, _Family()).samples.append(_labelled(sample, server))
    kept = [one for name, one in families.items() if one.samples and not name.startswith(_OWN)]
    return "".join(f"{line}\n" for family in kept for line in (*family.heads.values(), *family.samples))


def _labelled(sample: re.Match[str], server: str | None) -> str:
    labels = sample[2] or ""
    if server is None or re.search(r'(?:^|,)server="', labels):
        return sample[0]
    value = server.replace("\\", "\\\\").replace('"', '\\"')
    joined = f'server="{value}"' + (f",{labels}" if labels else "")
    return f"{sample[1]}{{{joined}}} {sample[3]}"
