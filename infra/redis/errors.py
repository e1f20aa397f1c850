"""What can go wrong in making the configuration of a Redis."""


class UsersError(Exception):
    """A list of passwords of which no ACL file can be made; the message names the line or the user."""
