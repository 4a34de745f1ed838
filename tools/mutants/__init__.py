"""Removes one rule at a time and runs the tests that must fail then."""
