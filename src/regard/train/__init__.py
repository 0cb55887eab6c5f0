"""Training: options, schedule, loop, checkpoints, several processes."""
