"""What `make setup` does: the virtual environment and the tools folder. Standard library only."""
