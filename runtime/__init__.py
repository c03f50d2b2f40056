"""What export and the Triton models share: files, weight sets, engines, the board, and the logic of each stage."""
