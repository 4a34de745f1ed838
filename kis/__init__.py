"""Korea Investment & Securities (한국투자증권): the only package that speaks the broker's language."""
