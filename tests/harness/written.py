"""The frames of a WebSocket server, without a library."""


def texts_in(frames: bytes) -> list[bytes]:
    """The texts of a server's frames."""
    texts, at = [], 0
    while at < len(frames):
        size, head = frames[at + 1], 2
        if size >= 126:
            head = 4 if size == 126 else 10
            size = int.from_bytes(frames[at + 2 : at + head])
        texts.append(frames[at + head : at + head + size])
        at += head + size
    return texts
