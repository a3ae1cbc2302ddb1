"""The command line: Lightning's verbs (`lightning_cli`), and one short file for each other one: `main(argv) -> int`."""
