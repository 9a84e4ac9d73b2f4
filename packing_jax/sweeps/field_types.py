"""Which types the fields of a sweep of spheres have, as a user gives them and as a store from elsewhere has them."""

from collections.abc import Mapping
from dataclasses import Field
from typing import Any, Literal, get_args

from packing_jax.errors import PackingError

Mixture = Literal["mono", "1:1.4"]

_WHOLE, _REAL, _TEXT = "a whole number", "a number", "a text"
_TYPES: Mapping[str, tuple[type, ...]] = {_WHOLE: (int,), _REAL: (int, float), _TEXT: (str,)}
_FIELDS = {
    **dict.fromkeys(("phi", "kick", "batch_fraction", "temperature", "correlation", "exponent", "sizes"), _REAL),
    **dict.fromkeys(("rule", "coupling", "mixture", "trajectory"), _TEXT),
}  # whole numbers otherwise
_SEVERAL = ("phi", "kick", "batch_fraction", "temperature", "extended_from")
_MAY_BE_NONE = ("temperature", "record_every", "trajectory", "sizes")  # once defaults are filled in


def _fits(name: str, value: Any) -> bool:
    if name in _SEVERAL and not isinstance(value, tuple):
        return False
    several = name in _SEVERAL or (name in ("particles", "sizes") and isinstance(value, tuple))
    types = _TYPES[_FIELDS.get(name, _WHOLE)]
    right = all(
        type(one) in types and (type(one) is not int or abs(one) < 1e300) for one in (value if several else (value,))
    )
    return right and (name != "mixture" or value in get_args(Mixture))


def check_types(values: Mapping[str, Any]) -> None:
    """Refuse fields of other types; None stands for a default.

    Args:
        values: name -> value, in Python's own numbers and tuples.

    Raises:
        PackingError: the first field of another type.
    """
    for name, value in values.items():
        if value is None and name not in ("phi", "kick", "dim", "particles", "seed", "mixture", "exponent"):
            continue
        if not _fits(name, value):
            what = _FIELDS.get(name, _WHOLE)
            what = f"a tuple, each entry {what}" if name in _SEVERAL else what
            what = " or ".join(get_args(Mixture)) if name == "mixture" else what
            what = "different whole numbers, or one" if name == "particles" else what
            raise PackingError(f"{name.replace('_', ' ')} is {value!r}; it must be {what}")


def stored_field(field: Field[Any], attributes: Mapping[str, Any]) -> Any:
    """The value of a field in the attributes of a store.

    Raises:
        PackingError: it is missing, or of another type.
    """
    name, value = field.name, attributes.get(field.name, field.default)
    value = tuple(value) if isinstance(value, list) else value
    if not (_fits(name, value) or (value is None and name in _MAY_BE_NONE)):
        raise PackingError(f"the store says {name} = {str(attributes.get(name))[:80]}; no sweep has that")
    return value
