"""Redis as a deployment runs it: configuration and users."""
