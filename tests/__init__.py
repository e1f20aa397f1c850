"""Tests mirror the packages; `e2e` runs the real thing."""
