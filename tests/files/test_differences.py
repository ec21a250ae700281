"""Records that differ, in words."""

from scoring.files.differences import changed, describe


def test_values_that_changed_are_named_with_both_values_in_order():
    changes = changed(
        {"rank": 16, "epochs": 1, "seed": 1}, {"rank": 8, "epochs": 3, "seed": 1}, ["rank", "epochs", "seed"]
    )
    assert describe(changes) == "rank was 16, now 8; epochs was 1, now 3"
    assert (changes["rank"].before, changes["rank"].now) == (16, 8)


def test_a_name_that_one_record_lacks_counts_as_none():
    assert describe(changed({"a": 1}, {"b": 2}, "abc")) == "a was 1, now None; b was None, now 2"


def test_equal_records_have_no_changes():
    assert changed({"a": [1, "x"]}, {"a": [1, "x"]}, ["a"]) == {} and describe({}) == ""
