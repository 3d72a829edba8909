"""The tests of the token sources: each grant, and what all of them share."""
