"""`python -m deploy.readme`: write the README's tables of settings and metrics. Other packages write theirs by
`write_part`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import ByteSize
from pydantic_settings import BaseSettings

from lorikeet.gateway.metric_definitions import GATEWAY_DEFINITIONS
from lorikeet.gateway.metric_definitions import Definition as GatewayDefinition
from lorikeet.gateway.settings import PREFIX as GATEWAY_PREFIX
from lorikeet.gateway.settings import GatewaySettings
from runtime.metrics.definition import Definition
from runtime.metrics.stage_definitions import STAGE_DEFINITIONS
from runtime.settings import PREFIX, ROOT, Settings
from runtime.supervisor.status_definitions import STATUS_DEFINITIONS

README = ROOT / "README.md"
_COMPUTED = {
    "gateway_id": "the host name",
    "artifacts": "next to the store",
    "local_paths": "the demo's",
    "memory_bytes": "3/4 of the machine's",
    "weights_bytes": "`8GiB`",
}


def replace_part(text: str, name: str, content: str) -> str:
    """Replace what stands between `<!-- name: ... -->` and `<!-- /name -->`. Raises ValueError without these marks."""
    part = re.compile(rf"(<!-- {re.escape(name)}: [^\n]*-->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
    replaced, count = part.subn(lambda match: f"{match[1]}{content}{match[2]}", text)
    if count != 1:
        raise ValueError(f"expected one part between '<!-- {name}: ... -->' and '<!-- /{name} -->', found {count}")
    return replaced


def write_part(name: str, content: str, readme: Path = README) -> None:
    """Replace one generated part of the README file. Raises ValueError without its marks."""
    readme.write_text(replace_part(readme.read_text("utf-8"), name, content), "utf-8")


def settings_table(settings: type[BaseSettings], prefix: str) -> str:
    """Markdown, one row for each setting: variable, default, description."""
    rows = [
        f"| `{prefix}{name.upper()}` | {_default(name, field.default)} | {field.description} |"
        for name, field in settings.model_fields.items()
    ]
    return "\n".join(["| variable | default | |", "|---|---|---|", *rows]) + "\n"


def metrics_table() -> str:
    """Markdown, one row for each metric: name, type, labels, default port, meaning."""
    ports = Settings.model_fields
    rows = [_metric(one, ports["metrics_port"].default) for one in STAGE_DEFINITIONS]
    rows += [_metric(one, ports["status_port"].default) for one in STATUS_DEFINITIONS]
    rows += [_metric(one, GatewaySettings.model_fields["port"].default) for one in GATEWAY_DEFINITIONS]
    return "\n".join(["| metric | type | labels | port | |", "|---|---|---|---|---|", *rows]) + "\n"


def _metric(definition: Definition | GatewayDefinition, port: int) -> str:
    labels = ", ".join(f"`{label}`" for label in definition.labels)
    return f"| `{definition.name}` | {definition.kind} | {labels} | {port} | {definition.meaning} |"


def _default(name: str, value: Any) -> str:
    if name in _COMPUTED:
        return _COMPUTED[name]
    if isinstance(value, ByteSize):
        return f"`{value.human_readable(separator='')}`"
    return "none" if value in ((), None) else f"`{value}`"


if __name__ == "__main__":
    write_part("settings", settings_table(Settings, PREFIX))
    write_part("gateway settings", settings_table(GatewaySettings, GATEWAY_PREFIX))
    write_part("metrics", metrics_table())
