"""What resolving a request needs besides the request."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.files.resolve import FileResolver, ResolveContext
from runtime.files.store import Store
from runtime.settings import Settings


@dataclass(frozen=True)
class PrepareContext:
    """The server's settings, store and file resolver, and the files and the cancellation of one request."""

    settings: Settings
    store: Store
    files: FileResolver
    request_files: ResolveContext

    def check_cancelled(self) -> None:
        """Raises when the request must end."""
        self.request_files.check_cancelled()
