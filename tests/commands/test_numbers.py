"""Lists and ranges of numbers on the command line."""

import hypothesis
import numpy as np
from hypothesis import strategies as st

from packing_jax.commands.options import numbers
from packing_jax.errors import PackingError

NUMBER = st.floats(-1e6, 1e6)
ON_A_BUSY_MACHINE = hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.too_slow])


@ON_A_BUSY_MACHINE
@hypothesis.given(st.lists(NUMBER, min_size=1, max_size=8))
def test_a_list_is_its_numbers(values):
    assert numbers("phi", ",".join(map(repr, values))) == tuple(values)


@ON_A_BUSY_MACHINE
@hypothesis.given(NUMBER, NUMBER, st.integers(2, 50))
def test_a_range_includes_both_ends(low, high, count):
    values = numbers("phi", f"{low!r}:{high!r}:{count}")
    assert len(values) == count
    assert (values[0], values[-1]) == (low, high)
    # ten digits of the numbers and of their distance
    np.testing.assert_allclose(values, np.linspace(low, high, count), rtol=1e-9, atol=1e-9 * abs(high - low))


def test_a_range_gives_the_numbers_one_would_type():
    assert numbers("phi", "0.58:0.62:9") == (0.58, 0.585, 0.59, 0.595, 0.6, 0.605, 0.61, 0.615, 0.62)
    assert numbers("phi", "0.1:0.9:9") == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    assert numbers("phi", "0.5:0.5:1") == (0.5,)
    assert numbers("phi", "0.3:0.1:3") == (0.3, 0.2, 0.1)
    assert numbers("phi", " 0.1, 2e-1 ,.3") == (0.1, 0.2, 0.3)


@ON_A_BUSY_MACHINE
@hypothesis.given(st.text("0123456789.,:;e-+ nai_", max_size=12))
def test_any_text_is_numbers_or_one_sentence(text):
    try:
        assert len(numbers("phi", text)) >= 1
    except PackingError:
        hypothesis.event("refused")
