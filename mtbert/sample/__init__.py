"""The generated English that the default profile runs on."""
