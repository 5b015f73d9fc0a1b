"""What goes out, as text: URLs taken apart, heads put together, and what can't be smuggled into either."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dispatch.http import message, proxy
from gateway.dispatch.http.errors import InvalidRequest
from gateway.dispatch.http.message import encode, parse_url


@pytest.mark.parametrize("module", [message, proxy])
def test_docstring_examples_hold(module: object) -> None:
    """The examples a reader of the modules sees are what they do."""
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    ("url", "host", "port", "authority", "path"),
    [
        ("http://a", "a", 80, "a", "/"),
        ("HTTP://A.Test:80?x", "a.test", 80, "a.test", "/?x"),
        ("https://a:443/", "a", 443, "a", "/"),
        ("https://a:80/#f?g", "a", 80, "a:80", "/"),
        ("http://a:/x", "a", 80, "a", "/x"),
        ("http://a.:8080//x/./../y;z?q=<>", "a.", 8080, "a:8080", "//x/./../y;z?q=<>"),
        ("http://127.1/", "127.0.0.1", 80, "127.0.0.1", "/"),
        ("http://0x7f000001:1/", "127.0.0.1", 1, "127.0.0.1:1", "/"),
        ("http://[0:0::1]:8/", "::1", 8, "[::1]:8", "/"),
        ("http://[::ffff:10.0.0.1]/", "10.0.0.1", 80, "10.0.0.1", "/"),
        ("http://bücher.example/ü?ä=1", "xn--bcher-kva.example", 80, "xn--bcher-kva.example", "/%C3%BC?%C3%A4=1"),
        ("http://a_b-c.test/", "a_b-c.test", 80, "a_b-c.test", "/"),
        ("http://a/" + "x" * 5000, "a", 80, "a", "/" + "x" * 5000),
    ],
)
def test_urls_are_taken_apart(url: str, host: str, port: int, authority: str, path: str) -> None:
    """Host and port say what is dialled, the path stays as it was given, the fragment stays here."""
    target = parse_url(url)
    assert (target.origin.host, target.origin.port, target.authority, target.path) == (host, port, authority, path)


@pytest.mark.parametrize(
    "url",
    [
        *("", "a", "//a", "http:a", "http://", "http:///x", "ftp://a/", "http://user@a/", "http://u:p@a/"),
        *("http://[::1/", "http://[a]/", "http://[::1]x/", "http://%61/", "http://./", 'http://a"/', "http://a^/"),
        *("http://a:b/", "http://a:0/", "http://a:65536/", "http://a:999999999999/"),
        *("http://a b/", "http://a\\b/", "http://a\r\nX: y/"),
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    """Nothing that is not clearly a URL with a host and a port becomes a request."""
    with pytest.raises(InvalidRequest):
        parse_url(url)


A = parse_url("http://a/")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X", "a\r\nY: b"),
        ("X", "a\nb"),
        ("X", "a\rb"),
        ("X", "\0"),
        ("X", "\x7f"),
        ("X", "\ud800"),
        ("X\r\nY", "b"),
        ("X: y\r\nZ", "b"),
        ("X:", "b"),
        ("X ", "b"),
        ("", "b"),
        ("Ä", "b"),
        ("Content-Length", "3"),
        ("transfer-encoding", "chunked"),
        ("HOST", "b"),
        ("Connection", "close"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("Proxy_Authenticate", "Basic"),
        ("Upgrade", "h2c"),
    ],
)
def test_headers_that_are_none_are_refused(name: str, value: str) -> None:
    """Neither a name nor a value can end its line, and none can say anything about framing or the connection."""
    with pytest.raises(InvalidRequest):
        encode("POST", A, [(name, value)], b"x")


@pytest.mark.parametrize("method", ["", "get", "CONNECT", "TRACE", "GET / HTTP/1.1\r\nX:", "GET "])
def test_methods_are_a_closed_set(method: str) -> None:
    """What is not one of the seven methods is not sent."""
    with pytest.raises(InvalidRequest):
        encode(method, A, [], None)


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=12)), max_size=4), st.none() | st.binary(max_size=8))
def test_a_head_has_the_lines_it_was_given(headers: list[tuple[str, str]], body: bytes | None) -> None:
    """Whatever is accepted, the head has a line for each header, as given, and no other but Host and
    Content-Length."""
    try:
        request = encode("POST", A, headers, body)
    except InvalidRequest:
        return
    assert request.head.endswith(b"\r\n\r\n")
    lines = request.head[:-4].decode().split("\r\n")
    length = len(body or b"")
    expected = ["POST / HTTP/1.1", "Host: a", *(f"{name}: {value}" for name, value in headers)]
    assert lines == [*expected, f"Content-Length: {length}"]
    assert "\n" not in "".join(lines)


@given(st.text(max_size=40))
def test_any_text_is_a_url_or_none(text: str) -> None:
    """Whatever follows the scheme, the request's first line and Host are single lines of visible ASCII."""
    try:
        target = parse_url("http://" + text)
    except InvalidRequest:
        return
    for part in (target.authority, target.path):
        assert part.isascii()
        assert part.isprintable()
        assert " " not in part
    assert target.path.startswith("/")
    assert 1 <= target.origin.port <= 65535
