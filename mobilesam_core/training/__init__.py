"""Fine-tuning: setup → fit → validate, as plain functions over typed parts."""
