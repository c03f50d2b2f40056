"""The error of this package."""


class PlanError(Exception):
    """A plan cannot be loaded, refitted or run. The message is for the server's log."""
