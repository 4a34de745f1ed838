"""What we hold: holdings, cash, and the balance they come from."""
