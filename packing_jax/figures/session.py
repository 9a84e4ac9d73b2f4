"""One figure in one directory: begun, gone on with, written.

DIR/reproduce.json says which figure, size and seed DIR is of, and for how many seconds it was computed; the sweeps lie
beside it, then figure.png and, last, result.json.
"""

import json
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, get_args

from packing_jax.errors import PackingError
from packing_jax.figures.catalogue import find
from packing_jax.figures.figure import Run, Size
from packing_jax.figures.film import write_gif
from packing_jax.figures.result import read_result, result_of, write_result
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.progress import Stop
from packing_jax.sweeps.store import cannot_write

_DPI, _FILM_DPI = 160, 100
_FPS = 6


def reproduce(
    name: str,
    directory: Path,
    *,
    size: Size | None = None,
    seed: int | None = None,
    resume: bool = False,
    command: str = "",
    on_progress: Callable[[float, str], None] = lambda *_: None,
    stop: Stop | None = None,
) -> dict[str, Any]:
    """Measure a figure, draw it, and write and return its result.

    Args:
        name: of the figure.
        directory: where everything is written.
        size: quick when None; with ``resume`` as it was.
        seed: 0 when None; with ``resume`` as it was.
        resume: go on with what ``directory`` holds; a figure that is done is not measured again.
        command: recorded in the stores.
        on_progress: called with the share of the work done and what is under way.
        stop: ends it after the present chunk.

    Raises:
        PackingError: an unknown name, a directory that holds another run, or one that cannot be written.
        Interrupted: ``stop`` asked for the end.
    """
    figure = find(name)
    if seed is not None and not 0 <= seed < 2**32:
        raise PackingError(f"the seed is {seed}; it must be at least 0 and below 2^32")
    try:
        session = _begun(directory, name, size, seed, resume)
        if (directory / "result.json").exists():
            return read_result(directory / "result.json")
        run = Run(session["size"], session["seed"], directory, command, on_progress, stop or Stop())
        began = time.monotonic()
        try:
            found = figure.measured(run)
        finally:
            session["seconds"] += time.monotonic() - began
            _note(directory, session)
        _draw(figure.draw, found.curves, directory)
        if figure.film is not None:
            _film(figure.film, found.curves, directory)
        result = result_of(figure, found.rows, run.size, session["seconds"])
        write_result(directory, result)
    except OSError as error:
        raise cannot_write(directory, error) from error
    return result


def _begun(directory: Path, name: str, size: Size | None, seed: int | None, resume: bool) -> dict[str, Any]:
    """What reproduce.json says, written where there is none."""
    path = directory / "reproduce.json"
    if not resume:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise PackingError(f"{directory} is not empty: give another --out, or --resume to go on with what it holds")
        directory.mkdir(parents=True, exist_ok=True)
        session = {"name": name, "size": size or "quick", "seed": seed or 0, "seconds": 0.0}
        try:
            with Folder(directory).open("reproduce.json", "xb") as file:
                file.write(_text(session))
        except FileExistsError as error:
            raise PackingError(f"another process has begun in {directory} just now: give another --out") from error
        return session
    session = _read(path)
    for what, asked in {"name": name, "size": size, "seed": seed}.items():
        if asked is not None and asked != session[what]:
            raise PackingError(f"{directory} holds the {what} {session[what]}, and not {asked}: give another --out")
    return session


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise PackingError(f"{path.parent} has no reproduce.json: there is nothing to resume, leave --resume away")
    try:
        session = json.loads(Folder(path.parent).read(path.name, 2**16))
        if not (
            isinstance(session["name"], str)
            and session["size"] in get_args(Size)
            and type(session["seed"]) is int
            and type(session["seconds"]) is float
        ):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PackingError(f"{path} is damaged: begin again in another directory") from error
    return dict(session)


def _note(directory: Path, session: dict[str, Any]) -> None:
    Folder(directory).write({"reproduce.json": _text(session)})


def _text(session: dict[str, Any]) -> bytes:
    return f"{json.dumps(session)}\n".encode()


def _draw(draw: Callable[..., None], curves: Any, directory: Path) -> None:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(dpi=_DPI, layout="constrained")
    draw(canvas, curves)
    with Folder(directory).replacing("figure.png") as file:
        canvas.savefig(file, format="png")


def _film(frames: Callable[..., Iterator[int]], curves: Any, directory: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = FigureCanvasAgg(Canvas(dpi=_FILM_DPI, layout="constrained"))
    left = frames(canvas.figure, curves)
    count = 1 + next(left)
    with Folder(directory).replacing("movie.gif") as file:
        write_gif(file, (canvas for _ in chain([0], left)), count, _FPS)
