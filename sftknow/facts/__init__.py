"""Facts, relations with their completion templates, aliases, and the one scorer of answers."""
