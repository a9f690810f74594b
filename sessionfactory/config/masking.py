"""Database URLs and the secrets in them: taken out, masked, and put back only to connect."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Generic, Never, Protocol, TypeVar, runtime_checkable

from sqlalchemy import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from sessionfactory._lazy import publish

if TYPE_CHECKING:
    from collections.abc import Mapping

_MASK: Final = "'***'"
_SECRET_KEY = re.compile(
    r"passw|pwd|passphrase|secret|token|api_?key|access_?key|credential|odbc_connect", re.IGNORECASE
)
_UNESCAPED: Final = (
    "the user name or password holds an unescaped '@', '/' or ':';"
    " write %40, %2F or %3A, or give the password as a setting of its own"
)
_QUERY: Final = r"[A-Za-z_][\w.-]*=[^&@]*(?:@[^&/]*)?(?:&[A-Za-z_][\w.-]*=[^&@]*(?:@[^&/]*)?)*"
_SURE_URL: Final = re.compile(rf"([^:/?]+://[^/?]*/[^?]*)\?({_QUERY})")
_SURE_QUERY: Final = re.compile(rf"([^?]*/[^?]*)\?{_QUERY}")
"""What follows the user's name, if it can only be a path with a query behind it: the path."""
_SEVERAL_HOSTS: Final = re.compile(
    r"(?P<scheme>[^:/?]+)://(?P<user>[^@]*@)?(?P<hosts>[^/?@,]+(,[^/?@,]+)+)(?P<path>/[^?]*)?(\?(?P<query>.*))?"
)
_EXAMPLE = "a database URL such as postgresql://user@host/name or sqlite:///file.db"
V = TypeVar("V")


@runtime_checkable
class UrlLike(Protocol):
    """A URL of another library that knows its own text: pydantic's ``PostgresDsn``, for one."""

    def unicode_string(self) -> str:
        """Return the URL as text, password included."""
        ...


@runtime_checkable
class SecretLike(Protocol):
    """A secret of another library: pydantic's ``SecretStr``."""

    def get_secret_value(self) -> str:
        """Return the text."""
        ...


class Masked(Generic[V]):
    """A value that no error tracker looks into, because it is no container.

    Trackers print the variables of each frame, and walk through mappings and sequences instead of
    calling ``repr``. So a mapping that holds secrets is inside of such a value wherever an error
    may pass.
    """

    __slots__ = ("_value",)

    def __init__(self, value: V) -> None:
        self._value = value

    def reveal(self) -> V:
        """Return the value. Do not bind it to a local variable of a frame that may raise."""
        return self._value

    def __repr__(self) -> str:
        return "<masked>"


class Secret:
    """A text that no ``repr``, ``str``, ``asdict``, log, error or traceback shows.

    ``reveal()`` is the only way to the text. A secret compares by its text. It is not pickled: a
    pickle would carry the text elsewhere.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text. Do not keep it in a local variable of a frame that may raise."""
        return self._text

    def __repr__(self) -> str:
        return _MASK

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, _memo: object) -> Secret:
        return self

    def __reduce__(self) -> Never:
        raise TypeError("a Secret is not pickled: read the configuration again where it is needed")


def is_secret_key(key: str) -> bool:
    """Return whether a query key or connect argument of this name holds a secret."""
    return _SECRET_KEY.search(key) is not None


def parse_url(value: object) -> URL:
    """Return ``value`` as a URL, whose text no error quotes.

    Raises:
        ValueError: it is no URL, or one whose secret would end up in the wrong part.
    """
    text = _text_of(value)
    if isinstance(text, URL):
        url = text.set(drivername="postgresql") if text.drivername == "postgres" else text
    elif isinstance(text, str):
        url = _make_url(text.strip())
        if _is_ambiguous(text):
            raise ValueError(_UNESCAPED)
    else:
        raise ValueError(f"expected {_EXAMPLE}")
    problem = _problem_with(url)
    if problem:
        raise ValueError(problem)
    return url


def _text_of(value: object) -> object:
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, UrlLike):
        return value.unicode_string()
    return value.get_secret_value() if isinstance(value, SecretLike) else value


def _make_url(text: str) -> URL:
    if text.startswith("postgres://"):  # the name of Heroku and libpq, which SQLAlchemy dropped
        text = text.replace("postgres://", "postgresql://", 1)
    sure = _SURE_URL.fullmatch(text)
    if sure is not None and sure[1].count("@") <= 1:
        # SQLAlchemy takes the part before the last ``@`` for the user's, ``:port`` and all.
        text = f"{sure[1]}?{sure[2].replace('@', '%40')}"
    several = _SEVERAL_HOSTS.fullmatch(text)
    if several is not None:
        text = _with_hosts_in_query(several)
    try:
        return make_url(text)
    except ArgumentError:  # which quotes the text, password and all
        quoted = " (it begins with a quotation mark)" if text[:1] in {"'", '"'} else ""
    except ValueError:
        raise ValueError("the port of the URL is not a number") from None
    raise ValueError(f"expected {_EXAMPLE}{quoted}") from None


def _with_hosts_in_query(found: re.Match[str]) -> str:
    """Return a URL in which the hosts of libpq's ``host1:port1,host2`` stand as SQLAlchemy's do."""
    query = "&".join(f"host={host}" for host in found["hosts"].split(","))
    query = f"{query}&{found['query']}" if found["query"] else query
    return f"{found['scheme']}://{found['user'] or ''}{found['path'] or '/'}?{query}"


def _is_ambiguous(text: str) -> bool:
    # An unescaped reserved character moves a part of the password into the host, the database name
    # or the query, which drivers quote when they cannot connect.
    scheme, _, rest = text.partition("://")
    _user, colon, password_and_more = rest.partition(":")
    if scheme.startswith("sqlite") or not colon:
        return False
    found = _SURE_QUERY.fullmatch(password_and_more)
    return (password_and_more if found is None else found[1]).count("@") > 1


def _problem_with(url: URL) -> str | None:
    if not takes_password(url) and (url.host or url.username or url.password):
        return "write sqlite:///file.db for a relative path, sqlite:////dir/file.db for another"
    if url.get_backend_name() != "sqlite" and "@" in f"{url.host}{url.database}":
        return _UNESCAPED
    return None


def takes_password(url: URL) -> bool:
    """Return whether a database may have a password: files of SQLite have none, if not encrypted.

    Drivers that encrypt them are called after their cipher.
    """
    return url.get_backend_name() != "sqlite" or "cipher" in url.drivername


def take_secrets(url: URL) -> tuple[URL, dict[str, Secret]]:
    """Split a URL into one without secrets and its secrets.

    Returns:
        the URL, and the secrets by query key; the one that stood before the ``@`` is ``""``.
    """
    secrets: dict[str, Secret] = {}
    if url.password:
        secrets[""] = Secret(str(url.password))
    for key, value in url.query.items():
        if is_secret_key(key):
            secrets[key] = Secret(value if isinstance(value, str) else value[-1])
    # ``URL.set(password=None)`` means "leave it": only the constructor takes a password away.
    bare = URL.create(
        url.drivername, url.username, None, url.host, url.port, url.database, url.query
    )
    return bare.difference_update_query([key for key in secrets if key]), secrets


def with_secrets(url: URL, password: Secret | None, query: Mapping[str, Secret]) -> URL:
    """Put secrets back into a URL; only the driver gets the result."""
    if password is not None:
        url = url.set(password=password.reveal())
    return url.update_query_dict({key: secret.reveal() for key, secret in query.items()})


publish(Secret)
