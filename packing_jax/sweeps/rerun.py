"""Whether a cell comes out again as it was stored."""

from pathlib import Path

from packing_jax.errors import PackingError
from packing_jax.sweeps.cells import Finished, read_cell, stored_arrays
from packing_jax.sweeps.checkpoint import Checkpoints
from packing_jax.sweeps.compute import finished_cell, run_cells
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.kinds import known_spec
from packing_jax.sweeps.manifest import Manifest
from packing_jax.sweeps.reader import Reader
from packing_jax.sweeps.schema import Layout, dataset_of, description, stored_width
from packing_jax.sweeps.spec import Spec, check_settings, stored_spec


def rerun(directory: Path, number: int, spec: Spec | None = None) -> tuple[bool, str]:
    """Compute one cell again from its start and compare it with what is stored, bit for bit.

    Args:
        directory: of a sweep.
        number: of the cell, counted from 0 along the axes of the store, the replica fastest.
        spec: the specification, for what is not spheres: a store names no code that would be run.

    Returns:
        Whether every byte agrees, and a sentence that says so or where the first difference is.

    Raises:
        PackingError: no such cell, one that is not finished, or a specification of another sweep.
    """
    attributes = description(directory)
    check_settings(attributes)
    spec = stored_spec(attributes, known_spec(attributes) if spec is None else spec)
    layout = spec.layout("")._replace(attributes=attributes)
    places = layout.cells.places()
    if not 0 <= number < len(places):
        raise PackingError(f"there is no cell {number}; {directory} has cells 0 to {len(places) - 1}")
    name, cell = list(places.items())[number]
    where = f"cell {number} ({layout.cells.described(name)})"
    entry = Manifest.read(Folder(directory), len(places)).entries.get(name)
    if entry is None or not entry.complete or entry.covers < layout.last:
        raise PackingError(f"{where} is not finished, so there is nothing to compare with")
    unused = Checkpoints(directory, "", float("inf"), look=False)
    ((_, result),) = run_cells(spec, [name], unused, stored_width(attributes), None, lambda *_: None, lambda _: None)
    again = finished_cell(layout, cell, result)
    try:
        stored = read_cell(dataset_of(directory), layout, cell, entry)
    except PackingError as error:
        return False, f"{where} is damaged: {error}; {Reader(directory).mended} computes it again"
    different = _differences(layout, stored, again)
    if different:
        return False, f"{where} comes out differently: {'; '.join(different)}"
    return True, f"{where} comes out again with the same bytes"


def _differences(layout: Layout, stored: Finished, again: Finished) -> list[str]:
    different = [
        f"{name} is {was} in the store and {now} now"
        for name, was, now in (
            ("its end", stored.state, again.state),
            ("the number of steps", stored.steps, again.steps),
            ("the step of absorption", stored.absorbed_at, again.absorbed_at),
        )
        if was != now
    ]
    computed = stored_arrays(layout, again)
    for name, values in {**stored.records, **stored.finals}.items():
        if values.tobytes() == computed[name].tobytes():
            continue
        if name in layout.records:
            apart = [one.tobytes() != other.tobytes() for one, other in zip(values, computed[name], strict=True)]
            different.append(f"{name} differs from step {layout.times[apart.index(True)]} on")
        else:
            different.append(f"the final {name} differ")
    return different
