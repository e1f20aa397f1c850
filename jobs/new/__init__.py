"""Writes a new pipeline: files that run at once on a small example, with comments where to change them."""
