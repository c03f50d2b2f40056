"""Guarded network access: downloads that a request names, and the credentials of hosts."""
