"""What runs inside the sandbox: standard library only, started as a bare interpreter, never imported by the
parent for its effects. `zygote` forks and supervises, `confine` takes rights away, `jobs` runs what is
left.
"""
