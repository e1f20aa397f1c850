"""Make the ACL file of a Redis: `python -m infra.redis.users < passwords > users.acl`.

Standard input has a line for each user that is to be let in: its name, a space, its password. A password for each is
made by `for user in admin reader publisher; do echo "$user $(openssl rand -hex 32)"; done`; keep what it prints in your
secret store alone. The file that is made holds their SHA-256 digests, and switches all other users off.
"""

import hashlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from infra.redis.errors import UsersError

TEMPLATE = Path(__file__).with_name("users.acl")
SHORTEST = 16  # of a shorter password the digest would soon tell it


def acl_file(passwords: Mapping[str, str]) -> str:
    """Return an ACL file that lets in the users who have a password, by their names in the template."""
    rules = [line.split() for line in TEMPLATE.read_text().splitlines() if line.startswith("user ")]
    known = {rule[1] for rule in rules if rule[2] == "on"}
    for name, password in passwords.items():
        if name not in known:
            raise UsersError(f"{name}: no user of {TEMPLATE.name}; write one of {', '.join(sorted(known))}")
        if len(password) < SHORTEST:
            raise UsersError(f"{name}: a password of {len(password)} characters: take {SHORTEST} or more, at random")
    return "".join(_line(name, rule, passwords.get(name)) for _, name, _, *rule in rules)


def _line(name: str, rule: list[str], password: str | None) -> str:
    way = "off" if password is None else f"on #{hashlib.sha256(password.encode()).hexdigest()}"
    return f"user {name} {way} {' '.join(rule)}\n"


def passwords_of(lines: Iterable[str]) -> dict[str, str]:
    """Return the passwords by user of lines that each have a name, a space and a password."""
    pairs = [line.split() for line in lines if line.strip()]
    for number, pair in enumerate(pairs, 1):
        if len(pair) != 2:  # noqa: PLR2004  reason: a pair
            raise UsersError(f"password {number}: {len(pair)} words; write a user, a space, and its password")
    return dict(pairs)


def main() -> int:
    """Read passwords from standard input, and write the file to standard output."""
    try:
        sys.stdout.write(acl_file(passwords_of(sys.stdin)))
    except UsersError as fault:
        sys.stderr.write(f"scoreline: error: {fault}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
