"""What comes in: bytes as answers, by llhttp and the rules of RFC 9112 that it leaves to its user. No I/O. Where the
framing of an answer is in doubt, it is invalid, or its connection is not to be used again."""

import re
from enum import Enum, auto

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

HEAD_BYTES = 64 * 1024
READ_BYTES = 64 * 1024
KEPT_BYTES = 4 * 1024
# Shorter than what common servers keep a connection for (Node, uvicorn and Apache 5 s): whoever closes first must be
# us, or a request is lost on its way to a connection that is going away.
IDLE_SECONDS = 4.0
_KEEP_ALIVE = re.compile(rb"(?:^|[,;\s])timeout\s*=\s*\"?([0-9]{1,9})", re.IGNORECASE)


class Answer:
    """What is known of an answer so far; survives an error halfway through it. ``status`` 0: nothing yet. ``body`` is
    its first 4 KiB."""

    __slots__ = ("body", "retry_after", "status")

    def __init__(self) -> None:
        self.status = 0
        self.retry_after: str | None = None
        self.body = b""


class Progress(Enum):
    """How far an answer is."""

    MORE = auto()
    COMPLETE = auto()
    INVALID = auto()


class AnswerReader:
    """Reads one answer after the other from the bytes of one connection.

    ``reusable``: whether the connection may carry another request after a complete answer, for at most
    ``idle_seconds``. The methods ``on_…`` are the parser's.
    """

    def __init__(self) -> None:
        self._parser: HttpResponseParser | None = None
        self.expect(Answer(), bodiless=False)

    def expect(self, answer: Answer, *, bodiless: bool) -> None:
        """The next bytes are this answer; ``bodiless``: to HEAD, whatever length its head says."""
        self.reusable = False
        self.idle_seconds = IDLE_SECONDS
        self._answer = answer
        self._bodiless = bodiless
        self._received = 0
        self._usual = False  # HTTP/1.1, to be seen without the parser
        self._before_body = 0
        self._head_done = False
        self._complete = False
        self._invalid = False
        self._forget_head()

    def _forget_head(self) -> None:
        self._version = ""
        self._coding: bytes | None = None
        self._has_length = False
        self._retry_after: bytes | None = None

    def feed(self, data: bytes) -> Progress:
        """Take what has arrived."""
        parser = self._parser
        if parser is None:
            parser = self._parser = HttpResponseParser(self)
        if not self._received:
            self._usual = data.startswith(b"HTTP/1.1 ")
        if not self._head_done:
            # The piece of data that brings the end of the head counts as body.
            self._before_body = self._received
        try:
            if not self._head_done and self._received + len(data) > HEAD_BYTES:
                data = self._feed_head(parser, data)
            self._received += len(data)
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            # Behind a complete answer it is not the answer that is wrong.
            self._invalid = self._invalid or not self._complete
            self.reusable = False
        if self._invalid:
            return Progress.INVALID
        if not self._complete and self._head_done and self._received - self._before_body > READ_BYTES:
            # The status is known and counts; the rest of a huge answer is not pulled in to save a connection. Framing
            # and trailers are in the count, so nothing in a body is without a bound.
            self._complete = True
        if self._complete and self._bodiless:
            self._parser = None  # it waits for the body that the head announced
        return Progress.COMPLETE if self._complete else Progress.MORE

    def _feed_head(self, parser: HttpResponseParser, data: bytes) -> bytes:
        """Give the parser no more than a head may have, all interim answers included; what is left of the data."""
        room = HEAD_BYTES - self._received
        self._received = HEAD_BYTES
        parser.feed_data(data[:room])
        if not self._head_done:
            self._invalid = True
            return b""
        return data[room:]

    def end(self, *, clean: bool) -> str | None:
        """The connection has ended, ``clean``: by the target's will. None where that completes the answer, else what it
        lacks."""
        until_close = not self._has_length and (self._coding is None or not self._coding.endswith(b"chunked"))
        if not self._head_done:
            return "connection closed"
        return None if until_close and clean else "response cut off"

    def close(self) -> None:
        """Parser and reader refer to each other: nothing is read any more."""
        self._parser = None

    def on_message_begin(self) -> None:
        """The first byte of an answer, also of an interim one; behind a complete one there must be none."""
        if self._complete:
            self.reusable = False
        else:
            self._forget_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which is ignored."""
        if self._head_done:
            return
        match name.lower():
            case b"retry-after":
                self._retry_after = value
            case b"keep-alive":
                # A second less than promised, for the way there.
                if promised := _KEEP_ALIVE.search(value):
                    self.idle_seconds = min(IDLE_SECONDS, int(promised[1]) - 1.0)
            case b"content-length":
                self._has_length = True
            case b"transfer-encoding":
                # llhttp refuses it together with Content-Length; twice is as much a riddle.
                self._invalid = self._invalid or self._coding is not None
                self._coding = value.strip().lower()

    def on_headers_complete(self) -> None:
        """The end of a head. Interim answers (RFC 9110, 15.2) are skipped; 101 was not asked for."""
        parser = self._parser
        if self._complete or parser is None:
            return
        status = parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            self._usual = False
            return
        self._version = "1.1" if self._usual else parser.get_http_version()  # which words it anew each time
        if status < 200 or self._version not in {"1.0", "1.1"}:
            self._invalid = True
            return
        self._head_done = True
        self._answer.status = status
        if self._retry_after is not None:
            self._answer.retry_after = self._retry_after.decode("latin-1")
        if self._bodiless:
            self._complete = True
            # Whether chunks follow a head that should have none can't be told from the next answer.
            self.reusable = self._coding is None and parser.should_keep_alive() and self.idle_seconds > 0

    def on_body(self, body: bytes) -> None:
        """A piece of the body, without its framing."""
        if self._complete:
            self.reusable = False
            return
        kept = self._answer.body
        if len(kept) < KEPT_BYTES:
            self._answer.body = kept + body[: KEPT_BYTES - len(kept)]

    def on_message_complete(self) -> None:
        """The end of an answer whose end shows in its framing."""
        parser = self._parser
        if self._head_done and not self._complete and parser is not None:
            self._complete = True
            # Chunks from HTTP/1.0 are faulty framing (RFC 9112, 6.1).
            keep = parser.should_keep_alive() and (self._coding is None or self._version != "1.0")
            self.reusable = keep and self.idle_seconds > 0
