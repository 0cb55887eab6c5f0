"""From picture files to model inputs."""
