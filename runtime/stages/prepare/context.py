"""The context in which a request is resolved: the server's parts and the request's own files."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.files.resolve import FileResolver, ResolveContext
from runtime.files.store import Store
from runtime.settings import Settings


@dataclass(frozen=True)
class PrepareContext:
    """The server's settings, store and file resolver. `request_files`: one request's files and its cancellation."""

    settings: Settings
    store: Store
    files: FileResolver
    request_files: ResolveContext

    def check_cancelled(self) -> None:
        """Raises a StageError when the request was cancelled, timed out, or the server stops."""
        self.request_files.check_cancelled()
