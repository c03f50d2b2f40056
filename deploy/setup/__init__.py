"""What `make setup` does: the virtual environment, the tools folder and the tests' clients. Standard library only."""
