"""What a column holds: numbers, categories, dates or free texts."""

from __future__ import annotations

import re
from typing import Any

from keeprate.data.features import Kind, as_moments
from keeprate.data.guards import LEAST_ROWS
from keeprate.data.tables import Table, has_odd_values
from keeprate.errors import Words, invalid, needs
from keeprate.reading import is_number, strings
from keeprate.text import cut

NAMES_ROWS = "names the rows"
MOSTLY = 0.9  # of the cells are numbers: so the others are blanks in other words
NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
MOST_VALUES = 30  # of a column of words that is always one of categories


def guess_kind(table: Table, name: str) -> tuple[Kind | None, str]:
    """What a column holds; None and the reason if it is no input."""
    types = needs("pyarrow.types")
    column = table.arrow.column(name)
    kind = column.type
    if column.null_count == len(column):
        return None, "empty"
    if is_number(kind) or types.is_duration(kind) or types.is_time(kind):
        return "number", ""
    if types.is_date(kind) or types.is_timestamp(kind):
        return "date", ""
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    if not (is_text or types.is_dictionary(kind)):
        return None, f"values of type {kind}"
    if types.is_dictionary(kind):
        if has_odd_values(kind):
            return None, f"values of type {kind.value_type}"
        return "category", ""
    words = strings(column)
    if _holds_dates(words):
        return "date", ""
    _refuse_almost_numbers(words, f"column {name} of the {table.where}")
    found = _kind_of_words(words)
    return found, "" if found else NAMES_ROWS


def _holds_dates(column: Any) -> bool:
    pa, compute = needs("pyarrow"), needs("pyarrow.compute")
    blank = compute.fill_null(compute.equal(compute.utf8_trim_whitespace(column), ""), True)
    present = column.filter(compute.invert(blank)).slice(0, 100).to_pylist()
    form = re.compile(r"\s*\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?")
    if not present or not all(map(form.fullmatch, present)):
        return False
    try:
        as_moments(column)
    except pa.ArrowException:
        return False
    return True


def _refuse_almost_numbers(column: Any, where: str) -> None:
    """Ask what a column holds where a few words stand among numbers."""
    compute = needs("pyarrow.compute")
    present = compute.drop_null(column)
    are_numbers = compute.match_substring_regex(present, NUMBER)
    share = compute.mean(are_numbers.cast("int8")).as_py() or 0.0
    if not MOSTLY <= share < 1:
        return
    word = present.filter(compute.invert(are_numbers))[0].as_py()
    requirement = "hold numbers only, or words only"
    received = Words(f"numbers in {share:.0%} of the cells and {cut(word, 40)!r} among them")
    remedy = "blank these cells, or say what the column holds (--columns NAME=category)"
    raise invalid(where, requirement, received, remedy)


def _kind_of_words(column: Any) -> Kind | None:
    """Tell categories from free texts; None if the words name the rows."""
    compute = needs("pyarrow.compute")
    present = compute.drop_null(column)
    n, n_different = len(present), compute.count_distinct(present).as_py()
    words = compute.mean(compute.list_value_length(compute.utf8_split_whitespace(present))).as_py()
    is_short = n_different <= MOST_VALUES and (n_different <= n / 2 or words < 3)
    if is_short and not n_different == n >= LEAST_ROWS:
        return "category"
    if words >= 3 or (words >= 1.5 and n_different > n / 2):
        return "text"
    return None if n_different > n / 2 else "category"
