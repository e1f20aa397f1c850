"""Airflow's home: its configuration with secrets of its own, what its processes import first, and its database."""

import json
import secrets
import sqlite3
import subprocess
from base64 import urlsafe_b64encode
from importlib.metadata import version
from pathlib import Path
from string import Template

from infra.embedded.errors import ServiceFailed
from infra.embedded.places import LOGS, VAR, VENV, Ports
from infra.embedded.settings import ROOT
from infra.embedded.state import PRIVATE, read_json, write

HOME = VAR / "airflow"
SECRETS, PASSWORDS = HOME / "secrets.json", HOME / "passwords.json"
KEYS = ("secret_key", "jwt_secret", "fernet_key")
TEMPLATE = Path(__file__).with_name("airflow.cfg")
LOCAL = "airflow_local_settings.py"


def configure(ports: Ports) -> None:
    """Write airflow.cfg for these ports, and the local settings; the secrets stay what they were."""
    folder = HOME / "config"  # from where Airflow imports them
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / LOCAL, Path(__file__).with_name(LOCAL).read_text())
    values = {
        **kept_secrets(),
        "root": str(ROOT),
        "var": str(VAR),
        "url": ports.url("airflow"),
        "port": str(ports.airflow),
    }
    escaped = {name: value.replace("%", "%%") for name, value in values.items()}
    write(HOME / "airflow.cfg", Template(TEMPLATE.read_text()).substitute(escaped), PRIVATE)


def kept_secrets() -> dict[str, str]:
    """Return the keys of this installation, made at the first call, with the administrator's password beside them."""
    if read_json(PASSWORDS, admin_of) is None:
        write(PASSWORDS, json.dumps({"admin": secrets.token_urlsafe(12)}), PRIVATE)
    kept = read_json(SECRETS, keys_of)
    if kept is None:
        fernet = urlsafe_b64encode(secrets.token_bytes(32)).decode()
        kept = {"secret_key": secrets.token_urlsafe(32), "jwt_secret": secrets.token_urlsafe(64), "fernet_key": fernet}
        write(SECRETS, json.dumps(kept), PRIVATE)
    return kept


def keys_of(content: dict[str, str]) -> dict[str, str]:
    """Return the three keys of the file."""
    return {name: content[name] for name in KEYS}


def admin_of(content: dict[str, str]) -> str:
    """Return the administrator's password of the file."""
    return str(content["admin"])


def password() -> str:
    """Return the password of Airflow's user `admin`.

    Raises:
        ServiceFailed: it is not on record.
    """
    kept = read_json(PASSWORDS, admin_of)
    if kept is None:
        raise ServiceFailed(f"{PASSWORDS} holds no password: `make down`, then `make up`, makes a new one")
    return kept


def migrate(environment: dict[str, str]) -> None:
    """Create or upgrade the database, once for each version of Airflow.

    Raises:
        ServiceFailed: `airflow db migrate` failed.
    """
    stamp = HOME / "migrated.txt"
    wanted = version("apache-airflow")
    if stamp.is_file() and stamp.read_text() == wanted and (HOME / "airflow.db").is_file():
        return
    log = LOGS / "airflow-db-migrate.log"
    with log.open("wb") as output:
        done = subprocess.run(
            [VENV / "airflow", "db", "migrate"], env=environment, stdout=output, stderr=output, check=False
        )
    if done.returncode != 0:
        raise ServiceFailed(f"`airflow db migrate` failed with exit code {done.returncode}: see {log}")
    with sqlite3.connect(HOME / "airflow.db") as database:
        # Readers and the one writer no longer wait for each other; the file remembers it.
        database.execute("PRAGMA journal_mode=WAL")
    write(stamp, wanted)
