"""Benchmarks and checks as commands. Benchmarks print ratios against a peer or a limit, measured in the same run."""
