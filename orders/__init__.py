"""What we do: orders, executions, the chase, guards."""
