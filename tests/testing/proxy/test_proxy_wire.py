"""Reading the protocols, wherever the network cuts their streams."""

from __future__ import annotations

import random
from struct import pack
from typing import TYPE_CHECKING

import pytest

from sessionfactory.testing.proxy._engine.mysql import MySQL
from sessionfactory.testing.proxy._engine.postgresql import PostgreSQL
from sessionfactory.testing.proxy._engine.wire import Conversation

if TYPE_CHECKING:
    from collections.abc import Iterator


def message(kind: bytes, *fields: bytes) -> bytes:
    """A message of PostgreSQL's, each field ended by a zero byte."""
    body = b"".join(field + b"\0" for field in fields)
    return kind + pack(">i", 4 + len(body)) + body


def start_up(code: int, *fields: bytes) -> bytes:
    """A message of PostgreSQL's that begins a connection."""
    body = pack(">i", code) + b"".join(field + b"\0" for field in fields)
    return pack(">i", 4 + len(body)) + body


SSL, GSS = start_up(80877103), start_up(80877104)
START = start_up(196608, b"user", b"ada", b"")
READY = b"Z\0\0\0\5I"
SYNC = message(b"S")


def packet(number: int, payload: bytes) -> bytes:
    """A packet of MySQL's."""
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """The data in every two pieces, in single bytes, and in some random ways."""
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]
    yield [data[at : at + 1] for at in range(len(data))]
    chance = random.Random(5)
    for _ in range(50):
        places = sorted(chance.sample(range(1, len(data)), 5))
        yield [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def read(talk: Conversation, pieces: list[bytes]) -> tuple[bytes, list[tuple[int, str, int]]]:
    """Let a conversation take these pieces; give what it hands on, and its statements."""
    handed, found = b"", list[tuple[int, str, int]]()
    for piece in pieces:
        data, statements = talk.from_client(piece)
        found += [(len(handed) + start, text, answer) for start, text, answer in statements]
        handed += data
    return handed, found


def logged_in() -> PostgreSQL:
    """Make a conversation that is past its login."""
    talk = PostgreSQL()
    talk.from_client(START)
    talk.from_server(message(b"R", b"\0\0\0") + READY)
    assert (talk.login, talk.asked, talk.answered) == (False, 1, 1)
    return talk


def test_postgresql_statements_are_found_wherever_the_stream_is_cut() -> None:
    """Statements of both protocols are found, with their places and their answers' numbers."""
    parts = [
        message(b"P", b"s1", b"INSERT", b"\0"),
        message(b"P", b"", b"SELECT 2", b"\0"),
        SYNC,
        message(b"Q", b"BEGIN"),
        message(b"B", b"", b"s1", b"x" * 5),
        message(b"E", b"", b"\0\0\0"),
        message(b"B", b"p", b"", b""),
        message(b"E", b"p", b"\0\0\0"),
        SYNC,
        message(b"F", b""),
        message(b"C", b"Ss1"),
        message(b"C", b"Pp"),
        message(b"B", b"", b"s1", b""),
        message(b"E", b"", b"\0\0\0"),
        message(b"Q", "SELECT 'ö'".encode()),
    ]
    starts = [sum(map(len, parts[:number])) for number in range(len(parts))]
    stream = b"".join(parts)
    for pieces in cuts(stream):
        handed, found = read(logged_in(), pieces)
        assert handed == stream
        assert found == [
            (starts[3], "BEGIN", 3),
            (starts[5], "INSERT", 4),
            (starts[7], "SELECT 2", 4),
            (starts[13], "", 6),
            (starts[14], "SELECT 'ö'", 6),
        ]


def test_postgresql_login_is_followed_wherever_the_stream_is_cut() -> None:
    """A client that asks for encryption and does without logs in as one that does not ask."""
    asked = [GSS, SSL, START, message(b"p", b"secret")]
    answers = [b"N", b"N", message(b"R", b"abc"), message(b"S", b"a", b"b") + READY]
    for number, answer in enumerate(answers):
        for pieces in cuts(answer + READY):
            talk = PostgreSQL()
            for client, server in zip(asked[:number], answers[:number], strict=True):
                assert read(talk, [client]) == (client, [])
                talk.from_server(server)
            assert talk.login
            assert read(talk, [asked[number][:3], asked[number][3:]]) == (asked[number], [])
            for piece in pieces:
                talk.from_server(piece)
            assert (talk.login, talk.readable) == (False, True)


@pytest.mark.parametrize("answer", [b"S", b"G"])
def test_postgresql_encrypted(answer: bytes) -> None:
    """Once the server has agreed to encryption, all passes as it is, and logins are not told."""
    talk = PostgreSQL()
    talk.from_client(SSL)
    talk.from_server(answer)
    assert (talk.login, talk.readable) == (False, False)
    assert read(talk, [b"\x16\x03", message(b"Q", b"COMMIT")])[1] == []
    talk.from_server(READY)
    assert talk.answered == 0


def test_postgresql_error_instead_of_an_answer() -> None:
    """A server too old to know what it is asked sends an error message, and is understood."""
    talk = PostgreSQL()
    talk.from_client(SSL)
    talk.from_server(message(b"E", b"what?") + READY)
    assert talk.answered == 1


@pytest.mark.parametrize(
    "hello",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/1.0\r\n\r\n", start_up(5)],
)
def test_postgresql_unknown_hello(hello: bytes) -> None:
    """What does not begin as PostgreSQL's protocol passes as it is."""
    for pieces in ([hello], [hello[:7], hello[7:]]):
        talk = PostgreSQL()
        assert read(talk, pieces) == (hello, [])
        assert not talk.readable


def test_postgresql_nonsense_passes() -> None:
    """A message that breaks the rules passes as it is, and nothing is read from then on."""
    talk = logged_in()
    nonsense = b"E\0\0\0\4" + message(b"Q", b"COMMIT")
    assert read(talk, [nonsense]) == (nonsense, [])
    assert not talk.readable


def test_postgresql_answers_are_counted_wherever_the_stream_is_cut() -> None:
    """Each ReadyForQuery is one answer, whatever the messages around it hold."""
    stream = message(b"D", b"ZZZZZ") + READY + message(b"C", b"INSERT 0 1") + READY
    for pieces in cuts(stream):
        talk = logged_in()
        for piece in pieces:
            talk.from_server(piece)
        assert talk.answered == 3


def test_postgresql_copy_by_the_extended_protocol() -> None:
    """The Sync that a COPY swallows is not answered, and the one after it is."""
    talk = logged_in()
    talk.from_client(message(b"P", b"", b"COPY", b"\0") + message(b"E", b"") + SYNC)
    assert talk.asked == 2
    talk.from_server(message(b"G", b"\0\0"))
    assert talk.asked == 1
    talk.from_client(message(b"d", b"1") + message(b"c") + SYNC)
    assert talk.asked == 2
    talk.from_client(message(b"Q", b"COPY"))
    talk.from_server(message(b"G", b"\0\0"))
    assert talk.asked == 3


def test_postgresql_finish_asks_for_an_answer() -> None:
    """What is delivered without its Sync gets one, for without it there would be no answer."""
    talk = logged_in()
    assert talk.finish() == SYNC
    assert talk.asked == 2


def mysql_logged_in(capabilities: int = 0) -> MySQL:
    """Make a conversation whose client has said who it is."""
    talk = MySQL()
    talk.from_server(packet(0, b"\x0a5.5.5-10.11-MariaDB\0"))
    assert talk.login
    talk.from_client(packet(1, pack("<I", capabilities) + b"\0" * 28 + b"ada\0"))
    return talk


def test_mysql_statements_are_found_wherever_the_stream_is_cut() -> None:
    """Statements sent as text are found; other commands, and later packets, are not."""
    parts = [
        packet(0, b"\x03SELECT 1"),
        packet(0, b"\x0e"),
        packet(1, b"\x03a file's content"),
        packet(1, b""),
        packet(0, b"\x03COMMIT"),
    ]
    stream = b"".join(parts)
    for pieces in cuts(stream):
        talk = mysql_logged_in()
        talk.from_server(packet(2, b"\0\0\0\2\0\0\0"))
        handed, found = read(talk, pieces)
        assert handed == stream
        assert found == [(0, "SELECT 1", 1), (len(stream) - len(parts[-1]), "COMMIT", 3)]
        assert talk.answered == 0
        talk.from_server(b"anything")
        assert talk.answered == 3
        assert talk.finish() == b""


def test_mysql_login_is_followed_wherever_the_stream_is_cut() -> None:
    """The login ends with the server's OK, whatever it asks for before."""
    answers = packet(2, b"\xfecaching_sha2_password\0") + packet(4, b"\x01\x03") + packet(5, b"\0")
    for pieces in cuts(answers):
        talk = mysql_logged_in()
        for piece in pieces:
            assert talk.login
            talk.from_client(packet(3, b"scramble"))
            talk.from_server(piece)
        assert not talk.login


def test_mysql_attributes() -> None:
    """The counts of attributes before a statement do not belong to it."""
    talk = mysql_logged_in(1 << 27)
    talk.from_server(packet(2, b"\0"))
    assert read(talk, [packet(0, b"\x03\0\1COMMIT")])[1] == [(0, "COMMIT", 1)]


@pytest.mark.parametrize("capability", [5, 11, 26])
def test_mysql_encrypted_or_compressed(capability: int) -> None:
    """Once encrypted or compressed, all passes as it is."""
    talk = mysql_logged_in(1 << capability)
    assert (talk.login, talk.readable) == (False, False)
    assert read(talk, [packet(0, b"\x03COMMIT")]) == (packet(0, b"\x03COMMIT"), [])


def test_mysql_nonsense_passes() -> None:
    """A command without a code passes as it is."""
    talk = mysql_logged_in()
    talk.from_server(packet(2, b"\0"))
    assert read(talk, [packet(0, b"")]) == (packet(0, b""), [])
    assert not talk.readable


def test_other_protocols_pass() -> None:
    """A conversation that cannot be parsed is handed on as it comes."""
    talk = Conversation()
    assert read(talk, [b"abc", b"def"]) == (b"abcdef", [])
    talk.from_server(b"ghi")
    assert (talk.login, talk.readable, talk.finish()) == (False, False, b"")
