"""The live fleet: its words, its columns in memory, its binary frames and its news."""
