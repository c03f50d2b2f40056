"""What export and the Triton models share: files, weight sets, engines, the job table, and the logic of each stage."""
