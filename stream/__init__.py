"""The stream worker: the broker's WebSockets, and the consumers that turn their data into candles, stops and halts."""
