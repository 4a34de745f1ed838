"""Market data: stocks, trading days, prices."""
