"""The errors that a user can meet, each with the exit code of the command that it ends.

A message names the place (file, line, sample, variant or trait), the value, and what to do about it.
"""

import re
from collections.abc import Mapping, Sequence


def counted(number: int, what: str) -> str:
    """So many of ``what``, in the plural: a noun, the first or second word, and at most one verb of those below.

    What stands after a colon is a sentence of its own.

    >>> counted(2, "missing cells"), counted(1, "missing cells"), counted(1, "sets have many effects")
    ('2 missing cells', '1 missing cell', '1 set has many effects')
    >>> counted(1, "tests without a result: they have none")
    '1 test without a result: they have none'
    """
    if number != 1:
        return f"{number} {what}"
    of_many, colon, rest = what.partition(":")
    one = re.sub(r"^((?:[\w-]+ )?[\w-]+)s\b", r"\1", of_many)
    for verb, of_one in (("are", "is"), ("have", "has"), ("explain", "explains")):
        one = re.sub(rf"\b{verb}\b", of_one, one, count=1)
    return f"1 {one}{colon}{rest}"


class Kron2SumError(Exception):
    """An error with a message for the user; the command ends with ``exit_code`` and no traceback."""

    exit_code = 1


class InputError(Kron2SumError):
    """A file cannot be read, or what it says cannot be used."""


class OutputError(Kron2SumError):
    """An output cannot be written."""


class NumericalError(Kron2SumError):
    """The numbers do not allow the computation: collinear, constant, too few."""


class UsageError(Kron2SumError):
    """Options that contradict each other or name something that is not there."""

    exit_code = 2


class ConvergenceError(Kron2SumError):
    """The null model did not reach a certified optimum; ``result`` is the best point found."""

    exit_code = 3

    def __init__(self, message: str, result: object = None) -> None:
        super().__init__(message)
        self.result = result


class VanishingCombinationError(ConvergenceError):
    """The likelihood grows without bound as a combination of traits loses all variance.

    ``form`` is the message, with ``%s`` where it lists the traits, and ``traits`` are positions of those of the
    combination, two or more.
    """

    def __init__(self, form: str, traits: tuple[int, ...], result: object) -> None:
        self.form, self.traits = form, traits
        super().__init__(self.naming({j: str(j + 1) for j in traits}), result)

    def naming(self, names: Mapping[int, str] | Sequence[str]) -> str:
        """The message with these names of all traits."""
        *first, last = (names[j] for j in self.traits)
        return self.form % f"{', '.join(first)} and {last}"


MOST_CHARACTERS = 1000
"""A message is cut in its middle where it is longer: a value in it can be as long as a file."""


def readable(message: str, most: int = MOST_CHARACTERS) -> str:
    r"""A message as one line that a terminal shows as it is, whatever the values in it hold.

    >>> readable("sample 'a\x1b[2J\n'")
    "sample 'a\\x1b[2J\\n'"
    """
    if len(message) > most:
        message = f"{message[: most - most // 3]} [...] {message[-(most // 3) :]}"
    if message.isprintable():
        return message
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
