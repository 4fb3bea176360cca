"""A generated table goes where its page says, and nowhere else."""

import pytest

from scripts.generated import replaced

PLACE = "<!-- codes: begin -->\nold\n<!-- codes: end -->\n"


def test_the_table_takes_the_place_of_the_old_one() -> None:
    text = replaced(f"before\n{PLACE}after\n", "codes", "new")
    assert text == "before\n<!-- codes: begin -->\nnew\n<!-- codes: end -->\nafter\n"


@pytest.mark.parametrize(
    "text",
    ["no place\n", "<!-- codes: begin -->\nold\n", PLACE * 2],
    ids=["none", "no end", "two"],
)
def test_a_page_has_one_place_for_it(text: str) -> None:
    with pytest.raises(ValueError, match="'codes'"):
        replaced(text, "codes", "new")
