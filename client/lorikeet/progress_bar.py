"""A progress bar over the steps of each stage of one request."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from typing_extensions import Self

from lorikeet.schema import JobStatus


class ProgressBar:
    """Shows the status of a request until the `with` block ends. `show` may be called from any thread."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("sent", total=None)

    def show(self, status: JobStatus) -> None:
        """Draw the stage, or the state while the stage is unset, and the steps."""
        self._progress.update(
            self._task,
            description=status.stage or status.status,
            completed=status.step,
            total=status.of or None,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
