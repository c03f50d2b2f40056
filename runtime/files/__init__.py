"""Files that a request names: where they come from, how they are fetched, and the store that keeps them by digest."""
