"""result.json of a figure: written in one move, checked when read, printed as a table."""

import json
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from packing_jax.errors import PackingError
from packing_jax.figures.figure import Agrees, Figure, Kind, Row, Size
from packing_jax.sweeps.folder import Folder
from packing_jax.versions import provenance

_NAMES = {"name": str, "source": str, "size": str, "rows": list, "seconds": float, "versions": dict}
_ROW = ("quantity", "reference", "reference_error", "kind", "value", "stderr", "agrees")
_COLUMNS = (30, 11, 13, 13)  # and the verdict: 80 with the spaces between
_MOST = 2**24  # bytes of a file that is read


def result_of(figure: Figure, rows: list[Row], size: Size, seconds: float) -> dict[str, Any]:
    """What result.json says: {name, source, size, rows: [{quantity, reference, .., agrees}], seconds, versions}."""
    return {
        "name": figure.name,
        "source": figure.source,
        "size": size,
        "rows": [
            {**{name: _plain(value) for name, value in row._asdict().items()}, "agrees": figure.agrees(row, size)}
            for row in rows
        ],
        "seconds": round(seconds, 3),
        "versions": provenance(exact=False),
    }


def _plain(value: Any) -> Any:
    """Python's own numbers; None for what is no number."""
    if isinstance(value, str):
        return value
    return float(value) if math.isfinite(value) else None


def write_result(directory: Path, result: Mapping[str, Any]) -> None:
    """Put DIR/result.json in its place in one move.

    Raises:
        OSError: the disk says no.
    """
    checked(result, "the result")
    text = json.dumps(result, indent=2, allow_nan=False) + "\n"
    Folder(directory).write({"result.json": text.encode()})


def read_result(path: Path) -> dict[str, Any]:
    """What a result.json says.

    Raises:
        PackingError: it is damaged, or no result of a figure.
    """
    try:
        value = json.loads(Folder(path.parent).read(path.name, _MOST))
    except PackingError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise PackingError(f"{path} is damaged: remove it, and reproduce the figure again") from error
    return checked(value, str(path))


def checked(result: Any, what: str) -> dict[str, Any]:
    """The same, if it has the fields of a result and no others, of the right kinds.

    Raises:
        PackingError: the first thing that is wrong.
    """

    def refuse(why: str) -> PackingError:
        return PackingError(f"{what} is no result of a figure: {why}")

    if not isinstance(result, dict) or set(result) != set(_NAMES):
        raise refuse(f"it must have {', '.join(_NAMES)}, and nothing else")
    for name, kind in _NAMES.items():
        if not (isinstance(result[name], kind) or (kind is float and _is_number(result[name]))):
            raise refuse(f"its {name} must be a {kind.__name__}")
    if result["size"] not in get_args(Size):
        raise refuse(f"its size is {result['size']!r}, and not {', '.join(get_args(Size))}")
    for row in result["rows"]:
        if not isinstance(row, dict) or set(row) != set(_ROW):
            raise refuse(f"a row must have {', '.join(_ROW)}, and nothing else")
        numbers = [row[name] for name in ("reference", "reference_error")]
        measured = [row[name] for name in ("value", "stderr")]
        if not all(map(_is_number, numbers)) or not all(one is None or _is_number(one) for one in measured):
            raise refuse("reference, reference_error, value and stderr of a row must be numbers, the last two or null")
        verdicts = (None,) if result["size"] == "smoke" else get_args(Agrees)
        if not isinstance(row["quantity"], str) or row["kind"] not in get_args(Kind) or row["agrees"] not in verdicts:
            raise refuse(
                f"a row's kind must be one of {', '.join(get_args(Kind))}, and its agrees one of "
                f"{', '.join(map(str, verdicts))}"
            )
    return result


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def table(result: Mapping[str, Any]) -> str:
    """The rows for a terminal of 80 columns: quantity, reference, ours with its error in the last digits, agrees."""
    head = ("quantity", "of kind", "reference", "ours")
    lines = [_line(head, "agrees"), "-" * 80]
    for row in result["rows"]:
        first, *more = textwrap.wrap(row["quantity"], _COLUMNS[0]) or [""]
        reference = with_error(row["reference"], row["reference_error"])
        ours = with_error(row["value"], row["stderr"])
        lines.append(_line((first, row["kind"], reference, ours), row["agrees"] or "-"))
        lines += [f"  {part}" for part in more]
    return "\n".join(lines)


def _line(cells: tuple[str, ...], last: str) -> str:
    first, second, *numbers = (f"{cell:<{width}}" for cell, width in zip(cells, _COLUMNS, strict=True))
    return " ".join([first, second, *(f"{cell.strip():>{len(cell)}}" for cell in numbers), last])


def with_error(value: float | None, error: float | None) -> str:
    """A number with its error in units of its last digits: 0.5196(50); 1.081(12)e-4."""
    if value is None or error is None:
        return "not measured"
    if not error:
        return f"{value:.5g}"
    largest = max(abs(value), error)
    power = math.floor(math.log10(largest))
    scale = power if not -4 < power < 5 else 0
    digits = max(0, 1 - math.floor(math.log10(error)) + scale)
    text = f"{value / 10**scale:.{digits}f}({round(error / 10 ** (scale - digits))})"
    return f"{text}e{scale}" if scale else text
