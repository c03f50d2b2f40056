"""fal's clients, as `make clients` installs them, each call in a process of its own."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.settings import ROOT, tools_folder
from tests.gateway.target import Target

_SECONDS = 120.0
_JAVASCRIPT = Path(__file__).parent / "clients" / "js"


class ClientError(Exception):
    """The error that a client raised. `found`: its class `type`, `message`, `status`, `body` and what else it has."""

    def __init__(self, found: dict[str, Any]) -> None:
        super().__init__(json.dumps(found))
        self.found = found


@dataclass(frozen=True)
class JavaScriptClient:
    """`name`: package and version, as the README shows them. `package`: the name under which it is installed."""

    name: str
    package: str
    language = "JavaScript"

    def call(self, target: Target, call: str, *, route: str = "middleware", **arguments: Any) -> Any:
        """Run a function of `clients/js/calls.mjs`. Raises ClientError."""
        job = {"client": self.package, "call": call, "gateway": target.url, "key": target.key, "route": route}
        return _answer(run_node(target.workspace, "main.mjs", job | _in_json(arguments)))


@dataclass(frozen=True)
class PythonClient:
    """`environment`: the folder in which it is installed. `is_async`: whether its coroutines are used."""

    name: str
    environment: str
    is_async: bool
    language = "Python"

    def call(
        self,
        target: Target,
        call: str,
        *,
        options: dict[str, Any] | None = None,
        part_bytes: int | None = None,
        **arguments: Any,
    ) -> Any:
        """Run a function of `clients/python/calls.py` or `async_calls.py`. Raises ClientError."""
        host = target.url.removeprefix("https://")
        job = {
            "call": call,
            "is_async": self.is_async,
            "rest": f"{target.url}/rest",
            "cdn": f"{target.url}/cdn",
            "part_bytes": part_bytes,
            "arguments": _in_json(arguments) | (options or {}),
        }
        variables = {
            "FAL_KEY": target.key,
            "FAL_RUN_HOST": f"{host}/run",
            "FAL_QUEUE_RUN_HOST": f"{host}/queue",
            "SSL_CERT_FILE": str(target.authority),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        python = clients_folder() / self.environment / "bin" / "python"
        return _answer(_run([str(python), "-m", "tests.gateway.clients.python.main"], job, ROOT, variables))


AnyClient = JavaScriptClient | PythonClient


def clients_folder() -> Path:
    folder = tools_folder() / "clients"
    assert (folder / ".stamp").exists(), "run `make clients`"
    return folder.absolute()


def make_workspace(folder: Path) -> None:
    """Put the JavaScript files where Node finds the installed packages: it looks for them from the file's place."""
    for source in _JAVASCRIPT.glob("*.mjs"):
        (folder / source.name).write_bytes(source.read_bytes())
    (folder / "node_modules").symlink_to(clients_folder() / "node_modules")


def run_node(
    workspace: Path, script: str, job: Any, *options: str, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script of the workspace with `job` as JSON on its standard input."""
    node = clients_folder() / "node" / "bin" / "node"
    return _run([str(node), *options, script], job, workspace, variables or {})


def _run(command: list[str], job: Any, folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FAL_", "SSL_"))}
    return subprocess.run(
        command,
        input=json.dumps(job),
        capture_output=True,
        text=True,
        cwd=folder,
        env=kept | variables,
        timeout=_SECONDS,
    )


def _answer(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    if "error" in answer:
        raise ClientError(answer["error"])
    return answer["value"]


def _in_json(arguments: dict[str, Any]) -> dict[str, Any]:
    """File contents travel as base64."""
    return {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for name, value in arguments.items()
    }
