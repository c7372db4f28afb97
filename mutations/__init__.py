"""Each guarantee, the line of code that keeps it, and the test that fails without that line."""
