"""Which secrets are in the middle of a handshake on this replica (docs/protocols/pelion.md, section 4)."""

from shared.model.api_keys import hash_of, id_in


class Mark:
    """Stands for one handshake, until it is over."""

    __slots__ = ("_marked", "_name")

    def __init__(self, marked: set[str], name: str | None) -> None:
        self._marked = marked
        self._name = name

    def over(self) -> None:
        """Accepted, refused or broken off; may be said more than once."""
        if self._name is not None:
            self._marked.discard(self._name)
            self._name = None


class Handshakes:
    """Lets one handshake with each secret go on at a time.

    By the secret and not by the id in it, which is known to more people: they could keep the key's owner out.
    """

    def __init__(self) -> None:
        self._marked: set[str] = set()

    def begin(self, secret: str | None) -> Mark | None:
        """The mark of a new handshake; None while another with the same secret is in progress."""
        if secret is None or id_in(secret) is None:
            # It will be refused for what it is.
            return Mark(self._marked, None)
        name = hash_of(secret)
        if name in self._marked:
            return None
        self._marked.add(name)
        return Mark(self._marked, name)
