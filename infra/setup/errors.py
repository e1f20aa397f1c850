"""SetupError: what set-up could not put in place, why, and what a person does about it."""


class SetupError(Exception):
    """Set-up stops here; the message names the thing, the reason and the remedy."""
