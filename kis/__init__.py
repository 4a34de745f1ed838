"""Korea Investment & Securities (한국투자증권): the only package that knows the broker's protocol."""
