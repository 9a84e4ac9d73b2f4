"""The kinds of sweeps that this package has, by the word that a store has for each."""

from collections.abc import Mapping
from typing import Any

from packing_jax.errors import PackingError
from packing_jax.sweeps.schema import stored_kind
from packing_jax.sweeps.spec import Spec
from packing_jax.sweeps.spheres import Sweep


def known_spec(attributes: Mapping[str, Any]) -> Spec:
    """An empty specification of the kind of a store, for kinds of this package: a store names no code that is run.

    Raises:
        PackingError: another kind.
    """
    kind = stored_kind(attributes)
    if kind != Sweep.kind:
        raise PackingError(
            f"the store holds a sweep of {kind}: give its specification again, in Python, "
            "run_sweep(specification, directory, resume=True)"
        )
    return Sweep()
