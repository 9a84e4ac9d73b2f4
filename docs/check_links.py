"""Whether every link of the built site leads somewhere: python docs/check_links.py DIRECTORY.

Links within the site must name a file that is there, and an anchor in it. Links to elsewhere are not followed, but must
be addresses.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LINKS = {"a": "href", "img": "src", "link": "href", "script": "src", "source": "src"}


class Page(HTMLParser):
    """The links and anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors = {"", "top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag leads to, and what leads to it."""
        given = dict(attrs)
        self.anchors.update(value for name in ("id", "name") if (value := given.get(name)))
        if tag in _LINKS and (link := given.get(_LINKS[tag])) is not None:
            self.links.append(link)


def broken(site: Path) -> list[str]:
    """A line for each link that leads nowhere."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme in {"data", "mailto"}:
                continue
            if parts.scheme or parts.netloc:
                good = parts.scheme in {"http", "https"} and "." in parts.netloc and " " not in link
            else:
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                target = target / "index.html" if target.is_dir() else target
                there = pages.get(target)
                good = target.is_file() and (there is None or unquote(parts.fragment) in there.anchors)
            if not good:
                found.append(f"{path.relative_to(site)}: {link}")
    return found


if __name__ == "__main__":
    lines = broken(Path(sys.argv[1]).resolve())
    print("\n".join(lines) or "every link leads somewhere")
    sys.exit(bool(lines))
