"""The tests of the token sources: each grant, and the one way in which all of them ask."""
