"""The tests of keys: the RFCs' examples, the places where keys are, and what is wrong with them."""
