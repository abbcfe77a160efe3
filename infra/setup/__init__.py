"""Set-up: everything a fresh machine needs before the first part can start.

It is run by the system's own python3 before any environment exists, so every module of this package but
`fetch` (run by the tools environment) uses the standard library alone.

    paths      where every installed thing lies (also read by the launcher)
    plan       which steps exist, and which of them are still needed (pure)
    artifacts  the committed list of Java artifacts and the check of their digests
    fetch      downloads artifacts by their coordinates
    steps      what each step does
    runner     runs steps side by side and reports their progress
"""
