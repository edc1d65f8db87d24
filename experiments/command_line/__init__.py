"""The command line: commands, their flags, and what is said about bad ones."""
