"""One suite that every server has to pass through a real mount.

Each test is one *feature*, runs once per server, and is one row of the table in docs/SERVERS.md. The mount
and what a test may do with it are in `stage`, a client that knows nothing of davfs in `rival`.

**A server of your own**, without knowing anything of it:

    DAVFS_CONTRACT_URL=https://host/dav/ DAVFS_CONTRACT_USER=me DAVFS_CONTRACT_PASSWORD=secret \\
        .venv/bin/python -m pytest tests/contract

works in a new folder below that address and removes it. Nothing is known of its limits, so a test that fails
says what cannot be done there. DAVFS_CONTRACT_OPTIONS is added to the mount's `-o`.

**A server that the tests start**: a class in tests/servers, and one line in `candidates.CANDIDATES`. What it
cannot do goes into `limits`, with the reason and the errno that the user gets. That table is held true from
both sides: the errno is asserted, and a limit that is none any more fails its test.

`DAVFS_WRITE_DOCS=1` writes the table of docs/SERVERS.md from what the run found. `DAVFS_SOAK=1` adds a file
of 2 GiB on each server, with the daemon's memory.
"""
