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
"""

import hashlib

CHANGES = "{native-tokens}:changes"


def subject_hash(subject: str) -> str:
    """Its length is bounded, whatever the subject is; nobody makes two subjects of one hash."""
    return hashlib.sha256(subject.encode()).hexdigest()[:32]
