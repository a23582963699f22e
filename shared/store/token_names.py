"""The names of what tokens need in Redis: the rest of the data layout that `keyspace.py` has.

`{account}:token-keys`
                hash: the keys that verify the account's tokens, by their ids: algorithm, material (the secret
                of HS256 as it is, or a public key in PEM), created_at_ms and origin (JSON); at most 11.
                server: the id of the one that the server signs with. Gateway. Permanent; a field goes with
                its key, all of it first of all with the account.
`{account}:token-cut-offs`
                sorted set: 16 bytes of the SHA-256 of a subject in hex, by the ms until which its tokens are
                refused by the time at which they were issued; at most 10,000. Gateway. A member goes when all
                such tokens have expired, or soon after; TTL as long.
`{native-tokens}:changes`
                sorted set: accounts by the ms at which a token key of theirs ended, or a subject was cut off.
                Gateway; each edge reads it twice a second. A member goes after two minutes; TTL as long.
`{account}:tickets`
                hash: the SHA-256 of each ticket to `<hash of its subject> <ms at which its token ends>` and a
                JSON list: key, when the token was issued, topics. `<SHA-256>:reader`: the claim of the edge
                that reads by it. At most 10,000 tickets. Gateway, edge. TTL of a day and a minute.
`{account}:ticket-ends`
                sorted set: their hashes by the ms until which they may be used: 30 s unless they were used,
                then the end of the token. Gateway, edge. Those that are over make room for new ones.
`{account}:ticket-subjects`
                hash: the tickets of each subject, by its hash, the oldest first; at most 20. Gateway.
"""

import hashlib

CHANGES = "{native-tokens}:changes"


def subject_hash(subject: str) -> str:
    """Its length is bounded, whatever the subject is; nobody makes two subjects of one hash."""
    return hashlib.sha256(subject.encode()).hexdigest()[:32]
