"""Views: what a reader fills in arrives, and what it says of a failure arrives whole."""

import copyreg
import types

import numpy as np
import pytest
from tblib import pickling_support

from nisbjax.errors import InputError
from nisbjax.store import views


def counted(domain, chunk, _):
    """The index along the only axis."""
    chunk[...] = np.arange(domain[0].inclusive_min, domain[0].exclusive_max)


def broken(_, chunk, parameters):
    class Odd(Exception):  # which pickle cannot find
        pass

    try:
        raise Odd
    except Odd as error:
        raise views.damage("a.tif", "its plane 5", error) from None


def test_chunks_are_filled_by_the_reader():
    store = views.view(counted, (5,), np.int32, (2,))
    np.testing.assert_array_equal(store.read().result(), [0, 1, 2, 3, 4])


@pytest.mark.parametrize("is_tblib", [False, True])
def test_a_failure_of_the_reader_keeps_its_words(monkeypatch, is_tblib):
    if is_tblib:  # as `distributed` does for each class of errors when it is imported
        table = copyreg.dispatch_table
        monkeypatch.setitem(table, InputError, pickling_support.pickle_exception)
        trace = pickling_support.pickle_traceback
        monkeypatch.setitem(table, types.TracebackType, trace)
    with pytest.raises(
        InputError, match="^a.tif is damaged: its plane 5 cannot be read"
    ):
        views.view(broken, (5,), np.int32, (5,)).read().result()
