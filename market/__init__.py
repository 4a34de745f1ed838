"""Market data: calendar and security master (`reference_data`), candles, daily prices, order books, macro figures."""
