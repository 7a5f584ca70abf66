"""Columns of a table as sentences and as labels."""

import json
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from math import isfinite
from typing import Any, Literal, NamedTuple, cast

from towers.data.rows import Rows
from towers.data.words import split_spaces, split_words

Split = Literal["rule", "spaces"]
SPLITTERS: dict[str, Callable[[str], list[str]]] = {"rule": split_words, "spaces": split_spaces}
_SIDES = "--left-column or --right-column (in Python left_column or right_column)"
_LABELS = "--label-column (in Python label_column)"
LISTED = 40
"""An error about a missing column lists at most this number of columns."""


def is_written_list(text: str) -> bool:
    """Whether a string is a list that was written as text, as tables of text hold columns of lists: ['a', 'dog']."""
    return text.startswith(("['", '["')) and text.endswith(("']", '"]'))


class Columns(NamedTuple):
    """The columns of some rows, by name. Errors name file, line and column."""

    rows: Rows

    def sentences(self, name: str, split: Split, *, empty: bool = False) -> list[Sequence[str]]:
        """A column of sentences: lists of strings as they are, strings divided as `split` says.

        `empty` admits sentences without words.
        """
        if split not in SPLITTERS:
            raise ValueError(f"split ({split!r}) must be one of {', '.join(SPLITTERS)}")
        divide = SPLITTERS[split]
        return [self._words(name, row, cell, divide, empty) for row, cell in enumerate(self.column(name, _SIDES))]

    def labels(self, name: str, label_range: tuple[float, float]) -> list[float]:
        """A column of labels, mapped from `label_range` to 0 to 1."""
        low, high = label_range
        if not (isfinite(low) and isfinite(high) and low < high):
            raise ValueError(f"label_range ({low}, {high}) must be two numbers, the lower first")
        limits = f"{low:g} to {high:g}"
        numbers = [self._number(name, row, cell, limits) for row, cell in enumerate(self.column(name, _LABELS))]
        for row, number in enumerate(numbers):
            if not low <= number <= high:
                problem = f"{name} is {number:g}; the label range is {limits}"
                hint = _range_hint(numbers, low, high) if isfinite(number) else "Labels are finite numbers"
                hint = hint if number == number else f"If it marks a missing label, {_LEAVE_OUT}"
                if named := self.rows.class_names(name):
                    hint = f"It is the number of a class ({', '.join(named[:LISTED])}): say classes=True"
                    hint += ", of fit columns={'classes': True}"
                raise self._mistake(row, f"{problem}. {hint}")
        return [(number - low) / (high - low) for number in numbers]

    def classes(self, name: str, yes: str | None = None) -> list[str]:
        """A column of names of classes; other cells than strings are spelled as JSON has them.

        Numbers of a ClassLabel of Hugging Face have its names. Beside two or more others, "-" (of SNLI), and -1 where
        no other is negative, are missing labels, and refused, unless it is `yes`.
        """
        named = self.rows.class_names(name)
        names = [self._class(name, row, cell, named) for row, cell in enumerate(self.column(name, _LABELS))]
        marks = _marks(set(names)) - {yes}
        for row, found in enumerate(names if marks else []):
            if found in marks:
                marked = names.count(found)
                rows = "1 row has" if marked == 1 else f"{marked} rows have"
                problem = f"{name} is {found}, which usually marks a missing label ({rows} it): {_LEAVE_OUT}"
                raise self._mistake(row, f"{problem}; if it is a class, give it another name in the file")
        return names

    def none_is_a_number(self, name: str) -> bool:
        """Whether the cells of a label column are several names of which none is a number: then they are classes."""
        cells = _different(self.column(name, _LABELS))
        cells -= _marks(cells)
        return len(cells) > 1 and not any(_is_number(cell) or _has_a_comma(cell) for cell in cells)

    def missing(self, name: str, label_range: tuple[float, float] | None = None, yes: str | None = None) -> set[int]:
        """The places of the rows of a label column without a label: null, NaN, only spaces, and what marks one.

        Beside two other names that is "-" or -1, beside numbers (in `label_range`; None: there are names) also a text
        as "nan" or "NA", which beside names may be a name. The name `yes` marks none.
        """
        cells = self.column(name, _LABELS)
        different = _different(cells)
        marks = _marks(different) - {yes}
        if label_range is not None and label_range[0] <= -1:
            marks -= _MINUS_ONE
        others = {cell for cell in different - marks if cell.lower() not in _NO_LABEL}
        if others and all(map(_is_number, others)):
            marks |= different - others - {yes}
        return {place for place, cell in enumerate(cells) if is_missing(cell) or str(cell).strip() in marks}

    def _class(self, name: str, row: int, cell: Any, named: Sequence[str]) -> str:
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            raise self._mistake(row, f"{name} is empty; expected the name of a class: {_LEAVE_OUT}")
        if not isinstance(cell, str | int | float) or cell != cell:
            raise self._mistake(row, f"{name} is {_short(cell)}; expected the name of a class")
        if isinstance(cell, int) and 0 <= cell < len(named):
            return named[cell]
        return cell.strip() if isinstance(cell, str) else json.dumps(cell)

    def class_numbers(self, name: str, classes: Sequence[str]) -> list[int]:
        """A column of names of known classes, as their numbers.

        Raises:
            ValueError: a cell is none of them; file, line and the nearest name are in the message.
        """
        places = {known: number for number, known in enumerate(classes)}
        names = self.classes(name)
        for row, found in enumerate(names):
            if found not in places:
                near = get_close_matches(found, classes, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                listed = ", ".join(map(_short, classes[:LISTED]))
                raise self._mistake(row, f"{name} is {_short(found)}, none of the classes {listed}{hint}")
        return [places[found] for found in names]

    def column(self, name: str, option: str) -> list[Any]:
        """The cells of a column; the error for a name that there is not names the option that says another."""
        names = self.rows.names
        if name in self.rows.twice:
            raise ValueError(f"{self.rows.path}: two columns are named {name!r}; rename one of them")
        if name not in names:
            alike = [other for other in names if other.strip().lower() == name.strip().lower()]
            near = alike or get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; say which with {option}"
            if len(names) == 1 and (others := [sign for sign in ",;|\t" if sign in names[0]]):
                sign = "tab" if others[0] == "\t" else f"'{others[0]}'"
                hint = f"; if its fields are divided otherwise, say --format csv --separator {sign}"
            if name in self.rows.hidden_names:
                hint = f"; {name!r} is the index of the frame: give frame.reset_index()"
            more = f", … ({len(names)} columns)" if len(names) > LISTED else ""
            listed = ", ".join(_short(name, _readable) for name in names[:LISTED]) + more
            raise ValueError(f"{self.rows.path} has no column {name!r}, only {listed}{hint}")
        return self.rows.column(name)

    def _words(self, name: str, row: int, cell: Any, divide: Callable[[str], list[str]], empty: bool) -> Sequence[str]:
        if "\0" in (cell if isinstance(cell, str) else ""):  # JSON can spell it
            raise self._mistake(row, f"{name} has a NUL, which no text has")
        if isinstance(cell, str) and is_written_list(cell):
            problem = f"{name} is {_short(cell)}, a list that was written as text"
            raise self._mistake(row, f"{problem}; write the table as JSON lines or Parquet, which have lists")
        words: Any = divide(cell) if isinstance(cell, str) else cell
        if words is None or words == []:
            if empty:
                return []
            raise self._mistake(row, f"{name} is empty")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in cast(list[Any], words)):
            raise self._mistake(row, f"{name} is {_short(cell)}; expected a string or a list of strings")
        strings = cast(list[str], words)
        for word in strings:
            if "\0" in word:
                raise self._mistake(row, f"{name} has a NUL, which no text has")
            try:
                word.encode()
            except UnicodeEncodeError:  # JSON can spell it: "\ud800"
                raise self._mistake(row, f"{name} has {_short(word)}, half a character") from None
        return strings

    def _number(self, name: str, row: int, cell: Any, limits: str) -> float:
        if is_missing(cell) and not isinstance(cell, float):
            raise self._mistake(row, f"{name} is {_short(cell)}, a missing label: {_LEAVE_OUT}")
        try:
            if "_" not in (cell if isinstance(cell, str) else ""):  # Python's own spelling, 1_000, is none of a table
                return float(cell)
            raise ValueError
        except (TypeError, ValueError, OverflowError):
            problem = f"{name} is {_short(cell)}, which is no number; labels go from {limits}"
            if _has_a_comma(cell):
                problem += ". Write the decimal point of a number as a point"
            elif self.none_is_a_number(name):
                problem += _OF_CLASSES
            elif str(cell).strip().lower() in _NO_LABEL:
                problem += f". If it marks a missing label, {_LEAVE_OUT}"
            raise self._mistake(row, problem) from None

    def _mistake(self, row: int, problem: str) -> ValueError:
        return ValueError(f"{self.rows.path}, {self.rows.unit} {self.rows.lines[row]}: {problem}")


_LEAVE_OUT = "leave such rows out (--skip-bad does, of fit and evaluate)"
_MINUS_ONE = frozenset({"-1", "-1.0"})
_NO_LABEL = frozenset({"nan", "na", "n/a", "null", "none", "?"})
"""Texts, in lower case, that mark a missing label among numbers."""
_OF_CLASSES = ". Names of classes need classes=True (--preset entailment), or the one that means yes: yes=NAME (--yes)"


def is_missing(cell: Any) -> bool:
    """Whether a cell holds nothing: null, NaN, the NA of pandas, or nothing but spaces."""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    return not cell.strip() if isinstance(cell, str) else isinstance(cell, float) and cell != cell


def _different(cells: Sequence[Any]) -> set[str]:
    """The different cells of a label column, as text, but those that hold nothing."""
    return {str(cell).strip() for cell in cells if not is_missing(cell)}


def _marks(different: set[str]) -> frozenset[str]:
    """Which of the different labels mark a missing one: "-", and -1 if no other is negative, beside two others."""
    marks = _MINUS_ONE | {"-"}
    others = different - marks
    if len(others) < 2:
        return frozenset()
    negative = any(_is_number(other) and float(other) < 0 for other in others)
    return frozenset(different & (marks - _MINUS_ONE if negative else marks))


def _has_a_comma(cell: Any) -> bool:
    """Whether a cell is a number with a comma as its decimal point."""
    return isinstance(cell, str) and "," in cell and _is_number(cell.strip().replace(",", ".", 1))


def _is_number(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _short(value: Any, spell: Callable[[Any], str] = repr) -> str:
    """A value for a message, cut to 60 characters."""
    text = spell(value)
    return text if len(text) <= 60 else text[:60] + "…"


def _readable(name: str) -> str:
    """A name, in quotes where it would mislead the eye."""
    return name if name.isprintable() and name.strip() == name != "" else repr(name)


def _range_hint(numbers: Sequence[float], least: float, most: float) -> str:
    """The sentence of a message that says what to do about labels outside the range."""
    outside = [number for number in numbers if not least <= number <= most]
    if all(number == -1 for number in outside):
        rows = "1 row has" if len(outside) == 1 else f"{len(outside)} rows have"
        others = len({number for number in numbers if number != -1})
        said = f"-1 usually marks a missing label ({rows} it): {_LEAVE_OUT if others > 1 else 'leave such rows out'}"
        return f"{said}; if it is a degree, say --label-range -1 {most:g}, or label_range=(-1, {most:g}) in Python"
    finite = [number for number in numbers if isfinite(number)] or [0.0]
    low, high = (f"{number:g}" for number in (min(finite), max(finite)))
    if low == high:
        return "Say what its labels mean with --label-range LOW HIGH, or label_range=(LOW, HIGH) in Python"
    option = f"--label-range {low} {high}, or label_range=({low}, {high}) in Python"
    said = f"If its labels are meant to go from {low} to {high}, say {option}"
    if len(different := set(numbers)) > 2 and different == set(range(len(different))):
        said += "; if they are numbers of classes, --preset entailment, or classes=True"
    return said
