"""What a job is: its records, its metric and its result."""
