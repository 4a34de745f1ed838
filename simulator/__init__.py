"""A KIS server for rehearsal: the broker's API in front of a small exchange.

The modules of `exchange` open no socket and read no clock. `api.rest`, `api.control` and `feed` handle requests and
WebSocket frames; `api.server` runs them.
"""
