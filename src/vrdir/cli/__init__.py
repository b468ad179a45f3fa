"""The command line: one file a command. Only these modules print."""
