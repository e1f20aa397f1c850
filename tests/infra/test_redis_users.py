"""The ACL file: digests of the passwords on standard input, and nobody else is let in."""

import hashlib
import subprocess
import sys

import pytest

from infra.redis.users import TEMPLATE

PASSWORD = "".join(map(chr, range(65, 81)))


def made(*lines: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "infra.redis.users"]
    return subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=False)


def test_users_with_a_password_are_let_in_by_its_digest_and_all_others_are_off() -> None:
    done = made(f"reader {PASSWORD}", "", f"admin {PASSWORD[::-1]}")
    assert done.returncode == 0
    users = {line.split()[1]: line.split()[2:] for line in done.stdout.splitlines()}
    assert {name for name, rule in users.items() if rule[0] == "on"} == {"reader", "admin"}
    assert users["reader"][1] == "#" + hashlib.sha256(PASSWORD.encode()).hexdigest()
    assert users["default"] == ["off", "resetkeys", "resetchannels", "-@all"]
    assert PASSWORD not in done.stdout


def test_the_template_has_no_password() -> None:
    rules = [line for line in TEMPLATE.read_text().splitlines() if not line.startswith("#")]
    assert not [rule for rule in rules if "nopass" in rule or ">" in rule or "#" in rule]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (f"raeder {PASSWORD}", "raeder: no user of users.acl; write one of admin, publisher, reader"),
        (f"default {PASSWORD}", "default: no user"),
        ("reader short", "reader: a password of 5 characters: take 16 or more"),
        ("reader", "password 1: 1 words; write a user, a space, and its password"),
        (f"reader {PASSWORD} {PASSWORD}", "password 1: 3 words"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_without_showing_a_password(line: str, told: str) -> None:
    done = made(line)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert not {"short", PASSWORD} & set(done.stderr.split())
