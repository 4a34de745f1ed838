"""Commands for developers. Nothing here runs in production."""
