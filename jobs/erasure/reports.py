"""Pages of failed expectations that show a key among their examples."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.erasure.words import shown

KIND, TEXTS = "expectations", (".html", ".json")


def reported(folder: Path) -> list[str]:
    """Return of which pipelines there are reports below a folder."""
    return sorted(each.name for each in folder.glob(f"{KIND}/*") if each.is_dir())


@dataclass(frozen=True)
class Reports:
    """The reports of pipelines below a folder, and one key."""

    folder: Path
    pipelines: tuple[str, ...]
    key: str

    def count(self) -> int:
        """Return of how many reports a page shows the key."""
        return len(set(self._showing()))

    def erase(self) -> int:
        """Remove each report of which a page shows the key, as a whole; return how many."""
        found = sorted(set(self._showing()))
        for report in found:
            shutil.rmtree(report, ignore_errors=True)  # another erasure may remove it as well
        return len(found)

    def _showing(self) -> Iterator[Path]:
        word = shown(self.key)
        for pipeline in self.pipelines:
            root = self.folder / KIND / pipeline
            for page in sorted(root.rglob("*")):
                # A report is a folder below that of its suite.
                parts = page.relative_to(root).parts
                if page.suffix in TEXTS and len(parts) > 2 and word.search(page.read_text("utf-8", "replace")):  # noqa: PLR2004  reason: suite, report, page
                    yield root.joinpath(*parts[:2])
