"""The command line: every command is a thin layer over public names of the package.

Nothing here imports torch before a command needs it, so that help comes at once.
"""
