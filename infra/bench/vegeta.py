"""Vegeta, which sends at a constant rate whatever comes back: built from the modules that go.sum names by digest."""

import shutil
from pathlib import Path

from infra.setup.steps import run, step

MODULE = Path(__file__).with_name("vegeta")
REMEDY = "install Go 1.22 or newer (Debian 13, Ubuntu 24.04: apt-get install golang-go; macOS: brew install go)"


def program(folder: Path) -> Path:
    """Return the program, built below `folder` unless it is there.

    Raises:
        SetupError: there is no Go, or its module proxy is out of reach.
    """
    built = folder / "bin/vegeta"
    if not built.is_file():
        with step(f"vegeta, from its Go modules, below {folder.name}"):
            _build(built, folder / "go")
    return built


def _build(target: Path, cache: Path) -> None:
    own = [f"GOPATH={cache}", f"GOCACHE={cache}/cache", "GOFLAGS=-mod=readonly -modcacherw -buildvcs=false"]
    command = ["go", "build", "-o", str(target), "github.com/tsenart/vegeta/v12"]
    run(["/usr/bin/env", "GOTOOLCHAIN=local", *own, *command], REMEDY, cwd=MODULE)
    shutil.rmtree(cache)
