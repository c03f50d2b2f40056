"""`python -m lorikeet`: the command `lorikeet`."""

from lorikeet.cli import app

app(prog_name="lorikeet")
