"""Recognition tasks, a file each; the module's name is the command's."""
