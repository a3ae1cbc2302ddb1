"""One short file for each verb that Lightning does not have: `main(argv) -> int`."""
