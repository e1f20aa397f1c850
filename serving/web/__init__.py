"""The lookup service: HTTP in front, the application behind it, and what it tells of itself."""
