"""Bad HTTP by name, as `bad_inputs` has bad bodies: lines, headers, methods, paths, sizes, what would smuggle a request
past a proxy, and connections that stall."""

from bad_inputs import GOOD, MAX_BODY, Bad, admin, chunked, post, request

LINES = (
    Bad("no HTTP", b"hello\r\n\r\n", 400),
    Bad("HTTP/0.9", b"GET /livez\r\n\r\n", 400),
    Bad("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    Bad("a version nobody knows", request("GET /livez HTTP/9.9"), 400),
    Bad("a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), 400),
    Bad("no host", b"GET /livez HTTP/1.1\r\n\r\n", 400),
    Bad("a method nobody knows", request("BREW /livez"), 400),
    Bad("a method in small letters", request("get /livez"), 400),
    Bad("a trace", request("TRACE /v1/enqueue"), 405),
    Bad("a tunnel", request("CONNECT example.com:443"), 404),
    Bad("another method", request("PATCH /v1/enqueue", body=GOOD), 405),
    Bad("a line break in the path", b"GET /livez\nX HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    Bad("a byte in the path", b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    Bad("a NUL in the path", request("GET /v1/enqueue%00"), 404),
    Bad("a path upward", request("GET /v1/../admin/clients"), 404),
    Bad("an encoded path upward", request("GET /v1/%2e%2e%2fadmin/clients"), 404),
    Bad("a path with two slashes", request("POST //v1/enqueue", body=GOOD), 404),
    Bad("a whole URL of another host", request("GET http://169.254.169.254/latest"), 404),
    Bad("a key in the URL", request("GET /admin/clients?api_key=hunter2"), 400),
    Bad("a path of 9,000 letters", request(f"GET /{'a' * 9000}"), 400),
    Bad("a query of 9,000 letters", request(f"GET /livez?{'a' * 9000}"), 400),
    Bad("an upgrade", request("GET /livez", "Upgrade: websocket", "Connection: Upgrade"), 200),
    Bad("an expectation nobody can meet", post(GOOD, "Expect: more"), 417),
)

HEADERS = (
    Bad("a header without a colon", request("GET /livez", "X-A"), 400),
    Bad("a header without a name", request("GET /livez", ": 1"), 400),
    Bad("a space before the colon", request("POST /v1/enqueue", "Content-Length : 2") + b"{}", 400),
    Bad("a NUL in a header", request("GET /livez", "X-A: \0"), 400),
    Bad("a bare CR in a header", request("GET /livez", "X-A: 1\rX-B: 2"), 400),
    Bad("a folded header", request("GET /livez", "X-A: 1", " 2"), 400),
    Bad("a header of 9,000 letters", request("GET /livez", f"X-A: {'a' * 9000}"), 400),
    Bad("more headers than 128", request("GET /livez", *(f"X-{number}: 1" for number in range(200))), 400),
    Bad("a head of a megabyte", b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X-A: " + b"a" * 1_000_000, 400),
    Bad("a head of many lines", b"GET /livez HTTP/1.1\r\nHost: x\r\n" + (b"X-A: " + b"a" * 8000 + b"\r\n") * 20, 431),
    Bad("a key that is no text", admin("GET /admin/tiers").replace(b"X-Admin-Key: ", b"X-Admin-Key: \xff\xfe"), 401),
)

SIZES = (
    Bad("a body past the limit", post(b" " * (MAX_BODY + 1)), 413),
    Bad("a body that says so and does not come", request("POST /v1/enqueue", f"Content-Length: {10**12}"), 413),
    Bad("a length past 64 bits", request("POST /v1/enqueue", f"Content-Length: {2**70}"), 400),
    Bad(
        "chunks past the limit",
        chunked(b"64\r\n" + b" " * 100 + b"\r\n" + (b"64\r\n" + b" " * 100 + b"\r\n") * 30),
        413,
    ),
    Bad("a batch past the limit", post(b" " * (MAX_BODY + 1), path="/v1/enqueue/batch"), 413),
    Bad("settings past the limit", admin("PUT /admin/clients/set", b" " * (MAX_BODY + 1)), 413),
)

# RFC 9112, 6: two readers that frame such a request differently see different requests in it.
SMUGGLING = (
    Bad("both framings", chunked(b"0\r\n\r\n", "Content-Length: 5"), 400),
    Bad("two lengths", request("POST /v1/enqueue", "Content-Length: 2", "Content-Length: 3") + b"{}x", 400),
    Bad("one length twice", request("POST /v1/enqueue", "Content-Length: 2", "Content-Length: 2") + b"{}", 400),
    Bad("a list of lengths", request("POST /v1/enqueue", "Content-Length: 2, 2") + b"{}", 400),
    Bad("a length with a sign", request("POST /v1/enqueue", "Content-Length: +2") + b"{}", 400),
    Bad("a length below zero", request("POST /v1/enqueue", "Content-Length: -1"), 400),
    Bad("a length in hexadecimal", request("POST /v1/enqueue", "Content-Length: 0x2") + b"{}", 400),
    Bad("a length with an underscore", request("POST /v1/enqueue", "Content-Length: 1_0") + b"{}", 400),
    Bad(
        "a transfer encoding nobody knows",
        request("POST /v1/enqueue", "Transfer-Encoding: xchunked") + b"0\r\n\r\n",
        400,
    ),
    Bad(
        "chunks that are not last",
        request("POST /v1/enqueue", "Transfer-Encoding: chunked, identity") + b"0\r\n\r\n",
        400,
    ),
    Bad("chunked twice", request("POST /v1/enqueue", "Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n", 400),
    Bad("chunks in HTTP/1.0", request("POST /v1/enqueue HTTP/1.0", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    Bad("bare line feeds", b"POST /v1/enqueue HTTP/1.1\nHost: x\nContent-Length: 2\n\n{}", 400),
    Bad("a bare line feed before a header", b"GET /livez HTTP/1.1\r\nHost: x\nX-A: 1\r\n\r\n", 400),
    Bad("a chunk size that is none", chunked(b"zz\r\n{}\r\n0\r\n\r\n"), 400),
    Bad("a chunk size below zero", chunked(b"-2\r\n{}\r\n0\r\n\r\n"), 400),
    Bad("a chunk size past 64 bits", chunked(b"f" * 17 + b"\r\n{}\r\n0\r\n\r\n"), 400),
    Bad("a chunk longer than it says", chunked(b"1\r\n{}\r\n0\r\n\r\n"), 400),
    Bad("a chunk with a bare line feed", chunked(b"2\n{}\n0\n\n"), 400),
    Bad("a chunk with a long extension", chunked(b"2;" + b"a" * 100_000 + b"\r\n{}\r\n0\r\n\r\n"), 401),
    Bad("a trailer that frames", chunked(b"2\r\n{}\r\n0\r\nContent-Length: 9\r\n\r\n"), 400),
    Bad("trailers without end", chunked(b"2\r\n{}\r\n0\r\n" + b"X-A: 1\r\n" * 20_000), 400),
)

KEPT = b"POST /v1/enqueue HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"

STALLING = (
    Bad("a body that stalls on a kept connection", KEPT % 9 + b"{", 408),
    Bad("a body that ends early on a kept connection", KEPT % 9 + b"{", None, half_closed=True),
    Bad("a body that stalls", request("POST /v1/enqueue", "Content-Length: 9") + b"{", 408),
    Bad("chunks that stall", chunked(b"2\r\n{}\r\n"), 408),
    Bad("a chunk that stalls", chunked(b"9\r\n{"), 408),
    Bad("a head that stalls", b"POST /v1/enqueue HTTP/1.1\r\nHost: x\r\n", 408),
    Bad("a line that stalls", b"POST /v1/enq", 408),
    Bad("a connection on which nothing comes", b"", None),
    Bad("a body that ends early", request("POST /v1/enqueue", "Content-Length: 9") + b"{", None, half_closed=True),
    Bad("a head that ends early", b"POST /v1/enqueue HTTP/1.1\r\nHost: x\r\n", None, half_closed=True),
    Bad("a connection that is closed at once", b"", None, half_closed=True),
)
