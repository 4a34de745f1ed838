"""Figures as commands: each prints ratios against a peer or a limit taken in the same run."""
