"""What is no list of sentences is not taken for one."""

import pytest

from towers.data.memory_rows import as_list


@pytest.mark.parametrize(
    ("sentences", "told"),
    [
        (b"a dog", r"sentences are bytes: decode them"),
        ({"a dog", "a cat"}, "sentences are a set, which has no order: give a list"),
        ({"a": ["a dog"]}, "sentences are a whole dict: give one of its columns"),
        (3, "sentences are 3: give a list of strings"),
    ],
)
def test_what_is_no_list_is_refused(sentences, told):
    with pytest.raises(ValueError, match=told):
        as_list(sentences)
