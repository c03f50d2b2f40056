"""Training of the demo model's networks: `python -m deploy.demo_model.training --help`."""
