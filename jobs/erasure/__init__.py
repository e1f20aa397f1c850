"""Erasure: a key goes out of everything that a pipeline keeps, and no way back lets it in again."""
