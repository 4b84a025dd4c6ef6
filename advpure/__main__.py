"""`python -m advpure` is `advpure`."""

from advpure.entry import main

if __name__ == "__main__":
    main()
