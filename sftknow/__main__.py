"""`python -m sftknow`, which launchers such as accelerate call."""

from sftknow.cli.main import main

if __name__ == "__main__":
    main()
