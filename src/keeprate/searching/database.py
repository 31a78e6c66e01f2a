"""A database of other people's, in which the study of a search lies: where Optuna's tools look.

A URL may hold a password. Nothing but the connection itself sees it: records, messages and reports
have the URL without user, password and options.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import sqlalchemy
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from keeprate.errors import InputError, Words, first_line, invalid

DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "sqlite": "sqlite"}
"""Kinds of databases that Optuna writes to, and the drivers of those that name none."""
TELLING = 4  # characters of an option of a URL, from which on no message repeats it


@dataclass(frozen=True)
class Database:
    """A database, and the name of a study in it.

    Attributes
    ----------
    url : sqlalchemy.URL
        With a password, perhaps.
    study : str
    """

    url: sqlalchemy.URL
    study: str = ""

    @classmethod
    def parse(cls, text: str) -> Database:
        """Read a URL.

        Raises
        ------
        InputError
            If it is no URL of such a database; the message does not repeat it.

        Examples
        --------
        >>> str(Database.parse("postgresql://ann:secret@db.example:5432/studies"))
        'postgresql://db.example:5432/studies'
        """
        try:
            url = sqlalchemy.make_url(text)
        except (ArgumentError, ValueError, AttributeError):
            raise _no_url("another text") from None
        kind = url.get_backend_name()
        if kind not in DRIVERS or not url.database:
            raise _no_url(f"{kind}://..." if kind not in DRIVERS else "one without a database")
        if url.drivername == kind:
            url = url.set(drivername=DRIVERS[kind])
        return cls(url)

    def __str__(self) -> str:
        url = self.url
        kind = url.get_backend_name()
        return str(sqlalchemy.URL.create(kind, None, None, url.host, url.port, url.database))

    def __repr__(self) -> str:
        return f"Database({str(self)!r}, {self.study!r})"

    def named(self, folder: Path | None, study: str | None) -> Database:
        """The same with a study: an earlier one, or a new one named after the run folder."""
        fresh = f"{'keeprate' if folder is None else folder.resolve().name}-{uuid4().hex[:8]}"
        return replace(self, study=study or fresh)

    def check(self) -> None:
        """Connect once.

        Raises
        ------
        InputError
            If that fails.
        """
        try:
            engine = sqlalchemy.create_engine(self.url)
            with engine.connect():
                pass
            engine.dispose()
        except (SQLAlchemyError, ImportError) as error:
            raise self.unreachable(getattr(error, "orig", None) or error) from None

    def check_file(self) -> None:
        """Look for the file of SQLite, which would make it.

        Raises
        ------
        FileNotFoundError
            If the database is a file and not there.
        """
        file = self.url.database
        if self.url.get_backend_name() == "sqlite" and file and not Path(file).exists():
            raise FileNotFoundError("the file is not there")

    def unreachable(self, error: BaseException) -> InputError:
        """What to say where the database does not do what it is asked."""
        remedy = "check that it runs, and the user's rights; all files of the run are unchanged"
        if isinstance(error, ImportError):
            remedy = "pip install 'keeprate[storage]' for PostgreSQL, pymysql for MySQL"
        received = Words(f"{self} ({self.reason(error)})")
        return invalid("storage", "be a database that answers", received, remedy)

    def reason(self, error: BaseException) -> str:
        """The first line of an error, without what the URL must not show."""
        text = str(error).strip() or type(error).__name__
        return first_line(InputError(self.hidden(text)))  # a line that is cut hides less

    def hidden(self, text: str) -> str:
        """A text without what the URL must not show.

        Examples
        --------
        >>> Database.parse("postgresql://ann:secret@host/x").hidden("ann, annual, secret2")
        '***, annual, ***2'
        """
        url = self.url
        text = text.replace(url.render_as_string(hide_password=False), str(self))
        if url.password:
            text = text.replace(str(url.password), "***")
        words = [url.username or ""]
        for name, values in url.normalized_query.items():  # a short value tells nothing: "1"
            words += [value for value in values if len(value) >= TELLING or "pass" in name]
        for word in filter(None, words):
            text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "***", text)
        return text


def _no_url(received: str) -> InputError:
    requirement = f"be a URL of {', '.join(DRIVERS)}"
    remedy = "write postgresql://user@host/database; libpq reads the password from ~/.pgpass"
    return invalid("storage", requirement, Words(received), remedy)
