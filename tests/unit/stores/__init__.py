"""The tests of the stores: a contract that all of them keep, and what each promises beyond it."""
