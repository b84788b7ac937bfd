"""The command line: options in, calls out, errors to exit codes; only here is click known."""
