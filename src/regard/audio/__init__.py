"""From sound files to model inputs."""
