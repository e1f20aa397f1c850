"""Airflow's home: its configuration with secrets of its own, and its database."""

import json
import secrets
import sqlite3
import subprocess
from base64 import urlsafe_b64encode
from importlib.metadata import version
from pathlib import Path
from string import Template

from infra.embedded.errors import ServiceFailed
from infra.embedded.places import LOGS, ROOT, VAR, VENV, Ports

HOME = VAR / "airflow"
TEMPLATE = Path(__file__).with_name("airflow.cfg")


def configure(ports: Ports) -> None:
    """Write airflow.cfg for these ports; the secrets stay what they were."""
    HOME.mkdir(parents=True, exist_ok=True)
    values = {
        **kept_secrets(),
        "root": str(ROOT),
        "var": str(VAR),
        "url": ports.url("airflow"),
        "port": str(ports.airflow),
    }
    escaped = {name: value.replace("%", "%%") for name, value in values.items()}
    private(HOME / "airflow.cfg", Template(TEMPLATE.read_text()).substitute(escaped))


def kept_secrets() -> dict[str, str]:
    """Return the keys of this installation, made at the first call, with the administrator's password beside them."""
    path = HOME / "secrets.json"
    if not path.is_file():
        keys = {name: secrets.token_urlsafe(32) for name in ("secret_key", "jwt_secret")}
        fernet = urlsafe_b64encode(secrets.token_bytes(32)).decode()
        private(HOME / "passwords.json", json.dumps({"admin": secrets.token_urlsafe(12)}))
        private(path, json.dumps({**keys, "fernet_key": fernet}))
    kept: dict[str, str] = json.loads(path.read_text())
    return kept


def private(path: Path, text: str) -> None:
    """Write a file that only its owner reads."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)


def password() -> str:
    """Return the password of Airflow's user `admin`."""
    return str(json.loads((HOME / "passwords.json").read_text())["admin"])


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
    stamp.write_text(wanted)
