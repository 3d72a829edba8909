"""The tests of each module, folder by folder as the library."""
