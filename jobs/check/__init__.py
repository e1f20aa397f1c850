"""Proves a pipeline before it runs: its files, its SQL on a sample, its model, and what its history demands."""
