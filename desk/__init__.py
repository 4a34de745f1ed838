"""Where people stand: the stream's dispatch, screens, messages."""
