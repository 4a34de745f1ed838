"""The portfolio: holdings, cash, and the balance that they come from."""
