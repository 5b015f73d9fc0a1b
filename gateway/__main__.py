"""`python -m gateway`, and what the `gateway` script calls. The commands are in `gateway.cli`."""

from gateway.cli import main

if __name__ == "__main__":
    main()
