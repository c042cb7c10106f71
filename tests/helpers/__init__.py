"""What test modules share: arrays of every kind, problems, and what is computed without the library's code."""
