"""Pages that are made from other files of the project, so that nothing is written twice.

Tutorials are the notebooks, the gallery is :mod:`packing_jax.figures.catalogue`, the options are what ``--help`` says,
the modules are those of the package. All of it is made anew whenever the site is built, and kept by nobody.
"""

import contextlib
import importlib
import inspect
import io
import operator
import os
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.ext.napoleon import Config, GoogleDocstring

#: References that this site does not answer: types of other packages, type variables, and shapes by their names.
ELSEWHERE = [
    (r"py:.*", r"(jax|jaxlib|jaxtyping|jnp|np|numpy|optax|scipy|xarray|xr|matplotlib|distributed|zarr|tyro)\..*"),
    (r"py:.*", r"(collections|contextlib|dataclasses|os|pathlib|threading|typing)\..*"),
    (
        r"py:.*",
        r"(Array|ArrayLike|ArrayTree|Axes|NDArray|ndarray|Path|Any|Callable|Mapping|Sequence|Iterator|Iterable)",
    ),
    (r"py:.*", r"(packing_jax\..*\.)?(_\w+|S|T)|os"),
]

_ROOT = Path(__file__).parents[1]
_SHORT = 28  # letters of a word that fits any screen
_ROOMS = {
    "spheres": "Spheres: systems, energies and rules",
    "networks": "Networks: tasks, data, rules and theory",
    "observables": "Observables and structure",
    "criticality": "phi_c, exponents and universality classes",
    "landscape": "Minima, jamming and flatness",
    "derivatives": "Derivatives through a run",
    "sweeps": "Sweeps and stores",
    "figures": "Published figures",
    "drive": "The driver: the loop over steps",
}

_OTHERS = [
    f"packing_jax.{name}"
    for name in (
        "simulation",
        "adaptive",
        "phi_range",
        "search_folder",
        "errors",
        "estimate",
        "exact",
        "optimizers",
        "random_words",
        "trees",
        "versions",
        "devices",
        "commands.plots",
        "commands.phi_c_plots",
        "commands.summary",
        "commands.learning_plots",
        "commands.learning_summary",
    )
]

_GALLERY = """# Gallery of reproduced figures

Each of these is a figure or a claim of a published paper. `packing-jax reproduce NAME` runs the simulations, draws the
figure with the axes of the paper, and compares every number with a reference. A reference is an exact value, a
published value, a value that follows from the definitions (derived), or another number of the same run (consistency).

The column "agrees" says **yes** if the two differ by at most two joint standard errors and our error is small enough to
decide, **undecided** if our error is larger than was required beforehand, and **no** if they differ.

The pictures are from size `quick`, which takes minutes. `--size full` takes longer and decides more.
"""


def write_pages(docs: Path) -> None:
    """Write all of them below ``docs``, where git does not look at them; what has not changed keeps its time."""
    pages = {
        **dict(_tutorials()),
        **dict(_gallery(docs / "gallery")),
        **dict(_modules()),
        "reference/options.md": _options(),
        "changelog.md": _of_the_project("CHANGELOG.md"),
        "validation_table.md": _of_the_project("tests/validation/README.md"),
    }
    for name, text in pages.items():
        page = docs / name
        page.parent.mkdir(parents=True, exist_ok=True)
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")
    for folder in ("tutorials", "gallery", "reference/api"):
        for page in (docs / folder).glob("*"):
            name = page.relative_to(docs).as_posix()
            if page.suffix in {".md", ".rst", ".ipynb"} and name not in pages and page.name != "index.md":
                page.unlink()  # of a notebook, a figure or a module that is no more


def _tutorials() -> Iterator[tuple[str, str]]:
    for notebook in sorted((_ROOT / "notebooks").glob("*.ipynb")):
        yield f"tutorials/{notebook.name}", notebook.read_text(encoding="utf-8")


def _of_the_project(name: str) -> str:
    """A page of the project that lies outside of docs, with its links as they are from docs."""
    folder = Path("..", name).parent.as_posix()

    def moved(link: re.Match[str]) -> str:
        target = os.path.normpath(f"{folder}/{link[1]}")
        return f"]({target.removeprefix('../docs/')})"

    return re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", moved, (_ROOT / name).read_text(encoding="utf-8"))


def _gallery(pictures: Path) -> Iterator[tuple[str, str]]:
    """One page for each figure that `packing-jax reproduce` knows, with its picture and table where they were kept."""
    from packing_jax.figures.catalogue import FIGURES

    cards = []
    for name, figure in FIGURES.items():
        minutes = " and ".join(f"{figure.minutes[size]:g} minutes at size {size}" for size in ("quick", "full"))
        text = f"# {name}\n\n**Claimed:** {figure.claim}{_outcome(pictures / f'{name}.json')} **For packing:** "
        text += f"{figure.meaning}\n\nSource: {figure.source}.\n\n"
        text += f"<!-- not run: minutes -->\n```console\n$ packing-jax reproduce {name} --size quick\n```\n\n"
        text += f"This takes {minutes}, on two CPU cores.\n\n"
        image = ""
        if (pictures / f"{name}.png").exists():
            text += f"![{figure.claim}]({name}.png)\n\n{_rows(pictures / f'{name}.json')}"
            if (pictures / f"{name}.gif").exists():
                text += f"![{figure.claim}]({name}.gif)\n\n"
            image = f"[![{name}]({name}.png)]({name}.md)\n\n"
        else:
            text += "There is no picture of it here; the command draws it.\n"
        yield f"gallery/{name}.md", text
        cards.append(f":::{{container}} card\n{image}**[{name}]({name}.md)**\n\n{figure.claim}\n:::\n")
    tree = "\n".join(FIGURES)
    grid = f"::::{{container}} cards\n{''.join(cards)}::::\n"
    yield "gallery/index.md", f"{_GALLERY}\n{grid}\n```{{toctree}}\n:hidden:\n\n{tree}\n```\n"


def _outcome(result: Path) -> str:
    """How many of a figure's numbers agree with their references, where they were kept."""
    from packing_jax.figures.result import read_result

    if not result.exists():
        return ""
    verdicts = [row["agrees"] for row in read_result(result)["rows"]]
    agree, differ, open_ = (verdicts.count(word) for word in ("yes", "no", "undecided"))
    others = f", {differ} differ" * bool(differ) + f", {open_} are not decided" * bool(open_)
    return f" **Came out:** {agree} of {len(verdicts)} numbers agree with their references{others}."


def _rows(result: Path) -> str:
    from packing_jax.figures.result import read_result, with_error

    if not result.exists():
        return ""
    found = read_result(result)
    lines = [
        f"Our values, from size {found['size']} in {found['seconds'] / 60:.1f} minutes. A number in brackets is the",
        "standard error in the last digits.\n",
        "| quantity | reference | kind | ours | agrees |",
        "|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        reference = with_error(row["reference"], row["reference_error"])
        ours = with_error(row["value"], row["stderr"])
        lines.append(f"| {row['quantity']} | {reference} | {row['kind']} | {ours} | {row['agrees'] or ''} |")
    return "\n".join(lines) + "\n"


def _options() -> str:
    """What --help says of each command and task."""
    text = "# Options of every command\n\nThis is what `packing-jax COMMAND --help` prints.\n\n"
    from packing_jax.commands.parser import COMMANDS
    from packing_jax.networks.tasks import TASKS

    for words in [*((name,) for name in COMMANDS), *(("train", name) for name in TASKS)]:
        title = " ".join(words)
        text += f"## {title}\n\n```text\n{_help(*words)}\n```\n\n"
    return text


def _help(*words: str) -> str:
    from packing_jax.commands.main import main

    said = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "92"
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            main([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    return re.sub(r"\x1b\[[0-9;]*m| +$", "", said.getvalue(), flags=re.MULTILINE).strip()


def _modules() -> Iterator[tuple[str, str]]:
    """A page for each module, and for each room a list of its modules with their first sentence."""
    rooms = []
    for room, title in _ROOMS.items():
        package = importlib.import_module(f"packing_jax.{room}")
        found = sorted(one.name for one in pkgutil.walk_packages(package.__path__, f"{package.__name__}."))
        yield f"reference/api/{room}.md", _room(title, package.__name__, found)
        yield from ((f"reference/api/{name}.rst", _module(name)) for name in found)
        rooms.append(room)
    yield "reference/api/others.md", _room("Other modules", "", _OTHERS)
    yield from ((f"reference/api/{name}.rst", _module(name)) for name in _OTHERS)
    tree = "\n".join([*rooms, "others"])
    yield "reference/api/index.md", f"# Python: all names\n\n{_typed()}\n```{{toctree}}\n\n{tree}\n```\n"


def _room(title: str, package: str, modules: list[str]) -> str:
    head = f"```{{eval-rst}}\n.. automodule:: {package}\n   :no-members:\n```\n\n" if package else ""
    lines = "\n".join(f"| [{name.removeprefix('packing_jax.')}]({name}.rst) | {_claim(name)} |" for name in modules)
    tree = "\n".join(f"{name.removeprefix('packing_jax.')} <{name}>" for name in modules)
    return f"# {title}\n\n{head}| module | |\n|---|---|\n{lines}\n\n```{{toctree}}\n:hidden:\n\n{tree}\n```\n"


def _module(name: str) -> str:
    title = name.removeprefix("packing_jax.")
    package = hasattr(importlib.import_module(name), "__path__")  # what it takes from its modules stands there
    members = ":no-members:" if package else ":members:\n   :show-inheritance:"
    return f"{title}\n{'=' * len(title)}\n\n.. automodule:: {name}\n   {members}\n"


def _typed() -> str:
    """The names that `import packing_jax` gives, with what they are."""
    import packing_jax

    lines = ["These names are imported from `packing_jax` itself:", "", "| name | |", "|---|---|"]
    for name in packing_jax.__all__:
        value = getattr(packing_jax, name)
        where = value.__module__ if callable(value) else _written_in("packing_jax.names", name)
        lines.append(f"| {{py:obj}}`{name} <{where}.{name}>` | {_claim(f'{where}.{name}')} |")
    return "\n".join(lines) + "\n"


def _written_in(module: str, name: str) -> str:
    """The module from which another one has a name that does not say itself where it is from."""
    source = Path(importlib.import_module(module).__file__ or "").read_text(encoding="utf-8")
    lines = re.finditer(r"^from (\S+) import (.*)$", source, re.MULTILINE)
    return next((m[1] for m in lines if name in m[2].split(", ")), module)


def _claim(name: str) -> str:
    """The first line of a docstring, as Markdown."""
    try:
        value: object = importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, last = name.rpartition(".")
        value = getattr(importlib.import_module(module), last)
    text = "" if isinstance(value, (int, float)) else (value.__doc__ or "")
    first = text.strip().split("\n\n")[0].replace("\n", " ")
    first = re.sub(r":\w+(?::\w+)?:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", first).replace("``", "`")
    return re.sub(r"([|*^<>$])", r"\\\1", first)


# ---- docstrings are plain text, with roles


def as_rst(app: Any, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Make reStructuredText of a docstring: what is set out in columns or indented stays as it is typed.

    Equations and tables in them are for a reader's eyes: two spaces within a line, or an indented paragraph outside of
    ``Args:`` and its like. In the rest |x|, * and a_ mean themselves.
    """
    if what in {"attribute", "data", "property"}:  # a sentence with a colon is no type
        lines[:] = _typeset(lines)
    else:
        lines[:] = GoogleDocstring(
            _typeset(lines), Config(napoleon_use_rtype=False), app, what, name, value, options
        ).lines()


def resolved(app: Any, env: Any, node: Any, content: Any) -> Any:
    """A reference to a name as the code around it has it, or as ``packing_jax`` or a room hands it on."""
    if node.get("refdomain") != "py":
        return None
    target, around = node["reftarget"], node.get("py:module") or "packing_jax"
    for module, name in ((around, target), target.rpartition(".")[::2], ("packing_jax.names", target)):
        try:
            value = operator.attrgetter(name)(importlib.import_module(module))
        except (AttributeError, ImportError, ValueError):
            continue
        here = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        full = ".".join(here) if all(here) else f"{_written_in(module, name)}.{name}"
        if inspect.ismodule(value):
            full = value.__name__
        domain = env.get_domain("py")
        found = domain.find_obj(env, None, None, full, None)
        if len(found) == 1 and full != target:
            return domain.resolve_any_xref(env, node["refdoc"], app.builder, full, node, content)[0][1]
    return None


def links_on_the_site(_app: object, _page: str, source: list[str]) -> None:
    """A link to a page of the project that has a copy here leads to the copy."""
    source[0] = re.sub(r"\]\((\.\./)+tests/validation/README\.md", "](/validation_table.md", source[0])


def whole_words(_app: object, doctree: nodes.document) -> None:
    """Mark code whose words are short: a line does not break within them, as browsers do behind each hyphen."""
    for code in doctree.findall(nodes.literal):
        if max(map(len, code.astext().split()), default=0) <= _SHORT:
            code["classes"].append("whole")


def _typeset(lines: list[str]) -> list[str]:
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    out: list[str] = []
    section = literal = False
    for block in filter(None, blocks):
        indent = len(block[0]) - len(block[0].lstrip())
        section = bool(_SECTION.match(block[0])) or (section and indent > 0)
        if not section and _typed_out(block):
            if not (literal and indent) and not (out and out[-2].endswith("::")):
                out += ["::", ""]
            out += [*(f"    {line}" for line in block), ""]
            literal = True
            continue
        literal = False
        out += [*map(_escaped, block), ""]
    return out


_SECTION = re.compile(r"(Args|Attributes|Example|Examples|Raises|Returns|Yields|Note|Notes|Warns):$")


def _typed_out(block: list[str]) -> bool:
    listed = re.match(r"\s*([-*]|\d+\.) ", block[0])
    return not listed and (block[0].startswith(" ") or any(re.search(r"\S   ?\S", line.strip()) for line in block))


def _escaped(line: str) -> str:
    """A line in which only backticks, roles and the dash of a list mean something."""
    parts = re.split(r"(``.*?``|:[\w:]+:`[^`]*`|`[^`]*`)", line)
    for i in range(0, len(parts), 2):
        bullet = re.match(r"\s*\* ", parts[i]) if i == 0 else None
        head = bullet[0] if bullet else ""
        rest = parts[i][len(head) :]
        rest = re.sub(r"([\\|*])", r"\\\1", rest)
        parts[i] = head + re.sub(r"(?<=\w)_(?!\w)", r"\\_", rest)
    for i in range(1, len(parts), 2):
        parts[i] = re.sub(r"^`([^`]+)`$", r"``\1``", parts[i])
    return "".join(parts)
