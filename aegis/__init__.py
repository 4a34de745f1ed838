"""The rules of trading: pure Python, no Django, no input or output, no clock of its own."""
