"""`python -m tests.gateway.clients_table`: write the README's table of clients from the results of their tests."""

from __future__ import annotations

from deploy.readme import write_part
from tests.gateway.features import ALL, FEATURES
from tests.gateway.ticks import Ticks, read_ticks

_PASSED, _FAILED, _ABSENT = "✓", "✗", ""


def clients_table(ticks: Ticks) -> str:
    """Markdown, one row for each feature, one column for each client. Empty: the client has no such call."""
    head = " | ".join(f"`{client.name}`" for client in ALL)
    lines = [f"| | {head} |", "|---|" + ":-:|" * len(ALL)]
    for feature, clients in FEATURES.items():
        cells = [_cell(ticks, feature, client.name) if client in clients else _ABSENT for client in ALL]
        lines.append(f"| {feature} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(ticks: Ticks, feature: str, client: str) -> str:
    return _PASSED if ticks.get(feature, {}).get(client) else _FAILED


if __name__ == "__main__":
    write_part("clients", clients_table(read_ticks()))
