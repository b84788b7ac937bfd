"""The errors a user can meet: each is one sentence saying what is wrong, where, and what to do."""


class SftknowError(Exception):
    """A problem with what was given; the command line prints its text and exits with code 2."""


class ConfigError(SftknowError):
    """An option, a configuration file, or a combination of options that cannot be carried out."""


class DataError(SftknowError):
    """Facts, relations, mastery tables or records that are missing, malformed or do not fit together."""


class CheckpointError(SftknowError):
    """A model folder or Hub model that is missing, damaged, or not what the command needs."""
