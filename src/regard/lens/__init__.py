"""What a model attends to: recorded from a real run, measured, and drawn."""
