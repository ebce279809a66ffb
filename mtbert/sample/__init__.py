"""The generated English of the default profile."""
