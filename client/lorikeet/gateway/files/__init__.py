"""Uploaded and generated files: their contents in fsspec, what is known of them in the database."""
