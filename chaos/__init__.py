"""Chaos: real services under faults drawn from a seed, then every row compared with the store.

    schedule.py  seed -> stores and faults, pure       world.py   servers, proxies, supervised services
    inject.py    a fault -> doing it                   follow.py  an SSE client that watches the percentage
    judge.py     what must hold when it is over        run.py     one run, from connecting to the verdict

`make chaos ARGS="--seed 17"` repeats a run; docs/chaos.md says what is broken and what is checked.
"""
