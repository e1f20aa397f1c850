"""The OpenAPI document is kept to by the running service, and its page needs no other host."""

import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from serving.apikeys import new_key
from serving.store import Store
from tests.serving.conftest import service_at
from tests.serving.publishing import publish

CONFIG = """
[parameters]
"path.pipeline" = "documented"
"""
KEY, LINE = new_key("tests", ["documented"])


@pytest.mark.parametrize(
    "header", [None, f"Authorization: Bearer {KEY}", f"X-API-Key: {KEY}"], ids=["no key", "bearer", "own header"]
)
def test_the_service_does_what_its_document_says(
    store: Store, redis_url: str, servers: ExitStack, tmp_path: Path, header: str | None
) -> None:
    publish(store, "documented", 1, {"a": 0.5}, fallback=0.25)
    (tmp_path / "config.toml").write_text(CONFIG)
    (tmp_path / "keys").write_text(LINE)
    keys = str(tmp_path / "keys")
    url = servers.enter_context(service_at(redis_url, api_keys_file=keys) if header else service_at(redis_url))
    program = str(Path(sys.executable).parent / "schemathesis")
    command = [program, "--config-file", "config.toml", "run", f"{url}/openapi.json", "--max-examples", "60"]
    command += ["--generation-deterministic", *(["--header", header] if header else [])]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout
    assert "Tested: 5" in told.stdout


def test_the_page_of_the_document_needs_no_other_host(service_url: str) -> None:
    page = httpx.get(f"{service_url}/docs")
    assert page.status_code == 200
    assert "//" not in re.sub(r"<!--.*?-->|// .*", "", page.text, flags=re.DOTALL).replace(service_url, "")
    parts = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(parts) == 3
    for part in parts:
        answer = httpx.get(service_url + part)
        assert (answer.status_code, len(answer.content) > 1000) == (200, True), part
    assert "url: '/openapi.json'" in page.text
