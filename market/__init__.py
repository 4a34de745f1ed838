"""What the market did: stocks, trading days, prices."""
