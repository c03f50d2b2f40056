"""Set-up and demonstration of Lorikeet on one machine."""
