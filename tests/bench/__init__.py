"""The benchmark of mounts: davfs, rclone and davfs2 on one Apache share, behind one slow line, in one run.

    line.py        the slow line: a relay with a round trip, a bandwidth and counts, in a process of its own
    peers.py       how each mount is started, which process is its daemon, how it ends
    hands.py       the programs that are timed, in a process of their own
    fixtures.py    what lies on the server before
    table.py       the rows: targets and floors
    workloads.py   what is done for each row
    measuring.py   one measurement: seconds, requests, bytes, CPU, memory, and whether the bytes are right
    profiling.py   where the daemon's time goes
    mounts.py      the command: rows, lines, peers and rounds in turns
    results.py     figures by row, line and peer; kept as JSON, merged between runs
    report.py      the tables of docs/PERFORMANCE.md; chart.py draws docs/performance.svg
    million.py     a scripted server with a tree of 1,000,000 files

`scripts/bench mounts` runs it.
"""
