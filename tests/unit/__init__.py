"""The tests of each module, in the folders of the library."""
