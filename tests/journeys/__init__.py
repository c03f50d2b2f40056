"""The third tier: whole journeys, with fresh folders, real clients and killed processes."""
