"""The code blocks of the README and of all other pages run as they stand, and the README's links lead somewhere."""

import re
import tomllib
from pathlib import Path

import pytest
from page_blocks import ROOT, blocks_of, pages_of, run_page

OTHERS = [page for page in ("README.md", *pages_of("docs/**/*.md")) if not page.startswith("docs/howto/")]


@pytest.mark.parametrize("page", OTHERS)
def test_the_blocks_run(page: str, tmp_path: Path) -> None:
    assert run_page(page, tmp_path) > 0


def test_a_block_is_found_with_what_is_said_of_it(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(
        "<!-- not run: hours -->\n```bash\nls\n```\n\n```python\na = 1\n```\n```console\n$ a\n```\n"
    )
    found = blocks_of(str(tmp_path / "page.md"))
    assert [(block.language, block.why_not) for block in found] == [("bash", "hours"), ("python", None)]


def test_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#\s]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_on_pypi_the_same_links_are_absolute() -> None:
    """As the build backend changes them, and to the address that the project gives."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    relative = re.findall(r"(!?)\[[^\]]*\]\((?!https?://)([^)#\s]+)", text)
    for one in project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(one["pattern"], one["replacement"], text)
    address = project["project"]["urls"]["Repository"]
    for image, path in relative:
        assert f"]({address}/{'raw' if image else 'blob'}/v$HFPR_VERSION/{path})" in text
    assert not re.search(r"\]\((?!https?://)", text)
