"""The kinds of sweeps that this package has, by the word that a store has for each."""

from collections.abc import Mapping
from typing import Any

from packing_jax.errors import PackingError
from packing_jax.networks.tasks import TASKS
from packing_jax.sweeps.networks import Training
from packing_jax.sweeps.schema import stored_kind
from packing_jax.sweeps.spec import Spec
from packing_jax.sweeps.spheres import Sweep


def known_spec(attributes: Mapping[str, Any]) -> Spec:
    """An empty specification of the kind of a store, for kinds of this package: a store names no code that is run.

    Raises:
        PackingError: another kind, or a task of a user's.
    """
    kind, task = stored_kind(attributes), attributes.get("task")
    if kind == Sweep.kind:
        return Sweep()
    if kind == Training.kind and isinstance(task, str) and task in TASKS:
        return Training(task=task)
    what = "of a task of your own" if kind == Training.kind else f"of {kind}"
    raise PackingError(
        f"the store holds a sweep {what}: give its specification again, in Python, "
        "run_sweep(specification, directory, resume=True)"
    )
