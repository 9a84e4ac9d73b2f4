"""The code blocks of the README and of the documentation, and how they are run."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
RESUME = "docs/howto/resume.md"
_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<why>.+) -->\n)?^```(?P<language>python|bash)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    language: str
    text: str
    why_not: str | None  # what the page says of a block that is not run here


def blocks_of(page: str) -> list[Block]:
    """Blocks of Python and of shell commands; a console, with prompts, shows what is typed only."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(found["language"], found["text"], found["why"]) for found in _BLOCK.finditer(text)]


def run_page(page: str, folder: Path) -> int:
    """Run the blocks of a page one after another in one folder, each alone; returns how many."""
    blocks = [block for block in blocks_of(page) if block.why_not is None]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    for block in blocks:
        command = [sys.executable, "-c"] if block.language == "python" else ["bash", "-euo", "pipefail", "-c"]
        done = subprocess.run(
            [*command, block.text],
            cwd=folder,
            env={**os.environ, "PATH": path, "MPLBACKEND": "Agg"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{page}:\n{block.text}\n{done.stdout}\n{done.stderr}"
    return len(blocks)


def pages_of(pattern: str, *, commands: bool | None = None) -> list[str]:
    """Those that have a block which is run; with shell commands among them, or without, if that is asked for."""
    found = []
    for page in sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern)):
        languages = {block.language for block in blocks_of(page) if block.why_not is None}
        if languages and commands in (None, "bash" in languages):
            found.append(page)
    return found
