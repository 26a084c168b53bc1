"""The GPUs as people see them: who holds each, what is wrong with it and what is wasted."""
