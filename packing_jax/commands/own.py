"""The options by which a command takes a user's own rule, energy and observables."""

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from packing_jax.errors import PackingError
from packing_jax.sweeps.own import imported


@dataclass(frozen=True, kw_only=True)
class OwnOptions:
    """What run, sweep and rerun take of a user's own."""

    rule: Annotated[str | None, tyro.conf.arg(metavar="MODULE:OBJECT", help_behavior_hint="")] = None
    """The rule of your own with which the sweep was made."""
    energy: Annotated[str | None, tyro.conf.arg(metavar="MODULE:OBJECT", help_behavior_hint="")] = None
    """Pair energy of your own, such as my_model:energy in ./my_model.py: a packing_jax.PairEnergy. Default: the overlap
    energy."""
    record: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=MODULE:OBJECT", help_behavior_hint="")
    ] = ()
    """Also record an observable of your own, under a name of your choice: a function of a configuration, such as
    widest=my_model:widest. Can be given several times."""
    trust_rule: tyro.conf.FlagCreatePairsOff[bool] = False
    """Resume although objects of your own have no source code that could be compared with those at the beginning of the
    sweep. The store keeps a note of this."""

    def objects(self) -> dict[str, Any]:
        """The fields of a Sweep that this command line names; only its modules are imported.

        Raises:
            PackingError: no such module or object, or a word that names none.
        """
        rule = imported(self.rule, "--rule") if self.rule is not None and ":" in self.rule else self.rule
        record = {}
        for word in self.record:
            name, equals, place = word.partition("=")
            if not (name and equals):
                raise PackingError(f"--record is {word!r}; it must be name=module:object, as widest=my_model:widest")
            if name in record:
                raise PackingError(f"--record names {name} twice; each observable needs a name of its own")
            record[name] = imported(place, f"--record {name}")
        return {
            **({} if rule is None else {"rule": rule}),
            "energy": None if self.energy is None else imported(self.energy, "--energy"),
            "record": record or None,
            "trust_rule": self.trust_rule,
        }
