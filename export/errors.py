"""The error of this package."""


class ExportError(Exception):
    """A network cannot be exported. The message is for the user."""
