"""A KIS server for rehearsal: the broker's wire in front of a small exchange.

`exchange` and what it stands on (`book`, `tape`, `accounts`, `orders`, `ledger`) open no socket and
read no clock. `rest`, `feed` and `control` speak to the outside, `server` runs them.
"""
