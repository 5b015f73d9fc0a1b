"""A lean HTTP/1.1 client (RFC 9112) over llhttp and asyncio's protocols. One call is one request on the wire; nothing
here sends again, follows a redirect, keeps a cookie, decompresses, or knows what a task is."""
